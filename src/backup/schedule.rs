//! Backups at intervals.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::error::BackupError;
use super::make::{Made, Plan, make};
use super::seal::Recipients;
use super::sets;
use atcomm_proto::clock::Clock;

/// Longest wait before the time is looked at again: a clock may be set.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Wait after a backup that failed, at most the interval itself.
const RETRY_INTERVAL: Duration = Duration::from_secs(600);

/// Backups at intervals, as `serve` and `atcomm server backup --every` make them.
#[derive(Clone)]
pub struct Schedule {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The folder of the sets.
    pub dir: PathBuf,
    /// To whom they are encrypted.
    pub recipients: Recipients,
    /// The interval.
    pub every: Duration,
    /// Sets that are kept.
    pub keep: Option<u32>,
    /// The time.
    pub clock: Clock,
}

impl Schedule {
    /// Makes one backup now.
    pub fn make(&self, go_on: &mut dyn FnMut() -> bool) -> Result<Made, BackupError> {
        let plan = Plan {
            data_dir: &self.data_dir,
            dir: &self.dir,
            recipients: &self.recipients,
            keep: self.keep,
            clock: &self.clock,
        };
        make(&plan, go_on)
    }

    /// Makes a backup whenever the newest one in the folder is older than the interval, until `stop`.
    /// A restart makes none that is not due. What fails is logged and tried again.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let wait = match self.due_in().await {
                Ok(Some(wait)) => wait,
                Ok(None) => self.attempt(&stop).await,
                Err(error) => self.failed(&error),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait.min(LOOK_INTERVAL.max(RETRY_INTERVAL))) => {}
            }
        }
    }

    /// Returns the wait before the next look, or `None` where a backup is due.
    pub(super) async fn due_in(&self) -> Result<Option<Duration>, BackupError> {
        let dir = self.dir.clone();
        let newest = off_runtime(move || sets::newest(&dir)).await?;
        let Some(newest) = newest else {
            return Ok(None);
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        let began = newest.began_at.millis() as f64 / 1000.0;
        metrics::gauge!("atcomm_backup_timestamp_seconds").set(began);
        let now = self.clock.now();
        // A set of the future is of a clock that was wrong, and says nothing.
        if newest.began_at > now.plus(LOOK_INTERVAL) {
            return Ok(None);
        }
        let age = now.since(newest.began_at);
        let left = self.every.saturating_sub(age);
        Ok((!left.is_zero()).then(|| left.min(LOOK_INTERVAL)))
    }

    /// Makes a backup. Returns the wait before the next look.
    async fn attempt(&self, stop: &CancellationToken) -> Duration {
        let (schedule, stopping) = (self.clone(), stop.clone());
        let begun = Instant::now();
        let made = off_runtime(move || schedule.make(&mut || !stopping.is_cancelled())).await;
        match made {
            Ok(made) => {
                let seconds = begun.elapsed().as_secs_f64();
                metrics::gauge!("atcomm_backup_seconds").set(seconds);
                #[expect(clippy::cast_precision_loss, reason = "a size for people")]
                metrics::gauge!("atcomm_backup_bytes").set(made.bytes as f64);
                tracing::info!(
                    path = %made.path.display(),
                    bytes = made.bytes,
                    seconds,
                    deleted = made.deleted,
                    "a backup was made"
                );
                Duration::ZERO
            }
            Err(BackupError::Stopped) => Duration::ZERO,
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &BackupError) -> Duration {
        metrics::counter!("atcomm_backup_failures_total").increment(1);
        tracing::error!(%error, dir = %self.dir.display(), "no backup could be made");
        RETRY_INTERVAL.min(self.every)
    }

    /// Returns the folder of the sets.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Runs work that blocks.
async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    // The panic hook has logged the place of a panic; at the end of the runtime nothing is waited for.
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(BackupError::Stopped))
}
