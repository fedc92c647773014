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
pub use self::unpack::{recipient_kids, sender_did, unpack};
pub use self::unpacked::{Authenticated, Layer, Unpacked};
pub use self::wire::{MAX_PROTECTED, MAX_RECIPIENTS, MAX_SIGNATURES};
pub use super::key::{Curve, KeyError, PublicKey, SecretKey};

#[cfg(test)]
mod tests;
