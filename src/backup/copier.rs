//! The continuous copy: a set, its base, and segments of what changed since, at least every second.
//!
//! The copier follows the mailbox's file ([`MailboxStore::changes`]). It first begins to follow, then
//! copies the base, so that nothing lies between them: a segment may repeat what is in the base, which
//! changes nothing. While a new base is made, segments go to the old chain and to the new one. When the
//! service starts, when the folder cannot keep up, and at intervals, a chain begins anew with a base.
//! Segments lie beside their base:
//!
//! ```text
//! atcomm-20261201T133000.000Z/            mailbox.db.age, mediator-keys.json.age, manifest.json
//! atcomm-20261201T133000.000Z.segments/   0000000001.age, 0000000002.age, ...
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::error::BackupError;
use super::make::{self, BASE_PARTS, MAX_KEYS, Plan};
use super::seal::Recipients;
use super::segment::{self, Link, Segment};
use super::sets;
use crate::mediator::KEYS_FILE;
use crate::store::{Changes, MailboxStore};
use atcomm_net::durable::{self, Mode};
use atcomm_proto::clock::{Clock, Timestamp};

/// Interval of segments. With the time that one takes to be written, at most a second is lost.
const INTERVAL: Duration = Duration::from_millis(500);

/// Wait before a base is tried again that could not be made.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Time after which a failure that lasts is logged again.
const REPORT_INTERVAL: Duration = Duration::from_secs(300);

/// A continuous copy of a mailbox in a folder.
pub struct Copier {
    /// The mailbox.
    pub store: Arc<MailboxStore>,
    /// The data directory in which it lies.
    pub data_dir: PathBuf,
    /// The folder.
    pub dir: PathBuf,
    /// To whom it is encrypted; at least one.
    pub recipients: Recipients,
    /// Interval at which a chain begins anew.
    pub base_every: Duration,
    /// Bases that are kept, each with its segments.
    pub keep: u32,
    /// The time.
    pub clock: Clock,
}

/// A base with its segments.
struct Chain {
    name: String,
    sequence: u64,
    link: Link,
    keys: Link,
}

/// A segment that is sealed, and the file that it is to be.
struct Sealed {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// What the copier is about.
#[derive(Default)]
struct State {
    chains: Vec<Chain>,
    unsent: Vec<Sealed>,
    base: Option<JoinHandle<Result<(), BackupError>>>,
    next_base: Option<Instant>,
    reported: Option<Instant>,
}

impl Copier {
    /// Copies until `stop`, and once more then: the mailbox was closed before. What
    /// fails is logged and tried again; the mailbox never waits.
    pub async fn run(self, stop: CancellationToken) {
        let mut state = State::default();
        loop {
            let is_last = stop.is_cancelled();
            match self.step(&mut state, &stop).await {
                Ok(()) => state.reported = None,
                Err(error) => self.report(&mut state, &error),
            }
            if is_last {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    fn report(&self, state: &mut State, error: &BackupError) {
        metrics::counter!("atcomm_copy_failures_total").increment(1);
        if state
            .reported
            .is_none_or(|at| at.elapsed() > REPORT_INTERVAL)
        {
            state.reported = Some(Instant::now());
            tracing::warn!(%error, dir = %self.dir.display(), "the continuous copy lags");
        }
    }

    async fn step(&self, state: &mut State, stop: &CancellationToken) -> Result<(), BackupError> {
        if state.base.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(base) = state.base.take()
        {
            self.base_ended(state, base.await)?;
        }
        let is_due = state.next_base.is_none_or(|at| Instant::now() >= at);
        if state.base.is_none() && is_due && !stop.is_cancelled() {
            self.begin_chain(state, stop).await?;
        }
        self.send(state).await?;
        let now = self.clock.now();
        match self.store.changes().await {
            Ok(changes) => self.seal(state, changes).await?,
            Err(_lost) if state.chains.is_empty() => {}
            Err(lost) => {
                tracing::warn!("{lost}: the continuous copy begins anew");
                (state.chains, state.unsent) = (Vec::new(), Vec::new());
                state.next_base = None;
            }
        }
        self.send(state).await?;
        if !state.chains.is_empty() && state.base.is_none() {
            metrics::gauge!("atcomm_copy_timestamp_seconds").set(seconds(now));
        }
        Ok(())
    }

    /// Begins a chain: follows the mailbox, then makes the base beside.
    async fn begin_chain(
        &self,
        state: &mut State,
        stop: &CancellationToken,
    ) -> Result<(), BackupError> {
        state.next_base = Some(Instant::now() + RETRY_INTERVAL);
        if state.chains.is_empty() {
            let path = self.data_dir.join(crate::store::MAILBOX_FILE);
            let followed = self.store.follow().await;
            followed.map_err(|error| BackupError::copy(&path, error.into()))?;
        }
        let began_at = self.clock.now();
        let name = sets::name(began_at);
        state.chains.push(Chain {
            link: segment::link(name.as_bytes()),
            name,
            sequence: 0,
            keys: Link::default(),
        });
        let (data_dir, dir) = (self.data_dir.clone(), self.dir.clone());
        let (recipients, clock) = (self.recipients.clone(), self.clock.clone());
        let (keep, stop) = (self.keep, stop.clone());
        state.base = Some(tokio::task::spawn_blocking(move || {
            let plan = Plan {
                data_dir: &data_dir,
                dir: &dir,
                recipients: &recipients,
                keep: Some(keep),
                clock: &clock,
            };
            make::make_at(&plan, &BASE_PARTS, began_at, &mut || !stop.is_cancelled()).map(drop)
        }));
        Ok(())
    }

    /// Ends the older chains once a base is whole, or the new chain where it failed.
    fn base_ended(
        &self,
        state: &mut State,
        ended: Result<Result<(), BackupError>, tokio::task::JoinError>,
    ) -> Result<(), BackupError> {
        let newest = state.chains.pop();
        // The panic hook has logged the place of a panic.
        ended.unwrap_or(Err(BackupError::Stopped))?;
        // Lost meanwhile: what came then is not in the segments.
        let Some(newest) = newest else {
            return Ok(());
        };
        tracing::info!(name = newest.name, "the continuous copy has a new base");
        state.chains = vec![newest];
        state.next_base = Some(Instant::now() + self.base_every);
        Ok(())
    }

    /// Makes a segment of changes for each chain.
    async fn seal(&self, state: &mut State, changes: Option<Changes>) -> Result<(), BackupError> {
        let path = self.data_dir.join(KEYS_FILE);
        let keys = off_runtime(move || {
            let read = durable::read_private(&path, MAX_KEYS);
            read.map_err(|error| BackupError::file(&path)(std::io::Error::other(error)))
        })
        .await?;
        let hash: Link = keys
            .as_ref()
            .map_or_else(Link::default, |keys| Sha256::digest(keys).into());
        let mut made = Vec::new();
        for chain in &mut state.chains {
            let new_keys = keys.clone().filter(|_| chain.keys != hash);
            if changes.is_none() && new_keys.is_none() {
                continue;
            }
            let segment = Segment {
                sequence: chain.sequence + 1,
                previous: chain.link,
                at: self.clock.now(),
                changes: changes.clone().unwrap_or_default(),
                keys: new_keys,
            };
            let plain = segment.to_vec();
            (chain.sequence, chain.link, chain.keys) =
                (segment.sequence, segment::link(&plain), hash);
            made.push((
                segment_path(&self.dir, &chain.name, segment.sequence),
                plain,
            ));
        }
        let recipients = self.recipients.clone();
        let sealed = off_runtime(move || seal_all(&recipients, made)).await?;
        state.unsent.extend(sealed);
        Ok(())
    }

    /// Writes what is sealed, in order.
    async fn send(&self, state: &mut State) -> Result<(), BackupError> {
        if state.unsent.is_empty() {
            return Ok(());
        }
        let mut unsent = std::mem::take(&mut state.unsent);
        let (left, result) = off_runtime(move || {
            let mut result = Ok(());
            while let Some(first) = unsent.first() {
                if let Err(error) = write(first) {
                    result = Err(error);
                    break;
                }
                metrics::counter!("atcomm_copy_segments_total").increment(1);
                unsent.remove(0);
            }
            Ok((unsent, result))
        })
        .await?;
        state.unsent = left;
        result
    }
}

fn seal_all(
    recipients: &Recipients,
    made: Vec<(PathBuf, Zeroizing<Vec<u8>>)>,
) -> Result<Vec<Sealed>, BackupError> {
    let seal = |(path, plain): (PathBuf, Zeroizing<Vec<u8>>)| {
        let mut bytes = Vec::with_capacity(plain.len() + 4096);
        recipients
            .write(&mut &plain[..], &mut bytes, &mut || true)
            .map_err(BackupError::file(&path))?;
        Ok(Sealed { path, bytes })
    };
    made.into_iter().map(seal).collect()
}

fn write(sealed: &Sealed) -> Result<(), BackupError> {
    let folder = sealed.path.parent().unwrap_or(Path::new("."));
    durable::create_dir_all(folder).map_err(|failed| BackupError::File {
        path: failed.path,
        error: failed.error,
    })?;
    // An attempt that failed after the file had its name is made again.
    durable::replace(&sealed.path, &sealed.bytes, Mode::Private)
        .map_err(BackupError::file(&sealed.path))
}

fn segment_path(dir: &Path, chain: &str, sequence: u64) -> PathBuf {
    sets::segments_of(&dir.join(chain)).join(segment::file_name(sequence))
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
fn seconds(at: Timestamp) -> f64 {
    at.millis() as f64 / 1000.0
}

/// Runs work that blocks.
async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    // The panic hook has logged the place of a panic.
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or(Err(BackupError::Stopped))
}
