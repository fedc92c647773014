//! Admission by what accounts publish on a real network.

use std::time::Duration;

use atcomm_proto::didcomm::protocol::coordination::Outcome;
use serde_json::{Value, json};

use super::unlisted::FakeMediator;
use super::{MediatorEndpoint, PeerClient, id, mediator, pickup};
use crate::http::{eventually, throughout};
use crate::network::{Account, Network, in_both_shapes};
use crate::service::{Service, Setup};

/// Returns a package of `peer` that names the mediator.
fn package_naming(peer: &PeerClient, endpoint: &MediatorEndpoint) -> Value {
    json!({"did": peer.did, "mediators": [endpoint.did]})
}

/// Starts a mediator that follows both PDSes and reports unknown recipients.
fn reporting_mediator(network: &Network) -> (Service, MediatorEndpoint) {
    let (service, endpoint) = mediator(network, |setup| {
        setup
            .pds(network, 0)
            .pds(network, 1)
            .streams_only()
            .set("mediator.report_unknown", json!(true))
    });
    service.until_following(2);
    (service, endpoint)
}

/// Returns whether the mediator now accepts a forward to `peer`, judged by its report.
#[track_caller]
fn is_accepted(endpoint: &MediatorEndpoint, peer: &PeerClient, words: &str) -> bool {
    let unknown = PeerClient::new();
    let forward = super::forward(&peer.did, &peer.envelope(words));
    let wants_answer = forward.return_route(super::ReturnRoute::All);
    let answer = endpoint.post(&unknown.seal(endpoint, wants_answer));
    match answer.status {
        202 => true,
        200 => {
            let report = unknown.open(endpoint, &answer.body);
            let report = report.body_of::<super::Report>().expect("a report");
            assert_eq!(report.code, "e.p.req.not_enroll");
            false
        }
        _ => panic!("{}", answer.text()),
    }
}

/// Waits until mail is accepted, or is refused, and removes the messages that were accepted while
/// waiting.
#[track_caller]
fn until_accepted(endpoint: &MediatorEndpoint, peer: &PeerClient, wanted: bool) {
    eventually(&format!("mail is kept: {wanted}"), || {
        (is_accepted(endpoint, peer, "is anybody there") == wanted).then_some(())
    });
}

/// Returns the queued words, without the probes.
#[track_caller]
fn words(endpoint: &MediatorEndpoint, peer: &PeerClient) -> Vec<String> {
    let envelopes = peer.empty(endpoint);
    let words = envelopes.iter().map(|envelope| peer.words(envelope));
    words.filter(|words| words != "is anybody there").collect()
}

/// Returns whether a mediator lets a peer read its queue.
fn may_read(endpoint: &MediatorEndpoint, peer: &PeerClient) -> bool {
    let ask = pickup::Request::Status {
        recipient_did: None,
    };
    let answer = peer.ask(endpoint, ask.write(pickup::Version::V3, id()));
    answer.kind.ends_with("/status")
}

in_both_shapes! {
    fn a_key_package_opens_a_queue_and_dropping_the_mediator_closes_it(network) {
        let (service, endpoint) = reporting_mediator(network);
        let bob = PeerClient::new();
        let account = network.account("bob", 0);
        account.put(package_naming(&bob, &endpoint));
        service.refresh(&account.did).expect("the package");
        assert!(bob.request(&endpoint, Some(&account.did)));
        assert!([Outcome::Success, Outcome::NoChange].contains(&bob.add(&endpoint, &bob.did)));
        endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("from an unknown sender")));
        assert_eq!(words(&endpoint, &bob), ["from an unknown sender"]);
        assert!(is_accepted(&endpoint, &bob, "before the end"));
        // The record names another mediator: new mail goes there, and queued mail can be read.
        let elsewhere = FakeMediator::start(|_, _| (202, None));
        account.put(json!({"did": bob.did, "mediators": [elsewhere.endpoint.did]}));
        eventually("mail goes elsewhere", || {
            is_accepted(&endpoint, &bob, "is anybody there");
            elsewhere.received().pop()
        });
        // The other mediator cannot be relayed to, so the recipient is unknown.
        account.put(json!({"did": bob.did, "mediators": ["did:example:elsewhere"]}));
        until_accepted(&endpoint, &bob, false);
        assert!(!is_accepted(&endpoint, &bob, "too late"));
        assert_eq!(words(&endpoint, &bob), ["before the end"]);
        assert!(may_read(&endpoint, &bob));
        // The mediator is named again, and then the record is removed.
        account.put(package_naming(&bob, &endpoint));
        until_accepted(&endpoint, &bob, true);
        account.delete_record();
        until_accepted(&endpoint, &bob, false);
        assert!(may_read(&endpoint, &bob));
    }
}

#[test]
fn a_replaced_key_still_takes_mail_and_so_does_the_new_one() {
    let network = Network::multikey();
    let (_service, endpoint) = reporting_mediator(network);
    let [old, new] = [(); 2].map(|()| PeerClient::new());
    let account = network.enrolled("bob", 1, package_naming(&old, &endpoint));
    until_accepted(&endpoint, &old, true);
    account.put(package_naming(&new, &endpoint));
    until_accepted(&endpoint, &new, true);
    for peer in [&old, &new] {
        assert!(is_accepted(&endpoint, peer, "to either"));
        // Each did:peer has its own account.
        assert!(peer.request(&endpoint, Some(&account.did)));
        assert_eq!(words(&endpoint, peer), ["to either"]);
    }
    assert_eq!(new.add(&endpoint, &old.did), Outcome::ClientError);
}

#[test]
fn mail_is_held_while_an_account_is_away() {
    let network = Network::multikey();
    let (service, endpoint) = reporting_mediator(network);
    let [bob, carol] = [(); 2].map(|()| PeerClient::new());
    let away = network.enrolled("bob", 0, package_naming(&bob, &endpoint));
    let gone = network.enrolled("carol", 1, package_naming(&carol, &endpoint));
    for (account, peer) in [(&away, &bob), (&gone, &carol)] {
        until_accepted(&endpoint, peer, true);
        assert!(peer.request(&endpoint, None));
        words(&endpoint, peer);
        let _: &Account = account;
    }
    away.op("account.deactivate", json!({}));
    gone.op("account.takedown", json!({}));
    service.until_refused(&away.did, "AccountInactive");
    service.until_refused(&gone.did, "AccountInactive");
    throughout(Duration::from_millis(1500), "mail is held", || {
        is_accepted(&endpoint, &bob, "is anybody there")
            && is_accepted(&endpoint, &carol, "is anybody there")
    });
    for peer in [&bob, &carol] {
        assert!(is_accepted(&endpoint, peer, "while away"));
        assert_eq!(words(&endpoint, peer), ["while away"]);
    }
    away.op("account.activate", json!({}));
    service.until(&away.did, "the package", |_| true);
    assert!(is_accepted(&endpoint, &bob, "back again"));
    assert_eq!(words(&endpoint, &bob), ["back again"]);
}

#[test]
fn mail_that_came_before_its_owner_ever_did_is_there() {
    let network = Network::multikey();
    let (service, endpoint) = reporting_mediator(network);
    let bob = PeerClient::new();
    network.enrolled("bob", 0, package_naming(&bob, &endpoint));
    until_accepted(&endpoint, &bob, true);
    assert!(is_accepted(&endpoint, &bob, "early"));
    // The same holds after a restart.
    let service = service.kill().start();
    assert!(!may_read(&endpoint, &bob));
    assert!(bob.request(&endpoint, None));
    assert_eq!(words(&endpoint, &bob), ["early"]);
    drop(service);
}

#[test]
fn a_grant_before_the_record_takes_no_mail_until_the_record_is_there() {
    let network = Network::multikey();
    let (service, endpoint) = reporting_mediator(network);
    let bob = PeerClient::new();
    let account = network.account("bob", 0);
    assert!(bob.request(&endpoint, Some(&account.did)));
    bob.add(&endpoint, &bob.did);
    assert!(may_read(&endpoint, &bob));
    assert!(!is_accepted(&endpoint, &bob, "too early"));
    account.put(package_naming(&bob, &endpoint));
    until_accepted(&endpoint, &bob, true);
    assert!(is_accepted(&endpoint, &bob, "in time"));
    assert_eq!(words(&endpoint, &bob), ["in time"]);
    // One address gets ten provisional grants and no more.
    let granted = (0..30)
        .filter(|_| PeerClient::new().request(&endpoint, None))
        .count();
    assert!(
        (9..=10).contains(&granted),
        "{granted} grants without a record"
    );
    // An account with a record does not need such a grant.
    let carol = PeerClient::new();
    let account = network.enrolled("carol", 1, package_naming(&carol, &endpoint));
    assert!(carol.request(&endpoint, Some(&account.did)));
    let outcome = [("outcome", "denied")];
    assert!(service.metric("atcomm_mediator_messages_total", &outcome) >= 20.0);
}

#[test]
fn publishing_the_did_of_another_account_gains_nothing_and_takes_nothing_away() {
    let network = Network::multikey();
    let (service, endpoint) = reporting_mediator(network);
    let [bob, carol] = [(); 2].map(|()| PeerClient::new());
    let owner = network.enrolled("bob", 0, package_naming(&bob, &endpoint));
    until_accepted(&endpoint, &bob, true);
    assert!(bob.request(&endpoint, Some(&owner.did)));
    words(&endpoint, &bob);
    let thief = network.enrolled("carol", 1, package_naming(&bob, &endpoint));
    service.refresh(&thief.did).expect("the package");
    assert!(is_accepted(&endpoint, &bob, "for bob"));
    // The thief's own DID stands in no package, so a grant to it accepts no mail, admits no other
    // DID and reads none of the victim's mail.
    carol.request(&endpoint, Some(&thief.did));
    assert!(!is_accepted(&endpoint, &carol, "for carol"));
    if may_read(&endpoint, &carol) {
        assert_eq!(carol.add(&endpoint, &bob.did), Outcome::ClientError);
        assert_eq!(words(&endpoint, &carol), [""; 0]);
        let ask = pickup::Request::Delivery {
            limit: 10,
            recipient_did: Some(bob.did.clone()),
        };
        let answer = carol.ask(&endpoint, ask.write(pickup::Version::V3, id()));
        assert!(answer.kind.ends_with("/problem-report"), "{}", answer.kind);
    }
    assert_eq!(words(&endpoint, &bob), ["for bob"]);
    // When the thief removes the record or the account, nothing changes for the victim.
    thief.delete_record();
    service.until_refused(&thief.did, "NotEnrolled");
    throughout(Duration::from_millis(1500), "bob's mail is kept", || {
        is_accepted(&endpoint, &bob, "is anybody there")
    });
    assert!(may_read(&endpoint, &bob));
    // The victim's mail stays while only the thief's record remains.
    thief.put(package_naming(&bob, &endpoint));
    service.until(&thief.did, "the package", |_| true);
    owner.delete_record();
    service.until_refused(&owner.did, "NotEnrolled");
    assert!(may_read(&endpoint, &bob));
}

#[test]
fn accounts_of_other_hosts_and_denied_ones_are_admitted_by_name_only() {
    let network = Network::multikey();
    let [near, far, denied] = [(); 3].map(|()| PeerClient::new());
    let denied_account = network.account("denied", 0);
    let far_account = network.account("far", 1);
    let local = |setup: Setup| {
        setup
            .pds(network, 0)
            .streams_only()
            .set("mediator.admission", json!("local"))
            .set("mediator.report_unknown", json!(true))
            .set("mediator.deny", json!([denied_account.did]))
    };
    let (service, endpoint) = mediator(network, local);
    let near_account = network.enrolled("near", 0, package_naming(&near, &endpoint));
    far_account.put(package_naming(&far, &endpoint));
    denied_account.put(package_naming(&denied, &endpoint));
    for account in [&near_account, &far_account, &denied_account] {
        service.refresh(&account.did).expect("the package");
    }
    until_accepted(&endpoint, &near, true);
    assert!(!is_accepted(&endpoint, &far, "from elsewhere"));
    assert!(!is_accepted(&endpoint, &denied, "denied"));
    assert!(near.request(&endpoint, Some(&near_account.did)));
    // With the same mailbox one account is allowed and the other is no longer denied.
    let port = endpoint.port;
    let change = |setup: Setup| {
        local(setup)
            .set("mediator.allow", json!([far_account.did]))
            .set("mediator.deny", json!([near_account.did]))
            .set("http.listen", json!(format!("127.0.0.1:{port}")))
            .set(
                "mediator.public_url",
                json!(format!("http://localhost:{port}")),
            )
    };
    let service = service.stop().start_as(change(Setup::new(network)));
    assert!(is_accepted(&endpoint, &far, "from elsewhere"));
    assert!(is_accepted(&endpoint, &denied, "not denied"));
    assert!(!is_accepted(&endpoint, &near, "denied now"));
    assert!(!may_read(&endpoint, &near));
    for (peer, account, word) in [
        (&far, &far_account, "from elsewhere"),
        (&denied, &denied_account, "not denied"),
    ] {
        assert!(peer.request(&endpoint, Some(&account.did)));
        assert_eq!(words(&endpoint, peer), [word]);
    }
    drop(service);
}
