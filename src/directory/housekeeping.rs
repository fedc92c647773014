//! What ages out of the directory's file, and what the file gives back.
//!
//! The work is done in small transactions with pauses between them, so that it never holds up other
//! writes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Directory;
use crate::store::StoreError;

/// Interval between two rounds.
const INTERVAL: Duration = Duration::from_secs(10);

/// Rows looked at in one transaction, of which only those that are too old are deleted.
const BATCH: usize = 500;

/// Handles taken away in one transaction, each of which writes two rows.
const EXPIRED_BATCH: usize = 100;

/// Transactions in one round: a million rows are looked at within a few hours.
const BATCHES: usize = 4;

/// Age at which proofs of regressions are deleted.
const EVIDENCE_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Free pages that stay in the file: 64 MiB, which are soon used again.
const SPARE_PAGES: u64 = if cfg!(test) { 64 } else { 16_384 };

/// Pages given back to the file system in one round.
const RECLAIM_PAGES: u64 = 2048;

/// The periodic work on one directory.
pub struct Housekeeping {
    directory: Arc<Directory>,
    /// Position in the change log that the look for old changes has come to.
    position: i64,
}

impl Housekeeping {
    /// Takes a handle of the directory.
    pub fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            position: 0,
        }
    }

    /// Works until `stop`. A round that fails is repeated.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut rounds = interval(INTERVAL);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = rounds.tick() => {}
            }
            if let Err(error) = self.round().await {
                tracing::error!(%error, "the directory cannot keep its file in order");
            }
        }
    }

    /// Works for one round.
    pub(super) async fn round(&mut self) -> Result<(), StoreError> {
        self.directory.keep_days().await?;
        let now = self.directory.clock.now();
        let store = &self.directory.store;
        let before = now.minus(self.directory.quota.limits.history);
        for _ in 0..BATCHES {
            let position = self.position;
            let next = store.transact(move |tx| tx.age_changes(position, before, BATCH));
            let Some(next) = next.await? else {
                self.position = 0;
                break;
            };
            self.position = next;
        }
        for _ in 0..BATCHES {
            if self.directory.expire_handles(EXPIRED_BATCH).await? < EXPIRED_BATCH {
                break;
            }
        }
        let before = now.minus(EVIDENCE_AGE);
        store
            .transact(move |tx| {
                tx.age_evidence(before, BATCH)?;
                tx.age_happenings(now)?;
                tx.shrink(SPARE_PAGES, RECLAIM_PAGES).map(drop)
            })
            .await?;
        self.measure().await
    }

    /// Publishes what the directory takes of its file. The gauges name no domain: the log does.
    async fn measure(&self) -> Result<(), StoreError> {
        let read = self.directory.store.query(|q| {
            let all = q.share_of_all()?;
            let largest = q.largest_shares(1)?.pop().unwrap_or_default().1;
            Ok((all, largest, q.file_bytes()?))
        });
        let (all, largest, (file, _)) = read.await?;
        for (name, value) in [
            ("atcomm_directory_asked_entries", all.asked),
            ("atcomm_directory_bytes", all.bytes),
            ("atcomm_directory_file_bytes", file),
            ("atcomm_directory_largest_share_bytes", largest.bytes),
            ("atcomm_directory_largest_share_entries", largest.entries),
        ] {
            metrics::gauge!(name).set(value as f64);
        }
        Ok(())
    }
}
