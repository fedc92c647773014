//! An attacker's document leads each of several mediators to the next one, so that a message that
//! one of them carries comes back to it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::hostile_mediator::{HostileMediator, Reply};
use super::print_harm;
use crate::http::eventually;
use crate::mail::{MediatorEndpoint, PeerClient, mediator, open};
use crate::network::{Network, mediator_document};
use crate::service::Service;

/// Messages of the attacker, one request each.
const MESSAGES: usize = 10;

/// How long the messages are watched.
const WATCH: Duration = Duration::from_secs(6);

fn relayed(service: &Service, outcome: &str) -> f64 {
    service.metric("atcomm_mediator_relay_total", &[("outcome", outcome)])
}

/// Starts `count` mediators, and a host whose document leads each of them to the next. Sends the
/// messages, and returns the number of deliveries between the mediators, and the number of messages
/// that are still under way.
fn send_round(count: usize) -> (f64, u64) {
    let network = Network::multikey();
    let (services, mediators): (Vec<Service>, Vec<MediatorEndpoint>) = (0..count)
        .map(|n| {
            mediator(network, |setup| {
                open(setup)
                    .set("mediator.relay.strangers_per_hour", json!(1_000_000))
                    .set("net.contact", json!(format!("mediator-{n}")))
            })
        })
        .unzip();
    let ring: Vec<_> = mediators
        .iter()
        .map(|one| {
            (
                format!("http://localhost:{}/didcomm", one.port),
                format!("{}#key-1", one.did),
            )
        })
        .collect();
    let host = HostileMediator::start(
        move |own, agent, path| {
            let n = (0..ring.len()).find(|n| agent.contains(&format!("mediator-{n}")))?;
            let (endpoint, key) = &ring[(n + 1) % ring.len()];
            let mut document = mediator_document(own, endpoint);
            document["service"][0]["serviceEndpoint"]["routingKeys"] = json!([key]);
            (path == "/.well-known/did.json").then_some(document)
        },
        |_, _| Reply::now(202),
    );
    let bob = PeerClient::new();
    for n in 0..MESSAGES {
        mediators[0].take(&mediators[0].forward(&host.did, &bob.envelope(&format!("round {n}"))));
    }
    eventually("the first ones are carried", || {
        let ended = relayed(&services[0], "delivered") + relayed(&services[0], "refused");
        (ended >= MESSAGES as f64).then_some(())
    });
    let started = Instant::now();
    while started.elapsed() < WATCH {
        std::thread::sleep(Duration::from_millis(200));
    }
    let delivered: f64 = services.iter().map(|one| relayed(one, "delivered")).sum();
    let waiting = services.iter().map(|one| {
        let status = crate::mail::unlisted::relay_status(one);
        status["waiting"].as_u64().expect("a number")
    });
    let waiting = waiting.sum();
    print_harm(
        &format!("a loop of {count} mediators"),
        &format!("{MESSAGES} requests, 1 host, no account"),
        &format!("{delivered} deliveries in {WATCH:?}, {waiting} messages still under way"),
    );
    (delivered, waiting)
}

/// The second mediator would try for a day, and takes over what is left of the first one's time.
#[test]
fn inv7_a_message_has_one_end_for_its_whole_way() {
    let network = Network::multikey();
    let start = |give_up: &str, contact: &str| {
        mediator(network, |setup| {
            open(setup)
                .set("mediator.relay.strangers_per_hour", json!(1_000_000))
                .set("mediator.relay.give_up", json!(give_up))
                .set("mediator.relay.longest_pause", json!("500ms"))
                .set("net.contact", json!(contact))
        })
    };
    let (_near_service, near) = start("4s", "near");
    let (far_service, far) = start("24h", "far");
    let endpoint = format!("http://localhost:{}/didcomm", far.port);
    let key = format!("{}#key-1", far.did);
    let host = HostileMediator::start(
        move |own, agent, path| {
            let document = if agent.contains("near") {
                let mut document = mediator_document(own, &endpoint);
                document["service"][0]["serviceEndpoint"]["routingKeys"] = json!([key]);
                document
            } else {
                let port = own.rsplit("%3A").next()?;
                mediator_document(own, &format!("http://localhost:{port}/didcomm"))
            };
            (path == "/.well-known/did.json").then_some(document)
        },
        |_, _| Reply::now(500),
    );
    let bob = PeerClient::new();
    near.take(&near.forward(&host.did, &bob.envelope("for four seconds")));
    eventually("the second mediator gives up", || {
        (relayed(&far_service, "given_up") == 1.0).then_some(())
    });
    let posts = host.posts();
    assert!(!posts.is_empty());
    assert!(
        posts.iter().all(|post| post.path == "/didcomm"),
        "{posts:?}"
    );
}

#[test]
fn inv7_a_message_does_not_go_round_between_two_mediators() {
    let (delivered, waiting) = send_round(2);
    assert!(delivered <= MESSAGES as f64, "{delivered}");
    assert_eq!(waiting, 0);
}

#[test]
fn inv7_a_message_does_not_go_round_between_three_mediators() {
    let (delivered, waiting) = send_round(3);
    assert!(delivered <= MESSAGES as f64, "{delivered}");
    assert_eq!(waiting, 0);
}
