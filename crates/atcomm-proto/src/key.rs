//! Public signing keys of atproto accounts: every form in which a DID document gives them, and the
//! only signature check (ECDSA over SHA-256, raw `r || s`, low-S only).
//!
//! Source: atproto cryptography specification.

use std::fmt;
use std::str::FromStr;

use shrike::crypto::{K256VerifyingKey, P256VerifyingKey, Signature, VerifyingKey};

/// Bytes of a raw signature, `r || s`.
pub const SIGNATURE_LEN: usize = 64;

/// Longest text that is read as a key. The longest valid one is the legacy form with 90 characters.
const MAX_KEY_TEXT: usize = 256;

/// Errors of reading a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not base58btc multibase (`z...`), or is far too long.
    #[error("the key is not base58btc multibase text")]
    Multibase,
    /// The multicodec is neither that of K-256 nor that of P-256.
    #[error("the key is of an unsupported type")]
    UnsupportedType,
    /// The bytes have the wrong length or are not a point of the curve.
    #[error("the key is not a point of its curve")]
    Point,
}

/// A signature that does not verify. Deliberately without detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// The two curves of atproto.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// secp256k1.
    K256,
    /// NIST P-256.
    P256,
}

/// An account's public signing key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SigningKey {
    curve: Curve,
    /// SEC1 compressed point.
    point: [u8; 33],
}

const K256_CODEC: [u8; 2] = [0xe7, 0x01];
const P256_CODEC: [u8; 2] = [0x80, 0x24];

impl SigningKey {
    /// Reads `did:key:z...`.
    pub fn from_did_key(s: &str) -> Result<Self, KeyError> {
        Self::from_multikey(s.strip_prefix("did:key:").ok_or(KeyError::Multibase)?)
    }

    /// Reads a Multikey value: `z` + base58btc of multicodec and compressed point.
    pub fn from_multikey(s: &str) -> Result<Self, KeyError> {
        let bytes = base58(s)?;
        let (curve, point) = match bytes.split_at_checked(2) {
            Some((codec, point)) if codec == K256_CODEC => (Curve::K256, point),
            Some((codec, point)) if codec == P256_CODEC => (Curve::P256, point),
            _ => return Err(KeyError::UnsupportedType),
        };
        let point: [u8; 33] = point.try_into().map_err(|_| KeyError::Point)?;
        Self::from_point(curve, point)
    }

    /// Reads the legacy form that the verification method types of one curve carry
    /// (`EcdsaSecp256k1VerificationKey2019`, `EcdsaSecp256r1VerificationKey2019`): `z` + base58btc
    /// of a SEC1 point without multicodec, uncompressed or compressed.
    pub fn from_legacy(curve: Curve, s: &str) -> Result<Self, KeyError> {
        let bytes = base58(s)?;
        // The libraries' parsers check that an uncompressed point lies on the curve. Folding the
        // point to x and the parity of y would not.
        let point: Option<[u8; 33]> = match curve {
            Curve::K256 => k256::PublicKey::from_sec1_bytes(&bytes)
                .ok()
                .map(|key| k256::EncodedPoint::from(key).compress())
                .and_then(|p| p.as_bytes().try_into().ok()),
            Curve::P256 => p256::PublicKey::from_sec1_bytes(&bytes)
                .ok()
                .map(|key| p256::EncodedPoint::from(key).compress())
                .and_then(|p| p.as_bytes().try_into().ok()),
        };
        Self::from_point(curve, point.ok_or(KeyError::Point)?)
    }

    fn from_point(curve: Curve, point: [u8; 33]) -> Result<Self, KeyError> {
        match curve {
            Curve::K256 => K256VerifyingKey::from_bytes(&point).map(drop),
            Curve::P256 => P256VerifyingKey::from_bytes(&point).map(drop),
        }
        .map_err(|_| KeyError::Point)?;
        Ok(Self { curve, point })
    }

    /// Returns the curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// Returns the key as `did:key:z...`, its canonical text.
    pub fn did_key(&self) -> String {
        format!("did:key:{}", self.multikey())
    }

    /// Returns the key as a Multikey value.
    pub fn multikey(&self) -> String {
        let codec = match self.curve {
            Curve::K256 => K256_CODEC,
            Curve::P256 => P256_CODEC,
        };
        let mut bytes = Vec::with_capacity(35);
        bytes.extend_from_slice(&codec);
        bytes.extend_from_slice(&self.point);
        format!("z{}", bs58::encode(bytes).into_string())
    }

    /// Returns the key in the type of the proof library.
    fn library_key(&self) -> Result<Box<dyn VerifyingKey>, BadSignature> {
        Ok(match self.curve {
            Curve::K256 => {
                Box::new(K256VerifyingKey::from_bytes(&self.point).map_err(|_| BadSignature)?)
            }
            Curve::P256 => {
                Box::new(P256VerifyingKey::from_bytes(&self.point).map_err(|_| BadSignature)?)
            }
        })
    }

    /// Verifies a signature (raw `r || s`, 64 bytes, low-S) of this key over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let raw: [u8; SIGNATURE_LEN] = signature.try_into().map_err(|_| BadSignature)?;
        let signature = Signature::from_bytes(raw);
        self.library_key()?
            .verify(message, &signature)
            .map_err(|_| BadSignature)
    }
}

/// Decodes `z` + base58btc text of bounded length.
fn base58(s: &str) -> Result<Vec<u8>, KeyError> {
    if s.len() > MAX_KEY_TEXT {
        return Err(KeyError::Multibase);
    }
    let text = s.strip_prefix('z').ok_or(KeyError::Multibase)?;
    bs58::decode(text)
        .into_vec()
        .map_err(|_| KeyError::Multibase)
}

impl FromStr for SigningKey {
    type Err = KeyError;
    fn from_str(s: &str) -> Result<Self, KeyError> {
        Self::from_did_key(s)
    }
}

impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.did_key())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.did_key())
    }
}

#[cfg(test)]
mod tests;
