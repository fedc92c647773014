//! Mediators that take every message, each after a time of its own, so that their slots come free
//! one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::hostile_mediator::{HostileMediator, Reply};
use super::print_harm;
use crate::http::{eventually, within};
use crate::mail::{MediatorEndpoint, PeerClient, mediator, open};
use crate::network::{Network, mediator_document};

/// Hosts of the attacker: each port of this machine counts as a registrable domain.
const HOSTS: usize = 100;

/// Messages for each of them.
const MESSAGES: usize = 6;

/// Messages for honest mediators, one every half second.
const HONEST: usize = 30;

/// Starts a host that answers after `delay` of the number of posts before.
fn host(delay: impl Fn(usize) -> Duration + Send + Sync + 'static) -> HostileMediator {
    HostileMediator::start(
        |own, _, path| {
            let port = own.rsplit("%3A").next()?;
            let document = mediator_document(own, &format!("http://localhost:{port}/didcomm"));
            (path == "/.well-known/did.json").then_some(document)
        },
        move |_, n| Reply::after(202, delay(n)),
    )
}

/// Returns a pause of one to fourteen seconds, another one for each number.
fn out_of_step(host: usize, post: usize) -> Duration {
    let mixed = (host * 7919 + post * 104_729 + 1).wrapping_mul(2_654_435_761) % 13_000;
    Duration::from_millis(1000 + mixed as u64)
}

/// Sends a message, and returns when it was taken.
fn send(near: &MediatorEndpoint, to: &HostileMediator, bob: &PeerClient, words: &str) -> Instant {
    near.take(&near.forward(&to.did, &bob.envelope(words)));
    Instant::now()
}

#[test]
fn inv7_slow_mediators_out_of_step_do_not_hold_up_others() {
    let (service, near) = mediator(Network::multikey(), |setup| {
        open(setup).set("mediator.relay.strangers_per_hour", json!(1_000_000))
    });
    let bob = PeerClient::new();
    // One honest mediator that has taken messages before, and some that take their first.
    let known = host(|_| Duration::ZERO);
    let fresh: Vec<_> = (0..5).map(|_| host(|_| Duration::ZERO)).collect();
    send(&near, &known, &bob, "before");
    eventually("the first one comes", || {
        (known.posts().len() == 1).then_some(())
    });
    let slow: Vec<_> = (0..HOSTS)
        .map(|n| host(move |post| out_of_step(n, post)))
        .collect();
    for n in 0..MESSAGES {
        for one in &slow {
            send(&near, one, &bob, &format!("slow {n}"));
        }
    }
    let mut sent = Vec::new();
    let mut first_sent = Vec::new();
    for n in 0..HONEST {
        sent.push(send(&near, &known, &bob, &format!("honest {n}")));
        if n % 6 == 0 {
            first_sent.push(send(&near, &fresh[n / 6], &bob, "first contact"));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    std::thread::sleep(Duration::from_secs(3));
    let came: Vec<_> = known.posts()[1..].iter().map(|post| post.at).collect();
    let minutes = sent[0].elapsed().as_secs_f64() / 60.0;
    let slow_posts = || slow.iter().map(|one| one.posts().len()).sum::<usize>();
    let all_served = within(Duration::from_secs(300), "first contacts", || {
        let came = fresh.iter().filter(|one| !one.posts().is_empty()).count();
        (came == fresh.len()).then(slow_posts)
    });
    let late = |sent: &Instant, came: &Instant| came.saturating_duration_since(*sent);
    let longest = sent
        .iter()
        .zip(&came)
        .map(|(sent, came)| late(sent, came))
        .max();
    let first = fresh.iter().map(|one| one.posts()[0].at);
    let first_longest = first_sent
        .iter()
        .zip(first)
        .map(|(sent, came)| late(sent, &came))
        .max();
    print_harm(
        "slow mediators out of step",
        &format!("{} requests, {HOSTS} hosts, no account", HOSTS * MESSAGES),
        &format!(
            "{} of {HONEST} honest messages came ({:.0} a minute), the latest after {longest:?}; \
             {} first contacts, the latest after {first_longest:?} and {all_served} slow deliveries",
            came.len(),
            came.len() as f64 / minutes,
            fresh.len(),
        ),
    );
    assert!(
        came.len() >= HONEST * 4 / 5,
        "{} of {HONEST} came",
        came.len()
    );
    // First contacts have their turn among all others, and not behind their backlog.
    assert!(all_served <= 2 * HOSTS, "{all_served}");
    // The slow ones are served, too.
    assert!(slow_posts() >= 10);
    drop(service);
}

/// A mediator whose messages for one recipient wait for mediators that hang is no slow mediator.
#[test]
fn inv7_hanging_mediators_before_a_good_one_cost_their_time_once() {
    let network = Network::multikey();
    let (service, near) = mediator(network, open);
    let bob = PeerClient::new();
    let hanging: Vec<_> = (0..3).map(|_| host(|_| Duration::from_secs(60))).collect();
    let good = host(|_| Duration::ZERO);
    let mut mediators: Vec<_> = hanging.iter().map(|one| one.did.clone()).collect();
    mediators.push(good.did.clone());
    let account = network.enrolled("hang", 0, json!({"did": bob.did, "mediators": mediators}));
    service.refresh(&account.did).expect("the package");
    let came = Arc::new(AtomicUsize::new(0));
    for n in 0..4 {
        near.take(&near.forward(&bob.did, &bob.envelope(&format!("letter {n}"))));
        within(Duration::from_secs(70), "it comes", || {
            came.store(good.posts().len(), Ordering::Relaxed);
            (came.load(Ordering::Relaxed) == n + 1).then_some(())
        });
    }
    let posts: Vec<_> = hanging.iter().map(|one| one.posts().len()).collect();
    print_harm(
        "hanging mediators before a good one",
        "1 account, 3 hosts",
        &format!("4 messages came after {posts:?} posts to those that hang"),
    );
    assert!(posts.iter().all(|posts| *posts <= 1), "{posts:?}");
}
