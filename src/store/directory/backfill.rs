//! How far the enumeration of each source has come.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::super::columns::{maybe_time, time};
use super::super::error::StoreError;
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;

/// The state of a source's backfill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillRow {
    /// The source's name.
    pub source: String,
    /// Paging cursor of the enumeration; `None` at the start.
    pub position: Option<String>,
    /// Accounts seen so far.
    pub seen: i64,
    /// Those among them without an entry here when they were listed; `None` where the list is not
    /// one of accounts with a package.
    pub unknown: Option<i64>,
    /// Pages read so far.
    pub pages: i64,
    /// When the backfill began.
    pub started_at: Timestamp,
    /// When the backfill ended.
    pub done_at: Option<Timestamp>,

    /// Whether another backfill follows this one, since events were missed while it was under way.
    pub again: bool,
    /// When a backfill last began for that reason.
    pub restarted_at: Option<Timestamp>,
    /// When the backfill last began at its first page because the source refused its own cursor.
    pub reset_at: Option<Timestamp>,

    /// Attempts without a page since the last page.
    pub failures: u32,
    /// The last of these failures, as a sentence for the log.
    pub failure: Option<String>,
    /// When the source was last asked for a page.
    pub tried_at: Option<Timestamp>,
    /// When to ask it again; `None`: at once.
    pub next_at: Option<Timestamp>,
    /// When the last backfill ended that came to its end; this one, or an earlier one.
    pub complete_at: Option<Timestamp>,
}

impl BackfillRow {
    /// Returns a backfill that begins.
    pub fn begun(source: String, now: Timestamp) -> Self {
        Self {
            source,
            position: None,
            seen: 0,
            unknown: None,
            pages: 0,
            started_at: now,
            done_at: None,
            again: false,
            restarted_at: None,
            reset_at: None,
            failures: 0,
            failure: None,
            tried_at: None,
            next_at: None,
            complete_at: None,
        }
    }
}

impl Tx<'_> {
    /// Takes note that a source's accounts are to be enumerated because events were missed. Where
    /// no backfill is under way one begins. One that is under way goes on where it is, and another
    /// follows it: what was missed may stand on pages that were read before.
    pub fn request_backfill(&self, source: &str, now: Timestamp) -> Result<(), StoreError> {
        let row = read(self.conn(), source)?;
        if row.is_none_or(|row| row.done_at.is_some() && !row.again) {
            return self.begin_backfill(source, now);
        }
        self.conn()
            .prepare_cached("UPDATE walk SET again = 1 WHERE source = ?1")?
            .execute([source])?;
        Ok(())
    }

    /// Begins a backfill at its first page.
    pub fn begin_backfill(&self, source: &str, now: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO walk (source, position, seen, started_at, done_at)
                 VALUES (?1, NULL, 0, ?2, NULL)
                 ON CONFLICT (source) DO UPDATE SET position = NULL, seen = 0, pages = 0,
                   unknown = NULL,
                   started_at = max(?2, started_at + 1), done_at = NULL, again = 0,
                   restarted_at = iif(again, ?2, restarted_at),
                   failures = 0, failure = NULL, tried_at = NULL, next_at = NULL",
            )?
            .execute(params![source, now.millis()])?;
        Ok(())
    }

    /// Writes the progress of a backfill, except whether another one follows it; nothing where it
    /// was begun anew since.
    pub fn advance_backfill(&self, backfill: &BackfillRow) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE walk SET position = ?2, seen = ?3, pages = ?5, done_at = ?6,
                   reset_at = ?7, failures = ?8, failure = ?9, tried_at = ?10, next_at = ?11,
                   complete_at = ?12, unknown = ?13
                 WHERE source = ?1 AND started_at = ?4",
            )?
            .execute(params![
                backfill.source,
                backfill.position,
                backfill.seen,
                backfill.started_at.millis(),
                backfill.pages,
                backfill.done_at.map(Timestamp::millis),
                backfill.reset_at.map(Timestamp::millis),
                backfill.failures,
                backfill.failure,
                backfill.tried_at.map(Timestamp::millis),
                backfill.next_at.map(Timestamp::millis),
                backfill.complete_at.map(Timestamp::millis),
                backfill.unknown,
            ])?;
        match (backfill.done_at, backfill.unknown) {
            (Some(done_at), Some(unknown)) => {
                self.note_listing(&backfill.source, backfill.seen, unknown, done_at)
            }
            _ => Ok(()),
        }
    }
}

impl Queries<'_> {
    /// Returns the state of a source's backfill.
    pub fn backfill(&self, source: &str) -> Result<Option<BackfillRow>, StoreError> {
        read(self.0, source)
    }
}

fn read(conn: &Connection, source: &str) -> Result<Option<BackfillRow>, StoreError> {
    let mut query = conn.prepare_cached("SELECT * FROM walk WHERE source = ?1")?;
    Ok(query.query_row([source], read_row).optional()?)
}

fn read_row(row: &Row<'_>) -> Result<BackfillRow, rusqlite::Error> {
    Ok(BackfillRow {
        source: row.get("source")?,
        position: row.get("position")?,
        seen: row.get("seen")?,
        unknown: row.get("unknown")?,
        pages: row.get("pages")?,
        started_at: time(row, "started_at")?,
        done_at: maybe_time(row, "done_at")?,
        again: row.get("again")?,
        restarted_at: maybe_time(row, "restarted_at")?,
        reset_at: maybe_time(row, "reset_at")?,
        failures: row.get("failures")?,
        failure: row.get("failure")?,
        tried_at: maybe_time(row, "tried_at")?,
        next_at: maybe_time(row, "next_at")?,
        complete_at: maybe_time(row, "complete_at")?,
    })
}
