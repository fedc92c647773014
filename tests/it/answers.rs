//! Answers to callers: all that a sender needs, its proof, and errors that name the reason.

use std::time::{Duration, Instant};

use atcomm_proto::proof::Proven;
use serde_json::{Value, json};

use crate::http::{eventually, request};
use crate::network::{Account, MEDIATOR_KEY, Network, in_both_shapes, mediator_document, text};
use crate::service::{PROOF, REFRESH, RESOLVE, Setup, car_of, checked, proven, xrpc_error};

/// A well-formed DID without an account.
const UNKNOWN_DID: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";

/// A URL that a document may name and whose port is closed.
const CLOSED_ORIGIN: &str = "http://localhost:1025";

in_both_shapes! {
    fn a_published_package_is_answered_by_handle_and_did(network) {
        let service = Setup::beside(network).streams_only().no_refresh_on_demand().start();
        let mediator = network.mediator();
        service.until_following(2);
        let package = json!({"label": "phone", "mediators": [mediator]});
        let alice = network.enrolled("alice", 0, package);
        let published = Instant::now();
        let what = "the package with its handle and its mediator";
        let view = service.until(&alice.did, what, |view| {
            view["handle"] == *alice.handle && view["mediators"][0]["state"] == "reachable"
        });
        assert!(published.elapsed() < Duration::from_secs(10), "{:?}", published.elapsed());
        assert_eq!(view["did"], *alice.did);
        assert_eq!(view["pds"], *network.pds_url(0));
        assert_eq!(view["status"], "active");
        let package = &view["keyPackage"];
        assert_eq!(package["value"], alice.made["keyPackage"]);
        assert_eq!(package["uri"], format!("at://{}/at.didcomm.keyPackage/self", alice.did));
        let peer = &view["peer"];
        assert_eq!(peer["did"], alice.made["peer"]["did"]);
        assert_eq!(peer["ambiguous"], false);
        for (use_, keys) in [("keyAgreement", 1), ("authentication", 1)] {
            assert_eq!(peer[use_].as_array().map(Vec::len), Some(keys), "{peer}");
            assert!(text(peer, &format!("/{use_}/0/id")).starts_with("did:peer:2"));
        }
        assert_same_key(&alice.made["peer"], text(peer, "/keyAgreement/0/publicKeyMultibase"));
        let verification = &view["verification"];
        assert_eq!(verification["signingKey"], network.signing_key(&alice.did).did_key());
        assert_eq!(verification["source"], "pds");
        assert_eq!(verification["stale"], false);
        assert!(verification["age"].as_i64().is_some_and(|age| age < 60));
        assert_eq!(verification.get("beforeMove"), None);

        let by_name = |actor: &str| {
            let mut view = service.recipient(actor).expect("the same");
            view["verification"]["age"] = json!(0);
            // An event that comes late proves the same once more.
            view["verification"]["provedAt"] = json!(null);
            view
        };
        let by_did = by_name(&alice.did);
        assert_eq!(by_did, by_name(&alice.handle));
        assert_eq!(by_did, by_name(&format!("@{}", alice.handle.to_uppercase())));
    }

    fn inv1_the_proof_in_an_answer_holds_under_the_key_in_the_did_directory(network) {
        let service = Setup::beside(network).start();
        let alice = network.enrolled("alice", 0, json!({}));
        service.until(&alice.did, "the package", |_| true);
        let view = service.recipient_with_proof(&alice.did).expect("the package");
        let Proven::Present(record) = proven(network, &alice.did, &car_of(&view)) else {
            panic!("a proof of absence");
        };
        assert_eq!(view["keyPackage"]["cid"], record.cid().to_string());
        assert_eq!(view["keyPackage"]["rev"], record.commitment().rev().as_str());
        let value = atcomm_proto::keypackage::record_json(record.record()).expect("a record");
        assert_eq!(view["keyPackage"]["value"], value);
        assert_eq!(service.proof(&alice.did).expect("a proof"), car_of(&view));
    }

    fn getproof_gives_proofs_of_presence_and_of_absence(network) {
        let service = Setup::beside(network).start();
        let with = network.enrolled("with", 0, json!({}));
        let without = network.account("without", 1);
        let shows = |did: &str| proven(network, did, &service.proof(did).expect("a proof"));
        assert!(matches!(shows(&with.did), Proven::Present(_)));
        assert!(matches!(shows(&without.did), Proven::Absent(_)));
        with.delete_record();
        eventually("a proof of the removal", || {
            matches!(shows(&with.did), Proven::Absent(_)).then_some(())
        });
        // A proof signed by another account's key is no proof about this account.
        let car = service.proof(&with.did).expect("a proof");
        let key = network.signing_key(&without.did);
        let now = atcomm_proto::clock::Clock::system().now();
        let container = atcomm_proto::proof::Container::Commit;
        assert!(atcomm_proto::proof::verify(&car, container, &with.did(), &key, now).is_err());
    }

    fn refresh_looks_now_and_says_what_it_came_to(network) {
        // Without stream and backfill, only a refresh can change what the directory holds.
        let service = Setup::new(network).start();
        let alice = network.account("alice", 0);
        let outcome = |did: &str| service.refresh(did).expect("an outcome");
        assert_eq!(outcome(&alice.did)["outcome"], "notEnrolled");
        let put = alice.put(json!({}));
        let answer = outcome(&alice.did);
        assert_eq!(answer["outcome"], "package");
        assert_eq!(answer["recipient"]["keyPackage"]["cid"], put["cid"]);
        assert_eq!(answer["recipient"]["verification"]["method"], "getRecord");
        assert_eq!(answer["recipient"]["verification"]["source"], "request");
        let put = alice.put(json!({"label": "second"}));
        let before = service.recipient(&alice.did).expect("the first");
        assert_eq!(before["keyPackage"]["cid"], answer["recipient"]["keyPackage"]["cid"]);
        assert_eq!(outcome(&alice.did)["recipient"]["keyPackage"]["cid"], put["cid"]);
        assert_eq!(outcome(&alice.did)["outcome"], "unchanged");
        let after = service.recipient(&alice.did).expect("the second");
        assert_eq!(after["keyPackage"]["cid"], put["cid"]);
        alice.put_raw(json!({"$type": "at.didcomm.keyPackage", "did": 42}));
        let answer = outcome(&alice.did);
        assert_eq!(answer["outcome"], "invalid");
        assert_eq!(answer["reason"], "did");
        assert_eq!(answer.get("recipient"), None);
        alice.delete_record();
        assert_eq!(outcome(&alice.did)["outcome"], "removed");
        assert_eq!(outcome(&alice.did)["outcome"], "notEnrolled");
        alice.put(json!({}));
        outcome(&alice.did);
        alice.op("account.deactivate", json!({}));
        assert_eq!(outcome(&alice.did)["outcome"], "inactive");
        assert_eq!(service.refresh(UNKNOWN_DID).expect_err("no account").name, "DidNotFound");
    }

    fn errors_tell_apart_why_there_is_no_recipient(network) {
        let service = Setup::new(network).start();
        let refused = |actor: &str| {
            let failure = service.recipient(actor).expect_err("no recipient");
            (failure.status, failure.name)
        };
        let is = |status: u16, name: &str| (status, name.to_owned());
        assert_eq!(refused("nobody.pds0.test"), is(400, "HandleNotFound"));
        // The suffix is reserved, so that the name is never looked up.
        assert_eq!(refused("printer.local"), is(400, "HandleNotFound"));
        assert_eq!(refused(UNKNOWN_DID), is(400, "DidNotFound"));
        assert_eq!(refused("did:web:localhost%3A1025"), is(502, "UpstreamFailure"));

        let absent = network.account("absent", 0);
        assert_eq!(refused(&absent.did), is(400, "NotEnrolled"));
        assert_eq!(refused(&absent.handle), is(400, "NotEnrolled"));
        let unproven = network.arroba_account();
        assert_eq!(refused(&unproven.did), is(400, "NotEnrolledUnproven"));
        let away = network.enrolled("away", 0, json!({}));
        away.op("account.deactivate", json!({}));
        assert_eq!(refused(&away.did), is(400, "AccountInactive"));
        let gone = network.enrolled("gone", 0, json!({}));
        gone.op("account.delete", json!({"tombstone": true}));
        assert_eq!(refused(&gone.did), is(400, "DidNotFound"));
        let elsewhere = network.enrolled("elsewhere", 0, json!({}));
        move_services(&elsewhere, CLOSED_ORIGIN);
        assert_eq!(refused(&elsewhere.did), is(502, "UpstreamFailure"));

        let proof = |did: &str| service.proof(did).expect_err("no proof").name;
        assert_eq!(proof(UNKNOWN_DID), "DidNotFound");
        assert_eq!(proof(&unproven.did), "NotEnrolledUnproven");
        assert_eq!(proof(&away.did), "AccountInactive");
        assert_eq!(proof(&elsewhere.did), "UpstreamFailure");
    }

    fn an_invalid_package_is_refused_with_the_rule_that_it_breaks(network) {
        let service = Setup::beside(network).no_refresh_on_demand().start();
        let alice = network.enrolled("alice", 0, json!({}));
        let good = alice.made["keyPackage"].clone();
        service.until(&alice.did, "the good package", |_| true);
        let mut seen = String::new();
        for (field, value, rule) in [
            ("did", json!(42), "did"),
            ("did", json!("did:peer:0z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnw"), "did_method"),
            ("did", Value::Null, "did"),
            ("mediators", json!([]), "mediators_empty"),
            ("mediators", json!(["nothing"]), "mediator_did"),
            ("label", json!("a".repeat(65)), "label_too_long"),
            ("createdAt", json!("yesterday"), "created_at_syntax"),
            ("createdAt", Value::Null, "created_at"),
        ] {
            let mut record = good.clone();
            match value {
                Value::Null => drop(record.as_object_mut().expect("an object").shift_remove(field)),
                value => record[field] = value,
            }
            alice.put_raw(record);
            let failure = eventually(&format!("{field}: {rule}"), || {
                let failure = service.recipient(&alice.did).err()?;
                failure.message.contains(&format!("({rule}: ")).then_some(failure)
            });
            assert_eq!((failure.status, &*failure.name), (400, "InvalidKeyPackage"));
            assert_ne!(failure.message, seen);
            // The record is proven to be present although it is invalid.
            let car = service.proof(&alice.did).expect("a proof");
            assert!(matches!(proven(network, &alice.did, &car), Proven::Present(_)));
            seen = failure.message;
        }
        let put = alice.put(json!({}));
        service.until_cid(&alice.did, &put["cid"]);
    }

    fn unknown_fields_are_shown_verbatim(network) {
        let service = Setup::beside(network).no_refresh_on_demand().start();
        let alice = network.enrolled("alice", 0, json!({}));
        let mut record = alice.made["keyPackage"].clone();
        record["x-notes"] = json!({"nested": [1, -2, "three", null, true], "empty": {}});
        record["devices"] = json!([{"$type": "at.example.device", "id": "ü€😀"}]);
        let put = alice.put_raw(record.clone());
        let view = service.until_cid(&alice.did, &put["cid"]);
        assert_eq!(view["keyPackage"]["value"], record);
    }
}

/// Points the account's identity to another PDS address, as its owner could.
pub(crate) fn move_services(account: &Account, endpoint: &str) {
    let services =
        json!({"atproto_pds": {"type": "AtprotoPersonalDataServer", "endpoint": endpoint}});
    account.op("plc.update", json!({"set": {"services": services}}));
}

/// Compares the public key of the did:peer in an answer with the JWK of the generator.
fn assert_same_key(peer: &Value, multibase: &str) {
    let bytes = bs58::decode(multibase.strip_prefix('z').expect("base58btc")).into_vec();
    let bytes = bytes.expect("base58btc");
    // The first two bytes are the multicodec prefix of X25519.
    assert_eq!(bytes[..2], [0xec, 0x01]);
    let x = data_encoding::BASE64URL_NOPAD.encode(&bytes[2..]);
    assert!(peer["keys"].to_string().contains(&x), "{x} in {peer}");
}

#[test]
fn mediators_are_shown_in_order_with_what_is_known_of_each() {
    let network = Network::multikey();
    let service = Setup::beside(network).no_refresh_on_demand().start();
    let reachable = network.mediator();
    let (url, unreachable) = network.site();
    network.serve_mediator(&unreachable, &url, &format!("{CLOSED_ORIGIN}/didcomm"));
    let (_, without_document) = network.site();
    let (url, without_keys) = network.site();
    let mut document = mediator_document(&without_keys, &format!("{url}/didcomm"));
    document["keyAgreement"] = json!([]);
    let host = url.trim_start_matches("http://");
    let path = "/.well-known/did.json";
    network.op(
        "web.set",
        json!({"host": host, "path": path, "body": document}),
    );
    let other_method = format!("did:key:{MEDIATOR_KEY}");
    let mut mediators = vec![
        &reachable,
        &unreachable,
        &without_document,
        &without_keys,
        &other_method,
        &reachable,
    ];
    let far_down = "did:web:far-down.test".to_owned();
    mediators.extend([&without_document, &without_document, &far_down]);
    // A did:peer that itself named as many mediators would exceed the greatest length of a
    // did:peer.
    let alice = network.enrolled("alice", 0, json!({}));
    let mut record = alice.made["keyPackage"].clone();
    record["mediators"] = json!(mediators);
    alice.put_raw(record);
    let states = |view: &Value| {
        let shown = view["mediators"].as_array().expect("a list").clone();
        shown
            .iter()
            .map(|m| text(m, "/state").to_owned())
            .collect::<Vec<_>>()
    };
    let view = service.until(&alice.did, "every mediator checked", |view| {
        let states = states(view);
        states.len() == 9 && states[..8].iter().all(|state| state != "unchecked")
    });
    assert_eq!(
        states(&view),
        [
            "reachable",
            "unreachable",
            "unresolved",
            "unresolved",
            "unsupported",
            "reachable",
            "unresolved",
            "unresolved",
            "unchecked",
        ]
    );
    for (shown, did) in view["mediators"]
        .as_array()
        .expect("a list")
        .iter()
        .zip(mediators)
    {
        assert_eq!(shown["did"], **did);
    }
    let first = &view["mediators"][0];
    assert_eq!(first["keyAgreement"][0]["publicKeyMultibase"], MEDIATOR_KEY);
    assert_eq!(first["keyAgreement"][0]["id"], format!("{reachable}#key-1"));
    let service_view = &first["services"][0];
    assert!(text(service_view, "/uri").ends_with("/didcomm"));
    assert_eq!(service_view["accept"], json!(["didcomm/v2"]));
    assert_eq!(
        service_view["routingKeys"],
        json!([format!("{reachable}#key-1")])
    );
    // A sender can still encrypt to a mediator that does not answer at the moment.
    assert_eq!(
        view["mediators"][1]["services"][0]["uri"],
        format!("{CLOSED_ORIGIN}/didcomm")
    );
}

#[test]
fn two_accounts_with_one_messaging_did_are_marked_ambiguous() {
    let network = Network::multikey();
    let service = Setup::beside(network).no_refresh_on_demand().start();
    let alice = network.enrolled("alice", 0, json!({}));
    let peer = alice.made["peer"]["did"].clone();
    let is_ambiguous = |account: &Account, wanted: bool| {
        service.until(&account.did, &format!("ambiguous: {wanted}"), |view| {
            view["peer"]["ambiguous"] == wanted
        });
    };
    is_ambiguous(&alice, false);
    let mallory = network.enrolled("mallory", 1, json!({"did": peer}));
    is_ambiguous(&alice, true);
    is_ambiguous(&mallory, true);
    mallory.delete_record();
    is_ambiguous(&alice, false);
}

#[test]
fn an_answer_that_the_caller_has_already_is_not_sent_again() {
    let network = Network::multikey();
    let service = Setup::beside(network).no_refresh_on_demand().start();
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package with its handle", |view| {
        view["handle"] == *alice.handle && view["mediators"][0]["state"] != "unchecked"
    });
    for (nsid, params) in [
        (RESOLVE, [("actor", &*alice.did)]),
        (RESOLVE, [("actor", &*alice.handle)]),
        (PROOF, [("did", &*alice.did)]),
    ] {
        let answer = service.query(nsid, &params);
        let etag = answer.header("etag").to_owned();
        assert!(
            etag.trim_start_matches("W/").starts_with('"') && etag.ends_with('"'),
            "{etag}"
        );
        let age = answer.header("cache-control").rsplit_once("max-age=");
        let age: u32 = age.and_then(|(_, age)| age.parse().ok()).expect("an age");
        assert!((1..=30).contains(&age), "{age}");
        let again = |tags: &str| service.query_with(nsid, &params, &[("if-none-match", tags)]);
        let unchanged = again(&format!("\"other\", {etag}"));
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
        assert_eq!(unchanged.header("etag"), etag);
        assert_eq!(again("\"other\"").status, 200);
        let put = alice.put(json!({"label": nsid}));
        service.until_cid(&alice.did, &put["cid"]);
        let changed = again(&etag);
        assert_eq!(changed.status, 200);
        assert_ne!(changed.header("etag"), etag);
    }
}

#[test]
fn the_service_answers_pages_of_any_origin_and_says_what_it_does_not_have() {
    let network = Network::multikey();
    let service = Setup::new(network).start();
    let open = |method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>| {
        let body = body.map(|body| body.as_bytes().to_vec());
        let answer = request(method, &service.url(path), headers, body);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "*",
            "{method} {path}"
        );
        answer
    };
    let health = open("GET", "/xrpc/_health", &[], None);
    assert_eq!(health.status, 200);
    assert_eq!(health.json(), json!({"version": env!("CARGO_PKG_VERSION")}));
    let page = open("GET", "/", &[], None);
    assert!(page.status == 200 && page.text().contains(RESOLVE));
    assert!(
        open("GET", "/robots.txt", &[], None)
            .text()
            .contains("Disallow")
    );

    let resolve = format!("/xrpc/{RESOLVE}");
    let asked = [
        ("origin", "https://page.example.com"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let preflight = open("OPTIONS", &format!("/xrpc/{REFRESH}"), &asked, None);
    assert!(matches!(preflight.status, 200 | 204));
    assert!(
        preflight
            .header("access-control-allow-methods")
            .contains("POST")
    );
    assert!(
        preflight
            .header("access-control-allow-headers")
            .contains("content-type")
    );

    let error = |answer: crate::http::Answer| {
        let failure = xrpc_error(RESOLVE, &answer);
        (failure.status, failure.name)
    };
    let invalid = (400, "InvalidRequest".to_owned());
    let not_there = open("GET", "/nothing", &[], None);
    assert_eq!(
        (not_there.status, text(&not_there.json(), "/error")),
        (404, "NotFound")
    );
    let unknown = open("GET", "/xrpc/at.didcomm.directory.makeTea", &[], None);
    assert_eq!(error(unknown), (501, "MethodNotImplemented".to_owned()));
    let wrong_verb = open("POST", &resolve, &[], Some(""));
    assert_eq!(wrong_verb.status, 405);
    assert!(wrong_verb.header("allow").contains("GET"));
    assert_eq!(
        open("GET", &format!("/xrpc/{REFRESH}"), &[], None).status,
        405
    );
    for bad in [
        "",
        "?actor=",
        "?actor=not%20a%20handle",
        "?actor=a.test&actor=b.test",
        "?actor=did:key:x",
    ] {
        assert_eq!(
            error(open("GET", &format!("{resolve}{bad}"), &[], None)),
            invalid,
            "{bad}"
        );
    }
    let json_type = [("content-type", "application/json")];
    for (headers, body) in [
        (&json_type[..], "{}"),
        (&json_type[..], "nothing"),
        (&json_type[..], "{\"did\": \"alice\"}"),
        (&[("content-type", "text/plain")][..], "{}"),
    ] {
        let answer = open("POST", &format!("/xrpc/{REFRESH}"), headers, Some(body));
        assert_eq!(error(answer), invalid, "{body}");
    }
    let long = format!("{{\"did\": \"{}\"}}", "a".repeat(5000));
    let answer = open("POST", &format!("/xrpc/{REFRESH}"), &json_type, Some(&long));
    assert_eq!(error(answer), (413, "PayloadTooLarge".to_owned()));
}

#[test]
fn addresses_have_a_rate_limit_and_the_service_a_budget() {
    let network = Network::multikey();
    let limited = Setup::new(network)
        .set("resolve.misses_per_minute", json!(2))
        .start();
    let alice = network.enrolled("alice", 0, json!({}));
    limited.recipient(&alice.did).expect("the first refresh");
    let others = [
        UNKNOWN_DID,
        "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb",
        "did:plc:cccccccccccccccccccccccc",
    ];
    let last = others.map(|did| limited.recipient(did).expect_err("no account"));
    let last = last.last().expect("three");
    assert_eq!((last.status, &*last.name), (429, "RateLimitExceeded"));
    assert!(
        last.retry_after
            .is_some_and(|seconds| (1..=60).contains(&seconds))
    );
    limited
        .recipient(&alice.did)
        .expect("what is known costs nothing");
    // Another client address, as reported by the proxy in front of the service, has its own rate
    // limit.
    let headers = [("x-forwarded-for", "203.0.113.7")];
    let answer = limited.query_with(RESOLVE, &[("actor", others[2])], &headers);
    assert_eq!(
        checked(RESOLVE, &answer).expect_err("no account").name,
        "DidNotFound"
    );

    let full = Setup::new(network).no_refresh_on_demand().start();
    let failure = full.recipient(&alice.did).expect_err("no refresh");
    assert_eq!((failure.status, &*failure.name), (503, "Overloaded"));
    assert!(failure.retry_after.is_some());
    assert_eq!(
        full.refresh(&alice.did).expect_err("no refresh").status,
        503
    );
}

#[test]
fn inv9_no_log_line_or_metric_names_who_was_asked_for() {
    let network = Network::multikey();
    let service = Setup::new(network)
        .set("log.filter", json!("info,atcomm=debug"))
        .start();
    let alice = network.enrolled("alice", 0, json!({}));
    service.recipient(&alice.handle).expect("the package");
    service
        .recipient_with_proof(&alice.did)
        .expect("the package");
    service
        .recipient("nobody.pds0.test")
        .expect_err("no account");
    service.refresh(&alice.did).expect("an outcome");
    for written in [service.log(), service.metrics_page()] {
        for name in [&alice.did, &alice.handle, "nobody.pds0.test"] {
            assert!(!written.contains(name), "{name} in {written}");
        }
    }
}
