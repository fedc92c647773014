//! A day in UTC.

use std::fmt;

use rusqlite::{Row, types};

use super::super::super::columns::UnknownWord;
use atcomm_proto::clock::Timestamp;

/// Milliseconds of a day.
const MILLIS: i64 = 24 * 3600 * 1000;

/// The last day that is written in ten characters, 9999-12-31.
const LAST: i64 = 2_932_896;

/// A day in UTC, written as `2026-12-01`. Days before 1970 and after 9999 are not told apart from
/// the first and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

impl Day {
    /// Returns the day of a time.
    pub fn of(at: Timestamp) -> Self {
        let days = at.millis().div_euclid(MILLIS).clamp(0, LAST);
        Self(i32::try_from(days).unwrap_or_default())
    }

    /// Reads a day as it is written.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 10 {
            return None;
        }
        let at = Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z"))?;
        Some(Self::of(at)).filter(|day| day.to_string() == text)
    }

    /// Returns the first moment of the day.
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(i64::from(self.0) * MILLIS)
    }

    /// Returns the first moment after the day.
    pub fn end(self) -> Timestamp {
        self.next().start()
    }

    /// Returns the day after this one.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// Returns the day some days later, or earlier.
    #[must_use]
    pub fn plus(self, days: i32) -> Self {
        let last = i32::try_from(LAST).unwrap_or(i32::MAX);
        Self(self.0.saturating_add(days).clamp(0, last))
    }

    /// Returns the Monday of the week.
    #[must_use]
    pub fn week(self) -> Self {
        // The first of January 1970 was a Thursday.
        self.plus(-(self.0 + 3).rem_euclid(7))
    }

    /// Returns the number of days from `earlier` to this one.
    pub fn since(self, earlier: Self) -> i32 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start().to_string();
        f.write_str(start.get(..10).unwrap_or_default())
    }
}

/// Reads a day in the first column, if there is one.
pub(super) fn maybe_day(row: &Row<'_>) -> Result<Option<Day>, rusqlite::Error> {
    let text: Option<String> = row.get(0)?;
    text.map(|text| read(0, &text)).transpose()
}

/// Reads a column of a day.
pub(super) fn day(row: &Row<'_>, column: usize) -> Result<Day, rusqlite::Error> {
    let text: String = row.get(column)?;
    read(column, &text)
}

fn read(column: usize, text: &str) -> Result<Day, rusqlite::Error> {
    Day::parse(text).ok_or_else(|| {
        let unknown = Box::new(UnknownWord(text.to_owned()));
        rusqlite::Error::FromSqlConversionFailure(column, types::Type::Text, unknown)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_in_order_and_read_back() {
        let at = Timestamp::parse_rfc3339("2027-02-28T23:59:59.999Z").unwrap();
        let day = Day::of(at);
        assert_eq!(day.to_string(), "2027-02-28");
        assert_eq!(day.next().to_string(), "2027-03-01");
        assert_eq!(day.end().since(at).as_millis(), 1);
        assert_eq!(Day::of(day.end()), day.next());
        assert_eq!(Day::parse("2027-02-28"), Some(day));
        for text in ["", "2027-02-29", "2027-2-28", "1969-12-31", "2027-02-28Z"] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
        let last = Day::of(Timestamp::from_millis(i64::MAX));
        assert_eq!(last.to_string(), "9999-12-31");
        assert_eq!(last.next(), last);
        assert_eq!(day.week().to_string(), "2027-02-22");
        assert_eq!(day.next().week(), day.next());
        assert!("2027-02-28" < "2027-03-01" && Day::of(Timestamp::from_millis(-1)) < day);
    }
}
