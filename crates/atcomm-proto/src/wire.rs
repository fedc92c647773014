//! What arrives from the network's streams, as values: firehose frames and Jetstream events.
//!
//! Nothing here decides or remembers. A frame borrows from the bytes that it was read from, and
//! one that does not concern us costs no allocation, since that is nearly all of them.

pub mod cbor;
mod frame;
mod jetstream;

pub use self::frame::{
    Account, Commit, EventFault, Frame, FrameError, Framing, Identity, MAX_BLOCKS, MAX_FRAME,
    MAX_OPS, MAX_SYNC_BLOCKS, RecordOp, Sync,
};
pub use self::jetstream::{JetstreamError, JetstreamEvent, JetstreamKind, MAX_EVENT};
