//! What is kept of whom, and what others notice of it.

use super::*;
use std::collections::BTreeSet;
use std::time::Instant;

const EVIL: &str = "https://pds.evil.example";

/// The n-th account.
fn account(n: u64) -> TestRepo {
    let digit = |i: u32| char::from(b'a' + ((n >> (4 * i)) & 15) as u8);
    let tail: String = (0..24)
        .map(|i| if i < 16 { digit(i) } else { 'a' })
        .collect();
    TestRepo::new(&format!("did:plc:{tail}"), 1)
}

impl World {
    /// A directory with these limits.
    pub(super) async fn limited(limits: Limits) -> Self {
        let world = Self::new().await;
        let (dir, clock) = (world._dir, world.clock);
        world.directory.shutdown().await;
        let store = DirectoryStore::open(&dir.path().join("directory.db")).unwrap();
        let directory = Directory::bind(store, clock.clone(), 1 << 20)
            .await
            .unwrap();
        Self {
            _dir: dir,
            directory: Arc::new(directory.with_limits(limits)),
            clock,
        }
    }

    /// Applies a package of an account at a PDS.
    async fn at(&self, repo: &TestRepo, pds: &str, proven: Proven, trigger: Trigger) -> Outcome {
        let mut seen = self.seen(repo, found(proven), Authority::Pds).await;
        seen.identity.as_mut().unwrap().pds = Some(Origin::parse(pds).unwrap());
        seen.trigger = trigger;
        self.apply(seen).await
    }

    /// Applies the package of a new account at a PDS.
    async fn new_at(&self, n: u64, pds: &str, trigger: Trigger) -> Outcome {
        let mut repo = account(n);
        let there = repo.put(&package(&peer(10), &[MEDIATOR]));
        self.at(&repo, pds, there, trigger).await
    }

    async fn share(&self, domain: &'static str) -> crate::store::directory::Usage {
        let store = self.directory.store();
        store.query(move |q| q.share_of(domain)).await.unwrap()
    }

    async fn pending(&self) -> u64 {
        let store = self.directory.store();
        store.query(|q| q.pending_count()).await.unwrap()
    }
}

fn listing() -> Trigger {
    Trigger::Listing(None)
}

#[tokio::test]
async fn inv7_clients_bring_so_many_accounts_of_a_domain_and_sources_more() {
    let w = World::limited(Limits {
        asked_per_domain: 3,
        ..Limits::default()
    })
    .await;
    // Names below the domain are no other domain.
    for n in 0..3 {
        let pds = format!("https://x{n}.evil.example");
        assert_eq!(w.new_at(n, &pds, Trigger::Request).await, Outcome::Package);
    }
    let full = Outcome::Full(Full::Accounts);
    assert_eq!(w.new_at(3, EVIL, Trigger::Request).await, full);
    assert!(!w.directory.is_tracked(account(3).did.as_str()));
    assert!(w.kinds(&account(3)).await.is_empty());
    assert_eq!(w.share("evil.example").await.asked, 3);
    // Others are not concerned.
    let elsewhere = "https://pds.other.example";
    assert_eq!(
        w.new_at(4, elsewhere, Trigger::Request).await,
        Outcome::Package
    );
    // Nor is what sources bring, which makes no room for clients either.
    assert_eq!(w.new_at(5, EVIL, listing()).await, Outcome::Package);
    assert_eq!(w.new_at(6, EVIL, Trigger::Request).await, full);
    // A known account is kept up to date.
    let mut known = account(0);
    known.put(&package(&peer(10), &[MEDIATOR]));
    let newer = known.put(&package(&peer(11), &[MEDIATOR]));
    assert_eq!(
        w.at(&known, EVIL, newer, Trigger::Request).await,
        Outcome::Package
    );
    // An account that a source names, too, makes room.
    let named = Batch {
        pending: vec![NewPending {
            did: account(1).did,
            trigger: listing(),
            announced: AnnouncedChange::Keep,
            not_before: w.clock.now(),
        }],
        ..Batch::default()
    };
    w.directory.apply_batch(named).await.unwrap();
    assert_eq!(w.share("evil.example").await.asked, 2);
    assert_eq!(w.new_at(6, EVIL, Trigger::Request).await, Outcome::Package);
    assert_eq!(w.new_at(7, EVIL, Trigger::Request).await, full);
    // An account that a source has named already is not the client's.
    let named = Batch {
        pending: vec![NewPending {
            did: account(7).did,
            trigger: listing(),
            announced: AnnouncedChange::Keep,
            not_before: w.clock.now(),
        }],
        ..Batch::default()
    };
    w.directory.apply_batch(named).await.unwrap();
    assert_eq!(w.new_at(7, EVIL, Trigger::Request).await, Outcome::Package);
}

#[tokio::test]
async fn inv7_an_account_that_moves_makes_no_room_behind_it() {
    let w = World::limited(Limits {
        asked_per_domain: 2,
        ..Limits::default()
    })
    .await;
    for n in 0..2 {
        w.new_at(n, EVIL, Trigger::Request).await;
        let mut repo = account(n);
        repo.put(&package(&peer(10), &[MEDIATOR]));
        let newer = repo.put(&package(&peer(11), &[MEDIATOR]));
        let moved = w
            .at(&repo, "https://pds.second.example", newer, Trigger::Request)
            .await;
        assert_eq!(moved, Outcome::Package);
    }
    assert_eq!(
        w.new_at(2, EVIL, Trigger::Request).await,
        Outcome::Full(Full::Accounts)
    );
}

#[tokio::test]
async fn inv7_a_refused_account_of_a_listing_does_not_stay_pending_and_own_ones_always_fit() {
    let own = "https://pds.own.example";
    let w = World::limited(Limits {
        max_bytes: 1000,
        own: BTreeSet::from([Origin::parse(own).unwrap()]),
        ..Limits::default()
    })
    .await;
    let mut repo = account(1);
    let there = repo.put(&package(&peer(10), &[MEDIATOR]));
    let row = NewPending {
        did: repo.did.clone(),
        trigger: listing(),
        announced: AnnouncedChange::Keep,
        not_before: w.clock.now(),
    };
    let batch = Batch {
        pending: vec![row],
        ..Batch::default()
    };
    w.directory.apply_batch(batch).await.unwrap();
    assert_eq!(w.pending().await, 1);
    let mut seen = w.seen(&repo, found(there), Authority::Pds).await;
    seen.trigger = listing();
    let outcome = w.directory.apply(seen, PendingUpdate::Complete(1)).await;
    assert_eq!(outcome.unwrap(), Outcome::Full(Full::File));
    assert_eq!(w.pending().await, 0);
    assert!(w.directory.is_healthy());
    for n in 2..5 {
        assert_eq!(w.new_at(n, own, Trigger::Request).await, Outcome::Package);
    }
    assert_eq!(w.share("own.example").await.entries, 3);
}

/// Ten thousand accounts name the victim's did:peer. Neither a view of the victim nor a write of
/// one of them reads more than a few of them, and a write leaves the cached views of others alone.
#[tokio::test]
async fn inv7_many_claimants_slow_no_one_down() {
    const CLAIMANTS: u64 = 10_000;
    const TIMES: u32 = 20;
    let w = World::new().await;
    let mut victim = TestRepo::new(ALICE, 1);
    let there = victim.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&victim, there).await;
    let mut bob = TestRepo::new(BOB, 1);
    let there = bob.put(&package(&peer(12), &[MEDIATOR]));
    w.pds(&bob, there).await;
    let mut times = Vec::new();
    for count in [1, CLAIMANTS] {
        let template = w.entry(&victim).await.unwrap();
        let fill = move |tx: &crate::store::directory::Tx<'_>| {
            for n in 0..count {
                tx.put_entry(&Entry {
                    did: account(n).did,
                    observed_at: template.observed_at.plus(Duration::from_secs(1)),
                    ..template.clone()
                })?;
            }
            Ok(())
        };
        w.directory.store().transact(fill).await.unwrap();
        // The least of several times, since other tests run beside.
        let mut rendering = Duration::MAX;
        for _ in 0..TIMES {
            w.directory.view_cache.invalidate_all();
            let begun = Instant::now();
            w.view(ALICE).await.unwrap().unwrap();
            rendering = rendering.min(begun.elapsed());
        }
        // One claimant leaves and comes back, again and again.
        w.view(BOB).await.unwrap().unwrap();
        let mut repo = account(0);
        let mut writing = Duration::MAX;
        for _ in 0..TIMES {
            for proven in [
                repo.put(&package(&peer(11), &[MEDIATOR])),
                repo.put(&package(&peer(10), &[MEDIATOR])),
            ] {
                let seen = w.seen(&repo, found(proven), Authority::Pds).await;
                let begun = Instant::now();
                w.apply(seen).await;
                writing = writing.min(begun.elapsed());
            }
        }
        println!("{count} other claimants: {rendering:?} a cold view, {writing:?} a write");
        times.push((rendering, writing));
    }
    let (few, many) = (times[0], times[1]);
    // Generous: reading all of them would be hundreds of times slower.
    assert!(many.0 < few.0 * 20 + Duration::from_millis(20), "{times:?}");
    assert!(many.1 < few.1 * 20 + Duration::from_millis(20), "{times:?}");
    // Writes among many claimants make no view of others cold.
    w.view(BOB).await.unwrap().unwrap();
    let mut repo = account(1);
    let there = repo.put(&package(&peer(11), &[MEDIATOR]));
    w.pds(&repo, there).await;
    assert!(w.directory.cached_view(BOB).is_some());
}

/// Accounts that began small do not grow beyond the limit.
#[tokio::test]
async fn inv7_a_known_account_is_kept_up_to_date_and_does_not_grow_without_room() {
    const COUNT: u64 = 30;
    const MAX: u64 = 300_000;
    let w = World::limited(Limits {
        max_bytes: MAX,
        ..Limits::default()
    })
    .await;
    let mut repos: Vec<TestRepo> = (0..COUNT).map(account).collect();
    let mut record = package(&peer(10), &[MEDIATOR]);
    for repo in &mut repos {
        let there = repo.put(&record);
        w.at(repo, EVIL, there, listing()).await;
    }
    let mut full = 0;
    for (len, step) in [(10_000, 0), (55_000, 1)] {
        record["note"] = serde_json::json!("n".repeat(len));
        for repo in &mut repos {
            record["n"] = serde_json::json!(step);
            let there = repo.put(&record);
            match w.at(repo, EVIL, there, listing()).await {
                Outcome::Package => {}
                Outcome::Full(_) => full += 1,
                other => panic!("{other:?}"),
            }
        }
        // What is not kept up to date is not shown.
        for repo in &repos {
            let shown = w.view(repo.did.as_str()).await;
            if let Some(view) = shown {
                assert_eq!(view.unwrap()["keyPackage"]["value"]["n"], step);
            }
        }
    }
    let all = w
        .directory
        .store()
        .query(|q| q.share_of_all())
        .await
        .unwrap();
    println!(
        "{} bytes of {COUNT} accounts that grew, {full} were not kept",
        all.bytes
    );
    assert!(full > 0 && all.bytes < 3 * MAX, "{full} {all:?}");
}

/// A mediator whose document is inflated is not kept with it.
#[tokio::test]
async fn inv7_the_document_of_a_mediator_is_bounded() {
    let w = World::new().await;
    let mut alice = TestRepo::new(ALICE, 1);
    let there = alice.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&alice, there).await;
    let mediator = MediatorDid::parse(MEDIATOR).unwrap();
    let services: Vec<_> = (0..8)
        .map(|n| serde_json::json!({
            "id": format!("{MEDIATOR}#{n}"), "type": "DIDCommMessaging",
            "serviceEndpoint": {"uri": format!("https://m.example.com/{}", "x".repeat(1900)), "accept": ["didcomm/v2"]},
        }))
        .collect();
    let key = peer(10);
    let key = key.split('.').nth(1).unwrap().trim_start_matches('E');
    let document = serde_json::json!({
        "id": MEDIATOR,
        "keyAgreement": [{"id": format!("{MEDIATOR}#k"), "type": "Multikey", "controller": MEDIATOR, "publicKeyMultibase": key}],
        "service": services,
    });
    let large = MediatorDocument::unchecked(mediator.clone())
        .made_here(document.to_string().as_bytes(), false, w.clock.now())
        .unwrap();
    assert!(large.to_stored().len() > MAX_STORED_MEDIATOR);
    w.directory.put_mediator(&mediator, &large).await.unwrap();
    let kept = w.directory.mediator(&mediator).await.unwrap().unwrap();
    assert_eq!(kept.state, MediatorState::Unresolved);
    assert!(kept.to_stored().len() < 1000);
}

/// An account that came and went leaves nothing in the end, and what is kept of one that is there
/// ages out, too.
#[tokio::test]
async fn inv7_what_is_old_leaves_the_file() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let w = World::limited(Limits {
        history: 100 * DAY,
        ..Limits::default()
    })
    .await;
    let mut alice = TestRepo::new(ALICE, 1);
    let older = alice.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&alice, older.clone()).await;
    for seed in [11, 12] {
        let next = alice.put(&package(&peer(seed), &[MEDIATOR]));
        w.pds(&alice, next).await;
    }
    // An older revision from the PDS itself.
    assert_eq!(w.pds(&alice, older).await, Outcome::Regressed);
    let work = async || {
        let mut housekeeping = Housekeeping::new(Arc::clone(&w.directory));
        for _ in 0..3 {
            housekeeping.round().await.unwrap();
        }
    };
    let before = w.share("example.com").await;
    work().await;
    assert_eq!(w.share("example.com").await, before);
    assert_eq!(w.kinds(&alice).await.len(), 4);
    w.clock.advance(101 * DAY);
    work().await;
    assert_eq!(w.kinds(&alice).await, [ChangeKind::Regressed]);
    let after = w.share("example.com").await;
    println!(
        "{} bytes of one account, {} after the history has aged out",
        before.bytes, after.bytes
    );
    assert!(after.bytes < before.bytes - 2000);
}
