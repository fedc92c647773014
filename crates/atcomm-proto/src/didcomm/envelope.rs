//! The envelope of DIDComm v2: encrypted for a party, with or without a proven sender, or signed.
//!
//! [`unpack`] checks every rule, so that its result can be relied on: the plaintext's `from` is the
//! party whose key encrypted or signed it, its `to` names the party whose key opened it, and nothing
//! unprotected has an influence. Every fault is an [`EnvelopeError`]; errors of the cryptography have
//! no detail.
//!
//! | layers | written | read |
//! |---|---|---|
//! | authcrypt: ECDH-1PU+A256KW, A256CBC-HS512 | yes | yes |
//! | anoncrypt: ECDH-ES+A256KW, three content encryptions | yes | yes |
//! | signed: EdDSA, ES256 | yes | yes |
//! | anoncrypt around authcrypt or signed | in two steps | yes |
//! | authcrypt around signed, by one and the same party | no | yes |
//!
//! Keys are X25519 and P-256 for encryption, Ed25519 and P-256 for signatures. P-384, P-521 and
//! secp256k1 are refused as unsupported.
//!
//! ```
//! use atcomm_proto::did_peer::{KeyType, PeerDid, Purpose};
//! use atcomm_proto::didcomm::envelope::{Curve, SecretKey, SelfCertified, authcrypt, unpack};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A did:peer contains its keys, so that an envelope needs no further document.
//! fn new_party() -> Result<(PeerDid, SecretKey), Box<dyn std::error::Error>> {
//!     let secret = SecretKey::generate(Curve::X25519, "did:peer:new#key");
//!     let public = secret.public();
//!     let key = (Purpose::KeyAgreement, KeyType::X25519, public.as_bytes());
//!     let did = PeerDid::build(&[key], &[])?;
//!     let kid = did.key_agreement()[0].id.clone();
//!     let secret = SecretKey::from_bytes(Curve::X25519, kid, &secret.to_bytes())?;
//!     Ok((did, secret))
//! }
//! let (alice, alice_key) = new_party()?;
//! let (bob, bob_key) = new_party()?;
//!
//! let plaintext = format!(
//!     r#"{{"id":"1","type":"https://didcomm.at/dm/1.0/message","from":"{}","to":["{}"],"body":{{}}}}"#,
//!     alice.as_str(),
//!     bob.as_str(),
//! );
//! let envelope = authcrypt(plaintext.as_bytes(), &alice_key, &[bob_key.public()])?;
//!
//! let opened = unpack(&envelope, &std::slice::from_ref(&bob_key), &SelfCertified)?;
//! assert_eq!(opened.plaintext, plaintext.as_bytes());
//! let sender = opened.sender.ok_or("authcrypt shows the sender")?;
//! assert_eq!(sender.party.did(), alice.as_str());
//!
//! // Only the recipient can open the envelope.
//! assert!(unpack(&envelope, &std::slice::from_ref(&alice_key), &SelfCertified).is_err());
//! # Ok(())
//! # }
//! ```
//!
//! Source: DIDComm Messaging v2.1, "Message Structure" and "Message Encryption"; RFC 7515 to 7518;
//! draft-madden-jose-ecdh-1pu-04.

mod agreement;
mod content;
mod error;
mod keyring;
mod kid;
mod pack;
mod unpack;
mod unpacked;
mod wire;

pub use self::content::ContentEncryption;
pub use self::error::EnvelopeError;
pub use self::keyring::{Keyring, Resolve, SelfCertified};
pub use self::kid::MAX_KID;
pub use self::pack::{anoncrypt, authcrypt, sign};
pub use self::unpack::{check_encrypted, recipient_kids, sender_did, unpack};
pub use self::unpacked::{Authenticated, Layer, Unpacked};
pub use self::wire::{MAX_PROTECTED, MAX_RECIPIENTS, MAX_SIGNATURES};
pub use super::key::{Curve, KeyError, PublicKey, SecretKey};

#[cfg(test)]
mod tests;
