//! What hides an account, and what ends its entry.

use std::time::Duration;

use super::super::observation::Outcome;
use super::{DROP, EntryUpdate, ProofWrite, REPROVE};
use crate::store::{AccountStatus, ChangeKind, PackageState};

/// Least time between the first of the answers in a row that know no such account and the one that
/// hides it. A host in the middle of a deployment, a directory behind a broken proxy and a PDS that
/// is restored from a backup answer so for minutes.
const MISSING_FOR: Duration = Duration::from_secs(3600);

impl EntryUpdate<'_> {
    pub(super) fn absent_unproven(&mut self) -> Outcome {
        if self.overtaken() {
            return Outcome::Ignored;
        }
        self.entry.missing_since = None;
        self.active();
        match self.entry.state {
            // A report without proof does not replace a proven absence.
            PackageState::Removed | PackageState::RemovedUnproven => {
                if self.entry.state == PackageState::Removed {
                    self.checked(REPROVE);
                } else {
                    self.unsettled(false);
                }
                if self.seen.at.since(self.entry.observed_at) > DROP {
                    self.change(ChangeKind::Dropped, None);
                    return Outcome::Dropped;
                }
                Outcome::NotEnrolled
            }
            _ => {
                self.unsettled(true);
                self.supersede();
                self.change(ChangeKind::Removed, Some("unproven".to_owned()));
                self.clear(PackageState::RemovedUnproven);
                self.proof = ProofWrite::Delete;
                self.entry.observed_at = self.seen.at;
                Outcome::Removed
            }
        }
    }

    pub(super) fn inactive(&mut self, status: &AccountStatus) -> Outcome {
        if self.overtaken() {
            return Outcome::Ignored;
        }
        self.entry.missing_since = None;
        self.hide(status);
        self.drop_if_old().unwrap_or(Outcome::Inactive)
    }

    /// Notes that the account's servers do not know the account. Hides it as deleted once they have
    /// said so for [`MISSING_FOR`], with no other answer in between; however often they are asked,
    /// not sooner.
    pub(super) fn missing(&mut self) -> Outcome {
        if self.overtaken() {
            return Outcome::Ignored;
        }
        let now = self.seen.at;
        // A time in our future, after a step of the clock, is unknown.
        let first = match self.entry.missing_since {
            Some(first) if first <= now => first,
            _ => {
                self.entry.missing_since = Some(now);
                self.entry.failures = 0;
                now
            }
        };
        if now.since(first) >= MISSING_FOR {
            self.hide(&AccountStatus::Deleted);
            return self.drop_if_old().unwrap_or(Outcome::Inactive);
        }
        self.failed();
        if !self.proof_is_current() {
            self.withdraw(
                "repo_not_found",
                "the account's key or PDS changed, and its PDS does not know it",
            );
        }
        self.drop_if_old().unwrap_or(Outcome::Missing)
    }

    pub(super) fn deleted(&mut self) -> Outcome {
        if self.overtaken() {
            return Outcome::Ignored;
        }
        Outcome::Deleted
    }

    fn hide(&mut self, status: &AccountStatus) {
        let news = self.entry.status != *status;
        if news {
            self.entry.status = status.clone();
            self.change(ChangeKind::Status, Some(status.to_string()));
        }
        self.unsettled(news);
    }

    /// Shows an account that is active at its PDS, unless a relay's word hides it.
    pub(super) fn active(&mut self) {
        let status = self.takedown.clone().unwrap_or(AccountStatus::Active);
        if self.entry.status != status {
            self.change(ChangeKind::Status, Some(status.to_string()));
            self.entry.status = status;
        }
    }

    /// Ends an entry that was proven last longer than [`DROP`] ago: as deleted where the account is
    /// hidden as deleted.
    pub(super) fn drop_if_old(&mut self) -> Option<Outcome> {
        let last = self.entry.proved_at.unwrap_or(self.entry.observed_at);
        if self.seen.at.since(last) <= DROP {
            return None;
        }
        if self.entry.status == AccountStatus::Deleted {
            return Some(Outcome::Deleted);
        }
        self.change(ChangeKind::Dropped, None);
        Some(Outcome::Dropped)
    }
}
