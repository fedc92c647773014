//! What counts in the time series, and on which day.

use super::*;
use crate::store::directory::{Day, DayRow, GroupKind};
use crate::store::{Coverage, Takedown};
use atcomm_proto::verify::succession;
use testkit::proto::account::TestKey;

const HOUR: Duration = Duration::from_secs(3600);
const SOURCE: &str = "relay https://relay.example.com";

impl World {
    fn day(&self) -> Day {
        Day::of(self.clock.now())
    }

    /// Lets time pass until some time after midnight.
    fn wait_for_midnight(&self, after: Duration) {
        let left = self.day().end().since(self.clock.now());
        self.clock.advance(left + after);
    }

    async fn row(&self, day: Day) -> DayRow {
        let rows = self.directory.store().query(move |q| q.days(day, day));
        rows.await.unwrap().pop().unwrap()
    }

    async fn group(&self, kind: GroupKind, name: &'static str) -> (i64, i64, i64) {
        let today = self.day();
        let store = self.directory.store();
        let days = store.query(move |q| q.group_days(kind, name, today, today));
        let newest = days.await.unwrap().pop();
        newest.map_or((0, 0, 0), |group| (group.accounts, group.came, group.went))
    }

    /// The only source is read up to the present.
    async fn read_source(&self) {
        let now = self.clock.now();
        let coverage = Some(Coverage {
            source: SOURCE.to_owned(),
            since: Timestamp::from_millis(0),
            until: now,
        });
        let batch = Batch {
            coverage,
            ..Batch::default()
        };
        self.directory.apply_batch(batch).await.unwrap();
    }

    async fn close_days(&self) {
        self.read_source().await;
        self.directory.keep_days().await.unwrap();
        self.directory.keep_days().await.unwrap();
    }
}

#[tokio::test]
async fn an_account_is_new_leaves_and_returns() {
    let w = World::new().await;
    let today = w.day();
    let mut repo = TestRepo::new(ALICE, 1);
    repo.put(&package(&peer(10), &[MEDIATOR, MEDIATOR]));
    w.pds(&repo, repo.prove_at(w.clock.now())).await;
    let row = w.row(today).await;
    assert_eq!((row.stock, row.new), ([1, 0, 0], 1));
    let host = (GroupKind::Host, "pds.example.com");
    assert_eq!(w.group(host.0, host.1).await, (1, 1, 0));
    // A mediator that is named twice counts once.
    assert_eq!(w.group(GroupKind::Mediator, MEDIATOR).await, (1, 1, 0));
    assert_eq!(w.group(GroupKind::KeyType, "X25519").await, (1, 1, 0));
    // The same again, and another label, change nothing.
    w.pds(&repo, repo.prove_at(w.clock.now())).await;
    assert_eq!(w.row(today).await, row);
    w.finding(&repo, Finding::Inactive(AccountStatus::Suspended))
        .await;
    assert_eq!(w.row(today).await.stock, [0, 1, 0]);
    assert_eq!(w.group(host.0, host.1).await, (0, 0, 0));
    w.pds(&repo, repo.prove_at(w.clock.now())).await;
    repo.put(&serde_json::json!({"$type": "at.didcomm.keyPackage", "did": 42}));
    w.pds(&repo, repo.prove_at(w.clock.now())).await;
    assert_eq!(w.row(today).await.stock, [0, 0, 1]);
    assert_eq!(w.group(GroupKind::Rule, "did").await, (1, 1, 0));
    repo.delete();
    w.pds(&repo, repo.prove_at(w.clock.now())).await;
    let row = w.row(today).await;
    assert_eq!(row.stock, [0; 3]);
    assert_eq!((row.new, row.returned, row.departed), (1, 1, 2));
    // Even after its entry is gone.
    w.finding(&repo, Finding::Deleted).await;
    repo.put(&package(&peer(11), &[MEDIATOR]));
    w.pds(&repo, repo.prove_at(w.clock.now())).await;
    let row = w.row(today).await;
    assert_eq!((row.stock, row.new, row.returned), ([1, 0, 0], 2, 1));
}

#[tokio::test]
async fn key_changes_are_told_apart_by_the_word_of_the_key_before() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let (first, second, third) = (
        TestKey::generate(),
        TestKey::generate(),
        TestKey::generate(),
    );
    let now = w.clock.now();
    let mut put = async |record: &serde_json::Value| {
        repo.put(record);
        w.pds(&repo, repo.prove_at(w.clock.now())).await
    };
    put(&package(first.peer.as_str(), &[MEDIATOR])).await;
    let mut vouched = package(second.peer.as_str(), &[MEDIATOR]);
    let alice = Did::parse(ALICE).unwrap();
    vouched[succession::FIELD] = first.vouch(&second, &alice, now).into();
    put(&vouched).await;
    // A statement about another key, and none.
    let mut forged = package(third.peer.as_str(), &[MEDIATOR]);
    forged[succession::FIELD] = vouched[succession::FIELD].clone();
    put(&forged).await;
    put(&package(first.peer.as_str(), &[MEDIATOR])).await;
    let row = w.row(w.day()).await;
    assert_eq!((row.vouched, row.unvouched, row.new), (1, 2, 1));
    assert_eq!(w.group(GroupKind::KeyType, "X25519").await, (1, 1, 0));
}

#[tokio::test]
async fn a_change_that_is_heard_late_counts_on_its_day_while_the_day_is_open() {
    let w = World::new().await;
    let (mut alice, mut bob) = (TestRepo::new(ALICE, 1), TestRepo::new(BOB, 2));
    for repo in [&mut alice, &mut bob] {
        repo.put(&package(&peer(10), &[MEDIATOR]));
        w.pds(repo, repo.prove_at(w.clock.now())).await;
    }
    let yesterday = w.day();
    w.clock.advance(Duration::from_secs(1));
    alice.delete();
    bob.delete();
    let (hers, his) = (alice.prove_at(w.clock.now()), bob.prove_at(w.clock.now()));
    w.wait_for_midnight(HOUR);
    w.directory.keep_days().await.unwrap();
    assert_eq!(w.row(yesterday).await.stock, [2, 0, 0]);
    assert_eq!(w.stream(&alice, hers).await, Outcome::Removed);
    let row = w.row(yesterday).await;
    assert_eq!((row.stock, row.departed), ([1, 0, 0], 1));
    assert_eq!(w.row(w.day()).await.stock, [1, 0, 0]);
    assert!(!row.closed);
    w.close_days().await;
    let row = w.row(yesterday).await;
    assert!(row.closed && row.complete, "{row:?}");
    // What comes now would have had to be known yesterday.
    assert_eq!(w.stream(&bob, his).await, Outcome::Removed);
    assert_eq!(w.row(yesterday).await, row);
    let row = w.row(w.day()).await;
    assert_eq!((row.stock, row.departed), ([0; 3], 1));
}

#[tokio::test]
async fn a_first_package_counts_from_the_commit_that_the_stream_has_shown() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    repo.put(&package(&peer(10), &[MEDIATOR]));
    let written = repo.prove_at(w.clock.now());
    let yesterday = w.day();
    w.wait_for_midnight(HOUR);
    // The stream shows the commit, and the PDS a later one.
    assert_eq!(w.stream(&repo, written).await, Outcome::Ignored);
    w.pds(&repo, repo.prove_at(w.clock.now())).await;
    let row = w.row(yesterday).await;
    assert_eq!((row.stock, row.new), ([1, 0, 0], 1));
    assert_eq!(row.uncertain, 0);
    let delays: i64 = row.delays.iter().sum();
    assert_eq!((delays, row.delays[5]), (1, 1));
}

#[tokio::test]
async fn a_revision_that_is_no_time_or_lies_ahead_counts_when_it_is_seen() {
    let w = World::new().await;
    let today = w.day();
    let (mut alice, mut bob) = (TestRepo::new(ALICE, 1), TestRepo::new(BOB, 2));
    alice.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&alice, alice.prove_at(Timestamp::from_millis(5)))
        .await;
    bob.put(&package(&peer(11), &[MEDIATOR]));
    w.pds(&bob, bob.prove_at(w.clock.now().plus(HOUR * 48)))
        .await;
    let row = w.row(today).await;
    assert_eq!((row.stock, row.new, row.found), ([2, 0, 0], 2, 0));
}

#[tokio::test]
async fn an_account_that_enrolled_before_the_first_open_day_is_found() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    repo.put(&package(&peer(10), &[MEDIATOR]));
    let old = repo.prove_at(w.clock.now().minus(HOUR * 72));
    let mut seen = w.seen(&repo, found(old), Authority::Pds).await;
    seen.trigger = Trigger::Listing(None);
    w.apply(seen).await;
    let row = w.row(w.day()).await;
    assert_eq!((row.stock, row.new, row.found), ([1, 0, 0], 0, 1));
    assert_eq!(row.delays, [0; 7]);
}

#[tokio::test]
async fn what_an_event_told_of_before_midnight_and_nothing_shows_leaves_a_day_uncertain() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, repo.prove_at(w.clock.now())).await;
    let yesterday = w.day();
    w.wait_for_midnight(HOUR);
    let pending = NewPending {
        did: repo.did.clone(),
        trigger: Trigger::Event {
            source: SourceKind::Relay,
            event: EventKind::Account,
        },
        announced: AnnouncedChange::Keep,
        not_before: w.clock.now(),
    };
    let batch = Batch {
        pending: vec![pending],
        ..Batch::default()
    };
    w.directory.apply_batch(batch.clone()).await.unwrap();
    w.pds(&repo, repo.prove()).await;
    assert_eq!(w.row(yesterday).await.uncertain, 1);
    // Once the sources have come past midnight, the next event is of today.
    let entry = w.entry(&repo).await.unwrap();
    w.directory
        .update_pending(&entry.did, PendingUpdate::Complete(1))
        .await
        .unwrap();
    w.directory.keep_days().await.unwrap();
    w.read_source().await;
    w.directory.keep_days().await.unwrap();
    w.clock.advance(Duration::from_secs(1));
    w.directory.apply_batch(batch).await.unwrap();
    w.pds(&repo, repo.prove()).await;
    assert_eq!(w.row(yesterday).await.uncertain, 1);
}

#[tokio::test]
async fn a_day_in_whose_end_a_gap_lies_is_closed_and_not_complete() {
    let w = World::new().await;
    w.read_source().await;
    let (first, second) = (w.day(), w.day().next());
    let before = w.clock.now();
    w.wait_for_midnight(HOUR);
    w.directory.keep_days().await.unwrap();
    let gap = |since| Batch {
        gap: Some(crate::store::Gap {
            source: SOURCE.to_owned(),
            reason: "outdated",
            since,
            pds: None,
            covered: std::collections::BTreeSet::new(),
        }),
        ..Batch::default()
    };
    w.directory.apply_batch(gap(before)).await.unwrap();
    while w.directory.mark_gap().await.unwrap().is_some() {}
    w.close_days().await;
    let row = w.row(first).await;
    assert!(row.closed && row.gap && !row.complete, "{row:?}");
    // A gap within a day leaves its end as it is.
    let noon = w.clock.now();
    w.clock.advance(HOUR);
    w.directory.apply_batch(gap(noon)).await.unwrap();
    while w.directory.mark_gap().await.unwrap().is_some() {}
    w.wait_for_midnight(HOUR);
    w.directory.keep_days().await.unwrap();
    w.close_days().await;
    let row = w.row(second).await;
    assert!(row.closed && row.complete, "{row:?}");
    // A gap that reaches back to it takes that away.
    w.directory.apply_batch(gap(noon)).await.unwrap();
    assert!(!w.row(second).await.complete);
}

#[tokio::test]
async fn a_day_waits_for_a_source_that_is_silent_and_for_no_other() {
    let w = World::new().await;
    w.read_source().await;
    let yesterday = w.day();
    w.wait_for_midnight(Duration::from_secs(10));
    let keep = async |seconds: u64| {
        w.clock.advance(Duration::from_secs(seconds));
        w.directory.keep_days().await.unwrap();
        w.row(yesterday).await.closed
    };
    assert!(!keep(0).await && !keep(120).await, "not connected");
    w.directory.set_connection(SOURCE, true);
    assert!(!keep(0).await && !keep(30).await, "not silent for long");
    w.directory.set_connection(SOURCE, false);
    assert!(!keep(120).await, "not connected any more");
    w.directory.set_connection(SOURCE, true);
    assert!(!keep(0).await && keep(61).await);
    assert!(w.row(yesterday).await.complete);
    // A source that is followed no more.
    let second = w.day();
    w.directory.follow_sources(Vec::new()).await.unwrap();
    w.wait_for_midnight(HOUR);
    w.directory.keep_days().await.unwrap();
    w.directory.keep_days().await.unwrap();
    let row = w.row(second).await;
    assert!(row.closed && !row.complete);
}

#[tokio::test]
async fn the_word_of_a_relay_and_a_limit_count_too() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, repo.prove_at(w.clock.now())).await;
    let takedown = Takedown {
        did: repo.did.clone(),
        source: SOURCE.to_owned(),
        status: Some(AccountStatus::Takendown),
    };
    let batch = Batch {
        takedowns: vec![takedown],
        ..Batch::default()
    };
    w.directory.apply_batch(batch).await.unwrap();
    let row = w.row(w.day()).await;
    assert_eq!((row.stock, row.departed), ([0, 1, 0], 1));
}
