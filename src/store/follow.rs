//! What commits change in a file, page by page, for a copy that follows it.
//!
//! The engine appends every commit to the log before it acknowledges it. The writer's thread reads what
//! it has just appended, after its callers have their answers and before it begins the next commit, so
//! the log cannot start anew meanwhile and no commit is missed. It keeps the newest content of each
//! changed page until the follower takes all of them: between two questions a page that is written
//! over and over counts once.
//!
//! A follower that does not ask loses its place when the pages come to [`MAX_HELD`]; the writer never
//! waits for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::stamp::{self, FRAME_HEADER, LOG_HEADER};

/// Most bytes of pages that wait for the follower.
const MAX_HELD: usize = if cfg!(test) { 1 << 20 } else { 16 << 20 };

/// What commits have changed in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages of the file after the last commit. Those behind them are gone.
    pub size: u32,
    /// The changed pages by their numbers, which begin with 1, as the last commit left them.
    pub pages: BTreeMap<u32, Vec<u8>>,
}

/// The follower has lost its place: it asked too late, or the log cannot be read. It begins anew with
/// a copy of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the changes of the file are not known from one moment to the next")]
pub struct LostPlace;

/// The log of a file as a follower reads it.
pub(super) struct Followed {
    log: PathBuf,
    is_followed: AtomicBool,
    reading: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    place: Option<Place>,
    changes: Changes,
    bytes: usize,
    is_lost: bool,
}

/// The end of the last commit that was read.
struct Place {
    header: [u8; LOG_HEADER],
    frames: u64,
    sum: (u32, u32),
}

impl Followed {
    /// Returns the log beside `file`, which nothing follows yet.
    pub(super) fn beside(file: &Path) -> Self {
        let mut log = file.to_owned().into_os_string();
        log.push("-wal");
        Self {
            log: log.into(),
            is_followed: AtomicBool::new(false),
            reading: Mutex::default(),
        }
    }

    /// Reads what was committed since the last call, if the file is followed. For the writer's thread
    /// between two commits.
    pub(super) fn committed(&self) {
        if !self.is_followed.load(Ordering::Acquire) {
            return;
        }
        let mut reading = self.reading();
        if reading.is_lost {
            return;
        }
        if let Err(error) = reading.read(&self.log) {
            tracing::warn!(%error, "the log cannot be read for the copy that follows it");
            reading.lose();
        }
    }

    /// Begins to follow: what is committed from now on is a change. For the writer's thread between
    /// two commits.
    pub(super) fn begin(&self) {
        let mut reading = self.reading();
        *reading = Reading::default();
        if reading.read(&self.log).is_err() {
            reading.lose();
        }
        reading.changes = Changes::default();
        reading.bytes = 0;
        self.is_followed.store(true, Ordering::Release);
    }

    /// Takes what has changed since the last call; `None` where nothing has.
    pub(super) fn take(&self) -> Result<Option<Changes>, LostPlace> {
        let mut reading = self.reading();
        if reading.is_lost || !self.is_followed.load(Ordering::Acquire) {
            return Err(LostPlace);
        }
        reading.bytes = 0;
        let changes = std::mem::take(&mut reading.changes);
        Ok((!changes.pages.is_empty()).then_some(changes))
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    fn lose(&mut self) {
        *self = Self {
            is_lost: true,
            ..Self::default()
        };
    }

    /// Reads all commits after the last place.
    fn read(&mut self, log: &Path) -> io::Result<()> {
        let file = match File::open(log) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut header = [0; LOG_HEADER];
        if !fills(&file, &mut header, 0)? {
            return Ok(());
        }
        let Some(start) = stamp::log_start(&header) else {
            return Ok(());
        };
        // The header of a log that has started anew has another salt.
        let place = match self.place.take() {
            Some(place) if place.header == header => place,
            _ => Place {
                header,
                frames: 0,
                sum: start.sum,
            },
        };
        self.place = Some(place);
        while self.read_commit(&file, &start)? {}
        if self.bytes > MAX_HELD {
            self.lose();
        }
        Ok(())
    }

    /// Reads the next commit. Returns `false` where there is none.
    fn read_commit(&mut self, file: &File, start: &stamp::LogStart) -> io::Result<bool> {
        let Some(place) = &mut self.place else {
            return Ok(false);
        };
        let frame_bytes = FRAME_HEADER + start.page_size as usize;
        let mut staged = BTreeMap::new();
        let (mut frames, mut sum) = (place.frames, place.sum);
        loop {
            let mut frame = vec![0; frame_bytes];
            let offset = LOG_HEADER as u64 + frames * frame_bytes as u64;
            if !fills(file, &mut frame, offset)? || frame[8..16] != start.salt {
                return Ok(false);
            }
            let page = frame.split_off(FRAME_HEADER);
            sum = start.summed(start.summed(sum, &frame[..8]), &page);
            if sum != (stamp::big(&frame, 16), stamp::big(&frame, 20)) {
                return Ok(false);
            }
            staged.insert(stamp::big(&frame, 0), page);
            frames += 1;
            let size = stamp::big(&frame, 4);
            if size == 0 {
                continue;
            }
            (place.frames, place.sum) = (frames, sum);
            self.changes.page_size = start.page_size;
            self.changes.size = size;
            for (number, page) in staged {
                let before = self.changes.pages.insert(number, page);
                self.bytes += frame_bytes - before.map_or(0, |_| frame_bytes);
            }
            return Ok(true);
        }
    }
}

/// Fills a buffer from a place of a file. Returns `false` where the file ends before.
fn fills(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

impl Changes {
    /// Brings a copy of the file, which nothing has open, to the state after the changes. The copy is
    /// of any moment between the changes before and the last of these.
    pub fn apply(&self, copy: &File) -> io::Result<()> {
        if self.pages.is_empty() {
            return Ok(());
        }
        let page_size = u64::from(self.page_size);
        for (number, page) in &self.pages {
            let before = u64::from(number.saturating_sub(1));
            copy.write_all_at(page, before * page_size)?;
        }
        copy.set_len(u64::from(self.size) * page_size)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::OpenOptions;

    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::super::copy::{StoreFile, check_copy, copy};
    use super::super::{MailboxStore, StoreError};
    use super::*;

    /// One transaction.
    #[derive(Debug, Clone)]
    enum Write {
        /// Writes so many pages under a key.
        Set(u8, usize),
        Delete(u8),
        /// Gives free pages back.
        Shrink,
        /// Fails after it has written.
        Fail(u8),
    }

    fn write() -> impl Strategy<Value = Write> {
        prop_oneof![
            4 => (0..12_u8, 1..12_usize).prop_map(|(key, pages)| Write::Set(key, pages)),
            2 => (0..12_u8).prop_map(Write::Delete),
            1 => Just(Write::Shrink),
            1 => (0..12_u8).prop_map(Write::Fail),
        ]
    }

    async fn run(store: &MailboxStore, write: Write, number: usize) {
        let done = store
            .transact(move |tx| match write {
                Write::Set(key, pages) => {
                    let value = format!("{number} ").repeat(pages * 4096 / 5);
                    tx.set_meta(&format!("key-{key}"), &value)
                }
                Write::Delete(key) => tx.delete_meta(&format!("key-{key}")),
                Write::Shrink => tx.shrink(0, 100).map(drop),
                Write::Fail(key) => {
                    tx.set_meta(&format!("key-{key}"), "never")?;
                    Err(StoreError::Closed)
                }
            })
            .await;
        assert!(
            done.is_ok() || matches!(done, Err(StoreError::Closed)),
            "{done:?}"
        );
    }

    fn content(path: &Path) -> BTreeMap<String, String> {
        let conn = Connection::open(path).unwrap();
        let mut query = conn.prepare("SELECT key, value FROM meta").unwrap();
        let rows = query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// Applies changes to a copy of the base. Returns what it holds then.
    fn replayed(dir: &Path, base: &Path, changes: &[Changes]) -> BTreeMap<String, String> {
        let path = dir.join("replayed.db");
        std::fs::copy(base, &path).unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        for one in changes {
            one.apply(&file).unwrap();
        }
        drop(file);
        check_copy(&path, StoreFile::Mailbox).unwrap();
        let found = content(&path);
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.join(format!("replayed.db{end}")));
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Whatever is written and wherever it is cut: the base and the changes up to a cut are the
        /// file of that moment. The log starts anew many times meanwhile.
        #[test]
        fn any_cut_replays_to_the_state_at_that_time(
            before in prop::collection::vec(write(), 0..8),
            pieces in prop::collection::vec(prop::collection::vec(write(), 0..8), 1..12),
            base_after in 0..4_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("mailbox.db");
            let base = dir.path().join("base.db");
            runtime.block_on(async {
                let store = MailboxStore::open(&path).unwrap();
                for (number, write) in before.into_iter().enumerate() {
                    run(&store, write, number).await;
                }
                store.follow().await.unwrap();
                let (mut taken, mut states) = (Vec::new(), Vec::new());
                for (at, piece) in pieces.into_iter().enumerate() {
                    for (number, write) in piece.into_iter().enumerate() {
                        run(&store, write, at * 100 + number).await;
                    }
                    if at == base_after {
                        // What is taken next has changes that the base has already.
                        copy(&path, StoreFile::Mailbox, &base, &mut || true).unwrap();
                        (taken, states) = (Vec::new(), Vec::new());
                    }
                    taken.extend(store.changes().await.unwrap());
                    states.push((taken.len(), content(&path)));
                }
                store.shutdown().await;
                taken.extend(store.changes().await.unwrap());
                states.push((taken.len(), content(&path)));
                if base.exists() {
                    for (cut, state) in states {
                        prop_assert_eq!(replayed(dir.path(), &base, &taken[..cut]), state);
                    }
                }
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn a_follower_that_does_not_ask_loses_its_place_and_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mailbox.db");
        let store = MailboxStore::open(&path).unwrap();
        assert_eq!(store.changes().await, Err(LostPlace), "nothing follows");
        run(&store, Write::Set(0, 1), 0).await;
        store.follow().await.unwrap();
        assert_eq!(store.changes().await, Ok(None));
        for number in 0..400 {
            run(&store, Write::Set(number as u8, 2), number).await;
        }
        assert_eq!(store.changes().await, Err(LostPlace));
        run(&store, Write::Set(1, 1), 1).await;
        assert_eq!(store.changes().await, Err(LostPlace));
        store.follow().await.unwrap();
        assert_eq!(store.changes().await, Ok(None));
        run(&store, Write::Set(1, 1), 2).await;
        assert!(store.changes().await.unwrap().is_some());
    }
}
