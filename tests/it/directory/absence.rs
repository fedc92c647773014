//! What a missing account, a lost word and an ended account lead to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atcomm::store::{AccountStatus, ChangeKind};
use serde_json::{Value, json};

use super::print_harm;
use crate::frames::{Firehose, account};
use crate::http::{eventually, request, throughout};
use crate::network::{Account, Network};
use crate::proxy::Proxy;
use crate::service::{HISTORY, Service, Setup, checked};

const GET_RECORD: &str = "/xrpc/com.atproto.sync.getRecord";

/// The methods for a record and for a status, and no other that is asked.
const GET: &str = "/xrpc/com.atproto.sync.get";

/// Lets a PDS answer the requests of one service below a path with this status and body, until told
/// otherwise.
fn answer(network: &Network, pds: usize, path: &str, agent: &str, status: u16, body: &Value) {
    network.op(
        "pds.limit",
        json!({
            "pds": pds, "agent": agent, "path": path, "count": 1_000_000, "status": status,
            "body": body,
        }),
    );
}

/// Ends what [`answer`] began, on a PDS that no other test uses.
fn answer_again(network: &Network, pds: usize) {
    network.op("pds.limit", json!({"pds": pds, "count": 0}));
}

/// A did:web host in the middle of a deployment, a PLC directory behind a broken proxy, and a PDS
/// that is restored from a backup know none of their accounts for a while. A client asks for
/// refreshes all the time.
#[test]
fn inv5_answers_of_minutes_that_know_no_account_hide_none() {
    let network = Network::own(&["--multikey"]);
    let agent = "patient.example";
    let service = Setup::new(network).set("net.contact", json!(agent)).start();
    let by_plc = network.enrolled("plc", 0, json!({}));
    let by_web = network.web_account("web", 0, json!({}));
    let by_pds = network.enrolled("pds", 1, json!({}));
    let accounts = [&by_plc, &by_web, &by_pds];
    for account in accounts {
        service.recipient(&account.did).expect("the package");
    }
    let host = by_web
        .did
        .trim_start_matches("did:web:")
        .replace("%3A", ":");
    let url = format!("http://{host}/.well-known/did.json");
    let document = request("GET", &url, &[], None).json();
    let serve = |status: u16, body: &Value| {
        let path = "/.well-known/did.json";
        network.op(
            "web.set",
            json!({"host": host, "path": path, "status": status, "body": body}),
        );
    };
    serve(404, &json!("not found"));
    let path = format!("/{}", by_plc.did);
    let fail = |count: u32| {
        let body = "<html><h1>404 Not Found</h1>";
        network.op(
            "plc.fail",
            json!({"path": path, "count": count, "status": 404, "body": body}),
        );
    };
    fail(1_000_000);
    answer(
        network,
        1,
        GET,
        agent,
        400,
        &json!({"error": "RepoNotFound", "message": "x"}),
    );
    const REFRESHES: usize = 5;
    for account in accounts {
        for _ in 0..REFRESHES {
            let answer = service.refresh(&account.did).expect("an outcome");
            assert_eq!(answer["outcome"], "missing", "{}", account.did);
            service.recipient(&account.did).expect("it is served");
        }
    }
    print_harm(
        "answers of minutes that know no account",
        &format!("{} refreshes by a client, {} accounts", REFRESHES * 3, 3),
        "none is hidden; each is looked at again within minutes",
    );
    let left = service.stop();
    for account in accounts {
        let entry = left.entry(&account.did).expect("an entry");
        assert_eq!(entry.status, AccountStatus::Active);
        assert!(entry.missing_since.is_some());
        let wait = entry.next_check_at.since(entry.checked_at);
        assert!(wait <= Duration::from_secs(20 * 60), "{wait:?}");
    }
    // The accident is over.
    serve(200, &document);
    network.op("plc.fail", json!({"count": 0}));
    answer_again(network, 1);
    let service = left.start();
    for account in accounts {
        let answer = service.refresh(&account.did).expect("an outcome");
        assert_eq!(answer["outcome"], "unchanged");
    }
    let left = service.stop();
    for account in accounts {
        assert_eq!(
            left.entry(&account.did).expect("an entry").missing_since,
            None
        );
        let kinds: Vec<_> = left
            .changes(&account.did)
            .iter()
            .map(|one| one.kind)
            .collect();
        assert!(!kinds.contains(&ChangeKind::Status), "{kinds:?}");
    }
}

/// Asserts that an account which its PDS takes down is hidden, stays so when it is looked at again,
/// and comes back.
fn assert_taken_down(service: &Service, alice: &Account, spelling: &str, spell: impl Fn(bool)) {
    service.until(&alice.did, "the package", |_| true);
    spell(true);
    alice.op("account.takedown", json!({}));
    let refusal = service.until_refused(&alice.did, "AccountInactive");
    assert!(
        refusal.message.contains("takendown"),
        "{spelling}: {}",
        refusal.message
    );
    for _ in 0..3 {
        drop(service.refresh(&alice.did));
        let refusal = service.recipient(&alice.did).expect_err(spelling);
        assert_eq!(refusal.name, "AccountInactive", "{spelling}");
    }
    spell(false);
    alice.op("account.takedown", json!({"applied": false}));
    service.until(&alice.did, "the package again", |_| true);
}

#[test]
fn inv5_a_pds_says_in_any_spelling_that_an_account_is_inactive() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let agent = "spelling.example";
    let service = Setup::new(network)
        .pds(network, 0)
        .set("net.contact", json!(agent))
        .start();
    service.until_following(1);
    for (status, body) in [
        (403, json!({"error": "AccountTakedown", "message": "x"})),
        (404, json!("<html><h1>404 Not Found</h1>")),
        (400, json!({"error": "NoSuchThing", "message": "x"})),
        (500, json!("")),
    ] {
        let alice = network.enrolled("alice", 0, json!({}));
        let spell = |on: bool| {
            if on {
                answer(network, 0, GET_RECORD, agent, status, &body);
            } else {
                answer_again(network, 0);
            }
        };
        assert_taken_down(&service, &alice, &format!("{status} {body}"), spell);
    }
}

/// A PDS that still serves the records of accounts that it took down, as one that checks nothing in
/// its sync methods does.
#[test]
fn inv5_a_pds_that_serves_an_account_which_it_took_down_is_asked_for_its_status() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let state = network.op("state", json!({}));
    let password = state["adminPassword"].as_str().expect("a password");
    let login = data_encoding::BASE64.encode(format!("admin:{password}").as_bytes());
    let ungated = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&ungated);
    // To its operator the PDS gives the record as before.
    let proxy = Proxy::new(&network.pds_url(0), move |bytes| {
        let start = format!("GET {GET_RECORD}");
        if !switch.load(Ordering::Relaxed) || !bytes.starts_with(start.as_bytes()) {
            return Some(bytes);
        }
        let line = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let login = format!("\r\nauthorization: Basic {login}");
        Some([&bytes[..line], login.as_bytes(), &bytes[line..]].concat())
    });
    let source = json!({"url": network.pds_url(0), "connect": proxy.url("http"), "kind": "pds"});
    let service = Setup::new(network).source(source).start();
    service.until_following(1);
    let alice = network.enrolled("alice", 0, json!({}));
    assert_taken_down(&service, &alice, "200", |on| {
        ungated.store(on, Ordering::Relaxed);
    });
}

/// No stream brings the word of this PDS, and it answers in a way of its own.
#[test]
fn inv5_an_unknown_answer_about_a_record_leads_to_a_question_for_the_status() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let agent = "question.example";
    let service = Setup::new(network).set("net.contact", json!(agent)).start();
    let alice = network.enrolled("alice", 0, json!({}));
    service.recipient(&alice.did).expect("the package");
    // The account is active: what was proven stays.
    answer(network, 0, GET_RECORD, agent, 404, &json!("<html>"));
    let answer = service.refresh(&alice.did).expect("an outcome");
    assert_eq!(answer["outcome"], "unverifiable");
    service.recipient(&alice.did).expect("the package");
    alice.op("account.deactivate", json!({}));
    let answer = service.refresh(&alice.did).expect("an outcome");
    assert_eq!(answer["outcome"], "inactive");
    let refusal = service.recipient(&alice.did).expect_err("it is hidden");
    assert!(
        refusal.message.contains("deactivated"),
        "{}",
        refusal.message
    );
}

/// An account is deleted, and later its DID enrols again.
#[test]
fn what_is_deleted_is_deleted_with_its_history() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let agent = "deleting.example";
    let hose = Firehose::start(network, &json!(0));
    let service = Setup::new(network)
        .source(json!({"url": network.pds_url(0), "connect": hose.url, "kind": "pds"}))
        .set("net.contact", json!(agent))
        .set("mediator.public_url", json!("http://localhost:9"))
        .start();
    service.until_following(1);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    for label in ["one", "two", "three"] {
        let put = alice.put(json!({"label": label}));
        service.until_cid(&alice.did, &put["cid"]);
    }
    let history = |service: &Service| {
        let answer = service.query(HISTORY, &[("did", &alice.did), ("proof", "true")]);
        checked(HISTORY, &answer).expect("a history")["changes"].clone()
    };
    assert!(history(&service).as_array().expect("changes").len() >= 4);
    let rebuilt = |service: &Service| {
        service
            .log()
            .matches("admission is worked out anew")
            .count()
    };
    answer(
        network,
        0,
        GET,
        agent,
        400,
        &json!({"error": "RepoNotFound", "message": "x"}),
    );
    hose.inject(&account(
        network.seq(0) + 1,
        &alice.did,
        false,
        Some("deleted"),
    ));
    eventually("the history is gone", || {
        (history(&service) == json!([])).then_some(())
    });
    // The mediator follows the log on.
    throughout(
        Duration::from_secs(2),
        "the claims are not built anew",
        || rebuilt(&service) <= 1,
    );
    let left = service.stop();
    assert_eq!(left.entry(&alice.did), None);
    let changes = left.changes(&alice.did);
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0].kind, ChangeKind::Deleted);
    assert_eq!(
        (changes[0].peer.as_ref(), changes[0].proof.as_ref()),
        (None, None)
    );
    answer_again(network, 0);
    let service = left.start();
    service
        .recipient(&alice.did)
        .expect("it has enrolled again");
    let again = history(&service);
    let again = again.as_array().expect("changes");
    assert_eq!(again[again.len() - 1]["kind"], "package", "{again:?}");
    assert!(
        again
            .iter()
            .all(|one| one["seq"].as_i64() > Some(changes[0].seq))
    );
    assert_eq!(rebuilt(&service), 0);
}

/// An operator may let the word of a relay count; without that, the account's PDS decides.
#[test]
fn a_relay_takes_accounts_down_where_the_operator_says_so() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let hose = Firehose::start(network, &json!(0));
    let setup = |takedowns: bool| {
        let source = json!({
            "url": hose.url, "kind": "relay", "walk": false, "takedowns": takedowns,
        });
        Setup::new(network).source(source)
    };
    let service = setup(true).start();
    service.until_following(1);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    let mut seq = network.seq(0);
    let mut say = |active: bool, status: Option<&str>| {
        seq += 1;
        hose.inject(&account(seq, &alice.did, active, status));
    };
    say(false, Some("takendown"));
    let refusal = service.until_refused(&alice.did, "AccountInactive");
    assert!(refusal.message.contains("takendown"), "{}", refusal.message);
    drop(service.refresh(&alice.did).expect("an outcome"));
    service
        .recipient(&alice.did)
        .expect_err("the PDS does not decide");
    say(true, None);
    service.until(&alice.did, "the package again", |_| true);
    say(false, Some("takendown"));
    service.until_refused(&alice.did, "AccountInactive");
    // The relay's word counts no more.
    let service = service.stop().start_as(setup(false));
    service.until(&alice.did, "the package again", |_| true);
    drop(service);
    let service = setup(false).start();
    service.until_following(1);
    let bob = network.enrolled("bob", 0, json!({}));
    service.until(&bob.did, "the package", |_| true);
    hose.inject(&account(
        network.seq(0) + 1,
        &bob.did,
        false,
        Some("takendown"),
    ));
    service.until_counted("atcomm_ingest_events_total", &[("event", "account")], 1.0);
    throughout(Duration::from_secs(2), "the PDS decides", || {
        service.recipient(&bob.did).is_ok()
    });
}
