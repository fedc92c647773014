//! Rows that are deleted for their age, and the room that they leave.

use rusqlite::params;

use super::super::columns::{collect, to_i64};
use super::super::error::StoreError;
use super::super::pages;
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;

/// Reads the log in its own order.
const CHANGES: &str = "SELECT seq, seen_at, did FROM change WHERE seq > ?1 ORDER BY seq LIMIT ?2";

/// The newest change of an account with an entry stays, and so does the newest of all, which tells
/// followers that the log is the one that they know.
const DELETE_CHANGE: &str = "DELETE FROM change WHERE seq = ?1
 AND seq < (SELECT max(seq) FROM change)
 AND (EXISTS (SELECT 1 FROM change AS newer WHERE newer.did = change.did AND newer.seq > ?1)
   OR NOT EXISTS (SELECT 1 FROM entry WHERE entry.did = change.did))";

/// Reads in the order in which the rows were written.
const EVIDENCE: &str = "SELECT id, seen_at FROM evidence ORDER BY id LIMIT ?1";

impl Queries<'_> {
    /// Returns the bytes of the file, and how many of them are in free pages.
    pub fn file_bytes(&self) -> Result<(u64, u64), StoreError> {
        pages::file_bytes(self.0)
    }
}

impl Tx<'_> {
    /// Gives free pages back to the file system, at most `pages`, while more than `spare` are free.
    /// Returns how many were given back.
    pub fn shrink(&self, spare: u64, pages: u64) -> Result<u64, StoreError> {
        pages::shrink(self.conn(), spare, pages)
    }

    /// Looks at the changes after a position, at most `limit`, and deletes those before a time.
    /// Returns the position to go on from, or `None` at the end of what is old enough.
    pub fn age_changes(
        &self,
        position: i64,
        before: Timestamp,
        limit: usize,
    ) -> Result<Option<i64>, StoreError> {
        let rows: Vec<(i64, i64, String)> = {
            let mut query = self.conn().prepare_cached(CHANGES)?;
            collect(query.query_map(params![position, to_i64(limit)], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?)?
        };
        let mut newer = self
            .conn()
            .prepare_cached("SELECT 1 FROM change WHERE did = ?1 LIMIT 1")?;
        let mut delete = self.conn().prepare_cached(DELETE_CHANGE)?;
        let mut next = None;
        for (seq, seen_at, did) in rows {
            // The log is in the order of time, but for steps of the clock.
            if seen_at >= before.millis() {
                return Ok(None);
            }
            // Of an account that has ended nothing tells a reader so that has not read this.
            if delete.execute([seq])? > 0 && !newer.exists([did])? {
                self.raise_floor(seq)?;
            }
            next = Some(seq);
        }
        Ok(next)
    }

    /// Deletes the oldest proofs of regressions that are from before a time, at most `limit`.
    pub fn age_evidence(&self, before: Timestamp, limit: usize) -> Result<(), StoreError> {
        let rows: Vec<(i64, i64)> = {
            let mut query = self.conn().prepare_cached(EVIDENCE)?;
            collect(query.query_map([to_i64(limit)], |row| Ok((row.get(0)?, row.get(1)?)))?)?
        };
        let mut delete = self
            .conn()
            .prepare_cached("DELETE FROM evidence WHERE id = ?1")?;
        for (id, seen_at) in rows {
            if seen_at < before.millis() {
                delete.execute([id])?;
            }
        }
        Ok(())
    }
}
