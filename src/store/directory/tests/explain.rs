//! Questions about the newest changes of one account.

use super::super::super::schema;
use super::super::explain::{NEWEST, NEWEST_OF_KIND};
use super::*;

#[test]
fn the_newest_changes_of_an_account_are_found_by_the_index() {
    let conn = Connection::open_in_memory().unwrap();
    schema::migrate(&conn, schema::DIRECTORY.migrations).unwrap();
    for (sql, params) in [
        (NEWEST, vec!["did:plc:a"]),
        (NEWEST_OF_KIND, vec!["did:plc:a", "status"]),
    ] {
        let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = plan.query_map(rusqlite::params_from_iter(params), |row| row.get("detail"));
        let steps: Vec<String> = steps.unwrap().map(Result::unwrap).collect();
        assert_eq!(steps, ["SEARCH change USING INDEX change_did (did=?)"]);
    }
}
