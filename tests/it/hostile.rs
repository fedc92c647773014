//! Hostile records, documents and answers: each ends in a typed error or is shown as it is; the
//! service keeps running and serves other accounts (invariants 6 and 8).

use std::io::ErrorKind;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::answers::move_services;
use crate::forged::{assert_serves, known_account};
use crate::http::eventually;
use crate::network::{Network, in_both_shapes, mediator_document};
use crate::service::Setup;

in_both_shapes! {
    fn inv8_hostile_records_are_refused_by_name(network) {
        let service = Setup::beside(network).streams_only().no_refresh_on_demand().start();
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
        let service = Setup::beside(network).streams_only().no_refresh_on_demand().start();
        service.until_following(2);
        let mallory = known_account(&service, network);
        let before = service.recipient(&mallory.did).expect("the package");
        let mut deep = json!(1);
        for _ in 0..40 {
            deep = json!([deep]);
        }
        let large = json!({"$type": "at.didcomm.keyPackage", "did": "x".repeat(140_000)});
        let deep = json!({"deep": deep});
        for (record, reason) in [(large, "proof_oversize"), (deep, "proof_record")] {
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
        let refused = listener.accept().expect_err("no connection");
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
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

/// A PDS at an address chosen by the account answers with everything but a proof.
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
    let refused = listener.accept().expect_err("no connection");
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    // Back at its own PDS, the account is served as before.
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
    let refused = listener.accept().expect_err("no connection");
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
}
