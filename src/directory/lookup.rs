//! Look-ups in the directory: an entry with the context of its view, or the reason why there is no
//! view.

use std::sync::Arc;

use super::view::{self, MAX_MEDIATORS, RecipientView, Refusal, ViewContext};
use crate::store::directory::Queries;
use crate::store::{Entry, StoreError};
use atcomm_net::identity::{MediatorDocument, MediatorState};
use atcomm_proto::syntax::Actor;

/// What the directory has of an account.
#[derive(Debug, Clone)]
pub enum Lookup<T = Arc<RecipientView>> {
    /// The answer.
    Found(T),
    /// The account has an entry and no recipient view.
    Refused(Refusal),
    /// The account has no entry.
    Unknown,
}

impl<T> Lookup<T> {
    /// Returns the answer, or `None` for an account without an entry.
    pub fn found(self) -> Result<Option<T>, Refusal> {
        match self {
            Self::Found(found) => Ok(Some(found)),
            Self::Refused(refusal) => Err(refusal),
            Self::Unknown => Ok(None),
        }
    }
}

/// Reads the entry of an actor and the context of its view.
pub(super) fn find(
    q: &Queries<'_>,
    actor: &Actor,
) -> Result<Lookup<(Entry, ViewContext)>, StoreError> {
    let did = match actor {
        Actor::Did(did) => Some(did.clone()),
        Actor::Handle(handle) => q.did_by_handle(handle)?,
    };
    let entry = match did {
        Some(did) => q.entry(&did)?,
        None => None,
    };
    let Some(entry) = entry else {
        return Ok(Lookup::Unknown);
    };
    if let Some(refusal) = view::refusal(&entry) {
        return Ok(Lookup::Refused(refusal));
    }
    let context = view_context(q, &entry)?;
    Ok(Lookup::Found((entry, context)))
}

/// Reads the context of an entry's view.
fn view_context(q: &Queries<'_>, entry: &Entry) -> Result<ViewContext, StoreError> {
    let mut mediators = Vec::new();
    for (i, did) in entry.mediators.iter().enumerate() {
        let row = if i < MAX_MEDIATORS {
            q.mediator(did)?
        } else {
            None
        };
        let document = row.and_then(|row| MediatorDocument::from_stored(&row.document));
        mediators.push(document.unwrap_or_else(|| {
            let mut unknown = MediatorDocument::unchecked(did.clone());
            if did.web().is_none() {
                unknown.state = MediatorState::Unsupported;
            }
            unknown
        }));
    }
    let peer = entry.peer.as_deref().unwrap_or_default();
    Ok(ViewContext {
        mediators,
        ambiguous: q.claimants(peer, 2)?.len() > 1,
    })
}
