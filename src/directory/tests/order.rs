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
