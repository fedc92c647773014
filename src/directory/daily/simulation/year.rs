//! The year, and the comparison of its days with what was true.

use super::*;
use crate::store::directory::{DayRow, GroupKind, MAX_DAY_GROUPS};

impl World {
    /// Returns the totals and the groups at the end of a day, as the accounts know them.
    fn truth(&self, day: Day) -> ([i64; 3], BTreeMap<(&'static str, String), i64>) {
        let (mut stock, mut groups) = ([0; 3], BTreeMap::new());
        for account in &self.accounts {
            let truth = account.at(day.end().millis() / 1000);
            let Some(mediators) = &truth.package else {
                continue;
            };
            if truth.inactive {
                stock[1] += 1;
            } else if truth.invalid {
                stock[2] += 1;
                *groups
                    .entry((GroupKind::Rule.as_str(), "did".to_owned()))
                    .or_default() += 1;
            } else {
                stock[0] += 1;
                let named: BTreeSet<String> = mediators.iter().map(|n| mediator(*n)).collect();
                let named = named
                    .into_iter()
                    .map(|name| (GroupKind::Mediator.as_str(), name));
                let host = (GroupKind::Host.as_str(), host(truth.host).host().to_owned());
                let key_type = (GroupKind::KeyType.as_str(), "X25519".to_owned());
                for group in named.chain([host, key_type]) {
                    *groups.entry(group).or_default() += 1;
                }
            }
        }
        (stock, groups)
    }

    /// Compares the groups of a day with the truth: each that has a row, and all others together.
    async fn check_groups(&self, row: &DayRow, truth: &BTreeMap<(&'static str, String), i64>) {
        let day = row.day;
        let groups = self
            .directory()
            .store()
            .query(move |q| q.groups_of_day(day));
        let groups = groups.await.unwrap();
        for kind in GroupKind::ALL {
            let mut rest: i64 = (truth.iter())
                .filter(|((k, _), _)| *k == kind.as_str())
                .map(|(_, accounts)| accounts)
                .sum();
            let of_kind = groups.iter().filter(|(k, ..)| k == kind);
            let mut named = 0;
            for (_, name, accounts) in of_kind.filter(|(_, name, _)| !name.is_empty()) {
                let expected = truth
                    .get(&(kind.as_str(), name.clone()))
                    .copied()
                    .unwrap_or(0);
                assert_eq!(*accounts, expected, "{day} {kind:?} {name}");
                rest -= accounts;
                named += 1;
            }
            assert!(named <= MAX_DAY_GROUPS);
            let others = groups
                .iter()
                .find(|(k, name, _)| k == kind && name.is_empty());
            assert_eq!(
                others.map(|(.., accounts)| *accounts),
                Some(rest),
                "{day} {kind:?}"
            );
        }
    }
}

/// Returns the data directory of a directory that has run for a year, with outages. Of its accounts,
/// many are at one host, some at another and few at the last.
pub(crate) async fn simulated_year(seed: u64) -> tempfile::TempDir {
    let population = Population {
        accounts: 48,
        hosts: [12, 3, 1],
    };
    let mut world = year(seed, population).await;
    world.stop().await;
    world.dir
}

/// Lets a year pass with outages on random days.
async fn year(seed: u64, population: Population) -> World {
    let mut world = World::new(seed, population).await;
    let mut outages: BTreeSet<i64> = BTreeSet::new();
    while outages.len() < 30 {
        outages.insert(world.dice.seconds(2, i64::from(DAYS) - 5));
    }
    let end = world.start + i64::from(DAYS) * DAY;
    while world.now() < end {
        let pause = world.dice.seconds(60, 9 * 3600);
        world.pass(world.now() + pause).await;
        world.note_known();
        world.act();
        for (at, event) in std::mem::take(&mut world.waiting) {
            world.hear(at, event).await;
        }
        if outages
            .first()
            .is_some_and(|day| world.start + day * DAY < world.now())
        {
            outages.pop_first();
            world.outage().await;
        }
    }
    // The last days are closed once the sources have come past them.
    world.slow_until = 0;
    world.pass(end + 10 * DAY).await;
    world
}

#[tokio::test]
async fn complete_days_of_a_year_with_outages_are_what_was_true() {
    let population = Population {
        accounts: 14,
        hosts: [1, 1, 1],
    };
    let world = year(0x5eed_0001, population).await;
    let store = world.directory().store();
    let first = Day::of(Timestamp::from_millis(world.start * 1000));
    let days = store
        .query(move |q| q.days(first, first.plus(DAYS - 1)))
        .await
        .unwrap();
    assert_eq!(
        days.len(),
        usize::try_from(DAYS).unwrap(),
        "each day has a row"
    );
    let (mut complete, mut wrong) = (0, 0);
    for pair in days.windows(2) {
        let (before, row) = (&pair[0], &pair[1]);
        let came = row.new + row.returned + row.found;
        assert_eq!(
            row.stock[0] - before.stock[0],
            came - row.departed,
            "{}",
            row.day
        );
    }
    for row in &days {
        assert!(row.closed, "{}", row.day);
        let (stock, groups) = world.truth(row.day);
        if !row.complete {
            wrong += i64::from(row.stock != stock);
            assert!(row.uncertain > 0 || row.gap || row.missed, "{row:?}");
            continue;
        }
        complete += 1;
        assert_eq!(row.stock, stock, "{row:?}");
        world.check_groups(row, &groups).await;
        if !world.disturbed.contains(&row.day) {
            let happened = world.happened.get(&row.day).copied().unwrap_or_default();
            let counted = Happened {
                came: row.new + row.returned + row.found,
                went: row.departed,
                vouched: row.vouched,
                unvouched: row.unvouched,
            };
            assert_eq!(counted, happened, "{}", row.day);
        }
    }
    assert!(
        complete > 300 && complete < DAYS,
        "{complete} of {DAYS}, {wrong} wrong"
    );
}
