use std::sync::Arc;

use super::entry_row::COLUMNS;
use super::*;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin, Rev};

mod ageing;
mod backfills;
mod claimants;
mod coverage;
mod explain;
mod lists;
mod proofs;
mod shares;
mod tally;
mod updates;

fn did(n: u64) -> Did {
    let tail: String = (0..24)
        .map(|i| char::from(b'a' + ((n >> (i * 2)) & 3) as u8))
        .collect();
    Did::parse(&format!("did:plc:{tail}")).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
}

fn entry(n: u64) -> Entry {
    Entry {
        did: did(n),
        handle: Some(Handle::parse(&format!("user{n}.example.com")).unwrap()),
        pds: Some(Origin::parse("https://pds.example.com").unwrap()),
        signing_key: None,
        status: AccountStatus::Active,
        state: PackageState::Present,
        reason: None,
        detail: None,
        rev: Some(Rev::parse("3n2wo76pa3k2w").unwrap()),
        commit: None,
        cid: None,
        proof_pds: None,
        proof_key: None,
        identity_key: None,
        peer: Some(format!("did:peer:2.{n}")),
        mediators: vec![
            MediatorDid::parse("did:web:b.example.com").unwrap(),
            MediatorDid::parse("did:web:a.example.com").unwrap(),
        ],
        regressed: false,
        source: "test".to_owned(),
        method: ProofMethod::GetRecord,
        observed_at: at(0),
        proved_at: Some(at(1)),
        checked_at: at(1),
        next_check_at: at(100),
        failure: Some("pds_unreachable".to_owned()),
        failures: 0,
        change_seq: 0,
        claimed: Some(Handle::parse(&format!("user{n}.example.com")).unwrap()),
        handle_at: Some(at(1)),
        handle_next_at: Some(at(90)),
        handle_failures: 2,
        identity_at: Some(at(0)),
        proofs: 7,
        missing_since: Some(at(2)),
        doubt_since: Some(at(3)),
        handle_checked_at: Some(at(1)),
        handle_news: true,
        domain: "example.com".to_owned(),
        asked: true,
    }
}

struct Fixture {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    store: Arc<DirectoryStore>,
}

fn open() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory.db");
    let store = Arc::new(DirectoryStore::open(&path).unwrap());
    Fixture {
        _dir: dir,
        path,
        store,
    }
}

#[tokio::test]
async fn entries_come_back_as_they_went_in() {
    let f = open();
    let cid = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let pds = Origin::parse("https://old.example.com").unwrap();
    // Something in every column.
    let written = Entry {
        signing_key: Some(k256_key()),
        reason: Some("a reason".to_owned()),
        detail: Some("a detail".to_owned()),
        commit: Some(cid.parse().unwrap()),
        cid: Some(cid.parse().unwrap()),
        proof_pds: Some(pds),
        proof_key: Some(k256_key()),
        identity_key: Some(k256_key()),
        regressed: true,
        failures: 3,
        change_seq: 4,
        ..entry(1)
    };
    let put = written.clone();
    f.store
        .transact(move |tx| tx.put_entry(&put))
        .await
        .unwrap();
    let read = f.store.query(|q| q.entry(&did(1))).await.unwrap();
    assert_eq!(read.as_ref(), Some(&written));
    let handle = written.handle.clone().unwrap();
    assert_eq!(
        f.store
            .query(move |q| q.did_by_handle(&handle, at(1), at(1)))
            .await
            .unwrap(),
        Some(did(1))
    );
    let peer = f
        .store
        .query(|q| q.claimants("did:peer:2.1", 10))
        .await
        .unwrap();
    assert_eq!(peer, vec![did(1)]);
    // Replacing it replaces its mediators; deleting it removes them.
    let mut fewer = entry(1);
    fewer.mediators.truncate(1);
    let put = fewer.clone();
    f.store
        .transact(move |tx| tx.put_entry(&put))
        .await
        .unwrap();
    assert_eq!(
        f.store.query(|q| q.entry(&did(1))).await.unwrap(),
        Some(fewer)
    );
    f.store
        .transact(|tx| tx.delete_entry(&did(1)))
        .await
        .unwrap();
    let mediator = MediatorDid::parse("did:web:b.example.com").unwrap();
    let left = f
        .store
        .query(move |q| q.accounts_of_mediator(&mediator, 9))
        .await
        .unwrap();
    assert!(left.is_empty());
}

#[tokio::test]
async fn all_columns_of_an_entry_are_written() {
    let f = open();
    let conn = Connection::open(&f.path).unwrap();
    let mut query = conn
        .prepare("SELECT name FROM pragma_table_info('entry')")
        .unwrap();
    let columns: Vec<String> = query
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    // The store itself keeps these.
    const KEPT: [&str; 4] = ["peer_since", "size", "proof_size", "counted_at"];
    let (kept, given): (Vec<_>, Vec<_>) = columns
        .iter()
        .map(String::as_str)
        .partition(|column| KEPT.contains(column));
    assert_eq!(given, COLUMNS);
    assert_eq!(kept, KEPT);
}

#[tokio::test]
async fn a_failed_write_undoes_itself_and_nothing_else() {
    let f = open();
    let mut writes = Vec::new();
    for n in 0..200_u64 {
        let store = Arc::clone(&f.store);
        writes.push(tokio::spawn(async move {
            store
                .transact(move |tx| {
                    tx.put_entry(&entry(n))?;
                    if n % 3 == 0 {
                        return Err(StoreError::Engine(rusqlite::Error::InvalidQuery.into()));
                    }
                    Ok(())
                })
                .await
        }));
    }
    for (n, write) in (0..).zip(writes) {
        assert_eq!(write.await.unwrap().is_ok(), n % 3 != 0);
        let there = f
            .store
            .query(move |q| q.entry(&did(n)))
            .await
            .unwrap()
            .is_some();
        assert_eq!(there, n % 3 != 0, "{n}");
    }
    assert!(f.store.is_healthy());
}

#[tokio::test]
async fn pending_refreshes_are_coalesced_and_completed_by_generation() {
    let f = open();
    let enqueue = |trigger: &str, seconds, hint: Option<&str>| {
        let new = NewPending {
            did: did(7),
            trigger: Trigger::parse(trigger).unwrap(),
            announced: hint.map_or(AnnouncedChange::Keep, |status| {
                AnnouncedChange::Set(AnnouncedStatus {
                    status: AccountStatus::parse(status),
                    pds: Origin::parse("https://pds.example.com").unwrap(),
                })
            }),
            not_before: at(seconds),
        };
        f.store.transact(move |tx| tx.enqueue_pending(&new, at(0)))
    };
    enqueue("relay commit", 50, None).await.unwrap();
    enqueue("pds account", 20, Some("takendown")).await.unwrap();
    let row = f
        .store
        .query(|q| q.pending(&did(7)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (
            row.trigger.to_string().as_str(),
            row.not_before,
            row.generation
        ),
        ("pds account", at(20), 2)
    );
    let hinted = row.announced.clone().map(|announced| announced.status);
    assert_eq!(hinted, Some(AccountStatus::Takendown));
    assert!(
        f.store
            .query(|q| q.due_pending(at(19), 9))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        f.store
            .query(|q| q.due_pending(at(20), 9))
            .await
            .unwrap()
            .len(),
        1
    );
    // A refresh does not complete what was coalesced while it ran.
    f.store
        .transact(|tx| tx.complete_pending(&did(7), 1))
        .await
        .unwrap();
    assert_eq!(f.store.query(|q| q.pending_count()).await.unwrap(), 1);
    f.store
        .transact(|tx| tx.retry_pending(&did(7), 2, at(90), true, Some("busy")))
        .await
        .unwrap();
    let row = f
        .store
        .query(|q| q.pending(&did(7)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((row.not_before, row.attempts), (at(90), 1));
    f.store
        .transact(|tx| tx.complete_pending(&did(7), 2))
        .await
        .unwrap();
    assert_eq!(f.store.query(|q| q.pending_count()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_handle_has_one_owner() {
    let f = open();
    f.store
        .transact(|tx| tx.put_entry(&entry(1)))
        .await
        .unwrap();
    let handle = entry(1).handle.unwrap();
    let lost = f
        .store
        .transact(move |tx| tx.claim_handle(&handle, &did(2), at(5)))
        .await
        .unwrap();
    assert_eq!(lost, vec![did(1)]);
    let left = f.store.query(|q| q.entry(&did(1))).await.unwrap().unwrap();
    assert_eq!((left.handle, left.handle_at), (None, None));
    assert_eq!(
        (left.handle_next_at, left.next_check_at),
        (Some(at(5)), at(5))
    );
}

#[tokio::test]
async fn a_handle_leads_to_its_account_within_the_times_asked_for() {
    let f = open();
    f.store
        .transact(|tx| tx.put_entry(&entry(1)))
        .await
        .unwrap();
    for (since, until, found) in [(1, 1, true), (0, 9, true), (2, 9, false), (0, 0, false)] {
        let handle = entry(1).handle.unwrap();
        let owner = f
            .store
            .query(move |q| q.did_by_handle(&handle, at(since), at(until)))
            .await
            .unwrap();
        assert_eq!(owner.is_some(), found, "{since} {until}");
    }
}

#[tokio::test]
async fn handles_to_be_checked_come_in_the_order_of_the_index() {
    let f = open();
    f.store
        .transact(|tx| {
            for n in 1..=7 {
                let mut entry = entry(n);
                entry.handle_news = n > 5;
                // The fourth claims nothing, and the fifth is not due.
                entry.handle_next_at = match n {
                    4 => None,
                    5 => Some(at(91)),
                    // The second and the third are due at one time.
                    2 | 3 => Some(at(10)),
                    n => Some(at(20 - n as i64)),
                };
                tx.put_entry(&entry)?;
            }
            Ok(())
        })
        .await
        .unwrap();
    let due = async |is_news: bool, limit: usize| {
        let (mut all, mut after) = (Vec::new(), DuePosition::START);
        loop {
            let page = f
                .store
                .query(move |q| q.due_handles(is_news, at(90), after, limit))
                .await
                .unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else {
                return all;
            };
            after = last.position;
            all.extend(page.into_iter().map(|row| row.did));
        }
    };
    for limit in [1, 2, 9] {
        assert_eq!(due(false, limit).await, [2, 3, 1].map(did));
        assert_eq!(due(true, limit).await, [7, 6].map(did));
    }
    let conn = Connection::open(&f.path).unwrap();
    let plan: String = conn
        .prepare(&format!("EXPLAIN QUERY PLAN {}", queries::DUE_HANDLES))
        .unwrap()
        .query_map((0, 90, 10, 2, 9), |row| row.get::<_, String>("detail"))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(plan.contains("entry_handle_due"), "{plan}");
    assert!(!plan.contains("TEMP B-TREE"), "{plan}");
}

#[tokio::test]
async fn a_store_survives_reopening_and_refuses_a_newer_schema() {
    let f = open();
    let cursor = SourceCursor {
        source: "pds".to_owned(),
        position: 42,
        event_time: Some("t".to_owned()),
    };
    let put = cursor.clone();
    f.store
        .transact(move |tx| tx.set_cursor(&put, at(0)))
        .await
        .unwrap();
    f.store.shutdown().await;
    assert!(matches!(
        f.store.transact(|tx| tx.delete_entry(&did(1))).await,
        Err(StoreError::Closed)
    ));
    let again = DirectoryStore::open(&f.path).unwrap();
    assert_eq!(
        again.query(|q| q.cursor("pds")).await.unwrap(),
        Some(cursor)
    );
    again.shutdown().await;
    let conn = Connection::open(&f.path).unwrap();
    conn.execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(
        DirectoryStore::open(&f.path),
        Err(StoreError::Newer { found: 99, .. })
    ));
}

fn k256_key() -> atcomm_proto::key::SigningKey {
    atcomm_proto::key::SigningKey::from_did_key(
        "did:key:zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc",
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_takes_no_read_connection_along() {
    let f = open();
    for _ in 0..4 {
        let store = Arc::clone(&f.store);
        let read = tokio::spawn(async move {
            let slow = |_: &Queries<'_>| {
                std::thread::sleep(std::time::Duration::from_millis(300));
                Ok(())
            };
            store.query(slow).await
        });
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        read.abort();
    }
    for _ in 0..20 {
        f.store.query(|q| q.entry_count()).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_is_ill_health_until_something_is_written_again() {
    let f = open();
    assert!(f.store.is_healthy());
    let full = f.store.transact(|_| Err::<(), _>(StoreError::Full)).await;
    assert!(matches!(full, Err(StoreError::Full)));
    assert!(!f.store.is_healthy());
    // A commit without a change says nothing about the disk.
    f.store
        .transact(|tx| tx.entry_count().map(drop))
        .await
        .unwrap();
    assert!(!f.store.is_healthy());
    f.store
        .transact(|tx| tx.put_entry(&entry(1)))
        .await
        .unwrap();
    assert!(f.store.is_healthy());
}

#[tokio::test]
async fn news_comes_before_listings_and_keeps_its_trigger() {
    let f = open();
    let enqueue = |n: u64, trigger: &str, seconds: i64| {
        let new = NewPending {
            did: did(n),
            trigger: Trigger::parse(trigger).unwrap(),
            announced: AnnouncedChange::Keep,
            not_before: at(seconds),
        };
        f.store.transact(move |tx| tx.enqueue_pending(&new, at(0)))
    };
    enqueue(1, "listing https://a.example.com", 0)
        .await
        .unwrap();
    enqueue(2, "relay commit", 5).await.unwrap();
    enqueue(2, "listing https://a.example.com", 0)
        .await
        .unwrap();
    let due = f.store.query(|q| q.due_pending(at(9), 9)).await.unwrap();
    let order: Vec<_> = due
        .iter()
        .map(|row| (row.did.clone(), row.trigger.to_string()))
        .collect();
    assert_eq!(
        order,
        [
            (did(2), "relay commit".to_owned()),
            (did(1), "listing https://a.example.com".to_owned())
        ]
    );
    assert_eq!(
        f.store
            .query(|q| q.listed_pending_count(at(9)))
            .await
            .unwrap(),
        1
    );
    // A listed account becomes news.
    enqueue(1, "pds sync", 9).await.unwrap();
    let row = f
        .store
        .query(|q| q.pending(&did(1)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.trigger.to_string(), "pds sync");
    assert_eq!(row.not_before, at(0));
    assert_eq!(
        f.store
            .query(|q| q.listed_pending_count(at(9)))
            .await
            .unwrap(),
        0
    );
}
