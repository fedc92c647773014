use serde_json::json;

use super::*;
use atcomm_net::net::Response;
use testkit::proto::account::TestAccount;

fn good() -> Value {
    let mut alice = TestAccount::new(7);
    let package = alice.put(3, &json!({}));
    json!({
        "did": alice.log.did().as_str(),
        "handle": "alice.example.com",
        "pds": "https://pds.example.com",
        "status": "active",
        "keyPackage": {
            "uri": "at://x", "cid": package.cid(), "rev": package.rev().as_str(),
            "value": package.value(),
        },
        "peer": {
            "did": package.peer(), "keyAgreement": [], "authentication": [], "ambiguous": true,
        },
        "mediators": [
            {"did": "did:web:m.example.com", "state": "reachable", "reason": "a\u{1b}[2Jb"},
            {"did": "did:web:n.example.com", "state": "something new"},
            {"did": "no", "state": "reachable"},
        ],
        "verification": {
            "signingKey": "x", "method": "getRecord", "observedAt": "x", "source": "pds",
            "provedAt": "2026-06-14T00:00:00.000Z", "stale": false, "age": 1, "more": null,
        },
        "proof": {"car": Base64::encode(&alice.repo.car()), "plcLog": alice.log.0},
        "unknown": {},
    })
}

fn read_view(value: &Value) -> Result<View, DirectoryError> {
    view(value.to_string().as_bytes())
}

#[test]
fn a_view_is_read_with_what_is_not_known_passed_over() {
    let shown = good();
    let view = read_view(&shown).unwrap();
    assert!(view.ambiguous && !view.stale);
    assert_eq!(view.mediators.len(), 1);
    assert_eq!(view.mediators[0].reason.as_ref().unwrap(), "a\u{fffd}[2Jb");
    assert!(view.car.is_some() && view.plc_log.is_some());
    assert_eq!(
        view.proved_at,
        Timestamp::parse_rfc3339("2026-06-14T00:00:00Z")
    );
    assert_eq!(
        serde_json::from_str::<Value>(view.answer.get()).unwrap(),
        shown
    );
    let mut plain = good();
    plain.as_object_mut().unwrap().shift_remove("proof");
    plain.as_object_mut().unwrap().shift_remove("mediators");
    let view = read_view(&plain).unwrap();
    assert!(view.car.is_none() && view.plc_log.is_none() && view.mediators.is_empty());
}

#[test]
fn a_view_of_another_shape_is_refused() {
    for (pointer, value) in [
        ("/did", json!("did:key:z6Mk")),
        ("/did", json!(null)),
        ("/handle", json!(1)),
        ("/keyPackage/rev", json!("yesterday")),
        ("/keyPackage", json!([])),
        ("/peer/ambiguous", json!("no")),
        ("/mediators", json!({})),
        ("/verification/stale", json!(null)),
        ("/proof/car", json!("AAAA")),
        ("/proof/car/$bytes", json!("%")),
    ] {
        let mut bad = good();
        *bad.pointer_mut(pointer).unwrap() = value.clone();
        let error = read_view(&bad).unwrap_err();
        assert!(
            matches!(error, DirectoryError::Malformed(_)),
            "{pointer} {value}: {error:?}"
        );
    }
    for noise in ["", "[]", "null", "{", "\u{0}"] {
        assert!(view(noise.as_bytes()).is_err(), "{noise}");
    }
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(view(deep.as_bytes()).is_err());
    let mut many = good();
    many["mediators"] = json!(vec![&good()["mediators"][0]; 1000]);
    assert_eq!(read_view(&many).unwrap().mediators.len(), MAX_MEDIATORS);
}

#[test]
fn a_history_is_the_account_s_own_and_bounded() {
    let did = Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    let change = json!({
        "seq": 1, "kind": "package", "seenAt": "2026-06-14T00:00:00Z",
        "proof": {"car": {"$bytes": "AAAA"}},
    });
    let read = |did: &Did, of: &str, changes: &Value| {
        let body = json!({"did": of, "changes": changes, "cursor": "1"});
        history(body.to_string().as_bytes(), did)
    };
    let one = read(&did, did.as_str(), &json!([change])).unwrap();
    assert_eq!(one[0].car.as_deref(), Some(&[0, 0, 0][..]));
    assert_eq!(one[0].kind, "package");
    let many = read(&did, did.as_str(), &json!(vec![&change; 1000])).unwrap();
    assert_eq!(many.len(), PAGE);
    assert!(read(&did, "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb", &json!([])).is_err());
    let mut bad = change;
    bad["seenAt"] = json!("yesterday");
    assert!(read(&did, did.as_str(), &json!([bad])).is_err());
}

#[test]
fn answers_that_are_none_are_told_apart() {
    let answered = |status: u16, body: Value| {
        let answer = Response {
            status: http::StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: body.to_string().into(),
            retry_after: Some(Duration::from_secs(9)),
        };
        let answer = answer.accepted().map_err(DirectoryError::from);
        answer
            .and_then(|body| read::<Refreshed>(&body))
            .unwrap_err()
    };
    let error = |name: &str| json!({"error": name, "message": "m\u{7}essage"});
    let refused = answered(400, error("NotEnrolled"));
    let DirectoryError::Refused { name, message } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (*name, message.as_str()),
        (LexiconError::NotEnrolled, "m\u{fffd}essage")
    );
    assert!(matches!(
        answered(502, error("UpstreamFailure")),
        DirectoryError::Refused {
            name: LexiconError::UpstreamFailure,
            ..
        }
    ));
    for (status, name) in [(429, "RateLimitExceeded"), (503, "Overloaded")] {
        let busy = answered(status, error(name));
        assert_eq!(
            busy.to_string(),
            "the directory is busy; it asks to come back after 9 s"
        );
        assert_eq!(answered(status, json!("x")), busy);
    }
    for (status, body) in [(500, error("InternalServerError")), (504, json!("x"))] {
        let error = answered(status, body);
        assert!(matches!(error, DirectoryError::Unreachable(_)), "{error:?}");
    }
    for (status, body) in [
        (501, error("MethodNotImplemented")),
        (404, json!("<html>")),
        (301, json!(null)),
        (400, error("InvalidRequest")),
        (204, json!(null)),
    ] {
        let error = answered(status, body);
        assert!(matches!(error, DirectoryError::Malformed(_)), "{error:?}");
    }
    let long = answered(
        400,
        json!({"error": "x".repeat(10_000), "message": "y".repeat(10_000)}),
    );
    assert!(long.to_string().len() < 1000);
}
