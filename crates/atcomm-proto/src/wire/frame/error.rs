//! Errors of reading a frame.

use crate::wire::cbor::CborError;

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
    /// Over [`MAX_FRAME`](super::MAX_FRAME).
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
    /// Over [`MAX_BLOCKS`](super::MAX_BLOCKS) or [`MAX_SYNC_BLOCKS`](super::MAX_SYNC_BLOCKS).
    #[error("the blocks are too large")]
    BlocksTooLarge,
    /// Over [`MAX_OPS`](super::MAX_OPS).
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
