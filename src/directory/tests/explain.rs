//! The state of an account in one word, with the reasons.

use super::*;
use crate::directory::explain::error_message;
use crate::store::Takedown;

const HOUR: Duration = Duration::from_secs(3600);
const PDS: &str = "https://pds.example.com";

impl World {
    async fn explained(&self) -> Explanation {
        let did = Did::parse(ALICE).unwrap();
        self.directory.explain(&did).await.unwrap()
    }

    /// The state, the codes of the reasons, and the class of the last error.
    async fn says(&self) -> (&'static str, Vec<&'static str>, Option<String>) {
        let explained = self.explained().await;
        let codes = explained.reasons.iter().map(|reason| reason.code).collect();
        let error = explained.last_error.map(|error| {
            assert!(!error.message.is_empty() && error.attempts > 0);
            error.class
        });
        (explained.state.code(), codes, error)
    }

    async fn enrolled(&self) -> TestRepo {
        let mut repo = TestRepo::new(ALICE, 1);
        let there = repo.put(&package(&peer(10), &[MEDIATOR]));
        assert_eq!(self.pds(&repo, there).await, Outcome::Package);
        repo
    }
}

fn is(
    state: &'static str,
    codes: &[&'static str],
    error: Option<&str>,
) -> (&'static str, Vec<&'static str>, Option<String>) {
    (state, codes.to_vec(), error.map(str::to_owned))
}

#[tokio::test]
async fn a_verified_account_has_no_reasons_and_says_when_it_is_checked_next() {
    let w = World::new().await;
    assert_eq!(w.says().await, is("unknown", &["unknown"], None));
    assert_eq!(w.explained().await.next_check_at, None);
    let enrolled_at = w.clock.now();
    let repo = w.enrolled().await;
    let explained = w.explained().await;
    assert_eq!(w.says().await, is("verified", &[], None));
    assert_eq!(explained.since, Some(enrolled_at));
    let entry = w.entry(&repo).await.unwrap();
    assert_eq!(explained.next_check_at, Some(entry.next_check_at));
    assert_eq!(explained.rev, entry.rev.map(|rev| rev.to_string()));
    assert_eq!(explained.source.as_deref(), Some("pds"));
    assert_eq!(explained.proved_at, entry.proved_at);
    w.clock.advance(STALE + HOUR);
    assert_eq!(w.says().await, is("verified", &["stale"], None));
}

#[tokio::test]
async fn failed_looks_leave_the_state_and_name_the_error() {
    let w = World::new().await;
    let repo = w.enrolled().await;
    w.finding(&repo, UNREACHABLE).await;
    w.finding(&repo, UNREACHABLE).await;
    let explained = w.explained().await;
    assert_eq!(w.says().await, is("verified", &[], Some("pds_unreachable")));
    assert_eq!(explained.last_error.unwrap().attempts, 2);
    let first = w.clock.now();
    w.finding(&repo, Finding::Missing).await;
    let missing = is("verified", &["missing"], Some("repo_not_found"));
    assert_eq!(w.says().await, missing);
    let reason = &w.explained().await.reasons[0];
    assert_eq!(reason.since, Some(first));
    assert!(reason.next_at.is_some_and(|next| next > w.clock.now()));
    w.clock.advance(HOUR);
    let hidden_at = w.clock.now();
    w.finding(&repo, Finding::Missing).await;
    let gone = is("inactive", &["inactive", "missing"], Some("repo_not_found"));
    assert_eq!(w.says().await, gone);
    let explained = w.explained().await;
    assert_eq!(explained.since, Some(hidden_at));
    assert_eq!(explained.status, Some(AccountStatus::Deleted));
    let back_at = w.clock.now();
    w.pds(&repo, repo.prove()).await;
    assert_eq!(w.says().await, is("verified", &[], None));
    assert_eq!(w.explained().await.since, Some(back_at));
}

#[tokio::test]
async fn each_state_of_a_package_is_told_apart() {
    let w = World::new().await;
    let mut repo = w.enrolled().await;
    let broken = repo.put(&serde_json::json!({"$type": "at.didcomm.keyPackage", "did": 42}));
    w.pds(&repo, broken).await;
    assert_eq!(w.says().await, is("invalid", &["invalid"], None));
    assert_eq!(w.explained().await.reasons[0].rule.as_deref(), Some("did"));
    w.finding(&repo, Finding::AbsentUnproven).await;
    let unproven = is(
        "removedUnproven",
        &["removedUnproven"],
        Some("absence_unproven"),
    );
    assert_eq!(w.says().await, unproven);
    let gone = repo.delete();
    w.pds(&repo, gone).await;
    assert_eq!(w.says().await, is("removed", &["removed"], None));
    let again = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, again.clone()).await;
    let newer = repo.put(&package(&peer(11), &[MEDIATOR]));
    w.pds(&repo, newer).await;
    let regressed_at = w.clock.now();
    assert_eq!(w.pds(&repo, again).await, Outcome::Regressed);
    let regressed = is("regressed", &["regressed"], Some("regressed"));
    assert_eq!(w.says().await, regressed);
    assert_eq!(w.explained().await.since, Some(regressed_at));
    repo.rotate(2);
    let finding = Finding::Unverifiable {
        reason: "signature",
        detail: "the commit is not signed by the key".to_owned(),
    };
    w.finding(&repo, finding).await;
    let (state, codes, error) = w.says().await;
    assert_eq!((state, codes[0]), ("unverifiable", "unverifiable"));
    assert_eq!(error.as_deref(), Some("signature"));
    let rule = w.explained().await.reasons[0].rule.clone();
    assert_eq!(rule.as_deref(), Some("signature"));
}

#[tokio::test]
async fn the_end_of_an_entry_is_told_with_its_reason() {
    let w = World::new().await;
    let repo = w.enrolled().await;
    w.clock.advance(DROP + HOUR);
    let dropped_at = w.clock.now();
    assert_eq!(w.finding(&repo, UNREACHABLE).await, Outcome::Dropped);
    assert_eq!(w.says().await, is("dropped", &["dropped"], None));
    assert_eq!(w.explained().await.since, Some(dropped_at));
    w.enrolled().await;
    assert_eq!(w.finding(&repo, Finding::Deleted).await, Outcome::Deleted);
    assert_eq!(w.says().await, is("deleted", &["deleted"], None));

    let w = World::limited(Limits {
        asked_per_domain: 0,
        ..Limits::default()
    })
    .await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    let mut seen = w.seen(&repo, found(there), Authority::Pds).await;
    seen.trigger = Trigger::Request;
    assert_eq!(w.apply(seen).await, Outcome::Full(Full::Accounts));
    assert_eq!(w.says().await, is("refused", &["refused"], None));
    let rule = w.explained().await.reasons[0].rule.clone();
    assert_eq!(rule.as_deref(), Some("accounts"));
}

#[tokio::test]
async fn a_pending_look_a_gap_and_the_word_of_a_relay_are_reasons() {
    let w = World::new().await;
    let repo = w.enrolled().await;
    let due = w.clock.now();
    let pending = NewPending {
        did: repo.did.clone(),
        trigger: Trigger::Event {
            source: SourceKind::Jetstream,
            event: EventKind::Commit,
        },
        announced: AnnouncedChange::Keep,
        not_before: due,
    };
    let batch = Batch {
        pending: vec![pending],
        ..Batch::default()
    };
    w.directory.apply_batch(batch).await.unwrap();
    assert_eq!(w.says().await, is("verified", &["pending"], None));
    let explained = w.explained().await;
    assert_eq!(explained.next_check_at, Some(due));
    assert_eq!(explained.source.as_deref(), Some("jetstream"));
    let retry = PendingUpdate::RetryAt {
        generation: 1,
        not_before: due.plus(HOUR),
        failed: true,
        failure: Some("busy"),
    };
    w.directory.update_pending(&repo.did, retry).await.unwrap();
    let error = Some("busy");
    assert_eq!(w.says().await, is("verified", &["pending"], error));
    let done = PendingUpdate::Complete(1);
    w.directory.update_pending(&repo.did, done).await.unwrap();

    let batch = Batch {
        takedowns: vec![Takedown {
            did: repo.did.clone(),
            source: "relay https://relay.example.com".to_owned(),
            status: Some(AccountStatus::Takendown),
        }],
        gap: Some(crate::store::Gap {
            source: "pds https://pds.example.com".to_owned(),
            reason: "hole",
            since: due,
            pds: Some(Origin::parse(PDS).unwrap()),
            covered: [].into(),
        }),
        ..Batch::default()
    };
    w.directory.apply_batch(batch).await.unwrap();
    // Before anything is marked.
    assert_eq!(
        w.says().await,
        is("inactive", &["relayTakedown", "doubt"], None)
    );
    assert_eq!(w.explained().await.reasons[1].since, Some(due));
}

#[tokio::test]
async fn an_unconfirmed_handle_is_a_reason() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    let handle = Handle::parse("alice.example.com").unwrap();
    let mut seen = w.seen(&repo, found(there), Authority::Pds).await;
    seen.identity = Some(facts(&repo, PDS, Some(&handle), w.clock.now()));
    w.apply(seen).await;
    assert_eq!(w.says().await, is("verified", &["handle"], None));
    let reason = &w.explained().await.reasons[0];
    assert!(reason.next_at.is_some() && reason.message.contains("alice.example.com"));
}

/// What is answered and what is explained cannot differ.
#[test]
fn an_account_is_answered_in_exactly_two_states() {
    let mut entry = Entry::empty(Did::parse(ALICE).unwrap(), "pds", Timestamp::from_millis(0));
    for status in [
        AccountStatus::Active,
        AccountStatus::Other("odd".to_owned()),
    ] {
        for state in PackageState::ALL {
            for regressed in [false, true] {
                entry.status = status.clone();
                entry.state = *state;
                entry.regressed = regressed;
                let explained = ExplainedState::of(&entry);
                let is_answered = matches!(
                    explained,
                    ExplainedState::Verified | ExplainedState::Regressed
                );
                assert_eq!(
                    view::refusal(&entry).is_none(),
                    is_answered,
                    "{explained:?}"
                );
                let known = Known {
                    entry: Some(entry.clone()),
                    ..Known::default()
                };
                let reasons = explain(&entry.did, &known, entry.checked_at).reasons;
                assert_eq!(reasons.is_empty(), explained == ExplainedState::Verified);
            }
        }
    }
}

#[test]
fn every_class_of_an_error_has_a_sentence_of_its_own() {
    let classes = [
        "did_unreachable",
        "did_not_found",
        "pds_unreachable",
        "pds_error",
        "repo_not_found",
        "absence_unproven",
        "regressed",
        "busy",
        "store",
        "signature",
    ];
    let sentences: std::collections::BTreeSet<_> = classes.map(error_message).into();
    assert_eq!(sentences.len(), classes.len());
}
