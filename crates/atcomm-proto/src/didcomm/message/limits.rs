//! Limits of a message.

/// Longest id of a message, thread or attachment, in bytes: ids are stored, compared and echoed.
pub const MAX_ID: usize = 256;

/// Longest message type, in bytes.
pub const MAX_TYPE: usize = 512;

/// Longest DID in a header or body, in bytes; the long form of a did:peer:4 is among the longest.
pub const MAX_DID: usize = 4096;

/// Most recipients of one message.
pub const MAX_TO: usize = 32;

/// Most messages that one message acknowledges in its header.
pub const MAX_ACK: usize = 100;

/// Most attachments of one message.
pub const MAX_ATTACHMENTS: usize = 1000;
