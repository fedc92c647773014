//! Frames of `com.atproto.sync.subscribeRepos`: a header and a payload, both DAG-CBOR.
//!
//! Envelopes are read leniently where that is harmless: unknown types and fields are let through,
//! fields may stand in any order, and an optional field of the wrong type counts as absent. What is
//! wrong inside one event is told apart from a stream that cannot be followed, since a connection
//! dropped for one bad event meets the same event again.
//!
//! Source: atproto event stream and sync specifications.

mod fields;

use super::cbor::{CID_LEN, CborError, Item, Reader};

use self::fields::{Fields, cut, set};

/// Longest frame, in bytes (event stream specification).
pub const MAX_FRAME: usize = 5_000_000;

/// Most bytes of blocks in a `#commit` (lexicon of `subscribeRepos`).
pub const MAX_BLOCKS: usize = 2_000_000;

/// Most bytes of blocks in a `#sync`, which holds one commit object (lexicon of `subscribeRepos`).
pub const MAX_SYNC_BLOCKS: usize = 10_000;

/// Most operations of a `#commit` (lexicon of `subscribeRepos`).
pub const MAX_OPS: u64 = 200;

/// Past this a number is no longer exact in JavaScript, and no longer a valid sequence number.
const MAX_SEQ: u64 = (1 << 53) - 1;

/// Longest revision, time, status or type name that is handed on, in bytes. The longest real one is
/// a time of 32.
const MAX_NAME: usize = 64;

/// Longest message of a server that is handed on; it ends in a log.
const MAX_MESSAGE: usize = 512;

/// One frame. Text is checked for its length only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A repository has a new commit.
    Commit(Commit<'a>),
    /// A repository's state, with no word about what changed.
    Sync(Sync<'a>),
    /// A DID document or handle may have changed.
    Identity(Identity<'a>),
    /// An account's standing at its host changed.
    Account(Account<'a>),
    /// The server says something about the stream, such as `OutdatedCursor`.
    Info {
        /// Name of the condition.
        name: &'a str,
        /// For people; cut to a length that fits a log line.
        message: Option<&'a str>,
    },
    /// The server ends the stream.
    Error {
        /// Name of the error, such as `FutureCursor`.
        error: &'a str,
        /// For people; cut to a length that fits a log line.
        message: Option<&'a str>,
    },
    /// A type or operation that is not known: nothing to do, and the cursor may pass it.
    Unknown {
        /// Type as the header names it; empty where it names none.
        t: &'a str,
        /// Its place in the stream, where it has one.
        seq: Option<u64>,
    },
}

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

/// Why a frame gave no value, by what the reader of the stream has to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The stream cannot be followed: drop the connection.
    #[error("bad framing: {0}")]
    Framing(Framing),
    /// One event is not as it must be: count it, pass it, and look at the DID again.
    #[error("bad event {seq}: {fault}")]
    Event {
        /// Place in the stream; the cursor may pass it once the look is owed.
        seq: u64,
        /// The account, where the event names one of a possible length.
        did: Option<String>,
        /// The rule that it breaks.
        fault: EventFault,
    },
}

impl FrameError {
    /// Stable code for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Framing(framing) => framing.reason(),
            Self::Event { fault, .. } => fault.reason(),
        }
    }
}

/// How a stream fails to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Framing {
    /// Over [`MAX_FRAME`].
    #[error("the frame is larger than 5,000,000 bytes")]
    TooLarge,
    /// Header or payload are not DAG-CBOR.
    #[error("{0}")]
    Cbor(CborError),
    /// The header has no operation, or no type where the operation asks for one.
    #[error("the header lacks op or t")]
    Header,
    /// The payload of a known type is not a map.
    #[error("the payload is not a map")]
    Payload,
    /// A field stands twice, so that two readers could see two different events.
    #[error("a field stands twice")]
    DuplicateField,
    /// The event has no place in the stream.
    #[error("the sequence number is missing or out of range")]
    Seq,
}

impl Framing {
    /// Stable code for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "frame_too_large",
            Self::Cbor(error) => error.reason(),
            Self::Header => "header",
            Self::Payload => "payload",
            Self::DuplicateField => "duplicate_field",
            Self::Seq => "seq",
        }
    }
}

impl From<CborError> for FrameError {
    fn from(error: CborError) -> Self {
        Self::Framing(Framing::Cbor(error))
    }
}

/// What is wrong with one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EventFault {
    /// A required field is missing, of another type or of an impossible length.
    #[error("the field {0} is missing, of another type or too long")]
    Field(&'static str),
    /// Over [`MAX_BLOCKS`] or [`MAX_SYNC_BLOCKS`].
    #[error("the blocks are too large")]
    BlocksTooLarge,
    /// Over [`MAX_OPS`].
    #[error("it has more than 200 operations")]
    TooManyOps,
    /// The operation on the key package has no known action or not the CID that goes with it, or
    /// there are two of them.
    #[error("the operation on the key package is malformed")]
    Operation,
}

impl EventFault {
    /// Stable code for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Field(_) => "field",
            Self::BlocksTooLarge => "blocks_too_large",
            Self::TooManyOps => "too_many_ops",
            Self::Operation => "operation",
        }
    }
}

impl<'a> Frame<'a> {
    /// Reads one binary message of the stream.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        if bytes.len() > MAX_FRAME {
            return Err(FrameError::Framing(Framing::TooLarge));
        }
        let mut reader = Reader::new(bytes);
        let (op, t) = read_header(&mut reader)?;
        let known = op == Op::Error
            || op == Op::Message
                && matches!(t, "#commit" | "#sync" | "#identity" | "#account" | "#info");
        let fields = Fields::read(&mut reader)?;
        if !reader.is_empty() {
            return Err(CborError::Trailing.into());
        }
        let Some(fields) = fields else {
            return if known {
                Err(FrameError::Framing(Framing::Payload))
            } else {
                Ok(Self::Unknown { t, seq: None })
            };
        };
        match (op, t) {
            (Op::Message, "#commit") => fields.commit().map(Self::Commit),
            (Op::Message, "#sync") => fields.sync().map(Self::Sync),
            (Op::Message, "#identity") => fields.identity().map(Self::Identity),
            (Op::Message, "#account") => fields.account().map(Self::Account),
            (Op::Message, "#info") => Ok(Self::Info {
                name: cut(fields.name.unwrap_or_default(), MAX_NAME),
                message: fields.message.map(|m| cut(m, MAX_MESSAGE)),
            }),
            (Op::Error, _) => Ok(Self::Error {
                error: cut(fields.error.unwrap_or_default(), MAX_NAME),
                message: fields.message.map(|m| cut(m, MAX_MESSAGE)),
            }),
            _ => Ok(Self::Unknown {
                t,
                seq: fields.seq.filter(|seq| (1..=MAX_SEQ).contains(seq)),
            }),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Message,
    Error,
    Other,
}

fn read_header<'a>(reader: &mut Reader<'a>) -> Result<(Op, &'a str), FrameError> {
    let header = FrameError::Framing(Framing::Header);
    let Some(pairs) = reader.map()? else {
        return Err(header);
    };
    let (mut op, mut t) = (None, None);
    for _ in 0..pairs {
        match reader.key()? {
            "op" => {
                let value = match reader.item()? {
                    Item::Unsigned(1) => Op::Message,
                    Item::Negative(0) => Op::Error,
                    Item::Unsigned(_) | Item::Negative(_) => Op::Other,
                    _ => return Err(header),
                };
                set(&mut op, Some(value))?;
            }
            "t" => {
                let value = reader.text()?;
                set(&mut t, value)?;
            }
            _ => reader.skip()?,
        }
    }
    match (op, t) {
        (Some(Op::Message), None) | (None, _) => Err(header),
        (_, Some(t)) if t.len() > MAX_NAME => Err(header),
        (Some(op), t) => Ok((op, t.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests;
