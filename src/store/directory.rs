//! `directory.db`: entries, change log, pending refreshes and cursors.
//!
//! All of it can be rebuilt from the network: the loss of the file costs a new backfill of the
//! sources and the history of changes.

mod ageing;
mod backfill;
mod changes;
mod consumers;
mod coverage;
mod daily;
mod entry_row;
mod explain;
mod export;
mod heads;
mod lists;
mod queries;
mod rows;
mod shares;
mod sources;
mod takedowns;
mod tally;
mod trigger;
mod updates;
mod writes;

#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::path::Path;

use rusqlite::Connection;

use super::database::Database;
use super::error::StoreError;
use super::schema;

pub use backfill::BackfillRow;
pub use changes::{Change, ChangeKind, EntryState, SupersededProof};
pub use consumers::{Connected, MAX_CONSUMERS};
pub use coverage::{Coverage, Gap, Marked};
pub use daily::{
    DELAYS, Day, DayDelta, DayRow, EntryHost, FollowedSource, GroupDay, GroupKind, GroupRow,
    LATEST_CLOSE, MAX_DAY_GROUPS, MAX_DAYS, Membership, OpenDay, SourceDay,
};
pub use explain::LastChange;
pub use export::{Cell, ColumnKind, ExportColumn, ExportTable, SortKey};
pub use heads::{Head, Tracked};
pub use lists::{AccountFilter, AccountState, ListPage, ListedAccount, ListedMediator};
pub use queries::ProvenEntry;
pub use rows::{
    AccountStatus, AnnouncedChange, AnnouncedStatus, DueHandle, DuePosition, Entry, MediatorRow,
    NewPending, PackageState, PendingRefresh, ProofMethod, SourceCursor,
};
pub use shares::{Owner, Usage};
pub use sources::SourceStatus;
pub use takedowns::Takedown;
pub use tally::{Happening, Mark, Tally};
pub use trigger::{EventKind, SourceKind, Trigger};
pub use updates::{LogPosition, LoggedChange};

/// The directory's file.
pub struct DirectoryStore {
    db: Database,
}

impl DirectoryStore {
    /// Opens or creates `path`.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            db: Database::open(path, &schema::DIRECTORY)?,
        })
    }

    /// Runs `work` in one transaction: all of it or nothing, durable when this returns. Safe to
    /// call concurrently; transactions run one after the other in the order of the calls.
    pub async fn transact<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.db.write(move |conn| work(&Tx::new(conn))).await
    }

    /// Runs `work` on a consistent view beside the writer.
    pub async fn query<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Queries<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.db.read(move |conn| work(&Queries(conn))).await
    }

    /// Returns whether the last write succeeded.
    pub fn is_healthy(&self) -> bool {
        self.db.is_healthy()
    }

    /// Returns the bytes that the write-ahead log beside the file takes.
    pub fn log_bytes(&self) -> u64 {
        self.db.log_bytes()
    }

    /// Commits all waiting writes and closes the file for writing.
    pub async fn shutdown(&self) {
        self.db.shutdown().await;
    }
}

/// Questions to the file.
pub struct Queries<'c>(&'c Connection);

impl<'c> Queries<'c> {
    pub(super) fn new(conn: &'c Connection) -> Self {
        Self(conn)
    }
}

/// A transaction: [`Queries`] that see its own writes, and the writes.
pub struct Tx<'c>(Queries<'c>);

impl<'c> Tx<'c> {
    fn new(conn: &'c Connection) -> Self {
        Self(Queries(conn))
    }

    fn conn(&self) -> &Connection {
        self.0.0
    }
}

impl<'c> Deref for Tx<'c> {
    type Target = Queries<'c>;
    fn deref(&self) -> &Queries<'c> {
        &self.0
    }
}
