//! An attacker: reads the files of all datasets that were ever published, knows how they are made and
//! which groups exist, and tries to learn what they do not show.
//!
//! Every number that was counted is an unknown with a lowest and a highest possible value. What is
//! published bounds some of them, and linear relations tie them to each other: accounts of all hosts
//! are the enrolled ones, those of a day are those of the day before with what came and went, a number
//! lies between the secret steps of its rounding. Bounds are narrowed by all relations until nothing
//! moves any more. Two days of one number are also compared with each other: where both were shown
//! alike, or one higher than the other, the same steps lie between them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// More than any number here.
const MANY: i64 = 1_000_000;

/// Rounds after which the attacker gives up narrowing.
const MAX_ROUNDS: usize = 400;

/// How the files were made, as the attacker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publisher {
    /// Rounded to multiples of the threshold by a secret key; less than two of them is not shown.
    Rounded(i64),
    /// The same, but for the totals, which are exact.
    RoundedGroups(i64),
    /// Exact, with groups below the threshold summed up in a row without a name.
    Folded(i64),
}

/// A group: its kind and its name.
pub(super) type Group = (String, String);

/// An unknown number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Unknown {
    /// A column of the totals on a day.
    Total(&'static str, usize),
    /// A column of a group on a day.
    Group(Group, &'static str, usize),
    /// The rest of a kind that is folded into one row.
    Rest(String, usize),
    /// Moves from host to host on a day.
    Moves(usize),
    /// The step of a number at a multiple of the threshold.
    Step(Box<Unknown>, i64),
}

/// The sum of unknowns with factors lies between two bounds.
struct Relation {
    terms: Vec<(usize, i64)>,
    low: i64,
    high: i64,
}

/// What the attacker knows.
pub(super) struct Attack {
    publisher: Publisher,
    days: Vec<String>,
    groups: BTreeSet<Group>,
    numbers: BTreeMap<Unknown, usize>,
    bounds: Vec<(i64, i64)>,
    relations: Vec<Relation>,
    /// What was shown: the column of a number on a day.
    shown: BTreeMap<Unknown, i64>,
}

/// The totals that the attacker uses.
const TOTALS: [&str; 6] = [
    "enrolled", "invalid", "new", "returned", "found", "departed",
];

/// Columns that count accounts at the end of a day.
const STOCKS: [&str; 3] = ["enrolled", "invalid", "accounts"];

impl Attack {
    /// Reads the files of all editions.
    pub(super) fn new(
        publisher: Publisher,
        editions: &[PathBuf],
        groups: &BTreeSet<Group>,
    ) -> Self {
        let mut attack = Self {
            publisher,
            days: Vec::new(),
            groups: groups.clone(),
            numbers: BTreeMap::new(),
            bounds: Vec::new(),
            relations: Vec::new(),
            shown: BTreeMap::new(),
        };
        let daily: Vec<_> = editions.iter().map(|dir| read(dir, "daily.csv")).collect();
        let days: BTreeSet<String> = (daily.iter().flatten())
            .map(|row| row["day"].clone())
            .collect();
        attack.days = days.into_iter().collect();
        for row in daily.iter().flatten() {
            let day = attack.day(&row["day"]);
            for column in TOTALS {
                attack.take(Unknown::Total(column, day), &row[column]);
            }
        }
        for row in editions.iter().flat_map(|dir| read(dir, "groups.csv")) {
            let day = attack.day(&row["day"]);
            let group = (row["kind"].clone(), row["name"].clone());
            if group.1.is_empty() {
                attack.take(Unknown::Rest(group.0, day), &row["accounts"]);
                continue;
            }
            for column in ["accounts", "came", "went"] {
                let unknown = Unknown::Group(group.clone(), column, day);
                attack.take(unknown, &row[column]);
            }
        }
        attack.bound_by_publisher();
        attack.relate();
        attack.narrow();
        attack
    }

    fn day(&self, day: &str) -> usize {
        self.days.iter().position(|known| known == day).unwrap()
    }

    /// Takes note of a number that was published. All editions agree.
    fn take(&mut self, unknown: Unknown, text: &str) {
        if let Ok(number) = text.parse() {
            let before = self.shown.insert(unknown.clone(), number);
            assert!(before.is_none_or(|before| before == number), "{unknown:?}");
        }
    }

    fn number(&mut self, unknown: Unknown) -> usize {
        let next = self.bounds.len();
        let number = *self.numbers.entry(unknown).or_insert(next);
        if number == next {
            self.bounds.push((0, MANY));
        }
        number
    }

    fn relation(&mut self, terms: Vec<(Unknown, i64)>, low: i64, high: i64) {
        let terms = terms.into_iter();
        let terms = terms.map(|(unknown, factor)| (self.number(unknown), factor));
        let terms = terms.collect();
        self.relations.push(Relation { terms, low, high });
    }

    /// Returns all numbers of the tables.
    fn cells(&self) -> Vec<Unknown> {
        let mut cells = Vec::new();
        for day in 0..self.days.len() {
            cells.extend(TOTALS.map(|column| Unknown::Total(column, day)));
            for group in &self.groups {
                let columns = ["accounts", "came", "went"];
                cells.extend(columns.map(|column| Unknown::Group(group.clone(), column, day)));
            }
        }
        cells
    }

    /// Returns how one number was made.
    fn rule(&self, cell: &Unknown) -> Publisher {
        match (self.publisher, cell) {
            (Publisher::RoundedGroups(threshold), Unknown::Total(..)) => {
                Publisher::Folded(threshold)
            }
            (Publisher::RoundedGroups(threshold), _) => Publisher::Rounded(threshold),
            (publisher, _) => publisher,
        }
    }

    /// Bounds each number by what was shown of it, or by its not being shown.
    fn bound_by_publisher(&mut self) {
        for cell in self.cells() {
            let shown = self.shown.get(&cell).copied();
            let is_stock = STOCKS.contains(&column(&cell));
            match (self.rule(&cell), shown) {
                (Publisher::Folded(_), Some(shown)) => {
                    self.relation(vec![(cell, 1)], shown, shown);
                }
                (Publisher::Folded(threshold), None) if is_stock => {
                    self.relation(vec![(cell, 1)], 0, threshold - 1);
                }
                (Publisher::Rounded(threshold), Some(shown)) => {
                    let near = threshold - 1;
                    self.relation(vec![(cell.clone(), 1)], shown - near, shown + near);
                    if is_stock {
                        self.between_steps(&cell, threshold, shown / threshold);
                    }
                }
                (Publisher::Rounded(threshold), None) if is_stock => {
                    self.relation(vec![(cell.clone(), 1)], 0, 2 * threshold - 1);
                    let step = self.step(&cell, threshold, 2);
                    self.relation(vec![(cell, 1), (step, -1)], -MANY, -1);
                }
                (Publisher::RoundedGroups(_), _) | (_, None) => {}
            }
        }
        // The names of the rest are those that have no row.
        for (unknown, shown) in self.shown.clone() {
            let Unknown::Rest(kind, day) = unknown else {
                continue;
            };
            let of_rest = self.groups.iter().filter(|group| {
                let cell = Unknown::Group((*group).clone(), "accounts", day);
                group.0 == kind && !self.shown.contains_key(&cell)
            });
            let terms = of_rest.map(|group| (Unknown::Group(group.clone(), "accounts", day), 1));
            let terms = terms.collect();
            self.relation(terms, shown, shown);
        }
    }

    /// Returns the step at a multiple of the threshold: the smallest number that is shown so high.
    fn step(&mut self, cell: &Unknown, threshold: i64, multiple: i64) -> Unknown {
        let step = Unknown::Step(Box::new(without_day(cell)), multiple);
        let highest = multiple * threshold;
        self.relation(vec![(step.clone(), 1)], highest - threshold + 1, highest);
        step
    }

    fn between_steps(&mut self, cell: &Unknown, threshold: i64, multiple: i64) {
        let below = self.step(cell, threshold, multiple);
        self.relation(vec![(cell.clone(), 1), (below, -1)], 0, MANY);
        let above = self.step(cell, threshold, multiple + 1);
        self.relation(vec![(cell.clone(), 1), (above, -1)], -MANY, -1);
    }

    /// Ties the numbers of a day to each other, and to those of the day before.
    fn relate(&mut self) {
        let total = |column, day| Unknown::Total(column, day);
        for day in 0..self.days.len() {
            self.sum_of_kind("host", "accounts", day, "enrolled", day);
            self.sum_of_kind("rule", "accounts", day, "invalid", day);
            for kind in ["mediator", "keyType"] {
                self.several_of_kind(kind, day);
            }
            let came = ["new", "returned", "found"].map(|column| (total(column, day), -1));
            let moves = [(Unknown::Moves(day), -1)];
            let terms = self.of_kind("host", "came", day);
            self.relation([&terms[..], &came, &moves].concat(), 0, 0);
            let terms = self.of_kind("host", "went", day);
            let went = [(total("departed", day), -1)];
            self.relation([&terms[..], &went, &moves].concat(), 0, 0);
            if day == 0 {
                continue;
            }
            self.relation(
                vec![
                    (total("enrolled", day), 1),
                    (total("enrolled", day - 1), -1),
                    (total("new", day), -1),
                    (total("returned", day), -1),
                    (total("found", day), -1),
                    (total("departed", day), 1),
                ],
                0,
                0,
            );
            for group in self.groups.clone() {
                let of = |column, day| Unknown::Group(group.clone(), column, day);
                self.relation(
                    vec![
                        (of("accounts", day), 1),
                        (of("accounts", day - 1), -1),
                        (of("came", day), -1),
                        (of("went", day), 1),
                    ],
                    0,
                    0,
                );
            }
        }
    }

    fn of_kind(&self, kind: &str, column: &'static str, day: usize) -> Vec<(Unknown, i64)> {
        let groups = self.groups.iter().filter(|group| group.0 == kind);
        groups
            .map(|group| (Unknown::Group(group.clone(), column, day), 1))
            .collect()
    }

    fn sum_of_kind(
        &mut self,
        kind: &str,
        column: &'static str,
        day: usize,
        total: &'static str,
        of: usize,
    ) {
        let mut terms = self.of_kind(kind, column, day);
        terms.push((Unknown::Total(total, of), -1));
        self.relation(terms, 0, 0);
    }

    /// Each enrolled account is in one group of the kind or in several, and no group has more.
    fn several_of_kind(&mut self, kind: &str, day: usize) {
        let enrolled = (Unknown::Total("enrolled", day), -1);
        let terms = self.of_kind(kind, "accounts", day);
        if terms.is_empty() {
            return;
        }
        for term in &terms {
            self.relation(vec![term.clone(), enrolled.clone()], -MANY, 0);
        }
        let mut all = terms;
        all.push(enrolled);
        self.relation(all, 0, MANY);
    }

    /// Narrows all bounds by all relations until nothing moves.
    fn narrow(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let mut moved = false;
            for relation in &self.relations {
                moved |= relation.narrow(&mut self.bounds);
            }
            if !moved {
                return;
            }
        }
    }

    fn bounds_of(&self, unknown: &Unknown) -> (i64, i64) {
        let number = self.numbers.get(unknown);
        number.map_or((0, MANY), |number| self.bounds[*number])
    }

    /// Returns the possible numbers of accounts of a group on a day.
    pub(super) fn accounts(&self, group: &Group, day: usize) -> (i64, i64) {
        self.bounds_of(&Unknown::Group(group.clone(), "accounts", day))
    }

    /// Returns whether the attacker knows that a group did not have the same accounts on two days:
    /// from the bounds, from what came or went, or from the difference of all others.
    pub(super) fn knows_a_change(&self, group: &Group, one: usize, other: usize) -> bool {
        let (low, high) = self.accounts(group, one);
        let (other_low, other_high) = self.accounts(group, other);
        if low > other_high || high < other_low {
            return true;
        }
        let moved = |column| {
            let of_day = Unknown::Group(group.clone(), column, other);
            self.bounds_of(&of_day).0 >= 1
        };
        if other == one + 1 && (moved("came") || moved("went")) {
            return true;
        }
        self.rest_differs(group, one, other) || self.rest_differs(group, other, one)
    }

    /// Returns whether a group has fewer accounts on `less` than on `more`, by the difference of the
    /// total and of all other groups between the two days.
    fn rest_differs(&self, group: &Group, more: usize, less: usize) -> bool {
        let total = match group.0.as_str() {
            "host" => "enrolled",
            "rule" => "invalid",
            _ => return false,
        };
        let mut least = self.least_difference(&|day| Unknown::Total(total, day), more, less);
        for other in self.groups.iter().filter(|other| other.0 == group.0) {
            if other != group {
                let of = |day| Unknown::Group(other.clone(), "accounts", day);
                least += self.least_difference(&of, less, more);
            }
        }
        least >= 1
    }

    /// Returns how much higher a number is on one day than on another, at least.
    fn least_difference(&self, of: &dyn Fn(usize) -> Unknown, one: usize, other: usize) -> i64 {
        let (low, high) = (self.bounds_of(&of(one)).0, self.bounds_of(&of(other)).1);
        let by_bounds = low - high;
        let Publisher::Rounded(threshold) = self.rule(&of(one)) else {
            return by_bounds;
        };
        let shown = |day| self.shown.get(&of(day)).copied();
        let Some(one) = shown(one) else {
            return by_bounds;
        };
        // What is not shown is below the step at two thresholds.
        let other = shown(other).unwrap_or(threshold);
        // The steps between the two are the same on both days.
        let steps = (one - other) / threshold;
        let by_steps = match steps {
            1 => 1,
            2.. => (steps - 1) * threshold - (threshold - 1) + 1,
            _ => -(1 - steps) * threshold - (threshold - 1) + 1,
        };
        by_bounds.max(by_steps)
    }
}

impl Relation {
    /// Narrows the bounds of each term by those of the others. Returns whether one has moved.
    fn narrow(&self, bounds: &mut [(i64, i64)]) -> bool {
        let term = |(low, high): (i64, i64), factor: i64| {
            if factor > 0 {
                (low * factor, high * factor)
            } else {
                (high * factor, low * factor)
            }
        };
        let terms = self.terms.iter();
        let (low, high) = terms.fold((0, 0), |(low, high), (number, factor)| {
            let own = term(bounds[*number], *factor);
            (low + own.0, high + own.1)
        });
        let mut moved = false;
        for (number, factor) in &self.terms {
            let own = term(bounds[*number], *factor);
            // What the others leave to this one. All factors are 1 or -1.
            let (least, most) = (self.low - (high - own.1), self.high - (low - own.0));
            let (least, most) = term((least, most), *factor);
            let bounds = &mut bounds[*number];
            let narrowed = (bounds.0.max(least), bounds.1.min(most));
            moved |= narrowed != *bounds;
            *bounds = narrowed;
        }
        moved
    }
}

fn column(cell: &Unknown) -> &'static str {
    match cell {
        Unknown::Total(column, _) | Unknown::Group(_, column, _) => column,
        _ => "",
    }
}

fn without_day(cell: &Unknown) -> Unknown {
    match cell {
        Unknown::Total(column, _) => Unknown::Total(column, 0),
        Unknown::Group(group, column, _) => Unknown::Group(group.clone(), column, 0),
        other => other.clone(),
    }
}

/// Reads a table as rows of its columns by their names.
pub(super) fn read(dir: &std::path::Path, file: &str) -> Vec<BTreeMap<String, String>> {
    let mut table = csv::Reader::from_path(dir.join(file)).unwrap();
    let names = table.headers().unwrap().clone();
    let rows = table.records().map(|row| {
        let row = row.unwrap();
        let fields = names.iter().zip(&row);
        fields
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    });
    rows.collect()
}
