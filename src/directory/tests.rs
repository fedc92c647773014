use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::store::{
    AccountStatus, AnnouncedChange, AnnouncedStatus, ChangeKind, Entry, EventKind, NewPending,
    PackageState, SourceCursor, SourceKind, Trigger,
};
use atcomm_proto::proof::Proven;
use atcomm_proto::syntax::{Handle, LexiconError, Origin};
use testkit::proto::repo::{TestRepo, package, peer};

mod absence;
mod bounds;
mod cursors;
mod daily;
mod doubt;
mod explain;
mod handles;
mod history;
mod interleavings;
mod order;
mod stats;
mod updates;

const ALICE: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
const BOB: &str = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb";
const MEDIATOR: &str = "did:web:mediator.example.com";

/// The finding of a check that no server answered.
const UNREACHABLE: Finding = Finding::Unreachable {
    class: "pds_unreachable",
};

/// A directory in a temporary folder, with a clock moved by hand.
struct World {
    _dir: tempfile::TempDir,
    directory: Arc<Directory>,
    clock: Clock,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(&dir.path().join("directory.db")).unwrap();
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        let directory = Directory::bind(store, clock.clone(), 1 << 20)
            .await
            .unwrap();
        Self {
            _dir: dir,
            directory: Arc::new(directory),
            clock,
        }
    }

    async fn seen(&self, repo: &TestRepo, finding: Finding, authority: Authority) -> Observation {
        let now = self.clock.now();
        Observation {
            did: repo.did.clone(),
            identity: Some(facts(repo, "https://pds.example.com", None, now)),
            finding,
            authority,
            trigger: Trigger::Event {
                source: SourceKind::Pds,
                event: EventKind::Commit,
            },
            begun: self.directory.begin(&repo.did).await.unwrap(),
            at: now,
        }
    }

    async fn pds(&self, repo: &TestRepo, proven: Proven) -> Outcome {
        self.apply(self.seen(repo, found(proven), Authority::Pds).await)
            .await
    }

    async fn stream(&self, repo: &TestRepo, proven: Proven) -> Outcome {
        self.apply(self.seen(repo, found(proven), Authority::Stream).await)
            .await
    }

    async fn finding(&self, repo: &TestRepo, finding: Finding) -> Outcome {
        self.apply(self.seen(repo, finding, Authority::Pds).await)
            .await
    }

    async fn apply(&self, seen: Observation) -> Outcome {
        // Time passes between any two refreshes.
        let outcome = self
            .directory
            .apply(seen, PendingUpdate::Unchanged)
            .await
            .unwrap();
        self.clock.advance(Duration::from_secs(1));
        outcome
    }

    async fn view(&self, actor: &str) -> Option<Result<serde_json::Value, LexiconError>> {
        let actor = Actor::parse(actor).unwrap();
        let found = self.directory.recipient(&actor).await.unwrap().found();
        found
            .map(|view| view.map(|view| serde_json::from_slice(&view.body).unwrap()))
            .map_err(|refusal| refusal.kind)
            .transpose()
    }

    async fn entry(&self, repo: &TestRepo) -> Option<Entry> {
        let did = repo.did.clone();
        self.directory
            .store()
            .query(move |q| q.entry(&did))
            .await
            .unwrap()
    }

    async fn proof(&self, repo: &TestRepo) -> Option<Vec<u8>> {
        let did = repo.did.clone();
        let store = self.directory.store();
        store.query(move |q| q.proof(&did)).await.unwrap()
    }

    async fn kinds(&self, repo: &TestRepo) -> Vec<ChangeKind> {
        let did = repo.did.clone();
        let changes = self
            .directory
            .store()
            .query(move |q| q.changes(&did, 100))
            .await
            .unwrap();
        changes
            .into_iter()
            .rev()
            .map(|change| change.kind)
            .collect()
    }
}

fn facts(
    repo: &TestRepo,
    pds: &str,
    claimed: Option<&Handle>,
    asked_at: Timestamp,
) -> IdentityFacts {
    IdentityFacts {
        pds: Some(Origin::parse(pds).unwrap()),
        key: Some(repo.key()),
        claimed: claimed.cloned(),
        asked_at,
    }
}

fn found(proven: Proven) -> Finding {
    match proven {
        Proven::Present(record) => Finding::Present(record),
        Proven::Absent(absence) => Finding::Absent(absence),
    }
}

#[tokio::test]
async fn a_package_is_shown_replaced_and_removed() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    assert!(w.view(ALICE).await.is_none() && !w.directory.is_tracked(ALICE));
    let first = repo.put(&package(&peer(10), &[MEDIATOR, "did:peer:2.x"]));
    assert_eq!(w.pds(&repo, first.clone()).await, Outcome::Package);
    assert!(w.directory.is_tracked(ALICE));
    let view = w.view(ALICE).await.unwrap().unwrap();
    assert_eq!(view["did"], ALICE);
    assert_eq!(view["handle"], "handle.invalid");
    assert_eq!(view["status"], "active");
    assert_eq!(view["keyPackage"]["value"]["did"], peer(10));
    assert_eq!(
        view["keyPackage"]["uri"],
        format!("at://{ALICE}/at.didcomm.keyPackage/self")
    );
    assert_eq!(
        view["peer"]["keyAgreement"][0]["id"],
        format!("{}#key-1", peer(10))
    );
    assert_eq!(view["mediators"][0]["state"], "unchecked");
    assert_eq!(view["verification"]["signingKey"], repo.key().did_key());
    // The same again changes nothing.
    assert_eq!(w.pds(&repo, first).await, Outcome::Proven);
    let second = repo.put(&package(&peer(11), &[MEDIATOR]));
    assert_eq!(w.stream(&repo, second).await, Outcome::Package);
    assert_eq!(
        w.view(ALICE).await.unwrap().unwrap()["peer"]["did"],
        peer(11)
    );
    let gone = repo.delete();
    assert_eq!(w.stream(&repo, gone.clone()).await, Outcome::Removed);
    assert_eq!(w.view(ALICE).await, Some(Err(LexiconError::NotEnrolled)));
    assert_eq!(w.pds(&repo, gone).await, Outcome::NotEnrolled);
    use ChangeKind::{Package, Removed};
    assert_eq!(w.kinds(&repo).await, vec![Package, Package, Removed]);
    // Superseded packages keep their proof, and it still verifies.
    let did = repo.did.clone();
    let changes = w
        .directory
        .store()
        .query(move |q| q.changes(&did, 9))
        .await
        .unwrap();
    for change in changes.iter().filter(|change| change.kind == Package) {
        let car = change.proof.as_deref().unwrap();
        let now = w.clock.now();
        let container = atcomm_proto::proof::Container::GetRecord;
        let proven =
            atcomm_proto::proof::verify(car, container, &repo.did, &repo.key(), now).unwrap();
        let Proven::Present(record) = proven else {
            panic!("an absence")
        };
        assert_eq!(Some(*record.cid()), change.cid);
    }
}

#[tokio::test]
async fn inv5_absences_are_told_apart() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    // Nothing is kept of accounts that never had a package.
    let nothing = repo.touch(1);
    assert_eq!(w.pds(&repo, nothing).await, Outcome::NotEnrolled);
    assert_eq!(
        w.finding(&repo, Finding::AbsentUnproven).await,
        Outcome::NotEnrolled
    );
    assert!(w.view(ALICE).await.is_none());
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, there).await;
    assert_eq!(
        w.finding(&repo, Finding::AbsentUnproven).await,
        Outcome::Removed
    );
    assert_eq!(
        w.view(ALICE).await,
        Some(Err(LexiconError::NotEnrolledUnproven))
    );
    let gone = repo.delete();
    w.pds(&repo, gone).await;
    assert_eq!(w.view(ALICE).await, Some(Err(LexiconError::NotEnrolled)));
    // A report without proof does not replace the proof.
    w.finding(&repo, Finding::AbsentUnproven).await;
    assert_eq!(w.view(ALICE).await, Some(Err(LexiconError::NotEnrolled)));
}

#[tokio::test]
async fn an_inactive_account_is_hidden_and_kept() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, there.clone()).await;
    let takendown = Finding::Inactive(AccountStatus::Takendown);
    assert_eq!(w.finding(&repo, takendown).await, Outcome::Inactive);
    assert_eq!(
        w.view(ALICE).await,
        Some(Err(LexiconError::AccountInactive))
    );
    // A stream may replay what was before; only the PDS says that the account is back.
    w.stream(&repo, there.clone()).await;
    assert_eq!(
        w.view(ALICE).await,
        Some(Err(LexiconError::AccountInactive))
    );
    assert_eq!(w.pds(&repo, there).await, Outcome::Proven);
    assert!(w.view(ALICE).await.unwrap().is_ok());
    assert_eq!(w.finding(&repo, Finding::Deleted).await, Outcome::Deleted);
    assert!(w.view(ALICE).await.is_none() && !w.directory.is_tracked(ALICE));
}

#[tokio::test]
async fn inv1_what_was_proven_under_another_key_is_not_shown() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, there).await;
    let bad = || Finding::Unverifiable {
        reason: "proof_signature",
        detail: "x".to_owned(),
    };
    // The identity is as it was: a useless answer of a server invalidates nothing.
    assert_eq!(w.finding(&repo, bad()).await, Outcome::Unverifiable);
    assert!(w.view(ALICE).await.unwrap().is_ok());
    // The key was rotated in the DID document, and nothing is proven under the new one.
    repo.rotate(2);
    assert_eq!(w.finding(&repo, bad()).await, Outcome::Unverifiable);
    assert_eq!(
        w.view(ALICE).await,
        Some(Err(LexiconError::UpstreamFailure))
    );
    let again = repo.touch(1);
    assert_eq!(w.pds(&repo, again).await, Outcome::Package);
    assert!(w.view(ALICE).await.unwrap().is_ok());
}

#[tokio::test]
async fn an_invalid_package_is_kept_with_its_reason() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let invalid = repo.put(&serde_json::json!({"$type": "at.didcomm.keyPackage", "did": 42}));
    assert_eq!(w.pds(&repo, invalid.clone()).await, Outcome::Invalid);
    assert_eq!(
        w.view(ALICE).await,
        Some(Err(LexiconError::InvalidKeyPackage))
    );
    let entry = w.entry(&repo).await.unwrap();
    assert_eq!(
        (entry.state, entry.reason.as_deref()),
        (PackageState::Invalid, Some("did"))
    );
    assert!(entry.cid.is_some() && entry.peer.is_none());
    assert!(w.proof(&repo).await.is_some());
    assert_eq!(w.pds(&repo, invalid).await, Outcome::Proven);
}

#[tokio::test]
async fn several_claimants_of_a_did_peer_are_ambiguous_until_one_is_left() {
    let w = World::new().await;
    let (mut alice, mut bob) = (TestRepo::new(ALICE, 1), TestRepo::new(BOB, 2));
    let hers = alice.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&alice, hers).await;
    let ambiguous = |view: Option<Result<serde_json::Value, LexiconError>>| {
        view.unwrap().unwrap()["peer"]["ambiguous"]
            .as_bool()
            .unwrap()
    };
    assert!(!ambiguous(w.view(ALICE).await));
    assert!(w.directory.cached_view(ALICE).is_some());
    let his = bob.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&bob, his).await;
    // Her cached view is not valid any more.
    assert!(w.directory.cached_view(ALICE).is_none());
    assert!(ambiguous(w.view(ALICE).await) && ambiguous(w.view(BOB).await));
    let gone = bob.delete();
    w.pds(&bob, gone).await;
    assert!(!ambiguous(w.view(ALICE).await));
}

#[tokio::test]
async fn age_makes_an_answer_stale_and_at_last_drops_it() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, there).await;
    let first = w
        .directory
        .cached_view(ALICE)
        .or(w
            .directory
            .recipient(&Actor::parse(ALICE).unwrap())
            .await
            .unwrap()
            .found()
            .unwrap())
        .unwrap();
    w.clock.advance(STALE);
    assert_eq!(w.finding(&repo, UNREACHABLE).await, Outcome::Unreachable);
    let view = w.view(ALICE).await.unwrap().unwrap();
    assert_eq!(view["verification"]["stale"], true);
    assert!(view["verification"]["age"].as_u64().unwrap() >= STALE.as_secs());
    // Being stale is news to a reader; a mere check time is not.
    let later = w.directory.cached_view(ALICE).unwrap();
    assert_ne!(first.etag, later.etag);
    w.clock.advance(Duration::from_secs(60));
    w.view(ALICE).await;
    assert_eq!(w.directory.cached_view(ALICE).unwrap().etag, later.etag);
    w.clock.advance(DROP);
    assert_eq!(w.finding(&repo, UNREACHABLE).await, Outcome::Dropped);
    assert!(w.view(ALICE).await.is_none());
    assert_eq!(
        w.kinds(&repo).await,
        vec![ChangeKind::Package, ChangeKind::Dropped]
    );
}

#[tokio::test]
async fn inv2_a_batch_is_written_whole_with_its_cursor() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let first = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, first).await;
    let there = repo.put(&package(&peer(11), &[MEDIATOR]));
    let pending = |did: &str, announced: AnnouncedChange| NewPending {
        did: Did::parse(did).unwrap(),
        trigger: Trigger::Event {
            source: SourceKind::Pds,
            event: EventKind::Account,
        },
        announced,
        not_before: w.clock.now(),
    };
    let takendown = AnnouncedStatus {
        status: AccountStatus::Takendown,
        pds: Origin::parse("https://pds.example.com").unwrap(),
    };
    let announced = AnnouncedChange::Set(takendown.clone());
    let batch = Batch {
        observations: vec![w.seen(&repo, found(there), Authority::Stream).await],
        pending: vec![
            pending(ALICE, announced),
            pending(BOB, AnnouncedChange::Keep),
        ],
        cursor: Some(SourceCursor {
            source: "pds x".to_owned(),
            position: 7,
            event_time: None,
        }),
        ..Batch::default()
    };
    let outcomes = w.directory.apply_batch(batch.clone()).await.unwrap();
    assert_eq!(outcomes, vec![Outcome::Package]);
    // The same batch again, as after a crash, changes nothing.
    assert_eq!(
        w.directory.apply_batch(batch).await.unwrap(),
        vec![Outcome::Ignored]
    );
    assert_eq!(w.kinds(&repo).await, vec![ChangeKind::Package; 2]);
    let cursor = w
        .directory
        .store()
        .query(|q| q.cursor("pds x"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(cursor.position, 7);
    let (due, _) = w.directory.due(10).await.unwrap();
    // An announced status stays with the pending refresh until the PDS takes it back.
    let announced = |did: &str| {
        let row = due.iter().find(|row| row.did.as_str() == did).unwrap();
        row.announced.clone()
    };
    assert_eq!(
        (announced(ALICE), announced(BOB)),
        (Some(takendown.clone()), None)
    );
    for (change, expected) in [
        (AnnouncedChange::Keep, Some(takendown)),
        (AnnouncedChange::Clear, None),
    ] {
        let batch = Batch {
            pending: vec![pending(ALICE, change)],
            ..Batch::default()
        };
        w.directory.apply_batch(batch).await.unwrap();
        let (due, _) = w.directory.due(10).await.unwrap();
        let row = due.iter().find(|row| row.did.as_str() == ALICE).unwrap();
        assert_eq!(row.announced, expected);
    }
}

#[tokio::test]
async fn a_mediator_is_due_once_named_and_shown_once_known() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR, "did:example:other"]));
    w.pds(&repo, there).await;
    let did = MediatorDid::parse(MEDIATOR).unwrap();
    assert_eq!(
        w.directory.due_mediators(9).await.unwrap(),
        vec![did.clone()]
    );
    w.view(ALICE).await;
    let before = w.directory.cached_view(ALICE).unwrap();
    let mut document = MediatorDocument::unchecked(did.clone());
    document.state = MediatorState::Reachable;
    document.checked_at = Some(w.clock.now());
    w.directory.put_mediator(&did, &document).await.unwrap();
    let view = w.view(ALICE).await.unwrap().unwrap();
    assert_eq!(view["mediators"][0]["state"], "reachable");
    assert_eq!(view["mediators"][1]["state"], "unsupported");
    let after = w.directory.cached_view(ALICE).unwrap();
    assert_ne!(before.etag, after.etag);
    // The same document again leaves the view cached.
    w.clock.advance(Duration::from_secs(1));
    document.checked_at = Some(w.clock.now());
    w.directory.put_mediator(&did, &document).await.unwrap();
    assert!(w.directory.cached_view(ALICE).is_some());
    assert!(w.directory.due_mediators(9).await.unwrap().is_empty());
    w.clock.advance(MEDIATOR_RECHECK);
    assert_eq!(
        w.directory.due_mediators(9).await.unwrap(),
        vec![did.clone()]
    );
    // A mediator that no package names is deleted.
    let gone = repo.delete();
    w.pds(&repo, gone).await;
    assert!(w.directory.due_mediators(9).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_refresh_that_was_turned_away_makes_room_for_the_next() {
    let w = World::new().await;
    let (mut alice, mut bob) = (TestRepo::new(ALICE, 1), TestRepo::new(BOB, 2));
    for (repo, n) in [(&mut alice, 10), (&mut bob, 11)] {
        let there = repo.put(&package(&peer(n), &[MEDIATOR]));
        w.pds(repo, there).await;
    }
    w.clock.advance(REPROVE);
    let (_, due) = w.directory.due(1).await.unwrap();
    let until = w.clock.now().plus(Duration::from_secs(60));
    w.directory.defer_check(&due[0], until).await.unwrap();
    let (_, next) = w.directory.due(1).await.unwrap();
    assert_eq!(next.len(), 1);
    assert_ne!(next, due);
}

#[tokio::test]
async fn inv5_a_replayed_commit_does_not_bring_back_what_the_pds_says_is_gone() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, there.clone()).await;
    w.finding(&repo, Finding::AbsentUnproven).await;
    assert_eq!(w.stream(&repo, there).await, Outcome::Ignored);
    assert_eq!(
        w.view(ALICE).await,
        Some(Err(LexiconError::NotEnrolledUnproven))
    );
}
