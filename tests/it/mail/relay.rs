//! Mail from one mediator to another: while both run, while one is down, and if it stays down.

use std::time::Duration;

use atcomm_proto::didcomm::message::Message;
use serde_json::json;

use super::unlisted::{FakeMediator, relay_status};
use super::{MediatorEndpoint, PeerClient, forward, mediator, open};
use crate::didcomm::Script;
use crate::http::{eventually, request, within};
use crate::network::{Network, text};
use crate::service::{Service, Setup, Stopped};

/// Sets retries so frequent that a test can wait for them.
fn with_fast_retries(setup: Setup) -> Setup {
    open(setup)
        .set("mediator.relay.longest_pause", json!("500ms"))
        .set("mediator.relay.strangers_per_hour", json!(1_000_000))
        // Time for which a failed fetch of a document is cached.
        .set("identity.error_ttl", json!("500ms"))
}

/// Starts the sender's mediator and the recipient's mediator.
fn two_mediators() -> ((Service, MediatorEndpoint), (Service, MediatorEndpoint)) {
    let network = Network::multikey();
    (
        mediator(network, with_fast_retries),
        mediator(network, open),
    )
}

/// Returns a message for `to` by way of two mediators.
fn by_way_of(
    near: &MediatorEndpoint,
    far: &MediatorEndpoint,
    to: &PeerClient,
    words: &str,
) -> Vec<u8> {
    near.forward(&far.did, &far.forward(&to.did, &to.envelope(words)))
}

/// Waits until the outbox is empty.
fn until_relayed(service: &Service) {
    eventually("the outbox is empty", || {
        (relay_status(service)["waiting"] == 0).then_some(())
    });
}

#[test]
fn a_letter_reaches_its_recipient_by_way_of_two_mediators() {
    let ((near_service, near), (_far_service, far)) = two_mediators();
    let bob = PeerClient::new();
    bob.enter(&far);
    near.take(&by_way_of(&near, &far, &bob, "over the hills"));
    assert_eq!(bob.collect(&far, 1), ["over the hills"]);
    until_relayed(&near_service);
    let status = relay_status(&near_service);
    assert_eq!(status["destinations"][0]["did"], *far.did);
    assert_eq!(status["destinations"][0]["delivered"], 1);
}

#[test]
fn what_was_delivered_does_not_go_the_same_way_again() {
    let (service, near) = mediator(Network::multikey(), open);
    let fake = FakeMediator::start(|_, _| (202, None));
    let bob = PeerClient::new();
    let inner = fake.endpoint.forward(&bob.did, &bob.envelope("once"));
    for _ in 0..3 {
        near.take(&near.forward(&fake.endpoint.did, &inner));
        until_relayed(&service);
    }
    assert_eq!(fake.received(), [inner]);
    let other = fake.endpoint.forward(&bob.did, &bob.envelope("twice"));
    near.take(&near.forward(&fake.endpoint.did, &other));
    until_relayed(&service);
    assert_eq!(fake.received().len(), 2);
}

#[test]
fn a_client_of_others_sends_by_way_of_two_mediators() {
    let ((_near_service, near), (_far_service, far)) = two_mediators();
    let bob = PeerClient::new();
    bob.enter(&far);
    let client = Script::client();
    for known in [&near, &far] {
        let url = format!("http://127.0.0.1:{}/.well-known/did.json", known.port);
        let document = request("GET", &url, &[], None).json();
        client.op("know", json!({"did": known.did, "document": document}));
    }
    client.op("mediator", json!({"did": near.did, "http": near.url()}));
    for form in ["json", "base64"] {
        let envelope = String::from_utf8(bob.envelope(form)).expect("text");
        let sent = client.op(
            "forward",
            json!({
                "next": bob.did, "packed": envelope, "form": form, "through": [near.did, far.did],
            }),
        );
        assert_eq!(sent["status"], 202, "{sent}");
        assert_eq!(bob.collect(&far, 1), [form]);
    }
}

/// One destination goes down before it was resolved, another one afterwards.
#[test]
fn what_a_mediator_missed_while_it_was_away_comes_when_it_is_back_and_once() {
    for known_before in [true, false] {
        let ((near_service, near), (far_service, far)) = two_mediators();
        let bob = PeerClient::new();
        bob.enter(&far);
        if known_before {
            near.take(&by_way_of(&near, &far, &bob, "before"));
            assert_eq!(bob.collect(&far, 1), ["before"]);
        }
        let left = far_service.kill();
        for n in 0..5 {
            near.take(&by_way_of(&near, &far, &bob, &format!("letter {n}")));
        }
        eventually("it was tried in vain", || {
            let status = relay_status(&near_service);
            (status["destinations"][0]["failed"].as_u64()? >= 5).then_some(())
        });
        assert_eq!(relay_status(&near_service)["waiting"], 5);
        assert_all_come(&near_service, left, &far, &bob);
    }
}

/// Restarts a mediator, and asserts that five messages come, each once.
fn assert_all_come(near: &Service, left: Stopped, far: &MediatorEndpoint, bob: &PeerClient) {
    let _far_service = left.start();
    let mut words = bob.collect(far, 5);
    words.sort();
    let expected: Vec<_> = (0..5).map(|n| format!("letter {n}")).collect();
    assert_eq!(words, expected);
    until_relayed(near);
    assert_eq!(bob.status(far).message_count, 0);
}

#[test]
fn inv10_the_outbox_outlives_a_kill() {
    let ((near_service, near), (far_service, far)) = two_mediators();
    let bob = PeerClient::new();
    bob.enter(&far);
    let left = far_service.kill();
    for n in 0..5 {
        near.take(&by_way_of(&near, &far, &bob, &format!("letter {n}")));
    }
    let near_service = near_service.kill().start();
    assert_eq!(relay_status(&near_service)["waiting"], 5);
    assert_all_come(&near_service, left, &far, &bob);
}

/// Either mediator may be killed between a delivery and the record of it.
#[test]
fn inv10_kills_on_either_side_of_a_relay_lose_nothing_and_double_nothing() {
    const MESSAGES: usize = 400;
    let ((near_service, near), (far_service, far)) = two_mediators();
    let bob = PeerClient::new();
    bob.enter(&far);
    let left = far_service.kill();
    let mut expected: Vec<_> = (0..MESSAGES).map(|n| format!("letter {n:03}")).collect();
    for words in &expected {
        near.take(&by_way_of(&near, &far, &bob, words));
    }
    let far_service = left.start();
    let arrived = || bob.status(&far).message_count;
    let until = |count: u64| {
        within(Duration::from_secs(30), "some arrive", || {
            (arrived() >= count).then_some(())
        });
    };
    until(10);
    let left = near_service.kill();
    assert!(
        arrived() < MESSAGES as u64,
        "all had arrived before the kill"
    );
    let near_service = left.start();
    until(100);
    let _far_service = far_service.kill().start();
    until(150);
    let near_service = near_service.kill().start();
    until_relayed(&near_service);
    assert_eq!(arrived(), MESSAGES as u64);
    let mut words = bob.collect(&far, MESSAGES);
    words.sort();
    expected.sort();
    assert_eq!(words, expected);
}

#[test]
fn the_sender_is_told_when_a_mediator_is_away_for_good() {
    let network = Network::multikey();
    let (near_service, near) = mediator(network, |setup| {
        with_fast_retries(setup).set("mediator.relay.give_up", json!("2s"))
    });
    let (far_service, far) = mediator(network, open);
    let (alice, bob) = (PeerClient::new(), PeerClient::new());
    alice.enter(&near);
    far_service.kill();
    let inner = far.forward(&bob.did, &bob.envelope("in vain"));
    let outer = forward(&far.did, &inner).thid("the thread");
    near.take(&alice.seal(&near, outer));
    // An anonymous forward has no sender to report to.
    near.take(&by_way_of(&near, &far, &bob, "without a name"));
    let (report, thread) = alice.report(&near);
    assert_eq!(thread, "the thread");
    assert_eq!(report.code, "e.p.xfer.undeliverable");
    assert_eq!(report.args[0], far.did);
    assert!(!report.text().contains(&bob.did), "{}", report.text());
    until_relayed(&near_service);
    let status = relay_status(&near_service);
    assert_eq!(status["destinations"][0]["givenUp"], 2, "{status}");
    assert_eq!(alice.status(&near).message_count, 0);
}

#[test]
fn what_a_mediator_refuses_is_reported_at_once() {
    let (near_service, near) = mediator(Network::multikey(), open);
    let fake = FakeMediator::start(|_, _| (400, None));
    let (alice, bob) = (PeerClient::new(), PeerClient::new());
    alice.enter(&near);
    let inner = fake.endpoint.forward(&bob.did, &bob.envelope("unwelcome"));
    let outer: Message = forward(&fake.endpoint.did, &inner);
    let thread = outer.id.clone();
    near.take(&alice.seal(&near, outer));
    let (report, about) = alice.report(&near);
    assert_eq!(
        (report.code.as_str(), about),
        ("e.p.xfer.undeliverable", thread)
    );
    assert!(report.text().contains("400"), "{}", report.text());
    // The message comes unchanged, and once.
    assert_eq!(fake.received(), [inner]);
    let status = relay_status(&near_service);
    assert_eq!(status["destinations"][0]["refused"], 1, "{status}");
    assert_eq!(status["waiting"], 0);
}

/// A sender uses another mediator than the one that gives up: the report reaches the sender by
/// their key package.
#[test]
fn a_report_goes_to_where_the_senders_key_package_says() {
    let network = Network::multikey();
    let (near_service, near) = mediator(network, with_fast_retries);
    let (endpoint_service, endpoint) = mediator(network, |setup| setup);
    let alice = PeerClient::new();
    let package = json!({"did": alice.did, "mediators": [endpoint.did]});
    let account = network.enrolled("alice", 0, package);
    for service in [&near_service, &endpoint_service] {
        service.refresh(&account.did).expect("the package");
    }
    assert!(alice.request(&endpoint, Some(&account.did)));
    let fake = FakeMediator::start(|_, _| (400, None));
    let inner = fake
        .endpoint
        .forward("did:peer:2.unknown", &alice.envelope("unwelcome"));
    near.take(&alice.seal(
        &near,
        forward(&fake.endpoint.did, &inner).thid("the thread"),
    ));
    // The mediator that reports encrypts the report.
    let envelope = eventually("a report comes", || alice.empty(&endpoint).pop());
    let report = alice.open(&near, &envelope);
    assert_eq!(report.pthid.as_deref(), Some("the thread"));
}

#[test]
fn a_single_forward_finds_the_mediator_that_the_key_package_names() {
    let network = Network::multikey();
    let (near_service, near) = mediator(network, with_fast_retries);
    let (_far_service, far) = mediator(network, |setup| setup);
    let bob = PeerClient::new();
    // The first of them does not answer.
    let package = json!({"did": bob.did, "mediators": ["did:web:localhost%3A1", far.did]});
    let account = network.enrolled("bob", 0, package);
    assert!(bob.request(&far, Some(&account.did)));
    let envelope = bob.envelope("over the hills");
    // The first mediator's directory does not know the account, so the recipient is unknown.
    near.take(&near.forward(&bob.did, &envelope));
    near_service.refresh(&account.did).expect("the package");
    near.take(&near.forward(&bob.did, &envelope));
    assert_eq!(bob.collect(&far, 1), ["over the hills"]);
    until_relayed(&near_service);
    assert_eq!(
        near_service.metric("atcomm_mediator_relay_total", &[("outcome", "delivered")]),
        1.0
    );
}

#[test]
fn a_forward_to_the_mediator_itself_is_unwrapped_once() {
    let (service, near) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&near);
    let looped = || service.metric("atcomm_mediator_forwards_total", &[("outcome", "looped")]);
    let once = near.forward(&bob.did, &bob.envelope("once"));
    let twice = near.forward(&near.did, &once);
    near.take(&twice);
    assert_eq!(bob.collect(&near, 1), ["once"]);
    assert_eq!(looped(), 0.0);
    near.refuse(&near.forward(&near.did, &twice), 400);
    assert_eq!(looped(), 1.0);
    assert_eq!(bob.status(&near).message_count, 0);
}

#[test]
fn two_mediators_do_not_send_a_forward_round_in_circles() {
    let ((near_service, near), (far_service, far)) = two_mediators();
    // Each layer is for the other mediator: the message takes one hop for each layer, and then ends.
    let bob = PeerClient::new();
    bob.enter(&near);
    let mut envelope = near.forward(&bob.did, &bob.envelope("well travelled"));
    for _ in 0..3 {
        envelope = far.forward(&near.did, &envelope);
        envelope = near.forward(&far.did, &envelope);
    }
    near.take(&envelope);
    assert_eq!(bob.collect(&near, 1), ["well travelled"]);
    let carried = |service: &Service| {
        service.metric("atcomm_mediator_relay_total", &[("outcome", "delivered")])
    };
    within(Duration::from_secs(5), "three hops each way", || {
        (carried(&near_service) == 3.0 && carried(&far_service) == 3.0).then_some(())
    });
}

#[test]
fn answers_of_a_mediator_know_no_account_by_its_relay() {
    // The status is for the operator: it names mediators and no accounts.
    let ((near_service, near), (_far_service, far)) = two_mediators();
    let bob = PeerClient::new();
    bob.enter(&far);
    near.take(&by_way_of(&near, &far, &bob, "words"));
    bob.collect(&far, 1);
    let status = relay_status(&near_service).to_string();
    assert!(!status.contains("did:peer"), "{status}");
    assert_eq!(
        text(&relay_status(&near_service), "/destinations/0/did"),
        far.did
    );
}
