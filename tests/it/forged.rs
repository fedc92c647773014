//! Streams that lie: frames that no honest server sends, and commits that no account signed. Each
//! is counted and skipped, or the connection is dropped and reopened (invariants 1, 4 and 8).

use std::time::Duration;

use atcomm_proto::proof::Proven;
use ipld_core::ipld::Ipld;
use serde_json::{Value, json};

use crate::frames::{
    Claim, Firehose, account, fixture, forge_commit, map, message, read_car, stems, text,
};
use crate::http::{throughout, within};
use crate::network::{Account, Network};
use crate::service::{Service, Setup, proven};

const DROPS: &str = "atcomm_ingest_drops_total";

/// Starts a service that follows PDS 0 through a lying firehose and PDS 1 directly. Calls cause no
/// refresh.
fn behind_lying_firehose(network: &'static Network) -> (Service, Firehose) {
    let hose = Firehose::start(network, &json!(0));
    let setup = Setup::new(network)
        .source(json!({
            "url": network.pds_url(0), "connect": hose.url, "kind": "pds",
        }))
        .pds(network, 1);
    let service = setup.streams_only().no_refresh_on_demand().start();
    service.until_following(2);
    (service, hose)
}

/// Asserts that another account on the same PDS is followed and served.
#[track_caller]
pub(crate) fn assert_serves(service: &Service, network: &'static Network) {
    for pds in [0, 1] {
        let other = network.enrolled("other", pds, json!({}));
        service.until(&other.did, "another account's package", |_| true);
    }
}

/// Creates an account whose identity the service has resolved, so that its commits are verified on
/// arrival.
pub(crate) fn known_account(service: &Service, network: &'static Network) -> Account {
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package with its handle", |view| {
        view["handle"] == *alice.handle
    });
    alice
}

/// Recorded and forged frames of `fixtures/frames`, with verdicts of a foreign implementation: a
/// malformed event is skipped on the same connection.
#[test]
fn inv8_malformed_events_are_counted_and_passed_over() {
    let network = Network::multikey();
    let (service, hose) = behind_lying_firehose(network);
    let alice = known_account(&service, network);
    let frames: Value = serde_json::from_slice(&fixture("frames/frames.json")).expect("JSON");
    let frames = frames.as_array().expect("a list");
    let mut invalid = 0;
    for frame in frames {
        let known_end = frame["kind"] == "error" || frame["kind"] == "error-without-message";
        match frame["expect"].as_str() {
            // These frames end a connection; the next test covers them.
            Some("disconnect") => continue,
            _ if known_end || ends_the_stream(frame) => continue,
            Some("invalid") => invalid += 1,
            _ => {}
        }
        let file = frame["file"].as_str().expect("a name");
        hose.inject(&fixture(&format!("frames/{file}")));
    }
    assert!(invalid > 30, "{invalid}");
    for t in ["#unheard", "#tombstone", ""] {
        hose.inject(&message(
            t,
            map([("seq", Ipld::Integer(1)), ("x", text("y"))]),
        ));
    }
    for status in ["", "throttled", "something-new", &"s".repeat(5000)] {
        hose.inject(&account(
            1,
            "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb",
            false,
            Some(status),
        ));
    }
    assert_serves(&service, network);
    assert!(
        service.metric(DROPS, &[]) >= 10.0,
        "{}",
        service.metrics_page()
    );
    assert!(service.metric(DROPS, &[("reason", "unknown_kind")]) >= 3.0);
    service.recipient(&alice.did).expect("the package");
    for end in ["stream lost", "unreadable stream"] {
        assert!(!service.log().contains(end), "{}", service.log());
    }
}

/// Returns whether the service ends the connection at a frame that its maker calls a bad event:
/// without a sequence number an event cannot be skipped.
fn ends_the_stream(frame: &Value) -> bool {
    frame["kind"] == "seq"
}

#[test]
fn inv8_a_stream_that_cannot_be_read_is_left_and_taken_up_again() {
    let network = Network::multikey();
    let (service, hose) = behind_lying_firehose(network);
    let alice = known_account(&service, network);
    let reconnected = |what: &str, inject: &dyn Fn()| {
        inject();
        let put = alice.put(json!({"label": what}));
        service.until_cid(&alice.did, &put["cid"]);
    };
    let before = service.log().matches("following").count();
    reconnected("over five megabytes", &|| hose.inject_zeros(5_000_001));
    reconnected("garbage", &|| {
        hose.inject(&fixture("frames/hand-framing-9.bin"))
    });
    reconnected("text", &|| hose.inject_text("{\"kind\":\"commit\"}"));
    let after = service.log().matches("following").count();
    assert!(after >= before + 3, "{}", service.log());
    assert_serves(&service, network);
}

/// A stream that breaks at the same position every time is not retried for ever: the position is
/// skipped, and a backfill finds the events that it may have held.
#[test]
fn a_position_that_cannot_be_passed_is_skipped_and_backfilled() {
    let network = Network::multikey();
    let hose = Firehose::start(network, &json!(0));
    let setup = Setup::new(network).source(json!({
        "url": network.pds_url(0), "connect": hose.url, "kind": "pds",
    }));
    let service = setup.no_refresh_on_demand().start();
    service.until_following(1);
    let alice = known_account(&service, network);
    // From here on the stream itself is silent, so that the position stays the same.
    hose.lose(1_000_000);
    let put = alice.put(json!({"label": "lost"}));
    // Nothing that can be read stands between these messages, so that no message is at fault by
    // itself.
    within(Duration::from_secs(120), "the position is given up", || {
        if service.metric("atcomm_ingest_connected", &[]) >= 1.0 {
            hose.inject_times(b"\xff", 1100);
        }
        (service.metric("atcomm_ingest_gaps_total", &[]) >= 1.0).then_some(())
    });
    service.until_cid(&alice.did, &put["cid"]);
    hose.lose(0);
    hose.cut();
    assert_serves_one(&service, network);
}

fn assert_serves_one(service: &Service, network: &'static Network) {
    let other = network.enrolled("other", 0, json!({}));
    service.until(&other.did, "another account's package", |_| true);
}

/// Every damaged CAR of `fixtures/proof`, and every valid CAR signed by another key, as the blocks
/// of a commit of a known account.
#[test]
fn inv1_forged_commits_change_nothing() {
    let network = Network::multikey();
    let (service, hose) = behind_lying_firehose(network);
    let alice = known_account(&service, network);
    let before = service.recipient(&alice.did).expect("the package");
    let car = service_proof(&service, &alice);
    let Proven::Present(record) = proven(network, &alice.did, &car) else {
        panic!("no record");
    };
    let claim = |blocks: &[u8]| {
        let claim = Claim {
            seq: 1,
            did: &alice.did,
            rev: record.commitment().rev().to_string(),
            commit: *record.commitment().commit(),
            cid: Some(*record.cid()),
            blocks,
        };
        hose.inject(&claim.frame());
    };
    let stems = stems("proof", ".car");
    assert!(stems.len() > 300);
    for stem in &stems {
        claim(&fixture(&format!("proof/{stem}.car")));
    }
    // The true CAR, cut short and with each of its parts inverted.
    for cut in [0, 1, 60, car.len() / 2, car.len() - 1] {
        claim(&car[..cut]);
    }
    for at in (0..car.len()).step_by(car.len() / 64) {
        let mut turned = car.clone();
        turned[at] ^= 0x01;
        claim(&turned);
    }
    // Another account's repository under this account's name, this account's repository under a
    // later revision, and another account's proof of exclusion: everything is right but the
    // signature.
    let mallory = network.enrolled("mallory", 1, json!({}));
    let theirs = service_proof(&service, &mallory);
    let Proven::Present(foreign) = proven(network, &mallory.did, &theirs) else {
        panic!("no record");
    };
    mallory.delete_record();
    service.until_refused(&mallory.did, "NotEnrolled");
    let gone = service.proof(&mallory.did).expect("a proof");
    let absence = proven(network, &mallory.did, &gone);
    let (name, later) = (text(&alice.did), foreign.commitment().rev());
    for (origin, field, value, rev, cid) in [
        (&theirs, "did", name.clone(), later, Some(*foreign.cid())),
        (
            &car,
            "rev",
            text(later.as_str()),
            later,
            Some(*record.cid()),
        ),
        (&gone, "did", name, absence.commitment().rev(), None),
    ] {
        let forged = forge_commit(origin, field, value);
        let claim = Claim {
            seq: 1,
            did: &alice.did,
            rev: rev.to_string(),
            commit: read_car(&forged).0,
            cid,
            blocks: &forged,
        };
        hose.inject(&claim.frame());
    }
    // A true proof of inclusion under the claim of a removal.
    let removal = Claim {
        seq: 1,
        did: &alice.did,
        rev: "3zzzzzzzzzzzz".to_owned(),
        commit: *record.commitment().commit(),
        cid: None,
        blocks: &car,
    };
    hose.inject(&removal.frame());
    assert_serves(&service, network);
    assert!(service.metric(DROPS, &[]) > 300.0);
    for reason in [
        "proof_signature",
        "proof_hash",
        "proof_malformed",
        "proof_roots",
    ] {
        assert!(
            service.metric(DROPS, &[("reason", reason)]) >= 1.0,
            "{reason}"
        );
    }
    let after = service.recipient(&alice.did).expect("the package");
    for field in ["keyPackage", "peer", "status", "handle"] {
        assert_eq!(after[field], before[field]);
    }
    let changes = service.stop().changes(&alice.did);
    assert!(
        changes
            .iter()
            .all(|change| change.cid == Some(*record.cid())),
        "{changes:?}"
    );
}

/// Returns the proof of an account, once the service has an entry.
fn service_proof(service: &Service, account: &Account) -> Vec<u8> {
    service.until(&account.did, "the package", |_| true);
    service.proof(&account.did).expect("a proof")
}

#[test]
fn inv4_a_replayed_commit_does_not_bring_the_old_package_back() {
    let network = Network::multikey();
    let (service, hose) = behind_lying_firehose(network);
    let alice = known_account(&service, network);
    let car = service_proof(&service, &alice);
    let Proven::Present(old) = proven(network, &alice.did, &car) else {
        panic!("no record");
    };
    let put = alice.put(json!({"label": "newer"}));
    service.until_cid(&alice.did, &put["cid"]);
    let replay = Claim {
        seq: 1,
        did: &alice.did,
        rev: old.commitment().rev().to_string(),
        commit: *old.commitment().commit(),
        cid: Some(*old.cid()),
        blocks: &car,
    };
    for _ in 0..5 {
        hose.inject(&replay.frame());
    }
    assert_serves(&service, network);
    let view = service.recipient(&alice.did).expect("the package");
    assert_eq!(
        (&view["keyPackage"]["cid"], &view["status"]),
        (&put["cid"], &json!("active"))
    );
    let outcomes = "atcomm_directory_outcomes_total";
    assert!(service.metric(outcomes, &[("outcome", "ignored")]) >= 1.0);
    // The same after a removal.
    alice.delete_record();
    service.until_refused(&alice.did, "NotEnrolled");
    hose.inject(&replay.frame());
    assert_serves(&service, network);
    assert_eq!(
        service.recipient(&alice.did).expect_err("removed").name,
        "NotEnrolled"
    );
}

#[test]
fn a_stream_cannot_hide_an_account_of_another_pds() {
    let network = Network::multikey();
    let (service, hose) = behind_lying_firehose(network);
    let bob = network.enrolled("bob", 1, json!({}));
    service.until(&bob.did, "the package", |_| true);
    for status in ["deleted", "takendown", "deactivated"] {
        hose.inject(&account(1, &bob.did, false, Some(status)));
    }
    assert_serves(&service, network);
    throughout(Duration::from_millis(300), "it is served", || {
        service.recipient(&bob.did).is_ok()
    });
    // Nor is a status accepted from the account's own PDS while that PDS serves the account.
    let alice = known_account(&service, network);
    hose.inject(&account(1, &alice.did, false, Some("deleted")));
    assert_serves(&service, network);
    service.until(&alice.did, "the package", |_| true);
}
