//! Commits that never come: each shows at the next commit of its account.

use std::time::{Duration, Instant};

use serde_json::json;

use super::print_harm;
use crate::frames::Firehose;
use crate::http::within;
use crate::network::Network;
use crate::service::{Service, Setup};

const BROKEN: &str = "atcomm_directory_broken_chains_total";

/// Starts a service that follows PDS 0 of a network through a firehose that may lose events, as a
/// relay does that passes on the events of others.
fn behind_relay(network: &'static Network) -> (Service, Firehose) {
    let hose = Firehose::start(network, &json!(0));
    let source = json!({"url": hose.url, "kind": "relay", "walk": false});
    let setup = Setup::new(network).source(source).no_refresh_on_demand();
    let service = setup.start();
    service.until_following(1);
    (service, hose)
}

/// A relay loses the commit that replaces the key package. The next commit of the account is about
/// something else.
#[test]
fn a_lost_commit_is_noticed_at_the_next_one() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let (service, hose) = behind_relay(network);
    let alice = network.enrolled("alice", 0, json!({}));
    let view = service.until(&alice.did, "the package with its handle", |view| {
        view["handle"] == *alice.handle
    });
    for note in ["one", "two"] {
        alice.write_note(note);
    }
    hose.lose(1);
    let put = alice.put(json!({"label": "lost on the way"}));
    let behind = network.enrolled("behind", 0, json!({}));
    service.until(&behind.did, "what comes behind it", |_| true);
    let known = service.recipient(&alice.did).expect("the package");
    assert_eq!(known["keyPackage"]["cid"], view["keyPackage"]["cid"]);
    assert_eq!(
        service.metric(BROKEN, &[]),
        0.0,
        "an unbroken chain costs nothing"
    );
    let began = Instant::now();
    alice.write_note("three");
    service.until_cid(&alice.did, &put["cid"]);
    print_harm(
        "a commit that never came",
        "one lost event, and a commit about something else",
        &format!("right after {:.1} s", began.elapsed().as_secs_f64()),
    );
    assert_eq!(service.metric(BROKEN, &[]), 1.0);
    // The chain goes on from there.
    alice.write_note("four");
    let put = alice.put(json!({"label": "third"}));
    service.until_cid(&alice.did, &put["cid"]);
    assert_eq!(service.metric(BROKEN, &[]), 1.0);
}

/// The event that an account is active again is lost. A commit of it shows so, a minute after its
/// PDS was asked at the latest.
#[test]
fn a_commit_of_an_account_believed_inactive_is_followed_up() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let (service, hose) = behind_relay(network);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    alice.op("account.deactivate", json!({}));
    service.until_refused(&alice.did, "AccountInactive");
    hose.lose(1_000_000);
    alice.op("account.activate", json!({}));
    let behind = network.account("behind", 0);
    hose.lose(0);
    behind.write_note("behind");
    let began = Instant::now();
    alice.write_note("again");
    within(
        Duration::from_secs(120),
        "the account is shown again",
        || service.recipient(&alice.did).ok(),
    );
    print_harm(
        "an account that is active again",
        "its lost event, and a commit about something else",
        &format!("right after {:.1} s", began.elapsed().as_secs_f64()),
    );
}
