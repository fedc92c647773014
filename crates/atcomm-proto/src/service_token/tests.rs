use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::plc::{TestKey, k256, p256};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const NOW_SECONDS: i64 = 1_800_000_000;
const METHOD: &str = "at.didcomm.directory.resolveRecipient";

fn service() -> MediatorDid {
    MediatorDid::parse("did:web:dir.example.com").unwrap()
}

fn header(alg: &str) -> Value {
    json!({"typ": "JWT", "alg": alg})
}

fn claims() -> Value {
    json!({
        "iss": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa",
        "aud": "did:web:dir.example.com#atcomm_directory",
        "lxm": METHOD,
        "iat": NOW_SECONDS,
        "exp": NOW_SECONDS + 60,
        "jti": "0123456789abcdef",
    })
}

/// The claims with one changed, or removed where the value is null.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => claims.as_object_mut().unwrap().remove(name),
        value => claims
            .as_object_mut()
            .unwrap()
            .insert(name.to_owned(), value),
    };
    claims
}

/// Reads, checks and verifies a token.
fn accept(token: &str, key: &TestKey) -> Result<Did, TokenError> {
    let read = ServiceToken::parse(token, NOW)?;
    read.check(&service(), "atcomm_directory", METHOD, NOW)?;
    read.verify(&key.public())?;
    Ok(read.account().clone())
}

#[test]
fn a_token_of_an_account_is_taken_under_either_curve_and_either_name_of_the_service() {
    for (key, alg) in [(k256(1), "ES256K"), (p256(1), "ES256")] {
        for aud in [
            "did:web:dir.example.com",
            "did:web:dir.example.com#atcomm_directory",
        ] {
            let token = key.token(&header(alg), &with("aud", json!(aud)));
            let account = accept(&token, &key).map(|did| did.to_string());
            assert_eq!(account.as_deref(), Ok("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"));
        }
        // What is not needed may be missing, and times may have a fraction.
        for claims in [
            with("jti", Value::Null),
            with("iat", Value::Null),
            with("exp", json!(NOW_SECONDS as f64 + 0.5)),
            with("nbf", json!(NOW_SECONDS + 20)),
            with("more", json!([1, 2])),
        ] {
            assert!(
                accept(&key.token(&header(alg), &claims), &key).is_ok(),
                "{claims}"
            );
        }
        let bare = json!({"alg": alg});
        assert!(accept(&key.token(&bare, &claims()), &key).is_ok());
    }
}

#[test]
fn a_token_for_something_else_is_refused_by_name() {
    let key = k256(1);
    for (name, value, code) in [
        ("aud", json!("did:web:other.example.com"), "BadJwtAudience"),
        (
            "aud",
            json!("did:web:dir.example.com#atproto_labeler"),
            "BadJwtAudience",
        ),
        ("aud", json!("did:web:dir.example.com#"), "BadJwtAudience"),
        (
            "aud",
            json!("did:web:dir.example.com#atcomm_directory#"),
            "BadJwtAudience",
        ),
        ("aud", json!("DID:WEB:dir.example.com"), "BadJwtAudience"),
        ("aud", json!(["did:web:dir.example.com"]), "BadJwt"),
        ("aud", Value::Null, "BadJwt"),
        (
            "lxm",
            json!("at.didcomm.directory.getProof"),
            "BadJwtLexiconMethod",
        ),
        ("lxm", json!("*"), "BadJwtLexiconMethod"),
        ("lxm", Value::Null, "BadJwtLexiconMethod"),
        ("exp", json!(NOW_SECONDS - 31), "JwtExpired"),
        ("exp", json!(0), "JwtExpired"),
        ("exp", json!(NOW_SECONDS + 3700), "BadJwt"),
        ("exp", json!(1e300), "BadJwt"),
        ("exp", json!(-1), "BadJwt"),
        ("exp", json!("soon"), "BadJwt"),
        ("exp", Value::Null, "BadJwt"),
        ("nbf", json!(NOW_SECONDS + 60), "BadJwt"),
        (
            "iss",
            json!("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa#atproto_labeler"),
            "BadJwt",
        ),
        ("iss", json!("alice.example.com"), "BadJwt"),
        ("iss", Value::Null, "BadJwt"),
    ] {
        let token = key.token(&header("ES256K"), &with(name, value.clone()));
        let refused = accept(&token, &key).map_err(TokenError::code);
        assert_eq!(refused.err(), Some(code), "{name} {value}");
    }
}

#[test]
fn only_the_accounts_own_key_signs() {
    let (key, other) = (k256(1), k256(2));
    let token = key.token(&header("ES256K"), &claims());
    assert_eq!(accept(&token, &other), Err(TokenError::Signature));
    // A key of the other curve, and a token that says so falsely.
    assert_eq!(accept(&token, &p256(1)), Err(TokenError::Signature));
    let token = key.token(&header("ES256"), &claims());
    assert_eq!(accept(&token, &key), Err(TokenError::Signature));
    // Another account's claims under the same signature.
    let parts: Vec<_> = token.split('.').collect();
    let claims = with("iss", json!("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"));
    let claims = BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
    let forged = format!("{}.{claims}.{}", parts[0], parts[2]);
    assert_eq!(accept(&forged, &key), Err(TokenError::Signature));
}

#[test]
fn what_is_no_token_is_refused() {
    let key = k256(1);
    let unsigned = |header: &Value| key.token(header, &claims());
    for token in [
        String::new(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        "a".repeat(MAX_TOKEN_LEN + 1),
        key.token(&header("ES256K"), &claims()) + ".x",
        key.token(&header("ES256K"), &claims()) + "=",
        unsigned(&header("none")),
        unsigned(&header("HS256")),
        unsigned(&json!({"typ": "at+jwt", "alg": "ES256K"})),
        unsigned(&json!({"typ": "dpop+jwt", "alg": "ES256K"})),
        unsigned(&json!({"typ": "JWT", "alg": "ES256K", "crit": ["b64"]})),
        unsigned(&json!(["ES256K"])),
    ] {
        let refused = accept(&token, &key).map_err(TokenError::code);
        assert_eq!(refused.err(), Some("BadJwt"), "{token}");
    }
}

#[test]
fn a_token_is_recognised_when_it_comes_again() {
    let key = k256(1);
    let identity = |claims: &Value| {
        let token = key.token(&header("ES256K"), claims);
        ServiceToken::parse(&token, NOW).unwrap().identity()
    };
    let first = identity(&claims());
    assert_eq!(first, identity(&claims()));
    // The same number in another token of the account is the same use.
    assert_eq!(first, identity(&with("lxm", json!("x"))));
    assert_ne!(first, identity(&with("jti", json!("x"))));
    let other = json!("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb");
    assert_ne!(first, identity(&with("iss", other)));
    let mut without = with("jti", Value::Null);
    let bare = identity(&without);
    assert_eq!(bare, identity(&without));
    without["exp"] = json!(NOW_SECONDS + 61);
    assert_ne!(bare, identity(&without));
}

proptest! {
    #[test]
    fn inv8_no_text_makes_the_reader_panic(token in "[a-zA-Z0-9_.-]{0,200}") {
        let _ = ServiceToken::parse(&token, NOW);
    }

    #[test]
    fn a_changed_token_is_refused(at in 0_usize..400, byte in b'a'..=b'z') {
        let key = k256(1);
        let token = key.token(&header("ES256K"), &claims());
        let mut bytes = token.clone().into_bytes();
        let at = at % bytes.len();
        if bytes[at] != byte {
            bytes[at] = byte;
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert!(accept(&changed, &key).is_err(), "{}", changed);
        }
    }
}
