//! The newest proof of an account, and what is kept of those before.

use super::*;

/// Appends a change that brought a package. Returns its position.
async fn package(f: &Fixture, n: u64, proof: Option<Vec<u8>>) -> i64 {
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
        seen_at: at(0),
        proof,
        account: None,
    };
    f.store
        .transact(move |tx| {
            tx.put_entry(&entry(n))?;
            tx.append_change(&change, &Owner::of(&entry(n)))
        })
        .await
        .unwrap()
}

async fn put(f: &Fixture, n: u64, car: Vec<u8>) {
    f.store
        .transact(move |tx| tx.put_proof(&did(n), &car))
        .await
        .unwrap();
}

async fn proof(f: &Fixture, n: u64) -> Option<Vec<u8>> {
    f.store.query(move |q| q.proof(&did(n))).await.unwrap()
}

/// Saves the newest proof with the change at `seq`.
async fn save(f: &Fixture, n: u64, seq: i64, rev: &str) {
    let superseded = SupersededProof {
        seq,
        rev: Some(Rev::parse(rev).unwrap()),
        key: Some(k256_key()),
    };
    f.store
        .transact(move |tx| tx.save_proof(&did(n), &superseded))
        .await
        .unwrap();
}

/// The saved proofs of an account, the oldest first.
async fn saved(f: &Fixture, n: u64) -> Vec<Option<Vec<u8>>> {
    let changes = f.store.query(move |q| q.changes(&did(n), 99)).await;
    let changes = changes.unwrap().into_iter().rev();
    changes.map(|change| change.proof).collect()
}

#[tokio::test]
async fn a_proof_lives_as_long_as_its_entry() {
    let f = open();
    package(&f, 1, None).await;
    put(&f, 1, vec![1]).await;
    put(&f, 1, vec![2, 3]).await;
    assert_eq!(proof(&f, 1).await, Some(vec![2, 3]));
    f.store
        .transact(|tx| tx.delete_proof(&did(1)))
        .await
        .unwrap();
    assert_eq!(proof(&f, 1).await, None);
    put(&f, 1, vec![4]).await;
    // A check of the entry leaves it alone.
    f.store
        .transact(|tx| tx.put_entry(&entry(1)))
        .await
        .unwrap();
    assert_eq!(proof(&f, 1).await, Some(vec![4]));
    f.store
        .transact(|tx| tx.delete_entry(&did(1)))
        .await
        .unwrap();
    assert_eq!(proof(&f, 1).await, None);
    // There is none without an entry.
    let alone = f.store.transact(|tx| tx.put_proof(&did(2), &[1])).await;
    assert!(alone.is_err());
}

#[tokio::test]
async fn the_same_proof_again_is_not_written() {
    let f = open();
    package(&f, 1, None).await;
    put(&f, 1, vec![7; 20_000]).await;
    let written = async |car: Vec<u8>| {
        f.store
            .transact(move |tx| {
                let before = tx.conn().total_changes();
                tx.put_proof(&did(1), &car)?;
                Ok(tx.conn().total_changes() - before)
            })
            .await
            .unwrap()
    };
    assert_eq!(written(vec![7; 20_000]).await, 0);
    assert!(written(vec![8; 20_000]).await > 0);
}

#[tokio::test]
async fn inv7_a_superseded_proof_is_kept_once_and_not_where_it_is_large() {
    let f = open();
    let limit = usize::try_from(super::super::writes::MAX_SAVED_PROOF).unwrap();
    let (first, second) = (package(&f, 1, None).await, package(&f, 1, None).await);
    let car = vec![5; limit];
    put(&f, 1, car.clone()).await;
    save(&f, 1, first, "3n2wo76pa3k2w").await;
    // The same commit under a later change.
    save(&f, 1, second, "3n2wo76pa3k2w").await;
    assert_eq!(saved(&f, 1).await, [Some(car.clone()), None]);
    let third = package(&f, 1, None).await;
    put(&f, 1, vec![6; limit + 1]).await;
    save(&f, 1, third, "3n2wo76pa3k2x").await;
    assert_eq!(saved(&f, 1).await, [Some(car), None, None]);
    // Without a newest proof there is nothing to save.
    f.store
        .transact(|tx| tx.delete_proof(&did(1)))
        .await
        .unwrap();
    save(&f, 1, third, "3n2wo76pa3k2y").await;
    assert_eq!(saved(&f, 1).await.last(), Some(&None));
}

#[tokio::test]
async fn inv7_evidence_is_bounded_and_not_repeated() {
    let f = open();
    let limit = usize::try_from(super::super::writes::MAX_SAVED_PROOF).unwrap();
    let write = async |n: u64, rev: u64, len: usize| {
        f.store
            .transact(move |tx| {
                let digits = format!("3n2wo76pa3k{}", char::from(b'a' + rev as u8));
                let rev = Rev::parse(&format!("{digits}2")).unwrap();
                tx.save_evidence(
                    &did(n),
                    rev,
                    None,
                    &k256_key(),
                    &vec![1; len],
                    &Owner::default(),
                    at(0),
                )
            })
            .await
            .unwrap();
    };
    for _ in 0..3 {
        write(1, 0, 1).await;
    }
    for rev in 0..24 {
        // Large ones, as many as fit; many small ones; one that is too large.
        write(2, rev, limit).await;
        write(3, rev, 100).await;
    }
    write(4, 0, limit + 1).await;
    let conn = Connection::open(&f.path).unwrap();
    let kept = |n: u64| {
        conn.query_row(
            "SELECT count(*), coalesce(sum(length(proof)), 0) FROM evidence WHERE did = ?1",
            [did(n).as_str()],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
        )
        .unwrap()
    };
    let limit = i64::try_from(limit).unwrap();
    assert_eq!(kept(1), (1, 1));
    assert_eq!(kept(2), (4, 4 * limit));
    assert_eq!(kept(3), (16, 1600));
    assert_eq!(kept(4), (0, 0));
}

#[tokio::test]
async fn all_that_is_kept_of_an_account_can_be_deleted() {
    let f = open();
    for n in [1, 2] {
        package(&f, n, Some(vec![1])).await;
        f.store
            .transact(move |tx| {
                let rev = Rev::parse("3n2wo76pa3k2w").unwrap();
                tx.save_evidence(
                    &did(n),
                    rev,
                    None,
                    &k256_key(),
                    &[1],
                    &Owner::of(&entry(n)),
                    at(0),
                )
            })
            .await
            .unwrap();
    }
    f.store
        .transact(|tx| tx.delete_history(&did(1)))
        .await
        .unwrap();
    assert!(saved(&f, 1).await.is_empty());
    assert_eq!(saved(&f, 2).await.len(), 1);
    let conn = Connection::open(&f.path).unwrap();
    let left: Vec<String> = conn
        .prepare("SELECT did FROM evidence")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(left, [did(2).to_string()]);
}

/// A file of the schema before keeps its proofs.
#[test]
fn proofs_of_the_earlier_schema_get_rows_of_their_own() {
    use super::super::super::schema;
    let conn = Connection::open_in_memory().unwrap();
    let migrations = schema::DIRECTORY.migrations;
    schema::migrate(&conn, &migrations[..3]).unwrap();
    for n in 0..1000_u32 {
        conn.execute(
            "INSERT INTO entry (did, status, state, regressed, source, method, observed_at,
               checked_at, next_check_at, failures, change_seq, record, proof)
             VALUES (?1, 'active', 'present', 0, 'pds', 'commit', 0, 0, 0, 0, 0, x'a0', ?2)",
            (
                did(n.into()).as_str(),
                (n % 3 > 0).then(|| n.to_be_bytes().repeat(1000)),
            ),
        )
        .unwrap();
    }
    schema::migrate(&conn, migrations).unwrap();
    for n in 0..1000_u32 {
        let q = Queries(&conn);
        let expected = (n % 3 > 0).then(|| n.to_be_bytes().repeat(1000));
        assert_eq!(q.proof(&did(n.into())).unwrap(), expected);
        assert!(q.entry(&did(n.into())).unwrap().is_some());
    }
}
