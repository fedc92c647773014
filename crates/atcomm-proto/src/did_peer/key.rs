//! Keys in a `did:peer:2`.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::error::PeerDidError;

/// Longest key text that is decoded, in characters, since base58 takes quadratic time. The longest
/// key of a known type, a compressed point, has 49.
const MAX_KEY_TEXT: usize = 128;

/// Length of the shortest known key in bytes, without its codec.
const MIN_KEY_LEN: usize = 32;

/// The purpose of a key (peer DID method, purpose codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// `A`
    Assertion,
    /// `D`
    CapabilityDelegation,
    /// `E`
    KeyAgreement,
    /// `I`
    CapabilityInvocation,
    /// `V`
    Authentication,
}

impl Purpose {
    /// Returns the code of the purpose in a DID.
    pub(super) fn code(self) -> char {
        match self {
            Self::Assertion => 'A',
            Self::CapabilityDelegation => 'D',
            Self::KeyAgreement => 'E',
            Self::CapabilityInvocation => 'I',
            Self::Authentication => 'V',
        }
    }
}

/// The type of a key. Messages use X25519 and Ed25519; keys of the other types may be in the same
/// DID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// X25519, 32 bytes, text `z6LS...`.
    X25519,
    /// Ed25519, 32 bytes, text `z6Mk...`.
    Ed25519,
    /// P-256, compressed point of 33 bytes.
    P256,
    /// secp256k1, compressed point of 33 bytes.
    K256,
}

impl KeyType {
    /// Every type with the multicodec of its public keys as written, and the length of a key.
    pub(super) const KNOWN: [(Self, [u8; 2], usize); 4] = [
        (Self::X25519, [0xec, 0x01], 32),
        (Self::Ed25519, [0xed, 0x01], 32),
        (Self::P256, [0x80, 0x24], 33),
        (Self::K256, [0xe7, 0x01], 33),
    ];

    /// Splits multicodec-prefixed bytes into type and key; `None` for an unknown codec.
    pub(crate) fn split(coded: &[u8]) -> Option<(Self, &[u8])> {
        Self::KNOWN
            .iter()
            .find_map(|(key_type, codec, _)| Some((*key_type, coded.strip_prefix(codec)?)))
    }

    /// Returns a key of this type as multibase text: `z` + base58btc of multicodec and key.
    pub(crate) fn multibase(self, bytes: &[u8]) -> String {
        let codec = Self::KNOWN.iter().find(|known| known.0 == self);
        let mut coded = Vec::with_capacity(2 + bytes.len());
        coded.extend(codec.into_iter().flat_map(|(_, codec, _)| codec));
        coded.extend_from_slice(bytes);
        format!("z{}", bs58::encode(coded).into_string())
    }
}

/// A public key of a DID; serialised as a Multikey verification method `{id, type,
/// publicKeyMultibase}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerKey {
    /// Absolute id, `<did>#key-N`; N counts the keys from 1 in order of appearance.
    pub id: String,
    /// The key as multibase text, exactly as written in the DID.
    pub multibase: String,
    /// The purpose that the DID declares for the key.
    pub purpose: Purpose,
    /// The type of the key.
    pub key_type: KeyType,
    /// The bare public key.
    bytes: Vec<u8>,
}

impl PeerKey {
    /// Returns the bare public key: 32 bytes, or a compressed point of 33.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Serialize for PeerKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut method = serializer.serialize_struct("PeerKey", 3)?;
        method.serialize_field("id", &self.id)?;
        method.serialize_field("type", "Multikey")?;
        method.serialize_field("publicKeyMultibase", &self.multibase)?;
        method.end()
    }
}

/// Reads the value of a key element.
pub(super) fn parse(id: String, purpose: Purpose, text: &str) -> Result<PeerKey, PeerDidError> {
    let digits = text.strip_prefix('z').ok_or(PeerDidError::Multibase)?;
    // These characters end a DID or join two of them, so the fault is the end of the DID and not
    // the key.
    let outside = |c: char| matches!(c, '/' | '?' | '#' | ':' | '%' | ',') || c <= ' ';
    if digits.contains(outside) {
        return Err(PeerDidError::Syntax);
    }
    if text.len() > MAX_KEY_TEXT {
        return Err(PeerDidError::KeyLength);
    }
    let decoded = bs58::decode(digits)
        .into_vec()
        .map_err(|_| PeerDidError::Base58)?;
    // One key has one spelling, but the decoder accepts several.
    if bs58::encode(&decoded).into_string() != digits {
        return Err(PeerDidError::Base58);
    }
    let known = KeyType::KNOWN
        .iter()
        .find_map(|(key_type, codec, len)| Some((*key_type, decoded.strip_prefix(codec)?, *len)));
    let Some((key_type, bytes, len)) = known else {
        // The first bytes of a truncated text are not a codec.
        return Err(if decoded.len() < MIN_KEY_LEN {
            PeerDidError::KeyLength
        } else {
            PeerDidError::Multicodec
        });
    };
    if bytes.len() != len {
        return Err(PeerDidError::KeyLength);
    }
    if key_type == KeyType::X25519 && is_low_order(bytes) {
        return Err(PeerDidError::WeakKey);
    }
    Ok(PeerKey {
        id,
        multibase: text.to_owned(),
        purpose,
        key_type,
        bytes: bytes.to_vec(),
    })
}

/// Returns whether an X25519 public key has low order, so that every private key gives the same
/// shared secret (zero). The top bit, which the X25519 function ignores, is ignored here too (RFC
/// 7748, section 5).
pub(crate) fn is_low_order(key: &[u8]) -> bool {
    /// The coordinates of order 1, 2, 4 and 8 on the curve and its twist, least byte first, and the
    /// second spelling of two of them (`p`, `p + 1`).
    const LOW_ORDER: [[u8; 32]; 7] = [
        [0; 32],
        {
            let mut one = [0; 32];
            one[0] = 1;
            one
        },
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f,
            0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16,
            0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83,
            0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd,
            0xd0, 0x9f, 0x11, 0x57,
        ],
        near_prime(0xec),
        near_prime(0xed),
        near_prime(0xee),
    ];
    let Ok(mut masked) = <[u8; 32]>::try_from(key) else {
        return false;
    };
    masked[31] &= 0x7f;
    LOW_ORDER.contains(&masked)
}

/// Returns a number that differs from 2^255 - 1 in its lowest byte only; `0xed` gives the prime.
const fn near_prime(lowest: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = lowest;
    bytes[31] = 0x7f;
    bytes
}
