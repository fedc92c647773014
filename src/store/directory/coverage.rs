//! What the streams of the sources are proven to have missed nothing of, and the gaps in that.
//!
//! A gap is a row until every entry that it concerns is marked, a bounded number in one
//! transaction. Until then, entries that are not marked yet are in doubt by the row itself, so no
//! answer is given as good after the gap is written.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension as _, named_params, params};

use super::super::columns::{collect, maybe_time, time, to_i64};
use super::super::error::StoreError;
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, Origin};

/// The interval in which the stream of a source is proven to have missed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// The source's name.
    pub source: String,
    /// The beginning of the interval.
    pub since: Timestamp,
    /// The last moment that is proven.
    pub until: Timestamp,
}

/// Events that a source has missed, or may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The source's name.
    pub source: String,
    /// Stable code of the reason.
    pub reason: &'static str,
    /// The last moment before the gap that is proven.
    pub since: Timestamp,
    /// The PDS whose accounts the events are of; `None`: of any account.
    pub pds: Option<Origin>,
    /// PDSes whose accounts other sources cover.
    pub covered: BTreeSet<Origin>,
}

/// The progress of marking the entries that a gap concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The source that has the gap.
    pub source: String,
    /// Code of the gap's reason.
    pub reason: String,
    /// The entries are known good until then.
    pub since: Timestamp,
    /// Entries marked so far.
    pub entries: u64,
    /// Whether these are all.
    pub done: bool,
}

/// A row of the table `gap`.
struct OpenGap {
    id: i64,
    source: String,
    reason: String,
    since: Timestamp,
    opened_at: Timestamp,
    pds: Option<String>,
    covered: String,
    position: i64,
    last: i64,
    marked: i64,
}

impl Queries<'_> {
    /// Returns the interval in which a source is proven to have missed nothing.
    pub fn coverage(&self, source: &str) -> Result<Option<Coverage>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT source, since, until FROM coverage WHERE source = ?1")?;
        let row = query.query_row([source], |row| {
            Ok(Coverage {
                source: row.get(0)?,
                since: time(row, "since")?,
                until: time(row, "until")?,
            })
        });
        Ok(row.optional()?)
    }

    /// Returns the time until which an entry is known good because of a gap whose marking has not
    /// come to the entry yet.
    pub fn unmarked_doubt(&self, did: &Did) -> Result<Option<Timestamp>, StoreError> {
        // The join is in this order, so that it ends at once where there is no gap.
        let mut query = self.0.prepare_cached(
            "SELECT min(gap.since) AS since FROM gap CROSS JOIN entry
             WHERE entry.did = ?1 AND entry.rowid > gap.position AND entry.rowid <= gap.last
               AND (gap.pds IS NULL OR gap.pds = entry.pds)
               AND NOT EXISTS (SELECT 1 FROM json_each(gap.covered) AS c
                 WHERE c.value = entry.pds)",
        )?;
        Ok(query.query_row([did.as_str()], |row| maybe_time(row, "since"))?)
    }

    /// Returns the number of entries in doubt.
    pub fn doubtful_count(&self) -> Result<u64, StoreError> {
        let count: i64 = self.0.query_row(
            "SELECT count(*) FROM entry WHERE doubt_since IS NOT NULL",
            [],
            |row| row.get(0),
        )?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    fn open_gap(&self) -> Result<Option<OpenGap>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM gap ORDER BY id LIMIT 1")?;
        let row = query.query_row([], |row| {
            Ok(OpenGap {
                id: row.get("id")?,
                source: row.get("source")?,
                reason: row.get("reason")?,
                since: time(row, "since")?,
                opened_at: time(row, "opened_at")?,
                pds: row.get("pds")?,
                covered: row.get("covered")?,
                position: row.get("position")?,
                last: row.get("last")?,
                marked: row.get("marked")?,
            })
        });
        Ok(row.optional()?)
    }

    /// Returns the rows of the next entries that a gap concerns, at most `limit`, and the row up to
    /// which there are no others.
    fn concerned(&self, gap: &OpenGap, limit: usize) -> Result<(Vec<i64>, i64), StoreError> {
        let covered: BTreeSet<String> = serde_json::from_str(&gap.covered).unwrap_or_default();
        let found: Vec<(i64, Option<String>)> = match &gap.pds {
            Some(pds) => {
                let mut query = self.0.prepare_cached(
                    "SELECT rowid, pds FROM entry INDEXED BY entry_pds
                     WHERE pds = ?1 AND rowid > ?2 AND rowid <= ?3 ORDER BY rowid LIMIT ?4",
                )?;
                let range = params![pds, gap.position, gap.last, to_i64(limit)];
                collect(query.query_map(range, |row| Ok((row.get(0)?, row.get(1)?)))?)?
            }
            None => {
                let mut query = self.0.prepare_cached(
                    "SELECT rowid, pds FROM entry
                     WHERE rowid > ?1 AND rowid <= ?2 ORDER BY rowid LIMIT ?3",
                )?;
                let range = params![gap.position, gap.last, to_i64(limit)];
                collect(query.query_map(range, |row| Ok((row.get(0)?, row.get(1)?)))?)?
            }
        };
        let reached = match found.last() {
            Some((row, _)) if found.len() == limit => *row,
            _ => gap.last,
        };
        let rows = found
            .into_iter()
            .filter(|(_, pds)| pds.as_ref().is_none_or(|pds| !covered.contains(pds)))
            .map(|(row, _)| row);
        Ok((rows.collect(), reached))
    }
}

impl Tx<'_> {
    /// Writes the interval in which a source is proven to have missed nothing.
    pub fn set_coverage(&self, coverage: &Coverage) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO coverage (source, since, until) VALUES (?1, ?2, ?3)
                 ON CONFLICT (source) DO UPDATE SET since = ?2, until = ?3",
            )?
            .execute(params![
                coverage.source,
                coverage.since.millis(),
                coverage.until.millis()
            ])?;
        Ok(())
    }

    /// Opens a gap, whose entries are to be marked by [`Tx::mark_gap`]. An earlier gap of the source
    /// that is still open becomes a part of it, so there is at most one row for each source.
    pub fn open_gap_row(&self, gap: &Gap, now: Timestamp) -> Result<(), StoreError> {
        let covered: Vec<&str> = gap.covered.iter().map(Origin::as_str).collect();
        let covered = serde_json::json!(covered).to_string();
        self.conn()
            .prepare_cached(
                "INSERT INTO gap (source, reason, since, opened_at, pds, covered, position, last,
                   marked)
                 VALUES (:source, :reason, :since, :now, :pds, :covered, 0,
                   (SELECT coalesce(max(rowid), 0) FROM entry), 0)
                 ON CONFLICT (source) DO UPDATE SET reason = excluded.reason,
                   since = min(since, excluded.since), opened_at = excluded.opened_at,
                   -- What only one of the two leaves to others is not left to them.
                   covered = iif(covered = excluded.covered, covered, '[]'),
                   position = 0, last = excluded.last, marked = 0",
            )?
            .execute(named_params! {
                ":source": gap.source,
                ":reason": gap.reason,
                ":since": gap.since.millis(),
                ":now": now.millis(),
                ":pds": gap.pds.as_ref().map(Origin::as_str),
                ":covered": covered,
            })?;
        self.note_gap(&gap.source, gap.since, now)
    }

    /// Lets the marking of all open gaps begin anew. To be called at the start: a file that was
    /// vacuumed meanwhile has other row numbers.
    pub fn restart_gaps(&self) -> Result<(), StoreError> {
        self.conn().execute(
            "UPDATE gap SET position = 0, marked = 0,
               last = (SELECT coalesce(max(rowid), 0) FROM entry)",
            [],
        )?;
        Ok(())
    }

    /// Marks the next entries that the oldest open gap concerns, at most `limit`: they are known
    /// good until the gap, and due, each at the time that `due` returns for its number. Returns
    /// `None` where no gap is open. Durable when the transaction is; a repetition of what a crash
    /// undid marks the same entries.
    pub fn mark_gap(
        &self,
        limit: usize,
        due: impl Fn(u64, Timestamp) -> Timestamp,
    ) -> Result<Option<Marked>, StoreError> {
        let Some(gap) = self.open_gap()? else {
            return Ok(None);
        };
        let (rows, reached) = self.concerned(&gap, limit)?;
        // An entry that is in doubt already gets another time, so that a refresh that began before
        // this gap was known does not end the doubt.
        let mut mark = self.conn().prepare_cached(
            "UPDATE entry SET
               doubt_since = iif(doubt_since IS NULL, :since, min(doubt_since - 1, :since)),
               next_check_at = min(next_check_at, :due),
               handle_next_at = min(handle_next_at, :due)
             WHERE rowid = :row",
        )?;
        let mut marked = u64::try_from(gap.marked).unwrap_or(0);
        for row in rows {
            let due = due(marked, gap.opened_at).millis();
            mark.execute(named_params! {
                ":since": gap.since.millis(),
                ":due": due,
                ":row": row,
            })?;
            marked += 1;
        }
        let done = reached >= gap.last;
        if done {
            self.conn()
                .prepare_cached("DELETE FROM gap WHERE id = ?1")?
                .execute([gap.id])?;
        } else {
            self.conn()
                .prepare_cached("UPDATE gap SET position = ?2, marked = ?3 WHERE id = ?1")?
                .execute(params![
                    gap.id,
                    reached,
                    i64::try_from(marked).unwrap_or(i64::MAX)
                ])?;
        }
        Ok(Some(Marked {
            source: gap.source,
            reason: gap.reason,
            since: gap.since,
            entries: marked,
            done,
        }))
    }
}
