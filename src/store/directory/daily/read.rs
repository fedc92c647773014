//! Questions to the time series.

use rusqlite::{OptionalExtension as _, Row, params};

use super::super::super::columns::{collect, maybe_time};
use super::super::super::error::StoreError;
use super::super::Queries;
use super::day::{self, Day};
use super::membership::GroupKind;
use atcomm_proto::clock::Timestamp;

/// Most days that are read at once.
pub const MAX_DAYS: i32 = 3660;

/// A day of the time series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayRow {
    /// The day.
    pub day: Day,
    /// Accounts at its end: enrolled, inactive, with an invalid package.
    pub stock: [i64; 3],
    /// Accounts that enrolled for the first time.
    pub new: i64,
    /// Accounts that enrolled again.
    pub returned: i64,
    /// Accounts that had enrolled on an earlier day, and were not known.
    pub found: i64,
    /// Accounts that were enrolled and are no more.
    pub departed: i64,
    /// did:peers replaced with the word of the one before.
    pub vouched: i64,
    /// did:peers replaced without it.
    pub unvouched: i64,
    /// Records by the time until they were served.
    pub delays: [i64; 7],
    /// Accounts that may have changed on the day, although the change counts later.
    pub uncertain: i64,
    /// Whether nothing ran on the day.
    pub missed: bool,
    /// Whether a gap of a source covers its end.
    pub gap: bool,
    /// Hosts of the entries when the day had ended; `None`: they were not counted.
    pub hosts: Option<i64>,
    /// Hosts among them with an account that was proven on the day.
    pub reached: Option<i64>,
    /// Whether it is the first day of the series.
    pub begun: bool,
    /// Whether the sources have come past its end.
    pub covered: bool,
    /// Whether nothing changes any more.
    pub closed: bool,
    /// Whether the figures of its end are certain.
    pub complete: bool,
}

/// A group on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupDay {
    /// The day.
    pub day: Day,
    /// Accounts at its end.
    pub accounts: i64,
    /// Accounts that came on it.
    pub came: i64,
    /// Accounts that went on it.
    pub went: i64,
    /// Whether all groups without a row of their own are meant.
    pub others: bool,
}

/// A source on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDay {
    /// The day.
    pub day: Day,
    /// The source's name: kind and address.
    pub source: String,
    /// The last moment that its stream was proven to have missed nothing before, when the day had
    /// ended.
    pub covered_until: Option<Timestamp>,
    /// When that was looked at.
    pub ended_at: Option<Timestamp>,
    /// Gaps that touch the day.
    pub gaps: i64,
    /// Milliseconds of the day that they cover. Gaps that overlap count one by one.
    pub gap_ms: i64,
    /// Accounts with a package in the last whole listing that ended on the day.
    pub listed: Option<i64>,
    /// Those of them without an entry here at that time.
    pub unknown: Option<i64>,
    /// Entries here that were not listed, at least.
    pub unlisted: Option<i64>,
    /// The cursor of the stream when the day had ended.
    pub position: Option<i64>,
}

/// Most rows of sources that are read at once: ten sources for all days.
const MAX_SOURCE_DAYS: i32 = 10 * MAX_DAYS;

/// Reads the rows in order.
pub(super) const SOURCE_DAYS: &str =
    "SELECT day, source, covered_until, ended_at, gaps, gap_ms, listed, unknown, unlisted, position
     FROM daily_source WHERE day BETWEEN ?1 AND ?2 ORDER BY day DESC, source DESC LIMIT ?3";

/// Reads the days in order.
pub(super) const DAYS: &str =
    "SELECT day, enrolled, inactive, invalid, new, returned, found, departed, vouched, unvouched,
       within_1s, within_10s, within_1m, within_10m, within_1h, within_1d, longer,
       uncertain, missed, gap, closed_at IS NOT NULL, complete, hosts, reached, begun, covered
     FROM daily WHERE day BETWEEN ?1 AND ?2 ORDER BY day LIMIT ?3";

/// Reads the days of one group in order.
pub(super) const GROUP_DAYS: &str = "SELECT day, accounts, came, went FROM daily_group
     WHERE kind = ?1 AND name = ?2 AND day BETWEEN ?3 AND ?4 ORDER BY day LIMIT ?5";

impl Queries<'_> {
    /// Returns the days from `since` to `until`, in order, at most [`MAX_DAYS`].
    pub fn days(&self, since: Day, until: Day) -> Result<Vec<DayRow>, StoreError> {
        let mut query = self.0.prepare_cached(DAYS)?;
        let range = params![since.to_string(), until.to_string(), MAX_DAYS];
        collect(query.query_map(range, read_day)?)
    }

    /// Returns the sources of the days from `since` to `until`, the newest day first, at most ten
    /// times [`MAX_DAYS`].
    pub fn source_days(&self, since: Day, until: Day) -> Result<Vec<SourceDay>, StoreError> {
        let mut query = self.0.prepare_cached(SOURCE_DAYS)?;
        let range = params![since.to_string(), until.to_string(), MAX_SOURCE_DAYS];
        collect(query.query_map(range, read_source)?)
    }

    /// Returns all groups of a day that has ended, with their accounts. Reads the whole table.
    #[cfg(test)]
    pub(crate) fn groups_of_day(
        &self,
        day: Day,
    ) -> Result<Vec<(GroupKind, String, i64)>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT kind, name, accounts FROM daily_group WHERE day = ?1")?;
        collect(query.query_map([day.to_string()], |row| {
            let kind: String = row.get(0)?;
            let kind = GroupKind::parse(&kind).unwrap_or(GroupKind::Rule);
            Ok((kind, row.get(1)?, row.get(2)?))
        })?)
    }

    /// Returns a group on the days from `since` to `until` on which it has a row, in order, and on
    /// the newest day. An empty name means all groups without a row of their own.
    pub fn group_days(
        &self,
        kind: GroupKind,
        name: &str,
        since: Day,
        until: Day,
    ) -> Result<Vec<GroupDay>, StoreError> {
        let others = name.is_empty();
        let mut query = self.0.prepare_cached(GROUP_DAYS)?;
        let range = params![
            kind.as_str(),
            name,
            since.to_string(),
            until.to_string(),
            MAX_DAYS
        ];
        let mut days = collect(query.query_map(range, |row| read_group(row, others))?)?;
        // On the newest day every group has a row, and the one without a name is that of all.
        let newest = self.newest_day()?.filter(|day| *day <= until && !others);
        if let Some(newest) = newest {
            let mut query = self.0.prepare_cached(
                "SELECT ?3, accounts, iif(day = ?3, came, 0), iif(day = ?3, went, 0)
                 FROM group_now WHERE kind = ?1 AND name = ?2",
            )?;
            let now = params![kind.as_str(), name, newest.to_string()];
            days.extend(
                query
                    .query_row(now, |row| read_group(row, others))
                    .optional()?,
            );
        }
        Ok(days)
    }
}

/// Reads a row of [`DAYS`], by position: looking up names would cost more than the rest.
fn read_day(row: &Row<'_>) -> Result<DayRow, rusqlite::Error> {
    Ok(DayRow {
        day: day::day(row, 0)?,
        stock: [row.get(1)?, row.get(2)?, row.get(3)?],
        new: row.get(4)?,
        returned: row.get(5)?,
        found: row.get(6)?,
        departed: row.get(7)?,
        vouched: row.get(8)?,
        unvouched: row.get(9)?,
        delays: [
            row.get(10)?,
            row.get(11)?,
            row.get(12)?,
            row.get(13)?,
            row.get(14)?,
            row.get(15)?,
            row.get(16)?,
        ],
        uncertain: row.get(17)?,
        missed: row.get(18)?,
        gap: row.get(19)?,
        closed: row.get(20)?,
        complete: row.get(21)?,
        hosts: row.get(22)?,
        reached: row.get(23)?,
        begun: row.get(24)?,
        covered: row.get(25)?,
    })
}

/// Reads a row of a source, by position.
pub(super) fn read_source(row: &Row<'_>) -> Result<SourceDay, rusqlite::Error> {
    Ok(SourceDay {
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
}

fn read_group(row: &Row<'_>, others: bool) -> Result<GroupDay, rusqlite::Error> {
    Ok(GroupDay {
        day: day::day(row, 0)?,
        accounts: row.get(1)?,
        came: row.get(2)?,
        went: row.get(3)?,
        others,
    })
}
