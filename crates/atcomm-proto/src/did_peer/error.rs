//! Limits of a `did:peer:2`, and the errors of reading one.

/// Longest DID read, in bytes: two keys and three services take about 500.
pub const MAX_LEN: usize = 2048;

/// Most elements (keys and services) of one DID. Each key is a candidate for every message that
/// arrives, so their number is bounded as well as their length.
pub const MAX_ELEMENTS: usize = 8;

/// Why a text is not a usable `did:peer:2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PeerDidError {
    /// Over [`MAX_LEN`].
    #[error("it is longer than 2048 bytes")]
    TooLong,
    /// Not the shape `did:peer:2` and elements behind dots.
    #[error("it is not written as a DID with elements behind dots")]
    Syntax,
    /// Another DID method, or another number of the peer method.
    #[error("it is not a did:peer:2")]
    Method,
    /// Over [`MAX_ELEMENTS`].
    #[error("it has more than 8 elements")]
    TooManyElements,
    /// An element begins with none of the purpose codes A, D, E, I, S, V.
    #[error("an element has an unknown purpose code")]
    Purpose,
    /// A key is not base58btc multibase (`z...`).
    #[error("a key is not base58btc multibase text")]
    Multibase,
    /// Characters outside the base58 alphabet.
    #[error("a key has characters outside base58")]
    Base58,
    /// A key of a type that is not known.
    #[error("a key is of an unknown type")]
    Multicodec,
    /// A key has not the length of its type.
    #[error("a key has the wrong length")]
    KeyLength,
    /// An X25519 key of low order: what is encrypted to it, everyone can read.
    #[error("an X25519 key is of low order")]
    WeakKey,
    /// No X25519 key stands under the key agreement purpose.
    #[error("it has no X25519 key for key agreement")]
    NoX25519,
    /// A service is not strict, unpadded base64url.
    #[error("a service is not canonical base64url")]
    Base64Url,
    /// A service is neither a JSON object nor a list of them.
    #[error("a service is not a JSON object or a list of objects")]
    Service,
}

impl PeerDidError {
    /// Stable code for metrics and statistics.
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
