//! Identities alone: the DID of a handle, the document of a DID, and both together.
//!
//! What the directory has verified is answered without a look; every other look is out of the
//! client's allowance and the common budget, as one for a recipient is.

use std::net::IpAddr;
use std::sync::Arc;

use super::refresh::ResolveError;
use super::{Resolver, client_error};
use crate::directory::Refusal;
use crate::resolve::RefreshError;
use atcomm_net::identity::{IdentityError, WholeDocument};
use atcomm_proto::syntax::{Actor, Did, Handle, LexiconError};

/// An identity that was looked up.
#[derive(Debug, Clone)]
pub struct ResolvedIdentity {
    /// The handle that the document claims, if it leads back to the DID.
    pub handle: Option<Handle>,
    /// The document.
    pub whole: Arc<WholeDocument>,
}

/// Errors of looking up an identity.
#[derive(Debug, Clone)]
pub enum IdentityFailure {
    /// The DID has ended.
    Ended,
    /// Any other, as for a recipient.
    Other(ResolveError),
}

impl From<ResolveError> for IdentityFailure {
    fn from(error: ResolveError) -> Self {
        Self::Other(error)
    }
}

impl Resolver {
    /// Returns the DID that a handle names. The directory's own answer is one that was confirmed in
    /// both directions within the time for which a handle is shown.
    pub async fn did_of_handle(
        &self,
        handle: &Handle,
        client: IpAddr,
    ) -> Result<Did, ResolveError> {
        let actor = Actor::Handle(handle.clone());
        if let Some(did) = self.inner.directory.account_of(&actor).await? {
            return Ok(did);
        }
        let (did, _) = self.resolve_handle(handle, client).await?;
        Ok(did)
    }

    /// Returns the whole document of a DID.
    pub async fn did_document(
        &self,
        did: &Did,
        client: IpAddr,
    ) -> Result<Arc<WholeDocument>, IdentityFailure> {
        let identity = self.inner.identity.interactive();
        let found = match identity.cached_whole(did) {
            // Served while it is looked up again, out of the limit for all clients.
            Some(Ok(_)) => identity.whole(did).await,
            Some(Err(error)) => Err(error),
            None => {
                self.charge(client)?;
                let permit = self.permit()?;
                let found = self.with_timeout(identity.whole(did)).await?;
                drop(permit);
                found
            }
        };
        found.map_err(identity_failure)
    }

    /// Returns an account's document and its handle, where the two name each other.
    pub async fn resolve_identity(
        &self,
        actor: &Actor,
        client: IpAddr,
    ) -> Result<ResolvedIdentity, IdentityFailure> {
        let did = match actor {
            Actor::Did(did) => did.clone(),
            Actor::Handle(handle) => self.did_of_handle(handle, client).await?,
        };
        let whole = self.did_document(&did, client).await?;
        let handle = match &whole.document.claimed_handle {
            Some(claimed) => match self.did_of_handle(claimed, client).await {
                Ok(named) => (named == did).then(|| claimed.clone()),
                // It is known that the handle names nothing.
                Err(ResolveError::Refused(refusal))
                    if refusal.kind == LexiconError::HandleNotFound =>
                {
                    None
                }
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        Ok(ResolvedIdentity { handle, whole })
    }
}

fn identity_failure(error: IdentityError) -> IdentityFailure {
    let refused =
        |kind, message: String| IdentityFailure::Other(Refusal::new(kind, message).into());
    match error {
        IdentityError::NotFound => refused(
            LexiconError::DidNotFound,
            "the DID is not registered".to_owned(),
        ),
        IdentityError::Tombstoned => IdentityFailure::Ended,
        IdentityError::Malformed(_) | IdentityError::Refused(_) => {
            refused(LexiconError::UpstreamFailure, error.to_string())
        }
        IdentityError::Unreachable {
            retry_after: Some(retry_after),
        } => client_error(RefreshError::Busy { retry_after }).into(),
        IdentityError::Unreachable { retry_after: None } => refused(
            LexiconError::UpstreamFailure,
            "the DID's directory or host did not answer".to_owned(),
        ),
    }
}
