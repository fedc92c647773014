//! Invariant 9: neither the log nor a metric shows senders with recipients, or contents.

use serde_json::json;

use super::unlisted::{FakeMediator, relay_status};
use super::{PeerClient, Socket, forward, mediator};
use crate::http::eventually;
use crate::network::Network;

/// A mediator carries out all its functions at the most verbose level of the log.
#[test]
fn inv9_nothing_is_told_of_senders_recipients_and_messages() {
    let network = Network::multikey();
    let (service, endpoint) = mediator(network, |setup| {
        setup
            .set("log.filter", json!("trace"))
            .set("mediator.report_unknown", json!(true))
            .set("mediator.queue_messages", json!(10))
            .set("mediator.relay.give_up", json!("1s"))
    });
    let [alice, bob, unknown] = [(); 3].map(|()| PeerClient::new());
    let package = |peer: &PeerClient| json!({"did": peer.did, "mediators": [endpoint.did]});
    let accounts = [
        network.enrolled("alice", 0, package(&alice)),
        network.enrolled("bob", 1, package(&bob)),
    ];
    for (account, peer) in accounts.iter().zip([&alice, &bob]) {
        service.refresh(&account.did).expect("the package");
        assert!(peer.request(&endpoint, Some(&account.did)));
        peer.add(&endpoint, &peer.did);
    }
    // Forwards with and without a sender, by request and by socket: kept, refused, unknown, replayed
    // and malformed.
    let mut live = Socket::live(&endpoint, &bob);
    let words = "the very words";
    let named = alice.seal(&endpoint, forward(&bob.did, &bob.envelope(words)));
    endpoint.take(&named);
    let mut socket = Socket::open(&endpoint);
    socket.send(endpoint.forward(&bob.did, &bob.envelope(words)));
    for _ in 0..2 {
        assert_eq!(bob.words(&live.next().expect("a letter")), words);
    }
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope(words)));
    assert_eq!(
        endpoint.refuse(&endpoint.forward(&bob.did, &bob.envelope(words)), 503),
        "QueueFull"
    );
    assert_eq!(bob.empty(&endpoint).len(), 3);
    endpoint.take(&endpoint.forward(&unknown.did, &unknown.envelope(words)));
    endpoint.post(&unknown.seal(&endpoint, forward(&unknown.did, &unknown.envelope(words))));
    unknown.request(&endpoint, None);
    let status = super::pickup::Request::Status {
        recipient_did: Some(bob.did.clone()),
    };
    let status = alice.seal(
        &endpoint,
        status.write(super::pickup::Version::V3, super::id()),
    );
    assert_eq!(
        [endpoint.post(&status).status, endpoint.post(&status).status],
        [202, 202]
    );
    endpoint.refuse(&alice.envelope(words), 400);
    // A relayed message that another mediator refuses, and the report about it.
    let refusing = FakeMediator::start(|_, _| (400, None));
    let envelope = refusing
        .endpoint
        .forward(&unknown.did, &unknown.envelope(words));
    endpoint.take(&alice.seal(
        &endpoint,
        forward(&refusing.endpoint.did, &envelope).thid("the thread"),
    ));
    alice.report(&endpoint);
    let away = FakeMediator::start(|_, _| (503, None));
    endpoint.take(&alice.seal(
        &endpoint,
        forward(&away.endpoint.did, &envelope).thid("the thread"),
    ));
    alice.report(&endpoint);
    eventually("all is carried out", || {
        (relay_status(&service)["waiting"] == 0).then_some(())
    });

    let (log, metrics) = (service.log(), service.metrics_page());
    // The log is at its most verbose.
    assert!(
        log.contains("DEBUG atcomm") && log.contains(" TRACE "),
        "{log}"
    );
    assert!(
        metrics.contains("atcomm_mediator_forwards_total"),
        "{metrics}"
    );
    let mut secrets = vec![words.to_owned(), "the thread".to_owned()];
    for peer in [&alice, &bob, &unknown] {
        let key = peer.did.split(".E").nth(1).expect("a key");
        secrets.push(key[..40].to_owned());
    }
    for secret in &secrets {
        for (name, text) in [("log", &log), ("metrics", &metrics)] {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "{secret} in the {name}");
        }
    }
    // An account's DID may stand in the log, where it was refreshed, but never beside another.
    for line in log.lines().chain(metrics.lines()) {
        let both = accounts.iter().all(|account| line.contains(&account.did));
        assert!(!both, "{line}");
    }
    for account in &accounts {
        assert!(!metrics.contains(&account.did), "{metrics}");
        assert!(!relay_status(&service).to_string().contains(&account.did));
    }
}
