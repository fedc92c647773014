//! The sender and the recipients of the refusals.

use serde_json::Value;

use super::forge::Forge;
use super::*;

pub(super) const CBC: ContentEncryption = ContentEncryption::A256CbcHs512;

/// Alice writes to Bob, who also knows Carol.
pub(super) struct Scene {
    pub(super) alice: Actor,
    pub(super) bob: Actor,
    pub(super) carol: Actor,
}

pub(super) fn scene() -> Scene {
    Scene {
        alice: alice(),
        bob: bob(),
        carol: Actor::new("did:example:carol", Curve::X25519, Curve::Ed25519),
    }
}

impl Scene {
    pub(super) fn open(&self, bytes: impl AsRef<[u8]>) -> Result<Unpacked, EnvelopeError> {
        let known = [&self.alice, &self.bob, &self.carol];
        unpack(bytes.as_ref(), &self.bob.ring(), &knowing(&known))
    }

    pub(super) fn open_json(&self, message: &Value) -> Result<Unpacked, EnvelopeError> {
        self.open(message.to_string())
    }

    pub(super) fn refusal(&self, message: &Value) -> EnvelopeError {
        self.open_json(message).expect_err("it was opened")
    }

    /// Returns an authcrypt from Alice to Bob.
    pub(super) fn auth(&self) -> Forge<'_> {
        Forge {
            plaintext: message(&self.alice, &self.bob),
            from: Some(&self.alice.agreement),
            to: self.bob.to(),
            enc: CBC,
        }
    }

    /// Returns an anoncrypt to Bob.
    pub(super) fn anon(&self) -> Forge<'_> {
        Forge {
            from: None,
            ..self.auth()
        }
    }

    pub(super) fn authcrypted(&self, plaintext: &Value) -> Vec<u8> {
        let plaintext = plaintext.to_string();
        authcrypt(plaintext.as_bytes(), &self.alice.agreement, &self.bob.to()).unwrap()
    }

    pub(super) fn anoncrypted(&self, plaintext: &Value) -> Vec<u8> {
        anoncrypt(plaintext.to_string().as_bytes(), &self.bob.to(), CBC).unwrap()
    }
}
