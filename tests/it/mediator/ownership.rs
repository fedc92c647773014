//! Ownership: a DID belongs to the holder of its keys.

use serde_json::{Value, json};

use super::{Client, Mediator, VERSIONS};

const NOT_ENROLLED: &str = "e.p.req.not_enroll";

/// Sends messages to this DID, one after the other.
fn send(client: &Client, to: &str, words: &[&str]) {
    for words in words {
        client.forward(to, &client.pack_words_for(to, words));
    }
}

fn words(attached: &[Value]) -> Vec<&str> {
    let words = attached.iter().map(|one| &one["message"]["body"]["words"]);
    words.map(|words| words.as_str().expect("words")).collect()
}

#[test]
fn an_alias_goes_to_its_owner_when_that_one_registers() {
    let mediator = Mediator::open();
    for version in VERSIONS {
        // One process has the secrets of both accounts, so that each could read all mail that it
        // receives.
        let client = mediator.member();
        let owner = client.generate();
        assert_eq!(client.update(version, "add", &owner), "success");
        send(&client, &owner, &["before"]);
        assert_eq!(client.waiting(Some(&owner)), 1);
        assert_eq!(client.waiting(None), 1);

        client.ask("request", json!({"from": owner, "version": version}));
        let as_owner = |operation: &str, mut fields: Value| {
            fields["from"] = json!(owner);
            client.tell(operation, fields)
        };
        let refused = client.tell("status", json!({"recipient_did": owner}));
        client.assert_problem(&refused, NOT_ENROLLED);
        let refused = client.tell("delivery", json!({"recipient_did": owner}));
        client.assert_problem(&refused, NOT_ENROLLED);
        assert_eq!(client.waiting(None), 0);
        assert_eq!(client.update(version, "add", &owner), "client_error");
        // The account that lost the DID cannot remove it.
        assert_eq!(client.update(version, "remove", &owner), "no_change");

        send(&client, &owner, &["after"]);
        let attached = as_owner("delivery", json!({}))["attached"].clone();
        let attached = attached.as_array().expect("a delivery");
        assert_eq!(words(attached), ["before", "after"]);
        // The account that lost the DID cannot acknowledge the owner's mail.
        let ids: Vec<_> = attached.iter().map(|one| one["id"].clone()).collect();
        client.ask("received", json!({"ids": ids}));
        let status = as_owner("status", json!({}));
        assert_eq!(status["message"]["body"]["message_count"], 2);
        let status = as_owner("received", json!({"ids": ids}));
        assert_eq!(status["message"]["body"]["message_count"], 0);
    }
}

#[test]
fn a_did_with_an_account_of_its_own_is_nobodys_alias() {
    let mediator = Mediator::open();
    let (first, second) = (mediator.member(), mediator.client());
    second.enter(&second.did);
    assert_eq!(second.update("3.0", "add", &first.did), "client_error");
    // A DID that another account has added is refused, too.
    let alias = first.generate();
    assert_eq!(first.update("3.0", "add", &alias), "success");
    assert_eq!(second.update("3.0", "add", &alias), "client_error");
    assert_eq!(second.update("2.0", "remove", &alias), "no_change");
    // The same holds after the owner has removed its own DID from the list.
    assert_eq!(first.update("3.0", "remove", &first.did), "success");
    assert_eq!(second.update("3.0", "add", &first.did), "client_error");
    // A removed DID can be added by another account.
    assert_eq!(first.update("3.0", "remove", &alias), "success");
    assert_eq!(second.update("3.0", "add", &alias), "success");
}

#[test]
fn the_same_mail_for_two_is_acknowledged_by_each() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let other = mediator.member();
    let message = client.pack_for(&client.did);
    client.forward(&client.did, &message);
    client.forward(&other.did, &message);
    let status = client.ask("received", json!({"ids": [message.id()]}));
    assert_eq!(status["body"]["message_count"], 0);
    assert_eq!(other.waiting(None), 1);
    other.ask("received", json!({"ids": [message.id()]}));
    assert_eq!(other.waiting(None), 0);
}

#[test]
fn the_mediators_own_dids_cannot_be_bound() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let own_key = format!("{}#key-1", mediator.did);
    for did in [&mediator.did, &mediator.web, &own_key] {
        for version in VERSIONS {
            assert_eq!(client.update(version, "add", did), "client_error", "{did}");
        }
    }
    for nonsense in [
        "did:web:example.org",
        "did:peer:2.Ez6LSxxxx",
        "alice.example.com",
        "did:",
    ] {
        assert_eq!(
            client.update("3.0", "add", nonsense),
            "client_error",
            "{nonsense}"
        );
    }
}

#[test]
fn where_mail_is_kept_by_record_an_account_is_for_its_own_did_only() {
    let mediator = Mediator::start(Mediator::setup().set("mediator.admission", json!("enrolled")));
    let client = mediator.client();
    let other = client.generate();
    for version in VERSIONS {
        // A provisional grant, until a key package confirms it.
        client.ask("request", json!({"version": version}));
        assert_eq!(client.update(version, "add", &other), "client_error");
        assert_eq!(client.update(version, "remove", &other), "client_error");
    }
    assert_eq!(client.update("3.0", "add", &client.did), "success");
    assert_eq!(client.update("3.0", "add", &client.did), "no_change");
    // No key package names the DID, so no mail is accepted for it.
    send(&client, &client.did, &["lost"]);
    assert_eq!(client.waiting(None), 0);
}
