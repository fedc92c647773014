//! The destinations of relayed mail: mediators that key packages name, unlisted ones within a budget,
//! and never internal addresses.

use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::{MediatorEndpoint, PeerClient, ReturnRoute, Socket, forward, mediator, open};
use crate::http::{RUNTIME, eventually, throughout};
use crate::network::{Network, mediator_document, text};
use crate::service::{Service, Setup};

/// Returns the output of `atcomm relay status --json`.
#[track_caller]
pub(super) fn relay_status(service: &Service) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .args(["relay", "status", "--json", "--data-dir"])
        .arg(service.data_dir())
        .output()
        .expect("the program");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Returns the response of a fake mediator to a path, given the number of earlier responses.
type Rule = dyn Fn(&str, usize) -> (u16, Option<String>) + Send + Sync;

/// An accepted message and its path.
struct Accepted {
    path: String,
    message: Vec<u8>,
}

/// A mediator that accepts messages and opens none.
pub(super) struct FakeMediator {
    pub(super) endpoint: MediatorEndpoint,
    received: Arc<Mutex<Vec<Accepted>>>,
}

impl FakeMediator {
    pub(super) fn start(
        rule: impl Fn(&str, usize) -> (u16, Option<String>) + Send + Sync + 'static,
    ) -> Self {
        let received: Arc<Mutex<Vec<Accepted>>> = Arc::default();
        let copy = Arc::clone(&received);
        let rule: Arc<Rule> = Arc::new(rule);
        let listener = RUNTIME.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let did = format!("did:web:localhost%3A{port}");
        let endpoint = format!("http://localhost:{port}/didcomm");
        let document = mediator_document(&did, &endpoint).to_string();
        let answer = move |uri: Uri, body: Bytes| {
            let answer = answer(&document, &copy, &*rule, uri.path(), &body);
            async move { answer }
        };
        RUNTIME.spawn(async move {
            drop(axum::serve(listener, Router::new().fallback(answer)).await);
        });
        Self {
            endpoint: MediatorEndpoint::at(port),
            received,
        }
    }

    /// Returns all received messages.
    pub(super) fn received(&self) -> Vec<Vec<u8>> {
        let received = self.received.lock().expect("a list");
        received.iter().map(|taken| taken.message.clone()).collect()
    }

    /// Returns the paths of the received messages.
    fn paths(&self) -> Vec<String> {
        let received = self.received.lock().expect("a list");
        received.iter().map(|taken| taken.path.clone()).collect()
    }
}

fn answer(
    document: &str,
    received: &Mutex<Vec<Accepted>>,
    rule: &Rule,
    path: &str,
    body: &[u8],
) -> Response {
    if path == "/.well-known/did.json" {
        let headers = [(CONTENT_TYPE, "application/did+json")];
        return (headers, document.to_owned()).into_response();
    }
    if body.is_empty() {
        // The mediator checks whether this one is reachable.
        return StatusCode::NO_CONTENT.into_response();
    }
    let mut received = received.lock().expect("a list");
    let (status, location) = rule(path, received.len());
    received.push(Accepted {
        path: path.to_owned(),
        message: body.to_vec(),
    });
    let status = StatusCode::from_u16(status).expect("a status");
    match location {
        Some(location) => (status, [(LOCATION, location)]).into_response(),
        None => status.into_response(),
    }
}

fn unlisted_budget(budget: u32) -> impl FnOnce(Setup) -> Setup {
    move |setup| open(setup).set("mediator.relay.strangers_per_hour", json!(budget))
}

/// Returns any envelope for a mediator that never opens it.
fn envelope(to: &MediatorEndpoint) -> Vec<u8> {
    let bob = PeerClient::new();
    to.forward(&bob.did, &bob.envelope("for an unlisted mediator"))
}

#[test]
fn unlisted_mediators_have_a_budget_and_those_named_in_key_packages_have_none() {
    let network = Network::multikey();
    let (service, near) = mediator(network, unlisted_budget(2));
    let [unlisted, named] = [(); 2].map(|()| FakeMediator::start(|_, _| (202, None)));
    let send = |to: &MediatorEndpoint| near.forward(&to.did, &envelope(to));
    near.take(&send(&unlisted.endpoint));
    near.take(&send(&unlisted.endpoint));
    assert_eq!(
        near.refuse(&send(&unlisted.endpoint), 429),
        "RateLimitExceeded"
    );
    assert_eq!(
        near.refuse(&send(&named.endpoint), 429),
        "RateLimitExceeded"
    );
    // A key package lists a mediator.
    let package = json!({"mediators": [named.endpoint.did]});
    let account = network.enrolled("named", 0, package);
    service.refresh(&account.did).expect("the package");
    for _ in 0..5 {
        near.take(&send(&named.endpoint));
    }
    eventually("all that was taken is delivered", || {
        (unlisted.received().len() == 2 && named.received().len() == 5).then_some(())
    });
    // Without the record the mediator is unlisted again.
    account.put(json!({}));
    service.refresh(&account.did).expect("another package");
    assert_eq!(
        near.refuse(&send(&named.endpoint), 429),
        "RateLimitExceeded"
    );
}

#[test]
fn without_a_budget_only_the_operators_choice_is_relayed_to() {
    let [unlisted, chosen] = [(); 2].map(|()| FakeMediator::start(|_, _| (202, None)));
    let allow = json!([chosen.endpoint.did]);
    let (_service, near) = mediator(Network::multikey(), |setup| {
        unlisted_budget(0)(setup).set("mediator.relay.allow", allow)
    });
    let send = |to: &MediatorEndpoint| near.forward(&to.did, &envelope(to));
    assert_eq!(near.refuse(&send(&unlisted.endpoint), 403), "RelayRefused");
    near.take(&send(&chosen.endpoint));
    eventually("it is delivered", || {
        (chosen.received().len() == 1).then_some(())
    });
    // A socket has no status, so a sender who asks for answers gets a report.
    let alice = PeerClient::new();
    let outer = forward(&unlisted.endpoint.did, &envelope(&unlisted.endpoint));
    let id = outer.id.clone();
    let mut socket = Socket::open(&near);
    socket.send(alice.seal(&near, outer.return_route(ReturnRoute::All)));
    let told = alice.open(&near, &socket.next().expect("an answer"));
    assert!(told.kind.ends_with("/problem-report"), "{}", told.kind);
    assert_eq!(told.pthid, Some(id));
    assert!(unlisted.received().is_empty());
}

/// An account publishes another's did:peer with mediators of its own. These get a copy, but a copy
/// that they accept does not suffice to accept the forward.
#[test]
fn inv3_a_copy_for_another_claimant_of_the_did_does_not_stand_for_the_owners() {
    let network = Network::multikey();
    let (service, near) = mediator(network, |setup| {
        setup.set("mediator.relay.destination_messages", json!(1))
    });
    let bob = PeerClient::new();
    // The owner's mediator is down, the other accepts all messages.
    let [own, other] = [500, 202].map(|status| FakeMediator::start(move |_, _| (status, None)));
    for (name, fake) in [("bob", &own), ("carol", &other)] {
        let package = json!({"did": bob.did, "mediators": [fake.endpoint.did]});
        let account = network.enrolled(name, 0, package);
        service.refresh(&account.did).expect("the package");
    }
    near.take(&near.forward(&bob.did, &bob.envelope("one")));
    eventually("a copy goes to either", || {
        let tried = !own.received().is_empty();
        (tried && other.received().len() == 1).then_some(())
    });
    let second = near.forward(&bob.did, &bob.envelope("two"));
    assert_eq!(near.refuse(&second, 503), "RelayFull");
    // A message that was accepted before is not lost.
    let waiting = relay_status(&service)["waiting"].as_u64();
    assert!(waiting.is_some_and(|waiting| waiting >= 1), "{waiting:?}");
}

/// Hosts of a did:web that mean this machine or its neighbours, by addresses in every spelling and
/// by names.
const INSIDE: [&str; 44] = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0X7F.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "0.0.0.0",
    "0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "%5B::1%5D",
    "%5B::%5D",
    "%5B::ffff:127.0.0.1%5D",
    "%5B::ffff:7f00:1%5D",
    "%5B64:ff9b::7f00:1%5D",
    "%5B2002:7f00:1::1%5D",
    "%5Bfe80::1%5D",
    "%5Bfc00::1%5D",
    "%5Bfd00:ec2::254%5D",
    "%5Bff02::1%5D",
    "%3A%3A1",
    "user@localhost",
    "localhost%00.example.com",
    "localhost%2F.example.com",
    "localhost%23.example.com",
    "localhost%5C.example.com",
    "localhost%0A",
    "metadata.google.internal",
    "kubernetes.default.svc",
    "router.local",
    "intranet",
    "1.0.0.127.in-addr.arpa",
];

#[test]
fn inv6_addresses_and_names_from_inside_are_not_dialled() {
    let (service, near) = mediator(Network::multikey(), open);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let port = listener.local_addr().expect("a port").port();
    let alice = PeerClient::new();
    for host in INSIDE {
        let did = format!("did:web:{host}%3A{port}");
        let answer = near.post(&near.forward(&did, &alice.envelope("inside")));
        assert!(
            [202, 400, 403].contains(&answer.status),
            "{did}: {}",
            answer.text()
        );
    }
    for did in [
        "did:web:169.254.169.254",
        "did:web:metadata.google.internal",
        "did:web:localhost%3A22",
    ] {
        let answer = near.post(&near.forward(did, &alice.envelope("inside")));
        assert!([202, 403].contains(&answer.status), "{did}");
    }
    throughout(Duration::from_millis(1500), "no connection comes", || {
        listener.accept().is_err()
    });
    let delivered = service.metric("atcomm_mediator_relay_total", &[("outcome", "delivered")]);
    assert_eq!(delivered, 0.0);
    assert_eq!(near.post(&near.forward(&near.did, b"{}")).status, 400);
}

#[test]
fn a_redirect_that_keeps_the_method_is_followed_once_and_no_other() {
    let (service, near) = mediator(Network::multikey(), |setup| {
        open(setup)
            .set("mediator.relay.give_up", json!("1s"))
            .set("mediator.relay.longest_pause", json!("200ms"))
    });
    let once = FakeMediator::start(|path, _| match path {
        "/didcomm" => (307, Some("/other".to_owned())),
        _ => (202, None),
    });
    near.take(&near.forward(&once.endpoint.did, &envelope(&once.endpoint)));
    eventually("it is delivered", || {
        let outcome = [("outcome", "delivered")];
        (service.metric("atcomm_mediator_relay_total", &outcome) == 1.0).then_some(())
    });
    assert_eq!(once.paths(), ["/didcomm", "/other"]);
    assert_eq!(once.received()[0], once.received()[1]);

    let circle = FakeMediator::start(|_, n| (307, Some(format!("/other/{n}"))));
    let others = [301, 302, 303, 308].map(|status| {
        FakeMediator::start(move |path, _| match path {
            "/didcomm" => (status, Some("/other".to_owned())),
            _ => (202, None),
        })
    });
    let all: Vec<_> = others.iter().chain([&circle]).collect();
    for fake in &all {
        near.take(&near.forward(&fake.endpoint.did, &envelope(&fake.endpoint)));
    }
    eventually("they are given up", || {
        let outcome = [("outcome", "given_up")];
        (service.metric("atcomm_mediator_relay_total", &outcome) == 5.0).then_some(())
    });
    for fake in &others {
        assert!(
            fake.paths().iter().all(|path| path == "/didcomm"),
            "{:?}",
            fake.paths()
        );
    }
    // An attempt makes two requests and no more.
    let paths = circle.paths();
    assert_eq!(paths.len() % 2, 0, "{paths:?}");
    assert!(
        paths.chunks(2).all(|pair| pair[0] == "/didcomm"),
        "{paths:?}"
    );
}

/// The address policy holds for the target of a redirect, too.
#[test]
fn inv6_a_redirect_leads_nowhere_inside() {
    let (service, near) = mediator(Network::multikey(), |setup| {
        open(setup).set("mediator.relay.give_up", json!("1s"))
    });
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let port = listener.local_addr().expect("a port").port();
    let sly =
        FakeMediator::start(move |_, _| (307, Some(format!("http://127.0.0.1:{port}/admin"))));
    near.take(&near.forward(&sly.endpoint.did, &envelope(&sly.endpoint)));
    eventually("it has ended", || {
        let refused = service.metric("atcomm_mediator_relay_total", &[("outcome", "refused")]);
        (refused == 1.0).then_some(())
    });
    assert!(listener.accept().is_err());
}

#[test]
fn inv7_no_mediator_takes_more_than_its_share_of_the_outbox() {
    let (service, near) = mediator(Network::multikey(), |setup| {
        open(setup).set("mediator.relay.destination_messages", json!(12))
    });
    // One address may use three of twelve places.
    let away = FakeMediator::start(|_, _| (503, None));
    let well = FakeMediator::start(|_, _| (202, None));
    let envelopes: Vec<_> = (0..4).map(|_| envelope(&away.endpoint)).collect();
    let send = |envelope: &[u8]| near.forward(&away.endpoint.did, envelope);
    envelopes[..3]
        .iter()
        .for_each(|envelope| near.take(&send(envelope)));
    let answer = near.post(&send(&envelopes[3]));
    assert_eq!(answer.status, 503);
    assert_eq!(text(&answer.json(), "/error"), "RelayFull");
    assert!(
        answer
            .header("retry-after")
            .parse::<u64>()
            .is_ok_and(|wait| wait > 0)
    );
    // A message that is queued already is accepted again and stored once.
    near.take(&send(&envelopes[0]));
    near.take(&near.forward(&well.endpoint.did, &envelope(&well.endpoint)));
    eventually("another is not held up", || {
        (well.received().len() == 1).then_some(())
    });
    eventually("the status lists both", || {
        let status = relay_status(&service);
        let of = |did: &str| {
            let all = status["destinations"].as_array().expect("a list");
            all.iter().find(|one| one["did"] == did).cloned()
        };
        let (away, well) = (of(&away.endpoint.did)?, of(&well.endpoint.did)?);
        (status["waiting"] == 3
            && away["waiting"] == 3
            && away["failed"].as_u64() >= Some(3)
            && away["lastError"].as_str()?.contains("503")
            && well["delivered"] == 1
            && well["waiting"] == 0)
            .then_some(())
    });
}
