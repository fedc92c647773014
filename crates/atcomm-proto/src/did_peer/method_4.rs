//! `did:peer:4`: a long form that carries the whole DID document, and a short form that is the hash
//! of the document.
//!
//! A sender whose long form the reader knows may write the short form; the short form alone does
//! not give the keys.
//!
//! Source: peer DID method specification, method 4.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::error::{MAX_ELEMENTS, PeerDidError};
use super::key::{self, KeyType, PeerKey, Purpose};
use super::service::{self, PeerService};

/// Longest accepted long form, in bytes: those in use have about 1000.
pub const MAX_LEN_4: usize = 4096;

/// Multihash prefix of SHA-256.
const SHA2_256: [u8; 2] = [0x12, 0x20];

/// Multicodec of JSON, as varint.
const JSON: [u8; 2] = [0x80, 0x04];

/// Errors of reading the long form of a `did:peer:4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PeerDid4Error {
    /// The text is longer than [`MAX_LEN_4`].
    #[error("it is longer than 4096 bytes")]
    TooLong,
    /// The text is not `did:peer:4`, a hash, a colon and a document, both in base58btc multibase.
    #[error("it is not written as a did:peer:4")]
    Syntax,
    /// The text is the short form, which does not contain the document.
    #[error("it is the short form, whose document is not known from it")]
    ShortForm,
    /// The hash is not the hash of the document.
    #[error("its hash is not that of its document")]
    Hash,
    /// The document is not a JSON object behind the multicodec of JSON.
    #[error("its document is not a JSON object")]
    Document,
    /// The document has more than 8 keys or services.
    #[error("its document has more than 8 keys or services")]
    TooManyElements,
    /// A key is not a valid key of its type.
    #[error("a key is not usable: {0}")]
    Key(#[source] PeerDidError),
}

/// A checked `did:peer:4`. Cloning is cheap; two are equal if their documents are.
#[derive(Debug, Clone)]
pub struct PeerDid4(Arc<Decoded>);

#[derive(Debug)]
struct Decoded {
    long: Box<str>,
    /// Length of the short form in bytes; the long form begins with it.
    short: usize,
    key_agreement: Vec<PeerKey>,
    authentication: Vec<PeerKey>,
    services: Vec<PeerService>,
}

impl PeerDid4 {
    /// Reads a long form, checks its hash and collects the keys that messages use: Multikey,
    /// `X25519KeyAgreementKey2020`, `Ed25519VerificationKey2020` and `JsonWebKey2020`. Keys of
    /// other types or curves are left out.
    pub fn parse(long: &str) -> Result<Self, PeerDid4Error> {
        if long.len() > MAX_LEN_4 {
            return Err(PeerDid4Error::TooLong);
        }
        let (short, encoded) = forms(long).ok_or(PeerDid4Error::Syntax)?;
        let encoded = encoded.ok_or(PeerDid4Error::ShortForm)?;
        let mut multihash = SHA2_256.to_vec();
        multihash.extend_from_slice(&Sha256::digest(encoded.as_bytes()));
        let hash = bs58::encode(multihash).into_string();
        if short.strip_prefix(PREFIX) != Some(&*hash) {
            return Err(PeerDid4Error::Hash);
        }
        let digits = encoded.strip_prefix('z').ok_or(PeerDid4Error::Syntax)?;
        let decoded = base58(digits).ok_or(PeerDid4Error::Syntax)?;
        let json = decoded.strip_prefix(&JSON).ok_or(PeerDid4Error::Document)?;
        let document: Map<String, Value> =
            serde_json::from_slice(json).map_err(|_| PeerDid4Error::Document)?;

        let reader = Document {
            long,
            short,
            methods: list(&document, "verificationMethod")?,
            document: &document,
        };
        let key_agreement = reader.keys(
            "keyAgreement",
            Purpose::KeyAgreement,
            &[KeyType::X25519, KeyType::P256],
        )?;
        let authentication = reader.keys(
            "authentication",
            Purpose::Authentication,
            &[KeyType::Ed25519, KeyType::P256],
        )?;
        let mut services = service::Services::default();
        for service in list(&document, "service")? {
            if let Value::Object(object) = service {
                services.push(object.clone());
            }
        }
        Ok(Self(Arc::new(Decoded {
            short: short.len(),
            key_agreement,
            authentication,
            services: services.list,
            long: long.into(),
        })))
    }

    /// Returns the long form as it was read.
    pub fn long(&self) -> &str {
        &self.0.long
    }

    /// Returns the short form: `did:peer:4` and the hash.
    pub fn short(&self) -> &str {
        self.0.long.get(..self.0.short).unwrap_or_default()
    }

    /// Returns the X25519 and P-256 keys to encrypt to, in the document's order; may be empty.
    /// Their ids begin with the long form.
    pub fn key_agreement(&self) -> &[PeerKey] {
        &self.0.key_agreement
    }

    /// Returns the Ed25519 and P-256 keys that may sign for this DID; may be empty.
    pub fn authentication(&self) -> &[PeerKey] {
        &self.0.authentication
    }

    /// Returns the services of the document; may be empty.
    pub fn services(&self) -> &[PeerService] {
        &self.0.services
    }
}

/// Beginning of both forms; `z` announces base58btc.
const PREFIX: &str = "did:peer:4z";

/// Returns the short form of a `did:peer:4` given in either form, and the encoded document of a
/// long form. Does not compare the hash with the document.
pub(crate) fn forms(did: &str) -> Option<(&str, Option<&str>)> {
    let digits = did.strip_prefix(PREFIX)?;
    let (hash, encoded) = match digits.split_once(':') {
        Some((hash, encoded)) => (hash, Some(encoded)),
        None => (digits, None),
    };
    let is_alphanumeric = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
    if hash.is_empty() || !is_alphanumeric(hash) || !encoded.is_none_or(is_alphanumeric) {
        return None;
    }
    let short = did.get(..PREFIX.len() + hash.len())?;
    Some((short, encoded))
}

/// Returns a list of the document; a missing one is empty.
fn list<'d>(document: &'d Map<String, Value>, name: &str) -> Result<&'d [Value], PeerDid4Error> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) if items.len() <= MAX_ELEMENTS => Ok(items),
        Some(Value::Array(_)) => Err(PeerDid4Error::TooManyElements),
        Some(_) => Err(PeerDid4Error::Document),
    }
}

struct Document<'d> {
    long: &'d str,
    short: &'d str,
    methods: &'d [Value],
    document: &'d Map<String, Value>,
}

impl<'d> Document<'d> {
    /// Returns the keys of these types under one purpose, referenced or embedded.
    fn keys(
        &self,
        name: &str,
        purpose: Purpose,
        types: &[KeyType],
    ) -> Result<Vec<PeerKey>, PeerDid4Error> {
        let mut keys = Vec::new();
        for entry in list(self.document, name)? {
            let method = match entry {
                Value::String(id) => self.method(id),
                embedded => Some(embedded),
            };
            let fragment = method.and_then(|method| self.fragment(method.get("id")?.as_str()?));
            let (Some(method), Some(fragment)) = (method, fragment) else {
                continue;
            };
            let id = format!("{}#{fragment}", self.long);
            if let Some(key) = read(method, id, purpose)?
                && types.contains(&key.key_type)
            {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    fn method(&self, id: &str) -> Option<&'d Value> {
        let wanted = self.fragment(id)?;
        // A document cannot contain its own hash, so ids in it are relative; ids elsewhere are
        // absolute.
        self.methods.iter().find(|method| {
            let id = method.get("id").and_then(Value::as_str);
            id.is_some_and(|id| self.fragment(id) == Some(wanted))
        })
    }

    /// Returns the fragment of an id of this DID, relative or absolute.
    fn fragment<'i>(&self, id: &'i str) -> Option<&'i str> {
        let (did, fragment) = id.split_once('#')?;
        let is_own = did.is_empty() || did == self.long || did == self.short;
        (is_own && !fragment.is_empty()).then_some(fragment)
    }
}

/// Reads a verification method; `None` if its type or curve is not in use.
fn read(method: &Value, id: String, purpose: Purpose) -> Result<Option<PeerKey>, PeerDid4Error> {
    let text = |name: &str| method.get(name).and_then(Value::as_str);
    let multibase = match text("type") {
        Some("Multikey" | "X25519KeyAgreementKey2020" | "Ed25519VerificationKey2020") => {
            text("publicKeyMultibase").map(str::to_owned)
        }
        Some("JsonWebKey2020") => method.get("publicKeyJwk").and_then(multibase_of_jwk),
        _ => None,
    };
    let Some(multibase) = multibase else {
        return Ok(None);
    };
    match key::parse(id, purpose, &multibase) {
        Ok(key) => Ok(Some(key)),
        Err(PeerDidError::Multicodec) => Ok(None),
        Err(err) => Err(PeerDid4Error::Key(err)),
    }
}

/// Returns a JSON Web Key as multibase text; `None` if its curve is unknown or it is not a point of
/// the curve.
fn multibase_of_jwk(jwk: &Value) -> Option<String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| BASE64URL_NOPAD.decode(text(name)?.as_bytes()).ok();
    match (text("kty")?, text("crv")?) {
        ("OKP", "X25519") => Some(KeyType::X25519.multibase(&bytes("x")?)),
        ("OKP", "Ed25519") => Some(KeyType::Ed25519.multibase(&bytes("x")?)),
        ("EC", "P-256") => {
            let point = [vec![4], bytes("x")?, bytes("y")?].concat();
            let point = p256::PublicKey::from_sec1_bytes(&point).ok()?;
            let compressed = p256::EncodedPoint::from(point).compress();
            Some(KeyType::P256.multibase(compressed.as_bytes()))
        }
        _ => None,
    }
}

/// Decodes base58btc, ten digits at a time. The library's decoder works digit by digit and takes 4
/// ms for a DID of 4 KiB, a hundred times the cost of refusing a message otherwise.
fn base58(digits: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    /// Number of digits whose value fits a limb: 58^10 < 2^59.
    const CHUNK: usize = 10;
    // The number, least significant limb first.
    let mut limbs: Vec<u64> = Vec::with_capacity(digits.len() / CHUNK + 1);
    for chunk in digits.as_bytes().chunks(CHUNK) {
        let (mut factor, mut value) = (1_u64, 0_u64);
        for digit in chunk {
            let digit = ALPHABET.iter().position(|known| known == digit)?;
            value = value * 58 + digit as u64;
            factor *= 58;
        }
        let mut carry = u128::from(value);
        for limb in &mut limbs {
            carry += u128::from(*limb) * u128::from(factor);
            *limb = carry as u64;
            carry >>= 64;
        }
        if carry > 0 {
            limbs.push(carry as u64);
        }
    }
    let zeros = digits.bytes().take_while(|digit| *digit == b'1').count();
    let mut bytes = vec![0; zeros];
    let number = limbs.iter().rev().flat_map(|limb| limb.to_be_bytes());
    bytes.extend(number.skip_while(|byte| *byte == 0));
    Some(bytes)
}

impl PartialEq for PeerDid4 {
    fn eq(&self, other: &Self) -> bool {
        self.long() == other.long()
    }
}

impl Eq for PeerDid4 {}

#[cfg(test)]
mod tests;
