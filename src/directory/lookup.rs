//! Look-ups in the directory: an entry with the context of its view, or the reason why there is no
//! view.

use std::sync::Arc;
use std::time::Duration;

use super::apply::{STALE, handle};
use super::view::{self, MAX_MEDIATORS, RecipientView, Refusal, ViewContext};
use crate::store::directory::{ProvenEntry, Queries};
use crate::store::{Entry, PackageState, StoreError};
use atcomm_net::identity::{MediatorDocument, MediatorState};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Actor, Did, MediatorDid};

/// Age of the last check of an entry without a recipient view at which a request leads to another.
const RECHECK_REFUSED: Duration = Duration::from_secs(5 * 60);

/// What the directory has of an account.
#[derive(Debug, Clone)]
pub enum Lookup<T = Arc<RecipientView>> {
    /// The answer.
    Found(T),
    /// The account has an entry and no recipient view.
    Refused(Refused),
    /// The account has no entry.
    Unknown,
}

impl<T> Lookup<T> {
    /// Returns the answer, or `None` for an account without an entry.
    pub fn found(self) -> Result<Option<T>, Refusal> {
        match self {
            Self::Found(found) => Ok(Some(found)),
            Self::Refused(refused) => Err(refused.refusal),
            Self::Unknown => Ok(None),
        }
    }
}

/// The reason why an entry has no recipient view, with its age.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The account.
    pub did: Did,
    /// The reason.
    pub refusal: Refusal,
    checked_at: Timestamp,
    /// When the reason was proven; `None` for a reason that is not.
    proved_at: Option<Timestamp>,
}

impl Refused {
    /// Returns the reason why an entry has no recipient view, if it has none.
    pub fn of(entry: &Entry) -> Option<Self> {
        let refusal = view::refusal(entry)?;
        let is_proven = entry.status.is_active()
            && !entry.regressed
            && matches!(entry.state, PackageState::Removed | PackageState::Invalid);
        Some(Self {
            did: entry.did.clone(),
            refusal,
            checked_at: entry.checked_at,
            proved_at: entry.proved_at.filter(|_| is_proven),
        })
    }

    /// Returns whether the reason was proven so long ago that it is not given any more before the
    /// account is looked at.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.proved_at
            .is_some_and(|proved| now.since(proved) > STALE)
    }

    /// Returns whether a request for the account leads to a look at it.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        match self.proved_at {
            Some(_) => self.is_stale(now),
            // A time in our future, after a step of the clock, is unknown.
            None => self.checked_at > now || now.since(self.checked_at) > RECHECK_REFUSED,
        }
    }
}

/// Reads the entry of an actor and the context of its view.
pub(super) fn find(
    q: &Queries<'_>,
    actor: &Actor,
    now: Timestamp,
) -> Result<Lookup<(Entry, ViewContext)>, StoreError> {
    let found = match account(q, actor, now)? {
        Some(did) => q.proven_entry(&did)?,
        None => None,
    };
    let Some(ProvenEntry { entry, proof }) = found else {
        return Ok(Lookup::Unknown);
    };
    if let Some(refused) = Refused::of(&entry) {
        return Ok(Lookup::Refused(refused));
    }
    let context = view_context(q, &entry, proof)?;
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
    let marked = q.entry_state(&did)?.and_then(|(_, doubt, _)| doubt);
    let in_doubt = marked.is_some() || q.unmarked_doubt(&did)?.is_some();
    Ok(in_doubt.then_some(did))
}

/// Returns the account that an actor names in the directory.
pub(super) fn account(
    q: &Queries<'_>,
    actor: &Actor,
    now: Timestamp,
) -> Result<Option<Did>, StoreError> {
    match actor {
        Actor::Did(did) => Ok(Some(did.clone())),
        Actor::Handle(handle) => {
            let (since, until) = handle::confirmed_between(now);
            q.did_by_handle(handle, since, until)
        }
    }
}

/// Reads the context of an entry's view.
fn view_context(
    q: &Queries<'_>,
    entry: &Entry,
    proof: Option<Vec<u8>>,
) -> Result<ViewContext, StoreError> {
    let mut mediators = Vec::new();
    for (i, did) in entry.mediators.iter().enumerate() {
        let row = if i < MAX_MEDIATORS {
            q.mediator(did)?
        } else {
            None
        };
        let stored = row.as_ref().map(|row| row.document.as_str());
        mediators.push(mediator_document(did, stored));
    }
    let peer = entry.peer.as_deref().unwrap_or_default();
    Ok(ViewContext {
        proof,
        mediators,
        ambiguous: q.has_other_claimant(peer, &entry.did)?,
    })
}

/// Returns what is known of a mediator by its stored document, if it has one.
pub(super) fn mediator_document(did: &MediatorDid, stored: Option<&str>) -> MediatorDocument {
    let document = stored.and_then(MediatorDocument::from_stored);
    document.unwrap_or_else(|| {
        let mut unknown = MediatorDocument::unchecked(did.clone());
        if did.web().is_none() {
            unknown.state = MediatorState::Unsupported;
        }
        unknown
    })
}
