//! A consistent copy of a file, page by page, taken while a service writes it.
//!
//! The copy is made within one read transaction: it holds exactly what was committed when it began.
//! The writer goes on meanwhile. Its log cannot start anew before the copy is done, so the log grows
//! by what is written during that time, and a copy that takes too long for that is given up.
//!
//! Pages are copied as they are, which is several times as fast as writing all rows anew. Free pages
//! are copied too: a message that was deleted can still be found in them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use url::Url;

use super::error::{Damage, StoreError};
use super::schema::{self, Schema};
use super::stamp;

/// Pages that are copied in one step (4 MiB). Each step is synced, so that no large write holds up
/// the commits of the service.
const STEP_PAGES: i32 = 1024;

/// Longest log beside the file, in bytes, at which a copy goes on. Without writes it has 128 MiB.
const MAX_LOG: u64 = 1 << 30;

/// Longest wait for a lock of the service.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Name of the directory's file in the data directory.
pub const DIRECTORY_FILE: &str = "directory.db";

/// Name of the mediator's file in the data directory.
pub const MAILBOX_FILE: &str = "mailbox.db";

/// Ends of the names of what the engine keeps beside a file.
pub const JOURNALS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The files of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFile {
    /// `directory.db`.
    Directory,
    /// `mailbox.db`.
    Mailbox,
}

impl StoreFile {
    /// Returns the name of the file in the data directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => DIRECTORY_FILE,
            Self::Mailbox => MAILBOX_FILE,
        }
    }

    /// Returns the newest schema version that this program knows.
    pub fn newest_version(self) -> i64 {
        i64::try_from(self.schema().migrations.len()).unwrap_or(i64::MAX)
    }

    /// Returns the schema of the file.
    pub(super) fn schema(self) -> &'static Schema {
        match self {
            Self::Directory => &schema::DIRECTORY,
            Self::Mailbox => &schema::MAILBOX,
        }
    }
}

/// Errors of copying a file.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CopyError {
    /// The file or its copy fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log grew too long meanwhile, in bytes.
    #[error(
        "{} MiB were written beside the copy, which is slower than the service: it was given up",
        .0 >> 20
    )]
    Outrun(u64),
    /// The caller ended it.
    #[error("it was stopped")]
    Stopped,
}

impl From<rusqlite::Error> for CopyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Store(match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge => StoreError::Full,
            _ => StoreError::File(Arc::new(error)),
        })
    }
}

/// Copies the file at `from` to a new file at `to` with mode 0600. The copy is on disk when this
/// returns, and what fails leaves nothing at `to`. The file may be written meanwhile, by this process
/// or another. `go_on` is asked every 4 MiB, and ends the copy by `false`.
pub fn copy(
    from: &Path,
    file: StoreFile,
    to: &Path,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(), CopyError> {
    copy_within(from, file, to, MAX_LOG, go_on)
}

fn copy_within(
    from: &Path,
    file: StoreFile,
    to: &Path,
    max_log: u64,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(), CopyError> {
    let source = open_source(from, file)?;
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    let copied = copy_pages(&source, from, to, &made, max_log, go_on);
    copied.inspect_err(|_| {
        // It may be on a disk that fails.
        let _ = fs::remove_file(to);
    })
}

/// Opens the file within a read transaction that holds its state of now.
fn open_source(from: &Path, file: StoreFile) -> Result<Connection, CopyError> {
    // A connection that may only read would leave a log behind where no service runs.
    let source = Connection::open_with_flags(
        from,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    source.busy_timeout(LOCK_TIMEOUT)?;
    source.execute_batch("PRAGMA query_only = ON; BEGIN")?;
    // The first question fixes the state.
    schema::version(&source, file.schema().migrations)?;
    Ok(source)
}

fn copy_pages(
    source: &Connection,
    from: &Path,
    to: &Path,
    made: &File,
    max_log: u64,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(), CopyError> {
    let mut target = Connection::open(to)?;
    // The copy has its name only when it is whole, so nothing has to be undone in it.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    let copy = Backup::new(source, &mut target)?;
    loop {
        let step = copy.step(STEP_PAGES)?;
        made.sync_data()?;
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            // No other connection uses the copy, and this one of the source only reads.
            _ => return Err(StoreError::Corrupt(Damage::Contents("the copy is locked")).into()),
        }
        let log = log_len(from);
        if log > max_log {
            return Err(CopyError::Outrun(log));
        }
        if !go_on() {
            return Err(CopyError::Stopped);
        }
    }
    drop(copy);
    drop(target);
    made.sync_all()?;
    Ok(())
}

/// Returns the bytes of the log beside a file.
fn log_len(file: &Path) -> u64 {
    fs::metadata(journal(file, JOURNALS[0])).map_or(0, |meta| meta.len())
}

/// Returns the path of what the engine keeps beside a file.
pub fn journal(file: &Path, end: &str) -> PathBuf {
    let mut path = file.to_owned().into_os_string();
    path.push(end);
    path.into()
}

/// Checks a copy that nothing else has open: the engine finds its pages in order, and its schema
/// version is known. Returns that version. Changes nothing and leaves nothing beside it.
pub fn check_copy(path: &Path, file: StoreFile) -> Result<i64, StoreError> {
    let name = std::path::absolute(path).and_then(|path| {
        Url::from_file_path(path).map_err(|()| io::Error::from(io::ErrorKind::InvalidFilename))
    });
    let mut name = name.map_err(|error| StoreError::File(Arc::new(error)))?;
    // Without this the engine makes a log beside it.
    name.set_query(Some("immutable=1"));
    let conn = Connection::open_with_flags(
        name.as_str(),
        OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI,
    )?;
    schema::add_functions(&conn)?;
    let version = schema::version(&conn, file.schema().migrations)?;
    if version == 0 {
        let reason = "it has no tables";
        return Err(StoreError::Corrupt(Damage::Contents(reason)));
    }
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        let reason = "its pages do not fit together";
        return Err(StoreError::Corrupt(Damage::Contents(reason)));
    }
    Ok(i64::try_from(version).unwrap_or(i64::MAX))
}

/// Refuses a file with the log of another one beside it. No process may have the file open.
pub fn check_log(file: &Path) -> Result<(), StoreError> {
    let log = journal(file, JOURNALS[0]);
    match stamp::is_own_log(file, &log) {
        Ok(true) => Ok(()),
        Ok(false) => Err(StoreError::ForeignLog(log)),
        Err(error) => Err(StoreError::File(Arc::new(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::runtime::Handle;

    use super::super::MailboxStore;
    use super::*;

    /// Writes ten values of 100 kB. Each is a new one: the engine writes no page that stays the same.
    async fn write(store: &MailboxStore, name: &str) {
        static WRITTEN: AtomicUsize = AtomicUsize::new(0);
        for n in 0..10 {
            let key = format!("{name}-{n}");
            let value = format!("{:010}", WRITTEN.fetch_add(1, Ordering::Relaxed)).repeat(10_000);
            let written = store.transact(move |tx| tx.set_meta(&key, &value));
            written.await.unwrap();
        }
    }

    /// Copies while `beside` is called between steps.
    async fn copy_beside(
        from: &Path,
        to: &Path,
        max_log: u64,
        mut beside: impl FnMut() -> bool + Send + 'static,
    ) -> Result<(), CopyError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let copied = move || copy_within(&from, StoreFile::Mailbox, &to, max_log, &mut beside);
        tokio::task::spawn_blocking(copied).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_copy_holds_what_was_committed_before_it_and_the_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("mailbox.db"), dir.path().join("copy.db"));
        let store = Arc::new(MailboxStore::open(&from).unwrap());
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            write(&store, name).await;
        }
        let (writer, runtime) = (Arc::clone(&store), Handle::current());
        let (counted, steps) = std::sync::mpsc::channel();
        let beside = move || {
            counted.send(()).unwrap();
            runtime.block_on(write(&writer, "later"));
            true
        };
        copy_beside(&from, &to, MAX_LOG, beside).await.unwrap();
        assert!(steps.iter().count() >= 2);
        assert!(store.is_healthy());
        let there = |key: &'static str| store.query(move |q| q.meta(key));
        assert!(there("later-9").await.unwrap().is_some());

        assert_eq!(
            check_copy(&to, StoreFile::Mailbox).unwrap(),
            StoreFile::Mailbox.newest_version()
        );
        let names = std::fs::read_dir(dir.path()).unwrap();
        let beside = names.filter(|name| {
            let name = name.as_ref().unwrap().file_name();
            name.to_str().unwrap().starts_with("copy.db-")
        });
        assert_eq!(
            beside.count(),
            0,
            "the check leaves nothing beside the copy"
        );
        let copy = MailboxStore::open(&to).unwrap();
        let read = |key: &'static str| copy.query(move |q| q.meta(key));
        assert!(read("i-9").await.unwrap().is_some());
        assert!(read("later-0").await.unwrap().is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_copy_that_lets_the_log_grow_or_is_stopped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("mailbox.db"), dir.path().join("copy.db"));
        let store = Arc::new(MailboxStore::open(&from).unwrap());
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            write(&store, name).await;
        }
        let (writer, runtime) = (Arc::clone(&store), Handle::current());
        let beside = move || {
            for _ in 0..20 {
                runtime.block_on(write(&writer, "later"));
            }
            true
        };
        let outrun = copy_beside(&from, &to, 10 << 20, beside).await;
        assert!(matches!(outrun, Err(CopyError::Outrun(_))), "{outrun:?}");
        assert!(!to.exists());
        let stopped = copy_beside(&from, &to, MAX_LOG, || false).await;
        assert!(matches!(stopped, Err(CopyError::Stopped)), "{stopped:?}");
        assert!(!to.exists());
        // A file that is there is left alone.
        std::fs::write(&to, "precious").unwrap();
        assert!(copy_beside(&from, &to, MAX_LOG, || true).await.is_err());
        assert_eq!(std::fs::read(&to).unwrap(), b"precious");
        assert!(store.is_healthy());
    }

    #[tokio::test]
    async fn a_copy_of_another_form_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("mailbox.db");
        drop(MailboxStore::open(&from).unwrap());
        for (name, sql) in [
            ("newer", "PRAGMA user_version = 1000"),
            ("empty", "PRAGMA user_version = 0"),
        ] {
            let to = dir.path().join(name);
            copy(&from, StoreFile::Mailbox, &to, &mut || true).unwrap();
            Connection::open(&to).unwrap().execute_batch(sql).unwrap();
            let found = check_copy(&to, StoreFile::Mailbox);
            match name {
                "newer" => assert!(matches!(found, Err(StoreError::Newer { .. })), "{found:?}"),
                _ => assert!(matches!(found, Err(StoreError::Corrupt(_))), "{found:?}"),
            }
        }
        let to = dir.path().join("text");
        std::fs::write(
            &to,
            "no database, but a text that is longer than its header is",
        )
        .unwrap();
        assert!(matches!(
            check_copy(&to, StoreFile::Mailbox),
            Err(StoreError::Corrupt(_))
        ));
    }
}
