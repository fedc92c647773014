//! Key agreement: derives the key that wraps the content key from two or four keys.

use askar_crypto::alg::aes::{A256Kw, AesKey};
use askar_crypto::buffer::Writer;
use askar_crypto::encrypt::KeyAeadInPlace as _;
use askar_crypto::kdf::KeyExchange as _;
use askar_crypto::kdf::concat::{ConcatKDFHash, ConcatKDFParams};
use askar_crypto::repr::KeySecretBytes as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::error::EnvelopeError;
use crate::didcomm::key::Pair;

/// The two methods of key agreement, each with AES-256 key wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// With an ephemeral key only: anoncrypt.
    Es,
    /// With the sender's key too: authcrypt.
    OnePu,
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Es => "ECDH-ES+A256KW",
            Self::OnePu => "ECDH-1PU+A256KW",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Es, Self::OnePu]
            .into_iter()
            .find(|method| method.name() == name)
    }
}

/// Inputs of the derivation besides the shared secrets.
pub(super) struct Context<'a> {
    pub(super) method: Method,
    pub(super) apu: &'a [u8],
    pub(super) apv: &'a [u8],
    /// Tag of the content. Authcrypt binds it, so that no recipient can replace the content for
    /// another recipient in the sender's name.
    pub(super) tag: &'a [u8],
}

/// Length of a shared secret in bytes, for both curves.
const SHARED: usize = 32;

/// The key that wraps the content key.
pub(super) struct WrappingKey(AesKey<A256Kw>);

impl WrappingKey {
    #[cfg(test)]
    pub(super) fn new(key: AesKey<A256Kw>) -> Self {
        Self(key)
    }

    /// Derives the key from the agreements in their order: ephemeral, then static.
    ///
    /// Source: RFC 7518, section 4.6.2; ECDH-1PU draft 04, section 2.3.
    pub(super) fn derive(
        agreements: &[(&Pair, &Pair)],
        context: &Context<'_>,
    ) -> Result<Self, EnvelopeError> {
        /// Length of the derived key in bits.
        const KEY_BITS: u32 = 256;
        let mut kdf = ConcatKDFHash::<Sha256>::new();
        kdf.start_pass();
        for (secret, public) in agreements {
            kdf.hash_message(&*shared(secret, public)?);
        }
        // The length of the key and, for ECDH-1PU, the tag behind its own length.
        let mut public_info = Vec::with_capacity(40);
        public_info.extend_from_slice(&KEY_BITS.to_be_bytes());
        if context.method == Method::OnePu {
            let len = u32::try_from(context.tag.len()).map_err(|_| EnvelopeError::Decrypt)?;
            public_info.extend_from_slice(&len.to_be_bytes());
            public_info.extend_from_slice(context.tag);
        }
        kdf.hash_params(ConcatKDFParams {
            alg: context.method.name().as_bytes(),
            apu: context.apu,
            apv: context.apv,
            pub_info: &public_info,
            prv_info: &[],
        });
        let mut derived = kdf.finish_pass();
        let key = AesKey::from_secret_bytes(&derived).map_err(|_| EnvelopeError::Decrypt);
        zeroize::Zeroize::zeroize(&mut derived[..]);
        key.map(Self)
    }

    pub(super) fn wrap(&self, key: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut buffer = Zeroizing::new(Vec::with_capacity(key.len() + 8));
        buffer.extend_from_slice(key);
        self.0
            .encrypt_in_place(&mut *buffer, &[], &[])
            .map_err(|_| EnvelopeError::Decrypt)?;
        Ok(std::mem::take(&mut *buffer))
    }

    pub(super) fn unwrap(&self, wrapped: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
        let mut buffer = Zeroizing::new(wrapped);
        self.0
            .decrypt_in_place(&mut *buffer, &[], &[])
            .map_err(|_| EnvelopeError::Decrypt)?;
        Ok(buffer)
    }
}

/// Returns the shared secret of two keys of one curve. A secret of zeros, which a key of low order
/// would force, is an error (RFC 7748, section 6.1).
pub(super) fn shared(
    secret: &Pair,
    public: &Pair,
) -> Result<Zeroizing<[u8; SHARED]>, EnvelopeError> {
    let mut bytes = Zeroizing::new([0; SHARED]);
    let mut writer = Writer::from_slice(&mut bytes[..]);
    match (secret, public) {
        (Pair::X25519(secret), Pair::X25519(public)) => {
            secret.write_key_exchange(public, &mut writer)
        }
        (Pair::P256(secret), Pair::P256(public)) => secret.write_key_exchange(public, &mut writer),
        _ => return Err(EnvelopeError::Curve),
    }
    .map_err(|_| EnvelopeError::Decrypt)?;
    // No branch depends on a single byte.
    if bytes.iter().fold(0, |all, byte| all | byte) == 0 {
        return Err(EnvelopeError::Decrypt);
    }
    Ok(bytes)
}

/// Returns the hash of the recipients' key ids: the expected `apv` (DIDComm Messaging, ECDH-1PU key
/// wrapping and common protected headers).
pub(super) fn apv<'a>(kids: impl Iterator<Item = &'a str>) -> [u8; 32] {
    let mut kids: Vec<&str> = kids.collect();
    kids.sort_unstable();
    let mut hash = Sha256::new();
    for (index, kid) in kids.into_iter().enumerate() {
        if index > 0 {
            hash.update(b".");
        }
        hash.update(kid.as_bytes());
    }
    hash.finalize().into()
}
