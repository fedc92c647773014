//! Entries that a gap puts in doubt.

use super::*;
use crate::store::Gap;

const PDS: &str = "https://pds.example.com";

impl World {
    /// Reports that a source has missed what came after `since`, and marks the entries. Returns how
    /// many.
    async fn miss(&self, since: Timestamp) -> u64 {
        self.open_gap(since).await;
        let mut entries = 0;
        while let Some(marked) = self.directory.mark_gap().await.unwrap() {
            entries = marked.entries;
        }
        entries
    }

    async fn open_gap(&self, since: Timestamp) {
        let gap = Gap {
            source: "relay https://relay.example.com".to_owned(),
            reason: "hole",
            since,
            pds: None,
            covered: [].into(),
        };
        let batch = Batch {
            gap: Some(gap),
            ..Batch::default()
        };
        self.directory.apply_batch(batch).await.unwrap();
    }

    /// What the answer about Alice says: stale or not, and until when it is known good.
    async fn doubt(&self) -> (bool, Option<String>) {
        let view = self.view(ALICE).await.unwrap().unwrap();
        let verification = &view["verification"];
        let until = verification["knownGoodUntil"].as_str().map(str::to_owned);
        (verification["stale"].as_bool().unwrap(), until)
    }
}

#[tokio::test]
async fn an_answer_says_until_when_it_is_known_good_at_once_after_a_gap() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, there.clone()).await;
    assert_eq!(w.doubt().await, (false, None));
    assert!(w.directory.cached_view(ALICE).is_some());
    let since = w.clock.now();
    w.clock.advance(Duration::from_secs(60));
    w.open_gap(since).await;
    // Before anything is marked.
    assert!(w.directory.cached_view(ALICE).is_none());
    let stale = (true, Some(since.to_string()));
    assert_eq!(w.doubt().await, stale);
    let marked = w.directory.mark_gap().await.unwrap().unwrap();
    assert!(marked.done && marked.entries == 1, "{marked:?}");
    assert_eq!(w.directory.mark_gap().await.unwrap(), None);
    assert_eq!(w.doubt().await, stale);
    // Never from the cache: the account is looked at first.
    assert!(w.directory.cached_view(ALICE).is_none());
    let entry = w.entry(&repo).await.unwrap();
    assert!(entry.next_check_at <= w.clock.now());
    w.pds(&repo, there).await;
    assert_eq!(w.doubt().await, (false, None));
    assert_eq!(w.entry(&repo).await.unwrap().doubt_since, None);
}

#[tokio::test]
async fn only_an_answer_of_the_pds_that_was_asked_after_the_gap_ends_a_doubt() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, there.clone()).await;
    let before = w.seen(&repo, found(there.clone()), Authority::Pds).await;
    let first = w.clock.now();
    assert_eq!(w.miss(first).await, 1);
    assert_eq!(w.apply(before).await, Outcome::Proven);
    assert!(w.doubt().await.0, "asked before the gap was known");
    // Neither silence, nor a useless answer, nor a stream.
    w.finding(&repo, UNREACHABLE).await;
    let bad = Finding::Unverifiable {
        reason: "pds_answer",
        detail: "x".to_owned(),
    };
    w.finding(&repo, bad).await;
    let due = w.entry(&repo).await.unwrap().next_check_at;
    let newer = repo.touch(1);
    w.stream(&repo, newer.clone()).await;
    assert!(w.doubt().await.0);
    assert_eq!(w.entry(&repo).await.unwrap().next_check_at, due);
    // A second gap while a refresh because of the first is under way.
    let between = w.seen(&repo, found(newer.clone()), Authority::Pds).await;
    w.miss(w.clock.now()).await;
    w.apply(between).await;
    let (stale, until) = w.doubt().await;
    assert!(stale, "asked before the second gap was known");
    let until = Timestamp::parse_rfc3339(&until.unwrap()).unwrap();
    assert!(until <= first, "the earlier time stands");
    let due = w.entry(&repo).await.unwrap().next_check_at;
    assert!(due <= w.clock.now(), "it is looked at again at once");
    w.pds(&repo, newer).await;
    assert!(!w.doubt().await.0);
}

#[tokio::test]
async fn a_gap_of_a_pds_concerns_its_own_accounts_and_covered_ones_are_not_concerned() {
    let w = World::new().await;
    let (mut alice, mut bob) = (TestRepo::new(ALICE, 1), TestRepo::new(BOB, 2));
    for (repo, pds) in [(&mut alice, PDS), (&mut bob, "https://other.example.com")] {
        let there = repo.put(&package(&peer(10), &[MEDIATOR]));
        let mut seen = w.seen(repo, found(there), Authority::Pds).await;
        let now = w.clock.now();
        seen.identity = Some(facts(repo, pds, None, now));
        w.apply(seen).await;
    }
    let doubtful = async || {
        let mut doubtful = Vec::new();
        for (name, repo) in [("alice", &alice), ("bob", &bob)] {
            let did = Actor::Did(repo.did.clone());
            let entry = w.entry(repo).await.unwrap();
            let marked = entry.doubt_since.is_some();
            let said = w.directory.in_doubt(&did).await.unwrap().is_some();
            assert!(said || !marked);
            if said {
                doubtful.push(name);
            }
        }
        doubtful
    };
    let pds = Origin::parse(PDS).unwrap();
    let report = async |pds: Option<Origin>, covered: &[Origin]| {
        let gap = Gap {
            source: "a source".to_owned(),
            reason: "hole",
            since: w.clock.now(),
            pds,
            covered: covered.iter().cloned().collect(),
        };
        let batch = Batch {
            gap: Some(gap),
            ..Batch::default()
        };
        w.directory.apply_batch(batch).await.unwrap();
    };
    report(None, std::slice::from_ref(&pds)).await;
    assert_eq!(doubtful().await, ["bob"], "before it is marked");
    w.directory.mark_gap().await.unwrap();
    assert_eq!(doubtful().await, ["bob"]);
    report(Some(pds), &[]).await;
    assert_eq!(doubtful().await, ["alice", "bob"]);
    w.directory.mark_gap().await.unwrap();
    assert_eq!(doubtful().await, ["alice", "bob"]);
}
