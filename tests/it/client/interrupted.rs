//! Commands that are interrupted, at every step and at any time.

use std::time::Duration;

use serde_json::json;

use super::{MediatorService, Person, Running, disturbed, hold_requests};
use crate::network::{Network, text};

/// The requests of an enrolment to the PDS, in order.
const STEPS: [&str; 3] = [
    "/xrpc/com.atproto.server.createSession",
    "/xrpc/com.atproto.repo.getRecord",
    "/xrpc/com.atproto.repo.putRecord",
];

/// Asserts that the account is enrolled as after an undisturbed run: one key, published and
/// registered.
#[track_caller]
fn assert_whole(person: &Person, mediator: &MediatorService) {
    let account = person.cli.json(&["whoami"])["accounts"][0].clone();
    let keys = account["keys"].as_array().expect("a list");
    assert_eq!(keys.len(), 1, "{account}");
    assert_eq!(text(&keys[0], "/state"), "published");
    assert_eq!(keys[0]["registered"], json!([mediator.did]));
    assert_eq!(text(&account, "/record/is"), "ours");
    assert_eq!(person.record().expect("a record")["did"], keys[0]["peer"]);
}

#[test]
fn a_signal_ends_it_with_a_word_and_the_next_run_finishes() {
    let (network, _turn) = disturbed();
    let mediator = MediatorService::start(network);
    for signal in ["INT", "TERM"] {
        for step in STEPS {
            let alice = Person::new(network, "alice", 0);
            let enroll = ["enroll", &alice.account.handle, "-m", &mediator.did];
            let held = hold_requests(network, step);
            let mut running = Running::start(alice.command(&enroll));
            held.until_asked();
            running.signal(signal);
            let output = running.end();
            drop(held);
            output.failed(
                1,
                "interrupted",
                "run the same command again and it finishes",
            );
            alice.run(&enroll).success();
            assert_whole(&alice, &mediator);
        }
    }
    // Interrupted while directory and mediator are known and do not answer.
    let alice = Person::new(network, "alice", 0);
    let enroll = ["enroll", &alice.account.handle, "-m", &mediator.did];
    network.op(
        "pds.limit",
        json!({"pds": 0, "path": STEPS[2], "status": 503}),
    );
    alice.run(&enroll).failed(4, "it answered 503", "later");
    mediator.freeze(true);
    let mut running = Running::start(alice.command(&["enroll", &alice.account.handle]));
    crate::http::eventually("the record is there", || alice.record());
    std::thread::sleep(Duration::from_millis(300));
    assert!(!running.has_ended());
    running.signal("INT");
    let output = running.end();
    mediator.freeze(false);
    output.failed(1, "interrupted", "run the same command again");
    assert!(
        output.stderr.contains("the account's record names it"),
        "{output:?}"
    );
    alice.cli.run(&["enroll", &alice.account.handle]).success();
    assert_whole(&alice, &mediator);
}

#[test]
fn inv10_killed_anywhere_the_next_run_finishes() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let mut killed = 0;
    for round in 0..12 {
        let alice = Person::new(network, "alice", round % 2);
        let enroll = ["enroll", &alice.account.handle, "-m", &mediator.did];
        let mut running = Running::start(alice.command(&enroll));
        std::thread::sleep(Duration::from_millis(20 + round as u64 * 37 % 400));
        if !running.has_ended() {
            running.signal("KILL");
            killed += 1;
        }
        running.end();
        alice.run(&enroll).success();
        assert_whole(&alice, &mediator);
    }
    assert!(killed > 3, "{killed} were killed");
}
