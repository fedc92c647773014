//! The envelope of DIDComm v2: encrypted for a party, with or without a proven sender, or signed.
//!
//! [`unpack`] holds every rule at once, so that what it returns can be acted upon: the plaintext's
//! `from` is the party whose key made it, its `to` names the party whose key opened it, and nothing
//! unprotected had a say. Whatever is wrong ends in an [`EnvelopeError`], and of a failure inside
//! the cryptography no more is told than that it failed.
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
mod key;
mod pack;
mod unpack;
mod wire;

use super::party::Party;

pub use self::content::ContentEncryption;
pub use self::key::{Curve, KeyError, PublicKey, SecretKey};
pub use self::pack::{anoncrypt, authcrypt, sign};
pub use self::unpack::{recipient_kids, sender_did, unpack};

/// Most recipients of one envelope. They are the keys of one party, and a `did:peer:2` has at most
/// eight elements.
pub const MAX_RECIPIENTS: usize = 32;

/// Most signatures of one message, each of which is checked.
pub const MAX_SIGNATURES: usize = 4;

/// Longest id of a key, in bytes: a `did:peer:4` of 4 KiB and a fragment.
pub const MAX_KID: usize = 4096 + 256;

/// Longest protected header, in characters of base64url. It carries the sender's key id twice.
pub const MAX_PROTECTED: usize = 16 * 1024;

/// Why an envelope was not opened, or not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not JSON, a field of a wrong type, or a field twice.
    #[error("it is not well-formed JSON with the fields of an envelope")]
    Json,
    /// Neither encrypted nor signed; a plaintext is never taken as it is.
    #[error("it is neither an encrypted nor a signed message")]
    NotAnEnvelope,
    /// A part is not strict, unpadded base64url.
    #[error("a part is not canonical base64url")]
    Base64,
    /// Headers are missing, contradict each other, or stand where they are not protected.
    #[error("its headers do not fit: {0}")]
    Header(&'static str),
    /// A part is over a limit of this module.
    #[error("a part is over its limit: {0}")]
    Limit(&'static str),
    /// Another `alg` than ECDH-1PU+A256KW, ECDH-ES+A256KW, EdDSA and ES256.
    #[error("its algorithm is not supported")]
    Algorithm,
    /// An `enc` that is unknown, or not allowed under its `alg`.
    #[error("its content encryption is not supported")]
    ContentEncryption,
    /// A key of a curve that is not supported or not for this use.
    #[error("a key is of an unsupported curve")]
    Curve,
    /// A key id is not a DID with a fragment.
    #[error("a key id is not an absolute DID URL with a fragment")]
    KeyId,
    /// The recipients' keys belong to several DIDs.
    #[error("its recipients are keys of several DIDs")]
    SeveralRecipients,
    /// `apu` is not the sender's key id.
    #[error("apu is not the key id of the sender")]
    Apu,
    /// `apv` is not the hash of the recipients' key ids.
    #[error("apv is not the hash of the recipients")]
    Apv,
    /// The ephemeral key is missing, no point of its curve, or of low order.
    #[error("its ephemeral key is not usable")]
    EphemeralKey,
    /// No recipient's key is in our ring.
    #[error("it is encrypted to none of our keys")]
    NotForUs,
    /// The document of this DID is needed and is not at hand.
    #[error("the sender's DID is not resolved")]
    Unresolved {
        /// The DID as the envelope names it.
        did: String,
    },
    /// The sender's DID does not have this key for this use.
    #[error("the sender's DID does not list the key")]
    SenderKey,
    /// It does not decrypt. Deliberately without detail.
    #[error("it does not decrypt")]
    Decrypt,
    /// A signature does not hold. Deliberately without detail.
    #[error("its signature does not verify")]
    Signature,
    /// Layers in an order that the specification does not have.
    #[error("its layers are not stacked as they may be")]
    Stacking,
    /// What the layers hold is not a JSON object.
    #[error("its content is not a plaintext message")]
    Plaintext,
    /// `from` is missing or names another party than the one whose key was used.
    #[error("from is not the party that encrypted or signed it")]
    From,
    /// `to` is missing or does not name the party it is encrypted to.
    #[error("to does not name the party that it is encrypted to")]
    To,
    /// Asked to encrypt to nobody.
    #[error("there is no recipient to encrypt to")]
    NoRecipients,
}

impl EnvelopeError {
    /// Stable code for metrics and statistics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::NotAnEnvelope => "not_an_envelope",
            Self::Base64 => "base64",
            Self::Header(_) => "header",
            Self::Limit(_) => "limit",
            Self::Algorithm => "algorithm",
            Self::ContentEncryption => "content_encryption",
            Self::Curve => "curve",
            Self::KeyId => "key_id",
            Self::SeveralRecipients => "several_recipients",
            Self::Apu => "apu",
            Self::Apv => "apv",
            Self::EphemeralKey => "ephemeral_key",
            Self::NotForUs => "not_for_us",
            Self::Unresolved { .. } => "unresolved",
            Self::SenderKey => "sender_key",
            Self::Decrypt => "decrypt",
            Self::Signature => "signature",
            Self::Stacking => "stacking",
            Self::Plaintext => "plaintext",
            Self::From => "from",
            Self::To => "to",
            Self::NoRecipients => "no_recipients",
        }
    }
}

/// Our own keys, found by the id that an envelope names. A ring whose keys are known under several
/// spellings of their ids answers to each of them.
pub trait Keyring {
    /// The key with this id, which is an absolute DID URL as the sender wrote it.
    fn secret(&self, kid: &str) -> Option<&SecretKey>;
}

impl Keyring for [SecretKey] {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        self.iter().find(|key| key.kid() == kid)
    }
}

impl Keyring for Vec<SecretKey> {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        self.as_slice().secret(kid)
    }
}

impl<const N: usize> Keyring for [SecretKey; N] {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        self.as_slice().secret(kid)
    }
}

impl<R: Keyring + ?Sized> Keyring for &R {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        (**self).secret(kid)
    }
}

/// What is asked about others while an envelope is opened.
pub trait Resolve {
    /// The party with this DID, or none where it is not known here.
    fn party(&self, did: &str) -> Option<Party>;
}

impl<F: Fn(&str) -> Option<Party>> Resolve for F {
    fn party(&self, did: &str) -> Option<Party> {
        self(did)
    }
}

/// Knows the DIDs that carry their keys: [`Party::resolve`], and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct SelfCertified;

impl Resolve for SelfCertified {
    fn party(&self, did: &str) -> Option<Party> {
        Party::resolve(did).ok()
    }
}

/// One layer that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Encrypted by a proven sender.
    Authcrypt,
    /// Encrypted by whoever.
    Anoncrypt(ContentEncryption),
    /// Signed.
    Signed,
}

/// A party that proved to hold a key.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// The party.
    pub party: Party,
    /// Which of its keys, as the envelope names it.
    pub kid: String,
}

/// An opened message.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// The plaintext message: UTF-8, a JSON object, `from` and `to` checked and neither there
    /// twice. The rest of it is as the sender wrote it.
    pub plaintext: Vec<u8>,
    /// Who encrypted it, where that is proven. Without a sender and a signer a `from` in the
    /// plaintext is nobody's word.
    pub sender: Option<Authenticated>,
    /// Who signed it.
    pub signer: Option<Authenticated>,
    /// Which of our keys opened it, as the envelope names it; of several layers the outermost. None
    /// where it was signed only: then `to` has been compared with nothing.
    pub recipient: Option<String>,
    /// Tells one authcrypted message from every other, and stays the same whatever is done to the
    /// message on its way: of what its sender has authenticated, nothing outside of it. None
    /// without a sender.
    pub seal: Option<[u8; 32]>,
    /// The layers, outermost first.
    pub layers: Vec<Layer>,
}

/// The DID of a key id, which is an absolute DID URL with a fragment.
fn did_of(kid: &str) -> Result<&str, EnvelopeError> {
    if kid.len() > MAX_KID {
        return Err(EnvelopeError::Limit("a key id"));
    }
    match kid.split_once('#') {
        Some((did, fragment)) if did.starts_with("did:") && !fragment.is_empty() => Ok(did),
        _ => Err(EnvelopeError::KeyId),
    }
}

#[cfg(test)]
mod tests;
