//! The order of the accounts that claim one did:peer.

use super::super::super::schema;
use super::super::queries::{CLAIMANTS, OTHER_CLAIMANT};
use super::*;

const PEER: &str = "did:peer:2.shared";

/// Writes an entry with a package as an observation does: a change first, then the entry.
async fn package(f: &Fixture, n: u64, peer: Option<&str>, seconds: i64) {
    let peer = peer.map(str::to_owned);
    f.store
        .transact(move |tx| {
            let state = match peer {
                Some(_) => PackageState::Present,
                None => PackageState::Removed,
            };
            let put = Entry {
                handle: None,
                state,
                peer,
                observed_at: at(seconds),
                ..entry(n)
            };
            if put.peer.is_some() {
                tx.append_change(&change(&put, seconds), &Owner::of(&put))?;
            }
            tx.put_entry(&put)
        })
        .await
        .unwrap();
}

fn change(entry: &Entry, seconds: i64) -> Change {
    Change {
        seq: 0,
        did: entry.did.clone(),
        kind: ChangeKind::Package,
        rev: None,
        cid: None,
        peer: entry.peer.clone(),
        mediators: entry.mediators.clone(),
        key: None,
        detail: None,
        seen_at: at(seconds),
        proof: None,
        account: None,
    }
}

async fn claimants(f: &Fixture, limit: usize) -> Vec<Did> {
    f.store
        .query(move |q| q.claimants(PEER, limit))
        .await
        .unwrap()
}

#[tokio::test]
async fn later_claimants_come_after_the_owner_whatever_the_owner_changes() {
    let f = open();
    package(&f, 1, Some(PEER), 0).await;
    for n in 2..20 {
        package(&f, n, Some(PEER), 10).await;
    }
    // A new label, other mediators: the same did:peer is observed anew.
    package(&f, 1, Some(PEER), 100).await;
    assert_eq!(claimants(&f, 16).await[0], did(1));
    // Another did:peer, and back; the record removed, and put again.
    for between in [Some("did:peer:2.other"), None] {
        package(&f, 1, between, 200).await;
        assert!(!claimants(&f, 99).await.contains(&did(1)));
        package(&f, 1, Some(PEER), 300).await;
        assert_eq!(claimants(&f, 16).await[0], did(1), "{between:?}");
    }
    // An entry that was dropped begins anew, and the change log still knows the account.
    f.store
        .transact(|tx| tx.delete_entry(&did(1)))
        .await
        .unwrap();
    package(&f, 1, Some(PEER), 400).await;
    assert_eq!(claimants(&f, 16).await[0], did(1));
    // An account that is not active claims nothing.
    f.store
        .transact(|tx| {
            let mut gone = tx.entry(&did(1))?.unwrap();
            gone.status = AccountStatus::Deactivated;
            tx.put_entry(&gone)
        })
        .await
        .unwrap();
    assert_eq!(claimants(&f, 99).await.len(), 18);
}

#[test]
fn entries_of_the_first_schema_are_ordered_by_the_change_log() {
    let conn = Connection::open_in_memory().unwrap();
    let migrations = schema::DIRECTORY.migrations;
    schema::migrate(&conn, &migrations[..1]).unwrap();
    let put = |did: &str, observed_at: i64| {
        conn.execute(
            "INSERT INTO entry (did, status, state, peer, regressed, source, method, observed_at,
               checked_at, next_check_at, failures, change_seq)
             VALUES (?1, 'active', 'present', 'did:peer:2.shared', 0, 'pds', 'commit', ?2, 0, 0, 0, 0)",
            (did, observed_at),
        )
        .unwrap();
    };
    put("did:plc:later", 50);
    put("did:plc:relabelled", 90);
    conn.execute_batch(
        "INSERT INTO change (did, kind, peer, seen_at) VALUES
           ('did:plc:relabelled', 'package', 'did:peer:2.shared', 20),
           ('did:plc:relabelled', 'package', 'did:peer:2.shared', 90);",
    )
    .unwrap();
    schema::migrate(&conn, migrations).unwrap();
    let mut query = conn.prepare(CLAIMANTS).unwrap();
    let rows = query.query_map((PEER, 9), |row| row.get(0)).unwrap();
    let order: Vec<String> = rows.map(Result::unwrap).collect();
    assert_eq!(order, ["did:plc:relabelled", "did:plc:later"]);
    let plan = |sql: &str| -> Vec<String> {
        let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = plan.query_map((PEER, 9), |row| row.get("detail")).unwrap();
        steps.map(Result::unwrap).collect()
    };
    // Neither sorts: each reads no more rows than it gives, but for one of the account itself.
    assert_eq!(
        plan(CLAIMANTS),
        ["SEARCH entry USING INDEX entry_claimant (peer=?)"]
    );
    assert_eq!(
        plan(OTHER_CLAIMANT),
        ["SEARCH entry USING INDEX entry_claimant (peer=?)"]
    );
}

#[tokio::test]
async fn an_account_is_no_other_claimant_beside_itself() {
    let f = open();
    let has_other = async |n: u64| {
        let read = f.store.query(move |q| q.has_other_claimant(PEER, &did(n)));
        read.await.unwrap()
    };
    package(&f, 1, Some(PEER), 0).await;
    assert!(!has_other(1).await);
    assert!(has_other(2).await);
    package(&f, 2, Some(PEER), 0).await;
    assert!(has_other(1).await && has_other(2).await);
    package(&f, 1, None, 1).await;
    assert!(has_other(1).await && !has_other(2).await);
}
