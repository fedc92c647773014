//! Requests for accounts that the directory refuses: a reason that is old is looked at again.

use std::net::IpAddr;
use std::sync::Arc;

use super::Resolver;
use super::refresh::ResolveError;
use crate::directory::{Lookup, RecipientView, Refused};
use atcomm_proto::syntax::Actor;

impl Resolver {
    /// Returns the refusal, or what a look at the account finds where the refusal is old. The look is
    /// out of the client's allowance and the common budget; over either, or where the account's
    /// servers give no answer, the refusal stands, unless it claims a proof that is stale.
    pub(super) async fn look_again(
        &self,
        refused: Refused,
        actor: &Actor,
        client: IpAddr,
    ) -> Result<Arc<RecipientView>, ResolveError> {
        let now = self.inner.clock.now();
        if !refused.is_overdue(now) {
            return Err(refused.refusal.into());
        }
        let refreshed = match self.ask(&refused.did, None, client).await {
            Ok(refreshed) => refreshed,
            Err(ResolveError::Refused(_) | ResolveError::OverBudget { .. })
                if !refused.is_stale(now) =>
            {
                return Err(refused.refusal.into());
            }
            Err(error) => return Err(error),
        };
        match self.inner.directory.recipient(actor).await? {
            Lookup::Found(view) => Ok(view),
            Lookup::Refused(again) if !again.is_stale(self.inner.clock.now()) => {
                Err(again.refusal.into())
            }
            Lookup::Refused(_) | Lookup::Unknown => {
                let refusal = refreshed.refusal.unwrap_or_else(super::not_enrolled);
                Err(refusal.into())
            }
        }
    }
}
