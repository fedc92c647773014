//! Intervals that are proven, and the marking of entries after a gap.

use std::time::{Duration, Instant};

use super::*;

/// Writes entries without a doubt.
async fn write_entries(f: &Fixture, count: u64) {
    for first in (0..count).step_by(1000) {
        f.store
            .transact(move |tx| {
                for n in first..count.min(first + 1000) {
                    let entry = Entry {
                        handle: None,
                        claimed: None,
                        handle_next_at: None,
                        peer: None,
                        mediators: Vec::new(),
                        doubt_since: None,
                        next_check_at: at(80_000),
                        ..entry(n)
                    };
                    tx.put_entry(&entry)?;
                    tx.put_proof(&entry.did, &[7; 3000])?;
                }
                Ok(())
            })
            .await
            .unwrap();
    }
}

async fn open_gap(f: &Fixture, since: Timestamp) {
    let gap = Gap {
        source: "relay https://relay.example.com".to_owned(),
        reason: "hole",
        since,
        pds: None,
        covered: [].into(),
    };
    f.store
        .transact(move |tx| tx.open_gap_row(&gap, at(1000)))
        .await
        .unwrap();
}

fn due(number: u64, opened: Timestamp) -> Timestamp {
    opened.plus(Duration::from_millis(number))
}

#[tokio::test]
async fn the_proven_interval_of_a_source_is_kept() {
    let f = open();
    for until in [10, 20] {
        let written = Coverage {
            source: "pds x".to_owned(),
            since: at(5),
            until: at(until),
        };
        let put = written.clone();
        f.store
            .transact(move |tx| tx.set_coverage(&put))
            .await
            .unwrap();
        let read = f.store.query(|q| q.coverage("pds x")).await.unwrap();
        assert_eq!(read, Some(written));
    }
    assert_eq!(f.store.query(|q| q.coverage("pds y")).await.unwrap(), None);
}

#[tokio::test]
async fn inv10_a_gap_is_marked_to_its_end_across_a_crash() {
    let f = open();
    write_entries(&f, 25).await;
    open_gap(&f, at(50)).await;
    let marked = f.store.transact(|tx| tx.mark_gap(10, due)).await.unwrap();
    let marked = marked.unwrap();
    assert!(!marked.done && marked.entries == 10, "{marked:?}");
    // Those that are not marked yet are in doubt, too.
    for n in [0, 24] {
        let did = did(n);
        let doubt = f.store.query(move |q| {
            let marked = q.entry_state(&did)?.and_then(|(_, doubt, _)| doubt);
            Ok(marked.or(q.unmarked_doubt(&did)?))
        });
        assert_eq!(doubt.await.unwrap(), Some(at(50)), "{n}");
    }
    let path = f.path.clone();
    drop(f.store);
    let store = DirectoryStore::open(&path).unwrap();
    store.transact(|tx| tx.restart_gaps()).await.unwrap();
    let mut rounds = 0;
    loop {
        let marked = store.transact(|tx| tx.mark_gap(10, due)).await.unwrap();
        rounds += 1;
        if marked.unwrap().done {
            break;
        }
    }
    assert_eq!(rounds, 3);
    assert_eq!(
        store.transact(|tx| tx.mark_gap(10, due)).await.unwrap(),
        None
    );
    assert_eq!(store.query(|q| q.doubtful_count()).await.unwrap(), 25);
    let entries = store.query(|q| (0..25).map(|n| q.entry(&did(n))).collect());
    let entries: Vec<Option<Entry>> = entries.await.unwrap();
    for entry in entries.into_iter().flatten() {
        assert!(entry.doubt_since.unwrap() <= at(50));
        assert!(entry.next_check_at <= at(1000).plus(Duration::from_millis(24)));
    }
}

#[tokio::test]
async fn gaps_of_one_source_become_one() {
    let f = open();
    write_entries(&f, 3).await;
    for since in [50, 70, 60] {
        open_gap(&f, at(since)).await;
    }
    let marked = f.store.transact(|tx| tx.mark_gap(10, due)).await.unwrap();
    assert_eq!(marked.unwrap().since, at(50));
    assert_eq!(
        f.store.transact(|tx| tx.mark_gap(10, due)).await.unwrap(),
        None
    );
}

/// Marks 100,000 entries, and prints for how long each transaction keeps the writer.
#[tokio::test]
async fn inv7_marking_many_entries_keeps_the_writer_for_moments() {
    const ENTRIES: u64 = 100_000;
    let f = open();
    write_entries(&f, ENTRIES).await;
    open_gap(&f, at(50)).await;
    let began = Instant::now();
    let mut took = Vec::new();
    loop {
        let start = Instant::now();
        let marked = f.store.transact(|tx| tx.mark_gap(50, due)).await.unwrap();
        took.push(start.elapsed());
        if marked.unwrap().done {
            break;
        }
    }
    took.sort();
    let median = took[took.len() / 2];
    println!(
        "{ENTRIES} entries marked in {:?}: {} transactions, median {median:?}, longest {:?}",
        began.elapsed(),
        took.len(),
        took[took.len() - 1],
    );
    assert_eq!(
        f.store.query(|q| q.doubtful_count()).await.unwrap(),
        ENTRIES
    );
    assert!(median < Duration::from_millis(50), "{median:?}");
}
