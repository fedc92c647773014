//! How many accounts there are of each kind, and what changed lately.
//!
//! Triggers keep the counts, in the transactions that change the entries, so that they are exact and
//! no question counts rows (`schema/tally.rs`).

use rusqlite::{OptionalExtension as _, params};

use super::super::columns::{UnknownWord, collect, parsed, unsigned, words};
use super::super::error::StoreError;
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;

/// Hours for which the changes of an hour are kept: 31 days.
const KEPT_HOURS: i64 = 31 * 24;

const MILLIS_PER_HOUR: i64 = 3_600_000;

/// Reads the index in order.
pub(super) const LARGEST: &str =
    "SELECT name, count FROM tally WHERE kind = ?1 ORDER BY count DESC, name LIMIT ?2";

words! {
    /// What accounts are grouped by.
    Tally {
        /// All accounts, by [`AccountState`](super::AccountState).
        State = "state",
        /// Accounts that are not active, by status.
        Inactive = "inactive",
        /// Accounts with an invalid package, by the rule that it breaks.
        Invalid = "invalid",
        /// Accounts of which nothing is proven, by reason.
        Unverifiable = "unverifiable",
        /// Enrolled accounts, by PDS.
        Pds = "pds",
        /// Enrolled accounts, by the types of the keys in their did:peer: key agreement, a slash,
        /// authentication.
        KeyType = "keyType",
        /// Enrolled accounts, by each of their mediators.
        Mediator = "mediator",
        /// By [`Mark`].
        Mark = "mark",
        /// The number of groups of each of the others.
        Groups = "groups",
    }
}

words! {
    /// What is counted beside the groups, of enrolled accounts.
    Mark {
        /// Accounts whose PDS showed an older revision.
        Regressed = "regressed",
        /// Accounts that a gap may concern.
        InDoubt = "inDoubt",
        /// The sum of all groups by mediator.
        Named = "named",
        /// The did:peers that several accounts name.
        Ambiguous = "ambiguous",
    }
}

words! {
    /// What happened to accounts, counted by the hour.
    Happening {
        /// A valid package of an account that had none.
        Enrolment = "enrolment",
        /// A valid package with another did:peer than the one before.
        Rotation = "rotation",
        /// A package that its account removed.
        Removal = "removal",
        /// An account that ended.
        Deletion = "deletion",
    }
}

impl Queries<'_> {
    /// Returns the number of accounts in a group.
    pub fn tally(&self, kind: Tally, name: &str) -> Result<u64, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT count FROM tally WHERE kind = ?1 AND name = ?2")?;
        let count = query.query_row(params![kind.as_str(), name], |row| row.get(0));
        Ok(unsigned(count.optional()?.unwrap_or(0)))
    }

    /// Returns the groups of a kind with their numbers of accounts, the largest first, at most
    /// `limit`.
    pub fn largest_groups(
        &self,
        kind: Tally,
        limit: u32,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let mut query = self.0.prepare_cached(LARGEST)?;
        let rows = query.query_map(params![kind.as_str(), limit], |row| {
            Ok((row.get(0)?, unsigned(row.get(1)?)))
        })?;
        collect(rows)
    }

    /// Returns what happened in the current hour and the `hours` before it, at most the 31 days that
    /// are kept. What did not happen is not in it.
    pub fn happened(
        &self,
        now: Timestamp,
        hours: i64,
    ) -> Result<Vec<(Happening, u64)>, StoreError> {
        let hour = now.millis().div_euclid(MILLIS_PER_HOUR);
        let mut query = self.0.prepare_cached(
            "SELECT kind, sum(count) FROM change_hour WHERE hour BETWEEN ?1 AND ?2 GROUP BY kind",
        )?;
        let rows = query.query_map([hour - hours, hour], |row| {
            let kind = parsed(row, 0, |s| {
                Happening::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
            })?;
            Ok((kind, unsigned(row.get(1)?)))
        })?;
        collect(rows)
    }
}

impl Tx<'_> {
    /// Deletes the counts of hours that are too old.
    pub fn age_happenings(&self, now: Timestamp) -> Result<(), StoreError> {
        let hour = now.millis().div_euclid(MILLIS_PER_HOUR);
        self.conn()
            .prepare_cached("DELETE FROM change_hour WHERE hour < ?1")?
            .execute([hour - KEPT_HOURS])?;
        Ok(())
    }
}
