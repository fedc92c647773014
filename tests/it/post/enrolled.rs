//! Admission by what accounts publish on a real network.

use std::time::Duration;

use atcomm_proto::didcomm::protocol::coordination::Outcome;
use serde_json::{Value, json};

use super::unlisted::Fake;
use super::{MediatorEndpoint, Peer, id, mediator, pickup};
use crate::http::{eventually, throughout};
use crate::network::{Account, Network, in_both_shapes};
use crate::service::{Service, Setup};

/// Returns a package of `peer` that names the mediator.
fn naming(peer: &Peer, home: &MediatorEndpoint) -> Value {
    json!({"did": peer.did, "mediators": [home.did]})
}

/// Starts a mediator that follows both PDSes and reports unknown recipients.
fn telling(network: &Network) -> (Service, MediatorEndpoint) {
    let (service, home) = mediator(network, |setup| {
        setup
            .pds(network, 0)
            .pds(network, 1)
            .streams_only()
            .set("mediator.report_unknown", json!(true))
    });
    service.until_following(2);
    (service, home)
}

/// Returns whether the mediator keeps a forward to `peer` now, by its report.
#[track_caller]
fn is_kept(home: &MediatorEndpoint, peer: &Peer, words: &str) -> bool {
    let unknown = Peer::new();
    let forward = super::forward(&peer.did, &peer.letter(words));
    let wants_answer = forward.return_route(super::ReturnRoute::All);
    let answer = home.post(&unknown.seal(home, wants_answer));
    match answer.status {
        202 => true,
        200 => {
            let report = unknown.open(home, &answer.body);
            let report = report.body_of::<super::Report>().expect("a report");
            assert_eq!(report.code, "e.p.req.not_enroll");
            false
        }
        _ => panic!("{}", answer.text()),
    }
}

/// Waits until mail is kept, or is not, and removes the messages that were kept while waiting.
#[track_caller]
fn until_kept(home: &MediatorEndpoint, peer: &Peer, wanted: bool) {
    eventually(&format!("mail is kept: {wanted}"), || {
        (is_kept(home, peer, "is anybody there") == wanted).then_some(())
    });
}

/// Returns the queued words, without the probes.
#[track_caller]
fn words(home: &MediatorEndpoint, peer: &Peer) -> Vec<String> {
    let letters = peer.empty(home);
    let words = letters.iter().map(|letter| peer.words(letter));
    words.filter(|words| words != "is anybody there").collect()
}

/// Returns whether a mediator lets a peer read its queue.
fn may_read(home: &MediatorEndpoint, peer: &Peer) -> bool {
    let ask = pickup::Request::Status {
        recipient_did: None,
    };
    let answer = peer.ask(home, ask.write(pickup::Version::V3, id()));
    answer.kind.ends_with("/status")
}

in_both_shapes! {
    fn a_key_package_opens_a_queue_and_dropping_the_mediator_closes_it(network) {
        let (service, home) = telling(network);
        let bob = Peer::new();
        let account = network.account("bob", 0);
        account.put(naming(&bob, &home));
        service.refresh(&account.did).expect("the package");
        assert!(bob.request(&home, Some(&account.did)));
        assert!([Outcome::Success, Outcome::NoChange].contains(&bob.add(&home, &bob.did)));
        home.take(&home.forward(&bob.did, &bob.letter("from an unknown sender")));
        assert_eq!(words(&home, &bob), ["from an unknown sender"]);
        assert!(is_kept(&home, &bob, "before the end"));
        // The record names another mediator: new mail goes there, and queued mail can be read.
        let elsewhere = Fake::start(|_, _| (202, None));
        account.put(json!({"did": bob.did, "mediators": [elsewhere.endpoint.did]}));
        eventually("mail goes elsewhere", || {
            is_kept(&home, &bob, "is anybody there");
            elsewhere.received().pop()
        });
        // The other mediator cannot be relayed to, so the recipient is unknown.
        account.put(json!({"did": bob.did, "mediators": ["did:example:elsewhere"]}));
        until_kept(&home, &bob, false);
        assert!(!is_kept(&home, &bob, "too late"));
        assert_eq!(words(&home, &bob), ["before the end"]);
        assert!(may_read(&home, &bob));
        // The mediator is named again, and then the record is removed.
        account.put(naming(&bob, &home));
        until_kept(&home, &bob, true);
        account.delete_record();
        until_kept(&home, &bob, false);
        assert!(may_read(&home, &bob));
    }
}

#[test]
fn a_replaced_key_still_takes_mail_and_so_does_the_new_one() {
    let network = Network::multikey();
    let (_service, home) = telling(network);
    let [old, new] = [(); 2].map(|()| Peer::new());
    let account = network.enrolled("bob", 1, naming(&old, &home));
    until_kept(&home, &old, true);
    account.put(naming(&new, &home));
    until_kept(&home, &new, true);
    for peer in [&old, &new] {
        assert!(is_kept(&home, peer, "to either"));
        // Each did:peer has its own account.
        assert!(peer.request(&home, Some(&account.did)));
        assert_eq!(words(&home, peer), ["to either"]);
    }
    assert_eq!(new.add(&home, &old.did), Outcome::ClientError);
}

#[test]
fn mail_is_held_while_an_account_is_away() {
    let network = Network::multikey();
    let (service, home) = telling(network);
    let [bob, carol] = [(); 2].map(|()| Peer::new());
    let away = network.enrolled("bob", 0, naming(&bob, &home));
    let gone = network.enrolled("carol", 1, naming(&carol, &home));
    for (account, peer) in [(&away, &bob), (&gone, &carol)] {
        until_kept(&home, peer, true);
        assert!(peer.request(&home, None));
        words(&home, peer);
        let _: &Account = account;
    }
    away.op("account.deactivate", json!({}));
    gone.op("account.takedown", json!({}));
    service.until_refused(&away.did, "AccountInactive");
    service.until_refused(&gone.did, "AccountInactive");
    throughout(Duration::from_millis(1500), "mail is held", || {
        is_kept(&home, &bob, "is anybody there") && is_kept(&home, &carol, "is anybody there")
    });
    for peer in [&bob, &carol] {
        assert!(is_kept(&home, peer, "while away"));
        assert_eq!(words(&home, peer), ["while away"]);
    }
    away.op("account.activate", json!({}));
    service.until(&away.did, "the package", |_| true);
    assert!(is_kept(&home, &bob, "back again"));
    assert_eq!(words(&home, &bob), ["back again"]);
}

#[test]
fn mail_that_came_before_its_owner_ever_did_is_there() {
    let network = Network::multikey();
    let (service, home) = telling(network);
    let bob = Peer::new();
    network.enrolled("bob", 0, naming(&bob, &home));
    until_kept(&home, &bob, true);
    assert!(is_kept(&home, &bob, "early"));
    // The same holds after a restart.
    let service = service.kill().start();
    assert!(!may_read(&home, &bob));
    assert!(bob.request(&home, None));
    assert_eq!(words(&home, &bob), ["early"]);
    drop(service);
}

#[test]
fn a_grant_before_the_record_takes_no_mail_until_the_record_is_there() {
    let network = Network::multikey();
    let (service, home) = telling(network);
    let bob = Peer::new();
    let account = network.account("bob", 0);
    assert!(bob.request(&home, Some(&account.did)));
    bob.add(&home, &bob.did);
    assert!(may_read(&home, &bob));
    assert!(!is_kept(&home, &bob, "too early"));
    account.put(naming(&bob, &home));
    until_kept(&home, &bob, true);
    assert!(is_kept(&home, &bob, "in time"));
    assert_eq!(words(&home, &bob), ["in time"]);
    // One address gets ten provisional grants and no more.
    let granted = (0..30).filter(|_| Peer::new().request(&home, None)).count();
    assert!(
        (9..=10).contains(&granted),
        "{granted} grants without a record"
    );
    // An account with a record does not need such a grant.
    let carol = Peer::new();
    let account = network.enrolled("carol", 1, naming(&carol, &home));
    assert!(carol.request(&home, Some(&account.did)));
    let outcome = [("outcome", "denied")];
    assert!(service.metric("atcomm_mediator_messages_total", &outcome) >= 20.0);
}

#[test]
fn publishing_somebody_elses_did_gains_nothing_and_takes_nothing_away() {
    let network = Network::multikey();
    let (service, home) = telling(network);
    let [bob, carol] = [(); 2].map(|()| Peer::new());
    let owner = network.enrolled("bob", 0, naming(&bob, &home));
    until_kept(&home, &bob, true);
    assert!(bob.request(&home, Some(&owner.did)));
    words(&home, &bob);
    let thief = network.enrolled("carol", 1, naming(&bob, &home));
    service.refresh(&thief.did).expect("the package");
    assert!(is_kept(&home, &bob, "for bob"));
    // Her own DID stands in no package, so a grant to her accepts no mail, admits no other DID and
    // reads none of his mail.
    carol.request(&home, Some(&thief.did));
    assert!(!is_kept(&home, &carol, "for carol"));
    if may_read(&home, &carol) {
        assert_eq!(carol.add(&home, &bob.did), Outcome::ClientError);
        assert_eq!(words(&home, &carol), [""; 0]);
        let ask = pickup::Request::Delivery {
            limit: 10,
            recipient_did: Some(bob.did.clone()),
        };
        let answer = carol.ask(&home, ask.write(pickup::Version::V3, id()));
        assert!(answer.kind.ends_with("/problem-report"), "{}", answer.kind);
    }
    assert_eq!(words(&home, &bob), ["for bob"]);
    // Her removal of the record, or of her account, changes nothing for him.
    thief.delete_record();
    service.until_refused(&thief.did, "NotEnrolled");
    throughout(Duration::from_millis(1500), "bob's mail is kept", || {
        is_kept(&home, &bob, "is anybody there")
    });
    assert!(may_read(&home, &bob));
    // He keeps his mail while only her record remains.
    thief.put(naming(&bob, &home));
    service.until(&thief.did, "the package", |_| true);
    owner.delete_record();
    service.until_refused(&owner.did, "NotEnrolled");
    assert!(may_read(&home, &bob));
}

#[test]
fn accounts_of_other_hosts_and_denied_ones_are_admitted_by_name_only() {
    let network = Network::multikey();
    let [near, far, denied] = [(); 3].map(|()| Peer::new());
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
    let (service, home) = mediator(network, local);
    let near_account = network.enrolled("near", 0, naming(&near, &home));
    far_account.put(naming(&far, &home));
    denied_account.put(naming(&denied, &home));
    for account in [&near_account, &far_account, &denied_account] {
        service.refresh(&account.did).expect("the package");
    }
    until_kept(&home, &near, true);
    assert!(!is_kept(&home, &far, "from elsewhere"));
    assert!(!is_kept(&home, &denied, "denied"));
    assert!(near.request(&home, Some(&near_account.did)));
    // With the same mailbox one account is allowed and the other is no longer denied.
    let port = home.port;
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
    assert!(is_kept(&home, &far, "from elsewhere"));
    assert!(is_kept(&home, &denied, "not denied"));
    assert!(!is_kept(&home, &near, "denied now"));
    assert!(!may_read(&home, &near));
    for (peer, account, word) in [
        (&far, &far_account, "from elsewhere"),
        (&denied, &denied_account, "not denied"),
    ] {
        assert!(peer.request(&home, Some(&account.did)));
        assert_eq!(words(&home, peer), [word]);
    }
    drop(service);
}
