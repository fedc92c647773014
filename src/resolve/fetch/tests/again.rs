//! What is asked for again, and what is not: documents, statuses, old refusals, old proofs.

use super::*;
use crate::directory::{Refusal, STALE};
use crate::store::{AnnouncedStatus, Entry, PackageState};
use atcomm_proto::syntax::LexiconError;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const NOT_FOUND: (StatusCode, &str) = (StatusCode::BAD_REQUEST, r#"{"error":"RepoNotFound"}"#);
const TAKENDOWN: (StatusCode, &str) = (StatusCode::BAD_REQUEST, r#"{"error":"RepoTakendown"}"#);

impl TestResolver {
    async fn entry(&self, did: &Did) -> Entry {
        let did = did.clone();
        let store = self.resolver.directory().store();
        store.query(move |q| q.entry(&did)).await.unwrap().unwrap()
    }

    fn set(&self, did: &Did, error: Option<(StatusCode, &'static str)>) {
        let mut answers = self.answers.lock().unwrap();
        match error {
            Some(error) => answers.errors.insert(did.to_string(), error),
            None => answers.errors.remove(did.as_str()),
        };
    }

    /// Requests for records and for statuses so far.
    fn pds_asked(&self) -> (usize, usize) {
        let answers = self.answers.lock().unwrap();
        (answers.records_asked, answers.statuses_asked)
    }

    async fn recipient(&self, did: &Did) -> Result<Value, Refusal> {
        match self
            .resolver
            .recipient(&Actor::Did(did.clone()), CLIENT)
            .await
        {
            Ok(view) => Ok(serde_json::from_slice(&view.body).unwrap()),
            Err(ResolveError::Refused(refusal)) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }
}

fn account_event() -> Trigger {
    Trigger::Event {
        source: SourceKind::Pds,
        event: EventKind::Account,
    }
}

/// A look that has a new document does not ask the PLC directory once more, whatever it finds.
#[tokio::test]
async fn a_document_is_asked_for_once_in_a_refresh() {
    let test = TestResolver::start(10).await;
    let bad_signature = test.account(1, OLD, 1, 9);
    let deactivated = test.account(2, OLD, 1, 1);
    let missing = test.account(3, OLD, 1, 1);
    let inactive = (StatusCode::BAD_REQUEST, r#"{"error":"RepoDeactivated"}"#);
    test.set(&deactivated, Some(inactive));
    test.set(&missing, Some(NOT_FOUND));
    for did in [&bad_signature, &deactivated, &missing] {
        for trigger in [Trigger::Recheck, Trigger::Listing(None), account_event()] {
            let before = test.asked().0;
            test.clock.advance(MINUTE + MINUTE);
            test.refresh(did, Refresh::new(trigger.clone())).await;
            assert_eq!(test.asked().0, before + 1, "{did} {trigger:?}");
        }
        // An older document is asked for once more, as before.
        let before = test.asked().0;
        test.clock.advance(MINUTE + MINUTE);
        test.refresh(did, Refresh::new(commit())).await;
        assert_eq!(test.asked().0, before + 1, "{did}");
    }
}

/// The owner replaced the key with a rotation key of her own, so no event tells of it.
#[tokio::test]
async fn a_document_that_is_found_changed_leads_to_a_refresh() {
    let test = TestResolver::start(10).await;
    let (alice, bob) = (test.account(1, OLD, 1, 1), test.account(2, OLD, 1, 1));
    for did in [&alice, &bob] {
        test.refresh(did, Refresh::new(commit())).await;
    }
    let follower = test.resolver.clone();
    let follower = tokio::spawn(async move { follower.follow_documents().await });
    tokio::task::yield_now().await;
    test.set_document(&alice, OLD, 2);
    test.clock.advance(HOUR + MINUTE);
    for did in [&alice, &bob] {
        // Answered from the cache, while a new document is asked for.
        let identity = test.resolver.identity();
        let old = identity.resolve(did, Freshness::Cached).await.unwrap();
        assert_eq!(old.signing_key, Ok(k256(1).public()));
    }
    let directory = test.resolver.directory();
    let start = std::time::Instant::now();
    let due = loop {
        let (due, _) = directory.due(9).await.unwrap();
        if !due.is_empty() || start.elapsed() > Duration::from_secs(30) {
            break due;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(due.len(), 1);
    assert_eq!((&due[0].did, &due[0].trigger), (&alice, &Trigger::Recheck));
    follower.abort();
    // What the old key signed is not served after that look.
    let row = PendingUpdate::Complete(due[0].generation);
    let refresh = Refresh::new(Trigger::Recheck);
    let refreshed = test.resolver.refresh_and_update(&alice, refresh, row, None);
    assert_eq!(refreshed.await.unwrap().outcome, Outcome::Unverifiable);
    assert_eq!(test.entry(&alice).await.state, PackageState::Unverifiable);
    assert!(directory.due(9).await.unwrap().0.is_empty());
}

/// A proof in a stream counts under a document that is not older than an hour.
#[tokio::test]
async fn a_document_is_fresh_for_an_hour() {
    let test = TestResolver::start(10).await;
    let did = test.account(1, OLD, 1, 1);
    test.refresh(&did, Refresh::new(commit())).await;
    let identity = test.resolver.identity();
    test.clock.advance(HOUR - MINUTE);
    assert!(identity.cached_fresh(&did).is_some());
    test.clock.advance(MINUTE);
    assert!(identity.cached_fresh(&did).is_none() && identity.cached(&did).is_some());
    // A failure to look it up makes it no fresher.
    test.answers.lock().unwrap().documents.clear();
    let _ = identity.resolve(&did, Freshness::Refresh).await;
    assert!(identity.cached_fresh(&did).is_none());
}

#[tokio::test]
async fn the_status_is_asked_for_in_doubt_alone() {
    let test = TestResolver::start(10).await;
    let did = test.account(1, OLD, 1, 1);
    let plain = Refresh::new(Trigger::Recheck);
    assert_eq!(
        test.refresh(&did, plain.clone()).await.outcome,
        Outcome::Package
    );
    assert_eq!(test.pds_asked(), (1, 0));
    // The PDS announced a takedown, and serves the record all the same.
    let status = |active: bool| {
        let status = if active {
            json!({"did": did, "active": true})
        } else {
            json!({"did": did, "active": false, "status": "takendown"})
        };
        let mut answers = test.answers.lock().unwrap();
        answers.statuses.insert(did.to_string(), status);
    };
    status(false);
    let announced = Refresh {
        announced: Some(AnnouncedStatus {
            status: AccountStatus::Takendown,
            pds: Origin::parse(OLD).unwrap(),
        }),
        ..Refresh::new(account_event())
    };
    let refreshed = test.refresh(&did, announced.clone()).await;
    assert_eq!(refreshed.outcome, Outcome::Inactive);
    assert_eq!(test.pds_asked(), (2, 1));
    // Nor does the next recheck show it, which has no announcement.
    let refreshed = test.refresh(&did, plain.clone()).await;
    assert_eq!(refreshed.outcome, Outcome::Inactive);
    assert_eq!(test.entry(&did).await.status, AccountStatus::Takendown);
    status(true);
    assert_eq!(
        test.refresh(&did, plain.clone()).await.outcome,
        Outcome::Proven
    );
    assert_eq!(test.pds_asked(), (4, 3));
    assert_eq!(test.refresh(&did, plain).await.outcome, Outcome::Proven);
    assert_eq!(test.pds_asked(), (5, 3));
    // An announcement of before the account came back is settled.
    assert_eq!(test.refresh(&did, announced).await.outcome, Outcome::Proven);
    assert_eq!(test.entry(&did).await.status, AccountStatus::Active);
}

#[tokio::test]
async fn inv5_a_proof_that_is_stale_is_not_given_before_a_look() {
    let test = TestResolver::start(100).await;
    for removed in [false, true] {
        let did = test.account(if removed { 2 } else { 1 }, OLD, 1, 1);
        test.refresh(&did, Refresh::new(commit())).await;
        if removed {
            let mut repo = TestRepo::new(did.as_str(), 1);
            repo.put(&package(&peer(11), &["did:web:mediator.example.com"]));
            repo.delete();
            let car = repo.car();
            test.answers
                .lock()
                .unwrap()
                .cars
                .insert(did.to_string(), car);
            test.clock.advance(Duration::from_millis(1));
            test.refresh(&did, Refresh::new(commit())).await;
        }
        let asked = test.pds_asked().0;
        let first = test.resolver.proof(&did, CLIENT).await.unwrap();
        test.clock.advance(STALE);
        assert_eq!(test.resolver.proof(&did, CLIENT).await.unwrap(), first);
        assert_eq!(test.pds_asked().0, asked);
        test.clock.advance(MINUTE);
        assert_eq!(test.resolver.proof(&did, CLIENT).await.unwrap(), first);
        assert_eq!(test.pds_asked().0, asked + 1);
        // Where there is no other, the stale one is not given.
        test.clock.advance(STALE + MINUTE);
        test.set(&did, Some((StatusCode::BAD_GATEWAY, "")));
        assert!(test.resolver.proof(&did, CLIENT).await.is_err());
        let answer = test.recipient(&did).await;
        if removed {
            let kind = answer.unwrap_err().kind;
            assert_eq!(kind, LexiconError::UpstreamFailure);
        } else {
            assert_eq!(answer.unwrap()["verification"]["stale"], true);
        }
        test.set(&did, None);
        test.clock.advance(MINUTE);
        if removed {
            let kind = test.recipient(&did).await.unwrap_err().kind;
            assert_eq!(kind, LexiconError::NotEnrolled);
        }
    }
}

/// An account that is back is found by the next who asks for it, and not only by the daily check.
#[tokio::test]
async fn an_old_refusal_is_looked_at_again_when_a_client_asks() {
    let test = TestResolver::start(100).await;
    let did = test.account(1, OLD, 1, 1);
    test.refresh(&did, Refresh::new(commit())).await;
    test.set(&did, Some(TAKENDOWN));
    test.clock.advance(MINUTE);
    test.refresh(&did, Refresh::new(account_event())).await;
    test.set(&did, None);
    let asked = test.pds_asked().0;
    test.clock.advance(4 * MINUTE);
    for _ in 0..3 {
        let kind = test.recipient(&did).await.unwrap_err().kind;
        assert_eq!(kind, LexiconError::AccountInactive);
        assert!(test.resolver.proof(&did, CLIENT).await.is_err());
    }
    assert_eq!(test.pds_asked().0, asked);
    test.clock.advance(MINUTE + MINUTE);
    assert_eq!(test.recipient(&did).await.unwrap()["did"], *did.as_str());
    assert_eq!(test.pds_asked().0, asked + 1);
    // A client beyond its allowance gets the refusal that is there.
    test.set(&did, Some(TAKENDOWN));
    test.refresh(&did, Refresh::new(account_event())).await;
    test.set(&did, None);
    test.clock.advance(6 * MINUTE);
    while test.resolver.charge(CLIENT).is_ok() {}
    let kind = test.recipient(&did).await.unwrap_err().kind;
    assert_eq!(kind, LexiconError::AccountInactive);
}

/// A refresh of the background began before the account wrote its package. The client who asks
/// after that joins no such refresh.
#[tokio::test]
async fn a_refresh_that_began_before_the_package_was_there_refuses_no_client() {
    let test = Arc::new(TestResolver::start(10).await);
    let did = test.account(1, OLD, 1, 1);
    test.set(&did, Some(TAKENDOWN));
    let gate = Arc::new(Notify::new());
    test.answers.lock().unwrap().gate = Some(Arc::clone(&gate));
    let background = {
        let (test, did) = (Arc::clone(&test), did.clone());
        let refresh = Refresh::new(Trigger::Listing(None));
        tokio::spawn(async move { test.refresh(&did, refresh).await })
    };
    while test.pds_asked().0 == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    test.set(&did, None);
    let client = {
        let (test, did) = (Arc::clone(&test), did.clone());
        tokio::spawn(async move { test.recipient(&did).await })
    };
    // Time to join the refresh that is under way.
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.notify_one();
    assert!(background.await.unwrap().refusal.is_some());
    let view = client.await.unwrap().expect("what is there now");
    assert_eq!(view["did"], did.as_str());
}
