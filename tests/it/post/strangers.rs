//! Where mail is carried: to mediators that key packages name, a little to strangers, and nowhere
//! inside.

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

use super::{Known, Peer, ReturnRoute, Socket, forward, mediator, open};
use crate::http::{RUNTIME, eventually, throughout};
use crate::network::{Network, mediator_document, text};
use crate::service::{Service, Setup};

/// What `atcomm relay status --json` says.
#[track_caller]
pub(super) fn relay_status(service: &Service) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .args(["relay", "status", "--json", "--data-dir"])
        .arg(service.data_dir())
        .output()
        .expect("the program");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// How a false mediator answers: by path and by how many it has answered before.
type Rule = dyn Fn(&str, usize) -> (u16, Option<String>) + Send + Sync;

/// A message that was taken, and by which path it came.
struct Taken {
    path: String,
    message: Vec<u8>,
}

/// A mediator that takes messages and opens none.
pub(super) struct Fake {
    pub(super) known: Known,
    received: Arc<Mutex<Vec<Taken>>>,
}

impl Fake {
    pub(super) fn start(
        rule: impl Fn(&str, usize) -> (u16, Option<String>) + Send + Sync + 'static,
    ) -> Self {
        let received: Arc<Mutex<Vec<Taken>>> = Arc::default();
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
            known: Known::at(port),
            received,
        }
    }

    /// The messages that came, wherever.
    pub(super) fn received(&self) -> Vec<Vec<u8>> {
        let received = self.received.lock().expect("a list");
        received.iter().map(|taken| taken.message.clone()).collect()
    }

    /// Where messages came.
    fn paths(&self) -> Vec<String> {
        let received = self.received.lock().expect("a list");
        received.iter().map(|taken| taken.path.clone()).collect()
    }
}

fn answer(
    document: &str,
    received: &Mutex<Vec<Taken>>,
    rule: &Rule,
    path: &str,
    body: &[u8],
) -> Response {
    if path == "/.well-known/did.json" {
        let headers = [(CONTENT_TYPE, "application/did+json")];
        return (headers, document.to_owned()).into_response();
    }
    if body.is_empty() {
        // Whether anybody is there.
        return StatusCode::NO_CONTENT.into_response();
    }
    let mut received = received.lock().expect("a list");
    let (status, location) = rule(path, received.len());
    received.push(Taken {
        path: path.to_owned(),
        message: body.to_vec(),
    });
    let status = StatusCode::from_u16(status).expect("a status");
    match location {
        Some(location) => (status, [(LOCATION, location)]).into_response(),
        None => status.into_response(),
    }
}

fn strangers(budget: u32) -> impl FnOnce(Setup) -> Setup {
    move |setup| open(setup).set("mediator.relay.strangers_per_hour", json!(budget))
}

/// Any envelope for a mediator that never opens it.
fn parcel(to: &Known) -> Vec<u8> {
    let bob = Peer::new();
    to.forward(&bob.did, &bob.letter("for a stranger"))
}

#[test]
fn strangers_have_a_budget_and_those_named_in_key_packages_have_none() {
    let network = Network::multikey();
    let (service, near) = mediator(network, strangers(2));
    let [stranger, named] = [(); 2].map(|()| Fake::start(|_, _| (202, None)));
    let send = |to: &Known| near.forward(&to.did, &parcel(to));
    near.take(&send(&stranger.known));
    near.take(&send(&stranger.known));
    assert_eq!(
        near.refuse(&send(&stranger.known), 429),
        "RateLimitExceeded"
    );
    assert_eq!(near.refuse(&send(&named.known), 429), "RateLimitExceeded");
    // A key package is what makes a mediator known.
    let package = json!({"mediators": [named.known.did]});
    let account = network.enrolled("named", 0, package);
    service.refresh(&account.did).expect("the package");
    for _ in 0..5 {
        near.take(&send(&named.known));
    }
    eventually("all that was taken is delivered", || {
        (stranger.received().len() == 2 && named.received().len() == 5).then_some(())
    });
    // With the record goes the favour.
    account.put(json!({}));
    service.refresh(&account.did).expect("another package");
    assert_eq!(near.refuse(&send(&named.known), 429), "RateLimitExceeded");
}

#[test]
fn without_a_budget_only_the_operators_choice_is_carried_to() {
    let [stranger, chosen] = [(); 2].map(|()| Fake::start(|_, _| (202, None)));
    let allow = json!([chosen.known.did]);
    let (_service, near) = mediator(Network::multikey(), |setup| {
        strangers(0)(setup).set("mediator.relay.allow", allow)
    });
    let send = |to: &Known| near.forward(&to.did, &parcel(to));
    assert_eq!(near.refuse(&send(&stranger.known), 403), "RelayRefused");
    near.take(&send(&chosen.known));
    eventually("it is delivered", || {
        (chosen.received().len() == 1).then_some(())
    });
    // By a socket, which has no status, who asks for answers has one.
    let alice = Peer::new();
    let outer = forward(&stranger.known.did, &parcel(&stranger.known));
    let id = outer.id.clone();
    let mut socket = Socket::open(&near);
    socket.send(alice.seal(&near, outer.return_route(ReturnRoute::All)));
    let told = alice.open(&near, &socket.next().expect("an answer"));
    assert!(told.kind.ends_with("/problem-report"), "{}", told.kind);
    assert_eq!(told.pthid, Some(id));
    assert!(stranger.received().is_empty());
}

/// Somebody publishes another's did:peer with mediators of his own: they get a copy, and a copy that
/// they take is not what makes a forward taken.
#[test]
fn inv3_a_copy_for_who_claims_the_same_did_does_not_stand_for_the_owners() {
    let network = Network::multikey();
    let (service, near) = mediator(network, |setup| {
        setup.set("mediator.relay.destination_messages", json!(1))
    });
    let bob = Peer::new();
    // The owner's mediator is down, the other one takes everything.
    let [home, other] = [500, 202].map(|status| Fake::start(move |_, _| (status, None)));
    for (name, fake) in [("bob", &home), ("carol", &other)] {
        let package = json!({"did": bob.did, "mediators": [fake.known.did]});
        let account = network.enrolled(name, 0, package);
        service.refresh(&account.did).expect("the package");
    }
    near.take(&near.forward(&bob.did, &bob.letter("one")));
    eventually("a copy goes to either", || {
        let tried = !home.received().is_empty();
        (tried && other.received().len() == 1).then_some(())
    });
    let second = near.forward(&bob.did, &bob.letter("two"));
    assert_eq!(near.refuse(&second, 503), "RelayFull");
    // Nothing that was taken before is lost by that.
    let waiting = relay_status(&service)["waiting"].as_u64();
    assert!(waiting.is_some_and(|waiting| waiting >= 1), "{waiting:?}");
}

#[test]
fn inv6_addresses_and_names_from_inside_are_not_dialled() {
    let (service, near) = mediator(Network::multikey(), open);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let port = listener.local_addr().expect("a port").port();
    let alice = Peer::new();
    for did in [
        format!("did:web:127.0.0.1%3A{port}"),
        format!("did:web:2130706433%3A{port}"),
        format!("did:web:0x7f.1%3A{port}"),
        format!("did:web:%5B::1%5D%3A{port}"),
        "did:web:169.254.169.254".to_owned(),
        "did:web:metadata.google.internal".to_owned(),
        "did:web:localhost%3A22".to_owned(),
        format!("did:web:user@localhost%3A{port}"),
    ] {
        let answer = near.post(&near.forward(&did, &alice.letter("inside")));
        assert!(
            [202, 403].contains(&answer.status),
            "{did}: {}",
            answer.text()
        );
    }
    throughout(Duration::from_millis(1500), "nobody comes", || {
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
    let once = Fake::start(|path, _| match path {
        "/didcomm" => (307, Some("/other".to_owned())),
        _ => (202, None),
    });
    near.take(&near.forward(&once.known.did, &parcel(&once.known)));
    eventually("it is delivered", || {
        let outcome = [("outcome", "delivered")];
        (service.metric("atcomm_mediator_relay_total", &outcome) == 1.0).then_some(())
    });
    assert_eq!(once.paths(), ["/didcomm", "/other"]);
    assert_eq!(once.received()[0], once.received()[1]);

    let circle = Fake::start(|_, n| (307, Some(format!("/other/{n}"))));
    let others = [301, 302, 303, 308].map(|status| {
        Fake::start(move |path, _| match path {
            "/didcomm" => (status, Some("/other".to_owned())),
            _ => (202, None),
        })
    });
    let all: Vec<_> = others.iter().chain([&circle]).collect();
    for fake in &all {
        near.take(&near.forward(&fake.known.did, &parcel(&fake.known)));
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
    // Two steps an attempt, and not one more.
    let paths = circle.paths();
    assert_eq!(paths.len() % 2, 0, "{paths:?}");
    assert!(
        paths.chunks(2).all(|pair| pair[0] == "/didcomm"),
        "{paths:?}"
    );
}

/// Reached through a redirect, too, only what may be reached at all.
#[test]
fn inv6_a_redirect_leads_nowhere_inside() {
    let (service, near) = mediator(Network::multikey(), |setup| {
        open(setup).set("mediator.relay.give_up", json!("1s"))
    });
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let port = listener.local_addr().expect("a port").port();
    let sly = Fake::start(move |_, _| (307, Some(format!("http://127.0.0.1:{port}/admin"))));
    near.take(&near.forward(&sly.known.did, &parcel(&sly.known)));
    eventually("it has ended", || {
        let refused = service.metric("atcomm_mediator_relay_total", &[("outcome", "refused")]);
        (refused == 1.0).then_some(())
    });
    assert!(listener.accept().is_err());
}

#[test]
fn inv7_no_mediator_takes_more_than_its_share_of_the_outbox() {
    let (service, near) = mediator(Network::multikey(), |setup| {
        open(setup).set("mediator.relay.destination_messages", json!(3))
    });
    let away = Fake::start(|_, _| (503, None));
    let well = Fake::start(|_, _| (202, None));
    let parcels: Vec<_> = (0..4).map(|_| parcel(&away.known)).collect();
    let send = |parcel: &[u8]| near.forward(&away.known.did, parcel);
    parcels[..3]
        .iter()
        .for_each(|parcel| near.take(&send(parcel)));
    let answer = near.post(&send(&parcels[3]));
    assert_eq!(answer.status, 503);
    assert_eq!(text(&answer.json(), "/error"), "RelayFull");
    assert!(
        answer
            .header("retry-after")
            .parse::<u64>()
            .is_ok_and(|wait| wait > 0)
    );
    // What waits already is taken again, and takes no place.
    near.take(&send(&parcels[0]));
    near.take(&near.forward(&well.known.did, &parcel(&well.known)));
    eventually("another is not held up", || {
        (well.received().len() == 1).then_some(())
    });
    eventually("the status lists both", || {
        let status = relay_status(&service);
        let of = |did: &str| {
            let all = status["destinations"].as_array().expect("a list");
            all.iter().find(|one| one["did"] == did).cloned()
        };
        let (away, well) = (of(&away.known.did)?, of(&well.known.did)?);
        (status["waiting"] == 3
            && away["waiting"] == 3
            && away["failed"].as_u64() >= Some(3)
            && away["lastError"].as_str()?.contains("503")
            && well["delivered"] == 1
            && well["waiting"] == 0)
            .then_some(())
    });
}
