//! Accounts that publish the did:peer of another account as their own.

use std::time::Duration;

use atcomm_proto::didcomm::protocol::coordination::Action;
use serde_json::{Value, json};

use super::super::unlisted::FakeMediator;
use super::super::{MediatorEndpoint, PeerClient, mediator};
use super::print_harm;
use crate::network::{Account, Network};
use crate::service::Service;

/// Returns a package of `peer` that names mediators.
fn package(peer: &PeerClient, mediators: &[&str]) -> Value {
    json!({"did": peer.did, "mediators": mediators})
}

/// Has a service look at an account, and its mediator follow what was found.
#[track_caller]
fn notice(service: &Service, endpoint: &MediatorEndpoint, account: &Account) {
    service.refresh(&account.did).expect("the package");
    PeerClient::new().request(endpoint, Some(&account.did));
}

/// Returns how many of `count` messages come to a fake mediator within some seconds.
fn received(fake: &FakeMediator, count: usize) -> usize {
    for _ in 0..150 {
        if fake.received().len() >= count {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    fake.received().len()
}

/// The owner has moved to another mediator with the same key.
fn claim_at_the_mediator_before(unregisters: bool) {
    let network = Network::multikey();
    let (before_service, before) = mediator(network, |setup| setup);
    let home = FakeMediator::start(|_, _| (202, None));
    let alice = PeerClient::new();
    let owner = network.enrolled("alice", 0, package(&alice, &[&before.did]));
    notice(&before_service, &before, &owner);
    assert!(alice.request(&before, Some(&owner.did)));
    if unregisters {
        alice.add(&before, &alice.did);
        alice.update(&before, Action::Remove, &alice.did);
    }
    owner.put(package(&alice, &[&home.endpoint.did]));
    notice(&before_service, &before, &owner);
    let mallory = network.enrolled("mallory", 1, package(&alice, &[&before.did]));
    notice(&before_service, &before, &mallory);
    for n in 0..3 {
        let envelope = alice.envelope(&format!("letter {n}"));
        before.take(&before.forward(&alice.did, &envelope));
    }
    let come = received(&home, 3);
    print_harm(
        "claiming a did:peer at the mediator that its owner has left",
        "1 account, 1 record; 3 forwards by an honest sender",
        &format!("{come} of 3 come to the owner"),
    );
    assert_eq!(come, 3);
}

#[test]
fn inv3_a_claim_at_the_mediator_before_keeps_no_mail_from_an_owner_who_unregistered() {
    claim_at_the_mediator_before(true);
}

#[test]
fn inv3_a_claim_at_the_mediator_before_keeps_no_mail_from_an_owner_who_moved() {
    claim_at_the_mediator_before(false);
}

#[test]
fn a_claimants_mediator_that_takes_nothing_refuses_no_mail_to_the_owner() {
    let network = Network::multikey();
    let (near_service, near) = mediator(network, |setup| {
        setup.set("mediator.relay.destination_messages", json!(1))
    });
    let home = FakeMediator::start(|_, _| (202, None));
    // The claimant's mediator is always down.
    let hole = FakeMediator::start(|_, _| (503, None));
    let alice = PeerClient::new();
    for (name, fake) in [("alice", &home), ("mallory", &hole)] {
        let named = package(&alice, &[&fake.endpoint.did]);
        let account = network.enrolled(name, 0, named);
        notice(&near_service, &near, &account);
    }
    let mut refused = Vec::new();
    for n in 0..4 {
        let envelope = alice.envelope(&format!("letter {n}"));
        let answer = near.post(&near.forward(&alice.did, &envelope));
        if answer.status != 202 {
            refused.push(answer.status);
        }
        received(&home, n + 1);
    }
    let come = home.received().len();
    print_harm(
        "claiming a did:peer for a mediator that is down",
        "1 account, 1 record; 4 forwards by an honest sender",
        &format!("{come} of 4 come to the owner; the sender is told {refused:?}"),
    );
    assert_eq!((refused.len(), come), (0, 4));
    // A forward of which no copy was taken is refused.
    let carol = PeerClient::new();
    let account = network.enrolled("carol", 0, package(&carol, &[&hole.endpoint.did]));
    notice(&near_service, &near, &account);
    let forward = near.forward(&carol.did, &carol.envelope("nowhere"));
    assert_eq!(near.refuse(&forward, 503), "RelayFull");
}

/// Sixteen accounts claim the did:peer before its owner changes the label or comes at all.
#[test]
fn inv3_no_number_of_other_claimants_hides_the_owner() {
    const SQUATTERS: usize = 16;
    let network = Network::multikey();
    let (service, near) = mediator(network, |setup| setup);
    let squatters: Vec<Account> = (0..SQUATTERS)
        .map(|_| network.account("squatter", 1))
        .collect();
    let squat = |peer: &PeerClient, mediator: &dyn Fn(usize) -> String| {
        for (n, account) in squatters.iter().enumerate() {
            account.put(package(peer, &[&mediator(n)]));
            service.refresh(&account.did).expect("the package");
        }
    };
    let home = FakeMediator::start(|_, _| (202, None));
    // The owner was first, and then changes the label.
    let alice = PeerClient::new();
    let mut named = package(&alice, &[&home.endpoint.did]);
    let owner = network.enrolled("alice", 0, named.clone());
    service.refresh(&owner.did).expect("the package");
    squat(&alice, &|n| format!("did:web:m.squat{n}.example"));
    named["label"] = json!("new phone");
    owner.put(named);
    service.refresh(&owner.did).expect("the package");
    near.take(&near.forward(&alice.did, &alice.envelope("relabelled")));
    let first = received(&home, 1);
    // This one comes last, and all others are at mediators of one domain.
    let carol = PeerClient::new();
    squat(&carol, &|n| format!("did:web:m{n}.squat.example"));
    let owner = network.enrolled("carol", 0, package(&carol, &[&home.endpoint.did]));
    service.refresh(&owner.did).expect("the package");
    near.take(&near.forward(&carol.did, &carol.envelope("last of all")));
    let second = received(&home, first + 1) - first;
    print_harm(
        "sixteen accounts claim a did:peer",
        &format!("{SQUATTERS} accounts, 2 records each; 2 forwards by an honest sender"),
        &format!(
            "{first} of 1 comes to an owner with a new label, {second} of 1 to one who came last"
        ),
    );
    assert_eq!((first, second), (1, 1));
}
