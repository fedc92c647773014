//! Input that is meant to harm: each ends in a counted drop, owed work or a typed error; the
//! service keeps running and other accounts are served (invariant 8).

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use atcomm::proof::Proven;
use ipld_core::ipld::Ipld;
use serde_json::{Value, json};

use crate::answers::move_services;
use crate::frames::{
    Claim, Firehose, account, fixture, forge_commit, map, message, read_car, stems, text,
};
use crate::http::{eventually, throughout};
use crate::network::{Account, Network, in_both_shapes, mediator_document};
use crate::service::{Service, Setup, proven};

const DROPS: &str = "atcomm_ingest_drops_total";

/// A service that follows PDS 0 through a firehose that lies, and PDS 1 as it is. Nothing is
/// looked up for askers.
fn lied_to(network: &'static Network) -> (Service, Firehose) {
    let hose = Firehose::start(network, &json!(0));
    let setup = Setup::new(network)
        .source(json!({
            "url": network.pds_url(0), "connect": hose.url, "kind": "pds",
        }))
        .pds(network, 1);
    let service = setup.streams_only().no_looks_for_askers().start();
    service.until_following(2);
    (service, hose)
}

/// Another account on the same PDS is still followed and served.
#[track_caller]
fn assert_serves(service: &Service, network: &'static Network) {
    for pds in [0, 1] {
        let other = network.enrolled("other", pds, json!({}));
        service.until(&other.did, "another account's package", |_| true);
    }
}

/// An account whose identity the service knows, so that commits are proven as they come.
fn known_account(service: &Service, network: &'static Network) -> Account {
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package with its handle", |view| {
        view["handle"] == *alice.handle
    });
    alice
}

in_both_shapes! {
    fn inv8_hostile_records_are_refused_by_name(network) {
        let service = Setup::beside(network).streams_only().no_looks_for_askers().start();
        service.until_following(2);
        let mallory = network.enrolled("mallory", 0, json!({}));
        let good = mallory.made["keyPackage"].clone();
        service.until(&mallory.did, "the good package", |_| true);
        let long = "x".repeat(50_000);
        let with = |field: &str, value: Value| {
            let mut record = good.clone();
            record[field] = value;
            record
        };
        for record in [
            json!({"$type": "at.didcomm.keyPackage"}),
            json!({"did": 42}),
            with("did", json!(["did:peer:2"])),
            with("did", json!(long)),
            with("did", json!(format!("did:peer:2.E{}", "z".repeat(50_000)))),
            with("label", json!(long)),
            with("createdAt", json!(long)),
            with("mediators", json!({"0": "did:web:m.test"})),
            with("mediators", json!([long])),
            with("mediators", json!(vec!["did:web:m.test"; 2000])),
        ] {
            mallory.put_raw(record);
            let refusal = service.until_refused(&mallory.did, "InvalidKeyPackage");
            assert!(refusal.message.len() < 500, "{}", refusal.message);
            mallory.put(json!({}));
            service.until(&mallory.did, "a good package again", |_| true);
        }
        assert_serves(&service, network);
    }

    fn inv8_a_record_that_cannot_be_proven_leaves_what_was_proven(network) {
        let service = Setup::beside(network).streams_only().no_looks_for_askers().start();
        service.until_following(2);
        let mallory = known_account(&service, network);
        let before = service.recipient(&mallory.did).expect("the package");
        let mut deep = json!(1);
        for _ in 0..40 {
            deep = json!([deep]);
        }
        let large = json!({"$type": "at.didcomm.keyPackage", "did": "x".repeat(140_000)});
        for (record, reason) in [(large, "proof_oversize"), (json!({"deep": deep}), "proof_record")] {
            let counted = |name: &str| service.metric(name, &[("reason", reason)]);
            mallory.put_raw(record);
            eventually(reason, || {
                (counted("atcomm_resolve_unverifiable_total") >= 1.0).then_some(())
            });
            let view = service.recipient(&mallory.did).expect("the package before");
            assert_eq!(view["keyPackage"], before["keyPackage"]);
        }
        let put = mallory.put(json!({}));
        service.until_cid(&mallory.did, &put["cid"]);
    }

    fn inv8_a_record_too_large_to_be_proven_is_a_typed_error(network) {
        let service = Setup::new(network).start();
        let mallory = network.account("mallory", 0);
        mallory.put_raw(json!({"$type": "at.didcomm.keyPackage", "did": "x".repeat(140_000)}));
        let refusal = service.recipient(&mallory.did).expect_err("too large");
        assert_eq!((refusal.status, &*refusal.name), (502, "UpstreamFailure"));
        assert!(refusal.message.contains("proof_oversize"), "{}", refusal.message);
    }

    fn inv6_addresses_in_did_documents_are_not_dialled_blindly(network) {
        let service = Setup::new(network).start();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let port = listener.local_addr().expect("a port").port();
        let inside = format!("inside{port}.test");
        network.op("dns.set", json!({"name": inside, "a": ["169.254.169.254", "10.0.0.1"]}));
        let mallory = network.enrolled("mallory", 0, json!({}));
        for endpoint in [
            "http://127.0.0.1:1".to_owned(),
            format!("http://127.0.0.1:{port}"),
            format!("https://127.0.0.1:{port}"),
            format!("http://[::1]:{port}"),
            format!("http://2130706433:{port}"),
            "https://169.254.169.254".to_owned(),
            "http://169.254.169.254:8080".to_owned(),
            "https://metadata.google.internal".to_owned(),
            format!("https://{inside}:{port}"),
            "http://localhost:22".to_owned(),
            "file:///etc/passwd".to_owned(),
            format!("http://user@localhost:{port}"),
        ] {
            move_services(&mallory, &endpoint);
            let refusal = service.refresh(&mallory.did).expect_err(&endpoint);
            assert_eq!((refusal.status, &*refusal.name), (502, "UpstreamFailure"), "{endpoint}");
            let refusal = service.recipient(&mallory.did).expect_err(&endpoint);
            assert_eq!(refusal.name, "UpstreamFailure", "{endpoint}");
        }
        let nobody = listener.accept().expect_err("nobody came");
        assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
        move_services(&mallory, &network.pds_url(0));
        assert_eq!(service.refresh(&mallory.did).expect("an outcome")["outcome"], "package");
    }
}

#[test]
fn inv6_without_the_development_switch_only_the_operators_endpoints_are_dialled() {
    let network = Network::multikey();
    let agent = "production.example";
    let setup = Setup::new(network)
        .pds(network, 0)
        .set("net.development", json!(false))
        .set("net.contact", json!(agent));
    let service = setup.start();
    service.until_following(1);
    let mediator = network.mediator();
    let alice = network.enrolled("alice", 0, json!({"mediators": [mediator]}));
    let bob = network.enrolled("bob", 1, json!({}));
    let view = service.until(&alice.did, "the package", |view| {
        view["mediators"][0]["state"] == "unresolved"
    });
    assert_eq!(view["handle"], "handle.invalid");
    assert_eq!(
        service
            .recipient(&alice.handle)
            .expect_err("a .test name")
            .name,
        "HandleNotFound"
    );
    let refusal = service.recipient(&bob.did).expect_err("another PDS");
    assert!(
        refusal.message.contains("pds_refused"),
        "{}",
        refusal.message
    );
    let dave = network.web_account("dave", 0, json!({}));
    assert_eq!(
        service.recipient(&dave.did).expect_err("a did:web").name,
        "UpstreamFailure"
    );
    for (operation, body) in [
        ("web.requests", json!({"agent": agent})),
        ("pds.requests", json!({"pds": 1, "agent": agent})),
    ] {
        assert_eq!(network.op(operation, body)["total"], 0, "{operation}");
    }
}

/// Frames as recorded and made for `fixtures/frames`, whose verdicts are somebody else's: what is
/// wrong in one event is passed over on the same connection.
#[test]
fn inv8_malformed_events_are_counted_and_passed_over() {
    let network = Network::multikey();
    let (service, hose) = lied_to(network);
    let alice = known_account(&service, network);
    let frames: Value = serde_json::from_slice(&fixture("frames/frames.json")).expect("JSON");
    let frames = frames.as_array().expect("a list");
    let mut invalid = 0;
    for frame in frames {
        let known_end = frame["kind"] == "error" || frame["kind"] == "error-without-message";
        match frame["expect"].as_str() {
            // These end a connection; see below.
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

/// Whether we take it for the end of the stream though its maker calls it a bad event: without a
/// place in the stream an event cannot be passed over.
fn ends_the_stream(frame: &Value) -> bool {
    frame["kind"] == "seq"
}

#[test]
fn inv8_a_stream_that_cannot_be_read_is_left_and_taken_up_again() {
    let network = Network::multikey();
    let (service, hose) = lied_to(network);
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

/// A stream that breaks each time at the same place is not tried for ever: the place is skipped,
/// and what may lie there is walked for.
#[test]
fn a_place_that_cannot_be_passed_is_skipped_and_walked_for() {
    let network = Network::multikey();
    let hose = Firehose::start(network, &json!(0));
    let setup = Setup::new(network).source(json!({
        "url": network.pds_url(0), "connect": hose.url, "kind": "pds",
    }));
    let service = setup.no_looks_for_askers().start();
    service.until_following(1);
    let alice = known_account(&service, network);
    // From here on the stream itself is silent, so the place stays the same.
    hose.lose(1_000_000);
    let put = alice.put(json!({"label": "lost"}));
    for _ in 0..3 {
        eventually("the stream breaks once more", || {
            let connected = service.metric("atcomm_ingest_connected", &[]) >= 1.0;
            connected.then(|| hose.inject(b"\xff"))
        });
        eventually("it is left", || {
            (service.metric("atcomm_ingest_connected", &[]) < 1.0).then_some(())
        });
    }
    service.until_counted("atcomm_ingest_gaps_total", &[], 1.0);
    service.until_cid(&alice.did, &put["cid"]);
    hose.lose(0);
    hose.cut();
    assert_serves_one(&service, network);
}

fn assert_serves_one(service: &Service, network: &'static Network) {
    let other = network.enrolled("other", 0, json!({}));
    service.until(&other.did, "another account's package", |_| true);
}

/// Every damaged CAR of `fixtures/proof`, and every good one of another key, as the blocks of a
/// commit of an account that is known.
#[test]
fn inv1_forged_commits_change_nothing() {
    let network = Network::multikey();
    let (service, hose) = lied_to(network);
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
    // The true one, cut short and with each part of it turned.
    for cut in [0, 1, 60, car.len() / 2, car.len() - 1] {
        claim(&car[..cut]);
    }
    for at in (0..car.len()).step_by(car.len() / 64) {
        let mut turned = car.clone();
        turned[at] ^= 0x01;
        claim(&turned);
    }
    // Somebody else's repository under this account's name, this account's under a later revision,
    // and somebody else's proof of absence: everything holds but the signature.
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
    // A true proof of presence under the claim of a removal.
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

/// The proof about an account, once it is known.
fn service_proof(service: &Service, account: &Account) -> Vec<u8> {
    service.until(&account.did, "the package", |_| true);
    service.proof(&account.did).expect("a proof")
}

#[test]
fn inv4_a_replayed_commit_does_not_bring_the_old_package_back() {
    let network = Network::multikey();
    let (service, hose) = lied_to(network);
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
    // After a removal too.
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
    let (service, hose) = lied_to(network);
    let bob = network.enrolled("bob", 1, json!({}));
    service.until(&bob.did, "the package", |_| true);
    for status in ["deleted", "takendown", "deactivated"] {
        hose.inject(&account(1, &bob.did, false, Some(status)));
    }
    assert_serves(&service, network);
    throughout(Duration::from_millis(300), "it is served", || {
        service.recipient(&bob.did).is_ok()
    });
    // Nor one of its own PDS, as long as that serves it.
    let alice = known_account(&service, network);
    hose.inject(&account(1, &alice.did, false, Some("deleted")));
    assert_serves(&service, network);
    service.until(&alice.did, "the package", |_| true);
}

/// A PDS that answers anything but a proof, at an address of the account's own choosing.
#[test]
fn inv8_what_a_pds_may_answer_is_a_proof_or_a_typed_error() {
    let network = Network::multikey();
    let service = Setup::new(network).set("net.timeout", json!("2s")).start();
    let mallory = network.account("mallory", 0);
    let (url, _) = network.site();
    move_services(&mallory, &url);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let inside = format!("http://{}/", listener.local_addr().expect("a port"));
    let answer = |mut answer: Value, wanted: &str| {
        answer["host"] = json!(url.trim_start_matches("http://"));
        answer["path"] = json!("/xrpc/com.atproto.sync.getRecord");
        network.op("web.set", answer.clone());
        drop(service.refresh(&mallory.did));
        let refusal = service.recipient(&mallory.did).expect_err(wanted);
        assert_eq!(refusal.name, wanted, "{answer:.200} {}", refusal.message);
    };
    let error = |name: &str| json!({"status": 400, "body": {"error": name, "message": "x"}});
    answer(error("RecordNotFound"), "NotEnrolledUnproven");
    answer(error("RepoNotFound"), "AccountInactive");
    answer(error("RepoTakendown"), "AccountInactive");
    answer(error("RepoDeactivated"), "AccountInactive");
    answer(error("SomethingElse"), "UpstreamFailure");
    for useless in [
        json!({"body": ""}),
        json!({"body": "nothing"}),
        json!({"body": {"record": mallory.did}}),
        json!({"status": 204, "body": ""}),
        json!({"status": 401, "body": ""}),
        json!({"status": 404, "body": "<html>"}),
        json!({"status": 500, "body": ""}),
        json!({"redirect": inside}),
        json!({"redirect": network.pds_url(0)}),
        json!({"body": "x".repeat(1000), "repeat": 100_000}),
        json!({"body": "x", "delayMs": 5000}),
        json!({"body": "x", "headers": {"content-encoding": "gzip"}}),
        json!({"body": "x", "headers": {"content-length": "99999999999"}}),
        json!({"body": "x", "headers": {"x-long": "y".repeat(10_000)}}),
    ] {
        answer(useless, "UpstreamFailure");
    }
    let nobody = listener.accept().expect_err("nobody came");
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
    // At home again, the account is what it is.
    move_services(&mallory, &network.pds_url(0));
    let put = mallory.put(json!({}));
    let answer = service.refresh(&mallory.did).expect("an outcome");
    assert_eq!(answer["recipient"]["keyPackage"]["cid"], put["cid"]);
}

#[test]
fn inv8_hostile_mediator_documents_spoil_nothing_but_themselves() {
    let network = Network::multikey();
    let service = Setup::new(network).start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a listener");
    let inside = format!("http://{}/", listener.local_addr().expect("a port"));
    let good = network.mediator();
    let mediator = |answer: &dyn Fn(&str, &str) -> Value| {
        let (url, did) = network.site();
        let mut answer = answer(&did, &url);
        answer["host"] = json!(url.trim_start_matches("http://"));
        answer["path"] = json!("/.well-known/did.json");
        network.op("web.set", answer);
        did
    };
    let mediators = [
        mediator(&|_, _| json!({"body": "x".repeat(1000), "repeat": 100_000})),
        mediator(&|_, _| json!({"body": "[".repeat(60_000)})),
        mediator(&|_, _| json!({"redirect": inside})),
        mediator(&|_, url| json!({"body": mediator_document(&good, url)})),
        mediator(&|did, _| json!({"body": mediator_document(did, &inside)})),
        mediator(&|did, _| json!({"body": mediator_document(did, "javascript:alert(1)")})),
        mediator(&|did, _| json!({"body": mediator_document(did, did)})),
        good.clone(),
    ];
    let alice = network.enrolled("alice", 0, json!({}));
    let mut record = alice.made["keyPackage"].clone();
    record["mediators"] = json!(mediators);
    alice.put_raw(record);
    let view = service.recipient(&alice.did).expect("the package");
    for shown in &view["mediators"].as_array().expect("a list")[..7] {
        assert_ne!(shown["state"], "reachable", "{shown}");
    }
    assert_eq!(view["mediators"][7]["state"], "reachable");
    assert_eq!(view["mediators"][7]["did"], *good);
    let nobody = listener.accept().expect_err("nobody came");
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}
