//! Frames of `com.atproto.sync.subscribeRepos`: a header and a payload, both DAG-CBOR.
//!
//! Envelopes are read leniently where this is harmless: unknown types and fields are accepted,
//! fields may be in any order, and an optional field of the wrong type counts as absent. An error
//! in one event, such as text that is not UTF-8, is told apart from a stream that cannot be
//! followed, since a new connection would receive the same event again.
//!
//! Source: atproto event stream and sync specifications.

mod error;
mod event;
mod fields;

use super::cbor::{CborError, CborReader, Item};

pub use self::error::{EventFault, FrameError, Framing};
pub use self::event::{
    Account, Commit, EventType, Identity, MAX_BLOCKS, MAX_OPS, MAX_SYNC_BLOCKS, RecordOp, Sync,
};
use self::event::{MAX_NAME, MAX_SEQ};
use self::fields::{Fields, cut, set};

/// Longest frame, in bytes (event stream specification).
pub const MAX_FRAME: usize = 5_000_000;

/// Longest message of a server that is kept, in bytes; it is logged.
const MAX_MESSAGE: usize = 512;

/// One frame. Of texts only the length is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A repository has a new commit.
    Commit(Commit<'a>),
    /// The state of a repository, without the changes.
    Sync(Sync<'a>),
    /// A DID document or handle may have changed.
    Identity(Identity<'a>),
    /// The status of an account at its PDS or relay has changed.
    Account(Account<'a>),
    /// Information about the stream, such as `OutdatedCursor`.
    Info {
        /// Name of the condition.
        name: &'a str,
        /// Message for people, cut to a length that fits a log line.
        message: Option<&'a str>,
    },
    /// The server ends the stream.
    Error {
        /// Name of the error, such as `FutureCursor`.
        error: &'a str,
        /// Message for people, cut to a length that fits a log line.
        message: Option<&'a str>,
    },
    /// A frame of an unknown type or operation. There is nothing to do, and the cursor may pass it.
    Unknown {
        /// Type in the header; empty if there is none.
        t: &'a str,
        /// Sequence number, if there is one.
        seq: Option<u64>,
    },
}

impl<'a> Frame<'a> {
    /// Reads one binary message of the stream.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        if bytes.len() > MAX_FRAME {
            return Err(FrameError::Framing(Framing::TooLarge));
        }
        let mut reader = CborReader::of_envelope(bytes);
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

/// Returns the DID in a message that cannot be read, if the DID stands before the fault.
pub fn account_of(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > MAX_FRAME {
        return None;
    }
    let mut reader = CborReader::of_envelope(bytes);
    read_header(&mut reader).ok()?;
    let mut fields = Fields::default();
    // The fault that makes the message unreadable.
    fields.fill(&mut reader).ok();
    fields.named_account()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Message,
    Error,
    Other,
}

fn read_header<'a>(reader: &mut CborReader<'a>) -> Result<(Op, &'a str), FrameError> {
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
