//! Identities of accounts: handles in both directions, keys and their rotation, DIDs of both
//! methods.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::throughout;
use crate::network::{Network, in_both_shapes};
use crate::service::{Service, Setup};

fn following(network: &Network) -> Service {
    let service = Setup::beside(network).streams_only().start();
    service.until_following(2);
    service
}

/// Waits until the account is shown under this handle.
#[track_caller]
fn until_handle(service: &Service, did: &str, handle: &str) -> Value {
    service.until(did, &format!("the handle {handle}"), |view| {
        view["handle"] == handle
    })
}

in_both_shapes! {
    fn a_renamed_account_is_found_under_its_new_handle_only(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 0, json!({}));
        until_handle(&service, &alice.did, &alice.handle);
        assert_eq!(service.recipient(&alice.handle).expect("the package")["did"], *alice.did);
        let new = format!("{}.example-domain.test", alice.name);
        alice.op("account.rename", json!({"handle": new}));
        until_handle(&service, &alice.did, &new);
        assert_eq!(service.recipient(&new).expect("the package")["did"], *alice.did);
        service.until_refused(&alice.handle, "HandleNotFound");
    }

    fn a_handle_that_does_not_lead_back_is_not_shown(network) {
        let service = following(network);
        let [alice, bob] = ["alice", "bob"].map(|name| network.enrolled(name, 0, json!({})));
        until_handle(&service, &alice.did, &alice.handle);
        until_handle(&service, &bob.did, &bob.handle);
        // Bob's document claims the handle of Alice.
        let claim = |handle: &str| json!({"set": {"alsoKnownAs": [format!("at://{handle}")]}});
        bob.op("plc.update", claim(&alice.handle));
        until_handle(&service, &bob.did, "handle.invalid");
        assert_eq!(service.recipient(&alice.handle).expect("the package")["did"], *alice.did);
        bob.op("plc.update", claim(&bob.handle));
        until_handle(&service, &bob.did, &bob.handle);
    }

    fn what_the_name_server_says_decides_about_a_handle(network) {
        let service = following(network);
        let [alice, bob] = ["alice", "bob"].map(|name| network.enrolled(name, 0, json!({})));
        until_handle(&service, &alice.did, &alice.handle);
        let name = format!("_atproto.{}", alice.handle);
        let told = |txt: Value| {
            network.op("dns.set", json!({"name": name, "txt": txt}));
            alice.op("events.identity", json!({}));
        };
        let (to_alice, to_bob) = (format!("did={}", alice.did), format!("did={}", bob.did));
        // The record names another account, which does not claim the handle.
        told(json!([to_bob]));
        until_handle(&service, &alice.did, "handle.invalid");
        told(Value::Null);
        until_handle(&service, &alice.did, &alice.handle);
        // The records name two accounts.
        told(json!([to_alice, to_bob]));
        until_handle(&service, &alice.did, "handle.invalid");
        let refusal = service.until_refused(&alice.handle, "HandleNotFound");
        assert!(refusal.message.contains("several"), "{}", refusal.message);
        // Unrelated records may stand beside the one.
        told(json!(["v=spf1 -all", to_alice, to_alice]));
        until_handle(&service, &alice.did, &alice.handle);
        told(Value::Null);
    }

    fn inv4_after_a_rotation_the_new_key_proves_the_package(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 0, json!({}));
        let before = service.until(&alice.did, "the package", |_| true);
        let rotated = alice.op("account.rotate", json!({}));
        assert_ne!(rotated["signingKey"], before["verification"]["signingKey"]);
        let view = service.until(&alice.did, "the new key", |view| {
            view["verification"]["signingKey"] == rotated["signingKey"]
        });
        assert_eq!(view["keyPackage"]["cid"], before["keyPackage"]["cid"]);
        assert_eq!(view["verification"].get("beforeMove"), None);
        let put = alice.put(json!({"label": "under the new key"}));
        let view = service.until_cid(&alice.did, &put["cid"]);
        assert_eq!(view["verification"]["signingKey"], rotated["signingKey"]);
        assert_eq!(view["status"], "active");
    }

    fn inv1_what_a_replaced_key_signed_is_not_shown_as_verified(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 0, json!({}));
        service.until(&alice.did, "the package", |_| true);
        // The DID directory has the new key, while the PDS signs with the previous one.
        alice.op("account.rotate", json!({"mode": "plc-only"}));
        let refusal = service.until_refused(&alice.did, "UpstreamFailure");
        assert!(refusal.message.contains("signature"), "{}", refusal.message);
        alice.put(json!({"label": "signed by nobody's key"}));
        service.until_counted("atcomm_ingest_drops_total", &[("reason", "proof_signature")], 1.0);
        throughout(Duration::from_millis(500), "it is not shown", || {
            service.recipient(&alice.did).is_err()
        });
        assert!(service.recipient_with_proof(&alice.did).is_err());
        // The PDS uses the new key.
        alice.op("account.rotate", json!({}));
        let put = alice.put(json!({"label": "signed by the new key"}));
        service.until_cid(&alice.did, &put["cid"]);
    }

    fn inv1_a_key_that_only_the_pds_knows_proves_nothing(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 0, json!({}));
        let cid = service.until(&alice.did, "the package", |_| true)["keyPackage"]["cid"].clone();
        alice.op("account.rotate", json!({"mode": "pds-only"}));
        alice.put(json!({"label": "unproven"}));
        service.until_counted("atcomm_ingest_drops_total", &[("reason", "proof_signature")], 1.0);
        // The package proven under the directory's key stays.
        throughout(Duration::from_millis(500), "the proven package", || {
            service.recipient(&alice.did).is_ok_and(|view| view["keyPackage"]["cid"] == cid)
        });
        alice.op("account.rotate", json!({}));
        let put = alice.put(json!({"label": "proven"}));
        service.until_cid(&alice.did, &put["cid"]);
    }

    fn an_account_with_a_did_web_is_served_like_any_other(network) {
        let service = following(network);
        let dave = network.web_account("dave", 0, json!({"label": "web"}));
        assert!(dave.did.starts_with("did:web:"));
        let view = until_handle(&service, &dave.did, &dave.handle);
        assert_eq!(view["keyPackage"]["value"], dave.made["keyPackage"]);
        assert_eq!(service.recipient(&dave.handle).expect("the package")["did"], *dave.did);
        let put = dave.put(json!({"label": "second"}));
        service.until_cid(&dave.did, &put["cid"]);
        let rotated = dave.op("account.rotate", json!({}));
        service.until(&dave.did, "the new key", |view| {
            view["verification"]["signingKey"] == rotated["signingKey"]
        });
        dave.op("account.deactivate", json!({}));
        service.until_refused(&dave.did, "AccountInactive");
        dave.op("account.activate", json!({}));
        service.until_cid(&dave.did, &put["cid"]);
        dave.op("account.delete", json!({"tombstone": true}));
        service.until_refused(&dave.did, "AccountInactive");
    }
}
