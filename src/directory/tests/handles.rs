use super::*;
use atcomm_net::identity::HandleCheck;

const HOUR: Duration = Duration::from_secs(3600);

fn handle(name: &str) -> Handle {
    Handle::parse(name).unwrap()
}

impl World {
    /// A refresh that reads a document with this claim.
    async fn claims(&self, repo: &TestRepo, claimed: Option<&str>, trigger: Trigger) {
        let mut seen = self.seen(repo, found(repo.prove()), Authority::Pds).await;
        let claimed = claimed.map(handle);
        let pds = "https://pds.example.com";
        seen.identity = Some(facts(repo, pds, claimed.as_ref(), self.clock.now()));
        seen.trigger = trigger;
        self.apply(seen).await;
    }

    /// A check of a claim that begins and ends now.
    async fn checked(&self, repo: &TestRepo, claimed: &str, check: HandleCheck) {
        let (did, claimed, now) = (&repo.did, handle(claimed), self.clock.now());
        let applied = self.directory.apply_handle(did, &claimed, check, now);
        applied.await.unwrap();
        self.clock.advance(Duration::from_secs(1));
    }

    async fn verified(&self, repo: &TestRepo, name: &str) {
        self.claims(repo, Some(name), Trigger::Recheck).await;
        let check = HandleCheck::Verified(handle(name));
        self.checked(repo, name, check).await;
    }

    async fn shown(&self, actor: &str) -> Option<String> {
        let view = self.view(actor).await?.unwrap();
        Some(view["handle"].as_str().unwrap().to_owned())
    }

    async fn identity_changes(&self, repo: &TestRepo) -> Vec<Option<String>> {
        let did = repo.did.clone();
        let changes = self.directory.store().query(move |q| q.changes(&did, 100));
        let changes = changes.await.unwrap().into_iter().rev();
        let identity = changes.filter(|change| change.kind == ChangeKind::Identity);
        identity.map(|change| change.detail).collect()
    }
}

fn enrolled(did: &str, seed: u8) -> TestRepo {
    let mut repo = TestRepo::new(did, seed);
    repo.put(&package(&peer(seed + 9), &[MEDIATOR]));
    repo
}

/// The name leads to no other account's key, whatever the name server of the new claim does.
#[tokio::test]
async fn inv1_a_name_that_is_claimed_no_more_is_not_shown() {
    let w = World::new().await;
    let alice = enrolled(ALICE, 1);
    for check in [HandleCheck::Inconclusive, HandleCheck::Invalid] {
        w.verified(&alice, "support.example.com").await;
        assert_eq!(
            w.shown("support.example.com").await.unwrap(),
            "support.example.com"
        );
        assert!(w.directory.cached_view("support.example.com").is_some());
        w.claims(&alice, Some("x.mute.net"), Trigger::Recheck).await;
        for _ in 0..2 {
            assert_eq!(w.shown(ALICE).await.unwrap(), "handle.invalid");
            assert!(w.view("support.example.com").await.is_none());
            assert!(w.directory.cached_view("support.example.com").is_none());
            w.checked(&alice, "x.mute.net", check.clone()).await;
            // A check of the claim before that ends late.
            let late = HandleCheck::Verified(handle("support.example.com"));
            w.checked(&alice, "support.example.com", late).await;
        }
    }
    w.claims(&alice, None, Trigger::Recheck).await;
    assert_eq!(w.shown(ALICE).await.unwrap(), "handle.invalid");
}

#[tokio::test]
async fn inv1_a_name_that_was_not_confirmed_for_72_hours_is_not_shown() {
    let w = World::new().await;
    let alice = enrolled(ALICE, 1);
    w.verified(&alice, "alice.example.com").await;
    for hour in 1..=73 {
        w.clock.advance(HOUR);
        w.claims(&alice, Some("alice.example.com"), Trigger::Recheck)
            .await;
        // The last day nothing is checked at all.
        if hour % 5 == 0 && hour < 48 {
            let check = HandleCheck::Inconclusive;
            w.checked(&alice, "alice.example.com", check).await;
        }
        let name = (hour < 72).then_some("alice.example.com");
        assert_eq!(
            w.shown(ALICE).await.unwrap(),
            name.unwrap_or("handle.invalid"),
            "{hour}"
        );
        assert_eq!(
            w.view("alice.example.com").await.is_some(),
            name.is_some(),
            "{hour}"
        );
    }
    assert_eq!(w.identity_changes(&alice).await.len(), 1);
    w.checked(&alice, "alice.example.com", HandleCheck::Inconclusive)
        .await;
    let again = HandleCheck::Verified(handle("alice.example.com"));
    w.checked(&alice, "alice.example.com", again).await;
    assert_eq!(
        w.shown("alice.example.com").await.unwrap(),
        "alice.example.com"
    );
    let name = || Some("alice.example.com".to_owned());
    assert_eq!(w.identity_changes(&alice).await, [name(), None, name()]);
}

#[tokio::test]
async fn a_name_has_one_owner_and_each_change_of_it_is_in_the_log() {
    let w = World::new().await;
    let (alice, bob) = (enrolled(ALICE, 1), enrolled(BOB, 2));
    w.verified(&alice, "name.example.com").await;
    assert!(w.shown(ALICE).await.is_some() && w.directory.cached_view(ALICE).is_some());
    w.verified(&bob, "name.example.com").await;
    assert!(w.directory.cached_view(ALICE).is_none());
    assert_eq!(w.shown(ALICE).await.unwrap(), "handle.invalid");
    assert_eq!(
        w.view("name.example.com").await.unwrap().unwrap()["did"],
        BOB
    );
    // Her claim stands, so it is checked again at once; DNS says no now.
    let due = async |did: &Did| w.directory.due_handle(did).await.unwrap();
    assert_eq!(due(&alice.did).await, Some(handle("name.example.com")));
    w.checked(&alice, "name.example.com", HandleCheck::Invalid)
        .await;
    assert_eq!(due(&alice.did).await, None);
    // He gives it up, too.
    w.checked(&bob, "name.example.com", HandleCheck::Invalid)
        .await;
    assert!(w.view("name.example.com").await.is_none());
    let name = || Some("name.example.com".to_owned());
    assert_eq!(w.identity_changes(&alice).await, [name(), None]);
    assert_eq!(w.identity_changes(&bob).await, [name(), None]);
}

#[tokio::test]
async fn news_of_the_account_make_its_claim_due_and_nothing_else_does() {
    let w = World::new().await;
    let alice = enrolled(ALICE, 1);
    w.claims(&alice, Some("alice.example.com"), Trigger::Recheck)
        .await;
    let due = async |is_news| {
        let start = crate::store::DuePosition::START;
        w.directory
            .due_handles(is_news, start, 9)
            .await
            .unwrap()
            .len()
    };
    assert_eq!((due(true).await, due(false).await), (1, 0));
    w.verified(&alice, "alice.example.com").await;
    assert_eq!((due(true).await, due(false).await), (0, 0));
    let event = |event| Trigger::Event {
        source: SourceKind::Relay,
        event,
    };
    for (trigger, is_news) in [
        (event(EventKind::Commit), false),
        (Trigger::Listing(None), false),
        (Trigger::Recheck, false),
        (event(EventKind::Identity), true),
        (event(EventKind::Account), true),
        (event(EventKind::Sync), true),
        (Trigger::Request, true),
    ] {
        w.clock.advance(HOUR);
        w.claims(&alice, Some("alice.example.com"), trigger.clone())
            .await;
        assert_eq!(due(true).await, usize::from(is_news), "{trigger:?}");
        let check = HandleCheck::Verified(handle("alice.example.com"));
        w.checked(&alice, "alice.example.com", check).await;
    }
    w.clock.advance(REPROVE);
    assert_eq!((due(true).await, due(false).await), (0, 1));
    // A claim that cannot be confirmed does not repeat the refresh.
    let before = w.entry(&alice).await.unwrap();
    for _ in 0..5 {
        w.checked(&alice, "alice.example.com", HandleCheck::Inconclusive)
            .await;
    }
    let after = w.entry(&alice).await.unwrap();
    assert_eq!(
        (before.next_check_at, before.failures),
        (after.next_check_at, 0)
    );
}
