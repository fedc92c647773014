//! Valid messages, and the forms of keys and keyrings.

mod damage;
mod forge;
mod headers;
mod oracle;
mod refusals;
mod scene;
mod signatures;
mod vectors;

use proptest::prelude::*;
use serde_json::json;

use super::kid::did_of;
use super::*;
use crate::didcomm::key;
use crate::didcomm::party::Party;

/// A party with one key for each use, and its keyring.
pub(super) struct Actor {
    pub(super) party: Party,
    pub(super) agreement: SecretKey,
    pub(super) signing: SecretKey,
}

impl Actor {
    pub(super) fn new(did: &str, agreement: Curve, signing: Curve) -> Self {
        let agreement = SecretKey::generate(agreement, format!("{did}#enc"));
        let signing = SecretKey::generate(signing, format!("{did}#sig"));
        let party = Party::from_document(did, vec![agreement.public()], vec![signing.public()]);
        Self {
            party,
            agreement,
            signing,
        }
    }

    /// Returns the keys that decrypt.
    pub(super) fn ring(&self) -> [SecretKey; 1] {
        [self.agreement.clone()]
    }

    pub(super) fn to(&self) -> Vec<PublicKey> {
        self.party.key_agreement().to_vec()
    }
}

pub(super) fn alice() -> Actor {
    Actor::new("did:example:alice", Curve::X25519, Curve::Ed25519)
}

pub(super) fn bob() -> Actor {
    Actor::new("did:example:bob", Curve::X25519, Curve::Ed25519)
}

/// Returns a resolver of these parties.
pub(super) fn knowing<'p>(parties: &'p [&'p Actor]) -> impl Fn(&str) -> Option<Party> + 'p {
    |did| {
        let mut known = parties.iter().map(|actor| &actor.party);
        known.find(|party| party.is(did)).cloned()
    }
}

pub(super) fn message(from: &Actor, to: &Actor) -> Vec<u8> {
    let message = json!({
        "id": "1",
        "type": "https://example.org/test/1.0/hello",
        "from": from.party.did(),
        "to": [to.party.did()],
        "body": {"text": "Grüße"},
    });
    serde_json::to_vec(&message).unwrap()
}

const ENCRYPTIONS: [ContentEncryption; 3] = [
    ContentEncryption::A256CbcHs512,
    ContentEncryption::A256Gcm,
    ContentEncryption::Xc20p,
];

#[test]
fn authcrypt_proves_its_sender_on_both_curves() {
    for curve in [Curve::X25519, Curve::P256] {
        let alice = Actor::new("did:example:alice", curve, Curve::Ed25519);
        let bob = Actor::new("did:example:bob", curve, Curve::Ed25519);
        let plaintext = message(&alice, &bob);
        let packed = authcrypt(&plaintext, &alice.agreement, &bob.to()).unwrap();
        assert_eq!(sender_did(&packed).as_deref(), Some("did:example:alice"));
        assert_eq!(recipient_kids(&packed), ["did:example:bob#enc"]);
        let opened = unpack(&packed, &bob.ring(), &knowing(&[&alice])).unwrap();
        assert_eq!(opened.plaintext, plaintext);
        let sender = opened.sender.unwrap();
        assert_eq!(sender.party.did(), "did:example:alice");
        assert_eq!(sender.kid, "did:example:alice#enc");
        assert!(opened.signer.is_none());
        assert_eq!(opened.recipient.as_deref(), Some("did:example:bob#enc"));
        assert_eq!(opened.layers, [Layer::Authcrypt]);
    }
}

#[test]
fn anoncrypt_names_no_sender_in_all_encryptions_on_both_curves() {
    for curve in [Curve::X25519, Curve::P256] {
        for enc in ENCRYPTIONS {
            let bob = Actor::new("did:example:bob", curve, Curve::Ed25519);
            let plaintext = message(&alice(), &bob);
            let packed = anoncrypt(&plaintext, &bob.to(), enc).unwrap();
            assert_eq!(sender_did(&packed), None);
            let opened = unpack(&packed, &bob.ring(), &knowing(&[])).unwrap();
            assert_eq!(opened.plaintext, plaintext);
            assert!(opened.sender.is_none() && opened.signer.is_none());
            assert_eq!(opened.layers, [Layer::Anoncrypt(enc)]);
        }
    }
}

#[test]
fn signatures_prove_their_signer_with_both_algorithms() {
    for curve in [Curve::Ed25519, Curve::P256] {
        let alice = Actor::new("did:example:alice", Curve::X25519, curve);
        let plaintext = message(&alice, &bob());
        let signed = sign(&plaintext, &alice.signing).unwrap();
        assert!(recipient_kids(&signed).is_empty() && sender_did(&signed).is_none());
        let opened = unpack(&signed, &Vec::new(), &knowing(&[&alice])).unwrap();
        assert_eq!(opened.plaintext, plaintext);
        assert_eq!(opened.signer.unwrap().kid, "did:example:alice#sig");
        assert!(opened.sender.is_none() && opened.recipient.is_none());
        assert_eq!(opened.layers, [Layer::Signed]);
    }
}

#[test]
fn an_anoncrypt_protects_the_layer_in_it() {
    let (alice, bob) = (alice(), bob());
    let plaintext = message(&alice, &bob);
    let outer = |inner: Vec<u8>| {
        let packed = anoncrypt(&inner, &bob.to(), ContentEncryption::A256CbcHs512).unwrap();
        unpack(&packed, &bob.ring(), &knowing(&[&alice])).unwrap()
    };
    let anonymous = Layer::Anoncrypt(ContentEncryption::A256CbcHs512);
    let opened = outer(authcrypt(&plaintext, &alice.agreement, &bob.to()).unwrap());
    assert_eq!(opened.layers, [anonymous, Layer::Authcrypt]);
    assert_eq!(opened.plaintext, plaintext);
    assert_eq!(opened.sender.unwrap().party.did(), alice.party.did());
    let opened = outer(sign(&plaintext, &alice.signing).unwrap());
    assert_eq!(opened.layers, [anonymous, Layer::Signed]);
    assert_eq!(opened.plaintext, plaintext);
    assert_eq!(opened.signer.unwrap().party.did(), alice.party.did());
}

#[test]
fn dids_that_carry_their_keys_need_no_resolver() {
    let did = |key: &SecretKey| {
        let multikey = key.public().multikey();
        format!("did:key:{multikey}#{multikey}")
    };
    let of = |curve| {
        let key = SecretKey::generate(curve, "did:example:none#none");
        let kid = did(&key);
        SecretKey::from_bytes(curve, kid, &key.to_bytes()).unwrap()
    };
    let (alice, bob) = (of(Curve::X25519), of(Curve::X25519));
    let (from, _) = alice.kid().split_once('#').unwrap();
    let (to, _) = bob.kid().split_once('#').unwrap();
    let plaintext = json!({"id": "1", "type": "t", "from": from, "to": [to], "body": {}});
    let party = Party::resolve(to).unwrap();
    let packed = authcrypt(
        plaintext.to_string().as_bytes(),
        &alice,
        party.key_agreement(),
    );
    let opened = unpack(&packed.unwrap(), &[bob], &SelfCertified).unwrap();
    assert_eq!(opened.sender.unwrap().party.did(), from);
}

#[test]
fn both_forms_of_a_did_peer_4_are_one_party() {
    let vectors = include_str!("../../../../../fixtures/did-peer/four.json");
    let vectors: Vec<serde_json::Value> = serde_json::from_str(vectors).unwrap();
    let long = vectors[0]["did"].as_str().unwrap();
    let short = vectors[0]["short"].as_str().unwrap();
    // The fixture's keys belong to no party here, so the same DIDs stand for other keys.
    let actor = |did: &str| {
        let mut actor = alice();
        actor.agreement = SecretKey::generate(Curve::X25519, format!("{did}#enc"));
        actor.party = Party::from_document(did, vec![actor.agreement.public()], Vec::new());
        actor
    };
    let (alice, bob) = (actor(long), bob());
    assert_eq!(alice.party.canonical(), short);
    for from in [long, short] {
        let plaintext = json!({"from": from, "to": [bob.party.did()]}).to_string();
        let packed = authcrypt(plaintext.as_bytes(), &alice.agreement, &bob.to()).unwrap();
        unpack(&packed, &bob.ring(), &knowing(&[&alice])).unwrap();
    }
    for to in [long, short] {
        let plaintext = json!({"to": [to]}).to_string();
        let enc = ContentEncryption::A256CbcHs512;
        let packed = anoncrypt(plaintext.as_bytes(), &alice.to(), enc).unwrap();
        unpack(&packed, &alice.ring(), &knowing(&[])).unwrap();
    }
}

#[test]
fn secret_keys_come_back_from_their_bytes_and_are_not_shown() {
    for curve in [Curve::X25519, Curve::P256, Curve::Ed25519] {
        let key = SecretKey::generate(curve, "did:example:alice#key");
        let again = SecretKey::from_bytes(curve, key.kid(), &key.to_bytes()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(key.curve(), curve);
        let shown = format!("{key:?}");
        let secret = data_encoding::HEXLOWER.encode(&key.to_bytes());
        assert!(shown.contains("did:example:alice#key"), "{shown}");
        assert!(
            !shown.contains(&secret) && !shown.contains("secret:"),
            "{shown}"
        );
        assert_eq!(
            shown.len(),
            "SecretKey { kid: \"did:example:alice#key\", .. }".len()
        );
    }
}

#[test]
fn public_keys_are_read_in_all_their_shapes() {
    for curve in [Curve::X25519, Curve::P256, Curve::Ed25519] {
        let key = SecretKey::generate(curve, "did:example:alice#key").public();
        let again = PublicKey::from_multikey(key.kid(), &key.multikey()).unwrap();
        assert_eq!(again, key);
        assert_eq!(
            PublicKey::new(key.kid(), curve, key.as_bytes()),
            Ok(key.clone())
        );
        if curve != Curve::Ed25519 {
            let jwk = serde_json::to_value(pack::jwk(key.pair()).unwrap()).unwrap();
            assert_eq!(PublicKey::from_jwk(key.kid(), &jwk), Ok(key));
        }
    }
    let multikey = |text: &str| PublicKey::from_multikey("did:example:a#b", text).unwrap_err();
    assert_eq!(multikey("6LS"), KeyError::Multibase);
    assert_eq!(
        multikey(&format!("z{}", "1".repeat(200))),
        KeyError::Multibase
    );
    assert_eq!(
        multikey("zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"),
        KeyError::Unsupported
    );
    let jwk = |jwk: serde_json::Value| PublicKey::from_jwk("did:example:a#b", &jwk).unwrap_err();
    let x = "A".repeat(43);
    assert_eq!(jwk(json!({"kty": "OKP", "crv": "X25519"})), KeyError::Jwk);
    assert_eq!(
        jwk(json!({"kty": "OKP", "crv": "X25519", "x": x})),
        KeyError::LowOrder
    );
    assert_eq!(
        jwk(json!({"kty": "OKP", "crv": "X25519", "x": "AAAA"})),
        KeyError::Invalid
    );
    assert_eq!(
        jwk(json!({"kty": "EC", "crv": "P-256", "x": x, "y": x})),
        KeyError::Invalid
    );
    assert_eq!(
        jwk(json!({"kty": "EC", "crv": "P-256", "x": x})),
        KeyError::Jwk
    );
    assert_eq!(
        jwk(json!({"kty": "EC", "crv": "P-384", "x": x, "y": x})),
        KeyError::Unsupported
    );
}

#[test]
fn packing_refuses_recipients_that_do_not_fit() {
    let (alice, bob, carol) = (
        alice(),
        bob(),
        Actor::new("did:example:carol", Curve::P256, Curve::P256),
    );
    let pack = |to: &[PublicKey]| authcrypt(b"{}", &alice.agreement, to).unwrap_err();
    assert_eq!(pack(&[]), EnvelopeError::NoRecipients);
    assert_eq!(
        pack(&[bob.agreement.public(), alice.agreement.public()]),
        EnvelopeError::SeveralRecipients
    );
    assert_eq!(pack(&carol.to()), EnvelopeError::Curve);
    assert_eq!(pack(&[bob.signing.public()]), EnvelopeError::Curve);
    assert_eq!(
        pack(&vec![bob.agreement.public(); MAX_RECIPIENTS + 1]),
        EnvelopeError::Limit("recipients")
    );
    let enc = ContentEncryption::A256CbcHs512;
    assert_eq!(
        anoncrypt(b"{}", &[bob.signing.public()], enc),
        Err(EnvelopeError::Curve)
    );
    assert_eq!(sign(b"{}", &alice.agreement), Err(EnvelopeError::Curve));
    let nameless = SecretKey::generate(Curve::Ed25519, "#key-1");
    assert_eq!(sign(b"{}", &nameless), Err(EnvelopeError::KeyId));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_recipient_opens_what_was_packed(
        text in ".{0,2000}",
        count in 1_usize..=8,
        chosen in any::<prop::sample::Index>(),
        is_p256 in any::<bool>(),
        enc in prop::sample::select(&ENCRYPTIONS[..]),
    ) {
        let curve = if is_p256 { Curve::P256 } else { Curve::X25519 };
        let alice = Actor::new("did:example:alice", curve, Curve::Ed25519);
        let keys: Vec<SecretKey> = (0..count)
            .map(|n| SecretKey::generate(curve, format!("did:example:bob#{}", count - n)))
            .collect();
        let to: Vec<PublicKey> = keys.iter().map(SecretKey::public).collect();
        let plaintext = json!({
            "from": "did:example:alice", "to": ["did:example:bob"], "body": {"text": text},
        }).to_string();
        let ring = [chosen.get(&keys).clone()];
        let packed = authcrypt(plaintext.as_bytes(), &alice.agreement, &to).unwrap();
        let opened = unpack(&packed, &ring, &knowing(&[&alice])).unwrap();
        prop_assert_eq!(&opened.plaintext, plaintext.as_bytes());
        let packed = anoncrypt(plaintext.as_bytes(), &to, enc).unwrap();
        let opened = unpack(&packed, &ring, &knowing(&[])).unwrap();
        prop_assert_eq!(&opened.plaintext, plaintext.as_bytes());
        prop_assert_eq!(opened.recipient.as_deref(), Some(ring[0].kid()));
    }
}
