//! Axes of charts: where values and days stand, and which of them are labelled.
//!
//! Lengths are hundredths of a percent of the drawing area, so a chart is as wide as its place, and
//! its text keeps its size.

use std::fmt;

use chrono::{DateTime, Duration, NaiveDate};
use maud::Render;
use plotters::coord::ranged1d::{BoldPoints, Ranged};
use plotters::coord::types::{RangedCoordi64, RangedDate};
use plotters::prelude::IntoMonthly as _;

use crate::store::directory::Day;

/// The whole length of an axis.
pub(super) const WHOLE: i32 = 10_000;

/// Most labels of an axis of days: what a small screen has room for.
const MAX_DAYS: usize = 6;

/// Days from which on months are labelled rather than days.
const MONTHLY_FROM: i64 = 45;

/// Days from which on labels have a year rather than a day.
const YEARLY_FROM: i64 = 200;

/// A position or length on an axis, written as a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part(pub(super) i32);

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.div_euclid(100), self.0.rem_euclid(100));
        write!(f, "{whole}.{rest:02}%")
    }
}

impl Render for Part {
    fn render_to(&self, buffer: &mut String) {
        buffer.push_str(&self.to_string());
    }
}

/// An axis of numbers of accounts. It holds zero, and ends at a label in both directions.
pub(super) struct Scale {
    range: RangedCoordi64,
    ticks: Vec<i64>,
}

impl Scale {
    /// Makes an axis on which both values stand, with about `labels` labels.
    pub(super) fn new(low: i64, high: i64, labels: usize) -> Self {
        let (low, high) = (low.min(0), high.max(1));
        let points = RangedCoordi64::from(low..high).key_points(labels);
        let steps = points.windows(2).filter_map(|pair| match pair {
            [one, next] => next.checked_sub(*one),
            _ => None,
        });
        let step = steps.min().unwrap_or(high).max(1);
        let (first, last) = (low.div_euclid(step), (high - 1).div_euclid(step) + 1);
        Self {
            range: RangedCoordi64::from(first * step..last * step),
            ticks: (first..=last).map(|n| n * step).collect(),
        }
    }

    /// Returns where a value stands, from the low end.
    pub(super) fn at(&self, value: i64) -> Part {
        Part(self.range.map(&value, (0, WHOLE)))
    }

    /// Returns where a value stands, from the high end: down a page.
    pub(super) fn down(&self, value: i64) -> Part {
        Part(WHOLE - self.at(value).0)
    }

    /// Returns the values that are labelled, in order.
    pub(super) fn ticks(&self) -> &[i64] {
        &self.ticks
    }
}

/// An axis of days, each of which has the same length.
pub(super) struct DayAxis {
    first: NaiveDate,
    days: i64,
    range: RangedDate<NaiveDate>,
}

impl DayAxis {
    /// Makes an axis from the first moment of one day to the last of another.
    pub(super) fn new(first: Day, last: Day) -> Self {
        let (start, end) = (date(first), date(last.next()));
        Self {
            first: start,
            days: (end - start).num_days().max(1),
            range: RangedDate::from(start..end),
        }
    }

    /// Returns where a day begins.
    pub(super) fn start(&self, day: Day) -> Part {
        Part(self.range.map(&date(day), (0, WHOLE)))
    }

    /// Returns where a day ends.
    pub(super) fn end(&self, day: Day) -> Part {
        self.start(day.next())
    }

    /// Returns the middle of the labelled days, and their labels.
    pub(super) fn ticks(&self) -> Vec<(Part, String)> {
        let end = self.first + Duration::days(self.days);
        let days = if self.days < MONTHLY_FROM {
            self.range.key_points(MAX_DAYS)
        } else {
            // Without the days between them.
            (self.first..end).monthly().key_points(BoldPoints(MAX_DAYS))
        };
        let form = if self.days < YEARLY_FROM {
            "%-d %b"
        } else {
            "%b %Y"
        };
        let half = WHOLE / i32::try_from(2 * self.days).unwrap_or(WHOLE);
        days.into_iter()
            .filter(|day| self.first <= *day && *day < end)
            .map(|day| {
                let start = self.range.map(&day, (0, WHOLE));
                (Part(start + half), day.format(form).to_string())
            })
            .collect()
    }
}

fn date(day: Day) -> NaiveDate {
    // Every day is between 1970 and 9999.
    DateTime::from_timestamp_millis(day.start().millis())
        .unwrap_or_default()
        .date_naive()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(text: &str) -> Day {
        Day::parse(text).unwrap()
    }

    #[test]
    fn parts_are_written_as_percentages() {
        for (part, text) in [
            (0, "0.00%"),
            (5, "0.05%"),
            (WHOLE, "100.00%"),
            (3333, "33.33%"),
        ] {
            assert_eq!(Part(part).to_string(), text);
        }
    }

    #[test]
    fn numbers_are_labelled_in_round_steps() {
        for (low, high, ticks) in [
            (0, 0, &[0, 1][..]),
            (0, 4, &[0, 1, 2, 3, 4]),
            (0, 118, &[0, 50, 100, 150]),
            (-2, 7, &[-5, 0, 5, 10]),
            (-3, 4, &[-4, -2, 0, 2, 4]),
            (0, 1_234_567, &[0, 500_000, 1_000_000, 1_500_000]),
        ] {
            assert_eq!(Scale::new(low, high, 5).ticks(), ticks, "{low} to {high}");
        }
    }

    proptest! {
        #[test]
        fn a_scale_holds_its_values_and_few_labels(low in -5_000_000_000_i64..=0, high in 0_i64..5_000_000_000) {
            let scale = Scale::new(low, high, 5);
            let ticks = scale.ticks();
            prop_assert!((2..=12).contains(&ticks.len()), "{ticks:?}");
            prop_assert!(ticks.contains(&0), "{ticks:?}");
            prop_assert!(ticks[0] <= low && high <= ticks[ticks.len() - 1], "{ticks:?}");
            prop_assert!(scale.at(low) .0 >= 0 && scale.at(high).0 <= WHOLE);
            prop_assert_eq!(scale.at(ticks[0]), Part(0));
            prop_assert_eq!(scale.down(ticks[ticks.len() - 1]), Part(0));
        }
    }

    #[test]
    fn days_are_labelled_by_the_length_of_the_axis() {
        let labels = |first: &str, last: &str| -> Vec<String> {
            let ticks = DayAxis::new(day(first), day(last)).ticks();
            ticks.into_iter().map(|(_, label)| label).collect()
        };
        assert_eq!(labels("2026-12-01", "2026-12-01"), ["1 Dec"]);
        assert_eq!(
            labels("2026-11-29", "2026-12-01"),
            ["29 Nov", "30 Nov", "1 Dec"]
        );
        assert_eq!(
            labels("2026-09-03", "2026-12-01"),
            ["1 Oct", "1 Nov", "1 Dec"]
        );
        assert_eq!(
            labels("2025-11-24", "2026-12-01"),
            ["Dec 2025", "Mar 2026", "Jun 2026", "Sep 2026", "Dec 2026"]
        );
    }

    #[test]
    fn days_fill_the_axis_without_a_gap() {
        let (first, last) = (day("2026-12-28"), day("2027-01-02"));
        let axis = DayAxis::new(first, last);
        assert_eq!((axis.start(first), axis.end(last)), (Part(0), Part(WHOLE)));
        for n in 0..5 {
            assert_eq!(axis.end(first.plus(n)), axis.start(first.plus(n + 1)));
        }
        assert_eq!(axis.start(day("2026-12-31")), Part(WHOLE / 2));
        for (at, label) in axis.ticks() {
            assert!((0..=WHOLE).contains(&at.0), "{label} at {at}");
        }
    }
}
