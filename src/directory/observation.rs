//! The result of a refresh, and its outcome in the directory.

use super::quota::Full;
use crate::store::{AccountStatus, Trigger};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::SigningKey;
use atcomm_proto::proof::{Commitment, VerifiedAbsence, VerifiedRecord};
use atcomm_proto::syntax::{Did, Handle, Origin};

/// The source of a proof, which decides about a lower revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// A stream, which may replay.
    Stream,
    /// The PDS that the account's DID document names, asked just now.
    Pds,
}

/// The part of the account's DID document that the directory keeps.
#[derive(Debug, Clone)]
pub struct IdentityFacts {
    /// PDS.
    pub pds: Option<Origin>,
    /// Signing key.
    pub key: Option<SigningKey>,
    /// Handle that the document claims, which a check of its own confirms.
    pub claimed: Option<Handle>,
    /// When the document was asked for.
    pub asked_at: Timestamp,
}

/// The state of an entry when a refresh of its account began. The default is that of an account
/// without an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Begun {
    /// The entry's count of proofs: a proof that was taken over since then is newer than what the
    /// refresh found.
    pub proofs: i64,
    /// The time until which the entry was known good.
    pub doubt_since: Option<Timestamp>,
    /// Whether the account's status hides it.
    pub hidden: bool,
}

/// The result of a refresh.
#[derive(Debug, Clone)]
pub enum Finding {
    /// A proven record.
    Present(VerifiedRecord),
    /// A proven absence.
    Absent(VerifiedAbsence),
    /// The PDS reports that there is no record, and proves nothing.
    AbsentUnproven,
    /// The account is not active at its PDS.
    Inactive(AccountStatus),
    /// The account's PDS, or its DID's directory or host, knows no such account.
    Missing,
    /// The account's DID has ended, or its own PDS announced the account's deletion and no longer
    /// knows the account.
    Deleted,
    /// The PDS answered, and the answer proves nothing.
    Unverifiable {
        /// Stable code.
        reason: &'static str,
        /// The same as a sentence.
        detail: String,
    },
    /// No server answered. Only an identity that changed makes a difference then.
    Unreachable {
        /// Class of the error.
        class: &'static str,
    },
}

impl Finding {
    /// Returns the class of the error that a check ends in with this finding, where it is none that
    /// settles the state of the account.
    pub(super) fn failure(&self) -> Option<&'static str> {
        match self {
            Self::Present(_) | Self::Absent(_) | Self::Inactive(_) | Self::Deleted => None,
            Self::AbsentUnproven => Some("absence_unproven"),
            Self::Missing => Some("repo_not_found"),
            Self::Unverifiable { reason, .. } => Some(reason),
            Self::Unreachable { class } => Some(class),
        }
    }

    /// Returns the commit that the finding proves.
    pub(crate) fn commitment(&self) -> Option<&Commitment> {
        match self {
            Self::Present(record) => Some(record.commitment()),
            Self::Absent(absence) => Some(absence.commitment()),
            _ => None,
        }
    }
}

/// One refresh of one account.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The account.
    pub did: Did,
    /// The account's identity; `None` where the DID has ended.
    pub identity: Option<IdentityFacts>,
    /// The result.
    pub finding: Finding,
    /// The source of the proof.
    pub authority: Authority,
    /// What led to the refresh.
    pub trigger: Trigger,
    /// The entry when the refresh began.
    pub begun: Begun,
    /// When the refresh ended.
    pub at: Timestamp,
}

impl Observation {
    /// Returns the class of the error that the check ended in.
    pub(super) fn failure(&self) -> Option<&'static str> {
        match &self.finding {
            // The DID's own directory or host answers so where there is no document.
            Finding::Missing if self.identity.is_none() => Some("did_not_found"),
            finding => finding.failure(),
        }
    }
}

/// The outcome of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A new or changed valid package.
    Package,
    /// A new or changed invalid package.
    Invalid,
    /// The same package, proven again.
    Proven,
    /// The package was removed.
    Removed,
    /// The account has no package, as before.
    NotEnrolled,
    /// The account's status hides it.
    Inactive,
    /// The account's servers do not know it. It is served on until they have said so for a while.
    Missing,
    /// The entry was deleted with the account, and all that was known of the account.
    Deleted,
    /// Nothing is proven under the present identity.
    Unverifiable,
    /// The PDS served an older revision.
    Regressed,
    /// The observation is older than the entry.
    Ignored,
    /// No server answered.
    Unreachable,
    /// The entry was dropped: too long without a proof, or without a package.
    Dropped,
    /// The package is proven, and no entry is made: a limit of the directory is reached.
    Full(Full),
}

impl Outcome {
    /// Returns the stable code for metrics and answers.
    pub fn code(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Invalid => "invalid",
            Self::Proven => "unchanged",
            Self::Removed => "removed",
            Self::NotEnrolled => "notEnrolled",
            Self::Inactive => "inactive",
            Self::Missing => "missing",
            Self::Deleted => "deleted",
            Self::Unverifiable => "unverifiable",
            Self::Regressed => "regressed",
            Self::Ignored => "ignored",
            Self::Unreachable => "unreachable",
            Self::Dropped => "dropped",
            Self::Full(_) => "full",
        }
    }
}
