//! Events of the network's streams as values: firehose frames and Jetstream events.
//!
//! Nothing here keeps state. A frame borrows from the bytes that it was read from, and a frame
//! without a key package costs no allocation, since nearly all frames are of this kind.

pub mod cbor;
mod commit;
mod frame;
mod jetstream;

pub use self::commit::CommitObject;
pub use self::frame::{
    Account, Commit, EventFault, EventType, Frame, FrameError, Framing, Identity, MAX_BLOCKS,
    MAX_FRAME, MAX_OPS, MAX_SYNC_BLOCKS, RecordOp, Sync, account_of,
};
pub use self::jetstream::{JetstreamError, JetstreamEvent, JetstreamKind, MAX_EVENT};
