//! The findings that the answers of other servers lead to.

use bytes::Bytes;

use super::super::{NoAnswer, RefreshError};
use crate::directory::{Finding, Refusal};
use crate::store::AccountStatus;
use atcomm_net::identity::{IdentityError, UnusableAnswer};
use atcomm_proto::proof::{ProofError, Proven};
use atcomm_proto::syntax::LexiconError;

/// Code of an answer with a status and an error name that the method does not have.
pub(super) const PDS_ANSWER: &str = "pds_answer";

/// A finding, with the refusal for clients where the directory keeps no entry.
pub(super) struct Found {
    pub(super) finding: Finding,
    pub(super) refusal: Option<Refusal>,
    pub(super) car: Option<Bytes>,
}

impl Found {
    pub(super) fn unverifiable(reason: &'static str, detail: String) -> Self {
        metrics::counter!("atcomm_resolve_unverifiable_total", "reason" => reason).increment(1);
        let message = format!("the account's key package cannot be verified: {detail} ({reason})");
        Self {
            finding: Finding::Unverifiable { reason, detail },
            refusal: Some(Refusal::new(LexiconError::UpstreamFailure, message)),
            car: None,
        }
    }

    pub(super) fn inactive(status: AccountStatus) -> Self {
        let message = format!("the account is not active: {status}");
        Self {
            finding: Finding::Inactive(status),
            refusal: Some(Refusal::new(LexiconError::AccountInactive, message)),
            car: None,
        }
    }

    /// Returns the finding of an account that its PDS does not know.
    pub(super) fn missing() -> Self {
        Self {
            finding: Finding::Missing,
            ..Self::inactive(AccountStatus::Deleted)
        }
    }

    pub(super) fn absent_unproven() -> Self {
        Self {
            finding: Finding::AbsentUnproven,
            refusal: Some(Refusal::new(
                LexiconError::NotEnrolledUnproven,
                "the account's PDS says that it has no key package, and gives no proof of that",
            )),
            car: None,
        }
    }

    /// Returns the finding of a refresh that failed: the status that the account's own PDS
    /// announced, or that nothing answered. `None` under our own limits, which say nothing about
    /// the account.
    pub(super) fn without_answer(
        announced: Option<AccountStatus>,
        error: &RefreshError,
    ) -> Option<Self> {
        let finding = match announced {
            Some(status) => Finding::Inactive(status),
            None if matches!(error, RefreshError::Busy { .. }) => return None,
            None => Finding::Unreachable {
                class: error.class(),
            },
        };
        Some(Self {
            finding,
            refusal: None,
            car: None,
        })
    }

    /// Returns whether the account seems to be away, as it is at a PDS that it left.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.finding, Finding::Inactive(_) | Finding::Missing)
    }

    pub(super) fn is_bad_signature(&self) -> bool {
        matches!(
            &self.finding,
            Finding::Unverifiable { reason, .. } if *reason == ProofError::Signature.code()
        )
    }

    pub(super) fn proven(proven: Proven) -> Self {
        let car = Some(Bytes::copy_from_slice(proven.commitment().car()));
        match proven {
            Proven::Present(record) => Self {
                finding: Finding::Present(record),
                refusal: None,
                car,
            },
            Proven::Absent(absence) => Self {
                finding: Finding::Absent(absence),
                refusal: Some(Refusal::new(
                    LexiconError::NotEnrolled,
                    "the account has no key package (proven)",
                )),
                car,
            },
        }
    }
}

/// Returns the finding of an answer that says nothing about the record.
pub(super) fn unusable(why: UnusableAnswer) -> Found {
    match why {
        UnusableAnswer::Oversize => {
            let error = ProofError::Oversize;
            Found::unverifiable(error.code(), error.to_string())
        }
        UnusableAnswer::Forbidden(_) => Found::unverifiable(
            "pds_refused",
            format!("its PDS address is not allowed ({why})"),
        ),
        UnusableAnswer::Status(_) => {
            Found::unverifiable(PDS_ANSWER, format!("its PDS answered {why}"))
        }
    }
}

/// Returns the finding of an identity that cannot be had.
pub(super) fn identity_failure(error: IdentityError) -> Result<Found, RefreshError> {
    let refused = |kind, message: &str, finding| {
        Ok(Found {
            finding,
            refusal: Some(Refusal::new(kind, message)),
            car: None,
        })
    };
    match error {
        IdentityError::NotFound => refused(
            LexiconError::DidNotFound,
            "the DID is not registered",
            Finding::Missing,
        ),
        IdentityError::Tombstoned => refused(
            LexiconError::DidNotFound,
            "the DID has ended",
            Finding::Deleted,
        ),
        IdentityError::Malformed(reason) => Ok(Found::unverifiable(
            "did_document",
            format!("its DID document is malformed: {reason}"),
        )),
        IdentityError::Refused(reason) => Ok(Found::unverifiable(
            "did_refused",
            format!("its DID document may not be fetched: {reason}"),
        )),
        // A limit of ours, or of the directory: nothing went wrong, and the wait is known.
        IdentityError::Unreachable {
            retry_after: Some(retry_after),
        } => Err(RefreshError::Busy { retry_after }),
        error @ IdentityError::Unreachable { retry_after: None } => {
            Err(RefreshError::Unreachable {
                what: "the DID's directory or host",
                why: NoAnswer::Identity(error),
                retry_after: None,
            })
        }
    }
}
