//! Limits of a `did:peer:2`, and the errors of reading one.

/// Longest accepted DID, in bytes: two keys and three services take about 500.
pub const MAX_LEN: usize = 2048;

/// Most elements (keys and services) of one DID. Each key is a candidate for every message that
/// arrives, so both the number and the length are bounded.
pub const MAX_ELEMENTS: usize = 8;

/// Errors of reading a `did:peer:2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PeerDidError {
    /// The text is longer than [`MAX_LEN`].
    #[error("it is longer than 2048 bytes")]
    TooLong,
    /// The text does not have the form `did:peer:2` and elements behind dots.
    #[error("it is not written as a DID with elements behind dots")]
    Syntax,
    /// The DID is of another method, or of another number of the peer method.
    #[error("it is not a did:peer:2")]
    Method,
    /// The DID has more than [`MAX_ELEMENTS`] elements.
    #[error("it has more than 8 elements")]
    TooManyElements,
    /// An element begins with none of the purpose codes A, D, E, I, S, V.
    #[error("an element has an unknown purpose code")]
    Purpose,
    /// A key is not base58btc multibase text (`z...`).
    #[error("a key is not base58btc multibase text")]
    Multibase,
    /// A key has characters outside the base58 alphabet.
    #[error("a key has characters outside base58")]
    Base58,
    /// A key is of an unknown type.
    #[error("a key is of an unknown type")]
    Multicodec,
    /// A key does not have the length of its type.
    #[error("a key has the wrong length")]
    KeyLength,
    /// An X25519 key has low order, so everyone can read what is encrypted to it.
    #[error("an X25519 key is of low order")]
    WeakKey,
    /// The DID has no X25519 key under the key agreement purpose.
    #[error("it has no X25519 key for key agreement")]
    NoX25519,
    /// A service is not strict, unpadded base64url.
    #[error("a service is not canonical base64url")]
    Base64Url,
    /// A service is neither a JSON object nor a list of objects.
    #[error("a service is not a JSON object or a list of objects")]
    Service,
}

impl PeerDidError {
    /// Returns a stable code for metrics and statistics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Syntax => "syntax",
            Self::Method => "method",
            Self::TooManyElements => "too_many_elements",
            Self::Purpose => "purpose",
            Self::Multibase => "multibase",
            Self::Base58 => "base58",
            Self::Multicodec => "multicodec",
            Self::KeyLength => "key_length",
            Self::WeakKey => "weak_key",
            Self::NoX25519 => "no_x25519",
            Self::Base64Url => "base64url",
            Self::Service => "service",
        }
    }
}
