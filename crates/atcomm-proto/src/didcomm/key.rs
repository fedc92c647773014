//! Keys as envelopes use them: checked once when they are read, then ready for use.

use std::fmt;

use askar_crypto::alg::ed25519::Ed25519KeyPair;
use askar_crypto::alg::p256::P256KeyPair;
use askar_crypto::alg::x25519::X25519KeyPair;
use askar_crypto::repr::{KeyGen as _, KeyPublicBytes as _, KeySecretBytes as _};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::did_peer::{KeyType, is_low_order};

/// Longest multibase text that is decoded, in characters, since base58 takes quadratic time.
const MAX_MULTIBASE: usize = 128;

/// Errors of reading a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KeyError {
    /// The text is not base58btc multibase (`z...`), or is far too long.
    #[error("the key is not base58btc multibase text")]
    Multibase,
    /// The value is not a JSON Web Key with the members of its type.
    #[error("the key is not a JSON Web Key")]
    Jwk,
    /// The key is of a curve that envelopes do not use.
    #[error("the key is of an unsupported curve")]
    Unsupported,
    /// The bytes have the wrong length, are not a point of their curve, or are not a scalar of it.
    #[error("the key is not a key of its curve")]
    Invalid,
    /// The X25519 key has low order, so everyone knows the secrets agreed with it.
    #[error("the key is of low order")]
    LowOrder,
}

/// The curves in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// Key agreement, 32 bytes.
    X25519,
    /// Key agreement and signatures (ES256), a point of 33 bytes when compressed.
    P256,
    /// Signatures (EdDSA), 32 bytes.
    Ed25519,
}

impl Curve {
    fn key_type(self) -> KeyType {
        match self {
            Self::X25519 => KeyType::X25519,
            Self::P256 => KeyType::P256,
            Self::Ed25519 => KeyType::Ed25519,
        }
    }

    /// Returns the curve of a key in a DID; `None` if envelopes do not use it.
    pub fn of(key_type: KeyType) -> Option<Self> {
        match key_type {
            KeyType::X25519 => Some(Self::X25519),
            KeyType::P256 => Some(Self::P256),
            KeyType::Ed25519 => Some(Self::Ed25519),
            KeyType::K256 => None,
        }
    }
}

/// A key in the types of the library, with or without its secret half.
#[derive(Clone)]
pub(in crate::didcomm) enum Pair {
    X25519(X25519KeyPair),
    P256(P256KeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Pair {
    fn curve(&self) -> Curve {
        match self {
            Self::X25519(_) => Curve::X25519,
            Self::P256(_) => Curve::P256,
            Self::Ed25519(_) => Curve::Ed25519,
        }
    }

    /// Reads a public key. A point must lie on its curve.
    pub(in crate::didcomm) fn public(curve: Curve, bytes: &[u8]) -> Result<Self, KeyError> {
        let invalid = |_| KeyError::Invalid;
        match curve {
            Curve::X25519 if is_low_order(bytes) => Err(KeyError::LowOrder),
            Curve::X25519 => Ok(Self::X25519(
                X25519KeyPair::from_public_bytes(bytes).map_err(invalid)?,
            )),
            Curve::P256 => Ok(Self::P256(
                P256KeyPair::from_public_bytes(bytes).map_err(invalid)?,
            )),
            Curve::Ed25519 => Ok(Self::Ed25519(
                Ed25519KeyPair::from_public_bytes(bytes).map_err(invalid)?,
            )),
        }
    }

    fn secret(curve: Curve, bytes: &[u8]) -> Result<Self, KeyError> {
        let invalid = |_| KeyError::Invalid;
        Ok(match curve {
            Curve::X25519 => {
                Self::X25519(X25519KeyPair::from_secret_bytes(bytes).map_err(invalid)?)
            }
            Curve::P256 => Self::P256(P256KeyPair::from_secret_bytes(bytes).map_err(invalid)?),
            Curve::Ed25519 => {
                Self::Ed25519(Ed25519KeyPair::from_secret_bytes(bytes).map_err(invalid)?)
            }
        })
    }

    pub(in crate::didcomm) fn random(curve: Curve) -> Self {
        let pair = match curve {
            Curve::X25519 => X25519KeyPair::random().map(Self::X25519),
            Curve::P256 => P256KeyPair::random().map(Self::P256),
            Curve::Ed25519 => Ed25519KeyPair::random().map(Self::Ed25519),
        };
        #[expect(
            clippy::expect_used,
            reason = "the library's generators of these three give no error"
        )]
        pair.expect("a random key")
    }

    /// Returns the public half: 32 bytes, or a compressed point of 33.
    pub(in crate::didcomm) fn public_bytes(&self) -> Vec<u8> {
        match self {
            Self::X25519(pair) => pair.with_public_bytes(<[u8]>::to_vec),
            Self::P256(pair) => pair.with_public_bytes(<[u8]>::to_vec),
            Self::Ed25519(pair) => pair.with_public_bytes(<[u8]>::to_vec),
        }
    }
}

/// A public key with the id under which its DID lists it.
#[derive(Clone)]
pub struct PublicKey {
    kid: String,
    bytes: Vec<u8>,
    pair: Pair,
}

impl PublicKey {
    /// Makes a key from its bytes: 32, or a SEC1 point, compressed or not. `kid` is the absolute
    /// id.
    pub fn new(kid: impl Into<String>, curve: Curve, bytes: &[u8]) -> Result<Self, KeyError> {
        let pair = Pair::public(curve, bytes)?;
        Ok(Self {
            kid: kid.into(),
            bytes: pair.public_bytes(),
            pair,
        })
    }

    /// Reads a Multikey value: `z` + base58btc of multicodec and key.
    pub fn from_multikey(kid: impl Into<String>, multikey: &str) -> Result<Self, KeyError> {
        let digits = multikey.strip_prefix('z').ok_or(KeyError::Multibase)?;
        if digits.len() > MAX_MULTIBASE {
            return Err(KeyError::Multibase);
        }
        let decoded = bs58::decode(digits)
            .into_vec()
            .map_err(|_| KeyError::Multibase)?;
        let (key_type, bytes) = KeyType::split(&decoded).ok_or(KeyError::Unsupported)?;
        let curve = Curve::of(key_type).ok_or(KeyError::Unsupported)?;
        Self::new(kid, curve, bytes)
    }

    /// Reads a JSON Web Key: `{kty, crv, x}` or `{kty, crv, x, y}`; other members are ignored.
    pub fn from_jwk(kid: impl Into<String>, jwk: &serde_json::Value) -> Result<Self, KeyError> {
        let member = |name| jwk.get(name).and_then(serde_json::Value::as_str);
        let (kty, crv, x) = (member("kty"), member("crv"), member("x"));
        let (Some(kty), Some(crv), Some(x)) = (kty, crv, x) else {
            return Err(KeyError::Jwk);
        };
        let pair = jwk_pair(kty, crv, x, member("y"))?;
        Ok(Self {
            kid: kid.into(),
            bytes: pair.public_bytes(),
            pair,
        })
    }

    /// Returns the absolute id of the key.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns the curve of the key.
    pub fn curve(&self) -> Curve {
        self.pair.curve()
    }

    /// Returns the bare key: 32 bytes, or a compressed point of 33.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the key as a Multikey value.
    pub fn multikey(&self) -> String {
        self.curve().key_type().multibase(&self.bytes)
    }

    /// Returns the X25519 key that `did:key` derives from an Ed25519 key. `kid` makes the id from
    /// the Multikey value.
    pub(in crate::didcomm) fn to_x25519(&self, kid: impl Fn(&str) -> String) -> Option<Self> {
        let Pair::Ed25519(pair) = &self.pair else {
            return None;
        };
        let derived = pair.to_x25519_keypair().with_public_bytes(<[u8]>::to_vec);
        let kid = kid(&KeyType::X25519.multibase(&derived));
        Self::new(kid, Curve::X25519, &derived).ok()
    }

    pub(in crate::didcomm) fn pair(&self) -> &Pair {
        &self.pair
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid && self.curve() == other.curve() && self.bytes == other.bytes
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey")
            .field("kid", &self.kid)
            .field("multikey", &self.multikey())
            .finish()
    }
}

/// Returns the key of a JWK, given its members.
pub(in crate::didcomm) fn jwk_pair(
    kty: &str,
    crv: &str,
    x: &str,
    y: Option<&str>,
) -> Result<Pair, KeyError> {
    /// Length of a coordinate in bytes, for all three curves.
    const COORDINATE: usize = 32;
    let coordinate = |text: &str, to: &mut [u8]| -> Result<(), KeyError> {
        if BASE64URL_NOPAD.decode_len(text.len()) != Ok(COORDINATE) {
            return Err(KeyError::Invalid);
        }
        match BASE64URL_NOPAD.decode_mut(text.as_bytes(), to) {
            Ok(COORDINATE) => Ok(()),
            _ => Err(KeyError::Invalid),
        }
    };
    let curve = match (kty, crv) {
        ("OKP", "X25519") => Curve::X25519,
        ("OKP", "Ed25519") => Curve::Ed25519,
        ("EC", "P-256") => {
            let mut point = [4; 1 + 2 * COORDINATE];
            let (to_x, to_y) = point[1..].split_at_mut(COORDINATE);
            coordinate(x, to_x)?;
            coordinate(y.ok_or(KeyError::Jwk)?, to_y)?;
            return Pair::public(Curve::P256, &point);
        }
        _ => return Err(KeyError::Unsupported),
    };
    let mut bytes = [0; COORDINATE];
    coordinate(x, &mut bytes)?;
    Pair::public(curve, &bytes)
}

/// A secret key with the id of its public half. Its bytes are wiped when the key is dropped, and
/// `Debug` shows the id only.
#[derive(Clone)]
pub struct SecretKey {
    kid: String,
    pair: Pair,
}

impl SecretKey {
    /// Makes a new key from the system's random numbers.
    pub fn generate(curve: Curve, kid: impl Into<String>) -> Self {
        Self {
            kid: kid.into(),
            pair: Pair::random(curve),
        }
    }

    /// Makes a key from its 32 bytes: an X25519 or P-256 scalar, or an Ed25519 seed.
    pub fn from_bytes(
        curve: Curve,
        kid: impl Into<String>,
        bytes: &[u8],
    ) -> Result<Self, KeyError> {
        Ok(Self {
            kid: kid.into(),
            pair: Pair::secret(curve, bytes)?,
        })
    }

    /// Returns the 32 bytes that [`from_bytes`](Self::from_bytes) reads.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let copy = |bytes: Option<&[u8]>| Zeroizing::new(bytes.unwrap_or_default().to_vec());
        match &self.pair {
            Pair::X25519(pair) => pair.with_secret_bytes(copy),
            Pair::P256(pair) => pair.with_secret_bytes(copy),
            Pair::Ed25519(pair) => pair.with_secret_bytes(copy),
        }
    }

    /// Returns the public half, under the same id.
    pub fn public(&self) -> PublicKey {
        let bytes = self.pair.public_bytes();
        let pair = match &self.pair {
            Pair::X25519(_) => X25519KeyPair::from_public_bytes(&bytes).map(Pair::X25519),
            Pair::P256(_) => P256KeyPair::from_public_bytes(&bytes).map(Pair::P256),
            Pair::Ed25519(_) => Ed25519KeyPair::from_public_bytes(&bytes).map(Pair::Ed25519),
        };
        #[expect(
            clippy::expect_used,
            reason = "the public half was made from the secret one and is a key"
        )]
        let pair = pair.expect("a public half");
        PublicKey {
            kid: self.kid.clone(),
            bytes,
            pair,
        }
    }

    /// Returns the absolute id of the public half.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns the curve of the key.
    pub fn curve(&self) -> Curve {
        self.pair.curve()
    }

    pub(in crate::didcomm) fn pair(&self) -> &Pair {
        &self.pair
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}
