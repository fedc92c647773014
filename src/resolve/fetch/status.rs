//! The status of an account, which its PDS is asked for in doubt.

use super::super::{Inner, RefreshError};
use super::answer::{Found, PDS_ANSWER};
use super::{Look, pds_failure};
use crate::directory::Finding;
use crate::store::AccountStatus;
use atcomm_net::identity::{StatusAnswer, fetch_status};
use atcomm_proto::syntax::{Did, Origin};

/// What a PDS said about the record leaves open whether the account is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StatusQuestion {
    /// Nothing is open.
    None,
    /// The PDS announced a status and proves nothing: the status counts.
    Announced,
    /// The PDS is asked.
    Ask,
}

impl Inner {
    /// Returns the finding about an account at its PDS, in the light of its status there:
    ///
    /// | answer about the record | announced inactive by this PDS | status there | finding |
    /// |---|---|---|---|
    /// | inactive | - | not asked for | inactive |
    /// | proof, of an account that is not hidden | no | not asked for | the proof |
    /// | proof | yes, or the account is hidden | active | the proof |
    /// | proof | yes, or the account is hidden | inactive | inactive |
    /// | proof | yes | no usable answer | inactive, as announced |
    /// | proof | no, and the account is hidden | no usable answer | the proof |
    /// | account not found | deleted | not asked for | deleted |
    /// | no proof | yes | not asked for | inactive, as announced |
    /// | account not found, or an unknown error | no | inactive | inactive |
    /// | account not found, or an unknown error | no | not found | missing |
    /// | account not found | no | active | unverifiable |
    /// | any | - | the PDS cannot be asked | not to be had |
    pub(super) async fn settle(
        &self,
        did: &Did,
        pds: &Origin,
        found: Found,
        look: Look<'_>,
    ) -> Result<Found, RefreshError> {
        let announced = look.refresh.announced_by(pds);
        match (question(&found.finding, announced, look.hidden), announced) {
            (StatusQuestion::Announced, Some(status)) => Ok(as_announced(found, status)),
            (StatusQuestion::None | StatusQuestion::Announced, _) => Ok(found),
            (StatusQuestion::Ask, announced) => {
                let options = self.pds_options(pds, look.refresh.priority());
                let status = fetch_status(&self.net, did, pds, options)
                    .await
                    .map_err(pds_failure)?;
                Ok(answered(found, status, announced))
            }
        }
    }
}

fn question(finding: &Finding, announced: Option<&AccountStatus>, hidden: bool) -> StatusQuestion {
    match finding {
        Finding::Present(_) | Finding::Absent(_) if announced.is_some() || hidden => {
            StatusQuestion::Ask
        }
        Finding::Present(_) | Finding::Absent(_) => StatusQuestion::None,
        Finding::Inactive(_) | Finding::Deleted | Finding::Unreachable { .. } => {
            StatusQuestion::None
        }
        _ if announced.is_some() => StatusQuestion::Announced,
        Finding::AbsentUnproven if hidden => StatusQuestion::Ask,
        Finding::AbsentUnproven => StatusQuestion::None,
        Finding::Missing => StatusQuestion::Ask,
        Finding::Unverifiable { reason, .. } if *reason == PDS_ANSWER => StatusQuestion::Ask,
        Finding::Unverifiable { .. } => StatusQuestion::None,
    }
}

/// Returns the finding of an answer without a proof, from a PDS that announced a status.
fn as_announced(found: Found, status: &AccountStatus) -> Found {
    let is_missing = matches!(found.finding, Finding::Missing);
    if is_missing && *status == AccountStatus::Deleted {
        return Found {
            finding: Finding::Deleted,
            ..found
        };
    }
    Found::inactive(status.clone())
}

/// Returns the finding of an answer about the record and one about the status.
fn answered(found: Found, status: StatusAnswer, announced: Option<&AccountStatus>) -> Found {
    let missing = matches!(found.finding, Finding::Missing);
    let useless = matches!(found.finding, Finding::Unverifiable { .. });
    match status {
        StatusAnswer::Inactive(word) => {
            Found::inactive(AccountStatus::parse(word.as_deref().unwrap_or("inactive")))
        }
        StatusAnswer::Active if missing => Found::unverifiable(
            PDS_ANSWER,
            "its PDS says that the account is active, and that it does not know it".to_owned(),
        ),
        StatusAnswer::Active => found,
        StatusAnswer::NotFound if useless => Found::missing(),
        StatusAnswer::NotFound | StatusAnswer::Unusable => match announced {
            Some(status) => Found::inactive(status.clone()),
            None => found,
        },
    }
}

#[cfg(test)]
mod tests;
