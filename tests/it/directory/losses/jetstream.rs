//! Losses at a Jetstream, of either version. It lists nothing, and says nothing.

use atcomm::store::{DirectoryStore, SourceCursor};
use atcomm_proto::clock::Clock;
use serde_json::{Value, json};

use super::{Accounts, assert_mended, assert_no_gap, network};
use crate::http::RUNTIME;
use crate::network::Network;
use crate::service::{Service, Setup};

struct Jetstream {
    network: &'static Network,
    id: Value,
    url: String,
}

impl Jetstream {
    /// `numbers`: its events have numbers, as those of the second version.
    fn start(numbers: bool) -> Self {
        Self::of(network(), numbers)
    }

    fn of(network: &'static Network, numbers: bool) -> Self {
        let made = network.op(
            "jetstream.start",
            json!({"history": false, "numbers": numbers}),
        );
        Self {
            network,
            id: made["id"].clone(),
            url: made["url"].as_str().expect("a URL").to_owned(),
        }
    }

    fn op(&self, operation: &str, mut body: Value) {
        body["id"] = self.id.clone();
        self.network.op(&format!("jetstream.{operation}"), body);
    }

    fn follow(&self) -> Service {
        let source = json!({"url": self.url, "kind": "jetstream"});
        let service = Setup::new(self.network)
            .source(source)
            .no_refresh_on_demand()
            .start();
        service.until_following(1);
        service
    }

    fn lose(&self) {
        self.op("set", json!({"up": false, "deaf": true}));
    }

    fn come_back(&self) {
        self.op("set", json!({"up": true, "deaf": false}));
    }
}

#[test]
fn inv2_a_jetstream_that_was_wiped() {
    for numbers in [false, true] {
        let jetstream = Jetstream::start(numbers);
        let service = jetstream.follow();
        let accounts = Accounts::known_to(&service);
        jetstream.lose();
        let cases = accounts.change();
        jetstream.op("wipe", json!({"next": 1}));
        jetstream.come_back();
        let loss = if numbers {
            "Jetstream with numbers wiped"
        } else {
            "Jetstream wiped"
        };
        assert_mended(loss, &service, &cases, &["enrolled"]);
    }
}

/// Our clock was ahead once, and an earlier version stored it as the place.
#[test]
fn inv2_a_place_in_the_future_of_a_jetstream() {
    let jetstream = Jetstream::start(false);
    let service = jetstream.follow();
    let accounts = Accounts::known_to(&service);
    let left = service.stop();
    let cases = accounts.change();
    let ahead = SourceCursor {
        source: format!("jetstream {}", jetstream.url),
        position: Clock::system().now().millis() * 1000 + 7_200_000_000,
        event_time: None,
    };
    let store = DirectoryStore::open(&left.data_dir().join("directory.db")).expect("a store");
    RUNTIME.block_on(async {
        let now = Clock::system().now();
        let written = store.transact(move |tx| tx.set_cursor(&ahead, now)).await;
        written.expect("a cursor");
        store.shutdown().await;
    });
    drop(store);
    let service = left.start();
    assert_mended(
        "Jetstream, place in the future",
        &service,
        &cases,
        &["enrolled"],
    );
}

/// A host that answers a place in time with all that it keeps costs no refresh for what is older.
#[test]
fn what_a_jetstream_repeats_costs_nothing() {
    // The events of other tests' accounts would be counted.
    let network = Network::own(&["--multikey", "--pds", "1"]);
    for numbers in [false, true] {
        let jetstream = Jetstream::of(network, numbers);
        let service = jetstream.follow();
        let alice = network.enrolled("alice", 0, json!({}));
        for round in 0..10 {
            let put = alice.put(json!({"label": format!("round {round}")}));
            service.until_cid(&alice.did, &put["cid"]);
        }
        // A refresh for one event may have found the package of the next one.
        service.until_counted("atcomm_ingest_events_total", &[("event", "commit")], 11.0);
        let left = service.stop();
        let service = left.start();
        service.until_following(1);
        let put = alice.put(json!({"label": "after a restart"}));
        service.until_cid(&alice.did, &put["cid"]);
        let events = service.metric("atcomm_ingest_events_total", &[("event", "commit")]);
        println!("numbers: {numbers}; commits handled after a restart: {events}");
        // Those of the last five seconds come again where there are no numbers.
        if numbers {
            assert_eq!(events, 1.0);
        }
        assert_no_gap(&service);
    }
}
