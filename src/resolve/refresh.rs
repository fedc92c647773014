//! What leads to a look, and what it comes to.

use std::time::Duration;

use bytes::Bytes;

use crate::directory::{Outcome, Refusal};
use crate::net::Priority;
use crate::store::{AnnouncedStatus, StoreError};
use crate::syntax::Origin;

/// What led to a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// `pds`, `relay`, `jetstream`, `listing`, `request` or `recheck`; kept with the entry.
    pub source: &'static str,
    /// How new the identity has to be.
    pub identity: IdentityNeed,
    /// Status that a PDS announced of the account.
    pub announced: Option<AnnouncedStatus>,
    /// The PDS whose walk came by: only accounts that seem to have a package there are worth an
    /// identity look-up.
    pub prefilter: Option<Origin>,
}

/// How new the identity behind a look has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityNeed {
    /// As the cache has it.
    Cached,
    /// Looked up now; as the cache has it where that fails.
    RefreshOrCached,
    /// Looked up now or not at all: it may just have changed.
    Refresh,
}

impl Refresh {
    /// A cause without further meaning.
    pub fn new(source: &'static str) -> Self {
        Self {
            source,
            identity: IdentityNeed::Cached,
            announced: None,
            prefilter: None,
        }
    }

    /// Whose places in the limits of what dials out the look takes.
    pub fn priority(&self) -> Priority {
        match self.source {
            "request" => Priority::Interactive,
            _ => Priority::Background,
        }
    }
}

/// What a look came to.
#[derive(Debug, Clone)]
pub struct RefreshOutcome {
    /// What it did to the directory.
    pub outcome: Outcome,
    /// Why there is no recipient view, where the directory has no entry to say so.
    pub refusal: Option<Refusal>,
    /// The proof, of presence or absence.
    pub car: Option<Bytes>,
    /// The walk of a PDS saw nothing that looks like a package: good enough for the walk, and no
    /// answer for an asker.
    pub prefiltered: bool,
}

/// Why a look came to nothing; it can be repeated.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RefreshError {
    /// A limit of ours is reached, or a host asked us to stay away.
    #[error("too many look-ups are under way")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// A server that had to be asked did not answer.
    #[error("{what} did not answer: {why}")]
    Unreachable {
        /// Which server: `the DID directory`, `the PDS`.
        what: &'static str,
        /// What went wrong.
        why: String,
        /// When to try again, where known.
        retry_after: Option<Duration>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an asker gets no recipient view.
#[derive(Debug, Clone)]
pub enum ResolveError {
    /// The answer is that there is none.
    Refused(Refusal),
    /// Too much is asked at the moment, by this address or by all.
    OverBudget {
        /// Whether it is this asker's own limit.
        own: bool,
        /// When to try again.
        retry_after: Duration,
    },
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for ResolveError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
