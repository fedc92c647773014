//! What is deleted for its age, and the room that comes back.

use super::*;

async fn change(f: &Fixture, n: u64, seconds: i64) -> i64 {
    let change = Change {
        seq: 0,
        did: did(n),
        kind: ChangeKind::Package,
        rev: None,
        cid: None,
        peer: None,
        mediators: Vec::new(),
        key: None,
        detail: None,
        seen_at: at(seconds),
        proof: Some(vec![1; 1000]),
        account: None,
    };
    f.store
        .transact(move |tx| tx.append_change(&change, &Owner::of(&entry(n))))
        .await
        .unwrap()
}

/// Goes through the whole log.
async fn age(f: &Fixture, before: Timestamp, limit: usize) {
    let mut position = 0;
    while let Some(next) = f
        .store
        .transact(move |tx| tx.age_changes(position, before, limit))
        .await
        .unwrap()
    {
        assert!(next > position);
        position = next;
    }
}

async fn times(f: &Fixture, n: u64) -> Vec<i64> {
    let changes = f.store.query(move |q| q.changes(&did(n), 99)).await;
    let changes = changes.unwrap();
    let seconds = |change: &Change| (change.seen_at.millis() - at(0).millis()) / 1000;
    changes.iter().map(seconds).collect()
}

#[tokio::test]
async fn inv7_old_changes_go_but_for_the_newest_of_an_account() {
    for limit in [1, 3, 100] {
        let f = open();
        f.store
            .transact(|tx| {
                tx.put_entry(&entry(1))?;
                tx.put_entry(&entry(2))
            })
            .await
            .unwrap();
        // The third account has no entry any more.
        for (n, seconds) in [
            (1, 0),
            (3, 1),
            (1, 2),
            (2, 3),
            (3, 4),
            (1, 50),
            (3, 51),
            (2, 52),
        ] {
            change(&f, n, seconds).await;
        }
        age(&f, at(10), limit).await;
        assert_eq!(times(&f, 1).await, [50], "{limit}");
        assert_eq!(times(&f, 2).await, [52]);
        assert_eq!(times(&f, 3).await, [51]);
        age(&f, at(99), limit).await;
        assert_eq!(times(&f, 1).await, [50]);
        assert!(times(&f, 3).await.is_empty());
        // The end of the log stays, by which its followers know it.
        change(&f, 3, 60).await;
        age(&f, at(99), limit).await;
        assert_eq!(times(&f, 3).await, [60]);
        let usage = f.store.query(|q| q.usage()).await.unwrap();
        assert_eq!(usage, 3);
    }
}

impl Queries<'_> {
    /// The number of changes.
    fn usage(&self) -> Result<i64, StoreError> {
        Ok(self
            .0
            .query_row("SELECT count(*) FROM change", [], |row| row.get(0))?)
    }
}

#[tokio::test]
async fn inv7_old_evidence_goes() {
    let f = open();
    for n in 0..9_u64 {
        f.store
            .transact(move |tx| {
                let rev = Rev::parse("3n2wo76pa3k2w").unwrap();
                let key = k256_key();
                let seen = at(i64::try_from(n).unwrap());
                tx.save_evidence(&did(n), rev, None, &key, &[1], &Owner::default(), seen)
            })
            .await
            .unwrap();
    }
    let left = async || {
        let count = |q: &Queries<'_>| {
            Ok(q.0.query_row("SELECT count(*) FROM evidence", [], |row| {
                row.get::<_, i64>(0)
            })?)
        };
        f.store.query(count).await.unwrap()
    };
    for (limit, expected) in [(2, 7), (99, 4)] {
        f.store
            .transact(move |tx| tx.age_evidence(at(5), limit))
            .await
            .unwrap();
        assert_eq!(left().await, expected);
    }
}

/// Accounts with large proofs, as an attacker makes them.
async fn flood(f: &Fixture, count: u64) {
    f.store
        .transact(move |tx| {
            for n in 0..count {
                let put = Entry {
                    handle: None,
                    ..entry(n)
                };
                tx.put_entry(&put)?;
                tx.put_proof(&put.did, &[7; 60_000])?;
            }
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn the_file_gives_back_what_deleted_accounts_took() {
    let f = open();
    let size = async || f.store.query(|q| q.file_bytes()).await.unwrap().0;
    let empty = size().await;
    flood(&f, 300).await;
    let full = size().await;
    f.store
        .transact(|tx| (0..300).try_for_each(|n| tx.delete_entry(&did(n))))
        .await
        .unwrap();
    while f.store.transact(|tx| tx.shrink(10, 512)).await.unwrap() > 0 {}
    let after = size().await;
    println!(
        "300 hostile accounts: {empty} bytes, {full} with them, {after} after they are deleted"
    );
    assert!(full > 18_000_000 && after < empty + 200_000);
    f.store.shutdown().await;
    assert_eq!(std::fs::metadata(&f.path).unwrap().len(), after);
}

/// A file that cannot shrink is made into one that can.
#[tokio::test]
async fn a_file_of_an_earlier_version_shrinks_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory.db");
    {
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        super::super::super::schema::migrate(
            &conn,
            super::super::super::schema::DIRECTORY.migrations,
        )
        .unwrap();
        let mode: i64 = conn
            .pragma_query_value(None, "auto_vacuum", |row| row.get(0))
            .unwrap();
        assert_eq!(mode, 0);
        Tx::new(&conn).put_entry(&entry(7)).unwrap();
    }
    let f = Fixture {
        store: Arc::new(DirectoryStore::open(&path).unwrap()),
        _dir: dir,
        path,
    };
    assert_eq!(
        f.store.query(|q| q.entry(&did(7))).await.unwrap(),
        Some(entry(7))
    );
    flood(&f, 30).await;
    f.store
        .transact(|tx| (0..30).try_for_each(|n| tx.delete_entry(&did(n))))
        .await
        .unwrap();
    assert!(f.store.transact(|tx| tx.shrink(10, 100)).await.unwrap() > 0);
    f.store.shutdown().await;
    // Nothing is rewritten a second time.
    let again = DirectoryStore::open(&f.path).unwrap();
    assert_eq!(again.query(|q| q.entry_count()).await.unwrap(), 0);
}
