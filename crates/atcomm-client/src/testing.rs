//! What several tests of this crate need of its own types.

use atcomm_proto::clock::Timestamp;

use crate::wallet::enrolment::MessagingKey;

/// A new messaging key.
pub(crate) fn key() -> MessagingKey {
    MessagingKey::mint(Timestamp::from_millis(1_800_000_000_000))
}
