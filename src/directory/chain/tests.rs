use std::time::Instant;

use super::*;
use crate::store::{AccountStatus, DirectoryStore, Entry, PackageState};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const PDS: &str = "https://pds.example.com";

fn did(number: usize) -> Did {
    let tail: String = (0..24)
        .map(|i| char::from(b'a' + u8::try_from((number >> (i * 2)) & 3).unwrap()))
        .collect();
    Did::parse(&format!("did:plc:{tail}")).unwrap()
}

fn rev(number: u8) -> Rev {
    let digits = b"234567abcdefghijklmnopqrstuvwxyz";
    let pair = [number / 32, number % 32].map(|digit| char::from(digits[usize::from(digit)]));
    Rev::parse(&format!("22222222222{}{}", pair[0], pair[1])).unwrap()
}

fn data(number: u8) -> [u8; CID_LEN] {
    [number; CID_LEN]
}

/// A commit that follows the one with the number before it.
fn commit(number: u8) -> ChainCommit {
    ChainCommit {
        rev: rev(number),
        data: Some(data(number)),
        since: Some(rev(number - 1)),
        prev_data: Some(data(number - 1)),
    }
}

fn event(commit: Option<ChainCommit>) -> ChainEvent {
    ChainEvent {
        did: did(2),
        source: SourceKind::Relay,
        pds: None,
        commit,
    }
}

fn entry(number: usize, status: AccountStatus, checked_at: Timestamp) -> Entry {
    let mut entry = Entry::empty(did(number), "relay", checked_at);
    entry.pds = Some(Origin::parse(PDS).unwrap());
    entry.state = PackageState::Present;
    entry.status = status;
    entry
}

struct World {
    store: DirectoryStore,
    _dir: tempfile::TempDir,
}

impl World {
    async fn with(status: AccountStatus, checked_at: Timestamp) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(&dir.path().join("directory.db")).unwrap();
        let entry = entry(2, status, checked_at);
        store
            .transact(move |tx| tx.put_entry(&entry))
            .await
            .unwrap();
        Self { store, _dir: dir }
    }

    async fn new() -> Self {
        Self::with(AccountStatus::Active, NOW).await
    }

    /// Applies the events, and returns when a refresh is due that they lead to.
    async fn after(&self, events: Vec<ChainEvent>, now: Timestamp) -> Option<(Timestamp, Trigger)> {
        let due = self.store.transact(move |tx| {
            apply(tx, &events, now)?;
            let pending = tx.pending(&did(2))?;
            if let Some(pending) = &pending {
                tx.complete_pending(&pending.did, pending.generation)?;
            }
            Ok(pending.map(|pending| (pending.not_before, pending.trigger)))
        });
        due.await.unwrap()
    }

    async fn after_commits(&self, commits: Vec<ChainCommit>, now: Timestamp) -> Option<Timestamp> {
        let events = commits.into_iter().map(|one| event(Some(one))).collect();
        self.after(events, now).await.map(|(at, _)| at)
    }
}

fn plus(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

#[test]
fn a_commit_is_compared_by_its_tree_and_otherwise_by_its_revision() {
    let head = Head {
        rev: Some(rev(5)),
        data: Some(data(5)),
        refresh_at: None,
    };
    let with = |change: fn(&mut ChainCommit)| {
        let mut commit = commit(6);
        change(&mut commit);
        head.link(&commit)
    };
    assert_eq!(with(|_| {}), Link::Next);
    assert_eq!(with(|c| c.rev = rev(5)), Link::Replay);
    assert_eq!(with(|c| c.rev = rev(4)), Link::Replay);
    assert_eq!(with(|c| c.prev_data = Some(data(4))), Link::Broken);
    assert_eq!(
        with(|c| (c.prev_data, c.since) = (None, Some(rev(4)))),
        Link::Broken
    );
    assert_eq!(with(|c| c.prev_data = None), Link::Next);
    assert_eq!(with(|c| (c.prev_data, c.since) = (None, None)), Link::Next);
    // Written and taken back: the same records.
    assert_eq!(with(|c| c.since = Some(rev(4))), Link::Next);
    assert_eq!(Head::default().link(&commit(6)), Link::Next);
    let without_tree = Head {
        data: None,
        ..head.clone()
    };
    assert_eq!(without_tree.link(&commit(6)), Link::Next);
    assert_eq!(without_tree.link(&commit(7)), Link::Broken);
}

#[tokio::test]
async fn a_commit_that_never_came_leads_to_a_refresh() {
    let world = World::new().await;
    assert_eq!(
        world.after_commits(vec![commit(1), commit(2)], NOW).await,
        None
    );
    // The same again, as from a second source or after a reconnect.
    assert_eq!(
        world.after_commits(vec![commit(1), commit(2)], NOW).await,
        None
    );
    let (at, trigger) = world
        .after(vec![event(Some(commit(4)))], NOW)
        .await
        .unwrap();
    assert_eq!(at, NOW);
    assert_eq!(trigger.to_string(), "relay commit");
    // From there on the chain is whole again.
    assert_eq!(
        world.after_commits(vec![commit(5), commit(6)], NOW).await,
        None
    );
}

#[tokio::test]
async fn inv7_broken_chains_lead_to_one_refresh_a_minute() {
    let world = World::new().await;
    world.after_commits(vec![commit(1)], NOW).await;
    let mut due = Vec::new();
    // Each commit breaks the chain, one a second.
    for second in 0..120_u8 {
        let broken = commit(3 + second * 2);
        let now = plus(u64::from(second));
        if let Some(at) = world.after_commits(vec![broken], now).await {
            due.push(at);
        }
    }
    due.dedup();
    assert_eq!(due, [NOW, plus(60), plus(120)], "{due:?}");
    // A clock that is put back makes the next one no later than a minute from then.
    let early = Timestamp::from_millis(NOW.millis() - 3_600_000);
    let at = world.after_commits(vec![commit(253)], early).await;
    assert!(
        at.is_some_and(|at| at <= early.plus(REFRESH_INTERVAL)),
        "{at:?}"
    );
}

#[tokio::test]
async fn a_proof_and_a_sync_event_begin_the_chain_anew() {
    let world = World::new().await;
    world.after_commits(vec![commit(1)], NOW).await;
    let prove = |number: u8, is_new_order| {
        world
            .store
            .transact(move |tx| tx.prove_head(&did(2), rev(number), &data(number), is_new_order))
    };
    prove(4, false).await.unwrap();
    assert_eq!(world.after_commits(vec![commit(5)], NOW).await, None);
    // A proof that was read before the last commit came changes nothing.
    prove(4, false).await.unwrap();
    assert_eq!(world.after_commits(vec![commit(6)], NOW).await, None);
    // On another PDS revisions may be lower.
    prove(2, true).await.unwrap();
    assert_eq!(world.after_commits(vec![commit(3)], NOW).await, None);
    let events = vec![event(None), event(Some(commit(9)))];
    assert_eq!(world.after(events, NOW).await, None);
    assert!(world.after_commits(vec![commit(11)], NOW).await.is_some());
}

#[tokio::test]
async fn a_commit_of_an_account_believed_inactive_leads_to_a_refresh() {
    let world = World::with(AccountStatus::Deactivated, NOW).await;
    let at = |at, number| world.after(vec![event(Some(commit(number)))], at);
    // The PDS was asked a moment ago.
    let (due, trigger) = at(plus(1), 1).await.unwrap();
    assert_eq!(
        (due, trigger.to_string()),
        (plus(60), "relay account".to_owned())
    );
    // And long ago: at once.
    let (due, _) = at(plus(600), 2).await.unwrap();
    assert_eq!(due, plus(600));
    // A replay says nothing about now.
    assert_eq!(at(plus(1200), 2).await, None);
}

#[tokio::test]
async fn events_of_others_and_of_the_future_change_nothing() {
    let world = World::new().await;
    world.after_commits(vec![commit(1)], NOW).await;
    let far = ChainCommit {
        rev: Rev::parse("jzzzzzzzzzzzz").unwrap(),
        ..commit(9)
    };
    assert_eq!(world.after_commits(vec![far], NOW).await, None);
    let mut elsewhere = event(Some(commit(9)));
    elsewhere.pds = Some(Origin::parse("https://old.example.com").unwrap());
    let mut unknown = event(Some(commit(9)));
    unknown.did = did(7);
    assert_eq!(world.after(vec![elsewhere, unknown], NOW).await, None);
    assert_eq!(world.after_commits(vec![commit(2)], NOW).await, None);
    // An entry takes its newest commit with it.
    let heads = world.store.transact(|tx| {
        tx.delete_entry(&did(2))?;
        tx.tracked(&did(2))
    });
    assert_eq!(heads.await.unwrap(), None);
}

#[tokio::test]
async fn the_chain_costs_little() {
    let world = World::new().await;
    let accounts = 1000;
    world
        .store
        .transact(move |tx| {
            (100..100 + accounts)
                .try_for_each(|number| tx.put_entry(&entry(number, AccountStatus::Active, NOW)))
        })
        .await
        .unwrap();
    let began = Instant::now();
    let mut events = 0_u32;
    for round in 1..=10_u8 {
        for batch in (100..100 + accounts).collect::<Vec<_>>().chunks(250) {
            let batch: Vec<ChainEvent> = batch
                .iter()
                .map(|number| ChainEvent {
                    did: did(*number),
                    ..event(Some(commit(round)))
                })
                .collect();
            events += u32::try_from(batch.len()).unwrap();
            let broken = world.store.transact(move |tx| apply(tx, &batch, NOW)).await;
            assert_eq!(broken.unwrap(), 0);
        }
    }
    let rate = f64::from(events) / began.elapsed().as_secs_f64();
    println!("{events} commits of tracked accounts, {rate:.0} a second, unoptimized, durable");
}
