//! Refusals of signed messages.

use serde_json::{Value, json};

use super::forge::{encode, json_of};
use super::*;

fn open(message: &Value, parties: &[&Actor]) -> Result<Unpacked, EnvelopeError> {
    unpack(
        message.to_string().as_bytes(),
        &Vec::new(),
        &knowing(parties),
    )
}

fn refusal(message: &Value, parties: &[&Actor]) -> EnvelopeError {
    open(message, parties).expect_err("it was opened")
}

/// Returns a signature over this payload with this header.
fn signature(payload: &str, protected: &Value, by: &SecretKey) -> Value {
    let protected = encode(protected.to_string());
    let input = format!("{protected}.{payload}");
    let signature = match by.pair() {
        key::Pair::Ed25519(pair) => pair.sign(input.as_bytes()),
        key::Pair::P256(pair) => pair.sign(input.as_bytes()),
        key::Pair::X25519(_) => None,
    };
    json!({
        "protected": protected,
        "signature": encode(signature.unwrap()),
        "header": {"kid": by.kid()},
    })
}

#[test]
fn a_signature_holds_over_header_and_payload() {
    let alice = alice();
    let sound = json_of(&sign(&message(&alice, &bob()), &alice.signing).unwrap());
    open(&sound, &[&alice]).unwrap();
    let mut other = sound.clone();
    other["payload"] = encode("{\"from\":\"did:example:alice\"}").into();
    assert_eq!(refusal(&other, &[&alice]), EnvelopeError::Signature);
    let mut other = sound.clone();
    other["signatures"][0]["protected"] = encode("{\"alg\":\"EdDSA\"}").into();
    assert_eq!(refusal(&other, &[&alice]), EnvelopeError::Signature);
    for bytes in [0, 63, 64, 65] {
        let mut other = sound.clone();
        other["signatures"][0]["signature"] = encode(vec![0; bytes]).into();
        assert_eq!(
            refusal(&other, &[&alice]),
            EnvelopeError::Signature,
            "{bytes}"
        );
    }
    let imposter = Actor::new("did:example:alice", Curve::X25519, Curve::Ed25519);
    assert_eq!(refusal(&sound, &[&imposter]), EnvelopeError::Signature);
    assert_eq!(refusal(&sound, &[]).code(), "unresolved");
}

#[test]
fn the_signer_is_from_and_lists_the_key_for_authentication() {
    let (alice, bob) = (alice(), bob());
    for from in [json!("did:example:bob"), json!(null)] {
        let plaintext = json!({"from": from}).to_string();
        let signed = json_of(&sign(plaintext.as_bytes(), &alice.signing).unwrap());
        assert_eq!(refusal(&signed, &[&alice, &bob]), EnvelopeError::From);
    }
    let key = SecretKey::generate(Curve::P256, "did:example:alice#enc");
    let mut other = Actor::new("did:example:alice", Curve::P256, Curve::P256);
    other.party = Party::from_document("did:example:alice", vec![key.public()], Vec::new());
    let signed = json_of(&sign(&message(&other, &bob), &key).unwrap());
    assert_eq!(refusal(&signed, &[&other]), EnvelopeError::SenderKey);
}

#[test]
fn an_algorithm_is_known_and_of_the_keys_curve() {
    let alice = alice();
    let payload = encode(message(&alice, &bob()));
    let with = |header: Value| {
        let one = signature(&payload, &header, &alice.signing);
        open(&json!({"payload": payload, "signatures": [one]}), &[&alice]).map(drop)
    };
    assert_eq!(with(json!({"alg": "EdDSA"})), Ok(()));
    for alg in [
        json!("none"),
        json!("ES256K"),
        json!("HS256"),
        json!(""),
        json!(null),
    ] {
        assert_eq!(
            with(json!({"alg": alg})),
            Err(EnvelopeError::Algorithm),
            "{alg}"
        );
    }
    assert_eq!(with(json!({"alg": "ES256"})), Err(EnvelopeError::Curve));
    for name in ["crit", "b64", "zip"] {
        let refused = with(json!({"alg": "EdDSA", name: [name]}));
        assert_eq!(refused.unwrap_err().code(), "header", "{name}");
    }
}

#[test]
fn a_signature_names_one_key() {
    let alice = alice();
    let payload = encode(message(&alice, &bob()));
    let with = |protected: Value, header: Value| {
        let mut one = signature(&payload, &protected, &alice.signing);
        one["header"] = header;
        open(&json!({"payload": payload, "signatures": [one]}), &[&alice]).map(drop)
    };
    let kid = alice.signing.kid();
    assert_eq!(with(json!({"alg": "EdDSA", "kid": kid}), json!({})), Ok(()));
    assert_eq!(
        with(json!({"alg": "EdDSA", "kid": kid}), json!({"kid": kid})),
        Ok(())
    );
    let two = with(
        json!({"alg": "EdDSA", "kid": kid}),
        json!({"kid": "did:example:bob#sig"}),
    );
    assert_eq!(two.unwrap_err().code(), "header");
    assert_eq!(
        with(json!({"alg": "EdDSA"}), json!({})),
        Err(EnvelopeError::KeyId)
    );
    let outside = with(json!({"alg": "EdDSA"}), json!({"kid": kid, "alg": "EdDSA"}));
    assert_eq!(outside.unwrap_err().code(), "header");
}

#[test]
fn all_signatures_hold_and_are_of_one_party() {
    let (alice, bob) = (alice(), bob());
    let payload = encode(message(&alice, &bob));
    let by = |key: &SecretKey| signature(&payload, &json!({"alg": "EdDSA"}), key);
    let open = |signatures: Vec<Value>| {
        let signed = json!({"payload": payload, "signatures": signatures});
        open(&signed, &[&alice, &bob]).map(drop)
    };
    let (own, foreign) = (by(&alice.signing), by(&bob.signing));
    assert_eq!(open(vec![own.clone(); MAX_SIGNATURES]), Ok(()));
    assert_eq!(
        open(vec![own.clone(); MAX_SIGNATURES + 1]),
        Err(EnvelopeError::Limit("signatures"))
    );
    assert_eq!(open(vec![own.clone(), foreign]), Err(EnvelopeError::From));
    let mut broken = own.clone();
    broken["signature"] = encode([1; 64]).into();
    assert_eq!(
        open(vec![own.clone(), broken]),
        Err(EnvelopeError::Signature)
    );
    assert_eq!(open(Vec::new()).unwrap_err().code(), "header");
    // Flattened (RFC 7515, section 7.2.2).
    let mut flat = own;
    flat["payload"] = payload.clone().into();
    assert_eq!(super::signatures::open(&flat, &[&alice]).map(drop), Ok(()));
    flat["signatures"] = json!([]);
    assert_eq!(refusal(&flat, &[&alice]).code(), "header");
}
