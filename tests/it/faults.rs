//! Servers that hang, refuse or are down: only the accounts that they host have to wait.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::frames::{Firehose, account};
use crate::http::{eventually, throughout, within};
use crate::network::{Network, in_both_shapes};
use crate::service::{Setup, Stopped};

const GET_RECORD: &str = "/xrpc/com.atproto.sync.getRecord";

/// Longest wait for the retry of a failed pending refresh, which comes after half a minute to a
/// minute.
const RETRY_TIMEOUT: Duration = Duration::from_secs(100);

fn cursor(left: &Stopped, url: &str) -> i64 {
    let source = format!("pds {url}");
    left.read(move |q| q.cursor(&source))
        .expect("a cursor")
        .position
}

#[test]
fn inv2_a_pds_that_hangs_holds_up_its_own_accounts_only() {
    let network = Network::own(&["--multikey"]);
    let service = Setup::beside(network).no_refresh_on_demand().start();
    service.until_following(2);
    let known = network.enrolled("known", 0, json!({}));
    let other = network.enrolled("other", 1, json!({}));
    for account in [&known, &other] {
        service.until(&account.did, "the package", |_| true);
    }
    // The stream of the PDS flows on, but its requests hang.
    network.op("pds.hang", json!({"pds": 0}));
    let late: Vec<_> = (0..40)
        .map(|_| network.enrolled("late", 0, json!({})))
        .collect();
    for round in 0..10 {
        let put = other.put(json!({"label": format!("round {round}")}));
        let start = Instant::now();
        service.until_cid(&other.did, &put["cid"]);
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }
    // A proof in the stream needs no further answer, not even from the DID directory.
    network.op("plc.hang", json!({}));
    let put = known.put(json!({"label": "by commit"}));
    service.until_cid(&known.did, &put["cid"]);
    network.op("plc.hang", json!({"on": false}));
    // A new account on the PDS that answers.
    let new = network.enrolled("new", 1, json!({}));
    let start = Instant::now();
    service.until(&new.did, "a new account's package", |_| true);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    let left = service.stop();
    for pds in [0, 1] {
        assert_eq!(cursor(&left, &network.pds_url(pds)), network.seq(pds));
    }
    assert!(left.read(|q| q.pending_count()) > 0);
    let service = left.start();
    network.op("pds.hang", json!({"pds": 0, "on": false}));
    for account in &late {
        within(RETRY_TIMEOUT, "the package of a late account", || {
            service.recipient(&account.did).ok()
        });
    }
}

#[test]
fn a_pds_that_goes_silent_or_away_is_followed_again() {
    let network = Network::own(&["--multikey"]);
    let service = Setup::beside(network).no_refresh_on_demand().start();
    service.until_following(2);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    // The PDS is silent, without even pongs, for less time than after which the connection counts
    // as lost.
    network.op("pds.hang", json!({"pds": 0, "sockets": "stop"}));
    let put = alice.put(json!({"label": "held"}));
    throughout(Duration::from_millis(300), "nothing comes", || {
        service.recipient(&alice.did).expect("the first")["keyPackage"]["cid"] != put["cid"]
    });
    network.op("pds.hang", json!({"pds": 0, "on": false}));
    service.until_cid(&alice.did, &put["cid"]);
    // The PDS is down; entries are served all the same.
    network.op("pds.stop", json!({"pds": 0}));
    eventually("the stream is lost", || {
        (service.metric("atcomm_ingest_connected", &[]) < 2.0).then_some(())
    });
    assert_eq!(
        service.recipient(&alice.did).expect("the package")["keyPackage"]["cid"],
        put["cid"]
    );
    network.op("pds.start", json!({"pds": 0}));
    let put = alice.put(json!({"label": "back"}));
    within(RETRY_TIMEOUT, "what was written after the return", || {
        let view = service.recipient(&alice.did).ok()?;
        (view["keyPackage"]["cid"] == put["cid"]).then_some(())
    });
}

#[test]
fn a_pds_that_asks_us_to_stay_away_is_left_alone_for_that_long() {
    let network = Network::multikey();
    let agent = "patient.example";
    let setup = Setup::new(network)
        .pds(network, 1)
        .set("net.contact", json!(agent));
    let service = setup.start();
    service.until_following(1);
    let first = network.account("first", 0);
    let second = network.enrolled("second", 0, json!({}));
    let beside = network.enrolled("beside", 1, json!({}));
    service.until(&beside.did, "the package", |_| true);
    let wait = Duration::from_secs(4);
    network.op(
        "pds.limit",
        json!({"pds": 0, "agent": agent, "path": GET_RECORD, "retryAfter": wait.as_secs()}),
    );
    let refused = service.recipient(&first.did).expect_err("refused");
    assert_eq!((refused.status, &*refused.name), (502, "UpstreamFailure"));
    let refused = service.recipient(&second.did).expect_err("refused");
    assert_eq!((refused.status, &*refused.name), (502, "UpstreamFailure"));
    assert!(refused.message.contains("again"), "{}", refused.message);
    // Accounts of other PDSes are not affected.
    assert_eq!(
        service.refresh(&beside.did).expect("an outcome")["outcome"],
        "unchanged"
    );
    service.until(&second.did, "the package", |_| true);
    let asked = network.op(
        "pds.requests",
        json!({"pds": 0, "agent": agent, "path": GET_RECORD, "log": true}),
    );
    let at: Vec<i64> = asked["log"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|e| e["at"].as_i64())
        .collect();
    let [limited, next, ..] = at[..] else {
        panic!("{asked}");
    };
    // Both sides use the same clock, but a timer may fire some milliseconds early.
    assert!(next - limited >= 3900, "{asked}");
}

/// While a PDS does not serve records, its statements about an account's status are accepted, but
/// only for its own accounts.
#[test]
fn a_hanging_pds_is_believed_about_its_own_accounts_only() {
    let network = Network::own(&["--multikey"]);
    let hose = Firehose::start(network, &json!(0));
    let setup = Setup::new(network)
        .source(json!({"url": network.pds_url(0), "connect": hose.url, "kind": "pds"}))
        .pds(network, 1)
        .set("net.timeout", json!("1s"));
    let service = setup.streams_only().no_refresh_on_demand().start();
    service.until_following(2);
    let own = network.enrolled("own", 0, json!({}));
    let other = network.enrolled("other", 1, json!({}));
    for account in [&own, &other] {
        service.until(&account.did, "the package", |_| true);
    }
    for pds in [0, 1] {
        network.op("pds.hang", json!({"pds": pds, "path": GET_RECORD}));
    }
    hose.inject(&account(1, &other.did, false, Some("deleted")));
    service.until_counted("atcomm_resolve_owed_total", &[("result", "failed")], 1.0);
    service.recipient(&other.did).expect("it is served");
    own.op("account.deactivate", json!({}));
    service.until_refused(&own.did, "AccountInactive");
    service.recipient(&other.did).expect("it is served");
}

/// A refresh without a permit for its host is retried as soon as there may be one; the wait after a
/// failure is longer than the timeout of this test.
#[test]
fn refreshes_that_wait_for_our_own_limits_are_no_failures() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let accounts: Vec<_> = (0..8)
        .map(|_| network.enrolled("queue", 0, json!({})))
        .collect();
    let service = Setup::new(network)
        .pds(network, 0)
        .no_refresh_on_demand()
        .set("net.operator_concurrency", json!(1))
        .set("net.busy_wait", json!("10ms"))
        .start();
    for account in &accounts {
        service.until(&account.did, "the package", |_| true);
    }
    let busy = [("outcome", "busy")];
    assert!(service.metric("atcomm_net_requests_total", &busy) >= 1.0);
}

in_both_shapes! {
    fn a_did_directory_that_fails_takes_nothing_away(network) {
        let service = Setup::new(network).pds(network, 0).set("net.timeout", json!("2s")).start();
        service.until_following(1);
        let alice = network.enrolled("alice", 0, json!({}));
        let cid = service.until(&alice.did, "the package", |_| true)["keyPackage"]["cid"].clone();
        let unknown = network.enrolled("unknown", 1, json!({}));
        let fail = |did: &str, count: usize| {
            network.op("plc.fail", json!({"path": format!("/{did}"), "count": count}));
        };
        fail(&alice.did, 1000);
        fail(&unknown.did, 1000);
        alice.op("events.identity", json!({}));
        let refusal = service.recipient(&unknown.did).expect_err("no identity");
        assert_eq!((refusal.status, &*refusal.name), (502, "UpstreamFailure"));
        assert_eq!(service.refresh(&alice.did).expect_err("no identity").name, "UpstreamFailure");
        let view = service.recipient(&alice.did).expect("what is proven");
        assert_eq!(view["keyPackage"]["cid"], cid);
        // Other accounts are looked up as usual.
        let bob = network.enrolled("bob", 1, json!({}));
        service.recipient(&bob.did).expect("the package");
        network.op("plc.fail", json!({"count": 0}));
        assert_eq!(service.refresh(&alice.did).expect("an outcome")["outcome"], "unchanged");
        assert_eq!(service.refresh(&unknown.did).expect("an outcome")["outcome"], "package");
        service.recipient(&unknown.did).expect("the package");
    }

    fn name_servers_that_fail_take_no_handle_away(network) {
        let service = Setup::new(network).pds(network, 0).start();
        service.until_following(1);
        let [alice, bob] = ["alice", "bob"].map(|name| network.enrolled(name, 0, json!({})));
        for account in [&alice, &bob] {
            service.until(&account.did, "the handle", |view| view["handle"] == *account.handle);
        }
        let unknown = network.enrolled("unknown", 1, json!({}));
        let set = |handle: &str, how: Value| {
            for name in [handle.to_owned(), format!("_atproto.{handle}")] {
                let mut body = how.clone();
                body["name"] = json!(name);
                network.op("dns.set", body);
            }
        };
        set(&alice.handle, json!({"rcode": 2}));
        set(&bob.handle, json!({"drop": true}));
        set(&unknown.handle, json!({"rcode": 2}));
        for account in [&alice, &bob] {
            assert_eq!(service.refresh(&account.did).expect("an outcome")["outcome"], "unchanged");
            let view = service.recipient(&account.did).expect("the package");
            assert_eq!(view["handle"], *account.handle);
        }
        let refusal = service.recipient(&unknown.handle).expect_err("no answer");
        assert_eq!((refusal.status, &*refusal.name), (502, "UpstreamFailure"));
        let view = service.recipient(&unknown.did).expect("the package");
        assert_eq!(view["handle"], "handle.invalid");
        let carol = network.enrolled("carol", 1, json!({}));
        service.recipient(&carol.handle).expect("another account by its handle");
        for account in [&alice, &bob, &unknown] {
            set(&account.handle, json!({"txt": null}));
        }
        service.refresh(&unknown.did).expect("an outcome");
        let view = service.recipient(&unknown.did).expect("the package");
        assert_eq!(view["handle"], *unknown.handle);
    }
}

#[test]
fn a_mediator_that_hangs_delays_no_answer_for_long() {
    let network = Network::multikey();
    let service = Setup::new(network).start();
    let (url, slow) = network.site();
    let host = url.trim_start_matches("http://");
    network.op(
        "web.set",
        json!({"host": host, "path": "/.well-known/did.json", "body": "{}", "delayMs": 60_000}),
    );
    let good = network.mediator();
    let alice = network.enrolled("alice", 0, json!({"mediators": [slow, good]}));
    let start = Instant::now();
    let view = service.recipient(&alice.did).expect("the package");
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(view["mediators"][1]["state"], "reachable");
    service.until(&alice.did, "the slow one is given up", |view| {
        view["mediators"][0]["state"] == "unresolved"
    });
}
