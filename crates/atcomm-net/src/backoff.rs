//! Waits between attempts. They double with every failure in a row, and are spread so that attempts
//! that failed together are not repeated together.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// Most doublings of the first step: 2^20 times any first step exceeds every bound in use.
const MAX_DOUBLINGS: u32 = 20;

/// The waits after one, two, three failures in a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The step after the first failure. Each further failure doubles it.
    pub first: Duration,
    /// The longest step.
    pub longest: Duration,
    /// The range around a step from which the wait is taken.
    pub jitter: Jitter,
}

impl Backoff {
    /// Returns the step after a number of failures in a row, without jitter. Zero failures count as
    /// one.
    pub fn step(&self, failures: u32) -> Duration {
        self.first
            .saturating_mul(1 << failures.saturating_sub(1).min(MAX_DOUBLINGS))
            .min(self.longest)
    }

    /// Returns the wait after a number of failures in a row.
    pub fn wait(&self, failures: u32, spread: Spread) -> Duration {
        self.jitter.apply(self.step(failures), spread)
    }
}

/// A range around a step, as multiples of the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter {
    least: f64,
    most: f64,
}

impl Jitter {
    /// The range that holds the step only.
    pub const NONE: Self = Self::between(1.0, 1.0);

    /// Returns the range from `least` to `most` times the step.
    pub const fn between(least: f64, most: f64) -> Self {
        Self { least, most }
    }

    /// Returns the wait for a step.
    pub fn apply(self, step: Duration, spread: Spread) -> Duration {
        let range = times(step, self.most - self.least);
        times(step, self.least).saturating_add(spread.part(range))
    }
}

/// A position in a range, from 0 at its start to 1 at its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread(f64);

impl Spread {
    /// The middle of the range.
    pub const MIDDLE: Self = Self(0.5);

    /// Returns a fixed position, clamped to the range.
    pub const fn at(place: f64) -> Self {
        Self(place.clamp(0.0, 1.0))
    }

    /// Returns a new position each time, drawn from the system's random numbers. Without random
    /// numbers every position is the start of the range, so the waits are the shortest ones.
    pub fn random() -> Self {
        // A float holds exactly 53 bits.
        let bits = getrandom::u64().unwrap_or_default() >> 11;
        Self(bits as f64 / (1_u64 << 53) as f64)
    }

    /// Returns the same position for the same name each time; the positions of all names are spread
    /// evenly. Pure functions of stored data use this one.
    pub fn of(name: &str) -> Self {
        let digest = Sha256::digest(name);
        let number = u16::from_be_bytes([digest[0], digest[1]]);
        Self(f64::from(number) / f64::from(u16::MAX))
    }

    /// Returns this fraction of a duration.
    pub fn part(self, whole: Duration) -> Duration {
        times(whole, self.0)
    }
}

/// Multiplies a duration; returns it unchanged where the product is not a duration.
fn times(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Backoff = Backoff {
        first: Duration::from_secs(60),
        longest: Duration::from_secs(3600),
        jitter: Jitter::between(0.5, 1.0),
    };

    #[test]
    fn steps_double_up_to_the_longest() {
        let seconds = [0, 1, 2, 3, 6, 7, 8, 11, 12, 21, 22, u32::MAX];
        let steps = seconds.map(|failures| HALF.step(failures).as_secs());
        let longest = 3600;
        assert_eq!(
            steps,
            [
                60, 60, 120, 240, 1920, longest, longest, longest, longest, longest, longest,
                longest
            ]
        );
    }

    #[test]
    fn waits_stay_in_the_range_of_their_jitter() {
        let wait = |place| HALF.wait(2, Spread::at(place));
        assert_eq!(wait(0.0), Duration::from_secs(60));
        assert_eq!(wait(0.5), Duration::from_secs(90));
        assert_eq!(wait(1.0), Duration::from_secs(120));
        assert_eq!((wait(-1.0), wait(2.0)), (wait(0.0), wait(1.0)));
        for _ in 0..1000 {
            let wait = HALF.wait(2, Spread::random());
            assert!(wait >= Duration::from_secs(60) && wait <= Duration::from_secs(120));
        }
        let plain = Backoff {
            jitter: Jitter::NONE,
            ..HALF
        };
        assert_eq!(plain.wait(2, Spread::random()), plain.step(2));
    }

    #[test]
    fn random_places_differ_and_those_of_a_name_do_not() {
        let places = || (0..100).map(|_| Spread::random().0);
        assert!(places().all(|place| (0.0..1.0).contains(&place)));
        assert!(places().any(|place| place < 0.5) && places().any(|place| place >= 0.5));
        let names = ["did:plc:a", "did:plc:b", "did:plc:c"];
        assert_eq!(names.map(Spread::of), names.map(Spread::of));
        assert_ne!(Spread::of(names[0]), Spread::of(names[1]));
        // Stored times depend on this hash: that of the first name begins with 4e3b.
        let place = f64::from(0x4e3b_u16) / f64::from(u16::MAX);
        assert_eq!(Spread::of(names[0]), Spread(place));
    }

    #[test]
    fn no_duration_is_too_long() {
        let endless = Backoff {
            first: Duration::MAX,
            longest: Duration::MAX,
            jitter: Jitter::between(0.5, 1.5),
        };
        assert_eq!(endless.wait(u32::MAX, Spread::at(1.0)), Duration::MAX);
    }
}
