//! Whole DID documents, for those who ask for the document itself.
//!
//! Kept apart from what the directory reads of documents: few of them are asked for, and each takes
//! several times as much.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::document::{DidDocument, DocumentError};
use super::fetch::{self, IdentityError};
use super::lookups::{ByteSize, Fetched};
use super::settings::IdentitySettings;
use crate::net::{Net, Priority};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::Did;

/// Limit of the cache of whole documents in bytes.
pub(super) const MAX_WHOLE: u64 = 4 << 20;

/// A DID document as it was served, and what atproto reads in it.
#[derive(Debug)]
pub struct WholeDocument {
    /// What atproto reads in it.
    pub document: DidDocument,
    /// The document: a JSON object.
    pub json: Box<RawValue>,
}

/// The answer of a look-up.
pub(super) type WholeAnswer = Result<Arc<WholeDocument>, IdentityError>;

/// Fetches a whole document, and adds the limits of age to the result.
pub(super) async fn fetch(
    net: &Net,
    settings: &IdentitySettings,
    clock: &Clock,
    did: &Did,
    priority: Priority,
) -> Fetched<WholeAnswer> {
    let fetched = fetch::fetch_bytes(net, &settings.plc_url, clock, did, priority).await;
    let whole = fetched.and_then(|(body, asked_at)| {
        let document = DidDocument::parse(&body, did, asked_at)?;
        let json = serde_json::from_slice(&body)
            .map_err(|_| IdentityError::Malformed(DocumentError::NotAnObject))?;
        Ok(Arc::new(WholeDocument { document, json }))
    });
    fetch::count(whole.as_ref().err());
    settings.documents_age(whole)
}

impl ByteSize for WholeAnswer {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, |whole| {
            size_of::<WholeDocument>() + 2 * whole.json.get().len()
        })
    }
}
