//! Older facts and proofs beside newer ones.

use std::time::Duration;

use serde_json::json;

use crate::frames::Firehose;
use crate::http::{eventually, throughout, within};
use crate::network::Network;
use crate::service::Setup;

/// The owner of an account changes its DID document directly, and no event tells of it.
#[test]
fn inv4_a_document_that_changed_without_an_event_is_noticed_when_it_is_next_read() {
    let network = Network::multikey();
    let service = Setup::new(network)
        .pds(network, 0)
        .streams_only()
        .no_refresh_on_demand()
        .set("identity.document_fresh", json!("1s"))
        .start();
    service.until_following(1);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the handle", |view| {
        view["handle"] == *alice.handle
    });
    // Refreshes for the account's first events may still run.
    throughout(Duration::from_millis(1500), "it is shown", || {
        service.recipient(&alice.did).is_ok()
    });
    let names = json!({"alsoKnownAs": ["at://elsewhere.pds0.test"]});
    alice.op("plc.update", json!({"set": names, "quiet": true}));
    // The write is looked at under the cached document, which is read anew behind it.
    let put = alice.put(json!({"label": "after"}));
    service.until(
        &alice.did,
        "the name that is not claimed any more is gone",
        |view| view["handle"] == "handle.invalid" && view["keyPackage"]["cid"] == put["cid"],
    );
}

/// The event that an account is active again is lost. The account's next write tells of it.
#[test]
fn a_write_of_an_account_that_is_believed_inactive_shows_it_again() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let hose = Firehose::start(network, &json!(0));
    let service = Setup::new(network)
        .source(json!({"url": network.pds_url(0), "connect": hose.url, "kind": "pds"}))
        .streams_only()
        .no_refresh_on_demand()
        .start();
    service.until_following(1);
    let alice = network.enrolled("alice", 0, json!({}));
    eventually("a package proven by its commit", || {
        let put = alice.put(json!({}));
        let view = service.until_cid(&alice.did, &put["cid"]);
        (view["verification"]["method"] == "commit").then_some(())
    });
    alice.op("account.deactivate", json!({}));
    service.until_refused(&alice.did, "AccountInactive");
    // Neither #account nor #sync of the activation comes through.
    hose.lose(1_000_000);
    alice.op("account.activate", json!({}));
    throughout(Duration::from_millis(300), "nothing tells of it", || {
        service.recipient(&alice.did).is_err()
    });
    hose.lose(0);
    let put = alice.put(json!({"label": "back"}));
    service.until_cid(&alice.did, &put["cid"]);
}

/// A stream carries the commit of an account whose document is known here, and whose PDS does not
/// answer: it may have taken the account down meanwhile.
#[test]
fn inv1_an_unknown_account_is_shown_by_its_pds_and_not_by_a_stream() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let setup = Setup::new(network).pds(network, 0).streams_only();
    let service = setup.set("net.timeout", json!("2s")).start();
    service.until_following(1);
    let alice = network.account("alice", 0);
    let refused = service.recipient(&alice.did).expect_err("no package");
    assert_eq!(refused.name, "NotEnrolled");
    let path = "/xrpc/com.atproto.sync.getRecord";
    network.op("pds.hang", json!({"pds": 0, "path": path}));
    alice.put(json!({}));
    throughout(Duration::from_secs(3), "it is not shown", || {
        service.recipient(&alice.did).is_err()
    });
    network.op("pds.hang", json!({"pds": 0, "on": false}));
    let found = within(Duration::from_secs(150), "the package", || {
        service.recipient(&alice.did).ok()
    });
    assert_eq!(found["verification"]["method"], "getRecord");
}
