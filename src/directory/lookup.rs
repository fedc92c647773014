//! Look-ups in the directory: an entry with the context of its view, or the reason why there is no
//! view.

use std::sync::Arc;

use super::apply::handle;
use super::view::{self, MAX_MEDIATORS, RecipientView, Refusal, ViewContext};
use crate::store::directory::Queries;
use crate::store::{Entry, StoreError};
use atcomm_net::identity::{MediatorDocument, MediatorState};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Actor, Did};

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
    now: Timestamp,
) -> Result<Lookup<(Entry, ViewContext)>, StoreError> {
    let entry = match account(q, actor, now)? {
        Some(did) => q.entry(&did)?,
        None => None,
    };
    let Some(mut entry) = entry else {
        return Ok(Lookup::Unknown);
    };
    // A gap whose marking has not come to the entry yet.
    if let Some(since) = q.unmarked_doubt(&entry.did)? {
        entry.doubt_since = Some(entry.doubt_since.map_or(since, |doubt| doubt.min(since)));
    }
    if let Some(refusal) = view::refusal(&entry) {
        return Ok(Lookup::Refused(refusal));
    }
    let context = view_context(q, &entry)?;
    Ok(Lookup::Found((entry, context)))
}

/// Returns the account that an actor names, if its entry is in doubt.
pub(super) fn in_doubt(
    q: &Queries<'_>,
    actor: &Actor,
    now: Timestamp,
) -> Result<Option<Did>, StoreError> {
    let Some(did) = account(q, actor, now)? else {
        return Ok(None);
    };
    let marked = q.entry_state(&did)?.and_then(|(_, doubt)| doubt);
    let in_doubt = marked.is_some() || q.unmarked_doubt(&did)?.is_some();
    Ok(in_doubt.then_some(did))
}

/// Returns the account that an actor names in the directory.
fn account(q: &Queries<'_>, actor: &Actor, now: Timestamp) -> Result<Option<Did>, StoreError> {
    match actor {
        Actor::Did(did) => Ok(Some(did.clone())),
        Actor::Handle(handle) => {
            let (since, until) = handle::confirmed_between(now);
            q.did_by_handle(handle, since, until)
        }
    }
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
        proof: q.proof(&entry.did)?,
        mediators,
        ambiguous: q.claimants(peer, 2)?.len() > 1,
    })
}
