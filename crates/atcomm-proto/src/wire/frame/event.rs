//! The events that frames carry.

use crate::wire::cbor::CID_LEN;

/// Most bytes of blocks in a `#commit` (lexicon of `subscribeRepos`).
pub const MAX_BLOCKS: usize = 2_000_000;

/// Most bytes of blocks in a `#sync`, which holds one commit object (lexicon of `subscribeRepos`).
pub const MAX_SYNC_BLOCKS: usize = 10_000;

/// Most operations of a `#commit` (lexicon of `subscribeRepos`).
pub const MAX_OPS: u64 = 200;

/// Largest sequence number: larger integers are not exact in JavaScript.
pub(super) const MAX_SEQ: u64 = (1 << 53) - 1;

/// Longest accepted revision, time, status or type name, in bytes. The longest in use is a time of
/// 32.
pub(super) const MAX_NAME: usize = 64;

/// The types of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// `#commit`
    Commit,
    /// `#sync`
    Sync,
    /// `#identity`
    Identity,
    /// `#account`
    Account,
}

/// A `#commit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit<'a> {
    /// Sequence number, above 0 and below 2^53.
    pub seq: u64,
    /// DID of the account.
    pub repo: &'a str,
    /// Revision of the commit.
    pub rev: &'a str,
    /// Revision of the previous commit, if the server sends it.
    pub since: Option<&'a str>,
    /// Time of the event as the server wrote it.
    pub time: &'a str,
    /// CID of the commit block, in binary form.
    pub commit: &'a [u8; CID_LEN],
    /// CID of the tree root before this commit, in binary form; absent on a first commit.
    pub prev_data: Option<&'a [u8; CID_LEN]>,
    /// A CAR with the commit, the changed records and the tree nodes that prove them.
    pub blocks: &'a [u8],
    /// Number of operations, on any path.
    pub ops: u64,
    /// The operation on the account's key package.
    pub op: Option<RecordOp<'a>>,
    /// Whether the server left out operations and blocks (obsolete, still sent by some).
    pub too_big: bool,
}

/// The operation of a commit on a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOp<'a> {
    /// The record is new.
    Create {
        /// CID of the record block, in binary form.
        cid: &'a [u8; CID_LEN],
    },
    /// The record replaces an earlier one.
    Update {
        /// CID of the record block, in binary form.
        cid: &'a [u8; CID_LEN],
    },
    /// The record was deleted.
    Delete,
}

/// A `#sync`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync<'a> {
    /// Sequence number, above 0 and below 2^53.
    pub seq: u64,
    /// DID of the account.
    pub did: &'a str,
    /// Revision of the commit.
    pub rev: &'a str,
    /// Time of the event as the server wrote it.
    pub time: &'a str,
    /// A CAR with the commit block.
    pub blocks: &'a [u8],
}

/// An `#identity`. The handle in it is an unverified claim, so it is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Sequence number, above 0 and below 2^53.
    pub seq: u64,
    /// DID of the account.
    pub did: &'a str,
    /// Time of the event as the server wrote it.
    pub time: &'a str,
}

/// An `#account`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account<'a> {
    /// Sequence number, above 0 and below 2^53.
    pub seq: u64,
    /// DID of the account.
    pub did: &'a str,
    /// Time of the event as the server wrote it.
    pub time: &'a str,
    /// Whether the server serves the account's records.
    pub active: bool,
    /// The reason if it does not, in an open vocabulary.
    pub status: Option<&'a str>,
}
