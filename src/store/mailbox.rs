//! `mailbox.db`: accounts, recipients and their queues, the outbox, and the mediator's memory of
//! requests.
//!
//! The file is the only place where queued mail is: its loss loses that mail. Bodies are envelopes
//! that the mediator cannot open. An acknowledged or expired message is deleted, not overwritten:
//! its bytes can stay in the file and in the write-ahead log until their pages are used again or
//! given back.
//!
//! Free pages are used again before the file grows. [`Tx::shrink`] gives them back to the file
//! system in batches, so that a flood does not leave a large file for ever.

mod accounts;
mod fair_share;
mod outbox;
mod purge;
mod queue;
mod replay;
mod rows;
mod shares;

#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::columns::unsigned;
use super::database::Database;
use super::error::{Abort, StoreError};
use super::{pages, schema};

pub use fair_share::{Pot, Sender, SenderClass, SenderGroup};
pub use rows::{
    Account, Bound, Claim, ClaimState, MESSAGE_OVERHEAD, Message, NewOutbound, OUTBOUND_OVERHEAD,
    OutPushed, Outbound, OutboxQuota, Outcome, Push, Pushed, Queue, QueueSize, QueueStatus, Quota,
    Reader, Recipient, RelayOutcome, ReplayKind,
};
pub use shares::{ClaimantHost, SharePosition};

/// The mediator's file.
pub struct MailboxStore {
    db: Database,
}

impl MailboxStore {
    /// Opens or creates `path`.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            db: Database::open(path, &schema::MAILBOX)?,
        })
    }

    /// Runs `work` in one transaction: all of it or nothing, durable when this returns. Safe to
    /// call concurrently; transactions run one after the other in the order of the calls, and share
    /// their commits. Returns [`StoreError::Full`] when the disk takes no more: nothing was
    /// written.
    pub async fn transact<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.db.write(move |conn| work(&Tx::new(conn))).await
    }

    /// Runs `work` in one transaction as [`Self::transact`] does, and lets it refuse: on
    /// [`Abort::Refused`] all its writes are undone.
    pub async fn attempt<T, R, F>(&self, work: F) -> Result<T, Abort<R>>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, Abort<R>> + Send + 'static,
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

impl Queries<'_> {
    /// Returns the value stored under a key.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        Ok(query.query_row([key], |row| row.get(0)).optional()?)
    }

    /// Returns the bytes of the file, and how many of them are in free pages.
    pub fn file_bytes(&self) -> Result<(u64, u64), StoreError> {
        pages::file_bytes(self.0)
    }

    fn total(&self, name: &str) -> Result<(u64, u64), StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT messages, bytes FROM total WHERE name = ?1")?;
        let (messages, bytes) = query.query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((unsigned(messages), unsigned(bytes)))
    }
}

impl Tx<'_> {
    /// Stores a value under a key, replacing the one before.
    pub fn set_meta(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO meta (key, value) VALUES (?1, ?2)
                 ON CONFLICT (key) DO UPDATE SET value = ?2",
            )?
            .execute([key, value])?;
        Ok(())
    }

    /// Deletes the value under a key.
    pub fn delete_meta(&self, key: &str) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("DELETE FROM meta WHERE key = ?1")?
            .execute([key])?;
        Ok(())
    }

    /// Gives free pages back to the file system, at most `pages`, while more than `spare` are free:
    /// under load free pages are soon used again, and moving pages costs writes. Returns how many
    /// pages were given back.
    pub fn shrink(&self, spare: u64, pages: u64) -> Result<u64, StoreError> {
        pages::shrink(self.conn(), spare, pages)
    }
}
