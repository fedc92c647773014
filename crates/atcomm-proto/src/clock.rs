//! Injected time: code that decides by the time takes a [`Clock`], so that its tests need not wait.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub mod serde;

/// A point in time, in milliseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Makes a time from milliseconds since 1970.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since 1970.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339 text with any offset and of any length; digits beyond milliseconds are cut
    /// off.
    ///
    /// More is accepted than the lexicon's `datetime` allows (`keypackage` checks that form): small
    /// letters, a blank for the `T`, the zone `-00:00` and leap seconds. A caller that reads
    /// untrusted text bounds its length first.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self(time.timestamp_millis()))
    }

    /// Returns this time moved forward by `d`, at most the end of the range.
    #[must_use]
    pub fn plus(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// Returns this time moved back by `d`, at most to the start of the range.
    #[must_use]
    pub fn minus(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// Returns the time passed since `earlier`, or zero when `earlier` lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// Writes RFC 3339 in UTC with milliseconds, a valid lexicon `datetime`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = chrono::DateTime::from_timestamp_millis(self.0).unwrap_or_default();
        f.write_str(&time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The fixed point of the system's monotonic time.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A source of time: the system's clock, or a clock that a test sets.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// Returns the clock of the system.
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns a clock that stands at `start` until [`advance`](Self::advance) moves it.
    pub fn manual(start: Timestamp) -> Self {
        Self {
            manual: Some(Arc::new(AtomicI64::new(start.millis()))),
        }
    }

    /// Returns the present time.
    pub fn now(&self) -> Timestamp {
        match &self.manual {
            Some(hand) => Timestamp(hand.load(Ordering::Relaxed)),
            None => {
                let since = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }

    /// Returns the time since a fixed point. Never goes back, even if the system's clock is set back.
    pub fn monotonic(&self) -> Duration {
        match &self.manual {
            Some(hand) => {
                Duration::from_millis(u64::try_from(hand.load(Ordering::Relaxed)).unwrap_or(0))
            }
            None => STARTED.elapsed(),
        }
    }

    /// Moves a manual clock forward. Has no effect on the system's clock.
    pub fn advance(&self, d: Duration) {
        if let Some(hand) = &self.manual {
            hand.fetch_add(
                i64::try_from(d.as_millis()).unwrap_or(i64::MAX),
                Ordering::Relaxed,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_by_hand_only() {
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        let start = clock.now();
        clock.advance(Duration::from_secs(90));
        assert_eq!(clock.now().since(start), Duration::from_secs(90));
        assert_eq!(start.since(clock.now()), Duration::ZERO);
        let before = clock.monotonic();
        clock.advance(Duration::from_secs(10));
        assert_eq!(clock.monotonic() - before, Duration::from_secs(10));
        assert_eq!(start.to_string(), "2023-11-14T22:13:20.000Z");
    }

    #[test]
    fn rfc_3339_is_read_with_any_offset_and_at_any_length() {
        let long = format!("2023-11-14T22:13:20.{}Z", "0".repeat(100));
        for (text, millis) in [
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
            ("2023-11-14T22:13:20-00:00", 1_700_000_000_000),
            ("2023-11-14t22:13:20z", 1_700_000_000_000),
            ("2023-11-14 22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T22:13:20.0019999Z", 1_700_000_000_001),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("0000-01-01T00:00:00+01:00", -62_167_222_800_000),
            (&long, 1_700_000_000_000),
        ] {
            let expected = Some(Timestamp::from_millis(millis));
            assert_eq!(Timestamp::parse_rfc3339(text), expected, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T24:00:00Z",
            "2023-02-29T00:00:00Z",
            "2023-11-14T22:13:20Z ",
            "1700000000000",
        ] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text:?}");
        }
    }
}
