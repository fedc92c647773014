//! Which messages one delivery or push holds: as many as its bytes allow and as there is memory for,
//! decided by their lengths before any body is read.

use std::time::Duration;

use super::Refused;
use super::response_memory::{Exhausted, ResponsePermit};

/// Bytes of message bodies in one delivery or push; one message at least is handed out.
const MAX_BODIES: u64 = 2 << 20;

/// `Retry-After` for a client whose mail finds no memory. Answers that are read are gone sooner, and
/// those that are not read are cut off within a minute.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How messages are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// As they were sent.
    Bare,
    /// As attachments of one encrypted delivery.
    Delivery,
}

/// One delivery that is put together.
pub(super) struct DeliveryRoom {
    wrapping: Wrapping,
    permit: ResponsePermit,
    bodies: u64,
    refused: Option<NoRoom>,
}

/// The first message of a delivery finds no memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoRoom {
    exhausted: Exhausted,
    /// Memory that the message needs, in bytes.
    pub(super) len: usize,
}

impl DeliveryRoom {
    pub(super) fn new(wrapping: Wrapping, permit: ResponsePermit) -> Self {
        Self {
            wrapping,
            permit,
            bodies: 0,
            refused: None,
        }
    }

    /// Adds a message by the length of its body. Returns whether it is a part of the delivery; after
    /// one that is none, no further message is asked about.
    pub(super) fn take(&mut self, body: u64) -> bool {
        let bodies = self.bodies.saturating_add(body);
        if bodies > MAX_BODIES && self.bodies > 0 {
            return false;
        }
        let mut len = self.wrapping.len_of(body);
        if self.bodies == 0 {
            len += self.wrapping.len_without_messages();
        }
        match self.permit.grow(len) {
            Ok(()) => {
                self.bodies = bodies;
                true
            }
            Err(exhausted) if self.bodies == 0 => {
                self.refused = Some(NoRoom { exhausted, len });
                false
            }
            // What has found memory is handed out now, and the rest later.
            Err(_) => false,
        }
    }

    /// Returns the memory that was taken, or the reason why not even one message found any.
    pub(super) fn finish(self) -> Result<ResponsePermit, (NoRoom, ResponsePermit)> {
        match self.refused {
            None => Ok(self.permit),
            Some(refused) => Err((refused, self.permit)),
        }
    }
}

impl From<NoRoom> for Refused {
    fn from(refused: NoRoom) -> Self {
        refused.exhausted.into()
    }
}

impl From<Exhausted> for Refused {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted {
            Exhausted::Own => Self::OwnAnswersUnread(RETRY_AFTER),
            Exhausted::Total => Self::AnswersUnread(RETRY_AFTER),
        }
    }
}

impl Wrapping {
    /// Returns an upper bound of the bytes that a message with a body of this length takes.
    pub(super) fn len_of(self, body: u64) -> usize {
        let body = usize::try_from(body).unwrap_or(usize::MAX);
        match self {
            Self::Bare => body.saturating_add(256),
            // As base64 and as JSON, with the names around.
            Self::Delivery => in_base64(body.saturating_mul(7).div_ceil(3).saturating_add(256)),
        }
    }

    fn len_without_messages(self) -> usize {
        match self {
            Self::Bare => 0,
            Self::Delivery => ENVELOPE_LEN,
        }
    }
}

/// Bytes of an encrypted answer without its content. Most of them are DIDs that contain their keys.
const ENVELOPE_LEN: usize = 4 * 1024;

/// Returns an upper bound of the length of an encrypted answer with this much content.
pub(super) fn encrypted_len(content: usize) -> usize {
    in_base64(content).saturating_add(ENVELOPE_LEN)
}

fn in_base64(len: usize) -> usize {
    len.saturating_mul(4).div_ceil(3)
}
