//! The days that are closed, read in order for a dataset.
//!
//! They are read on a connection of their own and in pages, each in a transaction of its own: a
//! service may go on writing meanwhile, and its log is held up for the time of one page. The pages
//! fit together all the same, since a closed day does not change but for its marks of certainty,
//! which are read at once.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::super::super::columns::{collect, maybe_time, to_i64};
use super::super::super::error::{Damage, StoreError};
use super::super::super::schema;
use super::day::{self, Day};
use super::membership::GroupKind;
use super::read::{DAYS, DayRow, MAX_DAYS, read_day};
use atcomm_proto::clock::Timestamp;

/// Longest wait for a lock of the service.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

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

/// The closed days of a directory's file.
pub struct ClosedDays(Connection);

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

/// A source on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRow {
    /// The day.
    pub day: Day,
    /// The source's name: kind and address.
    pub source: String,
    /// The last moment that the stream was proven to have missed nothing before.
    pub covered_until: Option<Timestamp>,
    /// When the day had ended, and that was looked at.
    pub ended_at: Option<Timestamp>,
    /// Gaps that touch the day.
    pub gaps: i64,
    /// Milliseconds of the day that they cover.
    pub gap_ms: i64,
    /// Accounts with a package that the source listed.
    pub listed: Option<i64>,
    /// Of these, accounts without an entry.
    pub unknown: Option<i64>,
    /// Entries that it did not list.
    pub unlisted: Option<i64>,
    /// The cursor of the stream when the day had ended.
    pub position: Option<i64>,
}

impl ClosedDays {
    /// Opens the file at `path`, which is not changed. Fails where it is of an earlier version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(LOCK_TIMEOUT)?;
        schema::check(&conn, &schema::DIRECTORY)?;
        Ok(Self(conn))
    }

    /// Returns the first day of the series and the last one that is closed, or `None` where none is.
    pub fn range(&self) -> Result<Option<(Day, Day)>, StoreError> {
        let conn = &self.0;
        let first = conn.query_row("SELECT min(day) FROM daily", [], day::maybe_day)?;
        let last = conn.query_row(LAST_CLOSED, [], day::maybe_day)?;
        Ok(first.zip(last))
    }

    /// Returns the key by which the numbers of datasets are rounded: 32 random bytes, made once.
    pub fn key(&self) -> Result<[u8; 32], StoreError> {
        let key = self.0.query_row("SELECT key FROM dataset_key", [], |row| {
            let key: Vec<u8> = row.get(0)?;
            Ok(key)
        });
        let key = key.optional()?.and_then(|key| key.try_into().ok());
        key.ok_or(StoreError::Corrupt(Damage::Contents(
            "the key of its datasets is missing",
        )))
    }

    /// Returns the days from `since` to `until`, in order, at most [`MAX_DAYS`].
    pub fn days(&self, since: Day, until: Day) -> Result<Vec<DayRow>, StoreError> {
        let mut query = self.0.prepare_cached(DAYS)?;
        let range = params![since.to_string(), until.to_string(), MAX_DAYS];
        collect(query.query_map(range, read_day)?)
    }

    /// Returns groups on the days from `since` to `until`, ordered by name and day, at most `limit`:
    /// those after `after`, or the first ones.
    pub fn groups(
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
    pub fn sources(
        &self,
        (since, until): (Day, Day),
        after: Option<&SourceRow>,
        limit: usize,
    ) -> Result<Vec<SourceRow>, StoreError> {
        let mut query = self.0.prepare_cached(SOURCES)?;
        let (day, source) = match after {
            Some(row) => (row.day, row.source.as_str()),
            None => (since, ""),
        };
        let page = params![day.to_string(), source, until.to_string(), to_i64(limit)];
        collect(query.query_map(page, |row| {
            Ok(SourceRow {
                day: day::day(row, 0)?,
                source: row.get(1)?,
                covered_until: maybe_time(row, 2)?,
                ended_at: maybe_time(row, 3)?,
                gaps: row.get(4)?,
                gap_ms: row.get(5)?,
                listed: row.get(6)?,
                unknown: row.get(7)?,
                unlisted: row.get(8)?,
                position: row.get(9)?,
            })
        })?)
    }
}
