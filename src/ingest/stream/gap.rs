//! Missed events, and the time in which none was missed.

use atcomm_proto::clock::Timestamp;

/// The interval in which the stream is proven to have missed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Covered {
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

impl Covered {
    pub(super) fn at(now: Timestamp) -> Self {
        Self {
            since: now,
            until: now,
        }
    }
}

/// Why events were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GapReason {
    /// The stream was interrupted before it had a place.
    NoCursor,
    /// The host says that the cursor is older than what it keeps.
    Outdated,
    /// The stream continues behind the stored event.
    Hole,
    /// The host counts its events anew.
    Renumbered,
    /// The cursor lies in the host's future.
    FutureCursor,
    /// The stored event did not come again.
    NotRepeated,
    /// The stream continues behind a message that could not be received.
    TooLarge,
    /// The stream cannot be read past its position.
    Unreadable,
    /// The host cannot be reached for long.
    Unreachable,
}

impl GapReason {
    /// Returns a stable code for metrics and the store.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::NoCursor => "no_cursor",
            Self::Outdated => "outdated",
            Self::Hole => "hole",
            Self::Renumbered => "renumbered",
            Self::FutureCursor => "future_cursor",
            Self::NotRepeated => "not_repeated",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Missed events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) reason: GapReason,
    /// The position of the stream before the gap.
    pub(super) position: Option<i64>,
    /// The last moment before the gap that is proven.
    pub(super) since: Timestamp,
}
