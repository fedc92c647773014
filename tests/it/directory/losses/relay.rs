//! Losses at a relay. It behaves as the programs do that people run: no `FutureCursor`, no
//! `OutdatedCursor`, the first event after a cursor in its future is not sent, and it lists nothing.

use serde_json::{Value, json};

use super::{Accounts, assert_mended, assert_no_gap, network};
use crate::service::{Service, Setup};

/// A relay in front of both PDSes.
pub(super) struct Relay {
    id: Value,
    pub(super) url: String,
}

impl Relay {
    pub(super) fn start(how: Value) -> Self {
        let made = network().op("relay.start", how);
        Self {
            id: made["id"].clone(),
            url: made["url"].as_str().expect("a URL").to_owned(),
        }
    }

    pub(super) fn op(&self, operation: &str, mut body: Value) -> Value {
        body["id"] = self.id.clone();
        network().op(&format!("relay.{operation}"), body)
    }

    /// Breaks all connections and takes none, and loses what happens meanwhile.
    pub(super) fn lose(&self) {
        self.op("set", json!({"up": false, "deaf": true}));
    }

    /// Ends that.
    pub(super) fn come_back(&self) {
        self.op("set", json!({"up": true, "deaf": false}));
    }

    fn number(&self) -> i64 {
        self.op("describe", json!({}))["next"]
            .as_i64()
            .expect("a number")
    }

    fn setup(&self) -> Setup {
        Setup::new(network()).source(json!({"url": self.url, "kind": "relay"}))
    }

    /// Starts a service that follows the relay; calls cause no refresh.
    fn follow(&self) -> Service {
        let service = self.setup().no_refresh_on_demand().start();
        service.until_following(1);
        service
    }
}

#[test]
fn inv2_a_relay_that_was_wiped_and_counts_anew() {
    let relay = Relay::start(json!({}));
    let service = relay.follow();
    let accounts = Accounts::known_to(&service);
    relay.lose();
    let cases = accounts.change();
    relay.op("wipe", json!({"next": 1}));
    relay.come_back();
    assert_mended(
        "relay wiped, counts anew, lists nothing",
        &service,
        &cases,
        &["enrolled"],
    );
    // What the relay did not send when it went live without a word came by reading it anew.
    let after = network().enrolled("after", 0, json!({}));
    service.until(&after.did, "what came after the loss", |_| true);
}

#[test]
fn inv2_a_relay_that_was_put_back_with_a_higher_first_number() {
    let relay = Relay::start(json!({}));
    let service = relay.follow();
    let accounts = Accounts::known_to(&service);
    relay.lose();
    let cases = accounts.change();
    relay.op("wipe", json!({"next": relay.number() + 100_000}));
    relay.come_back();
    // The first event shows the gap.
    network().account("event", 0);
    assert_mended(
        "relay put back, higher numbers",
        &service,
        &cases,
        &["enrolled"],
    );
}

#[test]
fn inv2_a_relay_that_keeps_too_few_events_and_does_not_say_so() {
    let relay = Relay::start(json!({}));
    let service = relay.follow();
    let accounts = Accounts::known_to(&service);
    relay.op("set", json!({"up": false}));
    let cases = accounts.change();
    network().account("event", 0);
    relay.op("wipe", json!({"keep": 1}));
    relay.come_back();
    assert_mended(
        "relay begins later, says nothing",
        &service,
        &cases,
        &["enrolled"],
    );
}

#[test]
fn inv2_an_own_relay_beside_an_own_list() {
    let relay = Relay::start(json!({}));
    let list = Relay::start(json!({"list": true}));
    let setup = Setup::new(network())
        .source(json!({"url": relay.url, "kind": "relay", "walk": false}))
        .source(json!({"url": list.url, "kind": "relay", "stream": false}));
    let service = setup.no_refresh_on_demand().start();
    service.until_following(1);
    let accounts = Accounts::known_to(&service);
    relay.lose();
    let cases = accounts.change();
    relay.op("wipe", json!({"next": 1}));
    relay.come_back();
    assert_mended("own relay wiped, own list beside it", &service, &cases, &[]);
}

#[test]
fn a_relay_that_breaks_off_and_keeps_its_events_causes_no_gap() {
    let relay = Relay::start(json!({}));
    let service = relay.follow();
    let alice = network().enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    for round in 0..3 {
        relay.op("drop", json!({}));
        let put = alice.put(json!({"label": format!("round {round}")}));
        service.until_cid(&alice.did, &put["cid"]);
    }
    let service = service.kill().start();
    let put = alice.put(json!({"label": "after a crash"}));
    let view = service.until_cid(&alice.did, &put["cid"]);
    assert_eq!(view["verification"]["stale"], false);
    assert_no_gap(&service);
}

#[test]
fn inv10_a_gap_that_was_noticed_is_mended_after_a_crash() {
    let relay = Relay::start(json!({}));
    let service = relay.follow();
    let accounts = Accounts::known_to(&service);
    relay.lose();
    let cases = accounts.change();
    relay.op("wipe", json!({"next": 1}));
    relay.come_back();
    service.until_counted(super::GAPS, &[], 1.0);
    let service = service.kill().start();
    // The stored place is still the lost one, or a gap is written.
    let case = |kind: &str| cases.iter().find(|case| case.kind == kind).expect("a case");
    for kind in ["changed", "record deleted", "key rotated"] {
        crate::http::within(super::MEND_TIMEOUT, kind, || {
            let case = case(kind);
            (case.right)(&service.recipient(&case.did)).then_some(())
        });
    }
}

/// Another relay that was connected all the time has what the first one lost.
#[test]
fn a_loss_that_another_relay_covers_puts_nothing_in_doubt() {
    let [lost, covers] = [Relay::start(json!({})), Relay::start(json!({}))];
    let setup = lost
        .setup()
        .source(json!({"url": covers.url, "kind": "relay"}));
    let service = setup.no_refresh_on_demand().start();
    service.until_following(2);
    let accounts = Accounts::known_to(&service);
    lost.lose();
    let cases = accounts.change();
    lost.op("wipe", json!({"next": 1}));
    lost.come_back();
    // Of an account that is gone the event came, and one answer that does not know it is no proof.
    let loss = "relay wiped, another one covers it";
    assert_mended(loss, &service, &cases, &["account deleted"]);
    assert_eq!(service.metric("atcomm_directory_doubtful", &[]), 0.0);
    assert!(
        !service.log().contains("entries are looked at again"),
        "{}",
        service.log()
    );
}

/// A Jetstream has only what its relay has, so it covers nothing that the relay has lost.
#[test]
fn inv2_a_jetstream_covers_no_loss_of_a_relay() {
    let relay = Relay::start(json!({}));
    let made = network().op("jetstream.start", json!({"history": false}));
    let setup = relay
        .setup()
        .source(json!({"url": made["url"], "kind": "jetstream"}));
    let service = setup.no_refresh_on_demand().start();
    service.until_following(2);
    let accounts = Accounts::known_to(&service);
    // The Jetstream stays connected, and its relay is lost.
    network().op("jetstream.set", json!({"id": made["id"], "deaf": true}));
    relay.lose();
    let cases = accounts.change();
    relay.op("wipe", json!({"next": 1}));
    relay.come_back();
    network().op("jetstream.set", json!({"id": made["id"], "deaf": false}));
    let loss = "relay and the Jetstream behind it";
    assert_mended(loss, &service, &cases, &["enrolled"]);
}

/// An entry in doubt is looked at before an answer, so a caller gets what is true now.
#[test]
fn an_entry_in_doubt_is_looked_at_when_it_is_asked_for() {
    let relay = Relay::start(json!({}));
    // The first caller waits for the refresh.
    let service = relay.setup().start();
    service.until_following(1);
    let alice = network().enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |view| {
        view["handle"] == *alice.handle
    });
    relay.lose();
    let put = alice.put(json!({"label": "missed"}));
    relay.op("wipe", json!({"next": relay.number() + 100_000}));
    relay.come_back();
    network().account("event", 0);
    service.until_counted("atcomm_ingest_gaps_total", &[], 1.0);
    service.until_cid(&alice.did, &put["cid"]);
    // The first answer may come before the entry is marked.
    let what = "the end of the doubt";
    let view = service.until(&alice.did, what, |view| {
        view["verification"]["stale"] == false
    });
    assert_eq!(view["verification"].get("knownGoodUntil"), None);
}
