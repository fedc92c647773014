//! The events that frames carry.

use crate::wire::cbor::CID_LEN;

/// Most bytes of blocks in a `#commit` (lexicon of `subscribeRepos`).
pub const MAX_BLOCKS: usize = 2_000_000;

/// Most bytes of blocks in a `#sync`, which holds one commit object (lexicon of `subscribeRepos`).
pub const MAX_SYNC_BLOCKS: usize = 10_000;

/// Most operations of a `#commit` (lexicon of `subscribeRepos`).
pub const MAX_OPS: u64 = 200;

/// Past this a number is no longer exact in JavaScript, and no longer a valid sequence number.
pub(super) const MAX_SEQ: u64 = (1 << 53) - 1;

/// Longest revision, time, status or type name that is handed on, in bytes. The longest real one is
/// a time of 32.
pub(super) const MAX_NAME: usize = 64;

/// A `#commit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit<'a> {
    /// Place in the stream, above 0 and below 2^53.
    pub seq: u64,
    /// DID of the account.
    pub repo: &'a str,
    /// Revision of the commit.
    pub rev: &'a str,
    /// Revision of the commit before it, where the server tells.
    pub since: Option<&'a str>,
    /// Time of the event as the server wrote it.
    pub time: &'a str,
    /// CID of the commit block, in binary form.
    pub commit: &'a [u8; CID_LEN],
    /// CID of the tree root before this commit, in binary form; absent on a first commit.
    pub prev_data: Option<&'a [u8; CID_LEN]>,
    /// A CAR with the commit, the changed records and the tree nodes that prove them.
    pub blocks: &'a [u8],
    /// How many operations it has, on any path.
    pub ops: u64,
    /// What it does to the account's key package.
    pub op: Option<RecordOp<'a>>,
    /// The server left operations and blocks out (obsolete, still sent by some).
    pub too_big: bool,
}

/// What a commit does to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOp<'a> {
    /// It is new.
    Create {
        /// CID of the record block, in binary form.
        cid: &'a [u8; CID_LEN],
    },
    /// It replaces another.
    Update {
        /// CID of the record block, in binary form.
        cid: &'a [u8; CID_LEN],
    },
    /// It is gone.
    Delete,
}

/// A `#sync`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync<'a> {
    /// Place in the stream, above 0 and below 2^53.
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

/// An `#identity`. The handle in it is a claim that nobody checked, so it is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Place in the stream, above 0 and below 2^53.
    pub seq: u64,
    /// DID of the account.
    pub did: &'a str,
    /// Time of the event as the server wrote it.
    pub time: &'a str,
}

/// An `#account`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account<'a> {
    /// Place in the stream, above 0 and below 2^53.
    pub seq: u64,
    /// DID of the account.
    pub did: &'a str,
    /// Time of the event as the server wrote it.
    pub time: &'a str,
    /// Whether the server serves the account's records.
    pub active: bool,
    /// Why not, in an open vocabulary.
    pub status: Option<&'a str>,
}
