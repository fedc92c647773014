"""JSON values against JSON Schemas (2020-12), as JSON lines: `schemas.py DIRECTORY`.

Every *.json below the directory is loaded; one that is no valid schema ends the script with exit
code 1. Each input line `{"schema", "instance"}` gets one line `{"ok": true}` or
`{"ok": false, "error"}`; `schema` is a path below the directory. Schemas may refer to each other
by `$id`, and where there is none by that path.
"""

import json
import sys
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

Schemas = dict[str, Any]


def load(directory: Path) -> Schemas:
    """All schemas by their paths."""
    schemas = {}
    for path in sorted(directory.rglob("*.json")):
        name = path.relative_to(directory).as_posix()
        schemas[name] = json.loads(path.read_text())
        try:
            Draft202012Validator.check_schema(schemas[name])
        except SchemaError as error:
            sys.exit(f"{name} is no valid schema: {error.message} at {error.json_path}")
    return schemas


def check(schemas: Schemas, registry: Registry, line: str) -> dict[str, Any]:
    """The answer to one line."""
    question = json.loads(line)
    if question["schema"] not in schemas:
        return {"ok": False, "error": f"no schema {question['schema']}"}
    validator = Draft202012Validator(schemas[question["schema"]], registry=registry)
    try:
        error = best_match(validator.iter_errors(question["instance"]))
    except Unresolvable as unresolvable:
        return {"ok": False, "error": f"the schema refers to nothing: {unresolvable.ref}"}
    if error is None:
        return {"ok": True}
    return {"ok": False, "error": f"{error.message} at {error.json_path}"}


def main() -> None:
    schemas = load(Path(sys.argv[1]))
    registry = Registry()
    for name, schema in schemas.items():
        resource = Resource.from_contents(schema, default_specification=DRAFT202012)
        registry = registry.with_resource(resource.id() or name, resource)
    for line in sys.stdin:
        print(json.dumps(check(schemas, registry, line)), flush=True)


if __name__ == "__main__":
    main()
