//! Disclosure control: which numbers a dataset shows, and how they are rounded.
//!
//! A number is rounded to a multiple of the threshold, up or down. The step from one multiple to the
//! next is at a place that a key decides, one for each step of each number, and that place is the
//! same on every day and in every dataset. So
//!
//! - the same number is always shown in the same way: a second look, on another day or in a later
//!   dataset, tells nothing that the first did not;
//! - a change by one is seen only where it crosses a place that is not known, and then says only that
//!   the number has come past it;
//! - the mean of many numbers stays right: a number between two multiples is rounded up as often as
//!   it is nearer to the upper one.
//!
//! A number of accounts that comes to less than twice the threshold is not shown at all. It is shown
//! from some place on that lies above the threshold, so nothing of a group at or below it is ever
//! shown, and no step there. What happened on a day is shown only beside the number of accounts that
//! it belongs to. Totals are rounded like the groups: the rest that is left when groups are
//! subtracted from a total is known only as exactly as all of these together.

use sha2::{Digest as _, Sha256};

use crate::store::directory::Day;

/// The rounding of one dataset.
pub(super) struct Rounding {
    key: [u8; 32],
    threshold: u64,
}

/// What a number counts.
#[derive(Clone, Copy)]
pub(super) struct Cell<'c> {
    /// The table, or the kind of a group.
    pub(super) of: &'c str,
    /// The group, or the source; empty: all accounts.
    pub(super) name: &'c str,
    /// The column.
    pub(super) column: &'c str,
}

impl Rounding {
    /// Rounds to multiples of `threshold`; with 1 every number is shown as it is.
    pub(super) fn new(key: [u8; 32], threshold: u32) -> Self {
        Self {
            key,
            threshold: u64::from(threshold.max(1)),
        }
    }

    /// Returns the smallest number of accounts that is shown.
    pub(super) fn smallest(&self) -> u64 {
        if self.threshold == 1 {
            0
        } else {
            2 * self.threshold
        }
    }

    /// Returns how a number of accounts is shown, or `None` where it is not.
    pub(super) fn accounts(&self, cell: Cell<'_>, count: i64) -> Option<u64> {
        let count = u64::try_from(count).ok()?;
        // Never shown, so the place of the step need not be known.
        if self.threshold > 1 && count <= self.threshold {
            return None;
        }
        Some(self.round(cell, None, count)).filter(|shown| *shown >= self.smallest())
    }

    /// Returns how a number of what happened on a day is shown.
    pub(super) fn happened(&self, cell: Cell<'_>, day: Day, count: i64) -> Option<u64> {
        let count = u64::try_from(count).ok()?;
        Some(self.round(cell, Some(day), count))
    }

    fn round(&self, cell: Cell<'_>, day: Option<Day>, count: u64) -> u64 {
        let (below, rest) = (count / self.threshold, count % self.threshold);
        if rest == 0 {
            return count;
        }
        // Rounded up where `rest` has come past the step, which lies behind each of the numbers from
        // 0 to the threshold less 1 with the same chance.
        let up = rest > self.step(cell, day, below) % self.threshold;
        (below + u64::from(up)) * self.threshold
    }

    /// Returns a number that only the key tells, for the step above a multiple.
    fn step(&self, cell: Cell<'_>, day: Option<Day>, below: u64) -> u64 {
        let day = day.map_or_else(String::new, |day| day.to_string());
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(self.threshold.to_be_bytes());
        for part in [cell.of, cell.name, cell.column, &day] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.update(below.to_be_bytes());
        let digest = hash.finalize();
        let (first, _) = digest.split_at(8);
        first
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str) -> Cell<'_> {
        Cell {
            of: "host",
            name,
            column: "accounts",
        }
    }

    #[test]
    fn a_number_has_one_rounding_and_small_ones_have_none() {
        let rounding = Rounding::new([7; 32], 10);
        let names: Vec<String> = (0..200).map(|n| format!("pds{n}.example.com")).collect();
        let mut steps = [0; 10];
        for name in &names {
            let shown: Vec<_> = (0..1000)
                .map(|n| rounding.accounts(cell(name), n))
                .collect();
            for (count, shown) in (0_u64..).zip(&shown) {
                match shown {
                    None => assert!(count < 20, "{count}"),
                    Some(shown) => {
                        assert!(count > 10 && shown.abs_diff(count) < 10 && shown % 10 == 0);
                    }
                }
            }
            assert!(shown.is_sorted(), "{name}");
            let first = shown.iter().position(Option::is_some).unwrap();
            steps[first - 11] += 1;
        }
        // Each place is taken by about a tenth of the groups.
        assert!(steps.iter().all(|n| (5..=40).contains(n)), "{steps:?}");
        assert_eq!(rounding.accounts(cell("x"), -1), None);
    }

    #[test]
    fn the_mean_of_what_happened_is_right_and_each_day_has_its_own_steps() {
        let rounding = Rounding::new([7; 32], 10);
        let first = Day::parse("2030-01-01").unwrap();
        for count in 0..25 {
            let days = (0..2000).map(|n| first.plus(n));
            let shown: u64 = days
                .filter_map(|day| rounding.happened(cell("x"), day, count))
                .sum();
            let mean = shown as f64 / 2000.0;
            assert!((mean - count as f64).abs() < 0.6, "{count}: {mean}");
        }
    }

    #[test]
    fn key_threshold_and_column_choose_the_steps() {
        let shown = |key, threshold, column| -> Vec<_> {
            let rounding = Rounding::new([key; 32], threshold);
            let cell = Cell {
                column,
                ..cell("x")
            };
            (0..500).map(|n| rounding.accounts(cell, n)).collect()
        };
        assert_eq!(shown(1, 10, "a"), shown(1, 10, "a"));
        assert_ne!(shown(1, 10, "a"), shown(2, 10, "a"));
        assert_ne!(shown(1, 10, "a"), shown(1, 10, "b"));
        assert_eq!(shown(1, 1, "a"), (0..500).map(Some).collect::<Vec<_>>());
    }
}
