//! Key agreement: from two or four keys to the key that wraps the content's.

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

/// The two ways to agree, each with AES-256 key wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// With an ephemeral key only: anoncrypt.
    Es,
    /// With the sender's key, too: authcrypt.
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

/// What goes into the derivation beside the shared secrets.
pub(super) struct Context<'a> {
    pub(super) method: Method,
    pub(super) apu: &'a [u8],
    pub(super) apv: &'a [u8],
    /// The content's tag, which authcrypt binds so that no recipient can replace the content for
    /// another in the sender's name.
    pub(super) tag: &'a [u8],
}

/// Bytes of a shared secret of both curves.
const SHARED: usize = 32;

/// The key that wraps the content's key.
pub(super) struct WrappingKey(AesKey<A256Kw>);

impl WrappingKey {
    #[cfg(test)]
    pub(super) fn new(key: AesKey<A256Kw>) -> Self {
        Self(key)
    }

    /// Derives it from the agreements in their order: ephemeral, then static.
    ///
    /// Source: RFC 7518, section 4.6.2; ECDH-1PU draft 04, section 2.3.
    pub(super) fn derive(
        agreements: &[(&Pair, &Pair)],
        context: &Context<'_>,
    ) -> Result<Self, EnvelopeError> {
        /// Bits of the derived key.
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

/// The shared secret of two keys of one curve; never zero, which a key of low order would force
/// (RFC 7748, section 6.1).
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
    // Without a branch on any single byte.
    if bytes.iter().fold(0, |all, byte| all | byte) == 0 {
        return Err(EnvelopeError::Decrypt);
    }
    Ok(bytes)
}

/// The hash of the recipients' key ids: the expected `apv` (DIDComm Messaging, ECDH-1PU key
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
