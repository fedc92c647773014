//! What a look at an account found, and what became of it.

use crate::store::{AccountStatus, Trigger};
use atcomm_net::identity::HandleCheck;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::SigningKey;
use atcomm_proto::proof::{VerifiedAbsence, VerifiedRecord};
use atcomm_proto::syntax::{Did, Origin};

/// Who showed a proof, which decides what a lower revision means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// A stream, which may replay.
    Stream,
    /// The PDS that the account's DID document names, asked just now.
    Pds,
}

/// What the account's DID document says, as far as it matters here.
#[derive(Debug, Clone)]
pub struct IdentityFacts {
    /// PDS.
    pub pds: Option<Origin>,
    /// Signing key.
    pub key: Option<SigningKey>,
    /// Whether the claimed handle leads back to the DID.
    pub handle: HandleCheck,
}

/// What a look at an account found.
#[derive(Debug, Clone)]
pub enum Finding {
    /// A proven record.
    Present(VerifiedRecord),
    /// A proven absence.
    Absent(VerifiedAbsence),
    /// The PDS says that there is none, and proves nothing.
    AbsentUnproven,
    /// The account is not active at its PDS, or its DID has ended.
    Inactive(AccountStatus),
    /// Its own PDS announced the account's deletion and no longer knows it.
    Deleted,
    /// The PDS answered, and the answer proves nothing.
    Unverifiable {
        /// Stable code.
        reason: &'static str,
        /// The same as a sentence.
        detail: String,
    },
    /// Nothing could be asked. Only an identity that changed makes a difference then.
    Unreachable,
}

/// One look at one account.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The account.
    pub did: Did,
    /// Its identity; `None` where the DID has ended.
    pub identity: Option<IdentityFacts>,
    /// What was found.
    pub finding: Finding,
    /// Who showed it.
    pub authority: Authority,
    /// What led to it.
    pub trigger: Trigger,
    /// When the asking began: what was applied since then is newer than this observation.
    pub asked_at: Timestamp,
    /// When it ended.
    pub at: Timestamp,
}

/// What became of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A new or changed valid package.
    Package,
    /// A new or changed invalid package.
    Invalid,
    /// The same package, proven again.
    Proven,
    /// The package went away.
    Removed,
    /// Still, or never, without a package.
    NotEnrolled,
    /// The account's status hides it.
    Inactive,
    /// Deleted with everything about it.
    Deleted,
    /// Nothing is proven under the present identity.
    Unverifiable,
    /// The PDS showed an older revision.
    Regressed,
    /// Older than what is known.
    Ignored,
    /// Could not be asked.
    Unreachable,
    /// Dropped: too long without a proof, or without a package.
    Dropped,
}

impl Outcome {
    /// Stable code for metrics and answers.
    pub fn code(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Invalid => "invalid",
            Self::Proven => "unchanged",
            Self::Removed => "removed",
            Self::NotEnrolled => "notEnrolled",
            Self::Inactive => "inactive",
            Self::Deleted => "deleted",
            Self::Unverifiable => "unverifiable",
            Self::Regressed => "regressed",
            Self::Ignored => "ignored",
            Self::Unreachable => "unreachable",
            Self::Dropped => "dropped",
        }
    }
}
