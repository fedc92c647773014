"""Three judges of a dataset, each by another hand: prints one JSON object of what they say.

    judge.py DIR

frictionless validates the Data Package, mlcroissant the Croissant description, whose records it reads, too,
and DuckDB compares each Parquet file with its CSV file. None of them asks the network.
"""

import json
import socket
import sys
from pathlib import Path

import duckdb
import mlcroissant
from frictionless import Package



def no_network(*_):
    raise OSError("a judge asks the network")


socket.socket.connect = no_network

TABLES = ["daily", "groups", "sources"]


def data_package(folder: Path) -> dict:
    package = Package(str(folder / "datapackage.json"))
    report = package.validate()
    errors = report.flatten(["rowNumber", "fieldName", "type", "message"])
    return {
        "valid": report.valid,
        "errors": errors[:20],
        "resources": [task.name for task in report.tasks],
        "rows": {task.name: task.stats.get("rows") for task in report.tasks},
    }


def croissant(folder: Path) -> dict:
    dataset = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    issues = dataset.metadata.issues
    errors, rows = sorted(issues.errors), {}
    try:
        rows = {name: sum(1 for _ in dataset.records(name)) for name in TABLES}
    except Exception as error:  # It compares hashes, too.
        errors.append(str(error))
    return {"errors": errors, "warnings": sorted(issues.warnings), "rows": rows}


def parquet(folder: Path) -> dict:
    found = {}
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    for name in TABLES:
        of_parquet = f"SELECT * FROM read_parquet('{folder / name}.parquet')"
        types = database.execute(f"DESCRIBE {of_parquet}").fetchall()
        # Read as the types of the other file: what does not fit is an error.
        columns = {column: kind for column, kind, *_ in types}
        of_csv = f"SELECT * FROM read_csv('{folder / name}.csv', header = true, columns = {columns})"
        only = lambda one, other: database.execute(
            f"SELECT count(*) FROM (({one}) EXCEPT ALL ({other}))"
        ).fetchone()[0]
        found[name] = {
            "rows": database.execute(f"SELECT count(*) FROM ({of_parquet})").fetchone()[0],
            "onlyInParquet": only(of_parquet, of_csv),
            "onlyInCsv": only(of_csv, of_parquet),
            "types": columns,
        }
    return found


folder = Path(sys.argv[1])
print(json.dumps({
    "dataPackage": data_package(folder),
    "croissant": croissant(folder),
    "parquet": parquet(folder),
}))
