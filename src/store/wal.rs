//! The write-ahead log beside a file: a thread of its own moves it into the file and keeps it from
//! growing.
//!
//! The engine appends every commit to the log. A checkpoint moves pages from the log into the file,
//! up to the oldest state that a reader uses, and a commit starts the log anew only when all of it
//! has been moved and no reader uses it. A writer without a pause and readers that overlap without
//! end would let the log grow for ever. So this thread first moves what it can beside readers and
//! writer, and then holds both for the moment in which it moves the small rest.
//!
//! Readers of other programs pass no barrier. No checkpoint waits for them: while one keeps an old
//! state in use the log grows, which is measured and reported, and everything else goes on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::barrier::Barrier;
use super::error::StoreError;
use super::stamp;

/// Bytes of a page in the log, with its header.
const FRAME: u64 = 4096 + 24;

/// Pages in the log (32 MiB) from which on they are moved into the file. Pages that are written
/// over and over, such as those of an index by hash, are moved once.
const CHECKPOINT_PAGES: u32 = if cfg!(test) { 128 } else { 8000 };

/// Rest of the log, in pages, that is moved while the writer is held (4 MiB).
const MAX_HELD_PAGES: u32 = 1000;

/// Length of the log, in bytes, from which on the writer is held however large the rest is: it is
/// faster than the disk then. With the store's own readers alone the log does not grow beyond
/// twice this length.
pub(super) const LIMIT: u64 = if cfg!(test) { 1 << 20 } else { 64 << 20 };

/// Length of the log, in bytes, from which on the writer waits for its thread, so that one more
/// commit ends below twice [`LIMIT`].
const LONG: u64 = LIMIT / 4 * 7;

/// Length of the log, in bytes, from which on it is reported: only another program makes it that
/// long.
const REPORTED: u64 = 8 * LIMIT;

/// Timeout of waiting for the store's own readers to leave. New ones wait meanwhile.
const READERS_TIMEOUT: Duration = Duration::from_millis(20);

/// The same where readers that are longer have let the log grow to [`LONG`].
const LONG_READERS_TIMEOUT: Duration = Duration::from_millis(200);

/// Longest wait of the writer for the thread of the log.
const MAX_BEHIND: Duration = Duration::from_secs(1);

/// Wait after a first attempt to start the log anew that failed; doubled with each further one.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Greatest wait between two attempts.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The log of a file, between the writer and the thread that moves it.
pub(super) struct Wal {
    path: PathBuf,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// Pages in the log after the last commit.
    pages: u32,
    /// Whether the last attempt to start the log anew failed for a reason that can last.
    blocked: bool,
    closed: bool,
}

/// The state of the log after a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Whether a lock of another connection was in the way.
    busy: bool,
    /// Pages in the log.
    pages: u32,
    /// Pages of those that are in the file, too.
    moved: u32,
}

/// The outcome of an attempt to start the log anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// The next commit starts it anew.
    Done,
    /// Readers of the store did not leave within [`READERS_TIMEOUT`].
    Reader,
    /// Readers of the store did not leave within [`LONG_READERS_TIMEOUT`].
    LongReader,
    /// A connection that does not pass the barrier uses it.
    OtherProgram,
    /// The engine or the disk refused.
    Failed,
}

/// What is known of another program that uses the log.
struct Blocked {
    since: Instant,
    /// Pages that could be moved.
    moved: u32,
    reported: bool,
}

impl Blocked {
    fn begin() -> Self {
        Self {
            since: Instant::now(),
            moved: 0,
            reported: false,
        }
    }
}

impl Checkpoint {
    /// Returns the bytes that the log's pages take.
    fn bytes(self) -> u64 {
        u64::from(self.pages) * FRAME
    }

    /// Returns the pages that are not moved.
    fn rest(self) -> u32 {
        self.pages.saturating_sub(self.moved)
    }
}

impl Wal {
    /// Returns the log of a file.
    pub(super) fn beside(file: &Path) -> Self {
        let mut path = file.to_owned().into_os_string();
        path.push("-wal");
        Self {
            path: path.into(),
            progress: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Refuses a log that belongs to another file than the one beside it. No connection to the file
    /// may be open in this process: its locks end here.
    pub(super) fn check_own(&self, file: &Path) -> Result<(), StoreError> {
        match stamp::is_own_log(file, &self.path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::ForeignLog(self.path.clone())),
            Err(error) => Err(StoreError::File(Arc::new(error))),
        }
    }

    /// Returns the bytes that the log takes on the disk.
    pub(super) fn len(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// Tells the thread of the log that the connection of the writer has committed. Waits where the
    /// thread cannot keep up, unless readers are in its way.
    pub(super) fn committed(&self, writer: &Connection) {
        let now = match checkpoint(writer, "NOOP") {
            Ok(now) if now.pages >= CHECKPOINT_PAGES => now,
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, "the length of the log is unknown"),
        };
        let mut progress = self.progress();
        progress.pages = now.pages;
        self.changed.notify_all();
        if now.bytes() >= LONG {
            let behind = |progress: &mut Progress| {
                !progress.closed && !progress.blocked && progress.pages > 0
            };
            drop(
                self.changed
                    .wait_timeout_while(progress, MAX_BEHIND, behind),
            );
        }
    }

    /// Ends the thread of the log.
    pub(super) fn close(&self) {
        self.progress().closed = true;
        self.changed.notify_all();
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the log is long. Returns `false` when it is closed.
    fn wait_long(&self) -> bool {
        let short = |progress: &mut Progress| !progress.closed && progress.pages < CHECKPOINT_PAGES;
        let waited = self.changed.wait_while(self.progress(), short);
        !waited.unwrap_or_else(PoisonError::into_inner).closed
    }

    /// Tells the writer how an attempt to start the log anew ended.
    fn attempted(&self, attempt: Attempt) {
        let mut progress = self.progress();
        progress.blocked = matches!(
            attempt,
            Attempt::LongReader | Attempt::OtherProgram | Attempt::Failed
        );
        if attempt == Attempt::Done {
            progress.pages = 0;
        }
        drop(progress);
        self.changed.notify_all();
    }

    /// Waits for `interval`. Returns `false` when the log is closed.
    fn pause(&self, interval: Duration) -> bool {
        let open = |progress: &mut Progress| !progress.closed;
        let waited = self
            .changed
            .wait_timeout_while(self.progress(), interval, open);
        let (progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !progress.closed
    }
}

/// The thread that moves a log into its file. Fields are dropped in their order: closing `file`
/// would take the locks of a connection that is still open.
pub(super) struct Checkpointer {
    conn: Connection,
    wal: Arc<Wal>,
    barrier: Arc<Barrier>,
    file: Arc<File>,
}

impl Checkpointer {
    /// Opens a connection of its own. `file` is the file itself, kept open as long as any
    /// connection is.
    pub(super) fn open(
        path: &Path,
        file: Arc<File>,
        wal: Arc<Wal>,
        barrier: Arc<Barrier>,
    ) -> Result<Self, StoreError> {
        let conn = Connection::open(path)?;
        conn.busy_timeout(Duration::ZERO)?;
        conn.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 10;",
        )?;
        Ok(Self {
            conn,
            wal,
            barrier,
            file,
        })
    }

    /// Moves the log into the file whenever it is long, until it is closed.
    pub(super) fn run(self) {
        while self.wal.wait_long() {
            if !self.shorten() {
                return;
            }
        }
    }

    /// Moves the whole log into the file and has the next commit start it anew, as soon as no
    /// reader is in the way. Returns `false` when the log is closed before.
    fn shorten(&self) -> bool {
        let mut interval = RETRY_INTERVAL;
        let mut blocked: Option<Blocked> = None;
        loop {
            let (attempt, moved) = self.attempt(blocked.as_ref()).unwrap_or_else(|error| {
                let log = self.wal.path.display();
                tracing::warn!(%error, %log, "the log cannot be moved into its file");
                (Attempt::Failed, 0)
            });
            self.wal.attempted(attempt);
            match attempt {
                Attempt::Done => break,
                Attempt::OtherProgram => {
                    let blocked = blocked.get_or_insert_with(Blocked::begin);
                    blocked.moved = moved;
                    if !blocked.reported && self.wal.len() >= REPORTED {
                        blocked.reported = true;
                        self.report(blocked.since);
                    }
                }
                Attempt::Reader => interval = RETRY_INTERVAL,
                Attempt::LongReader | Attempt::Failed => {}
            }
            if !self.wal.pause(interval) {
                return false;
            }
            interval = (interval * 2).min(MAX_RETRY_INTERVAL);
        }
        if blocked.is_some_and(|blocked| blocked.reported) {
            tracing::info!(log = %self.wal.path.display(), "the log starts anew");
        }
        true
    }

    /// Moves what can be moved and tries to start the log anew. Returns how many of its pages are
    /// in the file, too.
    fn attempt(&self, blocked: Option<&Blocked>) -> Result<(Attempt, u32), rusqlite::Error> {
        let now = self.advance()?;
        // Nothing is held for as long as the other program stays where it was.
        if blocked.is_some_and(|b| now.moved == b.moved && now.moved < now.pages) {
            return Ok((Attempt::OtherProgram, now.moved));
        }
        Ok((self.start_anew(now)?, now.moved))
    }

    /// Moves pages beside readers and writer until the rest is small, or no more can be moved, or
    /// the log is long and the writer as fast as this.
    fn advance(&self) -> Result<Checkpoint, rusqlite::Error> {
        let mut before = u32::MAX;
        loop {
            let done = checkpoint(&self.conn, "PASSIVE")?;
            // The engine syncs the file only where it has moved all. Synced here, these pages need
            // not be while the writer is held. The engine's own sync sees an error, too.
            self.file.sync_data().ok();
            let now = checkpoint(&self.conn, "NOOP")?;
            let reader_is_before = done.moved < done.pages;
            let rest = now.rest();
            let is_outrun = now.bytes() >= LIMIT && rest > before / 2;
            if reader_is_before || rest <= MAX_HELD_PAGES || is_outrun {
                return Ok(now);
            }
            before = rest;
        }
    }

    /// Moves the rest while the store's readers and writer are held.
    fn start_anew(&self, now: Checkpoint) -> Result<Attempt, rusqlite::Error> {
        let (timeout, late) = if now.bytes() < LONG {
            (READERS_TIMEOUT, Attempt::Reader)
        } else {
            (LONG_READERS_TIMEOUT, Attempt::LongReader)
        };
        // The space of a log that another program has let grow is given back at once.
        let mode = if self.wal.len() < 4 * LIMIT {
            "RESTART"
        } else {
            "TRUNCATE"
        };
        let held = self
            .barrier
            .exclusive(timeout, || checkpoint(&self.conn, mode));
        Ok(match held.transpose()? {
            None => late,
            Some(done) if done.busy => Attempt::OtherProgram,
            Some(_) => Attempt::Done,
        })
    }

    fn report(&self, since: Instant) {
        tracing::warn!(
            log = %self.wal.path.display(),
            mebibytes = self.wal.len() >> 20,
            seconds = since.elapsed().as_secs(),
            "another program reads the file, and its log grows until that program ends its transaction"
        );
    }
}

/// Moves the whole log into the file and empties it, when the store closes. Waits for readers of
/// other programs no longer than `timeout`.
pub(super) fn empty(conn: &Connection, timeout: Duration) -> Result<Checkpoint, rusqlite::Error> {
    conn.busy_timeout(timeout)?;
    checkpoint(conn, "TRUNCATE")
}

/// Runs a checkpoint; `NOOP` moves nothing.
fn checkpoint(conn: &Connection, mode: &'static str) -> Result<Checkpoint, rusqlite::Error> {
    let mut statement = conn.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    statement.query_row([], |row| {
        // Both numbers are -1 where another connection holds the lock for checkpoints.
        let count = |column| row.get(column).map(|n: i64| u32::try_from(n).unwrap_or(0));
        Ok(Checkpoint {
            busy: row.get(0)?,
            pages: count(1)?,
            moved: count(2)?,
        })
    })
}
