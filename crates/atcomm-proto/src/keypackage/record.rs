//! A record's block as a value, and as atproto JSON.
//!
//! Views contain records verbatim, and clients read those views with the standard libraries. A
//! record has no JSON here if its JSON would be read as another value or would make a reader throw,
//! so that one hostile account cannot spoil a response about many.
//!
//! Source: atproto data model specification.

use data_encoding::BASE64_NOPAD;
use ipld_core::ipld::Ipld;
use serde_json::{Map, Value, json};

use crate::wire::cbor::{self, CborError};

/// The largest integer that every JSON reader keeps exact (data model, "integer").
const MAX_INTEGER: i128 = (1 << 53) - 1;

/// Errors of reading a block as a record of the atproto data model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The block is not DAG-CBOR in its only encoding.
    #[error("{0}")]
    Cbor(#[from] CborError),
    /// The library reads the block differently.
    #[error("the block is not DAG-CBOR")]
    Block,
    /// A JSON reader would round an integer.
    #[error("an integer is outside 53 bits")]
    Integer,
    /// A key has another meaning in JSON (`$link`, `$bytes`), or JSON readers refuse it.
    #[error("an object has a reserved key")]
    ReservedKey,
    /// The `$type` of an object is not a name.
    #[error("a $type is not a string, or empty")]
    Type,
    /// An object with the `$type` `blob` is not a blob.
    #[error("a blob lacks ref, mimeType or size")]
    Blob,
}

/// Decodes a record's block. A value has only one encoding, so the value is exactly what the
/// account signed.
pub(super) fn decode(block: &[u8]) -> Result<Ipld, RecordError> {
    // The strict check comes first, since it bounds the nesting and the library's decoder recurses.
    cbor::validate(block)?;
    let value = serde_ipld_dagcbor::from_slice(block).map_err(|_| RecordError::Block)?;
    check(&value)?;
    Ok(value)
}

/// Returns a record's block as JSON: links as `{"$link"}`, bytes as `{"$bytes"}`, everything else
/// unchanged. The record need not be a valid key package.
pub fn record_json(block: &[u8]) -> Result<Value, RecordError> {
    decode(block).map(to_json)
}

fn check(value: &Ipld) -> Result<(), RecordError> {
    match value {
        Ipld::Integer(n) if n.abs() > MAX_INTEGER => Err(RecordError::Integer),
        Ipld::List(items) => items.iter().try_for_each(check),
        Ipld::Map(map) => {
            if ["$link", "$bytes", "__proto__"]
                .iter()
                .any(|key| map.contains_key(*key))
            {
                return Err(RecordError::ReservedKey);
            }
            match map.get("$type") {
                None => {}
                Some(Ipld::String(name)) if name == "blob" => {
                    let is_blob = matches!(
                        (map.get("ref"), map.get("mimeType"), map.get("size")),
                        (Some(Ipld::Link(_)), Some(Ipld::String(_)), Some(Ipld::Integer(size)))
                            if *size >= 0
                    );
                    if !is_blob {
                        return Err(RecordError::Blob);
                    }
                }
                Some(Ipld::String(name)) if !name.is_empty() => {}
                Some(_) => return Err(RecordError::Type),
            }
            map.values().try_for_each(check)
        }
        _ => Ok(()),
    }
}

fn to_json(value: Ipld) -> Value {
    match value {
        Ipld::Null => Value::Null,
        Ipld::Bool(value) => Value::Bool(value),
        // In range, as checked by `check`.
        Ipld::Integer(n) => i64::try_from(n).map_or(Value::Null, Value::from),
        // There are no floats, as checked by `validate`.
        Ipld::Float(_) => Value::Null,
        Ipld::String(text) => Value::String(text),
        Ipld::Bytes(bytes) => json!({ "$bytes": BASE64_NOPAD.encode(&bytes) }),
        Ipld::List(items) => Value::Array(items.into_iter().map(to_json).collect()),
        Ipld::Map(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| (key, to_json(value)))
                .collect::<Map<_, _>>(),
        ),
        Ipld::Link(cid) => json!({ "$link": cid.to_string() }),
    }
}
