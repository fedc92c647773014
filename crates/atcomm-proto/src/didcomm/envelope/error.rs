//! Errors of unpacking and packing envelopes.

use crate::didcomm::i_json::IJsonError;

/// Errors of unpacking and packing envelopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes are not JSON, or a field has a wrong type or appears twice.
    #[error("it is not well-formed JSON with the fields of an envelope")]
    Json,
    /// Some readers cannot read the message, or its protected header, as JSON.
    #[error("some readers cannot read it as JSON: {0}")]
    IJson(#[from] IJsonError),
    /// The message is neither encrypted nor signed; a bare plaintext is never accepted.
    #[error("it is neither an encrypted nor a signed message")]
    NotAnEnvelope,
    /// A part is not strict, unpadded base64url.
    #[error("a part is not canonical base64url")]
    Base64,
    /// Headers are missing, contradict each other, or are not protected.
    #[error("its headers do not fit: {0}")]
    Header(&'static str),
    /// A part is over a limit of this module.
    #[error("a part is over its limit: {0}")]
    Limit(&'static str),
    /// `alg` is not one of ECDH-1PU+A256KW, ECDH-ES+A256KW, EdDSA and ES256.
    #[error("its algorithm is not supported")]
    Algorithm,
    /// `enc` is unknown, or not allowed under its `alg`.
    #[error("its content encryption is not supported")]
    ContentEncryption,
    /// A key is of a curve that is unsupported or not for this use.
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
    /// The ephemeral key is missing, not a point of its curve, or of low order.
    #[error("its ephemeral key is not usable")]
    EphemeralKey,
    /// The keyring has none of the recipients' keys.
    #[error("it is encrypted to none of our keys")]
    NotForUs,
    /// The document of this DID is needed and was not resolved.
    #[error("the sender's DID is not resolved")]
    Unresolved {
        /// The DID as written in the envelope.
        did: String,
    },
    /// The sender's DID does not list this key for this use.
    #[error("the sender's DID does not list the key")]
    SenderKey,
    /// The message does not decrypt. Deliberately without detail.
    #[error("it does not decrypt")]
    Decrypt,
    /// A signature does not verify. Deliberately without detail.
    #[error("its signature does not verify")]
    Signature,
    /// The layers are in an order that the specification does not allow.
    #[error("its layers are not stacked as they may be")]
    Stacking,
    /// The innermost content is not a JSON object.
    #[error("its content is not a plaintext message")]
    Plaintext,
    /// `from` is missing or names another party than the owner of the key.
    #[error("from is not the party that encrypted or signed it")]
    From,
    /// `to` is missing or does not name the party to which the message is encrypted.
    #[error("to does not name the party that it is encrypted to")]
    To,
    /// There is no recipient to encrypt to.
    #[error("there is no recipient to encrypt to")]
    NoRecipients,
}

impl EnvelopeError {
    /// Returns a stable code for metrics and statistics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::IJson(_) => "i_json",
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
