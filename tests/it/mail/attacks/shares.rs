//! Floods that would use up what all senders share: a recipient's queue and rate, the store of mail,
//! and the outbox.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::unlisted::FakeMediator;
use super::super::{MediatorEndpoint, PeerClient, mediator, open};
use super::print_harm;
use crate::http::{eventually, request};
use crate::network::Network;
use crate::service::Setup;

/// What a mediator answered to some messages.
#[derive(Debug, Default)]
struct Outcome {
    taken: usize,
    refused: usize,
    bytes: usize,
    longest: Duration,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            taken,
            refused,
            bytes,
            longest,
        } = self;
        write!(
            f,
            "{taken} taken, {refused} refused, {bytes} bytes, longest {longest:?}"
        )
    }
}

/// Posts envelopes as an address; the tests are a trusted proxy.
fn post_from(
    endpoint: &MediatorEndpoint,
    address: &str,
    envelopes: impl IntoIterator<Item = Vec<u8>>,
) -> Outcome {
    let mut outcome = Outcome::default();
    for envelope in envelopes {
        let began = Instant::now();
        let headers = [("x-forwarded-for", address)];
        outcome.bytes += envelope.len();
        let answer = request("POST", &endpoint.url(), &headers, Some(envelope));
        outcome.longest = outcome.longest.max(began.elapsed());
        match answer.status {
            202 => outcome.taken += 1,
            429 | 503 => outcome.refused += 1,
            _ => panic!("{}: {}", answer.status, answer.text()),
        }
    }
    outcome
}

/// Returns forwards of some bytes each, that the mediator takes for mail.
fn junk(endpoint: &MediatorEndpoint, to: &PeerClient, count: usize, len: usize) -> Vec<Vec<u8>> {
    let words = "j".repeat(len);
    let forward = |_| endpoint.forward(&to.did, &to.envelope(&words));
    (0..count).map(forward).collect()
}

/// Posts five honest letters from as many addresses.
fn honest_letters(endpoint: &MediatorEndpoint, to: &PeerClient) -> Outcome {
    let mut all = Outcome::default();
    for n in 0..5 {
        let letter = endpoint.forward(&to.did, &to.envelope(&format!("honest {n}")));
        let one = post_from(endpoint, &format!("198.51.100.{n}"), [letter]);
        all.taken += one.taken;
        all.refused += one.refused;
        all.bytes += one.bytes;
        all.longest = all.longest.max(one.longest);
    }
    all
}

/// The limits as shipped, with open admission.
fn as_shipped(setup: Setup) -> Setup {
    open(setup)
        .set("mediator.queue_rate", json!(600))
        .set("mediator.address_rate", json!(6000))
}

#[test]
fn inv7_one_address_silences_no_recipient() {
    const ATTACKER: &str = "203.0.113.7";
    for (attack, count, len) in [
        ("1000 tiny messages to one recipient", 1000, 10),
        ("135 large messages to one recipient", 135, 500_000),
    ] {
        let (_service, endpoint) = mediator(Network::multikey(), as_shipped);
        let bob = PeerClient::new();
        bob.enter(&endpoint);
        let flood = post_from(&endpoint, ATTACKER, junk(&endpoint, &bob, count, len));
        let honest = honest_letters(&endpoint, &bob);
        print_harm(
            attack,
            &format!("one address, {flood}"),
            &format!("of five letters from other addresses: {honest}"),
        );
        assert_eq!((honest.taken, honest.refused), (5, 0));
        assert!(flood.refused > count / 4, "{flood}");
        let words = bob.collect(&endpoint, 5 + flood.taken);
        let came = words.iter().filter(|words| words.starts_with("honest"));
        assert_eq!(came.count(), 5);
    }
}

#[test]
fn inv7_a_steady_flood_from_one_address_leaves_the_rate_to_others() {
    let (_service, endpoint) = mediator(Network::multikey(), as_shipped);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let steady = {
        let endpoint = endpoint.clone();
        let messages = junk(&endpoint, &bob, 700, 10);
        std::thread::spawn(move || {
            // All at once, and then ten a second.
            let mut outcome = post_from(&endpoint, "203.0.113.7", messages[..600].to_vec());
            for message in &messages[600..] {
                std::thread::sleep(Duration::from_millis(100));
                let one = post_from(&endpoint, "203.0.113.7", [message.clone()]);
                outcome.taken += one.taken;
                outcome.refused += one.refused;
            }
            outcome
        })
    };
    let mut honest = Outcome::default();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(2));
        let letters = honest_letters(&endpoint, &bob);
        honest.taken += letters.taken;
        honest.refused += letters.refused;
        honest.longest = honest.longest.max(letters.longest);
    }
    let flood = steady.join().expect("a flood");
    print_harm(
        "a burst and then ten messages a second to one recipient",
        &format!("one address, {flood}"),
        &format!("of 15 letters from other addresses: {honest}"),
    );
    assert_eq!((honest.taken, honest.refused), (15, 0));
    assert!(flood.refused > 400, "{flood}");
}

/// The bytes that all mail, or the whole outbox, may take in these tests.
const TOTAL: usize = 8 << 20;

/// The bytes of the words in the large messages of a flood.
const LARGE: usize = 100_000;

/// Posts messages as one address after the other: large ones until some are refused in a row, and
/// then small ones into what is left. `message` makes the n-th, with so many bytes.
fn flood_from(
    endpoint: &MediatorEndpoint,
    addresses: usize,
    message: impl Fn(usize, usize) -> Vec<u8>,
) -> Outcome {
    let mut all = Outcome::default();
    let mut number = 0;
    for address in 0..addresses {
        for len in [LARGE, 10] {
            let mut refused = 0;
            while refused < 3 && all.bytes < 4 * TOTAL {
                let address = format!("203.0.113.{address}");
                let one = post_from(endpoint, &address, [message(number, len)]);
                number += 1;
                refused = if one.refused > 0 { refused + 1 } else { 0 };
                all.taken += one.taken;
                all.refused += one.refused;
                all.bytes += one.bytes;
                all.longest = all.longest.max(one.longest);
            }
        }
    }
    all
}

/// Accounts of one host that never pick up, filled by one address and by many.
#[test]
fn inv7_neither_a_sender_nor_a_host_takes_the_store_from_others() {
    const ACCOUNTS: usize = 16;
    for addresses in [1, 24] {
        let network = Network::multikey();
        let (service, endpoint) = mediator(network, |setup| {
            setup.set("mediator.total_bytes", json!(TOTAL))
        });
        let enrolled = |name: &str, pds| {
            let peer = PeerClient::new();
            let package = json!({"did": peer.did, "mediators": [endpoint.did]});
            let account = network.enrolled(name, pds, package);
            service.refresh(&account.did).expect("the package");
            assert!(peer.request(&endpoint, Some(&account.did)));
            peer
        };
        let bob = enrolled("bob", 0);
        let evil: Vec<_> = (0..ACCOUNTS).map(|_| enrolled("evil", 1)).collect();
        let flood = flood_from(&endpoint, addresses, |n, len| {
            let to = &evil[n % ACCOUNTS];
            endpoint.forward(&to.did, &to.envelope(&"j".repeat(len)))
        });
        let mut honest = Vec::new();
        // At once, and when what is stored has been counted anew.
        for _ in 0..2 {
            honest.push(honest_letters(&endpoint, &bob));
            std::thread::sleep(Duration::from_secs(11));
        }
        print_harm(
            "filling the store",
            &format!("{addresses} addresses, {ACCOUNTS} accounts of one host, {flood}"),
            &format!(
                "of five letters to an account of another host: {}",
                honest[0]
            ),
        );
        for letters in honest {
            assert_eq!((letters.taken, letters.refused), (5, 0));
        }
        assert!(flood.refused > 0, "{flood}");
        assert_eq!(bob.collect(&endpoint, 10).len(), 10);
    }
}

/// Mediators that never take their mail, named by one record, filled by one address; and one of
/// them filled by many addresses.
#[test]
fn inv7_neither_a_sender_nor_a_domain_takes_the_outbox_from_others() {
    for (addresses, destinations) in [(1, 4), (24, 1)] {
        let network = Network::multikey();
        let (service, near) = mediator(network, |setup| {
            setup.set("mediator.relay.total_bytes", json!(TOTAL))
        });
        let evil: Vec<_> = (0..destinations)
            .map(|_| FakeMediator::start(|_, _| (503, None)))
            .collect();
        let good = FakeMediator::start(|_, _| (202, None));
        let named: Vec<_> = evil.iter().chain([&good]).collect();
        for fake in named {
            let package = json!({"mediators": [fake.endpoint.did]});
            let account = network.enrolled("named", 0, package);
            service.refresh(&account.did).expect("the package");
        }
        let junk = PeerClient::new();
        let flood = flood_from(&near, addresses, |n, len| {
            let to = &evil[n % destinations].endpoint;
            let letter = junk.envelope(&"j".repeat(len));
            near.forward(&to.did, &to.forward(&junk.did, &letter))
        });
        let mut honest = Outcome::default();
        for n in 0..5 {
            let letter = good.endpoint.forward(&junk.did, &junk.envelope("honest"));
            let letter = near.forward(&good.endpoint.did, &letter);
            let one = post_from(&near, &format!("198.51.100.{n}"), [letter]);
            honest.taken += one.taken;
            honest.refused += one.refused;
            honest.longest = honest.longest.max(one.longest);
        }
        print_harm(
            "filling the outbox",
            &format!("{addresses} addresses, {destinations} mediators, {flood}"),
            &format!("of five letters for another mediator: {honest}"),
        );
        assert_eq!((honest.taken, honest.refused), (5, 0));
        assert!(flood.refused > 0, "{flood}");
        eventually("the honest letters are delivered", || {
            (good.received().len() == 5).then_some(())
        });
    }
}

/// One request, many rows: it costs what it causes, and causes no more than a bound.
#[test]
fn inv7_a_forward_is_charged_by_what_it_causes() {
    let (_service, endpoint) = mediator(Network::multikey(), |setup| {
        open(setup).set("mediator.address_rate", json!(64))
    });
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let many = |count: usize| {
        let packed: Vec<_> = (0..count).map(|n| bob.envelope(&n.to_string())).collect();
        let mut forward = super::super::forward(&bob.did, &packed[0]);
        for envelope in &packed[1..] {
            let one = super::super::forward(&bob.did, envelope);
            forward.attachments.extend(one.attachments);
        }
        forward
    };
    let headers = |n: u8| format!("203.0.113.{n}");
    // Four requests of sixteen messages are sixty-four.
    let mut taken = 0;
    for _ in 0..6 {
        let envelope = endpoint.seal(&many(16));
        taken += post_from(&endpoint, &headers(1), [envelope]).taken;
    }
    assert_eq!(taken, 4);
    // Forwards within a forward to the mediator itself: more than sixty-four messages are refused.
    let inner: Vec<_> = (0..16).map(|_| endpoint.seal(&many(5))).collect();
    let mut outer = super::super::forward(&endpoint.did, &inner[0]);
    for envelope in &inner[1..] {
        let one = super::super::forward(&endpoint.did, envelope);
        outer.attachments.extend(one.attachments);
    }
    let address = headers(2);
    let request = |envelope| {
        let from = [("x-forwarded-for", address.as_str())];
        request("POST", &endpoint.url(), &from, Some(envelope))
    };
    let answer = request(endpoint.seal(&outer));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("more than 64"), "{}", answer.text());
    assert_eq!(bob.empty(&endpoint).len(), 64);
    print_harm(
        "messages in few requests",
        "one address, 6 requests of 16 messages, and one of 80",
        "64 stored of an allowance of 64",
    );
}

/// Many addresses fill what senders without an account may use of a queue.
#[test]
fn inv7_an_account_finds_room_in_a_queue_that_addresses_have_filled() {
    const ADDRESSES: usize = 30;
    let network = Network::multikey();
    let (service, endpoint) = mediator(network, |setup| {
        setup.set("mediator.queue_messages", json!(40))
    });
    let [alice, bob] = ["alice", "bob"].map(|name| {
        let peer = PeerClient::new();
        let package = json!({"did": peer.did, "mediators": [endpoint.did]});
        let account = network.enrolled(name, 0, package);
        service.refresh(&account.did).expect("the package");
        assert!(peer.request(&endpoint, Some(&account.did)));
        peer
    });
    let mut flood = Outcome::default();
    for n in 0..ADDRESSES + 5 {
        let one = post_from(
            &endpoint,
            &format!("203.0.113.{n}"),
            junk(&endpoint, &bob, 1, 10),
        );
        flood.taken += one.taken;
        flood.refused += one.refused;
        flood.bytes += one.bytes;
    }
    assert_eq!((flood.taken, flood.refused), (ADDRESSES, 5));
    let letter = |words: &str| super::super::forward(&bob.did, &bob.envelope(words));
    let unknown = PeerClient::new();
    let others = post_from(
        &endpoint,
        "198.51.100.1",
        [
            endpoint.seal(&letter("anonymous")),
            unknown.seal(&endpoint, letter("of no account")),
        ],
    );
    let account = post_from(
        &endpoint,
        "198.51.100.1",
        [alice.seal(&endpoint, letter("of an account"))],
    );
    print_harm(
        "many addresses fill a queue of 40",
        &format!("{ADDRESSES} addresses, {flood}"),
        &format!("of two letters without an account: {others}; of one with: {account}"),
    );
    assert_eq!((others.taken, account.taken), (0, 1));
    assert_eq!(bob.collect(&endpoint, ADDRESSES + 1).len(), ADDRESSES + 1);
}

/// A did:peer that many accounts elsewhere claim: one message becomes many copies.
#[test]
fn inv7_copies_for_other_mediators_are_bounded_and_charged() {
    const CLAIMANTS: usize = 5;
    let network = Network::multikey();
    let (service, endpoint) = mediator(network, |setup| {
        setup.set("mediator.address_rate", json!(40))
    });
    let peer = PeerClient::new();
    let taking: Vec<_> = (0..CLAIMANTS)
        .map(|_| {
            let fake = FakeMediator::start(|_, _| (202, None));
            let package = json!({"did": peer.did, "mediators": [fake.endpoint.did]});
            let account = network.enrolled("claims", 0, package);
            service.refresh(&account.did).expect("the package");
            fake
        })
        .collect();
    let many = |count: usize| {
        let mut forward = super::super::forward(&peer.did, &peer.envelope("0"));
        for n in 1..count {
            let one = super::super::forward(&peer.did, &peer.envelope(&n.to_string()));
            forward.attachments.extend(one.attachments);
        }
        endpoint.seal(&forward)
    };
    let post = |address: &str, envelope: Vec<u8>| {
        let headers = [("x-forwarded-for", address)];
        request("POST", &endpoint.url(), &headers, Some(envelope))
    };
    let refused = post("203.0.113.1", many(13));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(
        refused.text().contains("more than 64"),
        "{}",
        refused.text()
    );
    // Eight at a time, forty copies: the whole allowance of an address, once.
    let statuses = [(); 2].map(|()| post("203.0.113.2", many(8)).status);
    assert_eq!(statuses, [202, 429]);
    eventually("the copies are delivered", || {
        let copies: usize = taking.iter().map(|fake| fake.received().len()).sum();
        (copies == 40).then_some(())
    });
    print_harm(
        "a did:peer that five accounts claim",
        "one address, 2 requests of 8 messages, and one of 13",
        "40 copies of an allowance of 40",
    );
}
