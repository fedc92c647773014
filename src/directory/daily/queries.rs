//! The worked queries of `docs/research.md`: each is taken from the page, run on a snapshot of a
//! simulated series, and compared with what the simulation knows.

mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::super::Directory;
use super::*;
use crate::directory::Batch;
use crate::store::directory::{GroupKind, LATEST_CLOSE};
use crate::store::{Coverage, DirectoryStore, Gap, read_rows, snapshot};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::Origin;

const DOCUMENT: &str = include_str!("../../../docs/research.md");
const SOURCE: &str = "relay https://relay.example.com";
const LIST: &str = "relay https://lists.example.com";
const DAYS: i32 = 150;
const HOUR: Duration = Duration::from_secs(3600);

/// Days on which the source has missed what was after 20 o'clock.
const GAPS: [i32; 2] = [40, 77];

/// The day on whose evening the directory stops, and the number of days on which it does not run.
const STOPPED: (i32, i32) = (55, 3);

/// A day on which an account may have changed that counts later.
const UNCERTAIN: i32 = 63;

/// The day from whose end on the source is silent, and the day on which it goes on where it was.
const SILENT: (i32, i32) = (90, 99);

/// A month without a key change.
const QUIET: std::ops::Range<i32> = 31..59;

/// Entries without a package, which no list has.
const ENTRIES: i64 = 12;

/// A generator of numbers that gives the same ones each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        i64::try_from(self.0 % u64::try_from(n).unwrap()).unwrap()
    }
}

/// An enrolled account: its host and mediators.
#[derive(Clone)]
struct Account {
    host: String,
    mediators: Vec<String>,
}

/// What is true of a day.
#[derive(Clone, Default)]
struct Truth {
    enrolled: Vec<Account>,
    came: Vec<Account>,
    went: Vec<Account>,
    vouched: i64,
    unvouched: i64,
    /// Milliseconds from record to service, of each package.
    delays: Vec<i64>,
}

struct Series {
    dir: tempfile::TempDir,
    directory: Directory,
    clock: Clock,
    first: Day,
    dice: Dice,
    enrolled: Vec<Account>,
    days: BTreeMap<Day, Truth>,
}

impl Series {
    /// Lets the days pass.
    async fn pass() -> Self {
        let first = Day::parse("2030-01-01").unwrap();
        let clock = Clock::manual(first.start().plus(12 * HOUR));
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(&dir.path().join("directory.db")).unwrap();
        let directory = Directory::bind(store, clock.clone(), 1 << 20);
        let mut series = Self {
            directory: directory.await.unwrap(),
            dir,
            clock,
            first,
            dice: Dice(0x5eed_0002),
            enrolled: Vec::new(),
            days: BTreeMap::new(),
        };
        series.begin().await;
        let (stopped, away) = STOPPED;
        let mut n = 0;
        while n < DAYS {
            series.day(n).await;
            let next = if n == stopped { n + 1 + away } else { n + 1 };
            for missed in n + 1..next {
                let truth = series.truth();
                series.days.insert(first.plus(missed), truth);
            }
            series.midnight(n, next).await;
            n = next;
        }
        series
    }

    async fn begin(&self) {
        let now = self.clock.now();
        let written = self.directory.store().transact(move |tx| {
            for n in 0..ENTRIES {
                let letter = char::from(b'a' + u8::try_from(n).unwrap());
                let did = format!("did:plc:{}", letter.to_string().repeat(24));
                tx.put_entry(&Entry::empty(Did::parse(&did).unwrap(), "relay", now))?;
            }
            tx.reach_day(now)
        });
        written.await.unwrap();
        self.cover(None).await;
        let sources = vec![SOURCE.to_owned()];
        self.directory.follow_sources(sources).await.unwrap();
    }

    /// Returns the present state as that of a day on which nothing happens.
    fn truth(&self) -> Truth {
        Truth {
            enrolled: self.enrolled.clone(),
            ..Truth::default()
        }
    }

    /// Writes that the source has missed nothing up to now, or what was since a time.
    async fn cover(&self, missed: Option<Timestamp>) {
        let now = self.clock.now();
        let gap = missed.map(|since| Gap {
            source: SOURCE.to_owned(),
            reason: "outdated",
            since,
            pds: Some(Origin::parse("https://elsewhere.example.com").unwrap()),
            covered: BTreeSet::new(),
        });
        let batch = Batch {
            coverage: Some(Coverage {
                source: SOURCE.to_owned(),
                since: missed.map_or(self.first.start(), |_| now),
                until: now,
            }),
            gap,
            ..Batch::default()
        };
        self.directory.apply_batch(batch).await.unwrap();
        while self.directory.mark_gap().await.unwrap().is_some() {}
    }

    /// Lets accounts come, change and go at noon of a day.
    async fn day(&mut self, n: i32) {
        let day = self.first.plus(n);
        let mut truth = Truth::default();
        for _ in 0..self.dice.below(4) {
            let account = self.account();
            self.enrolled.push(account.clone());
            let delay = self.delay();
            truth.delays.push(delay);
            let mut delta = delta_of(&account, 1);
            delta.delay = Some(delay);
            match self.dice.below(3) {
                0 => delta.new = 1,
                1 => delta.returned = 1,
                _ => delta.found = 1,
            }
            self.count(day, delta).await;
            truth.came.push(account);
        }
        if self.dice.below(3) == 0 && !self.enrolled.is_empty() {
            let at = self.dice.below(i64::try_from(self.enrolled.len()).unwrap());
            let account = self.enrolled.remove(usize::try_from(at).unwrap());
            let mut delta = delta_of(&account, -1);
            delta.departed = 1;
            self.count(day, delta).await;
            truth.went.push(account);
        }
        let key_changes = self.dice.below(3);
        for _ in 0..if QUIET.contains(&n) { 0 } else { key_changes } {
            let vouched = self.dice.below(3);
            let vouched = i64::from(vouched > 0);
            let delay = self.delay();
            truth.delays.push(delay);
            truth.vouched += vouched;
            truth.unvouched += 1 - vouched;
            let delta = DayDelta {
                vouched,
                unvouched: 1 - vouched,
                delay: Some(delay),
                ..DayDelta::default()
            };
            self.count(day, delta).await;
        }
        truth.enrolled.clone_from(&self.enrolled);
        self.days.insert(day, truth);
        if n == DAYS - 1 {
            self.balance(day).await;
        }
        self.list(n).await;
    }

    /// Adds slow packages on the last day, until half of those of its month are in the column of the
    /// median or before it.
    async fn balance(&mut self, day: Day) {
        let months = self.months();
        let (_, days) = months.last_key_value().unwrap();
        let delays: Vec<i64> = days
            .iter()
            .flat_map(|(_, truth)| truth.delays.clone())
            .collect();
        let (bound, _) = median(&delays);
        let fast = delays.iter().filter(|delay| **delay <= bound).count();
        for _ in 0..2 * fast - delays.len() {
            let delay = 10_i64.pow(9);
            self.days.get_mut(&day).unwrap().delays.push(delay);
            let delta = DayDelta {
                delay: Some(delay),
                ..DayDelta::default()
            };
            self.count(day, delta).await;
        }
    }

    fn account(&mut self) -> Account {
        let host = format!("pds{}.example.com", self.dice.below(3));
        let first = self.dice.below(3);
        let mediators = (0..=self.dice.below(2))
            .map(|i| mediator((first + i) % 3))
            .collect();
        Account { host, mediators }
    }

    /// Returns a delay; later months have longer ones.
    fn delay(&mut self) -> i64 {
        let month = i64::try_from(self.days.len()).unwrap() / 30;
        let digits = u32::try_from(2 + self.dice.below(3) + month).unwrap();
        10_i64.pow(digits) + self.dice.below(10_i64.pow(digits))
    }

    async fn count(&self, day: Day, delta: DayDelta) {
        let store = self.directory.store();
        let written = store.transact(move |tx| {
            let newest = tx.newest_day()?.unwrap();
            tx.add_to_day(day, newest, &delta)
        });
        written.await.unwrap();
    }

    /// Lists the accounts of both lists on some days.
    async fn list(&self, n: i32) {
        for (source, every, unknown) in [(SOURCE, 20, 1), (LIST, 33, 4)] {
            if n % every == 0 {
                let now = self.clock.now();
                let store = self.directory.store();
                let written = store.transact(move |tx| {
                    tx.begin_backfill(source, now)?;
                    let mut row = tx.backfill(source)?.unwrap();
                    (row.seen, row.unknown) = (listed(n), Some(unknown));
                    (row.done_at, row.complete_at) = (Some(now), Some(now));
                    tx.advance_backfill(&row)
                });
                written.await.unwrap();
            }
        }
    }

    /// Goes on from noon of a day to noon of the next one on which the directory runs.
    async fn midnight(&self, n: i32, next: i32) {
        let noon = |n| self.first.plus(n).start().plus(12 * HOUR);
        let (silent, again) = SILENT;
        let is_silent = (silent..again).contains(&n);
        self.clock.advance(noon(next).since(noon(n)) - 11 * HOUR);
        if GAPS.contains(&n) {
            let since = self.first.plus(n).start().plus(20 * HOUR);
            self.cover(Some(since)).await;
        } else if !is_silent {
            self.cover(None).await;
        }
        if n == UNCERTAIN {
            let day = self.first.plus(n);
            let store = self.directory.store();
            let written = store.transact(move |tx| tx.doubt_days(day, day.next()));
            written.await.unwrap();
        }
        for _ in 0..2 {
            self.directory.keep_days().await.unwrap();
        }
        self.clock.advance(11 * HOUR);
    }

    /// Runs the query below a heading of the page.
    fn answer(&self, heading: &str) -> Vec<Vec<String>> {
        let path: PathBuf = self.dir.path().join("copy.db");
        if !path.exists() {
            snapshot(&self.dir.path().join("directory.db"), &path).unwrap();
        }
        let (_, section) = DOCUMENT.split_once(&format!("\n### {heading}\n")).unwrap();
        let (_, block) = section.split_once("```sql\n").unwrap();
        let (sql, _) = block.split_once("```").unwrap();
        read_rows(&path, sql)
    }

    fn months(&self) -> BTreeMap<String, Vec<(Day, &Truth)>> {
        let mut months: BTreeMap<String, Vec<(Day, &Truth)>> = BTreeMap::new();
        for (day, truth) in &self.days {
            let month = day.to_string()[..7].to_owned();
            months.entry(month).or_default().push((*day, truth));
        }
        months
    }

    /// Returns why a day is not complete, as the page puts it.
    fn certainty(&self, day: Day) -> &'static str {
        let n = day.since(self.first);
        let (silent, again) = SILENT;
        if GAPS.contains(&n) {
            "a source missed events around its end"
        } else if n == UNCERTAIN {
            "1 accounts may count later"
        } else if (silent..again).contains(&n) && again - n >= LATEST_CLOSE {
            "not every source came past its end"
        } else if n == DAYS {
            "may still change"
        } else {
            "complete"
        }
    }
}

/// Returns the name of a mediator. The last of them is too long for a row of its own.
fn mediator(n: i64) -> String {
    let label = if n == 2 {
        "m".repeat(256)
    } else {
        format!("m{n}")
    };
    format!("did:web:{label}.example.com")
}

/// Returns the column that the median delay is in, by its bound and its name.
fn median(delays: &[i64]) -> (i64, &'static str) {
    let bounds = [
        (1_000, "1 s"),
        (10_000, "10 s"),
        (60_000, "1 min"),
        (600_000, "10 min"),
        (3_600_000, "1 h"),
        (86_400_000, "1 d"),
        (i64::MAX, "longer"),
    ];
    let mut delays = delays.to_vec();
    delays.sort_unstable();
    let median = delays[(delays.len() - 1) / 2];
    bounds
        .into_iter()
        .find(|(bound, _)| median <= *bound)
        .unwrap()
}

fn delta_of(account: &Account, sign: i64) -> DayDelta {
    let mut groups = vec![
        (GroupKind::Host, account.host.clone(), sign),
        (GroupKind::KeyType, "X25519".to_owned(), sign),
    ];
    let mediators = account.mediators.iter();
    groups.extend(mediators.map(|name| (GroupKind::Mediator, name.clone(), sign)));
    DayDelta {
        stock: [sign, 0, 0],
        groups,
        ..DayDelta::default()
    }
}

/// Returns a part in percent with one digit after the point, as a half is rounded up.
fn percent(part: i64, whole: i64) -> String {
    let per_mille = (2 * 1000 * part + whole) / (2 * whole);
    format!("{}.{}", per_mille / 10, per_mille % 10)
}

/// Returns the length of a list on a day.
fn listed(n: i32) -> i64 {
    i64::from(7 + n / 30)
}

fn len<T>(list: &[T]) -> i64 {
    i64::try_from(list.len()).unwrap()
}

#[tokio::test]
async fn the_worked_queries_say_what_was_true() {
    let series = Series::pass().await;
    check_days(&series);
    check_hosts(&series);
    check_key_changes(&series);
    check_delays(&series);
    check_mediators(&series);
    check_lists(&series);
}

fn check_days(series: &Series) {
    let mut expected: Vec<Vec<String>> = (series.days.iter())
        .map(|(day, truth)| {
            let [enrolled, came, went] = [&truth.enrolled, &truth.came, &truth.went]
                .map(|accounts| accounts.len().to_string());
            let certainty = series.certainty(*day).to_owned();
            vec![day.to_string(), enrolled, came, went, certainty]
        })
        .collect();
    // The day that has begun last.
    let newest = series.first.plus(DAYS);
    expected.push(vec![
        newest.to_string(),
        series.enrolled.len().to_string(),
        "0".to_owned(),
        "0".to_owned(),
        series.certainty(newest).to_owned(),
    ]);
    let answer = series.answer("Enrolled accounts per day, and how sure each day is");
    assert_eq!(answer, expected);
    let kinds: BTreeSet<&String> = answer.iter().filter_map(|row| row.last()).collect();
    assert_eq!(kinds.len(), 5, "{kinds:?}");
}

fn check_hosts(series: &Series) {
    let mut expected = Vec::new();
    for (month, days) in series.months() {
        let mut hosts: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        for (_, truth) in &days {
            for account in &truth.enrolled {
                hosts.entry(&account.host).or_default();
            }
            for account in &truth.came {
                hosts.entry(&account.host).or_default().0 += 1;
            }
            for account in &truth.went {
                hosts.entry(&account.host).or_default().1 += 1;
            }
        }
        let mut hosts: Vec<(&str, (i64, i64))> = hosts.into_iter().collect();
        hosts.sort_by_key(|(host, (came, went))| (went - came, *host));
        expected.extend(hosts.into_iter().map(|(host, (came, went))| {
            let mut row = vec![host.to_owned(), month.clone()];
            row.extend([came, went, came - went].map(|n| n.to_string()));
            row
        }));
    }
    assert_eq!(series.answer("Growth by host and month"), expected);
}

fn check_key_changes(series: &Series) {
    let mut months = series.months();
    // The day that has begun last belongs to a month, too.
    let newest = series.first.plus(DAYS);
    let rest = series.truth();
    let month = newest.to_string()[..7].to_owned();
    months.entry(month).or_default().push((newest, &rest));
    let expected: Vec<Vec<String>> = months
        .into_iter()
        .filter_map(|(month, days)| {
            let vouched: i64 = days.iter().map(|(_, truth)| truth.vouched).sum();
            let unvouched: i64 = days.iter().map(|(_, truth)| truth.unvouched).sum();
            if vouched + unvouched == 0 {
                return None;
            }
            let incomplete = days.iter();
            let incomplete = incomplete.filter(|(day, _)| series.certainty(*day) != "complete");
            Some(vec![
                month,
                vouched.to_string(),
                (vouched + unvouched).to_string(),
                percent(vouched, vouched + unvouched),
                incomplete.count().to_string(),
            ])
        })
        .collect();
    assert_eq!(expected.len(), 4, "all months but the quiet one");
    assert_eq!(series.answer("Vouched key changes"), expected);
}

fn check_delays(series: &Series) {
    let mut medians = BTreeSet::new();
    let expected: Vec<Vec<String>> = series
        .months()
        .into_iter()
        .map(|(month, days)| {
            let delays: Vec<i64> = days
                .iter()
                .flat_map(|(_, truth)| truth.delays.clone())
                .collect();
            let (_, column) = median(&delays);
            medians.insert(column);
            vec![month, column.to_owned(), delays.len().to_string()]
        })
        .collect();
    assert_eq!(series.answer("Median delay"), expected);
    assert!(medians.len() > 2, "{medians:?}");
}

fn check_mediators(series: &Series) {
    let mut expected = Vec::new();
    for (day, truth) in &series.days {
        // Monday is the first day of a week.
        let is_sunday = day.next().week() == day.next();
        if !is_sunday || series.certainty(*day) != "complete" {
            continue;
        }
        let mut mediators: BTreeMap<&str, i64> = BTreeMap::new();
        let named = truth.enrolled.iter().flat_map(|account| &account.mediators);
        for name in named.filter(|name| name.len() <= 255) {
            *mediators.entry(name).or_default() += 1;
        }
        let mut mediators: Vec<(&str, i64)> = mediators.into_iter().collect();
        mediators.sort_by_key(|(name, accounts)| (-accounts, *name));
        expected.extend(mediators.into_iter().map(|(name, accounts)| {
            let share = percent(accounts, len(&truth.enrolled));
            vec![
                day.to_string(),
                name.to_owned(),
                accounts.to_string(),
                share,
            ]
        }));
    }
    assert!(expected.len() > 30);
    assert_eq!(series.answer("Shares of mediators"), expected);
}

fn check_lists(series: &Series) {
    let row = |source: &str, every: i32, unknown: i64, gaps: i64| {
        let last = (0..DAYS).rev().find(|n| {
            let missed = STOPPED.0 + 1..=STOPPED.0 + STOPPED.1;
            n % every == 0 && !missed.contains(n)
        });
        let last = last.unwrap();
        let listed = listed(last);
        vec![
            source.to_owned(),
            series.first.plus(last).to_string(),
            listed.to_string(),
            unknown.to_string(),
            (ENTRIES - (listed - unknown)).max(0).to_string(),
            percent(listed - unknown, listed),
            gaps.to_string(),
        ]
    };
    // Each gap lasts from 20 o'clock to one in the morning.
    let gaps = len(&GAPS) * 5 * 3600;
    let expected = [row(LIST, 33, 4, 0), row(SOURCE, 20, 1, gaps)];
    assert_eq!(series.answer("What other lists have"), expected);
}
