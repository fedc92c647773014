//! The tables of a snapshot have the columns that `docs/research.md` names.

use std::collections::BTreeSet;

use super::DOCUMENT;
use crate::store::{DirectoryStore, read_rows};

/// Returns the tables that the page describes with the columns that it names: those with a table of
/// columns, and those in running text.
fn documented() -> Vec<(String, Vec<String>)> {
    let mut tables = Vec::new();
    for (at, _) in DOCUMENT.match_indices("`, one row for each") {
        let name = DOCUMENT[..at].rsplit('`').next().unwrap();
        let rest = DOCUMENT[at..].lines();
        let rows = rest.skip_while(|line| !line.starts_with("| `"));
        let rows = rows.take_while(|line| line.starts_with('|'));
        let names = rows.flat_map(|row| row[1..].split_once('|').unwrap().0.split(','));
        let names = names.map(|name| name.trim().trim_matches('`').to_owned());
        tables.push((name.to_owned(), names.collect()));
    }
    let (_, text) = DOCUMENT
        .split_once("\n### Other tables of the snapshot\n")
        .unwrap();
    for (at, open) in text.match_indices("` (`") {
        let name = text[..at].rsplit('`').next().unwrap();
        let names = text[at + open.len() - 1..].split_once(')').unwrap().0;
        let names = names
            .split(',')
            .map(|name| name.trim().trim_matches('`').to_owned());
        tables.push((name.to_owned(), names.collect()));
    }
    tables
}

#[tokio::test]
async fn the_tables_have_the_columns_that_the_page_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory.db");
    let store = DirectoryStore::open(&path).unwrap();
    let mut checked = BTreeSet::new();
    // Those of an export are compared where it is made.
    let exports = ["accounts", "changes"];
    for (table, columns) in documented() {
        if exports.contains(&table.as_str()) {
            continue;
        }
        let columns: BTreeSet<String> = columns.into_iter().collect();
        let sql = format!("SELECT name FROM pragma_table_xinfo('{table}')");
        let actual: BTreeSet<String> = read_rows(&path, &sql).concat().into_iter().collect();
        let unknown: Vec<&String> = columns.difference(&actual).collect();
        assert!(unknown.is_empty(), "{table}: {unknown:?}");
        if table.starts_with("daily") || table.starts_with("entry_") {
            assert_eq!(columns, actual, "{table}");
        }
        checked.insert(table);
    }
    for table in [
        "change",
        "daily",
        "daily_group",
        "daily_source",
        "entry",
        "entry_mediator",
        "proof",
        "mediator",
        "tally",
        "change_hour",
        "coverage",
        "gap",
        "cursor",
    ] {
        assert!(checked.contains(table), "{table} in {checked:?}");
    }
    store.shutdown().await;
}
