//! What each domain takes: the sums are those of a full count, and of the disk.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::super::schema;
use super::*;

/// One write.
#[derive(Debug, Clone)]
enum Write {
    Entry {
        n: u64,
        pds: u64,
        mediators: usize,
        detail: usize,
        asked: bool,
    },
    BySource(u64),
    Proof(u64, usize),
    NoProof(u64),
    Change(u64, usize),
    Supersede(u64),
    Evidence(u64, u64),
    Delete(u64),
    DeleteHistory(u64),
    Mediator(u64, usize),
    Unnamed(u64),
}

fn write() -> impl Strategy<Value = Write> {
    let n = 0..4_u64;
    prop_oneof![
        3 => (n.clone(), 0..3_u64, 0..3_usize, 0..40_usize, any::<bool>()).prop_map(
            |(n, pds, mediators, detail, asked)| Write::Entry { n, pds, mediators, detail, asked }
        ),
        1 => n.clone().prop_map(Write::BySource),
        3 => (n.clone(), 0..40_000_usize).prop_map(|(n, len)| Write::Proof(n, len)),
        1 => n.clone().prop_map(Write::NoProof),
        3 => (n.clone(), 0..300_000_usize).prop_map(|(n, len)| Write::Change(n, len)),
        2 => n.clone().prop_map(Write::Supersede),
        1 => (n.clone(), 0..9_u64).prop_map(|(n, rev)| Write::Evidence(n, rev)),
        1 => n.clone().prop_map(Write::Delete),
        1 => n.clone().prop_map(Write::DeleteHistory),
        2 => (n.clone(), 0..9000_usize).prop_map(|(n, len)| Write::Mediator(n, len)),
        1 => n.prop_map(Write::Unnamed),
    ]
}

fn rev(n: u64) -> Rev {
    let digit = char::from(b'a' + (n % 26) as u8);
    Rev::parse(&format!("3n2wo76pa3k{digit}2")).unwrap()
}

fn entry_at(n: u64, pds: u64) -> Entry {
    let pds = (pds > 0).then(|| Origin::parse(&format!("https://a.pds{pds}.example")).unwrap());
    Entry {
        handle: None,
        claimed: None,
        domain: String::new(),
        asked: false,
        pds,
        ..entry(n)
    }
}

fn mediator(n: u64) -> MediatorDid {
    MediatorDid::parse(&format!("did:web:m{n}.pds{}.example", n % 2)).unwrap()
}

fn change_of(n: u64, detail: usize) -> Change {
    Change {
        seq: 0,
        did: did(n),
        kind: ChangeKind::Package,
        rev: None,
        cid: None,
        peer: Some("did:peer:2.ü".to_owned()),
        mediators: entry(n).mediators,
        key: None,
        detail: Some("d".repeat(detail)),
        seen_at: at(0),
        proof: None,
        account: None,
    }
}

fn run(tx: &Tx<'_>, write: &Write, step: u64) -> Result<(), StoreError> {
    let owner = |tx: &Tx<'_>, n| -> Result<Owner, StoreError> {
        Ok(tx
            .entry(&did(n))?
            .map_or_else(Owner::default, |entry| Owner::of(&entry)))
    };
    match write {
        Write::Entry {
            n,
            pds,
            mediators,
            detail,
            asked,
        } => {
            let known = tx.entry(&did(*n))?;
            let mut put = Entry {
                detail: Some("ü".repeat(*detail)),
                asked: *asked && known.as_ref().is_none_or(|known| known.asked),
                domain: known.map(|known| known.domain).unwrap_or_default(),
                ..entry_at(*n, *pds)
            };
            put.mediators.truncate(*mediators);
            tx.put_entry(&put)
        }
        Write::BySource(n) => tx.brought_by_source(&did(*n)),
        Write::Proof(n, len) if tx.entry(&did(*n))?.is_some() => {
            tx.put_proof(&did(*n), &vec![step as u8; *len])
        }
        Write::Proof(..) => Ok(()),
        Write::NoProof(n) => tx.delete_proof(&did(*n)),
        Write::Change(n, len) => tx
            .append_change(&change_of(*n, *len), &owner(tx, *n)?)
            .map(drop),
        Write::Supersede(n) => match tx.changes(&did(*n), 1)?.first() {
            Some(newest) => {
                let superseded = SupersededProof {
                    seq: newest.seq,
                    rev: Some(rev(step)),
                    key: Some(k256_key()),
                };
                tx.save_proof(&did(*n), &superseded)
            }
            None => Ok(()),
        },
        Write::Evidence(n, at_rev) => {
            let owner = owner(tx, *n)?;
            tx.save_evidence(
                &did(*n),
                rev(*at_rev),
                None,
                &k256_key(),
                &[1; 999],
                &owner,
                at(0),
            )
        }
        Write::Delete(n) => tx.delete_entry(&did(*n)),
        Write::DeleteHistory(n) => tx.delete_history(&did(*n)),
        Write::Mediator(n, len) => tx.put_mediator(&MediatorRow {
            did: mediator(*n),
            document: "ü".repeat(*len),
            checked_at: at(0),
            next_check_at: at(0),
            failures: 0,
        }),
        Write::Unnamed(n) => tx.delete_mediator(&mediator(*n)).map(drop),
    }
}

fn number(row: &rusqlite::Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    let number: i64 = row.get(column)?;
    Ok(number as u64)
}

/// What each domain takes by a full count of all rows.
fn counted(conn: &Connection) -> BTreeMap<String, Usage> {
    let mut query = conn
        .prepare(
            "SELECT domain, asked, 1, size + coalesce((SELECT octet_length(car) FROM proof
               WHERE proof.did = entry.did), 0) FROM entry
             UNION ALL SELECT domain, asked, 0, size + coalesce(octet_length(proof), 0) FROM change
             UNION ALL SELECT domain, asked, 0, size + octet_length(proof) FROM evidence
             UNION ALL SELECT domain, 0, 0, 150 + 2 * octet_length(did) + octet_length(document)
               FROM mediator",
        )
        .unwrap();
    let rows = query.query_map([], |row| {
        Ok((
            row.get::<_, String>(0)?,
            number(row, 1)?,
            number(row, 2)?,
            number(row, 3)?,
        ))
    });
    let mut shares: BTreeMap<String, Usage> = BTreeMap::new();
    for row in rows.unwrap() {
        let (domain, asked, entries, bytes) = row.unwrap();
        let share = shares.entry(domain).or_default();
        share.entries += entries;
        share.asked += asked * entries;
        share.bytes += bytes;
        share.asked_bytes += asked * bytes;
    }
    shares
}

/// Compares the sums with a full count.
fn check(conn: &Connection) {
    let q = Queries(conn);
    let counted = counted(conn);
    let shares: BTreeMap<String, Usage> = q.largest_shares(99).unwrap().into_iter().collect();
    assert_eq!(shares, counted);
    let mut all = Usage::default();
    for (domain, share) in counted {
        assert_eq!(q.share_of(&domain).unwrap(), share);
        all.entries += share.entries;
        all.asked += share.asked;
        all.bytes += share.bytes;
        all.asked_bytes += share.asked_bytes;
    }
    assert_eq!(q.share_of_all().unwrap(), all);
}

fn in_memory() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    schema::migrate(&conn, schema::DIRECTORY.migrations).unwrap();
    conn
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn inv7_shares_are_those_of_a_full_count(
        writes in proptest::collection::vec((write(), any::<bool>()), 1..60),
    ) {
        let conn = in_memory();
        for (step, (write, fails)) in (0..).zip(&writes) {
            conn.execute_batch("SAVEPOINT job").unwrap();
            run(&Tx::new(&conn), write, step).unwrap();
            // A write that fails leaves nothing behind.
            let end = if *fails { "ROLLBACK TO job; RELEASE job" } else { "RELEASE job" };
            conn.execute_batch(end).unwrap();
            check(&conn);
        }
        for n in 0..4 {
            run(&Tx::new(&conn), &Write::Delete(n), 0).unwrap();
            run(&Tx::new(&conn), &Write::DeleteHistory(n), 0).unwrap();
            run(&Tx::new(&conn), &Write::Unnamed(n), 0).unwrap();
        }
        check(&conn);
        prop_assert_eq!(Queries(&conn).largest_shares(9).unwrap(), []);
    }
}

#[test]
fn an_account_counts_where_it_was_first_however_often_it_moves() {
    let conn = in_memory();
    let tx = Tx::new(&conn);
    let mut moved = entry_at(1, 1);
    moved.asked = true;
    tx.put_entry(&moved).unwrap();
    let stored = tx.entry(&did(1)).unwrap().unwrap();
    assert_eq!(stored.domain, "pds1.example");
    let elsewhere = Entry {
        pds: entry_at(1, 2).pds,
        ..stored
    };
    tx.put_entry(&elsewhere).unwrap();
    let shares = tx.largest_shares(9).unwrap();
    assert_eq!(shares.len(), 1);
    assert_eq!(shares[0].0, "pds1.example");
    assert_eq!((shares[0].1.entries, shares[0].1.asked), (1, 1));
    tx.brought_by_source(&did(1)).unwrap();
    assert_eq!(tx.share_of("pds1.example").unwrap().asked, 0);
    check(&conn);
}

/// An account that writes without end takes no more than its part.
#[test]
fn inv7_the_history_of_an_account_is_bounded_in_bytes() {
    let conn = in_memory();
    let tx = Tx::new(&conn);
    let owner = Owner::of(&entry_at(1, 1));
    tx.put_entry(&entry_at(1, 1)).unwrap();
    let limit = super::super::writes::MAX_HISTORY as u64;
    for step in 0..120 {
        let seq = tx.append_change(&change_of(1, 600), &owner).unwrap();
        tx.put_proof(&did(1), &vec![step as u8; 16 * 1024]).unwrap();
        let superseded = SupersededProof {
            seq,
            rev: Some(Rev::parse(&format!("3n2wo76pa3{:0>3}", base32(step))).unwrap()),
            key: Some(k256_key()),
        };
        tx.save_proof(&did(1), &superseded).unwrap();
        let share = tx.share_of(&owner.domain).unwrap();
        assert!(share.bytes < limit + 40_000, "{share:?}");
    }
    let kept = tx.changes(&did(1), 999).unwrap();
    println!("{} changes of 120 are kept", kept.len());
    assert!((20..40).contains(&kept.len()));
    assert!(kept.iter().all(|change| change.proof.is_some()));
    check(&conn);
}

/// Three digits of a revision.
fn base32(n: u64) -> String {
    const DIGITS: &[u8; 32] = b"234567abcdefghijklmnopqrstuvwxyz";
    let digit = |shift: u64| char::from(DIGITS[(n >> shift & 31) as usize]);
    [digit(10), digit(5), digit(0)].iter().collect()
}

/// What the shares count is what the file grows by.
#[tokio::test]
async fn inv7_shares_count_what_is_on_the_disk() {
    for (what, count, proof, peer, mediators) in [
        ("usual accounts", 1500, 4000, 200, 1),
        ("accounts with little", 3000, 700, 120, 1),
        ("accounts with large proofs", 500, 60_000, 200, 2),
        ("accounts with long names", 1500, 4000, 2000, 2),
    ] {
        let f = open();
        let pages = |conn: &Connection| -> u64 {
            conn.query_row(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
                [],
                |row| number(row, 0),
            )
            .unwrap()
        };
        let before = f.store.query(move |q| Ok(pages(q.0))).await.unwrap();
        for first in (0..count).step_by(500) {
            let fill = move |tx: &Tx<'_>| {
                for n in first..first + 500 {
                    let name = Handle::parse(&format!("user{n}.example.com")).unwrap();
                    let mut put = Entry {
                        handle: Some(name.clone()),
                        claimed: Some(name),
                        signing_key: Some(k256_key()),
                        proof_key: Some(k256_key()),
                        identity_key: Some(k256_key()),
                        proof_pds: entry_at(n, 1).pds,
                        peer: Some(format!("did:peer:2.{}{n:0>8}", "x".repeat(peer))),
                        detail: None,
                        ..entry_at(n, 1)
                    };
                    put.mediators.truncate(mediators);
                    let mut change = change_of(n, 0);
                    change.peer.clone_from(&put.peer);
                    tx.append_change(&change, &Owner::of(&put))?;
                    tx.put_entry(&put)?;
                    tx.put_proof(&put.did, &vec![1; proof])?;
                }
                Ok(())
            };
            f.store.transact(fill).await.unwrap();
        }
        let (after, all) = f
            .store
            .query(move |q| Ok((pages(q.0), q.share_of_all()?)))
            .await
            .unwrap();
        let grown = after - before;
        let part = all.bytes as f64 / grown as f64;
        println!(
            "{what}: {} counted of {grown} bytes on the disk, {part:.2}; {} an account",
            all.bytes,
            grown / count
        );
        assert!((0.7..1.4).contains(&part), "{what}: {part}");
    }
}

/// A file of the schema before has its shares counted, by the same formula.
#[test]
fn files_of_the_earlier_schema_are_counted() {
    let conn = Connection::open_in_memory().unwrap();
    let migrations = schema::DIRECTORY.migrations;
    let before = migrations
        .iter()
        .position(|step| step.contains("CREATE TABLE domain_share"))
        .unwrap();
    schema::migrate(&conn, &migrations[..before]).unwrap();
    for n in 0..50_u64 {
        let pds = [
            "https://a.pds1.example",
            "https://b.pds1.example",
            "http://localhost:99",
        ];
        conn.execute(
            "INSERT INTO entry (did, status, state, regressed, source, method, observed_at, checked_at,
               next_check_at, failures, change_seq, pds, peer, detail, proofs)
             VALUES (?1, 'active', 'present', 0, 'pds', 'commit', 0, 0, 0, 0, 0, ?2, 'did:peer:2.ü', 'ü', 0)",
            (did(n).as_str(), pds.get(n as usize % 4)),
        )
        .unwrap();
        conn.execute(
            "INSERT INTO proof VALUES (?1, ?2)",
            (did(n).as_str(), vec![1; n as usize]),
        )
        .unwrap();
        conn.execute(
            "INSERT INTO entry_mediator VALUES (?1, 0, 'did:web:m.example')",
            [did(n).as_str()],
        )
        .unwrap();
        conn.execute(
            "INSERT INTO change (did, kind, seen_at, mediators, proof)
             VALUES (?1, 'package', 0, '[]', x'0102')",
            [did(n).as_str()],
        )
        .unwrap();
        conn.execute(
            "INSERT INTO evidence (did, rev, key, seen_at, proof) VALUES (?1, 'r', 'k', 0, x'01')",
            [did(n).as_str()],
        )
        .unwrap();
    }
    conn.execute_batch("INSERT INTO mediator VALUES ('did:web:m.pds1.example', '{}', 0, 0, 0)")
        .unwrap();
    schema::migrate(&conn, migrations).unwrap();
    check(&conn);
    let tx = Tx::new(&conn);
    let domains: Vec<String> = tx
        .largest_shares(9)
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(domains.len(), 3);
    for domain in ["pds1.example", "localhost:99", ""] {
        assert!(domains.iter().any(|name| name == domain), "{domain}");
    }
    let all = tx.share_of_all().unwrap();
    assert_eq!((all.entries, all.asked), (50, 0));
    // Written again, the entries have the size of now.
    for n in 0..50 {
        let entry = tx.entry(&did(n)).unwrap().unwrap();
        tx.put_entry(&entry).unwrap();
        let size = "SELECT size FROM entry WHERE did = ?1";
        let size = conn.query_row(size, [did(n).as_str()], |row| number(row, 0));
        assert_eq!(size.unwrap(), entry.bytes() as u64);
    }
    check(&conn);
}
