//! Documents that changed without an event: found by a look-up in the background, or by one for
//! another purpose.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use super::Resolver;
use crate::directory::Batch;
use crate::store::{AnnouncedChange, NewPending, StoreError, Trigger};
use atcomm_proto::syntax::Did;

/// Least time between two refreshes of an account for a changed document. A host can answer
/// differently each time.
pub(super) const CHANGED_TTL: Duration = Duration::from_secs(60);

impl Resolver {
    /// Makes a refresh pending for every account in the directory whose document was found to have
    /// another key, PDS or handle than the one known before. Runs until it is dropped.
    pub(super) async fn follow_documents(&self) {
        let mut changed = self.inner.identity.changed_documents();
        loop {
            match changed.recv().await {
                Ok(did) => {
                    if let Err(error) = self.document_changed(&did).await {
                        tracing::error!(%error, "cannot note a changed document");
                    }
                }
                // Their accounts are looked at within a day all the same.
                Err(RecvError::Lagged(missed)) => {
                    metrics::counter!("atcomm_resolve_changed_documents_missed_total")
                        .increment(missed);
                }
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    async fn document_changed(&self, did: &Did) -> Result<(), StoreError> {
        let inner = &self.inner;
        if !inner.directory.is_tracked(did.as_str()) {
            return Ok(());
        }
        let wanted = did.clone();
        let entry = inner.directory.store().query(move |q| q.entry(&wanted));
        let (Some(entry), Some(document)) = (entry.await?, inner.identity.cached(did)) else {
            return Ok(());
        };
        let is_known = entry.pds == document.pds.clone().ok()
            && entry.signing_key == document.signing_key.clone().ok()
            && entry.claimed == document.claimed_handle;
        if is_known {
            return Ok(());
        }
        let now = inner.clock.now();
        let again = inner.recently_changed.get(did).is_some();
        inner.recently_changed.insert(did.clone(), (), CHANGED_TTL);
        let pending = NewPending {
            did: did.clone(),
            trigger: Trigger::Recheck,
            announced: AnnouncedChange::Keep,
            not_before: if again { now.plus(CHANGED_TTL) } else { now },
        };
        let batch = Batch {
            pending: vec![pending],
            ..Batch::default()
        };
        inner.directory.apply_batch(batch).await?;
        self.wake();
        Ok(())
    }
}
