//! Proofs that arrive out of order: late, replayed, from before, or backwards.

use super::*;

#[tokio::test]
async fn inv4_a_lower_revision_is_ignored_from_a_stream_and_evidence_from_the_pds() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let old = repo.put(&package(&peer(10), &[MEDIATOR]));
    let new = repo.put(&package(&peer(11), &[MEDIATOR]));
    w.pds(&repo, new.clone()).await;
    assert_eq!(w.stream(&repo, old.clone()).await, Outcome::Ignored);
    assert_eq!(w.view(ALICE).await.unwrap().unwrap()["status"], "active");
    assert_eq!(w.pds(&repo, old.clone()).await, Outcome::Regressed);
    let view = w.view(ALICE).await.unwrap().unwrap();
    assert_eq!(
        (view["status"].as_str(), &view["peer"]["did"]),
        (Some("regressed"), &peer(11).into())
    );
    // Served again it is the same evidence, and the same commit as before does not clear it up.
    assert_eq!(w.pds(&repo, old).await, Outcome::Regressed);
    assert_eq!(
        w.kinds(&repo).await,
        vec![ChangeKind::Package, ChangeKind::Regressed]
    );
    let next = repo.touch(1);
    assert_eq!(w.pds(&repo, next).await, Outcome::Proven);
    assert_eq!(w.view(ALICE).await.unwrap().unwrap()["status"], "active");
}

#[tokio::test]
async fn inv4_a_refresh_that_was_overtaken_is_late_not_evidence() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let first = repo.put(&package(&peer(9), &[MEDIATOR]));
    w.pds(&repo, first).await;
    let old = repo.put(&package(&peer(10), &[MEDIATOR]));
    let late = w.seen(&repo, found(old), Authority::Pds).await;
    w.clock.advance(Duration::from_secs(1));
    let new = repo.put(&package(&peer(11), &[MEDIATOR]));
    assert_eq!(w.stream(&repo, new).await, Outcome::Package);
    assert_eq!(w.apply(late).await, Outcome::Ignored);
    assert_eq!(
        w.view(ALICE).await.unwrap().unwrap()["peer"]["did"],
        peer(11)
    );
}

#[tokio::test]
async fn inv4_another_pds_or_key_begins_a_new_order() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let old = repo.put(&package(&peer(10), &[MEDIATOR]));
    let new = repo.put(&package(&peer(11), &[MEDIATOR]));
    w.pds(&repo, new).await;
    let mut moved = w.seen(&repo, found(old), Authority::Pds).await;
    moved.identity = Some(facts(
        &repo,
        "https://other.example.com",
        None,
        w.clock.now(),
    ));
    assert_eq!(w.apply(moved).await, Outcome::Package);
    let view = w.view(ALICE).await.unwrap().unwrap();
    assert_eq!(
        (view["pds"].as_str(), view["status"].as_str()),
        (Some("https://other.example.com"), Some("active"))
    );
    assert!(w.kinds(&repo).await.contains(&ChangeKind::Identity));
}

#[tokio::test]
async fn inv4_a_commit_by_the_key_before_is_history_once_the_present_key_has_signed() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let (old, old_key) = (repo.put(&package(&peer(10), &[MEDIATOR])), repo.key());
    w.pds(&repo, old.clone()).await;
    repo.rotate(2);
    let new = repo.put(&package(&peer(11), &[MEDIATOR]));
    assert_eq!(w.pds(&repo, new.clone()).await, Outcome::Package);
    assert_ne!(old_key, repo.key());
    // As after a move: proven by the key before, and served by the present PDS.
    assert_eq!(w.pds(&repo, old.clone()).await, Outcome::Regressed);
    assert_eq!(w.stream(&repo, old).await, Outcome::Ignored);
    let view = w.view(ALICE).await.unwrap().unwrap();
    assert_eq!(view["peer"]["did"], peer(11));
    assert_eq!(view["status"], "regressed");
    // Serving the newest again is not writing again.
    assert_eq!(w.pds(&repo, new).await, Outcome::Proven);
    assert_eq!(w.view(ALICE).await.unwrap().unwrap()["status"], "regressed");
}

#[tokio::test]
async fn a_refresh_that_was_overtaken_or_proved_nothing_stays_pending() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let pending = |did: &str| NewPending {
        did: Did::parse(did).unwrap(),
        trigger: Trigger::Event {
            source: SourceKind::Pds,
            event: EventKind::Account,
        },
        announced: AnnouncedChange::Keep,
        not_before: w.clock.now(),
    };
    let batch = Batch {
        pending: vec![pending(ALICE), pending(BOB)],
        ..Batch::default()
    };
    w.directory.apply_batch(batch).await.unwrap();
    let first = repo.put(&package(&peer(9), &[MEDIATOR]));
    w.pds(&repo, first).await;
    let old = repo.put(&package(&peer(10), &[MEDIATOR]));
    let late = w.seen(&repo, found(old), Authority::Pds).await;
    w.clock.advance(Duration::from_secs(1));
    let new = repo.put(&package(&peer(11), &[MEDIATOR]));
    w.stream(&repo, new.clone()).await;
    let done = PendingUpdate::Complete(1);
    assert_eq!(
        w.directory.apply(late, done).await.unwrap(),
        Outcome::Ignored
    );
    let bob = TestRepo::new(BOB, 2);
    let reason = "proof_future";
    let detail = String::new();
    let nothing = w
        .seen(
            &bob,
            Finding::Unverifiable { reason, detail },
            Authority::Pds,
        )
        .await;
    assert_eq!(
        w.directory.apply(nothing, done).await.unwrap(),
        Outcome::Unverifiable
    );
    assert_eq!(w.directory.due(9).await.unwrap().0.len(), 2);
    w.clock.advance(Duration::from_secs(1));
    let again = w.seen(&repo, found(new), Authority::Pds).await;
    w.directory.apply(again, done).await.unwrap();
    assert_eq!(w.directory.due(9).await.unwrap().0.len(), 1);
}

/// Observations under the documents of an account before and after it replaced its key.
#[tokio::test]
async fn inv4_older_facts_never_replace_newer_ones() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let first = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, first).await;
    // Verified under the cached document, and written only after the look at the new one.
    let before = repo.put(&package(&peer(11), &[MEDIATOR]));
    let late = w.seen(&repo, found(before), Authority::Stream).await;
    let hidden = Finding::Inactive(AccountStatus::Deactivated);
    let mut away = w.seen(&repo, hidden, Authority::Pds).await;
    w.clock.advance(Duration::from_secs(1));
    repo.rotate(2);
    let now = repo.put(&package(&peer(12), &[MEDIATOR]));
    assert_eq!(w.pds(&repo, now).await, Outcome::Package);
    let entry = w.entry(&repo).await.unwrap();
    for _ in 0..2 {
        assert_eq!(w.apply(late.clone()).await, Outcome::Ignored);
        assert_eq!(w.entry(&repo).await.unwrap(), entry);
    }
    // Not overtaken, and still about the PDS and the key of before.
    (away.begun, away.at) = (w.directory.begin(&repo.did).await.unwrap(), w.clock.now());
    assert_eq!(w.apply(away).await, Outcome::Ignored);
    assert_eq!(w.entry(&repo).await.unwrap(), entry);
    let view = w.view(ALICE).await.unwrap().unwrap();
    assert_eq!(view["peer"]["did"], peer(12));
    assert_eq!(view["verification"]["signingKey"], repo.key().did_key());
    // The contradiction is looked into, with a new document.
    let (due, _) = w.directory.due(9).await.unwrap();
    let identity = Trigger::Event {
        source: SourceKind::Pds,
        event: EventKind::Identity,
    };
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].trigger, identity);
}

#[tokio::test]
async fn inv4_a_proof_under_older_facts_counts_where_key_and_pds_are_the_same() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let first = repo.put(&package(&peer(10), &[MEDIATOR]));
    let asked_before = w.clock.now();
    w.clock.advance(Duration::from_secs(60));
    let asked = w.clock.now();
    w.pds(&repo, first).await;
    let next = repo.put(&package(&peer(11), &[MEDIATOR]));
    let mut seen = w.seen(&repo, found(next), Authority::Stream).await;
    seen.identity.as_mut().unwrap().asked_at = asked_before;
    assert_eq!(w.apply(seen).await, Outcome::Package);
    assert_eq!(w.entry(&repo).await.unwrap().identity_at, Some(asked));
}

/// The clock was an hour ahead when the account was looked at, and goes back.
#[tokio::test]
async fn inv4_facts_from_a_time_to_come_are_older_than_any_that_is_known() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let first = repo.put(&package(&peer(10), &[MEDIATOR]));
    let ahead = w.clock.now().plus(Duration::from_secs(3600));
    let mut seen = w.seen(&repo, found(first), Authority::Pds).await;
    (seen.at, seen.identity.as_mut().unwrap().asked_at) = (ahead, ahead);
    w.apply(seen.clone()).await;
    repo.rotate(2);
    let second = repo.put(&package(&peer(11), &[MEDIATOR]));
    assert_eq!(w.pds(&repo, second).await, Outcome::Package);
    let entry = w.entry(&repo).await.unwrap();
    assert_eq!(entry.signing_key, Some(repo.key()));
    assert!(entry.identity_at.is_some_and(|at| at <= w.clock.now()));
    // What was asked for before the step of the clock comes late.
    seen.at = w.clock.now();
    assert_eq!(w.apply(seen).await, Outcome::Ignored);
    assert_eq!(w.entry(&repo).await.unwrap(), entry);
}

/// A refresh that is overtaken is late whatever the clock does meanwhile, and one that is not is in
/// time.
#[tokio::test]
async fn inv4_the_order_of_refreshes_does_not_depend_on_the_clock() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let first = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, first).await;
    let older = repo.put(&package(&peer(11), &[MEDIATOR]));
    let newer = repo.put(&package(&peer(12), &[MEDIATOR]));
    let back = |seen: Observation, by: u64| Observation {
        at: seen.at.minus(Duration::from_secs(by)),
        ..seen
    };
    // Both began before the first of them ended, and the clock went back in between.
    let one = w.seen(&repo, found(newer.clone()), Authority::Pds).await;
    let other = w.seen(&repo, found(older), Authority::Pds).await;
    let (one, other) = (back(one, 0), back(other, 600));
    assert_eq!(w.apply(one).await, Outcome::Package);
    assert_eq!(w.apply(other).await, Outcome::Ignored);
    let entry = w.entry(&repo).await.unwrap();
    assert!(!entry.regressed);
    // One that began after it ended is in time, although the clock says that it is from before.
    let again = back(w.seen(&repo, found(newer), Authority::Pds).await, 600);
    assert_eq!(w.apply(again).await, Outcome::Proven);
}

#[tokio::test]
async fn a_proof_under_an_old_document_puts_off_no_look_at_a_new_one() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let mut put = |n: u8| repo.put(&package(&peer(n), &[MEDIATOR]));
    let (first, second, third) = (put(10), put(11), put(12));
    let asked = w.clock.now();
    let latest = asked.plus(REPROVE);
    let under_old_document = async |proven: Proven, trigger: Trigger| {
        let mut seen = w.seen(&repo, found(proven), Authority::Pds).await;
        seen.trigger = trigger;
        seen.identity.as_mut().unwrap().asked_at = asked;
        w.apply(seen).await;
        w.entry(&repo).await.unwrap().next_check_at
    };
    let fresh = Trigger::Recheck;
    assert!(under_old_document(first, fresh.clone()).await <= latest);
    w.clock.advance(Duration::from_secs(17 * 3600));
    assert!(under_old_document(second.clone(), Trigger::Request).await <= latest);
    // Past its time, it is looked at at once; not at once again where no document could be had.
    w.clock.advance(Duration::from_secs(8 * 3600));
    let now = w.clock.now();
    assert_eq!(
        under_old_document(third.clone(), Trigger::Request).await,
        now
    );
    let next = under_old_document(third, fresh).await;
    let wait = next.since(w.clock.now());
    assert!(wait > Duration::from_secs(20 * 60) && wait <= Duration::from_secs(3600));
}
