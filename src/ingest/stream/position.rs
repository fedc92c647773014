//! A place in a stream: an event that was received, and what it is recognised by.

use std::fmt;

use atcomm_proto::clock::Timestamp;
use sha2::{Digest as _, Sha256};

/// A number below this is a Jetstream's own number of an event, and one above it is a time in
/// microseconds (Jetstream, version 2).
const FIRST_TIME_US: i64 = 1_000_000_000_000_000;

/// Longest host's time that is kept as a mark, in bytes. The longest in use is 32.
const MAX_TIME_LEN: usize = 64;

/// Returns whether the place of a Jetstream is a number of its own, and not a time.
pub(super) fn is_number(seq: i64) -> bool {
    seq < FIRST_TIME_US
}

/// The place of an event in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// Sequence number; of a Jetstream without numbers the time in microseconds.
    pub(super) seq: i64,
    /// What tells the event there from another one in the same place; `None`: unknown.
    pub(super) mark: Option<String>,
}

impl Position {
    /// Returns whether an event in this place is the one that was received.
    pub(super) fn is_marked(&self, mark: Mark<'_>) -> bool {
        let same = |stored: &String| *stored == mark.to_string();
        self.mark.as_ref().is_none_or(same)
    }

    /// Returns the host's time of the event, where it is known.
    pub(super) fn time(&self) -> Option<Timestamp> {
        let mark = self.mark.as_deref()?;
        match mark.split_once('#') {
            Some((micros, _)) => micros.parse().ok().map(from_micros),
            None => Timestamp::parse_rfc3339(mark),
        }
    }
}

/// What tells an event from another one in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// The host's own time, as the host wrote it.
    Time(&'a str),
    /// A hash of what the event says, with the host's time in microseconds where it is known.
    Hash(Option<i64>, [u8; 8]),
}

impl<'a> Mark<'a> {
    /// Returns the mark of a frame, by its time where that can be read.
    pub(super) fn of_frame(time: Option<&'a str>, bytes: &[u8]) -> Self {
        let readable =
            |time: &&str| time.len() <= MAX_TIME_LEN && Timestamp::parse_rfc3339(time).is_some();
        match time.filter(readable) {
            Some(time) => Self::Time(time),
            None => Self::Hash(None, short_hash(&[bytes])),
        }
    }

    /// Returns the mark of a Jetstream's event, by the parts of it that a host repeats as they
    /// were.
    pub(super) fn of_jetstream(time_us: u64, parts: &[&[u8]]) -> Self {
        Self::Hash(i64::try_from(time_us).ok(), short_hash(parts))
    }

    /// Returns the host's time, where it is known.
    pub(super) fn time(self) -> Option<Timestamp> {
        match self {
            Self::Time(time) => Timestamp::parse_rfc3339(time),
            Self::Hash(micros, _) => micros.map(from_micros),
        }
    }
}

impl fmt::Display for Mark<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => f.write_str(time),
            Self::Hash(micros, hash) => {
                if let Some(micros) = micros {
                    write!(f, "{micros}")?;
                }
                write!(f, "#{:016x}", u64::from_be_bytes(*hash))
            }
        }
    }
}

fn from_micros(micros: i64) -> Timestamp {
    Timestamp::from_millis(micros / 1000)
}

/// Returns the beginning of the hash of several parts.
fn short_hash(parts: &[&[u8]]) -> [u8; 8] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(0).to_be_bytes());
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut short = [0; 8];
    short.copy_from_slice(hash.first_chunk::<8>().unwrap_or(&[0; 8]));
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_recognised_by_its_time_or_by_what_it_says() {
        let noon = "2026-01-01T12:00:00Z";
        let times = [
            (
                Mark::of_frame(Some(noon), b"x"),
                Timestamp::parse_rfc3339(noon),
            ),
            (Mark::of_frame(Some("tomorrow"), b"x"), None),
            (Mark::of_frame(None, b"x"), None),
            (
                Mark::of_jetstream(1_800_000_000_000_123, &[b"x"]),
                Some(Timestamp::from_millis(1_800_000_000_000)),
            ),
        ];
        for (mark, time) in times {
            let stored = Position {
                seq: 7,
                mark: Some(mark.to_string()),
            };
            assert_eq!((mark.time(), stored.time()), (time, time), "{mark}");
            assert!(stored.is_marked(mark));
            for other in [
                Mark::Time("2026-01-01T12:00:01Z"),
                Mark::of_frame(None, b"y"),
                Mark::of_jetstream(1_800_000_000_000_123, &[b"y"]),
                Mark::of_jetstream(1_800_000_000_000_124, &[b"x"]),
            ] {
                assert!(!stored.is_marked(other), "{mark} {other}");
            }
            let unknown = Position { seq: 7, mark: None };
            assert!(unknown.is_marked(mark) && unknown.time().is_none());
        }
        // Parts do not run together.
        let parts = |parts: &[&[u8]]| Mark::of_jetstream(1, parts);
        assert_ne!(parts(&[b"ab", b"c"]), parts(&[b"a", b"bc"]));
    }
}
