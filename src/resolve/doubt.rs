//! Answers about entries in doubt: the account is looked at first.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Resolver;
use super::refresh::ResolveError;
use crate::directory::{Lookup, RecipientView};
use atcomm_proto::syntax::{Actor, Did};

/// Time after which an account is looked at again whose entry stayed in doubt.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

impl Resolver {
    /// Returns the view that the directory has of an actor. An account whose entry is in doubt is
    /// looked at before, out of the client's allowance and timeout. Where that fails the client
    /// gets what the directory has, and the view says that it is stale.
    pub(super) async fn known(
        &self,
        actor: &Actor,
        client: IpAddr,
    ) -> Result<Option<Arc<RecipientView>>, ResolveError> {
        let directory = &self.inner.directory;
        let found = directory.recipient(actor).await?;
        let doubtful = match &found {
            Lookup::Found(view) => view.in_doubt.then(|| view.did.clone()),
            Lookup::Refused(_) => directory.in_doubt(actor).await?,
            Lookup::Unknown => None,
        };
        let Some(did) = doubtful else {
            return match found {
                Lookup::Refused(refused) => self.look_again(refused, actor, client).await.map(Some),
                found => Ok(found.found()?),
            };
        };
        if !self.look_first(&did, client).await {
            return Ok(found.found()?);
        }
        let found = directory.recipient(actor).await?.found()?;
        if found.as_ref().is_some_and(|view| view.in_doubt) {
            // The refresh was shared, or the marking of the gap has not come to the entry yet.
            self.inner.in_vain.insert(did, (), AGAIN_AFTER);
        }
        Ok(found)
    }

    /// Refreshes an account whose entry is in doubt. Returns whether that had a result.
    pub(super) async fn look_first(&self, did: &Did, client: IpAddr) -> bool {
        // Servers that do not answer hold up one client, and not each.
        if self.inner.in_vain.get(did).is_some() {
            return false;
        }
        match self.ask(did, None, client).await {
            Ok(_) => true,
            Err(ResolveError::OverBudget { .. }) => false,
            Err(ResolveError::Refused(_) | ResolveError::Store(_)) => {
                let ttl = self.inner.settings.negative_ttl;
                self.inner.in_vain.insert(did.clone(), (), ttl);
                false
            }
        }
    }
}
