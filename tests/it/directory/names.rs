//! Names: a key is shown under a name only while its owner claims the name and the name leads to
//! the owner.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::print_harm;
use crate::http::{eventually, throughout};
use crate::network::{Account, Network, in_both_shapes};
use crate::service::{Service, Setup};

/// Returns a service that follows both PDSes, and forgets soon what it was told of names.
fn following(network: &Network) -> Service {
    let service = Setup::beside(network)
        .streams_only()
        .set("identity.handle_ttl", json!("100ms"))
        .set("identity.handle_invalid_ttl", json!("100ms"))
        .set("resolve.negative_ttl", json!("100ms"))
        .start();
    service.until_following(2);
    service
}

#[track_caller]
fn until_handle(service: &Service, did: &str, handle: &str) -> Value {
    service.until(did, &format!("the handle {handle}"), |view| {
        view["handle"] == handle
    })
}

/// Writes the name that an account's DID document claims.
fn claim(account: &Account, handle: &str) {
    let set = json!({"set": {"alsoKnownAs": [format!("at://{handle}")]}});
    account.op("plc.update", set);
}

/// Makes the name server of a handle answer like this. `null` forgets it.
fn answer(network: &Network, handle: &str, answer: &Value) {
    for name in [format!("_atproto.{handle}"), handle.to_owned()] {
        let mut body = json!({"name": name, "txt": null});
        for (key, value) in answer.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        network.op("dns.set", body);
    }
}

/// Makes a name lead to an account.
fn lead(network: &Network, handle: &str, did: &str) {
    let name = format!("_atproto.{handle}");
    network.op(
        "dns.set",
        json!({"name": name, "txt": [format!("did={did}")]}),
    );
}

in_both_shapes! {
    /// Mallory owns a name for a while, and then claims one whose name server gives no answer, so
    /// that nothing can be said about her claim. The name that she had goes to another account.
    fn inv1_attack_a_name_given_up_for_one_that_cannot_be_checked(network) {
        let service = following(network);
        let mut harm = Vec::new();
        for (kind, no_answer) in [
            ("mute", json!({"drop": true})),
            ("SERVFAIL", json!({"rcode": 2})),
            ("REFUSED", json!({"rcode": 5})),
        ] {
            let mallory = network.enrolled("mallory", 0, json!({}));
            let old = mallory.handle.clone();
            until_handle(&service, &mallory.did, &old);
            assert_eq!(service.recipient(&old).expect("her package")["did"], *mallory.did);
            let new = format!("x.{}-mute.test", mallory.name);
            answer(network, &new, &no_answer);
            claim(&mallory, &new);
            let claimed = Instant::now();
            let shows_her = || service.recipient(&old).is_ok_and(|view| view["did"] == *mallory.did);
            eventually("the name shows no key", || (!shows_her()).then_some(()));
            harm.push(format!("{kind}: {:.1?}", claimed.elapsed()));
            until_handle(&service, &mallory.did, "handle.invalid");
            service.until_refused(&old, "HandleNotFound");

            // To an account without a package: that one's own answer.
            let carol = network.account("carol", 0);
            lead(network, &old, &carol.did);
            service.until_refused(&old, "NotEnrolled");
            // To an account with one, once that one claims it.
            let bob = network.enrolled("bob", 1, json!({}));
            lead(network, &old, &bob.did);
            claim(&bob, &old);
            service.until(&old, "the new owner", |view| view["did"] == *bob.did);
            throughout(Duration::from_secs(1), "she is not shown under any name", || {
                let view = service.recipient(&mallory.did).expect("her package");
                view["handle"] == "handle.invalid" && !shows_her()
            });
            for name in [&old, &new] {
                answer(network, name, &Value::Null);
            }
        }
        print_harm(
            "a name given up for one whose name server gives no answer",
            "1 account, 1 domain, 1 change of the DID document",
            &format!("the name shows her key for {}", harm.join(", ")),
        );
    }

    fn a_claim_that_could_not_be_checked_is_checked_after_a_restart(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 0, json!({}));
        until_handle(&service, &alice.did, &alice.handle);
        let new = format!("{}.renamed-domain.test", alice.name);
        answer(network, &new, &json!({"rcode": 2}));
        claim(&alice, &new);
        until_handle(&service, &alice.did, "handle.invalid");
        let stopped = service.stop();
        let entry = stopped.entry(&alice.did).expect("an entry");
        assert_eq!(entry.claimed.expect("a claim").as_str(), new);
        assert!(entry.handle.is_none() && entry.handle_next_at.is_some());
        let service = stopped.start();
        let view = service.recipient(&alice.did).expect("the package");
        assert_eq!(view["handle"], "handle.invalid");
        service.until_refused(&alice.handle, "HandleNotFound");
        service.until_following(2);
        // Its name server is mended.
        answer(network, &new, &Value::Null);
        lead(network, &new, &alice.did);
        alice.op("events.identity", json!({}));
        until_handle(&service, &alice.did, &new);
        assert_eq!(service.recipient(&new).expect("the package")["did"], *alice.did);
        answer(network, &new, &Value::Null);
    }

    fn a_name_that_is_still_claimed_outlives_a_name_server_that_fails(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 0, json!({}));
        until_handle(&service, &alice.did, &alice.handle);
        answer(network, &alice.handle, &json!({"rcode": 2}));
        alice.op("events.identity", json!({}));
        let inconclusive = [("result", "inconclusive")];
        service.until_counted("atcomm_resolve_handles_total", &inconclusive, 1.0);
        let view = service.recipient(&alice.handle).expect("the package");
        assert_eq!((&view["did"], &view["handle"]), (&json!(alice.did), &json!(alice.handle)));
        answer(network, &alice.handle, &Value::Null);
    }
}
