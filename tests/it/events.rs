//! Every kind of event on a PDS's own firehose, from the account's write to the answer. Calls cause
//! no refresh here, so every answer comes from the stream.

use std::time::Duration;

use atcomm_proto::proof::Proven;
use serde_json::{Value, json};

use crate::frames::Firehose;
use crate::http::{eventually, throughout};
use crate::network::{ArrobaAccount, Network, in_both_shapes};
use crate::service::{Service, Setup, proven};

/// Starts a service that is connected to the streams of both PDSes.
fn following(network: &Network) -> Service {
    let service = Setup::beside(network)
        .streams_only()
        .no_refresh_on_demand()
        .start();
    service.until_following(2);
    service
}

in_both_shapes! {
    fn create_update_and_delete_reach_the_directory(network) {
        let service = following(network);
        for pds in [0, 1] {
            let alice = network.account("alice", pds);
            let first = alice.put(json!({"label": "first"}));
            let view = service.until_cid(&alice.did, &first["cid"]);
            assert_eq!(view["verification"]["source"], "pds");
            let second = alice.put(json!({"label": "second"}));
            let view = service.until_cid(&alice.did, &second["cid"]);
            assert_eq!(view["keyPackage"]["value"], second["record"]);
            let under_handle = service.until_cid(&alice.handle, &second["cid"]);
            assert_eq!(under_handle["did"], *alice.did);
            alice.delete_record();
            let refusal = service.until_refused(&alice.did, "NotEnrolled");
            assert!(refusal.message.contains("proven"), "{}", refusal.message);
            let third = alice.put(json!({"label": "third"}));
            service.until_cid(&alice.did, &third["cid"]);
        }
    }

    fn a_commit_of_a_known_account_is_its_own_proof(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 0, json!({}));
        service.until(&alice.did, "the package", |_| true);
        // Refreshes triggered by the account's first events may still run at this point.
        eventually("a package proven by its commit", || {
            let put = alice.put(json!({}));
            let view = service.until_cid(&alice.did, &put["cid"]);
            (view["verification"]["method"] == "commit").then_some(())
        });
    }

    fn a_pds_of_another_implementation_is_followed_too(network) {
        let setup = Setup::new(network).source(json!({"url": network.arroba_url(), "kind": "pds"}));
        let service = setup.no_refresh_on_demand().start();
        service.until_following(1);
        let erin = network.arroba_account();
        let first = erin.put(json!({"label": "first"}));
        let view = service.until_cid(&erin.did, &first["cid"]);
        assert_eq!(view["pds"], *network.arroba_url());
        assert_eq!(view["keyPackage"]["value"], first["record"]);
        let second = erin.put(json!({"label": "second"}));
        service.until_cid(&erin.handle, &second["cid"]);
        assert_removed_and_back(&service, &erin);
    }

    fn a_key_package_among_other_writes_of_one_commit_is_found(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 0, json!({}));
        let record = |label: &str| {
            let mut record = alice.made["keyPackage"].clone();
            record["label"] = json!(label);
            record
        };
        let note = |rkey: String| {
            let value = json!({"$type": "at.example.note", "text": rkey});
            json!({
                "action": "create", "collection": "at.example.note", "rkey": rkey, "value": value,
            })
        };
        let package = |action: &str, label: &str| {
            let mut write = json!({
                "action": action, "collection": "at.didcomm.keyPackage", "rkey": "self",
            });
            if action != "delete" {
                write["value"] = record(label);
            }
            write
        };
        let batch = |first: usize, write: Value| {
            let mut writes: Vec<_> = (first..first + 20).map(|n| note(format!("n{n}"))).collect();
            writes.insert(10, write);
            alice.op("record.batch", json!({"writes": writes}));
        };
        service.until(&alice.did, "the first package", |_| true);
        batch(0, package("update", "among others"));
        service.until(&alice.did, "the package among others", |view| {
            view["keyPackage"]["value"] == record("among others")
        });
        batch(20, package("delete", ""));
        service.until_refused(&alice.did, "NotEnrolled");
        batch(40, package("create", "again"));
        service.until(&alice.did, "the package created again", |view| {
            view["keyPackage"]["value"] == record("again")
        });
    }

    fn deactivation_hides_and_activation_shows_again(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 0, json!({}));
        let cid = service.until(&alice.did, "the package", |_| true)["keyPackage"]["cid"].clone();
        for _ in 0..2 {
            alice.op("account.deactivate", json!({}));
            let refusal = service.until_refused(&alice.did, "AccountInactive");
            assert!(refusal.message.contains("deactivated"), "{}", refusal.message);
            // No commit carries the package now; only #account and #sync come.
            alice.op("account.activate", json!({}));
            service.until_cid(&alice.did, &cid);
        }
    }

    fn a_takedown_hides_and_its_lifting_shows_again(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 1, json!({}));
        let cid = service.until(&alice.did, "the package", |_| true)["keyPackage"]["cid"].clone();
        alice.op("account.takedown", json!({}));
        let refusal = service.until_refused(&alice.did, "AccountInactive");
        assert!(refusal.message.contains("takendown"), "{}", refusal.message);
        assert_eq!(service.proof(&alice.did).expect_err("hidden").name, "AccountInactive");
        alice.op("account.takedown", json!({"applied": false}));
        service.until_cid(&alice.did, &cid);
    }

    fn a_deleted_account_leaves_the_directory(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 0, json!({}));
        let bob = network.enrolled("bob", 1, json!({}));
        for account in [&alice, &bob] {
            service.until(&account.did, "the package", |_| true);
        }
        alice.op("account.delete", json!({}));
        bob.op("account.delete", json!({"tombstone": true}));
        // Without an entry the service would have to refresh the account, and has no budget to do
        // so.
        service.until_refused(&alice.did, "Overloaded");
        service.until_refused(&bob.did, "Overloaded");
        let left = service.stop();
        assert_eq!(left.entry(&alice.did), None);
        assert_eq!(left.entry(&bob.did), None);
    }

    fn a_sync_event_leads_to_a_proof_of_what_no_commit_told(network) {
        // The frame with the write is lost on the way; the PDS's own events follow it.
        let hose = Firehose::start(network, &json!(0));
        let source = json!({"url": network.pds_url(0), "connect": hose.url, "kind": "pds"});
        let setup = Setup::new(network).source(source).streams_only();
        let service = setup.no_refresh_on_demand().start();
        let alice = network.enrolled("alice", 0, json!({"label": "told"}));
        let told = service.until(&alice.did, "the package", |_| true)["keyPackage"]["cid"].clone();
        // No refresh is pending that could find the write by itself.
        let mut service = Some(service);
        let left = eventually("nothing is pending", || {
            let left = service.take()?.stop();
            let did = alice.did();
            if left.read(move |q| q.pending(&did)).is_none() {
                return Some(left);
            }
            let again = service.insert(left.start());
            throughout(Duration::from_millis(500), "refreshes have their time", || {
                again.recipient(&alice.did).is_ok()
            });
            None
        });
        hose.lose(1_000_000);
        let untold = alice.put(json!({"label": "untold"}));
        let service = left.start();
        service.until_following(1);
        throughout(Duration::from_millis(500), "nothing comes through", || {
            service.recipient(&alice.did).expect("the first")["keyPackage"]["cid"] == told
        });
        hose.lose(0);
        alice.op("events.sync", json!({}));
        service.until_cid(&alice.did, &untold["cid"]);
    }

    fn writes_elsewhere_in_the_repository_change_nothing(network) {
        let service = following(network);
        let alice = network.enrolled("alice", 0, json!({}));
        service.until(&alice.did, "the package", |_| true);
        for note in ["one", "two", "three"] {
            alice.write_note(note);
        }
        // An event after them in the same stream.
        let bob = network.enrolled("bob", 0, json!({}));
        service.until(&bob.did, "the later package", |_| true);
        service.recipient(&alice.did).expect("the package");
        let changes = service.stop().changes(&alice.did);
        let packages = changes.iter().filter(|change| change.kind.as_str() != "identity").count();
        assert_eq!(packages, 1, "{changes:?}");
    }
}

/// Deletes the package and writes another one. Proofs of this PDS verify like any other's, proofs
/// of exclusion included.
fn assert_removed_and_back(service: &Service, erin: &ArrobaAccount) {
    let shows = || {
        let car = service.proof(&erin.did).expect("a proof");
        proven(erin.network, &erin.did, &car)
    };
    assert!(matches!(shows(), Proven::Present(_)));
    erin.delete_record();
    service.until_refused(&erin.did, "NotEnrolled");
    assert!(matches!(shows(), Proven::Absent(_)));
    let third = erin.put(json!({"label": "third"}));
    service.until_cid(&erin.did, &third["cid"]);
}
