use shrike::crypto::{K256SigningKey, P256SigningKey, SigningKey as _, parse_did_key};

use super::*;

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignatureFixture {
    comment: String,
    message_base64: String,
    #[serde(rename = "publicKeyDid")]
    public_key: String,
    signature_base64: String,
    valid_signature: bool,
}

/// The interop vectors of atproto: valid, high-S and DER-encoded signatures on both curves.
#[test]
fn interop_signature_fixtures() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/interop/atproto-interop-tests/crypto_signature_fixtures.json"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let fixtures: Vec<SignatureFixture> = serde_json::from_str(&text).unwrap();
    assert!(fixtures.len() >= 6);
    let decode = |s: &str| {
        data_encoding::BASE64_NOPAD
            .decode(s.trim_end_matches('=').as_bytes())
            .unwrap()
    };
    for f in fixtures {
        let key = SigningKey::from_did_key(&f.public_key).unwrap();
        let ok = key
            .verify(&decode(&f.message_base64), &decode(&f.signature_base64))
            .is_ok();
        assert_eq!(ok, f.valid_signature, "{}", f.comment);
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signatures {
    signatures: Vec<Signed>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signed {
    what: String,
    valid: bool,
    message: String,
    did_key: String,
    signature: String,
}

/// More signatures, judged by the reference implementation.
#[test]
fn reference_signatures() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/interop/crypto/signatures.json"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let all: Signatures = serde_json::from_str(&text).unwrap();
    assert!(all.signatures.iter().any(|s| s.valid) && all.signatures.iter().any(|s| !s.valid));
    for s in all.signatures {
        let decode = |s: &str| data_encoding::BASE64.decode(s.as_bytes()).unwrap();
        let ok = SigningKey::from_did_key(&s.did_key).is_ok_and(|key| {
            key.verify(&decode(&s.message), &decode(&s.signature))
                .is_ok()
        });
        assert_eq!(ok, s.valid, "{}", s.what);
    }
}

#[test]
fn every_shape_of_a_key_is_the_same_key() {
    let k256 = K256SigningKey::from_bytes(&[7; 32]).unwrap();
    let p256 = P256SigningKey::from_bytes(&[7; 32]).unwrap();
    for (curve, did_key, compressed) in [
        (
            Curve::K256,
            k256.public_key().did_key(),
            k256.public_key().to_bytes(),
        ),
        (
            Curve::P256,
            p256.public_key().did_key(),
            p256.public_key().to_bytes(),
        ),
    ] {
        let key = SigningKey::from_did_key(&did_key).unwrap();
        assert_eq!((key.curve(), key.did_key()), (curve, did_key.clone()));
        // The proof library and this module must agree whose signature is checked.
        assert_eq!(
            parse_did_key(&key.did_key()).unwrap().to_bytes(),
            compressed
        );
        let mut uncompressed = match curve {
            Curve::K256 => k256::PublicKey::from_sec1_bytes(&compressed)
                .map(|k| k256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&k, false))
                .unwrap()
                .as_bytes()
                .to_vec(),
            Curve::P256 => p256::PublicKey::from_sec1_bytes(&compressed)
                .map(|k| p256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&k, false))
                .unwrap()
                .as_bytes()
                .to_vec(),
        };
        let text = format!("z{}", bs58::encode(&uncompressed).into_string());
        assert_eq!(SigningKey::from_legacy(curve, &text).unwrap(), key);
        // The same x with another y of the same parity is not a point of the curve.
        uncompressed[64] ^= 2;
        let text = format!("z{}", bs58::encode(&uncompressed).into_string());
        assert_eq!(SigningKey::from_legacy(curve, &text), Err(KeyError::Point));
    }
}

#[test]
fn malformed_keys_are_refused() {
    let good = K256SigningKey::from_bytes(&[7; 32])
        .unwrap()
        .public_key()
        .did_key();
    assert_eq!(
        SigningKey::from_did_key(&good[8..]),
        Err(KeyError::Multibase)
    );
    assert_eq!(SigningKey::from_multikey("z0OIl"), Err(KeyError::Multibase));
    assert_eq!(
        SigningKey::from_multikey(&"z1".repeat(200)),
        Err(KeyError::Multibase)
    );
    assert_eq!(
        SigningKey::from_multikey("z"),
        Err(KeyError::UnsupportedType)
    );
    // An X25519 key is a Multikey of another type.
    let x25519 = format!(
        "z{}",
        bs58::encode([&[0xec, 0x01][..], &[9; 32]].concat()).into_string()
    );
    assert_eq!(
        SigningKey::from_multikey(&x25519),
        Err(KeyError::UnsupportedType)
    );
    let short = format!(
        "z{}",
        bs58::encode([&K256_CODEC[..], &[2; 32]].concat()).into_string()
    );
    assert_eq!(SigningKey::from_multikey(&short), Err(KeyError::Point));
    let off = format!(
        "z{}",
        bs58::encode([&K256_CODEC[..], &[0xff; 33]].concat()).into_string()
    );
    assert_eq!(SigningKey::from_multikey(&off), Err(KeyError::Point));
}

#[test]
fn signatures_of_other_lengths_are_refused() {
    let secret = P256SigningKey::from_bytes(&[7; 32]).unwrap();
    let key = SigningKey::from_did_key(&secret.public_key().did_key()).unwrap();
    let sig = secret.sign(b"message").unwrap();
    assert_eq!(key.verify(b"message", sig.as_bytes()), Ok(()));
    assert_eq!(key.verify(b"messagf", sig.as_bytes()), Err(BadSignature));
    assert_eq!(
        key.verify(b"message", &sig.as_bytes()[..63]),
        Err(BadSignature)
    );
    assert_eq!(
        key.verify(b"message", &[sig.as_bytes(), &[0][..]].concat()),
        Err(BadSignature)
    );
    assert_eq!(key.verify(b"message", &[]), Err(BadSignature));
}
