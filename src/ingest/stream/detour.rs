//! The way past a message that is too large to be received: later numbers are asked for, the next
//! one first and then twice as far each time. The distance that is passed over is less than twice
//! what has to be.

/// Attempts at one position: 2^23 numbers are more than a relay's hours.
const MAX_ATTEMPTS: u32 = 24;

/// The attempts at the present position.
#[derive(Debug, Default)]
pub(super) struct Detour {
    attempts: u32,
}

impl Detour {
    /// Begins the next attempt. Returns whether there is one.
    pub(super) fn again(&mut self) -> bool {
        self.attempts += 1;
        if self.attempts > MAX_ATTEMPTS {
            self.attempts = 0;
        }
        self.is_made()
    }

    /// Returns whether the next connection asks for later numbers.
    pub(super) fn is_made(&self) -> bool {
        self.attempts > 0
    }

    /// Returns the cursor of the next connection, where it asks for later numbers than those behind
    /// `seq`.
    pub(super) fn cursor(&self, seq: i64) -> Option<i64> {
        let doublings = self.attempts.checked_sub(1)?;
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
        for cursor in [8, 9, 11, 15, 23] {
            assert!(detour.again());
            assert_eq!(detour.cursor(7), Some(cursor));
        }
        let more = (0..100).take_while(|_| detour.again()).count();
        assert_eq!(more, 19);
        assert_eq!(detour.cursor(i64::MAX), None);
        detour.again();
        assert_eq!(detour.cursor(i64::MAX), Some(i64::MAX));
    }
}
