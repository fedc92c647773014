//! The DID document of an account: claimed handle, PDS, signing key.
//!
//! Source: atproto DID specification, "DID documents".

use serde_json::Value;

use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::{Curve, KeyError, SigningKey};
use atcomm_proto::syntax::{Did, Handle, Origin, SyntaxError};

/// Longest document read, in bytes. Typical ones have about one KiB.
pub const MAX_DOCUMENT_LEN: usize = 64 * 1024;

/// Errors of a document that is not the document of this DID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Longer than [`MAX_DOCUMENT_LEN`].
    #[error("the document is longer than 64 KiB")]
    TooLong,
    /// Not a JSON object, or nested too deeply.
    #[error("the document is not a JSON object")]
    NotAnObject,
    /// The `id` is missing or names another DID.
    #[error("the document's id is not the DID asked for")]
    WrongId,
}

/// Reasons why an entry of a valid document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No entry has the id.
    #[error("there is no such entry")]
    Missing,
    /// Several entries have the id, so that another reader may take another one.
    #[error("there are several such entries")]
    Ambiguous,
    /// The entry is of another type.
    #[error("the entry is of another type")]
    WrongType,
    /// The entry has no text as its value.
    #[error("the entry has no value")]
    NoValue,
    /// The value is not a signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The address of the PDS contains white space, control characters, backslashes or characters
    /// beyond ASCII.
    #[error("the address has characters that do not belong there")]
    Spelling,
    /// The value is not the address of a PDS.
    #[error(transparent)]
    Address(#[from] SyntaxError),
}

/// An account's DID document, reduced to what atproto reads in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DidDocument {
    /// The account.
    pub did: Did,
    /// The first valid `at://` name of `alsoKnownAs`: a claim until it is verified.
    pub claimed_handle: Option<Handle>,
    /// Service `#atproto_pds`.
    pub pds: Result<Origin, Unusable>,
    /// Verification method `#atproto`.
    pub signing_key: Result<SigningKey, Unusable>,
    /// When the document was asked for. A document asked for later is never older.
    pub asked_at: Timestamp,
}

impl DidDocument {
    /// Reads the document of `expected`, which was asked for at `asked_at`. A part that is missing
    /// or wrong is an error of that part alone.
    pub fn parse(bytes: &[u8], expected: &Did, asked_at: Timestamp) -> Result<Self, DocumentError> {
        let document = parse_object(bytes)?;
        if document.get("id").and_then(Value::as_str) != Some(expected.as_str()) {
            return Err(DocumentError::WrongId);
        }
        let names = entries(&document, "alsoKnownAs").filter_map(Value::as_str);
        let claimed_handle = Handle::claimed(names);
        Ok(Self {
            pds: pds(&document, expected),
            signing_key: signing_key(&document, expected),
            did: expected.clone(),
            claimed_handle,
            asked_at,
        })
    }

    /// Returns whether both documents name the same handle, PDS and key.
    pub fn names_the_same(&self, other: &Self) -> bool {
        self.claimed_handle == other.claimed_handle
            && self.pds == other.pds
            && self.signing_key == other.signing_key
    }
}

/// Parses a JSON object within the limits of length and of depth (the parser's own, 128 levels).
pub(super) fn parse_object(bytes: &[u8]) -> Result<Value, DocumentError> {
    if bytes.len() > MAX_DOCUMENT_LEN {
        return Err(DocumentError::TooLong);
    }
    serde_json::from_slice::<Value>(bytes)
        .ok()
        .filter(Value::is_object)
        .ok_or(DocumentError::NotAnObject)
}

/// Returns the elements of an array member; nothing where the member is no array.
pub(super) fn entries<'d>(document: &'d Value, name: &str) -> impl Iterator<Item = &'d Value> {
    document
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Whether `type` is, or contains, `wanted`.
pub(super) fn is_of_type(entry: &Value, wanted: &str) -> bool {
    match entry.get("type") {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(many)) => many.iter().any(|one| one == wanted),
        _ => false,
    }
}

/// Returns the one entry of `list` with the id `#fragment`, relative or absolute.
fn the_entry<'d>(
    document: &'d Value,
    list: &str,
    did: &Did,
    fragment: &str,
) -> Result<&'d Value, Unusable> {
    let mut found = entries(document, list).filter(|entry| {
        let id = entry.get("id").and_then(Value::as_str).unwrap_or_default();
        id.strip_prefix(did.as_str()).unwrap_or(id) == fragment
    });
    match (found.next(), found.next()) {
        (None, _) => Err(Unusable::Missing),
        (Some(entry), None) => Ok(entry),
        (Some(_), Some(_)) => Err(Unusable::Ambiguous),
    }
}

fn pds(document: &Value, did: &Did) -> Result<Origin, Unusable> {
    let service = the_entry(document, "service", did, "#atproto_pds")?;
    if !is_of_type(service, "AtprotoPersonalDataServer") {
        return Err(Unusable::WrongType);
    }
    let endpoint = service
        .get("serviceEndpoint")
        .and_then(Value::as_str)
        .ok_or(Unusable::NoValue)?;
    // The rules of browsers repair white space and backslashes: other readers of the document would
    // read another host, or none.
    if !endpoint.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Err(Unusable::Spelling);
    }
    Ok(Origin::parse(endpoint)?)
}

fn signing_key(document: &Value, did: &Did) -> Result<SigningKey, Unusable> {
    let method = the_entry(document, "verificationMethod", did, "#atproto")?;
    let text = method.get("publicKeyMultibase").and_then(Value::as_str);
    let legacy = |curve| {
        let text = text.ok_or(Unusable::NoValue)?;
        // Some writers put a Multikey under the name of the old type. The two cannot be confused: a
        // key has 35 bytes with its multicodec, and 33 or 65 without.
        match SigningKey::from_legacy(curve, text) {
            Ok(key) => Ok(key),
            Err(e) => match SigningKey::from_multikey(text) {
                Ok(key) if key.curve() == curve => Ok(key),
                _ => Err(Unusable::Key(e)),
            },
        }
    };
    match method.get("type").and_then(Value::as_str) {
        Some("Multikey") => Ok(SigningKey::from_multikey(text.ok_or(Unusable::NoValue)?)?),
        Some("EcdsaSecp256k1VerificationKey2019") => legacy(Curve::K256),
        Some("EcdsaSecp256r1VerificationKey2019") => legacy(Curve::P256),
        _ => Err(Unusable::WrongType),
    }
}

#[cfg(test)]
mod tests;
