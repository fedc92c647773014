//! Messages that no reader can read, again and again, in the stream of a relay.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipld_core::ipld::Ipld;
use serde_json::json;

use super::print_harm;
use crate::frames::{Firehose, map, message, text};
use crate::gaps::listing_relay;
use crate::http::eventually;
use crate::network::Network;
use crate::service::Setup;

/// Enrolments during an attack.
const ENROLMENTS: usize = 8;

/// Returns an event of an unused DID with a payload that `change` may change.
fn event(number: u64, change: impl FnOnce(&mut BTreeMap<String, Ipld>)) -> Vec<u8> {
    let mut payload = map([
        ("seq", Ipld::Integer(1)),
        ("did", text("did:plc:cccccccccccccccccccccccc")),
        ("time", text(&format!("2026-11-23T00:00:{number:02}.000Z"))),
    ]);
    change(&mut payload);
    message("#identity", payload)
}

/// A frame whose handle is not UTF-8, as a relay passes it on that checks no text.
fn not_utf_8(number: u64) -> Vec<u8> {
    let mut frame = event(number, |payload| {
        payload.insert("handle".to_owned(), text("a.test"));
    });
    let at = frame
        .windows(6)
        .position(|bytes| bytes == b"a.test")
        .expect("the handle");
    frame[at] = 0xc3;
    frame[at + 1] = 0x28;
    frame
}

/// A frame that is not DAG-CBOR, and other bytes each time.
fn not_dag_cbor(number: u64) -> Vec<u8> {
    event(number, |payload| {
        payload.insert("x".to_owned(), Ipld::Float(1.5));
    })
}

/// Sends a bad frame every `every` while accounts enrol. All enrolments have to come by the stream,
/// without a gap and without another enumeration.
fn attack(name: &str, every: Duration, frame: fn(u64) -> Vec<u8>) {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let hose = Firehose::start(network, &json!(listing_relay(network, 0).url("http")));
    let source = json!({"url": hose.url, "kind": "relay"});
    let setup = Setup::new(network).source(source);
    let service = setup.no_refresh_on_demand().start();
    service.until_following(1);
    let first = network.enrolled("first", 0, json!({}));
    service.until(&first.did, "the package", |_| true);
    // An enumeration that goes on would find enrolments as well.
    let complete = [("state", "complete")];
    eventually("the accounts are enumerated", || {
        (service.metric("atcomm_ingest_backfill_state", &complete) >= 1.0).then_some(())
    });

    let began = Instant::now();
    let (mut sent, mut late) = (0_u64, Duration::ZERO);
    let mut enrolled = Vec::new();
    let pause = every.min(Duration::from_secs(6));
    while enrolled.len() < ENROLMENTS {
        if began.elapsed() >= every * u32::try_from(sent).expect("few") {
            hose.inject_kept(&frame(sent));
            sent += 1;
        }
        if began.elapsed() >= pause * u32::try_from(enrolled.len()).expect("few") {
            enrolled.push((network.enrolled("eve", 0, json!({})), Instant::now()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut seen = 0;
    for (account, at) in &enrolled {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Ok(view) = service.recipient(&account.did) {
                if view["verification"]["source"] == "relay" {
                    seen += 1;
                    late = late.max(at.elapsed());
                }
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let listings = service.log().matches("enumerating accounts").count();
    let gaps = service.metric("atcomm_ingest_gaps_total", &[]);
    print_harm(
        name,
        &format!("{sent} frames, one every {every:?}"),
        &format!("{seen} of {ENROLMENTS} enrolments seen, {gaps} gaps, {listings} enumerations"),
    );
    assert_eq!((seen, gaps as u64, listings), (ENROLMENTS, 0, 1));
    let put = first.put(json!({"label": "second"}));
    service.until_cid(&first.did, &put["cid"]);
}

#[test]
fn inv8_text_that_is_not_utf_8_hides_no_other_event() {
    attack("text that is not UTF-8", Duration::from_secs(3), not_utf_8);
}

#[test]
fn inv8_messages_that_are_not_dag_cbor_hide_no_other_event() {
    attack(
        "messages that are not DAG-CBOR",
        Duration::from_secs(3),
        not_dag_cbor,
    );
}

#[test]
fn inv8_rare_messages_that_are_not_dag_cbor_hide_no_other_event() {
    attack(
        "messages that are not DAG-CBOR, rarely",
        Duration::from_secs(12),
        not_dag_cbor,
    );
}

/// The same message comes on every connection. It ends the first one, and the next ones read on
/// behind it. Its account is looked at.
#[test]
fn inv8_a_message_that_comes_again_is_passed_over_and_its_account_refreshed() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let hose = Firehose::start(network, &json!(0));
    let source = json!({"url": network.pds_url(0), "connect": hose.url, "kind": "pds"});
    let setup = Setup::new(network).source(source).streams_only();
    let service = setup.no_refresh_on_demand().start();
    service.until_following(1);
    let alice = network.enrolled("alice", 0, json!({}));
    let bob = network.enrolled("bob", 0, json!({}));
    for account in [&alice, &bob] {
        service.until(&account.did, "the package", |_| true);
    }
    // What the message says of Alice is lost, and so is the event itself.
    hose.lose(1);
    let put = alice.put(json!({"label": "second"}));
    hose.inject_kept(&event(0, |payload| {
        payload.insert("did".to_owned(), text(&alice.did));
        // In DAG-CBOR a longer key stands behind the account.
        payload.insert("extra".to_owned(), Ipld::Float(1.5));
    }));
    service.until_cid(&alice.did, &put["cid"]);
    eventually("it is passed over", || {
        (service.metric("atcomm_ingest_passed_over_total", &[]) >= 1.0).then_some(())
    });
    hose.cut();
    let put = bob.put(json!({"label": "second"}));
    service.until_cid(&bob.did, &put["cid"]);
    assert_eq!(service.metric("atcomm_ingest_gaps_total", &[]), 0.0);
}

/// A message is larger than any event. Behind it stand others that were sent while the stream was
/// away: these are read, and only what the message may have held is a gap.
#[test]
fn inv8_a_message_that_is_too_large_costs_itself_and_not_what_is_behind_it() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let hose = Firehose::start(network, &json!(0));
    let source = json!({"url": hose.url, "kind": "relay", "walk": false});
    let service = Setup::new(network)
        .source(source)
        .no_refresh_on_demand()
        .start();
    service.until_following(1);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    let began = Instant::now();
    hose.inject_zeros_kept(5_000_001);
    let behind: Vec<_> = (0..3)
        .map(|_| network.enrolled("behind", 0, json!({})))
        .collect();
    for account in &behind {
        let view = service.until(&account.did, "what stands behind it", |_| true);
        assert_eq!(view["verification"]["source"], "relay");
    }
    let gaps = |reason| service.metric("atcomm_ingest_gaps_total", &[("reason", reason)]);
    print_harm(
        "a message that is too large",
        "one message of 5,000,001 bytes",
        &format!(
            "3 of 3 enrolments behind it seen, after {:.1} s; {} gap, {} jumps to what is live",
            began.elapsed().as_secs_f64(),
            gaps("too_large"),
            gaps("unreadable"),
        ),
    );
    assert_eq!((gaps("too_large"), gaps("unreadable")), (1.0, 0.0));
}
