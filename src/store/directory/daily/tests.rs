use std::sync::Arc;

use rusqlite::Connection;

use super::close::MAY_BE_LATE;
use super::groups::LARGEST;
use super::read::{DAYS, GROUP_DAYS, SOURCE_DAYS};
use super::series::{GROUPS, SOURCES};
use super::*;
use crate::store::directory::{DirectoryStore, Entry, PackageState};
use atcomm_proto::syntax::{MediatorDid, Origin};
use testkit::proto::repo::peer;

/// A store whose series begins on a day.
struct Series {
    dir: tempfile::TempDir,
    store: Arc<DirectoryStore>,
    first: Day,
}

impl Series {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::open(&dir.path().join("directory.db")).unwrap());
        let first = Day::parse("2027-01-15").unwrap();
        let series = Self { dir, store, first };
        series.reach(0).await;
        series
    }

    async fn reach(&self, days: i32) -> Day {
        let now = self.first.plus(days).start();
        self.store
            .transact(move |tx| tx.reach_day(now))
            .await
            .unwrap()
    }

    /// Adds accounts of a group on a day.
    async fn add(&self, kind: GroupKind, name: &str, accounts: i64, days: i32) {
        let (day, name) = (self.first.plus(days), name.to_owned());
        let work = self.store.transact(move |tx| {
            let newest = tx.newest_day()?.unwrap();
            let delta = DayDelta {
                stock: [accounts, 0, 0],
                new: accounts.max(0),
                departed: -accounts.min(0),
                groups: vec![(kind, name, accounts)],
                ..DayDelta::default()
            };
            tx.add_to_day(day, newest, &delta)
        });
        work.await.unwrap();
    }

    /// Returns the groups of a day that has ended, in the order of their names.
    async fn groups(&self, kind: GroupKind, days: i32) -> Vec<(String, i64)> {
        let day = self.first.plus(days);
        let groups = self
            .store
            .query(move |q| q.groups_of_day(day))
            .await
            .unwrap();
        let of_kind = groups.into_iter().filter(|(k, ..)| *k == kind);
        of_kind
            .map(|(_, name, accounts)| (name, accounts))
            .collect()
    }

    async fn rows(&self) -> Vec<DayRow> {
        let first = self.first;
        let rows = self
            .store
            .query(move |q| q.days(first, first.plus(MAX_DAYS)));
        rows.await.unwrap()
    }
}

fn named(groups: &[(&str, i64)]) -> Vec<(String, i64)> {
    groups
        .iter()
        .map(|(name, n)| ((*name).to_owned(), *n))
        .collect()
}

#[tokio::test]
async fn inv7_a_day_keeps_its_largest_groups_and_sums_up_the_others() {
    let series = Series::new().await;
    for n in 1..=9 {
        series
            .add(GroupKind::Host, &format!("h{n}.example.com"), n, 0)
            .await;
    }
    // A name that is too long for a row of its own counts with the others.
    let long = format!("did:web:{}", "a".repeat(300));
    series.add(GroupKind::Host, &long, 100, 0).await;
    series.reach(1).await;
    let day = named(&[
        ("", 1 + 2 + 3 + 4 + 100),
        ("h5.example.com", 5),
        ("h6.example.com", 6),
        ("h7.example.com", 7),
        ("h8.example.com", 8),
        ("h9.example.com", 9),
    ]);
    assert_eq!(series.groups(GroupKind::Host, 0).await, day);
    // Late: one with a row, one without, and the long one.
    series.add(GroupKind::Host, "h9.example.com", -2, 0).await;
    series.add(GroupKind::Host, "h1.example.com", 5, 0).await;
    series.add(GroupKind::Host, &long, -100, 0).await;
    let mut late = day;
    late[0].1 = 10 + 5;
    late[5].1 = 7;
    assert_eq!(series.groups(GroupKind::Host, 0).await, late);
    let rows = series.rows().await;
    assert_eq!((rows[0].stock[0], rows[1].stock[0]), (145 - 97, 145 - 97));
    // Every kind has its row of others, also one without any group.
    assert_eq!(series.groups(GroupKind::Rule, 0).await, named(&[("", 0)]));
}

#[tokio::test]
async fn a_late_change_moves_the_days_behind_it() {
    let series = Series::new().await;
    series.add(GroupKind::Mediator, "did:web:a", 2, 0).await;
    series.reach(3).await;
    series.add(GroupKind::Mediator, "did:web:b", 1, 1).await;
    series.add(GroupKind::Mediator, "did:web:a", -1, 2).await;
    let stock: Vec<i64> = series.rows().await.iter().map(|row| row.stock[0]).collect();
    assert_eq!(stock, [2, 3, 2, 2]);
    let a = ("did:web:a", 2);
    assert_eq!(
        series.groups(GroupKind::Mediator, 0).await,
        named(&[("", 0), a])
    );
    let both = [("", 0), a, ("did:web:b", 1)];
    assert_eq!(series.groups(GroupKind::Mediator, 1).await, named(&both));
    let less = [("", 0), ("did:web:a", 1), ("did:web:b", 1)];
    assert_eq!(series.groups(GroupKind::Mediator, 2).await, named(&less));
    let first = series.first;
    let days = series
        .store
        .query(move |q| q.group_days(GroupKind::Mediator, "did:web:a", first, first.plus(9)))
        .await
        .unwrap();
    let days: Vec<_> = days.iter().map(|d| (d.accounts, d.came, d.went)).collect();
    assert_eq!(days, [(2, 2, 0), (2, 0, 0), (1, 0, 1), (1, 0, 0)]);
}

#[tokio::test]
async fn days_on_which_nothing_ran_are_rows_and_old_ones_are_closed() {
    let series = Series::new().await;
    series.add(GroupKind::Host, "a.example.com", 3, 0).await;
    series.reach(20).await;
    let rows = series.rows().await;
    assert_eq!(rows.len(), 21);
    for (row, days) in rows.iter().zip(0..) {
        assert_eq!(row.stock[0], 3);
        assert_eq!(row.missed, days != 0 && days != 20, "{days}");
        assert_eq!(row.closed, 20 - days > LATEST_CLOSE, "{days}");
        assert!(!row.complete);
        let has_groups = days == 0 || (!row.closed && days != 20);
        let groups = series.groups(GroupKind::Host, days).await;
        assert_eq!(groups.len(), if has_groups { 2 } else { 0 }, "{days}");
    }
    // A clock that is put back changes nothing, and one that runs away is not believed.
    assert_eq!(series.reach(5).await, series.first.plus(20));
    assert_eq!(series.reach(20 + MAX_STEP + 1).await, series.first.plus(20));
    assert_eq!(series.rows().await, rows);
}

#[tokio::test]
async fn a_series_begins_with_what_the_directory_has() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(&dir.path().join("directory.db")).unwrap();
    let first = Day::parse("2027-01-15").unwrap();
    let entry = move |n: u8, state| Entry {
        pds: Some(Origin::parse("https://pds.example.com").unwrap()),
        peer: (state == PackageState::Present).then(|| peer(n)),
        mediators: vec![MediatorDid::parse("did:web:m.example.com").unwrap()],
        reason: (state == PackageState::Invalid).then(|| "did".to_owned()),
        state,
        ..Entry::empty(
            Did::parse(&format!("did:web:u{n}.example.com")).unwrap(),
            "test",
            first.start(),
        )
    };
    let (row, groups) = store
        .transact(move |tx| {
            tx.put_entry(&entry(10, PackageState::Present))?;
            tx.put_entry(&entry(11, PackageState::Present))?;
            tx.put_entry(&entry(12, PackageState::Invalid))?;
            tx.put_entry(&entry(13, PackageState::Removed))?;
            tx.reach_day(first.start())?;
            let groups = [
                (GroupKind::Host, "pds.example.com"),
                (GroupKind::Mediator, "did:web:m.example.com"),
                (GroupKind::KeyType, "X25519"),
                (GroupKind::Rule, "did"),
            ];
            let mut accounts = Vec::new();
            for (kind, name) in groups {
                let days = tx.group_days(kind, name, first, first)?;
                accounts.extend(days.iter().map(|day| (day.accounts, day.came)));
            }
            Ok((tx.days(first, first)?, accounts))
        })
        .await
        .unwrap();
    assert_eq!((row[0].stock, row[0].new), ([2, 0, 1], 0));
    assert_eq!(groups, [(2, 0), (2, 0), (2, 0), (1, 0)]);
}

#[tokio::test]
async fn no_question_reads_a_whole_table() {
    let series = Series::new().await;
    let path = series.dir.path().join("directory.db");
    let conn = Connection::open(path).unwrap();
    for (sql, index) in [
        (NEWEST_DAY, "daily USING PRIMARY KEY"),
        (FIRST_OPEN_DAY, "daily USING INDEX daily_open"),
        (OPEN_DAYS_HAVE_GAPS, "daily USING INDEX daily_open"),
        (OPEN_DAYS_HAVE_GAPS, "s USING PRIMARY KEY (day=?)"),
        (COUNTED_AT, "change USING INDEX change_did"),
        (DAYS, "daily USING PRIMARY KEY (day>? AND day<?)"),
        (
            SOURCE_DAYS,
            "daily_source USING PRIMARY KEY (day>? AND day<?)",
        ),
        (
            GROUP_DAYS,
            "daily_group USING PRIMARY KEY (kind=? AND name=? AND day>? AND day<?)",
        ),
        (
            GROUPS,
            "daily_group USING PRIMARY KEY (kind=? AND (name,day)>(?,?))",
        ),
        (SOURCES, "daily_source USING PRIMARY KEY"),
        (LARGEST, "group_now USING INDEX group_now_largest (kind=?)"),
        (
            MAY_BE_LATE,
            "entry USING COVERING INDEX entry_doubt (doubt_since<?)",
        ),
        (
            MAY_BE_LATE,
            "pending USING COVERING INDEX pending_untried (since<?)",
        ),
    ] {
        let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        for n in 1..=plan.parameter_count() {
            plan.raw_bind_parameter(n, 1).unwrap();
        }
        let mut rows = plan.raw_query();
        let mut steps = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            steps.push(row.get::<_, String>("detail").unwrap());
        }
        let steps = steps.join("\n");
        assert!(steps.contains(index), "{sql}: {steps}");
        assert!(!steps.contains("TEMP B-TREE"), "{sql}: {steps}");
    }
}
