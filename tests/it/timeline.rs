//! The time series, from records in real repositories to the answers of `getTimeline`.

use serde_json::{Value, json};

use crate::http::eventually;
use crate::network::Network;
use crate::service::{Service, Setup, XrpcError, checked, xrpc_error};

const TIMELINE: &str = "at.didcomm.directory.getTimeline";

impl Service {
    #[track_caller]
    fn timeline(&self, params: &[(&str, &str)]) -> Result<Value, XrpcError> {
        checked(TIMELINE, &self.query(TIMELINE, params))
    }

    /// Returns the bucket of today.
    #[track_caller]
    fn today(&self, params: &[(&str, &str)]) -> Value {
        let timeline = self.timeline(params).expect("a timeline");
        let buckets = timeline["buckets"].as_array().expect("a list");
        buckets.last().expect("today").clone()
    }

    /// Waits until the totals of today have some values. The tests may begin before midnight and end
    /// after it, so only numbers that last are asked for.
    #[track_caller]
    fn until_totals(&self, wanted: &[(&str, i64)]) -> Value {
        eventually("the totals", || {
            let today = self.today(&[]);
            let has = |(name, n): &(&str, i64)| today["totals"][name] == *n;
            wanted.iter().all(has).then_some(today)
        })
    }
}

#[test]
fn accounts_are_counted_by_host_mediator_and_key() {
    let network = Network::multikey();
    // Only what is asked for, since other tests use the same network.
    let service = Setup::new(network).start();
    let empty = service.today(&[]);
    assert_eq!(empty["totals"]["enrolled"], 0);
    assert_eq!(
        (&empty["closed"], &empty["complete"]),
        (&json!(false), &json!(false))
    );
    let (alice, bob) = (
        network.enrolled("alice", 0, json!({})),
        network.enrolled("bob", 1, json!({})),
    );
    let view = service.recipient(&alice.did).expect("the package");
    service.recipient(&bob.did).expect("the package");
    service.until_totals(&[("enrolled", 2), ("invalid", 0), ("inactive", 0)]);
    let host = network.pds_url(0);
    let host = host.split_once("://").expect("an address").1;
    let group =
        |kind, name| service.today(&[("group", kind), ("name", name)])["group"]["accounts"].clone();
    assert_eq!(group("host", host), 1);
    let mediator = view["mediators"][0]["did"].as_str().expect("a mediator");
    assert_eq!(group("mediator", mediator), 2);
    assert_eq!(group("keyType", "X25519"), 2);
    assert_eq!(group("keyType", "P-521"), Value::Null);
    // A refresh shows what became of them.
    bob.put(json!({"did": 42}));
    service.refresh(&bob.did).expect("an outcome");
    service.until_totals(&[("enrolled", 1), ("invalid", 1)]);
    assert_eq!(group("rule", "did"), 1);
    alice.op("account.deactivate", json!({}));
    service.refresh(&alice.did).expect("an outcome");
    service.until_totals(&[("enrolled", 0), ("inactive", 1)]);
    assert_eq!(group("host", host), Value::Null);
}

#[test]
fn a_stream_brings_new_and_departed_accounts_with_their_delays() {
    let network = Network::own(&["--multikey"]);
    // Only what the stream brings.
    let service = Setup::beside(network).no_refresh_on_demand().start();
    service.until_following(2);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    service.until_totals(&[("enrolled", 1)]);
    alice.delete_record();
    service.until_refused(&alice.did, "NotEnrolled");
    service.until_totals(&[("enrolled", 0)]);
    let timeline = service.timeline(&[("interval", "month")]).expect("months");
    let buckets = timeline["buckets"].as_array().expect("a list");
    let sum = |name: &str| -> i64 {
        let counts = buckets.iter().map(|bucket| bucket["totals"][name].as_i64());
        counts.map(|count| count.expect("a number")).sum()
    };
    assert_eq!((sum("new"), sum("departed"), sum("found")), (1, 1, 0));
    let delays = buckets
        .iter()
        .flat_map(|b| b["totals"]["delays"].as_array().expect("a list"));
    assert_eq!(
        delays.map(|n| n.as_i64().expect("a number")).sum::<i64>(),
        1
    );
    // A restart goes on with the same series.
    let service = service.stop().start();
    assert_eq!(service.today(&[])["totals"]["enrolled"], 0);
}

#[test]
fn wrong_parameters_are_named() {
    let service = Setup::offline().start();
    for (name, params) in [
        ("interval", &[("interval", "hour")][..]),
        ("since", &[("since", "yesterday")]),
        ("since", &[("since", "2027-02-29")]),
        ("since", &[("since", "2000-01-01")]),
        ("since", &[("since", "2030-01-02"), ("until", "2030-01-01")]),
        ("until", &[("until", "0000-00-00")]),
        ("until", &[("until", "2030-01-01"), ("until", "2030-01-01")]),
        ("group", &[("group", "planet")]),
        ("name", &[("name", "x")]),
        ("name", &[("group", "host"), ("name", "")]),
        ("name", &[("group", "host"), ("name", &"x".repeat(256))]),
    ] {
        let failure = xrpc_error(TIMELINE, &service.query(TIMELINE, params));
        assert_eq!(
            (failure.status, &*failure.name),
            (400, "InvalidRequest"),
            "{params:?}"
        );
        let named = format!("parameter {name}");
        assert!(
            failure.message.contains(&named),
            "{params:?}: {}",
            failure.message
        );
    }
    // Days before the directory began, and days to come, have no bucket.
    let past = [("since", "1970-01-01"), ("until", "1970-01-05")];
    assert_eq!(service.timeline(&past).expect("none")["buckets"], json!([]));
    let future = [("since", "9999-12-30"), ("until", "9999-12-31")];
    assert_eq!(
        service.timeline(&future).expect("none")["buckets"],
        json!([])
    );
    let others = service.today(&[("group", "host")]);
    assert_eq!(others.get("group"), None);
    // The answer is cached by its tag.
    let answer = service.query(TIMELINE, &[]);
    let etag = answer.header("etag").to_owned();
    let again = service.query_with(TIMELINE, &[], &[("if-none-match", &etag)]);
    assert_eq!(again.status, 304);
}
