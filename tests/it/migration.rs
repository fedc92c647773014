//! Accounts that move from one PDS to another. No commit carries the package there; the repository
//! stays signed by the previous key until the account writes again.

use serde_json::{Value, json};

use crate::network::{Account, Pds, in_both_shapes};
use crate::service::{Service, Setup, car_of};

/// Moves the account and asserts that it is followed until it has written on its new PDS.
fn assert_followed(service: &Service, account: &Account, to: Pds) {
    let network = account.network;
    let before = service.until(&account.did, "the package", |_| true);
    account.op("account.migrate", json!({"to": to}));
    let moved = service.until(&account.did, "the package at the new PDS", |view| {
        view["pds"] == *network.pds_url(to)
    });
    assert_eq!(moved["keyPackage"]["cid"], before["keyPackage"]["cid"]);
    assert_eq!(moved["status"], "active");
    let verification = &moved["verification"];
    assert_eq!(
        verification["signingKey"],
        before["verification"]["signingKey"]
    );
    assert_eq!(verification["beforeMove"], true);
    let key = network.signing_key(&account.did).did_key();
    assert_ne!(verification["signingKey"], *key);
    // The proof holds under the key that the answer names.
    let car = car_of(
        &service
            .recipient_with_proof(&account.did)
            .expect("the package"),
    );
    let old = before["verification"]["signingKey"]
        .as_str()
        .expect("a key");
    let old = atcomm_proto::key::SigningKey::from_did_key(old).expect("a key");
    let now = atcomm_proto::clock::Clock::system().now();
    let container = atcomm_proto::proof::Container::GetRecord;
    atcomm_proto::proof::verify(&car, container, &account.did(), &old, now).expect("a proof");

    let put = account.put(json!({"label": "from the new home"}));
    let written = service.until_cid(&account.did, &put["cid"]);
    assert_eq!(written["verification"]["signingKey"], *key);
    assert_eq!(written["verification"].get("beforeMove"), None);
    assert_eq!(written["pds"], *network.pds_url(to));
}

in_both_shapes! {
    fn an_account_that_moves_between_followed_pdses_is_served_throughout(network) {
        let service = Setup::beside(network).streams_only().no_refresh_on_demand().start();
        service.until_following(2);
        let alice = network.enrolled("alice", 0, json!({}));
        assert_followed(&service, &alice, 1);
        // The account moves back: the old PDS still has the account.
        let bob = network.enrolled("bob", 1, json!({}));
        assert_followed(&service, &bob, 0);
    }

    fn an_account_that_moves_in_from_elsewhere_is_found(network) {
        let setup = Setup::new(network).pds(network, 0).streams_only();
        let service = setup.no_refresh_on_demand().start();
        service.until_following(1);
        let carol = network.enrolled("carol", 1, json!({}));
        service.until_refused(&carol.did, "Overloaded");
        carol.op("account.migrate", json!({"to": 0}));
        let view = service.until(&carol.did, "the package", |_| true);
        assert_eq!(view["keyPackage"]["value"], carol.made["keyPackage"]);
        assert_eq!(view["verification"]["beforeMove"], true);
        let put = carol.put(json!({}));
        let view = service.until_cid(&carol.did, &put["cid"]);
        assert_eq!(view["verification"].get("beforeMove"), None);
    }

    fn an_account_that_moves_out_is_served_from_where_it_went(network) {
        let service = Setup::new(network).pds(network, 0).streams_only().start();
        service.until_following(1);
        let erin = network.enrolled("erin", 0, json!({}));
        service.until(&erin.did, "the package", |_| true);
        erin.op("account.migrate", json!({"to": 1}));
        let view = service.until(&erin.did, "the package at the new PDS", |view| {
            view["pds"] == *network.pds_url(1)
        });
        assert_eq!(view["verification"]["beforeMove"], true);
        // No source reports writes on the new PDS; a refresh by a caller finds the write.
        let put = erin.put(json!({"label": "from elsewhere"}));
        let refreshed = service.refresh(&erin.did).expect("an outcome");
        assert_eq!(refreshed["recipient"]["keyPackage"]["cid"], put["cid"]);
        assert_eq!(refreshed["recipient"]["verification"].get("beforeMove"), None);
    }

    fn the_pds_that_an_account_left_cannot_speak_for_it(network) {
        let service = Setup::beside(network).streams_only().no_refresh_on_demand().start();
        service.until_following(2);
        let alice = network.enrolled("alice", 0, json!({}));
        service.until(&alice.did, "the package", |_| true);
        // The old PDS deletes its copy and reports the deletion in its stream.
        alice.op("account.migrate", json!({"to": 1, "deleteOld": true}));
        let put = alice.put(json!({"label": "after"}));
        service.until_cid(&alice.did, &put["cid"]);
        let later = network.enrolled("later", 0, json!({}));
        service.until(&later.did, "what comes behind it in the old stream", |_| true);
        let view = service.recipient(&alice.did).expect("the package");
        assert_eq!(view["keyPackage"]["cid"], put["cid"]);
    }
}

#[test]
fn a_did_web_account_moves_too() {
    let network = crate::network::Network::multikey();
    let service = Setup::beside(network)
        .streams_only()
        .no_refresh_on_demand()
        .start();
    service.until_following(2);
    let dave = network.web_account("dave", 0, json!({}));
    service.until(&dave.did, "the package", |_| true);
    dave.op("account.migrate", json!({"to": 1}));
    // A did:web has no log with the previous key: the package is shown again once the account has
    // written under its new key.
    let put: Value = dave.put(json!({"label": "moved"}));
    let view = service.until_cid(&dave.did, &put["cid"]);
    assert_eq!(view["pds"], *network.pds_url(1));
}
