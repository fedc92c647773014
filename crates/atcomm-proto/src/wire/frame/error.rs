//! Errors of reading a frame.

use super::event::EventType;
use crate::wire::cbor::CborError;

/// Errors of reading a frame, by what the consumer of the stream must do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The stream cannot be followed: drop the connection.
    #[error("bad framing: {0}")]
    Framing(#[source] Framing),
    /// One event is invalid: count it, pass it, and refresh the account.
    #[error("bad event {seq}: {fault}")]
    Event {
        /// Sequence number; the cursor may pass it once the refresh is enqueued.
        seq: u64,
        /// DID of the account, if the event names one of a possible length.
        did: Option<String>,
        /// The type of the event, which says what may have changed.
        event: EventType,
        /// The rule that the event breaks.
        #[source]
        fault: EventFault,
    },
}

impl FrameError {
    /// Returns a stable code for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Framing(framing) => framing.reason(),
            Self::Event { fault, .. } => fault.reason(),
        }
    }
}

/// Errors that make a stream unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Framing {
    /// The frame is larger than [`MAX_FRAME`](super::MAX_FRAME).
    #[error("the frame is larger than 5,000,000 bytes")]
    TooLarge,
    /// Header or payload are not DAG-CBOR.
    #[error("{0}")]
    Cbor(#[source] CborError),
    /// The header has no operation, or lacks the type that the operation requires.
    #[error("the header lacks op or t")]
    Header,
    /// The payload of a known type is not a map.
    #[error("the payload is not a map")]
    Payload,
    /// A field appears twice, so two readers could see different events.
    #[error("a field stands twice")]
    DuplicateField,
    /// The event has no valid sequence number.
    #[error("the sequence number is missing or out of range")]
    Seq,
}

impl Framing {
    /// Returns a stable code for metrics.
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

/// Errors of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EventFault {
    /// A required field is missing, of another type or of an impossible length, or its text is not
    /// UTF-8.
    #[error("the field {0} is missing, of another type, too long or not UTF-8")]
    Field(&'static str),
    /// A text elsewhere in the event is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// The blocks are larger than [`MAX_BLOCKS`](super::MAX_BLOCKS) or
    /// [`MAX_SYNC_BLOCKS`](super::MAX_SYNC_BLOCKS).
    #[error("the blocks are too large")]
    BlocksTooLarge,
    /// The commit has more than [`MAX_OPS`](super::MAX_OPS) operations.
    #[error("it has more than 200 operations")]
    TooManyOps,
    /// The operation on the key package has an unknown action or lacks the CID of its action, or
    /// there are two such operations.
    #[error("the operation on the key package is malformed")]
    Operation,
}

impl EventFault {
    /// Returns a stable code for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Field(_) => "field",
            Self::Text => "text",
            Self::BlocksTooLarge => "blocks_too_large",
            Self::TooManyOps => "too_many_ops",
            Self::Operation => "operation",
        }
    }
}
