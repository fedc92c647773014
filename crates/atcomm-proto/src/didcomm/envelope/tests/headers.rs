//! Refusals of encrypted messages for their keys, headers and members, each with a message that has
//! only one fault.

use askar_crypto::alg::aes::{A256Kw, AesKey};
use askar_crypto::repr::KeySecretBytes as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::forge::{Forge, encode, json_of};
use super::scene::{CBC, scene};
use super::*;
use crate::didcomm::envelope::agreement::WrappingKey;
use crate::didcomm::envelope::pack::jwk;
use crate::didcomm::key::Pair;

/// Returns every spelling of a key of low order.
fn low_order() -> Vec<[u8; 32]> {
    let hex = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let mut keys: Vec<[u8; 32]> = hex
        .iter()
        .map(|hex| {
            data_encoding::HEXLOWER
                .decode(hex.as_bytes())
                .unwrap()
                .try_into()
                .unwrap()
        })
        .collect();
    // The highest bit is ignored.
    keys.extend(keys.clone().into_iter().map(|mut key| {
        key[31] |= 0x80;
        key
    }));
    keys
}

/// Returns the wrapping key that everyone can compute: derived from a shared secret of zeros.
fn wrapping_key_of_zeros(header: &Value) -> WrappingKey {
    let mut input = vec![0, 0, 0, 1];
    input.extend([0; 32]);
    let apv = data_encoding::BASE64URL_NOPAD.decode(header["apv"].as_str().unwrap().as_bytes());
    for part in [&b"ECDH-ES+A256KW"[..], b"", &apv.unwrap()] {
        input.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        input.extend(part);
    }
    input.extend(256_u32.to_be_bytes());
    WrappingKey::new(AesKey::<A256Kw>::from_secret_bytes(&Sha256::digest(input)).unwrap())
}

#[test]
fn an_ephemeral_key_of_low_order_is_refused() {
    let scene = scene();
    for key in low_order() {
        let forge = scene.anon();
        let mut header = forge.header();
        header["epk"] = json!({"kty": "OKP", "crv": "X25519", "x": encode(key)});
        let packed = forge.seal(&header.to_string(), |_, _| wrapping_key_of_zeros(&header));
        assert_eq!(
            scene.refusal(&packed),
            EnvelopeError::EphemeralKey,
            "{key:?}"
        );
    }
}

#[test]
fn a_shared_secret_of_zeros_is_refused_wherever_it_comes_from() {
    use askar_crypto::alg::x25519::X25519KeyPair;
    use askar_crypto::repr::KeyPublicBytes as _;
    let own = Pair::random(Curve::X25519);
    for key in low_order() {
        assert!(matches!(
            PublicKey::new("did:example:a#b", Curve::X25519, &key),
            Err(KeyError::LowOrder)
        ));
        let weak = Pair::X25519(X25519KeyPair::from_public_bytes(&key).unwrap());
        assert!(agreement::shared(&own, &weak).is_err(), "{key:?}");
    }
}

#[test]
fn an_ephemeral_key_is_a_point_of_the_recipients_curve() {
    let scene = scene();
    let with = |epk: Value| scene.refusal(&scene.anon().pack(|header| header["epk"] = epk));
    assert_eq!(with(json!(null)), EnvelopeError::EphemeralKey);
    assert_eq!(
        with(json!({"kty": "OKP", "crv": "X25519", "x": ""})),
        EnvelopeError::EphemeralKey
    );
    assert_eq!(
        with(json!({"kty": "OKP", "crv": "X25519", "x": encode([9; 33])})),
        EnvelopeError::EphemeralKey
    );
    assert_eq!(
        with(json!({"kty": "OKP", "crv": "X448", "x": encode([9; 56])})),
        EnvelopeError::Curve
    );
    assert_eq!(
        with(json!({"kty": "EC", "crv": "X25519", "x": encode([9; 32])})),
        EnvelopeError::Curve
    );
    assert_eq!(
        with(json!({"kty": "OKP", "crv": "X25519"})),
        EnvelopeError::Json
    );
    let p256 = serde_json::to_value(jwk(&Pair::random(Curve::P256)).unwrap()).unwrap();
    assert_eq!(with(p256.clone()), EnvelopeError::Curve);
    let mut off = p256.clone();
    off["y"] = off["x"].clone();
    assert_eq!(with(off), EnvelopeError::EphemeralKey);
    let mut halved = p256;
    halved["y"].take();
    assert_eq!(with(halved), EnvelopeError::EphemeralKey);
}

#[test]
fn an_ephemeral_key_of_ones_own_is_for_anonymous_messages_only() {
    let scene = scene();
    for (forge, opens) in [(scene.anon(), true), (scene.auth(), false)] {
        let ephemeral = Pair::random(Curve::X25519);
        let header = forge.header();
        let mut packed = forge.pack_with(&header.to_string(), &header, &ephemeral);
        let epk = serde_json::to_value(jwk(&ephemeral).unwrap()).unwrap();
        packed["recipients"][0]["header"]["epk"] = epk;
        assert_eq!(
            scene.open_json(&packed).err(),
            (!opens).then_some(EnvelopeError::EphemeralKey)
        );
    }
    let mut packed = scene.anon().pack(|_| {});
    let epk = serde_json::to_value(jwk(&Pair::random(Curve::X25519)).unwrap()).unwrap();
    packed["recipients"][0]["header"]["epk"] = epk;
    assert_eq!(scene.refusal(&packed), EnvelopeError::EphemeralKey);
}

#[test]
fn algorithms_are_those_of_the_list() {
    let scene = scene();
    for alg in [
        "ECDH-ES",
        "ECDH-ES+A128KW",
        "ECDH-1PU",
        "ECDH-1PU+A128KW",
        "dir",
        "RSA-OAEP",
        "none",
        "",
        "ecdh-es+a256kw",
    ] {
        for forge in [scene.auth(), scene.anon()] {
            let packed = forge.pack(|header| header["alg"] = alg.into());
            assert_eq!(scene.refusal(&packed), EnvelopeError::Algorithm, "{alg}");
        }
    }
    for enc in ["A128CBC-HS256", "A128GCM", "A192GCM", "C20P", "", "xc20p"] {
        let packed = scene.anon().pack(|header| header["enc"] = enc.into());
        assert_eq!(
            scene.refusal(&packed),
            EnvelopeError::ContentEncryption,
            "{enc}"
        );
    }
    for enc in [ContentEncryption::A256Gcm, ContentEncryption::Xc20p] {
        let forge = Forge {
            enc,
            ..scene.auth()
        };
        assert_eq!(
            scene.refusal(&forge.pack(|_| {})),
            EnvelopeError::ContentEncryption
        );
        let forge = Forge {
            enc,
            ..scene.anon()
        };
        scene.open_json(&forge.pack(|_| {})).unwrap();
    }
    for name in ["alg", "enc"] {
        let packed = scene
            .anon()
            .pack(|header| drop(header.as_object_mut().unwrap().remove(name)));
        let code = scene.refusal(&packed).code();
        assert_eq!(
            code,
            if name == "alg" {
                "algorithm"
            } else {
                "content_encryption"
            }
        );
    }
}

#[test]
fn headers_that_must_be_protected_stand_nowhere_else() {
    let scene = scene();
    for (name, value) in [
        ("alg", json!("ECDH-ES+A256KW")),
        ("enc", json!("A256GCM")),
        ("skid", json!("did:example:carol#enc")),
        ("apu", json!(encode("did:example:carol#enc"))),
        ("apv", json!(encode([0; 32]))),
        ("zip", json!("DEF")),
        ("crit", json!(["exp"])),
    ] {
        let sound = scene.auth().pack(|_| {});
        let mut packed = sound.clone();
        packed["recipients"][0]["header"][name] = value.clone();
        assert_eq!(scene.refusal(&packed).code(), "header", "{name}");
        let mut packed = sound;
        packed["unprotected"] = json!({name: value});
        assert_eq!(scene.refusal(&packed).code(), "header", "{name}");
    }
    let mut packed = scene.auth().pack(|_| {});
    packed["unprotected"] = json!({"kid": "did:example:bob#enc"});
    assert_eq!(scene.refusal(&packed).code(), "header");
    packed["unprotected"] = json!({"note": 1});
    packed["recipients"][0]["header"]["note"] = json!({"alg": "none"});
    scene.open_json(&packed).unwrap();
    packed["aad"] = "".into();
    assert_eq!(scene.refusal(&packed).code(), "header");
    for name in ["zip", "crit", "b64"] {
        let packed = scene.auth().pack(|header| header[name] = json!([]));
        assert_eq!(scene.refusal(&packed).code(), "header", "{name}");
    }
}

#[test]
fn members_that_come_twice_are_refused() {
    let scene = scene();
    let twice = |text: &str, member: &str| {
        let at = text.find(&format!("\"{member}\":")).unwrap();
        let end = at + text[at..].find(&[',', '}'][..]).unwrap();
        format!("{}{},{}", &text[..at], &text[at..end], &text[at..])
    };
    let sound = scene.auth().pack(|_| {}).to_string();
    for member in [
        "protected",
        "iv",
        "ciphertext",
        "tag",
        "encrypted_key",
        "kid",
    ] {
        let packed = twice(&sound, member);
        assert!(serde_json::from_str::<Value>(&packed).is_ok(), "{packed}");
        assert_eq!(
            scene.open(&packed).unwrap_err(),
            EnvelopeError::Json,
            "{member}"
        );
    }
    // In the protected header, encrypted with this very header.
    let forge = scene.auth();
    let ephemeral = Pair::random(Curve::X25519);
    let mut header = forge.header();
    header["epk"] = serde_json::to_value(jwk(&ephemeral).unwrap()).unwrap();
    for member in ["alg", "enc", "skid", "apu", "apv", "kty", "x"] {
        let text = twice(&header.to_string(), member);
        let packed = forge.pack_with(&text, &header, &ephemeral);
        assert_eq!(scene.refusal(&packed), EnvelopeError::Json, "{member}");
    }
    // In the plaintext: a reader may take either of the two, so both must be checked.
    let plaintext =
        r#"{"from":"did:example:alice","to":["did:example:bob"],"fr\u006fm":"did:example:carol"}"#;
    let packed = authcrypt(
        plaintext.as_bytes(),
        &scene.alice.agreement,
        &scene.bob.to(),
    );
    assert_eq!(
        scene.open(packed.unwrap()).unwrap_err(),
        EnvelopeError::Plaintext
    );
    let plaintext = r#"{"to":"did:example:bob","to":"did:example:carol"}"#;
    let packed = anoncrypt(plaintext.as_bytes(), &scene.bob.to(), CBC).unwrap();
    assert_eq!(scene.open(packed).unwrap_err(), EnvelopeError::Plaintext);
    // Unknown members are ignored, also twice.
    let packed = format!("{{\"note\":1,\"note\":2,{}", &sound[1..]);
    scene.open(packed).unwrap();
}

#[test]
fn an_envelope_is_of_one_kind_and_written_in_one_way() {
    let scene = scene();
    let sound = scene.auth().pack(|_| {});
    let mut both = sound.clone();
    both["payload"] = "e30".into();
    assert_eq!(scene.refusal(&both).code(), "header");
    let mut both = sound.clone();
    both["signatures"] = json!([]);
    assert_eq!(scene.refusal(&both).code(), "header");
    let mut both = sound.clone();
    both["encrypted_key"] = sound["recipients"][0]["encrypted_key"].clone();
    assert_eq!(scene.refusal(&both).code(), "header");
    let mut none = sound.clone();
    none["recipients"] = json!([]);
    assert_eq!(scene.refusal(&none).code(), "header");
    // Flattened (RFC 7516, section 7.2.2).
    let mut flat = sound;
    let one = flat.as_object_mut().unwrap().remove("recipients").unwrap()[0].clone();
    flat["header"] = one["header"].clone();
    flat["encrypted_key"] = one["encrypted_key"].clone();
    assert!(scene.open_json(&flat).unwrap().sender.is_some());
    // The values in order, as a list.
    let list = json!([
        flat["protected"],
        null,
        flat["header"],
        null,
        flat["encrypted_key"]
    ]);
    assert_eq!(scene.refusal(&list), EnvelopeError::Json);
}

#[test]
fn parts_have_the_length_of_their_encryption() {
    let scene = scene();
    for (member, bytes) in [
        ("iv", 12),
        ("iv", 0),
        ("tag", 16),
        ("tag", 0),
        ("ciphertext", 0),
        ("ciphertext", 15),
    ] {
        let mut packed = scene.anon().pack(|_| {});
        packed[member] = encode(vec![0; bytes]).into();
        assert_eq!(
            scene.refusal(&packed),
            EnvelopeError::Decrypt,
            "{member} {bytes}"
        );
    }
    for bytes in [0, 7, 8, 40, 71, 73, 80] {
        let mut packed = scene.anon().pack(|_| {});
        packed["recipients"][0]["encrypted_key"] = encode(vec![0; bytes]).into();
        assert_eq!(scene.refusal(&packed), EnvelopeError::Decrypt, "{bytes}");
    }
    let sound = json_of(&scene.anoncrypted(&json!({})));
    for member in ["protected", "iv", "ciphertext", "tag"] {
        for padded in ["=", "==", "\n", " ", "+", "/"] {
            let mut packed = sound.clone();
            packed[member] = format!("{}{padded}", sound[member].as_str().unwrap()).into();
            assert_eq!(scene.refusal(&packed), EnvelopeError::Base64, "{member}");
        }
    }
}
