//! Methods about several accounts, about what the directory has of one, and about identities.

use serde_json::{Value, json};

use crate::answers::move_services;
use crate::http::{eventually, request};
use crate::network::{in_both_shapes, text};
use crate::service::{Service, Setup, XrpcError, checked};

const MANY: &str = "at.didcomm.directory.resolveRecipients";
const FIND: &str = "at.didcomm.directory.findByPeer";
const EXPLAIN: &str = "at.didcomm.directory.explainAccount";
const STATUS: &str = "com.atproto.sync.getRepoStatus";
const HANDLE: &str = "com.atproto.identity.resolveHandle";
const DID: &str = "com.atproto.identity.resolveDid";
const IDENTITY: &str = "com.atproto.identity.resolveIdentity";

/// A well-formed DID without an account.
const UNKNOWN_DID: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";

/// A URL that a document may name and whose port is closed.
const CLOSED_ORIGIN: &str = "http://localhost:1025";

impl Service {
    #[track_caller]
    fn ask(&self, nsid: &str, params: &[(&str, &str)]) -> Result<Value, XrpcError> {
        checked(nsid, &self.query(nsid, params))
    }

    #[track_caller]
    fn explained(&self, did: &str) -> Value {
        self.ask(EXPLAIN, &[("did", did)]).expect("an explanation")
    }

    /// Waits until the account has this state. Returns the explanation.
    #[track_caller]
    fn until_state(&self, did: &str, state: &str) -> Value {
        eventually(&format!("{did} is {state}"), || {
            let explained = self.explained(did);
            (explained["state"] == state).then_some(explained)
        })
    }
}

/// Returns the codes of the reasons.
fn codes(explained: &Value) -> Vec<&str> {
    let reasons = explained["reasons"].as_array().expect("an array");
    reasons.iter().map(|reason| text(reason, "/code")).collect()
}

/// Takes the time since the last proof out of an answer, which grows.
fn without_age(mut view: Value) -> Value {
    view["verification"]["age"] = json!(0);
    view
}

in_both_shapes! {
    fn many_accounts_are_answered_as_each_of_them(network) {
        let service = Setup::new(network).start();
        let alice = network.enrolled("alice", 0, json!({}));
        let bob = network.enrolled("bob", 1, json!({}));
        let absent = network.account("absent", 0);
        let away = network.enrolled("away", 1, json!({}));
        away.op("account.deactivate", json!({}));
        let asked = [
            &*alice.handle, &*bob.did, UNKNOWN_DID, &*absent.did, &*alice.did, "nobody.pds0.test",
            &*away.handle, &*bob.did,
        ];
        let params: Vec<_> = asked.iter().map(|actor| ("actors", *actor)).collect();
        let answer = service.ask(MANY, &params).expect("answers");
        let views = answer["recipients"].as_array().expect("an array");
        let found: Vec<_> = views.iter().map(|view| text(view, "/did")).collect();
        assert_eq!(found, [&*alice.did, &bob.did, &alice.did, &bob.did]);
        for view in views {
            let alone = service.recipient(text(view, "/did")).expect("a recipient");
            let view = without_age(view.clone());
            // The mediators may have been checked between the two.
            assert_eq!(view["keyPackage"], alone["keyPackage"]);
            assert_eq!(view["peer"], alone["peer"]);
        }
        let failures = answer["failures"].as_array().expect("an array");
        assert_eq!(failures.len(), 4);
        for (failure, (actor, error)) in failures.iter().zip([
            (UNKNOWN_DID, "DidNotFound"),
            (&*absent.did, "NotEnrolled"),
            ("nobody.pds0.test", "HandleNotFound"),
            (&*away.handle, "AccountInactive"),
        ]) {
            assert_eq!((text(failure, "/actor"), text(failure, "/error")), (actor, error));
            let alone = service.recipient(actor).expect_err("no recipient");
            assert_eq!(alone.name, error);
            assert_eq!(alone.message, text(failure, "/message"));
        }
    }

    fn all_claimants_of_a_peer_are_found_in_the_order_in_which_they_named_it(network) {
        let service = Setup::beside(network).no_refresh_on_demand().start();
        let alice = network.enrolled("alice", 0, json!({}));
        let view = service.until(&alice.did, "the package", |_| true);
        let peer = text(&view, "/peer/did");
        let find = || service.ask(FIND, &[("peer", peer)]).expect("claimants");
        let claimants = |answer: &Value| -> Vec<String> {
            let views = answer["claimants"].as_array().expect("an array");
            views.iter().map(|view| text(view, "/did").to_owned()).collect()
        };
        let answer = find();
        assert_eq!(claimants(&answer), [&*alice.did]);
        assert_eq!((&answer["ambiguous"], &answer["more"]), (&json!(false), &json!(false)));
        let mallory = network.account("mallory", 1);
        mallory.put_raw(alice.made["keyPackage"].clone());
        service.until(&mallory.did, "the same package", |_| true);
        let answer = find();
        assert_eq!(claimants(&answer), [&*alice.did, &mallory.did]);
        assert_eq!(answer["ambiguous"], true);
        assert_eq!(answer["claimants"][0]["peer"]["ambiguous"], true);
        alice.op("account.deactivate", json!({}));
        service.until_refused(&alice.did, "AccountInactive");
        assert_eq!(claimants(&find()), [&*mallory.did]);
    }

    fn every_state_says_why_and_when_next(network) {
        let service = Setup::beside(network).start();
        let alice = network.enrolled("alice", 0, json!({}));
        let status = || service.ask(STATUS, &[("did", &alice.did)]);
        assert_eq!(service.explained(UNKNOWN_DID)["state"], "unknown");
        let explained = service.until_state(&alice.did, "verified");
        assert!(explained["nextCheckAt"].is_string() && explained["since"].is_string());
        let rev = explained["rev"].clone();
        assert_eq!(status(), Ok(json!({"did": alice.did, "active": true, "rev": rev})));
        alice.op("account.deactivate", json!({}));
        let explained = service.until_state(&alice.did, "inactive");
        assert_eq!(explained["status"], "deactivated");
        assert!(codes(&explained).contains(&"inactive"), "{explained}");
        let away = json!({"did": alice.did, "active": false, "status": "deactivated"});
        assert_eq!(status(), Ok(away));
        alice.op("account.activate", json!({}));
        service.until_state(&alice.did, "verified");
        alice.put_raw(json!({"$type": "at.didcomm.keyPackage", "did": 42}));
        let explained = service.until_state(&alice.did, "invalid");
        assert_eq!(explained["reasons"][0]["rule"], "did");
        alice.delete_record();
        let explained = service.until_state(&alice.did, "removed");
        assert_eq!(codes(&explained)[0], "removed");
        alice.put(json!({}));
        service.until_state(&alice.did, "verified");
        // The account names a PDS that does not answer.
        move_services(&alice, CLOSED_ORIGIN);
        let refreshed = service.refresh(&alice.did).expect_err("no answer");
        assert_eq!(refreshed.name, "UpstreamFailure");
        let explained = service.until_state(&alice.did, "unverifiable");
        assert_eq!(explained["lastError"]["class"], "pds_unreachable");
        assert!(explained["nextCheckAt"].is_string(), "{explained}");
        move_services(&alice, &network.pds_url(0));
        service.refresh(&alice.did).expect("an answer");
        let explained = service.until_state(&alice.did, "verified");
        assert_eq!(explained.get("lastError"), None);
        let unknown = service.ask(STATUS, &[("did", UNKNOWN_DID)]).expect_err("no entry");
        assert_eq!(unknown.name, "RepoNotFound");
    }

    fn identities_are_resolved_as_by_the_pds_and_the_did_directory(network) {
        let service = Setup::new(network).start();
        let alice = network.account("alice", 0);
        let theirs = request(
            "GET",
            &format!("{}/xrpc/{HANDLE}?handle={}", network.pds_url(0), alice.handle),
            &[],
            None,
        );
        let ours = service.ask(HANDLE, &[("handle", &alice.handle)]);
        assert_eq!(ours, Ok(theirs.json()));
        let document = request("GET", &format!("{}/{}", network.plc(), alice.did), &[], None);
        let document = document.json();
        let ours = service.ask(DID, &[("did", &alice.did)]);
        assert_eq!(ours, Ok(json!({"didDoc": document})));
        let whole = json!({"did": alice.did, "handle": alice.handle, "didDoc": document});
        for identifier in [&alice.did, &alice.handle] {
            let ours = service.ask(IDENTITY, &[("identifier", identifier)]);
            assert_eq!(ours.as_ref(), Ok(&whole));
        }
        // Bob's document claims the handle of Alice.
        let bob = network.account("bob", 1);
        let claim = json!({"set": {"alsoKnownAs": [format!("at://{}", alice.handle)]}});
        bob.op("plc.update", claim);
        let answer = service.ask(IDENTITY, &[("identifier", &bob.did)]).expect("an identity");
        assert_eq!((&answer["did"], &answer["handle"]), (&json!(bob.did), &json!("handle.invalid")));
        let gone = network.account("gone", 0);
        gone.op("account.delete", json!({"tombstone": true}));
        let refused = |nsid, name, value: &str| {
            let failure = service.ask(nsid, &[(name, value)]).expect_err("no identity");
            (failure.status, failure.name)
        };
        let is = |name: &str| (400, name.to_owned());
        assert_eq!(refused(DID, "did", &gone.did), is("DidDeactivated"));
        assert_eq!(refused(IDENTITY, "identifier", &gone.did), is("DidDeactivated"));
        assert_eq!(refused(DID, "did", UNKNOWN_DID), is("DidNotFound"));
        assert_eq!(refused(HANDLE, "handle", "nobody.pds0.test"), is("HandleNotFound"));
        assert_eq!(refused(IDENTITY, "identifier", "nobody.pds0.test"), is("HandleNotFound"));
        // A DID whose host does not answer.
        let (status, name) = refused(DID, "did", "did:web:localhost%3A1025");
        assert_eq!((status, &*name), (502, "UpstreamFailure"));
    }
}
