//! Recent requests, so that a repeated envelope is told from a new one.

use rusqlite::params;

use super::super::columns::{collect, signed, to_i64};
use super::super::error::StoreError;
use super::rows::ReplayKind;
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;

/// Rows that one call of [`Tx::prune_replays`] reads, so that it does not hold up the writes behind
/// it.
const PRUNE_BATCH: i64 = 10_000;

fn table(kind: ReplayKind) -> &'static str {
    match kind {
        ReplayKind::Write => "replay_change",
        ReplayKind::Read => "replay_question",
    }
}

impl Queries<'_> {
    /// Returns the recent requests of a kind, the newest first, at most `limit`.
    pub fn replays(&self, kind: ReplayKind, limit: usize) -> Result<Vec<[u8; 16]>, StoreError> {
        let table = table(kind);
        let mut query = self.0.prepare_cached(&format!(
            "SELECT hash FROM {table} ORDER BY id DESC LIMIT ?1"
        ))?;
        collect(query.query_map([to_i64(limit)], |row| row.get(0))?)
    }
}

impl Tx<'_> {
    /// Records a request by the first 16 bytes of its hash. Returns whether it is new. A known
    /// request keeps its time.
    pub fn record_replay(
        &self,
        kind: ReplayKind,
        hash: [u8; 16],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let table = table(kind);
        let noted = self
            .conn()
            .prepare_cached(&format!(
                "INSERT INTO {table} (hash, seen_at) VALUES (?1, ?2) ON CONFLICT (hash) DO NOTHING"
            ))?
            .execute(params![hash, now.millis()])?;
        Ok(noted > 0)
    }

    /// Deletes requests of a kind seen before a time, and all but the newest `keep`; of very many
    /// only the oldest. Returns how many.
    pub fn prune_replays(
        &self,
        kind: ReplayKind,
        before: Timestamp,
        keep: u64,
    ) -> Result<u64, StoreError> {
        let table = table(kind);
        // Rows leave only from the old end, so ids count them.
        let pruned = self
            .conn()
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE id <= (
                   SELECT max(id) FROM (SELECT id, seen_at FROM {table} ORDER BY id LIMIT ?3)
                   WHERE seen_at < ?1 OR id <= (SELECT max(id) FROM {table}) - ?2)"
            ))?
            .execute(params![before.millis(), signed(keep), PRUNE_BATCH])?;
        Ok(pruned as u64)
    }
}
