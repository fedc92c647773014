//! The changes of an account, and proofs with the account's operation log.

use data_encoding::BASE64_NOPAD;
use serde_json::{Value, json};

use super::*;
use atcomm_net::identity::PlcLog;
use atcomm_proto::key::SigningKey;
use atcomm_proto::proof::{Container, verify};
use testkit::proto::plc::{TestLog, k256, operation, p256};

fn page(with_proof: bool) -> Page {
    Page {
        before: None,
        limit: MAX_CHANGES,
        with_proof,
        log: None,
    }
}

impl World {
    async fn history(&self, did: &str, page: Page) -> Result<Value, LexiconError> {
        let did = Did::parse(did).unwrap();
        let answer = self.directory.history(&did, page).await.unwrap();
        answer
            .map(|history| serde_json::from_slice(&history.body).unwrap())
            .map_err(|refusal| refusal.kind)
    }
}

fn kinds(history: &Value) -> Vec<&str> {
    let changes = history["changes"].as_array().unwrap();
    changes
        .iter()
        .map(|change| change["kind"].as_str().unwrap())
        .collect()
}

/// The record that a change's proof shows under the key that the change names.
fn proven_record(world: &World, change: &Value) -> String {
    let car = change["proof"]["car"]["$bytes"].as_str().unwrap();
    let car = BASE64_NOPAD.decode(car.as_bytes()).unwrap();
    let key = SigningKey::from_did_key(change["signingKey"].as_str().unwrap()).unwrap();
    let did = Did::parse(ALICE).unwrap();
    let now = world.clock.now();
    let Proven::Present(record) = verify(&car, Container::GetRecord, &did, &key, now).unwrap()
    else {
        panic!("an absence");
    };
    assert_eq!(record.commitment().rev().as_str(), change["rev"]);
    record.cid().to_string()
}

#[tokio::test]
async fn every_package_keeps_the_last_proof_of_its_time() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let first = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, first).await;
    // The key is replaced, and the same package proven again under the new one.
    repo.rotate(2);
    let again = repo.prove();
    assert_eq!(w.pds(&repo, again).await, Outcome::Proven);
    let second = repo.put(&package(&peer(11), &[MEDIATOR]));
    w.pds(&repo, second).await;
    repo.rotate(3);
    let again = repo.prove();
    w.pds(&repo, again).await;

    let history = w.history(ALICE, page(true)).await.unwrap();
    assert_eq!(history["did"], ALICE);
    assert_eq!(
        kinds(&history),
        ["identity", "package", "identity", "package"]
    );
    for (change, peer) in [(1, peer(11)), (3, peer(10))] {
        let change = &history["changes"][change];
        assert_eq!(change["peer"], peer);
        assert_eq!(change["mediators"], json!([MEDIATOR]));
        assert_eq!(proven_record(&w, change), change["cid"]);
    }
    assert_eq!(history["changes"][1]["signingKey"], repo.key().did_key());
    // Other changes tell nothing of the package.
    let identity = history["changes"][0].as_object().unwrap();
    let names: Vec<_> = identity.keys().collect();
    assert_eq!(names, ["seq", "kind", "seenAt"]);
    // The proofs are there only on demand.
    let plain = w.history(ALICE, page(false)).await.unwrap();
    assert_eq!(kinds(&plain), kinds(&history));
    assert!(!plain.to_string().contains("$bytes"));

    let gone = repo.delete();
    w.pds(&repo, gone).await;
    let history = w.history(ALICE, page(true)).await.unwrap();
    assert_eq!(history["changes"][0]["kind"], "removed");
    assert_eq!(history["changes"][0]["peer"], peer(11));
    assert_eq!(history["changes"][0].get("proof"), None);
    let last = &history["changes"][2];
    assert_eq!(last["signingKey"], repo.key().did_key());
    assert_eq!(proven_record(&w, last), last["cid"]);
}

#[tokio::test]
async fn pages_follow_each_other_and_end() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    for seed in 10..15 {
        let next = repo.put(&package(&peer(seed), &[MEDIATOR]));
        w.pds(&repo, next).await;
    }
    for limit in [1, 2, 4, 5, 6] {
        let (mut seen, mut before, mut pages) = (Vec::new(), None, 0);
        loop {
            let asked = Page {
                before,
                limit,
                ..page(true)
            };
            let history = w.history(ALICE, asked).await.unwrap();
            let changes = history["changes"].as_array().unwrap();
            assert!(changes.len() <= limit);
            seen.extend(changes.iter().map(|change| change["peer"].clone()));
            pages += 1;
            match history.get("cursor") {
                Some(cursor) => before = Some(cursor.as_str().unwrap().parse().unwrap()),
                None => break,
            }
        }
        assert_eq!(seen, (10..15).rev().map(peer).collect::<Vec<_>>());
        assert_eq!(pages, 5_usize.div_ceil(limit));
    }
    let past = Page {
        before: Some(1),
        ..page(false)
    };
    let history = w.history(ALICE, past).await.unwrap();
    assert_eq!(history, json!({"did": ALICE, "changes": []}));
}

#[tokio::test]
async fn inv7_a_page_is_bounded_in_bytes() {
    let w = World::new().await;
    let mut repo = TestRepo::new(ALICE, 1);
    let mut record = package(&peer(10), &[MEDIATOR]);
    record["note"] = json!("n".repeat(15_000));
    // Each proof has as many bytes as may be kept.
    for n in 0..100 {
        record["n"] = json!(n);
        let next = repo.put(&record);
        w.pds(&repo, next).await;
    }
    let history = w.history(ALICE, page(true)).await.unwrap();
    let bytes = history.to_string().len();
    assert!((450_000..600_000).contains(&bytes), "{bytes}");
    assert!(history["cursor"].is_string());
    let plain = w.history(ALICE, page(false)).await.unwrap();
    // More than fit on one page with their proofs, and no more than are kept of one account.
    let kept = plain["changes"].as_array().unwrap().len();
    assert!((30..50).contains(&kept), "{kept}");
    assert_eq!(plain.get("cursor"), None);
}

#[tokio::test]
async fn nothing_is_shown_of_an_account_that_is_inactive_or_deleted() {
    let w = World::new().await;
    let empty = json!({"did": ALICE, "changes": []});
    assert_eq!(w.history(ALICE, page(true)).await, Ok(empty.clone()));
    let mut repo = TestRepo::new(ALICE, 1);
    let first = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, first.clone()).await;
    let away = Finding::Inactive(AccountStatus::Takendown);
    w.finding(&repo, away).await;
    let refused = w.history(ALICE, page(true)).await;
    assert_eq!(refused, Err(LexiconError::AccountInactive));
    w.pds(&repo, first).await;
    let back = w.history(ALICE, page(true)).await.unwrap();
    assert_eq!(kinds(&back), ["status", "status", "package"]);
    assert_eq!(back["changes"][0]["detail"], "active");
    w.finding(&repo, Finding::Deleted).await;
    assert_eq!(w.history(ALICE, page(true)).await, Ok(empty));
}

const HERE: &str = "https://pds.example.com";

/// The log of an account whose keys were these, each with its PDS.
fn log(states: &[(u8, &str)]) -> TestLog {
    let owner = p256(1);
    let (mut log, mut last) = (TestLog::default(), None);
    for (minute, (seed, pds)) in (0..).zip(states) {
        let next = operation(&[&owner], &k256(*seed), pds, last.as_ref());
        let next = owner.sign(&next);
        log.push(minute, &next);
        last = Some(next);
    }
    log
}

/// An answer's proof has a log where that leads to the key that signed it, and else none.
#[tokio::test]
async fn inv1_a_log_is_shown_only_where_it_leads_to_the_proof() {
    let elsewhere = "https://old.example.com";
    let moved = log(&[(1, elsewhere), (2, HERE)]);
    let did = moved.did();
    let w = World::new().await;
    let before = TestLog(moved.0[..1].to_vec());
    let asked = |log: &TestLog, at: Timestamp| {
        Arc::new(PlcLog::read(&log.did(), &log.to_vec(), at).unwrap())
    };
    let has_log = async |log: &Arc<PlcLog>| {
        let found = w
            .directory
            .recipient_with_proof(&did, Some(Arc::clone(log)));
        let view = found.await.unwrap().found().unwrap().unwrap();
        let view: Value = serde_json::from_slice(&view.body).unwrap();
        assert!(view["proof"]["car"]["$bytes"].is_string());
        let in_view = view["proof"].get("plcLog").is_some();
        let page = Page {
            log: Some(Arc::clone(log)),
            ..page(true)
        };
        let history = w.history(did.as_str(), page).await.unwrap();
        (in_view, history.get("plcLog").is_some())
    };
    let early = w.clock.now();
    assert_eq!(
        w.directory.fit(&asked(&moved, early)).await.unwrap(),
        LogFit::Differs,
        "nothing is known of the account"
    );
    w.clock.advance(Duration::from_secs(1));

    let mut repo = TestRepo::new(did.as_str(), 1);
    let first = repo.put(&package(&peer(10), &[MEDIATOR]));
    w.pds(&repo, first.clone()).await;
    let fit = async |log: &Arc<PlcLog>| w.directory.fit(log).await.unwrap();
    let late = w.clock.now();
    assert_eq!(fit(&asked(&before, early)).await, LogFit::Fits);
    assert_eq!(fit(&asked(&moved, early)).await, LogFit::Outdated);
    assert_eq!(fit(&asked(&moved, late)).await, LogFit::Differs);
    assert_eq!(has_log(&asked(&before, early)).await, (true, true));
    assert_eq!(has_log(&asked(&moved, late)).await, (false, false));

    // The account moves here with a new key, and has not written since.
    let mut seen = w.seen(&repo, found(first), Authority::Pds).await;
    seen.identity.as_mut().unwrap().key = Some(k256(2).public());
    assert_eq!(w.apply(seen).await, Outcome::Proven);
    assert_eq!(has_log(&asked(&moved, early)).await, (true, true));
    assert_eq!(has_log(&asked(&before, late)).await, (false, false));
    // A log in which the key was replaced without a move does not lead to the key before.
    let in_place = log(&[(1, elsewhere), (1, HERE), (2, HERE)]);
    assert_eq!(in_place.did(), did);
    assert_eq!(has_log(&asked(&in_place, late)).await, (false, true));
    repo.rotate(2);
    let again = repo.prove();
    w.pds(&repo, again).await;
    assert_eq!(has_log(&asked(&in_place, late)).await, (true, true));
}
