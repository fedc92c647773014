//! What readers of the change log find, and how.

use super::super::updates::{CHANGE_BEFORE, EXPIRED_HANDLES, KNOWN_GOOD, LOGGED};
use super::*;

#[test]
fn the_log_is_read_in_order_and_nothing_is_sorted_or_scanned() {
    let conn = Connection::open_in_memory().unwrap();
    schema::migrate(&conn, schema::DIRECTORY.migrations).unwrap();
    let plan = |sql: &str| -> Vec<String> {
        let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let count = plan.parameter_count();
        let params = rusqlite::params_from_iter((0..count).map(|_| 1));
        let steps = plan.query_map(params, |row| row.get("detail")).unwrap();
        steps.map(Result::unwrap).collect()
    };
    let logged = plan(LOGGED);
    assert_eq!(logged.len(), 2, "{logged:?}");
    assert_eq!(logged[0], "SEARCH c USING INTEGER PRIMARY KEY (rowid>?)");
    assert!(logged[1].starts_with("SEARCH e USING"), "{logged:?}");
    assert_eq!(
        plan(CHANGE_BEFORE),
        ["SEARCH change USING INDEX change_did (did=? AND seq<?)"]
    );
    assert_eq!(
        plan(EXPIRED_HANDLES),
        ["SEARCH entry USING INDEX entry_handle_at (handle_at<?)"]
    );
    let doubt = plan(KNOWN_GOOD).join("; ");
    assert!(doubt.contains("COVERING INDEX entry_doubt"), "{doubt}");
    assert!(!doubt.contains("TEMP B-TREE"), "{doubt}");
}

/// The newest change of each account tells its state, also where it was written by a version that
/// did not keep it.
#[test]
fn changes_of_an_earlier_schema_tell_the_state_that_the_entry_has() {
    let conn = Connection::open_in_memory().unwrap();
    let migrations = schema::DIRECTORY.migrations;
    let before = migrations
        .iter()
        .position(|step| step.contains("CREATE TABLE change_log"))
        .unwrap();
    schema::migrate(&conn, &migrations[..before]).unwrap();
    conn.execute_batch(
        "INSERT INTO entry (did, status, state, handle, pds, regressed, source, method,
           observed_at, checked_at, next_check_at, failures, change_seq)
         VALUES ('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa', 'takendown', 'present', 'a.example.com',
           'https://pds.example.com', 1, 'pds', 'commit', 0, 0, 0, 0, 0);
         INSERT INTO change (did, kind, seen_at) VALUES
           ('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa', 'package', 1),
           ('did:plc:bbbbbbbbbbbbbbbbbbbbbbbb', 'package', 2),
           ('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa', 'status', 3),
           ('did:plc:bbbbbbbbbbbbbbbbbbbbbbbb', 'dropped', 4);",
    )
    .unwrap();
    schema::migrate(&conn, migrations).unwrap();
    let mut found = Vec::new();
    Queries(&conn)
        .each_logged(0, |logged| {
            found.push((logged.change.account, logged.is_active_now));
            Ok(true)
        })
        .unwrap();
    let state = EntryState {
        status: AccountStatus::Takendown,
        state: PackageState::Present,
        reason: None,
        handle: Some(Handle::parse("a.example.com").unwrap()),
        pds: Some(Origin::parse("https://pds.example.com").unwrap()),
        regressed: true,
    };
    let expected = [None, None, Some(state), None].map(|state| (state, false));
    assert_eq!(found, expected);
}

#[tokio::test]
async fn starts_are_kept_in_bounded_number() {
    let f = open();
    let position = async |position| {
        f.store
            .query(move |q| q.log_position(position))
            .await
            .unwrap()
    };
    let append = |tx: &Tx<'_>, n: i64| {
        let change = Change::of(&entry(1), ChangeKind::Status, None, at(n));
        tx.append_change(&change, &Owner::of(&entry(1)))
    };
    let given = f.store.transact(move |tx| {
        tx.begin_log(at(0))?;
        let one = |n| {
            let seq = append(tx, n)?;
            tx.begin_log(at(n)).map(|()| seq)
        };
        (1..=1002).map(one).collect::<Result<Vec<_>, StoreError>>()
    });
    let given = given.await.unwrap();
    let count: i64 = Connection::open(&f.path)
        .unwrap()
        .query_row("SELECT count(*) FROM change_log_start", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(count, 1000);
    let newest = *given.last().unwrap();
    // Positions of starts that are known are told from others, and earlier ones are too old.
    assert!(!position(newest).await.is_foreign);
    assert!(position(newest + 1).await.is_foreign);
    assert!(position(given[0]).await.floor > given[0]);
    assert!(position(newest).await.floor < newest);
    // A clock that was put back begins no position again.
    let seq = f.store.transact(move |tx| {
        tx.begin_log(at(-1000))?;
        append(tx, 5)
    });
    assert!(seq.await.unwrap() > newest);
}
