//! Several processes that change one account, and a wallet that disagrees with the record.

use std::time::Duration;

use atcomm_client::succession::vouches;
use serde_json::{Value, json};

use super::{MediatorService, Person, Running, disturbed, hold_requests};
use crate::network::{Network, text};

/// Changes the stored keys of the only account of a wallet.
#[track_caller]
fn rewrite(person: &Person, change: impl Fn(&mut Vec<Value>)) {
    let file = person.cli.file("enrolment.json");
    let stored = std::fs::read(&file).expect("a file");
    let mut stored: Value = serde_json::from_slice(&stored).expect("JSON");
    change(
        stored["content"]["keys"]
            .as_array_mut()
            .expect("a list of keys"),
    );
    std::fs::write(&file, stored.to_string()).expect("a file");
}

/// Returns the state of a key whose grace after its replacement has ended.
fn long_replaced() -> Value {
    json!({"is": "replaced", "since": 1_700_000_000_000_i64})
}

#[track_caller]
fn states(person: &Person) -> Vec<(String, String)> {
    let account = person.cli.json(&["whoami", "--offline"])["accounts"][0].clone();
    let keys = account["keys"].as_array().expect("a list").iter();
    keys.map(|key| {
        (
            text(key, "/peer").to_owned(),
            text(key, "/state").to_owned(),
        )
    })
    .collect()
}

#[test]
fn a_key_that_the_record_names_is_kept_whatever_the_wallet_says_of_it() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::enrolled(network, "alice", 0, &mediator);
    let first = alice.peer();
    rewrite(&alice, |keys| keys[0]["state"] = long_replaced());
    alice.cli.run(&["enroll", &alice.account.handle]).success();
    let record = alice.record().expect("a record");
    let second = alice.peer();
    assert_eq!(record["did"], json!(second));
    let succession = text(&record, "/succession");
    assert!(vouches(succession, &first, &second, &alice.account.did()));
    // From now on the key is used for as long as any replaced key.
    let replaced = "replaced".to_owned();
    let published = "published".to_owned();
    let both = [
        (second.clone(), published.clone()),
        (first, replaced.clone()),
    ];
    assert_eq!(states(&alice), both);
    alice.cli.run(&["enroll", &alice.account.handle]).success();
    assert_eq!(states(&alice), both);
    // A key whose grace has ended is removed by the next change; the key that this change replaces
    // stays.
    rewrite(&alice, |keys| keys[1]["state"] = long_replaced());
    alice.cli.run(&["rotate"]).success();
    let third = alice.peer();
    assert_eq!(states(&alice), [(third, published), (second, replaced)]);
}

#[test]
fn one_process_at_a_time_changes_an_account_and_a_killed_one_blocks_no_other() {
    let (network, _turn) = disturbed();
    let mediator = MediatorService::start(network);
    let alice = Person::enrolled(network, "alice", 0, &mediator);
    let before = alice.record();
    let handle = alice.account.handle.clone();
    for command in [
        &["rotate"][..],
        &["enroll", &handle, "--label", "new"],
        &["unenroll"],
    ] {
        let held = hold_requests(network, "/xrpc/com.atproto.repo.putRecord");
        let mut first = Running::start(alice.cli.command(&["rotate"]));
        held.until_asked();
        let mut second = Running::start(alice.cli.command(command));
        // Receiving is possible meanwhile.
        alice.cli.run(&["receive"]).success();
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!first.has_ended() && !second.has_ended(), "{command:?}");
        first.signal("KILL");
        first.end();
        drop(held);
        let output = second.end().success();
        assert!(
            output
                .stderr
                .starts_with("another atcomm changes how this account is enrolled"),
            "{output:?}"
        );
        // The record and the wallet agree.
        let states = states(&alice);
        let published = states.iter().find(|(_, state)| state == "published");
        let record = alice.record();
        let named = record.as_ref().map(|record| text(record, "/did"));
        assert_eq!(published.map(|(peer, _)| &**peer), named, "{command:?}");
        assert_eq!(record.is_none(), command == ["unenroll"]);
        assert_ne!(record, before);
    }
}
