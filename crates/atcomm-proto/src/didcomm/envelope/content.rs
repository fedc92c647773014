//! Content encryption: the message under a key made for this message only.

use askar_crypto::alg::aes::{A256CbcHs512, A256Gcm, AesKey};
use askar_crypto::alg::chacha20::{Chacha20Key, XC20P};
use askar_crypto::encrypt::KeyAeadInPlace;
use askar_crypto::repr::KeySecretBytes;

use super::error::EnvelopeError;

/// The algorithms of content encryption. We send `A256CbcHs512`, since every library in use reads
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentEncryption {
    /// AES-256 in CBC mode with HMAC-SHA-512; the only one that authcrypt allows.
    A256CbcHs512,
    /// AES-256 in Galois/counter mode.
    A256Gcm,
    /// XChaCha20-Poly1305.
    Xc20p,
}

impl ContentEncryption {
    /// Returns the name in the header `enc`.
    pub fn name(self) -> &'static str {
        match self {
            Self::A256CbcHs512 => "A256CBC-HS512",
            Self::A256Gcm => "A256GCM",
            Self::Xc20p => "XC20P",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::A256CbcHs512, Self::A256Gcm, Self::Xc20p]
            .into_iter()
            .find(|enc| enc.name() == name)
    }

    /// Returns the length of a key in bytes.
    pub(super) fn key_len(self) -> usize {
        match self {
            Self::A256CbcHs512 => 64,
            Self::A256Gcm | Self::Xc20p => 32,
        }
    }

    /// Returns the length of a nonce in bytes.
    pub(super) fn nonce_len(self) -> usize {
        match self {
            Self::A256CbcHs512 => 16,
            Self::A256Gcm => 12,
            Self::Xc20p => 24,
        }
    }

    /// Returns the length of a tag in bytes.
    pub(super) fn tag_len(self) -> usize {
        match self {
            Self::A256CbcHs512 => 32,
            Self::A256Gcm | Self::Xc20p => 16,
        }
    }

    fn with_key<T>(
        self,
        key: &[u8],
        work: impl FnOnce(&dyn KeyAeadInPlace) -> Result<T, askar_crypto::Error>,
    ) -> Result<T, EnvelopeError> {
        match self {
            Self::A256CbcHs512 => {
                AesKey::<A256CbcHs512>::from_secret_bytes(key).and_then(|key| work(&key))
            }
            Self::A256Gcm => AesKey::<A256Gcm>::from_secret_bytes(key).and_then(|key| work(&key)),
            Self::Xc20p => Chacha20Key::<XC20P>::from_secret_bytes(key).and_then(|key| work(&key)),
        }
        .map_err(|_| EnvelopeError::Decrypt)
    }

    /// Encrypts in place and appends the tag; returns the length of the ciphertext.
    pub(super) fn seal(
        self,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<usize, EnvelopeError> {
        self.with_key(key, |key| key.encrypt_in_place(buffer, nonce, aad))
    }

    /// Decrypts in place a ciphertext followed by its tag.
    pub(super) fn open(
        self,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        self.with_key(key, |key| key.decrypt_in_place(buffer, nonce, aad))
    }
}
