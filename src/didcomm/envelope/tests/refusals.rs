//! Every refusal of encrypted messages, each with a message that is sound but for one thing.

use askar_crypto::alg::aes::{A256Kw, AesKey};
use askar_crypto::repr::KeySecretBytes as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::forge::{Forge, encode, json_of};
use super::*;
use crate::didcomm::envelope::agreement::WrappingKey;
use crate::didcomm::envelope::key::Pair;
use crate::didcomm::envelope::pack::jwk;

const CBC: ContentEncryption = ContentEncryption::A256CbcHs512;

/// Alice writes to Bob; Carol is known to him, too.
struct Scene {
    alice: Actor,
    bob: Actor,
    carol: Actor,
}

fn scene() -> Scene {
    Scene {
        alice: alice(),
        bob: bob(),
        carol: Actor::new("did:example:carol", Curve::X25519, Curve::Ed25519),
    }
}

impl Scene {
    fn open(&self, bytes: impl AsRef<[u8]>) -> Result<Unpacked, EnvelopeError> {
        let known = [&self.alice, &self.bob, &self.carol];
        unpack(bytes.as_ref(), &self.bob.ring(), &knowing(&known))
    }

    fn open_json(&self, message: &Value) -> Result<Unpacked, EnvelopeError> {
        self.open(message.to_string())
    }

    fn refusal(&self, message: &Value) -> EnvelopeError {
        self.open_json(message).expect_err("it was opened")
    }

    /// An authcrypt from Alice to Bob.
    fn auth(&self) -> Forge<'_> {
        Forge {
            plaintext: message(&self.alice, &self.bob),
            from: Some(&self.alice.agreement),
            to: self.bob.to(),
            enc: CBC,
        }
    }

    /// An anoncrypt to Bob.
    fn anon(&self) -> Forge<'_> {
        Forge {
            from: None,
            ..self.auth()
        }
    }

    fn authcrypted(&self, plaintext: &Value) -> Vec<u8> {
        let plaintext = plaintext.to_string();
        authcrypt(plaintext.as_bytes(), &self.alice.agreement, &self.bob.to()).unwrap()
    }

    fn anoncrypted(&self, plaintext: &Value) -> Vec<u8> {
        anoncrypt(plaintext.to_string().as_bytes(), &self.bob.to(), CBC).unwrap()
    }
}

#[test]
fn forged_messages_are_sound_until_they_are_edited() {
    let scene = scene();
    scene.open_json(&scene.auth().pack(|_| {})).unwrap();
    scene.open_json(&scene.anon().pack(|_| {})).unwrap();
}

#[test]
fn from_is_the_party_whose_key_was_used() {
    let scene = scene();
    let to = ["did:example:bob"];
    for from in [
        json!("did:example:carol"),
        json!("did:example:alice#enc"),
        json!(null),
    ] {
        let packed = scene.authcrypted(&json!({"from": from, "to": to}));
        assert_eq!(
            scene.open(packed).unwrap_err(),
            EnvelopeError::From,
            "{from}"
        );
    }
    let packed = scene.authcrypted(&json!({"to": to}));
    assert_eq!(scene.open(packed).unwrap_err(), EnvelopeError::From);
    // What an anonymous message says is nobody's word.
    let packed = scene.anoncrypted(&json!({"from": "did:example:carol", "to": to}));
    assert!(scene.open(packed).unwrap().sender.is_none());
}

#[test]
fn to_names_the_party_whose_key_opened_it() {
    let scene = scene();
    let from = "did:example:alice";
    for to in [
        json!(["did:example:carol"]),
        json!("did:example:carol"),
        json!([]),
        json!(null),
    ] {
        let packed = scene.authcrypted(&json!({"from": from, "to": to}));
        assert_eq!(scene.open(packed).unwrap_err(), EnvelopeError::To, "{to}");
        let packed = scene.anoncrypted(&json!({"to": to}));
        let opened = scene.open(packed);
        assert_eq!(
            opened.err(),
            (!to.is_null()).then_some(EnvelopeError::To),
            "{to}"
        );
    }
    for to in [
        json!("did:example:bob"),
        json!(["did:example:carol", "did:example:bob"]),
    ] {
        scene
            .open(scene.authcrypted(&json!({"from": from, "to": to})))
            .unwrap();
    }
    let packed = scene.authcrypted(&json!({"from": from}));
    assert_eq!(scene.open(packed).unwrap_err(), EnvelopeError::To);
    scene.open(scene.anoncrypted(&json!({"body": {}}))).unwrap();
    // A signed message without `to` could have been meant for anybody.
    let signed = sign(
        &json!({"from": from}).to_string().into_bytes(),
        &scene.alice.signing,
    );
    let packed = anoncrypt(&signed.unwrap(), &scene.bob.to(), CBC).unwrap();
    assert_eq!(scene.open(packed).unwrap_err(), EnvelopeError::To);
}

#[test]
fn skid_and_apu_say_the_same() {
    let scene = scene();
    let edited = |edit: fn(&mut Value)| scene.open_json(&scene.auth().pack(edit));
    let other = |header: &mut Value| header["skid"] = "did:example:carol#enc".into();
    assert_eq!(edited(other).unwrap_err(), EnvelopeError::Apu);
    let other = |header: &mut Value| header["apu"] = encode("did:example:carol#enc").into();
    assert_eq!(edited(other).unwrap_err(), EnvelopeError::Apu);
    let no_apu = |header: &mut Value| drop(header.as_object_mut().unwrap().remove("apu"));
    assert_eq!(edited(no_apu).unwrap_err(), EnvelopeError::Apu);
    let no_skid = |header: &mut Value| drop(header.as_object_mut().unwrap().remove("skid"));
    let opened = edited(no_skid).unwrap();
    assert_eq!(opened.sender.unwrap().kid, "did:example:alice#enc");
    let neither = |header: &mut Value| {
        header
            .as_object_mut()
            .unwrap()
            .retain(|name, _| name != "skid" && name != "apu");
    };
    assert_eq!(edited(neither).unwrap_err(), EnvelopeError::Apu);
    let skid = |header: &mut Value| header["skid"] = "did:example:alice#enc".into();
    assert_eq!(scene.refusal(&scene.anon().pack(skid)).code(), "header");
}

#[test]
fn apv_is_the_hash_of_the_recipients() {
    let scene = scene();
    for apv in [json!(encode([7; 32])), json!(""), json!(null)] {
        for forge in [scene.auth(), scene.anon()] {
            let packed = forge.pack(|header| header["apv"] = apv.clone());
            assert_eq!(scene.refusal(&packed), EnvelopeError::Apv, "{apv}");
        }
    }
    // A recipient who is added later is not covered.
    let mut packed = scene.anon().pack(|_| {});
    let mut second = packed["recipients"][0].clone();
    second["header"]["kid"] = "did:example:bob#another".into();
    packed["recipients"].as_array_mut().unwrap().push(second);
    assert_eq!(scene.refusal(&packed), EnvelopeError::Apv);
}

#[test]
fn recipients_are_of_one_did_and_their_ids_absolute() {
    let scene = scene();
    let mut forge = scene.auth();
    forge.to.extend(scene.carol.to());
    assert_eq!(
        scene.refusal(&forge.pack(|_| {})),
        EnvelopeError::SeveralRecipients
    );
    for kid in [
        "#enc",
        "enc",
        "did:example:bob",
        "did:example:bob#",
        "urn:bob#enc",
        "",
    ] {
        let mut forge = scene.anon();
        forge.to = vec![PublicKey::new(kid, Curve::X25519, forge.to[0].as_bytes()).unwrap()];
        assert_eq!(
            scene.refusal(&forge.pack(|_| {})),
            EnvelopeError::KeyId,
            "{kid}"
        );
    }
    let mut packed = scene.anon().pack(|_| {});
    packed["recipients"][0]["header"] = json!({});
    assert_eq!(scene.refusal(&packed), EnvelopeError::KeyId);
}

#[test]
fn limits_hold() {
    let scene = scene();
    let many: Vec<PublicKey> = (0..=MAX_RECIPIENTS)
        .map(|n| {
            PublicKey::new(
                format!("did:example:bob#{n:02}"),
                Curve::X25519,
                scene.bob.to()[0].as_bytes(),
            )
        })
        .collect::<Result<_, _>>()
        .unwrap();
    let mut forge = scene.anon();
    forge.to = many;
    assert_eq!(
        scene.refusal(&forge.pack(|_| {})),
        EnvelopeError::Limit("recipients")
    );
    forge.to.pop();
    assert_eq!(scene.refusal(&forge.pack(|_| {})), EnvelopeError::NotForUs);
    let long = |header: &mut Value| header["long"] = "x".repeat(MAX_PROTECTED).into();
    let packed = scene.anon().pack(long);
    assert_eq!(
        scene.refusal(&packed),
        EnvelopeError::Limit("a protected header")
    );
    let kid = format!("did:example:bob#{}", "x".repeat(MAX_KID));
    forge.to = vec![PublicKey::new(kid, Curve::X25519, scene.bob.to()[0].as_bytes()).unwrap()];
    assert_eq!(
        scene.refusal(&forge.pack(|_| {})),
        EnvelopeError::Limit("a key id")
    );
}

#[test]
fn layers_stack_as_the_specification_has_it() {
    let scene = scene();
    let plaintext = message(&scene.alice, &scene.bob);
    let auth = |inner: &[u8]| authcrypt(inner, &scene.alice.agreement, &scene.bob.to()).unwrap();
    let anon = |inner: &[u8]| anoncrypt(inner, &scene.bob.to(), CBC).unwrap();
    let signed = |inner: &[u8]| sign(inner, &scene.alice.signing).unwrap();
    for packed in [
        auth(&plaintext),
        anon(&plaintext),
        signed(&plaintext),
        anon(&auth(&plaintext)),
        anon(&signed(&plaintext)),
        auth(&signed(&plaintext)),
    ] {
        assert_eq!(scene.open(packed).unwrap().plaintext, plaintext);
    }
    for packed in [
        signed(&auth(&plaintext)),
        signed(&anon(&plaintext)),
        signed(&signed(&plaintext)),
        anon(&anon(&plaintext)),
        auth(&auth(&plaintext)),
        auth(&anon(&plaintext)),
        anon(&auth(&signed(&plaintext))),
        anon(&anon(&anon(&plaintext))),
        anon(&auth(&auth(&plaintext))),
        anon(&signed(&auth(&plaintext))),
        auth(&signed(&signed(&plaintext))),
    ] {
        assert_eq!(scene.open(packed).unwrap_err(), EnvelopeError::Stacking);
    }
    // Sent by Alice, signed by Carol: it is true of one of them at most.
    for from in ["did:example:alice", "did:example:carol"] {
        let plaintext = json!({"from": from, "to": ["did:example:bob"]}).to_string();
        let packed = auth(&sign(plaintext.as_bytes(), &scene.carol.signing).unwrap());
        assert_eq!(scene.open(packed).unwrap_err(), EnvelopeError::From);
    }
}

#[test]
fn a_plaintext_is_no_envelope_and_an_envelope_holds_one() {
    let scene = scene();
    let plaintext = message(&scene.alice, &scene.bob);
    assert_eq!(
        scene.open(&plaintext).unwrap_err(),
        EnvelopeError::NotAnEnvelope
    );
    assert_eq!(scene.open("{}").unwrap_err(), EnvelopeError::NotAnEnvelope);
    for content in [
        "",
        "[]",
        "null",
        "\"text\"",
        "{",
        "{} {}",
        "[\"did:example:alice\"]",
    ] {
        let packed = anoncrypt(content.as_bytes(), &scene.bob.to(), CBC).unwrap();
        assert_eq!(
            scene.open(packed).unwrap_err(),
            EnvelopeError::Plaintext,
            "{content}"
        );
    }
    let packed = anoncrypt(b"{\"id\": \"\xff\"}", &scene.bob.to(), CBC).unwrap();
    assert_eq!(scene.open(packed).unwrap_err(), EnvelopeError::Plaintext);
}

/// Every spelling of a key of low order.
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

/// The wrapping key that everybody knows: derived from a shared secret of zeros.
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
fn the_sender_has_the_key_for_key_agreement() {
    let scene = scene();
    let unknown = |_: &str| None;
    let packed = scene.auth().pack(|_| {}).to_string();
    let did = "did:example:alice".to_owned();
    let opened = unpack(packed.as_bytes(), &scene.bob.ring(), &unknown);
    assert_eq!(opened.unwrap_err(), EnvelopeError::Unresolved { did });
    let own = |key_agreement, authentication| {
        let party = Party::from_document("did:example:alice", key_agreement, authentication);
        let parties = move |_: &str| Some(party.clone());
        unpack(packed.as_bytes(), &scene.bob.ring(), &parties).map(drop)
    };
    let key = scene.alice.agreement.public();
    let renamed = PublicKey::new("did:example:alice#old", Curve::X25519, key.as_bytes()).unwrap();
    assert_eq!(
        own(vec![renamed], Vec::new()),
        Err(EnvelopeError::SenderKey)
    );
    assert_eq!(
        own(Vec::new(), vec![key.clone()]),
        Err(EnvelopeError::SenderKey)
    );
    let other = SecretKey::generate(Curve::X25519, key.kid()).public();
    assert_eq!(own(vec![other], Vec::new()), Err(EnvelopeError::Decrypt));
    let curve = SecretKey::generate(Curve::P256, key.kid()).public();
    assert_eq!(own(vec![curve], Vec::new()), Err(EnvelopeError::Curve));
    assert_eq!(own(vec![key], Vec::new()), Ok(()));
    let stranger = [scene.carol.agreement.clone()];
    let opened = unpack(packed.as_bytes(), &stranger, &unknown);
    assert_eq!(opened.unwrap_err(), EnvelopeError::NotForUs);
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
    // In the protected header, sealed with it as it is.
    let forge = scene.auth();
    let ephemeral = Pair::random(Curve::X25519);
    let mut header = forge.header();
    header["epk"] = serde_json::to_value(jwk(&ephemeral).unwrap()).unwrap();
    for member in ["alg", "enc", "skid", "apu", "apv", "kty", "x"] {
        let text = twice(&header.to_string(), member);
        let packed = forge.pack_with(&text, &header, &ephemeral);
        assert_eq!(scene.refusal(&packed), EnvelopeError::Json, "{member}");
    }
    // In the plaintext: whichever of the two a reader takes, it has to be the one checked here.
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
    // Unknown members are ignored, twice or not.
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
