//! Content encryption: the message itself under a key made for it alone.

use askar_crypto::alg::aes::{A256CbcHs512, A256Gcm, AesKey};
use askar_crypto::alg::chacha20::{Chacha20Key, XC20P};
use askar_crypto::encrypt::KeyAeadInPlace;
use askar_crypto::repr::KeySecretBytes;

use super::error::EnvelopeError;

/// How a message is encrypted. Every library in use reads `A256CbcHs512`, so that is what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentEncryption {
    /// AES-256 in CBC mode with HMAC-SHA-512; the only one of authcrypt.
    A256CbcHs512,
    /// AES-256 in Galois/counter mode.
    A256Gcm,
    /// XChaCha20-Poly1305.
    Xc20p,
}

impl ContentEncryption {
    /// Its name in the header `enc`.
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

    /// Bytes of its key.
    pub(super) fn key_len(self) -> usize {
        match self {
            Self::A256CbcHs512 => 64,
            Self::A256Gcm | Self::Xc20p => 32,
        }
    }

    /// Bytes of its nonce.
    pub(super) fn nonce_len(self) -> usize {
        match self {
            Self::A256CbcHs512 => 16,
            Self::A256Gcm => 12,
            Self::Xc20p => 24,
        }
    }

    /// Bytes of its tag.
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

    /// Encrypts in place; the tag stands behind the ciphertext, whose length is returned.
    pub(super) fn seal(
        self,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<usize, EnvelopeError> {
        self.with_key(key, |key| key.encrypt_in_place(buffer, nonce, aad))
    }

    /// Decrypts a ciphertext with its tag behind it, in place.
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
