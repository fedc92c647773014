//! The days that are closed, read in order for a dataset.
//!
//! They are read in pages, each in a transaction of its own, so that the log of a service that writes
//! is held up for the time of one page. The pages fit together all the same, since a closed day does
//! not change but for its marks of certainty.

use rusqlite::{OptionalExtension as _, params};

use super::super::super::columns::{collect, to_i64};
use super::super::super::error::{Damage, StoreError};
use super::super::Queries;
use super::day::{self, Day};
use super::membership::GroupKind;
use super::read::{SourceDay, read_source};

/// The last of the days that are closed without an open one before them. The hosts of the day before
/// the newest are counted after it is closed: until then it is left out.
const LAST_CLOSED: &str = "SELECT max(day) FROM daily AS d
   WHERE closed_at IS NOT NULL
     AND day < coalesce((SELECT min(day) FROM daily WHERE closed_at IS NULL), '~')
     AND NOT (hosts IS NULL AND missed = 0
       AND (SELECT count(*) FROM daily AS later WHERE later.day > d.day) <= 1)";

/// Reads in the order of the table. The row of all other groups, which has no name, is left out.
pub(super) const GROUPS: &str = "SELECT name, day, accounts, came, went FROM daily_group
   WHERE kind = ?1 AND (name, day) > (?2, ?3) AND day BETWEEN ?4 AND ?5
   ORDER BY name, day LIMIT ?6";

/// The place behind the rows without a name.
const BEFORE_FIRST_GROUP: (&str, &str) = ("", "~");

/// Reads in the order of the table.
pub(super) const SOURCES: &str =
    "SELECT day, source, covered_until, ended_at, gaps, gap_ms, listed, unknown, unlisted, position
     FROM daily_source WHERE (day, source) > (?1, ?2) AND day <= ?3
     ORDER BY day, source LIMIT ?4";

/// A group on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRow {
    /// The group's name.
    pub name: String,
    /// The day.
    pub day: Day,
    /// Accounts at its end.
    pub accounts: i64,
    /// Accounts that came on it.
    pub came: i64,
    /// Accounts that went on it.
    pub went: i64,
}

impl Queries<'_> {
    /// Returns the first day of the series and the last one that is closed, or `None` where none is.
    pub fn closed_days(&self) -> Result<Option<(Day, Day)>, StoreError> {
        let conn = self.0;
        let first = conn.query_row("SELECT min(day) FROM daily", [], day::maybe_day)?;
        let last = conn.query_row(LAST_CLOSED, [], day::maybe_day)?;
        Ok(first.zip(last))
    }

    /// Returns the key by which the numbers of datasets are rounded: 32 random bytes, made once.
    pub fn dataset_key(&self) -> Result<[u8; 32], StoreError> {
        let key = self.0.query_row("SELECT key FROM dataset_key", [], |row| {
            let key: Vec<u8> = row.get(0)?;
            Ok(key)
        });
        let key = key.optional()?.and_then(|key| key.try_into().ok());
        key.ok_or(StoreError::Corrupt(Damage::Contents(
            "the key of its datasets is missing",
        )))
    }

    /// Returns groups on the days from `since` to `until`, ordered by name and day, at most `limit`:
    /// those after `after`, or the first ones.
    pub fn group_rows(
        &self,
        kind: GroupKind,
        (since, until): (Day, Day),
        after: Option<&GroupRow>,
        limit: usize,
    ) -> Result<Vec<GroupRow>, StoreError> {
        let mut query = self.0.prepare_cached(GROUPS)?;
        let (name, day) = BEFORE_FIRST_GROUP;
        let (name, day) = match after {
            Some(row) => (row.name.as_str(), row.day.to_string()),
            None => (name, day.to_owned()),
        };
        let page = params![
            kind.as_str(),
            name,
            day,
            since.to_string(),
            until.to_string(),
            to_i64(limit)
        ];
        collect(query.query_map(page, |row| {
            Ok(GroupRow {
                name: row.get(0)?,
                day: day::day(row, 1)?,
                accounts: row.get(2)?,
                came: row.get(3)?,
                went: row.get(4)?,
            })
        })?)
    }

    /// Returns sources on the days from `since` to `until`, ordered by day and name, at most `limit`:
    /// those after `after`, or the first ones.
    pub fn source_rows(
        &self,
        (since, until): (Day, Day),
        after: Option<&SourceDay>,
        limit: usize,
    ) -> Result<Vec<SourceDay>, StoreError> {
        let mut query = self.0.prepare_cached(SOURCES)?;
        let (day, source) = match after {
            Some(row) => (row.day, row.source.as_str()),
            None => (since, ""),
        };
        let page = params![day.to_string(), source, until.to_string(), to_i64(limit)];
        collect(query.query_map(page, read_source)?)
    }
}
