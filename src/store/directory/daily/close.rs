//! When a day is closed, and what its figures stand on.
//!
//! | a day waits for | told by |
//! |---|---|
//! | its sources to come past its end | `coverage.until`, or a connection that stands and is silent |
//! | refreshes that events before its end led to | `pending`, those not tried yet |
//! | entries and gaps in doubt since before its end | `entry.doubt_since`, `gap.since` |
//! | enumerations that are under way | their rows |
//!
//! It does not wait longer than [`LATEST_CLOSE`] days. A day is complete where nothing is waited for
//! any more, no gap covers its end, and no account may have changed on it that counts later.

use rusqlite::params;

use super::super::super::columns::{collect, maybe_time, time, to_i64};
use super::super::super::error::StoreError;
use super::super::{Queries, Tx};
use super::day::{self, Day};
use atcomm_proto::clock::Timestamp;

/// Days after which a day is closed, whatever it waits for.
pub const LATEST_CLOSE: i32 = 7;

/// Most days that a gap is written to. A longer one has lost the days before them anyway.
const MAX_GAP_DAYS: i32 = 400;

/// Looks for one row of each table.
pub(super) const MAY_BE_LATE: &str = "SELECT EXISTS (SELECT 1 FROM entry WHERE doubt_since < ?1)
       OR EXISTS (SELECT 1 FROM gap WHERE since < ?1)
       OR EXISTS (SELECT 1 FROM pending WHERE attempts = 0 AND since <= ?2)
       OR EXISTS (SELECT 1 FROM walk
         WHERE done_at IS NULL AND failures = 0 AND started_at <= ?2)";

/// A day that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenDay {
    /// The day.
    pub day: Day,
    /// When the sources were seen to have come past its end.
    pub covered_at: Option<Timestamp>,
}

/// A source that is followed, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedSource {
    /// The source's name.
    pub source: String,
    /// The last moment that its stream is proven to have missed nothing before.
    pub until: Timestamp,
}

/// The host of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryHost {
    /// The entry's row.
    pub row: i64,
    /// The account's PDS.
    pub pds: Option<String>,
    /// The last proof.
    pub proved_at: Option<Timestamp>,
}

impl Queries<'_> {
    /// Returns the open days before `today`, in order.
    pub fn open_days(&self, today: Day) -> Result<Vec<OpenDay>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT day, covered_at FROM daily WHERE closed_at IS NULL AND day < ?1 ORDER BY day",
        )?;
        collect(query.query_map([today.to_string()], |row| {
            Ok(OpenDay {
                day: day::day(row, 0)?,
                covered_at: maybe_time(row, "covered_at")?,
            })
        })?)
    }

    /// Returns the sources that are followed.
    pub fn followed_sources(&self) -> Result<Vec<FollowedSource>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT source, until FROM coverage WHERE followed = 1")?;
        collect(query.query_map([], |row| {
            Ok(FollowedSource {
                source: row.get(0)?,
                until: time(row, "until")?,
            })
        })?)
    }

    /// Returns whether the hosts of a day are still to be counted.
    pub fn lacks_hosts(&self, day: Day) -> Result<bool, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM daily WHERE day = ?1 AND hosts IS NULL AND missed = 0)",
        )?;
        Ok(query.query_row([day.to_string()], |row| row.get(0))?)
    }

    /// Returns the hosts of the entries after a row, at most `limit`.
    pub fn entry_hosts(&self, after: i64, limit: usize) -> Result<Vec<EntryHost>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT rowid, pds, proved_at FROM entry WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
        )?;
        collect(query.query_map(params![after, to_i64(limit)], |row| {
            Ok(EntryHost {
                row: row.get(0)?,
                pds: row.get(1)?,
                proved_at: maybe_time(row, 2)?,
            })
        })?)
    }

    /// Returns whether something may still be learnt of a day, whose end the sources came past at
    /// `covered_at`.
    pub fn may_be_late(&self, day: Day, covered_at: Timestamp) -> Result<bool, StoreError> {
        let mut query = self.0.prepare_cached(MAY_BE_LATE)?;
        let params = params![day.end().millis(), covered_at.millis()];
        Ok(query.query_row(params, |row| row.get(0))?)
    }
}

impl Tx<'_> {
    /// Writes which sources are followed. The others keep what is known of them.
    pub fn follow_sources(&self, sources: &[String]) -> Result<(), StoreError> {
        let sources = serde_json::json!(sources).to_string();
        self.conn()
            .prepare_cached(
                "UPDATE coverage SET followed = source IN (SELECT value FROM json_each(?1))",
            )?
            .execute([sources])?;
        Ok(())
    }

    /// Writes what is known of a day when it has ended: its groups, and how far each source is.
    pub(super) fn end_day(&self, day: Day, now: Timestamp) -> Result<(), StoreError> {
        self.write_groups(day)?;
        self.conn()
            .prepare_cached(
                "INSERT INTO daily_source (day, source, covered_until, ended_at, position)
                 SELECT ?1, source, until, ?2,
                   (SELECT position FROM cursor WHERE cursor.source = coverage.source)
                 FROM coverage WHERE followed = 1
                 ON CONFLICT (day, source) DO UPDATE SET covered_until = excluded.covered_until,
                   ended_at = excluded.ended_at, position = excluded.position",
            )?
            .execute(params![day.to_string(), now.millis()])?;
        Ok(())
    }

    /// Writes that the sources have come past the end of a day.
    pub fn cover_day(&self, day: Day, now: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE daily SET covered_at = ?2, covered = 1 WHERE day = ?1")?
            .execute(params![day.to_string(), now.millis()])?;
        Ok(())
    }

    /// Writes the number of hosts of a day, and of those with an account that was proven on it.
    pub fn set_hosts(&self, day: Day, hosts: usize, reached: usize) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE daily SET hosts = ?2, reached = ?3 WHERE day = ?1")?
            .execute(params![day.to_string(), to_i64(hosts), to_i64(reached)])?;
        Ok(())
    }

    /// Closes a day of which nothing more is to be learnt. It is complete where it is certain.
    pub fn close_day(&self, day: Day, now: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE daily SET closed_at = ?2, complete = (covered AND gap = 0 AND uncertain = 0)
                 WHERE day = ?1 AND closed_at IS NULL",
            )?
            .execute(params![day.to_string(), now.millis()])?;
        Ok(())
    }

    /// Closes all days up to `last` that are open. None of them is complete.
    pub(super) fn give_up_days(&self, last: Day, now: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE daily SET closed_at = ?2, complete = 0
                 WHERE closed_at IS NULL AND day <= ?1",
            )?
            .execute(params![last.to_string(), now.millis()])?;
        Ok(())
    }

    /// Closes a day of which more might have been learnt. It is not complete.
    pub fn give_up_day(&self, day: Day, now: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE daily SET closed_at = ?2, complete = 0 WHERE day = ?1
                 AND closed_at IS NULL",
            )?
            .execute(params![day.to_string(), now.millis()])?;
        Ok(())
    }

    /// Writes how a whole listing of accounts with a package compares with the entries: what the
    /// source has and the directory has not, and the reverse.
    pub(in crate::store::directory) fn note_listing(
        &self,
        source: &str,
        listed: i64,
        unknown: i64,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let entries = i64::try_from(self.share_of_all()?.entries).unwrap_or(i64::MAX);
        let unlisted = (entries - (listed - unknown)).max(0);
        self.conn()
            .prepare_cached(
                "INSERT INTO daily_source (day, source, listed, unknown, unlisted)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (day, source) DO UPDATE SET listed = ?3, unknown = ?4, unlisted = ?5",
            )?
            .execute(params![
                self.reach_day(at)?.to_string(),
                source,
                listed,
                unknown,
                unlisted
            ])?;
        Ok(())
    }

    /// Takes note of events that a source has missed, or may have, between two moments. A day whose
    /// end lies between them is not complete, also where it was.
    pub(in crate::store::directory) fn note_gap(
        &self,
        source: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let last = self.reach_day(now)?;
        let first = Day::of(since).max(last.plus(-MAX_GAP_DAYS));
        self.conn()
            .prepare_cached("UPDATE daily SET gap = 1, complete = 0 WHERE day >= ?1 AND day < ?2")?
            .execute(params![first.to_string(), last.to_string()])?;
        let mut add = self.conn().prepare_cached(
            "INSERT INTO daily_source (day, source, gaps, gap_ms) SELECT day, ?2, 1, ?3 FROM daily
             WHERE day = ?1
             ON CONFLICT (day, source) DO UPDATE SET gaps = gaps + 1, gap_ms = gap_ms + ?3",
        )?;
        let mut day = first;
        while day <= last {
            let (from, to) = (since.max(day.start()), now.min(day.end()));
            let millis = i64::try_from(to.since(from).as_millis()).unwrap_or(i64::MAX);
            add.execute(params![day.to_string(), source, millis])?;
            day = day.next();
        }
        Ok(())
    }
}
