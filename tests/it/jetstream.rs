//! A Jetstream as the only source: its events trigger refreshes, and their contents are never
//! shown.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::throughout;
use crate::network::{Network, in_both_shapes};
use crate::service::{Service, Setup};

const DROPS: &str = "atcomm_ingest_drops_total";

/// A Jetstream of one test, fed by both PDSes.
struct Jetstream {
    network: &'static Network,
    id: Value,
    url: String,
}

impl Jetstream {
    fn start(network: &'static Network) -> Self {
        let made = network.op("jetstream.start", json!({"history": false}));
        let url = made["url"].as_str().expect("a URL").to_owned();
        Self {
            network,
            id: made["id"].clone(),
            url,
        }
    }

    fn op(&self, operation: &str, mut body: Value) {
        body["id"] = self.id.clone();
        self.network.op(&format!("jetstream.{operation}"), body);
    }

    fn setup(&self) -> Setup {
        Setup::new(self.network).source(json!({"url": self.url, "kind": "jetstream"}))
    }

    /// Starts a service that follows the Jetstream; calls cause no refresh.
    fn start_service(&self) -> Service {
        let service = self.setup().no_refresh_on_demand().start();
        service.until_following(1);
        service
    }
}

in_both_shapes! {
    fn a_jetstream_alone_keeps_the_directory(network) {
        let jetstream = Jetstream::start(network);
        let service = jetstream.start_service();
        let alice = network.enrolled("alice", 0, json!({}));
        let view = service.until(&alice.did, "the package", |view| view["handle"] == *alice.handle);
        assert_eq!(view["verification"]["source"], "jetstream");
        assert_eq!(view["verification"]["method"], "getRecord");
        assert_eq!(view["keyPackage"]["value"], alice.made["keyPackage"]);
        let put = alice.put(json!({"label": "second"}));
        service.until_cid(&alice.did, &put["cid"]);
        let new = format!("{}.jetstream.test", alice.name);
        alice.op("account.rename", json!({"handle": new}));
        service.until(&alice.did, "the new handle", |view| view["handle"] == *new);
        alice.op("account.deactivate", json!({}));
        service.until_refused(&alice.did, "AccountInactive");
        alice.op("account.activate", json!({}));
        service.until_cid(&alice.did, &put["cid"]);
        alice.op("account.migrate", json!({"to": 1}));
        service.until(&alice.did, "the new PDS", |view| view["pds"] == *network.pds_url(1));
        alice.put(json!({"label": "third"}));
        alice.delete_record();
        service.until_refused(&alice.did, "NotEnrolled");
    }

    fn inv2_a_jetstream_is_taken_up_where_it_was_left(network) {
        let jetstream = Jetstream::start(network);
        let service = jetstream.start_service();
        let [alice, bob] = ["alice", "bob"].map(|name| network.enrolled(name, 0, json!({})));
        for account in [&alice, &bob] {
            service.until(&account.did, "the package", |_| true);
        }
        let left = service.stop();
        let put = alice.put(json!({"label": "while it was down"}));
        bob.delete_record();
        let carol = network.enrolled("carol", 1, json!({}));
        let service = left.start();
        service.until_cid(&alice.did, &put["cid"]);
        service.until_refused(&bob.did, "NotEnrolled");
        service.until(&carol.did, "the package", |_| true);
        // A broken connection is no restart, and loses no event either.
        jetstream.op("drop", json!({}));
        let put = alice.put(json!({"label": "while it was disconnected"}));
        service.until_cid(&alice.did, &put["cid"]);
    }
}

#[test]
fn inv1_nothing_is_indexed_from_the_json_of_a_jetstream() {
    let network = Network::multikey();
    let jetstream = Jetstream::start(network);
    let service = jetstream.start_service();
    let alice = network.enrolled("alice", 0, json!({}));
    let bob = network.account("bob", 0);
    let before = service.until(&alice.did, "the package", |_| true);
    let mut record = alice.made["keyPackage"].clone();
    record["label"] = json!("forged");
    record["mediators"] = json!(["did:web:evil.test"]);
    let now = chrono::Utc::now().timestamp_micros();
    let event = |did: &str, operation: &str, at: i64| {
        let commit = json!({
            "rev": "3zzzzzzzzzzzz", "operation": operation, "rkey": "self",
            "collection": "at.didcomm.keyPackage", "record": record,
            "cid": "bafyreieryxmjph3sns5345b7kdwkpxf3akxqmqe7zlfhud3i5vlvli7dju",
        });
        let json = json!({"did": did, "time_us": at, "kind": "commit", "commit": commit});
        jetstream.op("inject", json!({"json": json}));
    };
    for did in [&alice.did, &bob.did] {
        event(did, "create", now);
        event(did, "update", now + 1);
    }
    event(&alice.did, "delete", now + 2);
    // An event with a time in the future does not move the cursor there.
    event(&alice.did, "update", now + 3_600_000_000);
    let account = json!({"active": false, "did": alice.did, "seq": 1, "status": "deleted"});
    let json = json!({"did": alice.did, "time_us": now, "kind": "account", "account": account});
    jetstream.op("inject", json!({"json": json}));
    let later = network.enrolled("later", 0, json!({}));
    service.until(&later.did, "what comes behind it", |_| true);
    let outcomes = "atcomm_directory_outcomes_total";
    service.until_counted(outcomes, &[("outcome", "unchanged")], 1.0);
    let after = service.recipient(&alice.did).expect("the package");
    assert_eq!(after["keyPackage"], before["keyPackage"]);
    assert_eq!(
        service.recipient(&bob.did).expect_err("nothing").name,
        "Overloaded"
    );
    let left = service.stop();
    assert_eq!(left.entry(&bob.did), None);
    let source = format!("jetstream {}", jetstream.url);
    let cursor = left.read(move |q| q.cursor(&source)).expect("a cursor");
    assert!(cursor.position < now + 1_000_000_000, "{cursor:?}");
}

#[test]
fn inv8_malformed_jetstream_messages_are_counted_and_passed_over() {
    let network = Network::multikey();
    let jetstream = Jetstream::start(network);
    let service = jetstream.start_service();
    let long = format!(
        "{{\"did\":\"{}\",\"time_us\":1,\"kind\":\"identity\"}}",
        "d".repeat(3000)
    );
    let deep = format!(
        "{{\"did\":\"did:plc:a\",\"time_us\":1,\"kind\":\"commit\",\"x\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let bad = [
        "",
        "nothing",
        "[]",
        "{}",
        "null",
        "{\"did\":",
        &long,
        &deep,
        "\u{0}",
        "{\"did\":\"did:plc:a\",\"time_us\":\"now\",\"kind\":\"commit\"}",
        "{\"did\":\"did:plc:a\",\"time_us\":1,\"kind\":\"commit\"}",
        "{\"did\":\"did:plc:a\",\"time_us\":0,\"kind\":\"identity\"}",
        "{\"did\":\"did:plc:a\",\"time_us\":-5,\"kind\":\"identity\"}",
        "{\"did\":\"did:plc:a\",\"time_us\":1,\"kind\":\"account\",\"account\":{\"active\":1}}",
        "{\"did\":\"no did\",\"time_us\":1,\"kind\":\"commit\",\"commit\":{\
         \"operation\":\"create\",\"collection\":\"at.didcomm.keyPackage\",\"rkey\":\"self\"}}",
        "{\"did\":\"did:plc:a\",\"time_us\":1,\"kind\":\"unheard\"}",
    ];
    for text in bad {
        jetstream.op("inject", json!({"text": text}));
    }
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    assert!(
        service.metric(DROPS, &[]) >= 14.0,
        "{}",
        service.metrics_page()
    );
    assert!(!service.log().contains("stream lost"), "{}", service.log());
}

#[test]
fn events_that_a_jetstream_lost_are_healed_by_a_refresh() {
    let network = Network::multikey();
    let jetstream = Jetstream::start(network);
    let service = jetstream.setup().start();
    service.until_following(1);
    let alice = network.enrolled("alice", 0, json!({}));
    let before = service.until(&alice.did, "the package", |_| true);
    // An enrolment is several events, and each triggers a refresh. Once a refresh that began later
    // is applied, those of this account have ended.
    let behind = network.enrolled("behind", 0, json!({}));
    service.until(&behind.did, "the package behind it", |_| true);
    jetstream.op("skip", json!({"count": 1_000_000}));
    let put = alice.put(json!({"label": "lost"}));
    throughout(
        Duration::from_millis(500),
        "the write is lost on the way",
        || service.recipient(&alice.did).expect("the first")["keyPackage"] == before["keyPackage"],
    );
    jetstream.op("skip", json!({"count": 0}));
    let later = network.enrolled("later", 0, json!({}));
    service.until(&later.did, "what comes behind it", |_| true);
    let view = service.recipient(&alice.did).expect("the package");
    assert_eq!(view["keyPackage"]["cid"], before["keyPackage"]["cid"]);
    let answer = service.refresh(&alice.did).expect("an outcome");
    assert_eq!(answer["recipient"]["keyPackage"]["cid"], put["cid"]);
}

/// Records of our collection under other keys are no key packages: they cost no refresh.
#[test]
fn records_under_other_keys_cost_nothing() {
    let network = Network::multikey();
    let jetstream = Jetstream::start(network);
    let service = jetstream.start_service();
    let bob = network.account("bob", 0);
    let later = network.enrolled("later", 0, json!({}));
    service.until(&later.did, "the package", |_| true);
    let commits = || service.metric("atcomm_ingest_events_total", &[("event", "commit")]);
    let before = commits();
    let now = chrono::Utc::now().timestamp_micros();
    for number in 0..20 {
        let commit = json!({
            "rev": "3zzzzzzzzzzzz", "operation": "create", "rkey": format!("3k{number}"),
            "collection": "at.didcomm.keyPackage", "record": {}, "cid": "bafy",
        });
        let event = json!({
            "did": bob.did, "time_us": now + number, "kind": "commit", "commit": commit,
        });
        jetstream.op("inject", json!({"json": event}));
    }
    let last = network.enrolled("last", 0, json!({}));
    service.until(&last.did, "what comes behind it", |_| true);
    // Only the last account's own package.
    let concerned = commits() - before;
    assert!(concerned < 10.0, "{concerned} of twenty records concern us");
    assert_eq!(service.stop().entry(&bob.did), None);
}
