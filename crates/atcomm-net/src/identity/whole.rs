//! Whole DID documents, for those who ask for the document itself.
//!
//! Kept apart from what the directory reads of documents: few of them are asked for, and each takes
//! several times as much.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::document::{DidDocument, DocumentError};
use super::fetch::{self, IdentityError};
use super::lookups::{ByteSize, Fetched, Freshness};
use super::resolver::Identity;
use super::settings::IdentitySettings;
use crate::net::Priority;
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

impl Identity {
    /// Returns the whole DID document of an account. At most a day old, and never older than the
    /// last [`Identity::purge_document`]. Under the same limits as [`Identity::resolve`]. Must run
    /// inside a tokio runtime.
    pub async fn whole(&self, did: &Did) -> Result<Arc<WholeDocument>, IdentityError> {
        let documents = &self.inner.whole;
        if self.priority == Priority::Interactive
            && did.web().is_none()
            && documents.would_start(did, Freshness::Cached)
            && let Err(wait) = self.inner.plc.take()
        {
            return documents
                .cached(did)
                .unwrap_or(Err(IdentityError::Unreachable {
                    retry_after: Some(wait),
                }));
        }
        let inner = Arc::clone(&self.inner);
        let (wanted, priority) = (did.clone(), self.priority);
        documents
            .look_up(did, Freshness::Cached, move |_| async move {
                let plc_url = &inner.settings.plc_url;
                let fetched =
                    fetch::fetch_bytes(&inner.net, plc_url, &inner.clock, &wanted, priority).await;
                let whole = fetched.and_then(|(body, asked_at)| {
                    let document = DidDocument::parse(&body, &wanted, asked_at)?;
                    let json = serde_json::from_slice(&body)
                        .map_err(|_| IdentityError::Malformed(DocumentError::NotAnObject))?;
                    Ok(Arc::new(WholeDocument { document, json }))
                });
                fetch::count(whole.as_ref().err());
                inner.settings.whole_age(whole)
            })
            .await
            .unwrap_or(Err(IdentityError::Unreachable {
                retry_after: Some(Duration::from_secs(1)),
            }))
    }

    /// Returns the cached whole document, or the cached failure. Does no I/O.
    pub fn cached_whole(&self, did: &Did) -> Option<Result<Arc<WholeDocument>, IdentityError>> {
        self.inner.whole.cached(did)
    }
}

impl IdentitySettings {
    /// Adds the limits of age to the result of fetching a whole document: those of any document.
    fn whole_age(&self, value: WholeAnswer) -> Fetched<WholeAnswer> {
        let (fresh, usable, transient) = self.age_of(value.as_ref().err());
        Fetched {
            value,
            fresh,
            usable,
            transient,
        }
    }
}

impl ByteSize for WholeAnswer {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, |whole| {
            size_of::<WholeDocument>() + 2 * whole.json.get().len()
        })
    }
}
