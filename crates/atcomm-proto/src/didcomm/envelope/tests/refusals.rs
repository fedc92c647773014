//! Refusals of encrypted messages for sender, recipient and layers, each with a message that has
//! only one fault.

use serde_json::{Value, json};

use super::forge::encode;
use super::scene::{CBC, scene};
use super::*;

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
    // The `from` of an anonymous message is unproven.
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
    // A signed message without `to` could be meant for any recipient.
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
    // A recipient added later is not covered.
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
    // Encrypted by Alice and signed by Carol: `from` can name only one of them.
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
    let other_ring = [scene.carol.agreement.clone()];
    let opened = unpack(packed.as_bytes(), &other_ring, &unknown);
    assert_eq!(opened.unwrap_err(), EnvelopeError::NotForUs);
}
