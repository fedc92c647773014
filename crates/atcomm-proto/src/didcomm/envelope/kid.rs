//! Ids of keys: absolute DID URLs with a fragment.

use super::error::EnvelopeError;

/// Longest key id, in bytes: a `did:peer:4` of 4 KiB and a fragment.
pub const MAX_KID: usize = 4096 + 256;

/// Returns the DID of a key id, which must be an absolute DID URL with a fragment.
pub(super) fn did_of(kid: &str) -> Result<&str, EnvelopeError> {
    if kid.len() > MAX_KID {
        return Err(EnvelopeError::Limit("a key id"));
    }
    match kid.split_once('#') {
        Some((did, fragment)) if did.starts_with("did:") && !fragment.is_empty() => Ok(did),
        _ => Err(EnvelopeError::KeyId),
    }
}
