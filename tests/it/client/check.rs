//! `atcomm check`: faults are found, and a sound account passes.

use serde_json::{Value, json};

use super::MediatorService;
use super::enrolled::{enroll_by_library, enrolled_person};
use crate::network::Network;

/// Returns the failed checks with their explanations.
fn failed(answer: &Value) -> Vec<(&str, &str)> {
    let checks = answer["checks"].as_array().expect("a list").iter();
    let failed = checks.filter(|one| one["ok"] == false);
    failed
        .map(|one| {
            assert!(one["hint"].is_string(), "{one}");
            (
                one["check"].as_str().unwrap(),
                one["detail"].as_str().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_sound_account_passes_and_its_mail_stays() {
    let network = Network::multikey();
    let (one, other) = (
        MediatorService::start(network),
        MediatorService::start(network),
    );
    let (alice, bob) = (
        enrolled_person(network, "ya", 0, &[&one, &other]),
        enrolled_person(network, "yb", 1, &[&one]),
    );
    bob.send(&alice, "wait for me");
    let output = alice.cli.run(&["check"]).success();
    assert!(
        output.stdout.lines().all(|line| line.starts_with("ok ")),
        "{output:?}"
    );
    for words in ["came back in", &one.did, &other.did, &alice.account.handle] {
        assert!(output.stdout.contains(words), "{output:?} says {words}");
    }
    let answer = alice.cli.json(&["check"]);
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["account"], *alice.account.did);
    let checks: Vec<&str> = answer["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["check"].as_str().unwrap())
        .collect();
    assert_eq!(
        checks,
        [
            "key",
            "account",
            "sign-in",
            "record",
            "proof",
            "directory",
            "mediator",
            "ping",
            "registration",
            "delivery",
            "mediator",
            "ping",
            "registration",
            "delivery",
        ]
    );
    let received = alice.receive(&[]);
    assert_eq!(received.len(), 1, "only what bob wrote: {received:?}");
    assert_eq!(received[0]["text"], "wait for me");
}

#[test]
fn what_is_wrong_is_found() {
    let network = Network::multikey();
    let (one, mut other) = (
        MediatorService::start(network),
        MediatorService::start(network),
    );
    let alice = enrolled_person(network, "za", 0, &[&one, &other]);
    other.service.take().expect("it was up").kill();
    let output = alice.cli.run(&["check", "--json"]);
    assert_eq!(output.code, Some(1));
    let answer = output.json();
    let [("mediator", detail)] = failed(&answer)[..] else {
        panic!("{answer}")
    };
    assert!(detail.contains(&other.did), "{detail}");
    output.failed(1, "checks failed", "each says above");

    // The record names another key, so that this wallet gets no mail.
    let bob = enrolled_person(network, "zb", 1, &[&one]);
    let wallet = bob.cli.wallet();
    let aside = bob.cli.path("aside");
    std::fs::rename(&wallet, &aside).expect("moved");
    enroll_by_library(&bob, &[&one], &[&one.did]);
    std::fs::remove_dir_all(&wallet).expect("removed");
    std::fs::rename(&aside, &wallet).expect("moved");
    let answer = bob.cli.run(&["check", "--json"]).json();
    let found: Vec<&str> = failed(&answer).iter().map(|(check, _)| *check).collect();
    assert_eq!(found[..3], ["record", "proof", "directory"], "{answer}");

    // The account has no record; then its PDS is down.
    let carol = enrolled_person(network, "zc", 1, &[&one]);
    carol.account.delete_record();
    let answer = carol.cli.run(&["check", "--json"]).json();
    let found: Vec<&str> = failed(&answer).iter().map(|(check, _)| *check).collect();
    assert!(found.starts_with(&["record", "proof"]), "{answer}");
    assert_eq!(answer["ok"], json!(false));
}

#[test]
fn another_account_with_ones_key_is_noticed() {
    let network = Network::multikey();
    let one = MediatorService::start(network);
    let alice = enrolled_person(network, "qa", 0, &[&one]);
    let carol = network.account("qc", 1);
    let record = alice.record().expect("a record");
    carol.put(json!({"did": record["did"], "mediators": [one.did]}));
    one.service().refresh(&carol.did).expect("refreshed");
    one.service()
        .until(&alice.account.did, "both are known", |view| {
            view["peer"]["ambiguous"] == true
        });
    let answer = alice.cli.run(&["check", "--json"]).json();
    let [("proof", detail)] = failed(&answer)[..] else {
        panic!("{answer}")
    };
    assert!(
        detail.contains("other accounts publish your messaging key"),
        "{detail}"
    );
}

#[test]
fn new_keys_of_the_mediator_are_known_to_the_directory_beside_it_at_once() {
    let network = Network::multikey();
    let mut one = MediatorService::start(network);
    let alice = enrolled_person(network, "wa", 0, &[&one]);
    let sound = |mediator: &MediatorService| {
        let view = mediator
            .service()
            .until(&alice.account.did, "the mediator is known", |view| {
                view["mediators"][0]["state"] == "reachable"
            });
        let output = alice.cli.run(&["check"]).success();
        assert!(
            output.stdout.lines().all(|line| line.starts_with("ok ")),
            "{output:?}"
        );
        view["mediators"][0]["keyAgreement"].clone()
    };
    let rotate = |data_dir: &std::path::Path| {
        let data_dir = data_dir.to_str().expect("text");
        let rotated = alice.cli.run(&["keys", "rotate", "--data-dir", data_dir]);
        rotated.success();
    };
    let first = sound(&one);
    rotate(&one.service().data_dir());
    let second = sound(&one);
    assert_ne!(first, second);

    // Keys that are made while nothing runs are known from the start.
    let stopped = one.service.take().expect("it runs").stop();
    rotate(&stopped.data_dir());
    one.service = Some(stopped.start());
    let third = sound(&one);
    assert_ne!(second, third);
}
