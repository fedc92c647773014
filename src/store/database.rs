//! One SQLite file: a writer thread that commits all waiting writes in one transaction, and a small
//! pool of read connections.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::barrier::Barrier;
use super::error::{Abort, StoreError};
use super::pages;
use super::schema::Schema;
use super::stamp;
use super::wal::{self, Checkpointer, Wal};

/// Most writes that wait for the writer. When the queue is full, the caller waits.
const QUEUE: usize = 4096;

/// Most writes in one commit, so that the first of them does not wait for a whole flood.
const MAX_COMMIT_BATCH: usize = 512;

/// Longest wait for a lock that another program holds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for readers of other programs when the store closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Read connections. More than the cores of the machine would gain nothing: SQLite reads are
/// CPU-bound once the pages are in memory.
const READERS: usize = 4;

/// The error of a write: the store's, or a refusal by the write's own logic.
pub(super) trait WriteError: From<StoreError> + Send + 'static {
    /// Returns the store's error, if it is one.
    fn store_error(&self) -> Option<&StoreError>;
}

impl WriteError for StoreError {
    fn store_error(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl<R: Send + 'static> WriteError for Abort<R> {
    fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Refused(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}

/// A waiting write: run inside the open transaction, answered after its commit.
trait Job: Send {
    /// Runs the write. Returns the store's error, if there was one.
    fn run(&mut self, conn: &Connection) -> Option<StoreError>;
    fn finish(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Write<T, E, F> {
    work: Option<F>,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Job for Write<T, E, F>
where
    T: Send,
    E: WriteError,
    F: FnOnce(&Connection) -> Result<T, E> + Send,
{
    fn run(&mut self, conn: &Connection) -> Option<StoreError> {
        let result = in_savepoint(conn, self.work.take()?);
        let failure = result.as_ref().err().and_then(E::store_error).cloned();
        self.result = Some(result);
        failure
    }

    fn finish(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = match committed {
            Ok(()) => self
                .result
                .unwrap_or_else(|| Err(StoreError::Closed.into())),
            Err(error) => Err(error.into()),
        };
        // The caller may be gone. The write stands all the same.
        self.reply.send(result).ok();
    }
}

/// Runs one write so that its failure undoes only itself and not the rest of its group.
fn in_savepoint<T, E: From<StoreError>>(
    conn: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    run(conn, "SAVEPOINT job")?;
    let result = work(conn);
    // When the disk is full, the engine may have undone the whole group. Nothing is left to undo.
    if conn.is_autocommit() {
        return result;
    }
    if result.is_err() {
        run(conn, "ROLLBACK TO job")?;
    }
    run(conn, "RELEASE job")?;
    result
}

/// Runs a constant statement.
fn run(conn: &Connection, sql: &str) -> Result<(), StoreError> {
    conn.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// An open database file.
pub(super) struct Database {
    jobs: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Readers>,
    wal: Arc<Wal>,
    healthy: Arc<AtomicBool>,
}

/// Fields are dropped in their order: closing the file takes the locks of every connection.
struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    barrier: Arc<Barrier>,
    _file: Arc<File>,
}

/// What the writer's thread owns. Fields are dropped in their order, see [`Readers`].
struct Writer {
    conn: Connection,
    barrier: Arc<Barrier>,
    wal: Arc<Wal>,
    checkpointer: JoinHandle<()>,
    healthy: Arc<AtomicBool>,
    _file: Arc<File>,
}

impl Database {
    /// Opens or creates the file and brings its schema up to date. Refuses a file with the log of
    /// another one beside it.
    pub(super) fn open(path: &Path, schema: &Schema) -> Result<Self, StoreError> {
        let wal = Arc::new(Wal::beside(path));
        wal.check_own(path)?;
        let conn = open_writer(path, schema)?;
        // Closed after every connection.
        let file = Arc::new(File::open(path).map_err(|error| StoreError::File(Arc::new(error)))?);
        let mut idle = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            idle.push(open_reader(path)?);
        }
        let healthy = Arc::new(AtomicBool::new(true));
        let barrier = Arc::new(Barrier::default());
        let checkpointer = Checkpointer::open(
            path,
            Arc::clone(&file),
            Arc::clone(&wal),
            Arc::clone(&barrier),
        )?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Writer {
            conn,
            barrier: Arc::clone(&barrier),
            wal: Arc::clone(&wal),
            checkpointer: spawn("store-log", move || checkpointer.run())?,
            healthy: Arc::clone(&healthy),
            _file: Arc::clone(&file),
        };
        let writer = spawn("store", move || writer.run(queue))?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            writer: Mutex::new(Some(writer)),
            readers: Arc::new(Readers {
                idle: Mutex::new(idle),
                permits: Arc::new(Semaphore::new(READERS)),
                barrier,
                _file: file,
            }),
            wal,
            healthy,
        })
    }

    /// Runs `work` in the writer: all of it or nothing, durable when this returns. Writes are done
    /// in the order of the calls.
    pub(super) async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: WriteError,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let jobs = self
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Write {
            work: Some(work),
            result: None,
            reply,
        });
        jobs.ok_or(StoreError::Closed)?
            .send(job)
            .await
            .map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `work` on a read connection, beside the writer, on one state of the file.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let readers = Arc::clone(&self.readers);
        let permits = Arc::clone(&readers.permits);
        let permit = permits
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed)?;
        tokio::task::spawn_blocking(move || {
            // The permit is released with the connection, whether or not the caller still waits.
            let _permit = permit;
            let idle = || readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let conn = idle().pop().ok_or(StoreError::Closed)?;
            let guard = readers.barrier.enter_reader();
            let result = in_snapshot(&conn, work);
            drop(guard);
            idle().push(conn);
            result
        })
        .await
        .map_err(|_| StoreError::Closed)?
    }

    /// Returns whether the last commit succeeded.
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Returns the bytes that the write-ahead log beside the file takes.
    pub(super) fn log_bytes(&self) -> u64 {
        self.wal.len()
    }

    /// Commits all waiting writes and ends the writer. Later writes fail with
    /// [`StoreError::Closed`].
    pub(super) async fn shutdown(&self) {
        let jobs = self
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(jobs);
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            tokio::task::spawn_blocking(move || writer.join())
                .await
                .ok();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| StoreError::Thread(Arc::new(error)))
}

fn open_writer(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(LOCK_TIMEOUT)?;
    let pages: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if schema.reclaims {
        // Only a file that has no page yet takes this: before the log is set up.
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    if pages == 0 {
        stamp::begin(&conn)?;
    }
    // FULL: a commit that was acknowledged survives loss of power.
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA journal_size_limit = {};
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -16384;",
        2 * wal::LIMIT,
    ))?;
    keep_plans(&conn)?;
    conn.set_prepared_statement_cache_capacity(64);
    super::schema::migrate(&conn, schema.migrations)?;
    stamp_file(&conn);
    if schema.reclaims {
        pages::make_reclaimable(&conn);
        wal::empty(&conn, Duration::ZERO).ok();
    }
    conn.busy_timeout(LOCK_TIMEOUT)?;
    Ok(conn)
}

/// Leaves a number in the file itself that no copy has which was made while nothing ran. Where the
/// disk is full, or another program reads, the store works without.
fn stamp_file(conn: &Connection) {
    let stamped = run(conn, "BEGIN IMMEDIATE")
        .and_then(|()| stamp::count(conn))
        .and_then(|()| run(conn, "COMMIT"));
    if stamped.is_err() {
        conn.execute_batch("ROLLBACK").ok();
    }
    wal::empty(conn, Duration::ZERO).ok();
}

/// Makes the engine plan a statement once for all parameters. Otherwise it plans a statement over a
/// table with a partial index again whenever a parameter changes, which costs more than to run it.
fn keep_plans(conn: &Connection) -> Result<(), StoreError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let path: PathBuf = path.to_owned();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(LOCK_TIMEOUT)?;
    // 8 MiB of pages each. The rest is the operating system's cache, which all connections share.
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -8192;")?;
    keep_plans(&conn)?;
    conn.set_prepared_statement_cache_capacity(32);
    Ok(conn)
}

/// Runs `work` so that all its statements see the same state.
pub(super) fn in_snapshot<T>(
    conn: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    run(conn, "BEGIN")?;
    let result = work(conn);
    if !conn.is_autocommit() {
        run(conn, "COMMIT")?;
    }
    result
}

impl Writer {
    /// Commits what waits, in groups, until no caller is left.
    fn run(self, mut queue: mpsc::Receiver<Box<dyn Job>>) {
        while let Some(first) = queue.blocking_recv() {
            let mut group = vec![first];
            while group.len() < MAX_COMMIT_BATCH {
                let Ok(job) = queue.try_recv() else { break };
                group.push(job);
            }
            let guard = self.barrier.enter_writer();
            let committed = commit(&self.conn, &mut group);
            drop(guard);
            match &committed {
                // A commit without a change says nothing about a disk that is full.
                Ok(Commit::Written) => self.healthy.store(true, Ordering::Relaxed),
                Ok(Commit::Nothing) => {}
                Ok(Commit::Refused) => self.healthy.store(false, Ordering::Relaxed),
                Err(error) => {
                    self.healthy.store(false, Ordering::Relaxed);
                    tracing::error!(%error, "the store cannot commit");
                }
            }
            let committed = committed.map(drop);
            metrics::counter!("atcomm_store_commits_total").increment(1);
            for job in group {
                job.finish(committed.clone());
            }
            self.wal.committed(&self.conn);
        }
        self.wal.close();
        self.checkpointer.join().ok();
        // Leave one file behind, without a log beside it.
        wal::empty(&self.conn, CLOSE_TIMEOUT).ok();
    }
}

/// The effect of a commit.
enum Commit {
    /// Rows were written.
    Written,
    /// No row was changed.
    Nothing,
    /// The file did not take some of the group.
    Refused,
}

fn commit(conn: &Connection, group: &mut [Box<dyn Job>]) -> Result<Commit, StoreError> {
    let before = total_changes(conn)?;
    run(conn, "BEGIN IMMEDIATE")?;
    let mut taken = true;
    for job in group {
        let failure = job.run(conn);
        taken &= !matches!(failure, Some(StoreError::Full | StoreError::Corrupt(_)));
        if conn.is_autocommit() {
            return Err(failure.unwrap_or(StoreError::Full));
        }
    }
    let changed = total_changes(conn)? > before;
    let stamped = if changed { stamp::count(conn) } else { Ok(()) };
    stamped
        .and_then(|()| run(conn, "COMMIT"))
        .inspect_err(|_| {
            // A commit that failed may have left the transaction open.
            conn.execute_batch("ROLLBACK").ok();
        })?;
    Ok(if !taken {
        Commit::Refused
    } else if changed {
        Commit::Written
    } else {
        Commit::Nothing
    })
}

/// Returns the number of rows changed since the connection was opened.
fn total_changes(conn: &Connection) -> Result<i64, StoreError> {
    let mut query = conn.prepare_cached("SELECT total_changes()")?;
    Ok(query.query_row([], |row| row.get(0))?)
}
