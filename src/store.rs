//! Durable state: two SQLite files, each with one writer thread that commits in groups, and a few
//! readers.
//!
//! This module is the only user of the engine. No engine type leaves it, and nothing in its
//! interface sends a notification, so that a server shared by several processes could stand behind
//! it.
//!
//! `directory.db` can be rebuilt from the network: its loss costs a new backfill of the sources and
//! the history of changes, and no mail. `mailbox.db` is the only place where queued mail is: its
//! loss loses that mail, and every recipient has to register anew.
//!
//! Rows and stores are named here; the questions and transactions of each file are
//! [`directory::Queries`] and [`directory::Tx`], [`mailbox::Queries`] and [`mailbox::Tx`].

mod columns;
mod database;
pub mod directory;
pub mod mailbox;
mod schema;
mod wal;

pub use directory::{
    AccountStatus, AnnouncedChange, AnnouncedStatus, BackfillRow, Change, ChangeKind,
    DirectoryStore, Entry, EventKind, MediatorRow, NewPending, PackageState, PendingRefresh,
    ProofMethod, SourceCursor, SourceKind, SupersededProof, Trigger,
};
pub use mailbox::{
    Account, Bound, Claim, ClaimState, MailboxStore, Message, NewOutbound, OutPushed, Outbound,
    OutboxQuota, Outcome, Push, Pushed, Queue, QueueStatus, Quota, Recipient, RelayOutcome,
    ReplayKind,
};

/// Errors of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk is full or the file cannot grow: nothing was written.
    #[error("no space left for the store")]
    Full,
    /// The file is damaged, or holds what this version never writes. A retry does not help.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The file was written by a newer version.
    #[error("the store has schema version {found}, this version knows up to {known}")]
    Newer {
        /// Version in the file.
        found: i64,
        /// Newest version that this program knows.
        known: i64,
    },
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// Any other failure of the engine or the file system.
    #[error("the store failed: {0}")]
    Engine(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(error.to_string())
            }
            _ => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..) => Self::Corrupt(error.to_string()),
                other => Self::Engine(other.to_string()),
            },
        }
    }
}

/// The end of a transaction that wrote nothing: [`MailboxStore::attempt`].
#[derive(Debug, Clone)]
pub enum Abort<R> {
    /// The work gave up, for this reason.
    Refused(R),
    /// The store failed.
    Store(StoreError),
}

impl<R> From<StoreError> for Abort<R> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
