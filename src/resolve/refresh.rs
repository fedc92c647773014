//! A refresh to be made, and its result.

use std::time::Duration;

use bytes::Bytes;

use crate::directory::{Outcome, Refusal};
use crate::store::{AccountStatus, AnnouncedStatus, EventKind, StoreError, Trigger};
use atcomm_net::identity::{IdentityError, PlcLogError};
use atcomm_net::net::{NetError, Priority, XrpcError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Handle, Origin, Rev};

/// A refresh to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// What led to it.
    pub trigger: Trigger,
    /// The look-up of the identity.
    pub identity: IdentityLookup,
    /// Status that a PDS announced of the account.
    pub announced: Option<AnnouncedStatus>,
    /// The handle that led to the account.
    pub named: Option<NamedBy>,
}

/// A handle that was found to lead to the account of a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedBy {
    /// The handle.
    pub handle: Handle,
    /// When it was looked up.
    pub asked_at: Timestamp,
}

/// The look-up of the identity for a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityLookup {
    /// As cached.
    Cached,
    /// Looked up now; as cached where that fails.
    RefreshOrCached,
    /// Looked up now or not at all: the identity may just have changed.
    Refresh,
}

impl Refresh {
    /// Returns a refresh whose identity is as new as its trigger demands, with no status announced.
    pub fn new(trigger: Trigger) -> Self {
        let identity = match &trigger {
            Trigger::Event {
                event: EventKind::Commit,
                ..
            }
            | Trigger::Request => IdentityLookup::Cached,
            Trigger::Event { .. } => IdentityLookup::Refresh,
            Trigger::Listing(_) | Trigger::Recheck => IdentityLookup::RefreshOrCached,
        };
        Self {
            trigger,
            identity,
            announced: None,
            named: None,
        }
    }

    /// Returns the refresh of an entry that is in doubt: a change of the identity may have been
    /// missed, so only an identity that is looked up now tells.
    pub(super) fn in_doubt(mut self, in_doubt: bool) -> Self {
        if in_doubt {
            self.identity = IdentityLookup::Refresh;
        }
        self
    }

    /// Returns the share of the limits on outbound requests that the refresh uses.
    pub fn priority(&self) -> Priority {
        match self.trigger {
            Trigger::Request => Priority::Interactive,
            Trigger::Event { .. } | Trigger::Listing(_) | Trigger::Recheck => Priority::Background,
        }
    }

    /// Returns the status in which the account is not active, and which this PDS announced.
    pub(super) fn announced_by(&self, pds: &Origin) -> Option<&AccountStatus> {
        let announced = self.announced.as_ref()?;
        let counts = announced.pds == *pds && !announced.status.is_active();
        counts.then_some(&announced.status)
    }

    /// Returns the PDS whose enumeration led here: an account that seems to have no package there
    /// is not worth an identity look-up.
    pub(super) fn prefilter(&self) -> Option<&Origin> {
        match &self.trigger {
            Trigger::Listing(pds) => pds.as_ref(),
            Trigger::Event { .. } | Trigger::Request | Trigger::Recheck => None,
        }
    }
}

/// The result of a refresh.
#[derive(Debug, Clone)]
pub struct RefreshOutcome {
    /// The outcome in the directory.
    pub outcome: Outcome,
    /// The reason why there is no recipient view, where the directory has no entry that tells.
    pub refusal: Option<Refusal>,
    /// The proof, of presence or absence.
    pub car: Option<Bytes>,
    /// Revision of the commit that it proves.
    pub rev: Option<Rev>,
    /// Whether the enumerated PDS returned nothing that looks like a package. That is enough for a
    /// listing, and no answer for a client.
    pub prefiltered: bool,
    /// Whether no client asked for the refresh.
    pub background: bool,
}

impl RefreshOutcome {
    /// Returns the result for an account of which the enumerated PDS returned nothing that looks
    /// like a package.
    pub(super) fn prefiltered() -> Self {
        Self {
            outcome: Outcome::NotEnrolled,
            refusal: None,
            car: None,
            rev: None,
            prefiltered: true,
            background: true,
        }
    }
}

/// Errors of a refresh, which can be repeated.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RefreshError {
    /// A limit of ours is reached, or a host asked us to wait.
    #[error("too many look-ups are under way")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// A server that had to be asked did not answer.
    #[error("{what} did not answer: {why}")]
    Unreachable {
        /// The server: `the DID directory`, `the PDS`.
        what: &'static str,
        /// What went wrong.
        #[source]
        why: NoAnswer,
        /// When to try again, where known.
        retry_after: Option<Duration>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RefreshError {
    /// Returns the class of the error, a stable code.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::Unreachable { why, .. } => match why {
                NoAnswer::Net(_) => "pds_unreachable",
                NoAnswer::Refused(_) => "pds_error",
                NoAnswer::Identity(_) | NoAnswer::PlcLog(_) => "did_unreachable",
            },
            Self::Store(_) => "store",
        }
    }
}

/// The reason why a server's answer cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NoAnswer {
    /// No whole response came.
    #[error(transparent)]
    Net(NetError),
    /// The server answered with an error.
    #[error("HTTP {}", .0.status)]
    Refused(#[source] XrpcError),
    /// The DID document cannot be looked up.
    #[error("no usable answer")]
    Identity(#[source] IdentityError),
    /// The operation log cannot be looked up.
    #[error(transparent)]
    PlcLog(PlcLogError),
}

/// Errors of an answer to a client.
#[derive(Debug, Clone)]
pub enum ResolveError {
    /// There is no recipient view.
    Refused(Refusal),
    /// A limit is reached.
    OverBudget {
        /// Whether it is the limit of this client's address, and not of all clients.
        own: bool,
        /// When to try again.
        retry_after: Duration,
    },
    /// The store failed.
    Store(StoreError),
}

impl From<Refusal> for ResolveError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for ResolveError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
