//! Messages that are sound, and the shapes of keys and rings.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A party with one key for each use, and its ring.
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

/// Resolves these parties.
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
