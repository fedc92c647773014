//! Accounts that leave: what was accepted for them can still be read.

use atcomm_proto::didcomm::protocol::coordination::{self, Action, Outcome};
use serde_json::json;

use super::super::{MediatorEndpoint, PeerClient, Socket, id, mediator, open, pickup};
use super::print_harm;
use crate::network::Network;

/// Returns the DIDs that the mediator lists for an account.
#[track_caller]
fn listed(peer: &PeerClient, endpoint: &MediatorEndpoint) -> Vec<String> {
    let query = coordination::Request::Query(None);
    let answer = peer.ask(endpoint, query.write(coordination::Version::V3, id()));
    match coordination::Reply::of(&answer).expect("an answer") {
        Some((_, coordination::Reply::Recipients { dids, .. })) => dids,
        other => panic!("{other:?} to a query"),
    }
}

/// Returns the number of messages in the queue of the client's own DID, asked for by name.
/// `None` if the mediator says that the DID is not registered.
#[track_caller]
fn waiting_by_name(peer: &PeerClient, endpoint: &MediatorEndpoint) -> Option<u64> {
    let ask = pickup::Request::Status {
        recipient_did: Some(peer.did.clone()),
    };
    let answer = peer.ask(endpoint, ask.write(pickup::Version::V3, id()));
    match pickup::Reply::of(&answer).expect("an answer") {
        Some((_, pickup::Reply::Status(status))) => Some(status.message_count),
        _ => None,
    }
}

#[test]
fn inv3_mail_that_waits_is_read_after_its_account_has_unregistered() {
    let (_service, endpoint) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    for word in ["one", "two", "three"] {
        endpoint.take(&endpoint.forward(&bob.did, &bob.envelope(word)));
    }
    assert_eq!(
        bob.update(&endpoint, Action::Remove, &bob.did),
        Outcome::Success
    );
    assert_eq!(
        bob.update(&endpoint, Action::Remove, &bob.did),
        Outcome::NoChange
    );
    let (counted, by_name) = (
        bob.status(&endpoint).message_count,
        waiting_by_name(&bob, &endpoint),
    );
    let mail = bob.fetch(&endpoint);
    let harm = format!(
        "{} of 3 messages can be read, {counted} are counted, {by_name:?} by name",
        mail.len()
    );
    print_harm("unregistering with mail waiting", "3 requests", &harm);
    assert_eq!((counted, by_name), (3, Some(3)), "{harm}");
    assert_eq!(listed(&bob, &endpoint), [""; 0]);
    // The queue takes no more mail, and the sender cannot tell.
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("too late")));
    let socket = Socket::live(&endpoint, &bob);
    let (ids, envelopes): (Vec<_>, Vec<_>) = mail.into_iter().unzip();
    let words: Vec<_> = envelopes.iter().map(|one| bob.words(one)).collect();
    assert_eq!(words, ["one", "two", "three"]);
    assert_eq!(bob.acknowledge(&endpoint, ids), 0);
    drop(socket);
    // An account that comes back takes mail again.
    assert_eq!(bob.add(&endpoint, &bob.did), Outcome::Success);
    assert_eq!(listed(&bob, &endpoint), [bob.did.as_str()]);
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("back again")));
    assert_eq!(bob.collect(&endpoint, 1), ["back again"]);
}

/// The record still names the mediator, so mail is accepted although the account has removed its DID.
#[test]
fn inv3_mail_for_an_unregistered_did_that_its_record_still_names_is_read() {
    let network = Network::multikey();
    let (service, endpoint) = mediator(network, |setup| setup);
    let bob = PeerClient::new();
    let package = json!({"did": bob.did, "mediators": [endpoint.did]});
    let account = network.enrolled("bob", 0, package);
    service.refresh(&account.did).expect("the package");
    assert!(bob.request(&endpoint, Some(&account.did)));
    // Removed before any mail came, and so before there was a queue.
    bob.update(&endpoint, Action::Remove, &bob.did);
    let mut socket = Socket::live(&endpoint, &bob);
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("pushed")));
    let pushed = socket.next().expect("a push");
    assert_eq!(bob.words(&pushed), "pushed");
    assert_eq!(waiting_by_name(&bob, &endpoint), Some(1));
    assert_eq!(listed(&bob, &endpoint), [""; 0]);
    assert_eq!(bob.collect(&endpoint, 1), ["pushed"]);
}
