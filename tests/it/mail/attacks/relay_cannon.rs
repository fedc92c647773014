//! A relay that is made to post to third parties: to those that never agreed to it, again and again
//! to those that fail, and by way of redirects.

use std::time::Duration;

use serde_json::{Value, json};

use super::hostile_mediator::{HostileMediator, Post, Reply};
use super::print_harm;
use crate::http::{eventually, within};
use crate::mail::unlisted::relay_status;
use crate::mail::{MediatorEndpoint, PeerClient, forward, mediator, open};
use crate::network::{Network, mediator_document};
use crate::service::{Service, Setup};

/// Half an hour between two attempts passes in half a second.
fn fast(setup: Setup) -> Setup {
    open(setup)
        .set("mediator.relay.strangers_per_hour", json!(1_000_000))
        .set("mediator.relay.longest_pause", json!("500ms"))
        .set("identity.error_ttl", json!("500ms"))
}

/// How long the posts are counted.
const WATCH: Duration = Duration::from_secs(8);

/// Returns the document of a host's own endpoint.
fn own_document(own: &str, path: &str) -> Option<Value> {
    let port = own.rsplit("%3A").next()?;
    let document = mediator_document(own, &format!("http://localhost:{port}/didcomm"));
    (path == "/.well-known/did.json").then_some(document)
}

/// Starts a site that is no mediator.
fn site(status: u16) -> HostileMediator {
    HostileMediator::start(|_, _, _| None, move |_, _| Reply::now(status))
}

/// Starts a host with any number of DIDs, each of which names its own address of a victim as its
/// endpoint.
fn cannon(victim: &HostileMediator) -> HostileMediator {
    let victim = victim.port;
    HostileMediator::start(
        move |own, _, path| {
            let name = path.strip_prefix('/')?.strip_suffix("/did.json")?;
            let did = format!("{own}:{name}");
            Some(mediator_document(
                &did,
                &format!("http://localhost:{victim}/{name}"),
            ))
        },
        |_, _| Reply::now(202),
    )
}

fn count(posts: &[Post]) -> (usize, usize) {
    (posts.len(), posts.iter().map(|post| post.bytes).sum())
}

/// Posts letters of about 10,000 bytes.
fn fire(near: &MediatorEndpoint, to: &str, messages: usize) -> usize {
    let bob = PeerClient::new();
    let mut bytes = 0;
    for n in 0..messages {
        let envelope = near.forward(to, &bob.envelope(&format!("{n} {}", "x".repeat(7000))));
        bytes += envelope.len();
        near.take(&envelope);
    }
    bytes
}

#[test]
fn inv7_a_host_that_never_agreed_gets_no_messages() {
    for status in [200, 204, 404, 405, 500] {
        let (_service, near) = mediator(Network::multikey(), fast);
        let victim = site(status);
        let cannon = cannon(&victim);
        let mut bytes = 0;
        for n in 0..16 {
            bytes += fire(&near, &format!("{}:a{n}", cannon.did), 4);
        }
        std::thread::sleep(WATCH);
        let (posts, received) = count(&victim.posts());
        print_harm(
            &format!("a cannon at a site that answers {status}"),
            &format!("64 requests, {bytes} bytes, 1 host, no account"),
            &format!("{posts} posts of {received} bytes in {WATCH:?}"),
        );
        assert!(
            posts <= 16 && received <= posts * 2,
            "{posts} posts, {received} bytes"
        );
    }
}

#[test]
fn inv7_a_redirect_to_a_host_that_never_agreed_carries_no_message() {
    let (_service, near) = mediator(Network::multikey(), fast);
    let victim = site(404);
    let target = format!("http://localhost:{}/", victim.port);
    let sly = HostileMediator::start(
        |own, _, path| own_document(own, path),
        move |_, _| Reply {
            location: Some(target.clone()),
            ..Reply::now(307)
        },
    );
    let bytes = fire(&near, &sly.did, 20);
    eventually("they have ended", || {
        (!sly.posts().is_empty()).then_some(())
    });
    std::thread::sleep(WATCH);
    let (posts, received) = count(&victim.posts());
    print_harm(
        "a redirect to a site",
        &format!("20 requests, {bytes} bytes, 1 host, no account"),
        &format!("{posts} posts of {received} bytes in {WATCH:?}"),
    );
    assert!(
        posts <= 4 && received <= posts * 2,
        "{posts} posts, {received} bytes"
    );
}

/// A mediator that fails gets a few small messages, however many wait for it, and all of them once
/// it answers.
#[test]
fn inv7_a_mediator_that_fails_is_not_tried_message_by_message() {
    for status in [500, 503] {
        fails_and_recovers(status);
    }
}

fn fails_and_recovers(status: u16) {
    const MESSAGES: usize = 200;
    let (service, near) = mediator(Network::multikey(), fast);
    let works = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let answers = std::sync::Arc::clone(&works);
    let victim = HostileMediator::start(
        |own, _, path| own_document(own, path),
        move |_, _| {
            let works = answers.load(std::sync::atomic::Ordering::SeqCst);
            Reply::now(if works { 202 } else { status })
        },
    );
    let bytes = fire(&near, &victim.did, MESSAGES);
    std::thread::sleep(WATCH);
    let (posts, received) = count(&victim.posts());
    print_harm(
        &format!("many messages for a mediator that answers {status}"),
        &format!("{MESSAGES} requests, {bytes} bytes, 1 host, no account"),
        &format!("{posts} posts of {received} bytes in {WATCH:?}, as many as in eight hours"),
    );
    works.store(true, std::sync::atomic::Ordering::SeqCst);
    within(Duration::from_secs(60), "the backlog comes", || {
        let delivered = [("outcome", "delivered")];
        let delivered = service.metric("atcomm_mediator_relay_total", &delivered);
        (delivered == MESSAGES as f64).then_some(())
    });
    assert!(posts < MESSAGES / 2, "{posts} posts");
}

/// What waits for a mediator that fails ends in reports with the reason, message by message.
#[test]
fn inv3_what_was_not_tried_while_a_mediator_failed_is_reported() {
    const MESSAGES: usize = 30;
    let (service, near) = mediator(Network::multikey(), |setup| {
        fast(setup).set("mediator.relay.give_up", json!("4s"))
    });
    let victim = HostileMediator::start(
        |own, _, path| own_document(own, path),
        |_, _| Reply::now(500),
    );
    let (alice, bob) = (PeerClient::new(), PeerClient::new());
    alice.enter(&near);
    for n in 0..MESSAGES {
        let envelope = bob.envelope(&format!("letter {n}"));
        near.take(&alice.seal(&near, forward(&victim.did, &envelope)));
    }
    let mut reports = Vec::new();
    eventually("every message is reported", || {
        for envelope in alice.empty(&near) {
            let message = alice.open(&near, &envelope);
            reports.push(message.body.to_string());
        }
        (reports.len() == MESSAGES).then_some(())
    });
    assert!(
        reports.iter().all(|report| report.contains("500")),
        "{reports:?}"
    );
    assert!(victim.posts().len() < MESSAGES, "{}", victim.posts().len());
    let status = relay_status(&service);
    assert_eq!(status["destinations"][0]["givenUp"], MESSAGES, "{status}");
    assert_eq!(status["waiting"], 0);
    assert_works(&service);
}

fn assert_works(service: &Service) {
    let failed = service.metric("atcomm_mediator_relay_total", &[("outcome", "given_up")]);
    assert!(failed > 0.0);
}
