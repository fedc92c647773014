//! The way past a message that is too large to be received.
//!
//! The same place is asked for once more: the message may have had none, as what a host says of
//! itself. Where it comes again later numbers are asked for, the next one first and then twice as
//! far each time. The distance that is passed over is less than twice what has to be.

use std::time::{Duration, Instant};

/// Attempts at one position: 2^23 numbers are more than a relay's hours.
const MAX_ATTEMPTS: u32 = 25;

/// Longest time that a connection behind the message may be silent. What the message held is
/// missed, whether or not another event follows it.
const SILENCE: Duration = Duration::from_secs(15);

/// The attempts at the present position.
#[derive(Debug, Default)]
pub(super) struct Detour {
    attempts: u32,
    deadline: Option<Instant>,
}

impl Detour {
    /// Begins the next attempt. Returns whether there is one.
    pub(super) fn again(&mut self) -> bool {
        self.attempts += 1;
        self.deadline = None;
        if self.attempts > MAX_ATTEMPTS {
            self.attempts = 0;
        }
        self.attempts > 0
    }

    /// Returns whether the next connection asks for later numbers.
    pub(super) fn is_made(&self) -> bool {
        self.attempts > 1
    }

    /// A connection stands.
    pub(super) fn on_connect(&mut self, at: Instant) {
        self.deadline = self.is_made().then(|| at + SILENCE);
    }

    /// Returns until when an event shows where the connection has continued.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns the cursor of the next connection, where it asks for later numbers than those behind
    /// `seq`.
    pub(super) fn cursor(&self, seq: i64) -> Option<i64> {
        let doublings = self.attempts.checked_sub(2)?;
        Some(seq.saturating_add(1 << doublings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_doubles_and_the_attempts_end() {
        let mut detour = Detour::default();
        assert_eq!(detour.cursor(7), None);
        assert!(detour.again());
        assert_eq!((detour.cursor(7), detour.is_made()), (None, false));
        for cursor in [8, 9, 11, 15, 23] {
            assert!(detour.again());
            assert_eq!(detour.cursor(7), Some(cursor));
        }
        let more = (0..100).take_while(|_| detour.again()).count();
        assert_eq!(more, 19);
        assert_eq!(detour.cursor(i64::MAX), None);
        assert!(detour.again() && detour.again());
        assert_eq!(detour.cursor(i64::MAX), Some(i64::MAX));
    }
}
