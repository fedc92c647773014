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

mod barrier;
mod columns;
mod database;
pub mod directory;
mod error;
mod file;
pub mod mailbox;
mod pages;
mod schema;
mod snapshot;
mod stamp;
mod wal;

pub use directory::{
    AccountStatus, AnnouncedChange, AnnouncedStatus, BackfillRow, Change, ChangeKind, Coverage,
    DirectoryStore, DueHandle, DuePosition, Entry, EntryState, EventKind, Gap, Head, LogPosition,
    LoggedChange, Marked, MediatorRow, NewPending, PackageState, PendingRefresh, ProofMethod,
    SourceCursor, SourceKind, SourceStatus, SupersededProof, Takedown, Tracked, Trigger,
};
pub use error::{Abort, Damage, EngineError, StoreError};
pub use file::DirectoryFile;
pub use mailbox::{
    Account, Bound, Claim, ClaimState, ClaimantHost, MESSAGE_OVERHEAD, MailboxStore, Message,
    NewOutbound, OUTBOUND_OVERHEAD, OutPushed, Outbound, OutboxQuota, Outcome, Pot, Push, Pushed,
    Queue, QueueSize, QueueStatus, Quota, Reader, Recipient, RelayOutcome, ReplayKind, Sender,
    SenderClass, SenderGroup, SharePosition,
};
#[cfg(test)]
pub(crate) use snapshot::read_rows;
pub use snapshot::{Snapshot, snapshot};
