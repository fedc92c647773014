//! The write-ahead log beside a file, kept from growing.
//!
//! The engine moves committed pages from the log into the file as it goes, but only up to the
//! oldest state that a reader uses, and it starts the log anew only when no reader uses the log.
//! Readers that overlap without end would let it grow for ever. So when the log is too long, new
//! readers wait at a barrier until the others have left.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

/// Length of the log, in bytes, beyond which it is emptied.
pub(super) const LIMIT: u64 = if cfg!(test) { 1 << 20 } else { 64 << 20 };

/// Pages in the log (32 MiB) from which on the engine moves them into the file. Pages that are
/// written over and over, such as those of an index by hash, are moved once.
pub(super) const PAGES: u32 = 8000;

/// Longest wait of the writer, and of readers at the barrier, for the readers that have passed it.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(200);

/// A barrier that can hold readers up for a moment.
#[derive(Default)]
pub(super) struct ReaderBarrier {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    readers: usize,
    closed: bool,
}

/// A reader that has passed the barrier.
pub(super) struct ReadGuard<'g>(&'g ReaderBarrier);

impl ReaderBarrier {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a reader pass, once the barrier is open.
    pub(super) fn enter(&self) -> ReadGuard<'_> {
        let state = self.changed.wait_while(self.state(), |state| state.closed);
        state.unwrap_or_else(PoisonError::into_inner).readers += 1;
        ReadGuard(self)
    }

    /// Runs `work` while no reader has passed the barrier. Returns `None` when readers do not leave
    /// in time.
    fn exclusive<T>(&self, timeout: Duration, work: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.state();
        state.closed = true;
        let (state, late) = self
            .changed
            .wait_timeout_while(state, timeout, |state| state.readers > 0)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        let done = (!late.timed_out()).then(work);
        self.state().closed = false;
        self.changed.notify_all();
        done
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        self.0.state().readers -= 1;
        self.0.changed.notify_all();
    }
}

/// The log from its writer's point of view.
pub(super) struct Wal {
    path: PathBuf,
    barrier: Arc<ReaderBarrier>,
    limit: u64,
}

impl Wal {
    /// Returns the log of a file. All readers of the file in this program pass `barrier`.
    pub(super) fn of(file: &Path, barrier: Arc<ReaderBarrier>) -> Self {
        let mut path = file.to_owned().into_os_string();
        path.push("-wal");
        Self {
            path: path.into(),
            barrier,
            limit: LIMIT,
        }
    }

    /// Empties the log when it is too long. During a long read the log keeps growing, and the next
    /// attempt comes when it has grown by as much again.
    pub(super) fn tend(&mut self, conn: &Connection) {
        let len = std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        if len <= self.limit {
            return;
        }
        let emptied = self
            .barrier
            .exclusive(CHECKPOINT_TIMEOUT, || checkpoint(conn));
        self.limit = match emptied {
            Some(Ok(true)) => LIMIT,
            _ => len.saturating_add(LIMIT),
        };
    }
}

/// Moves the whole log into the file. Returns whether no reader was in the way; other programs may
/// read, too.
pub(super) fn checkpoint(conn: &Connection) -> Result<bool, rusqlite::Error> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        row.get::<_, bool>(0).map(|busy| !busy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_barrier_waits_for_its_readers_and_opens_again() {
        let barrier = Arc::new(ReaderBarrier::default());
        let guard = barrier.enter();
        assert_eq!(barrier.exclusive(Duration::from_millis(10), || ()), None);
        drop(barrier.enter());
        let leaver = {
            let barrier = Arc::clone(&barrier);
            std::thread::spawn(move || {
                let guard = barrier.enter();
                std::thread::sleep(Duration::from_millis(50));
                drop(guard);
            })
        };
        drop(guard);
        let done = barrier.exclusive(Duration::from_secs(60), || barrier.state().readers);
        assert_eq!(done, Some(0));
        leaver.join().unwrap();
    }
}
