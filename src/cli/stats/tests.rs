use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::directory::{Batch, Directory};
use crate::store::directory::DayDelta;
use crate::store::{Coverage, DirectoryFile, DirectoryStore, Gap};

const SOURCE: &str = "relay https://relay.example.com";
const HOUR: Duration = Duration::from_secs(3600);

/// Three days of a directory, the second with a gap of twelve hours, up to six in the morning of the
/// third. The service still runs.
struct Days {
    _dir: tempfile::TempDir,
    path: PathBuf,
    directory: Directory,
    clock: Clock,
}

impl Days {
    async fn pass() -> Self {
        let start = Timestamp::parse_rfc3339("2030-01-01T12:00:00Z").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory.db");
        let clock = Clock::manual(start);
        let store = DirectoryStore::open(&path).unwrap();
        let directory = Directory::bind(store, clock.clone(), 1 << 20).await;
        let days = Self {
            _dir: dir,
            path,
            directory: directory.unwrap(),
            clock,
        };
        days.cover(start, None).await;
        let sources = vec![SOURCE.to_owned()];
        days.directory.follow_sources(sources).await.unwrap();
        days.enrol(10).await;
        days.clock.advance(18 * HOUR);
        days.enrol(10).await;
        days.clock.advance(12 * HOUR);
        days.cover(start, Some(days.clock.now().minus(12 * HOUR)))
            .await;
        days.clock.advance(12 * HOUR);
        days.enrol(25).await;
        days
    }

    /// Writes that the source is covered up to now, or has missed what was since a time.
    async fn cover(&self, since: Timestamp, gap: Option<Timestamp>) {
        let now = self.clock.now();
        let batch = Batch {
            gaps: gap.iter().map(|_| SOURCE.to_owned()).collect(),
            coverage: Some(Coverage {
                source: SOURCE.to_owned(),
                since: gap.map_or(since, |_| now),
                until: now,
            }),
            gap: gap.map(|since| Gap {
                source: SOURCE.to_owned(),
                reason: "outdated",
                since,
                pds: None,
                covered: BTreeSet::new(),
            }),
            ..Batch::default()
        };
        self.directory.apply_batch(batch).await.unwrap();
    }

    async fn enrol(&self, accounts: i64) {
        let now = self.clock.now();
        let delta = DayDelta {
            stock: [accounts, 0, 0],
            new: accounts,
            ..DayDelta::default()
        };
        let store = self.directory.store();
        let written = store.transact(move |tx| {
            let day = tx.reach_day(now)?;
            tx.add_to_day(day, day, &delta)
        });
        written.await.unwrap();
    }

    fn read(&self, days: i32) -> Numbers {
        let now = self.clock.now();
        let file = DirectoryFile::open(&self.path).unwrap();
        file.query(|q| Numbers::read(q, now, days)).unwrap()
    }

    fn text(&self, width: Option<usize>) -> String {
        let mut text = Vec::new();
        render::text(&self.read(30), self.clock.now(), width, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}

#[tokio::test]
async fn a_sparkline_has_a_sign_for_each_day() {
    let days = Days::pass().await;
    let text = days.text(None);
    assert!(
        text.starts_with("as of 2030-01-03T06:00:00.000Z\n"),
        "{text}"
    );
    for wanted in [
        "enrolled at the end of each day, 2030-01-01 to 2030-01-03: 10 to 45; 0 of 3 days are \
         complete\n  \u{2581}\u{2583}\u{2588}\n",
        // 42 of 54 hours.
        "relay https://relay.example.com: 77.7 % of the time without a gap, 1 gaps; newest event \
         2030-01-02T18:00:00.000Z\n  \u{2588}\u{2584}\u{2588}\n",
        "        0  accounts in all\n",
    ] {
        assert!(text.contains(wanted), "{wanted}in\n{text}");
    }
    // Two columns of indent leave room for two days.
    let narrow = days.text(Some(4));
    assert!(narrow.contains("\n  \u{2581}\u{2588}\n"), "{narrow}");
    assert!(narrow.contains("\n  \u{2584}\u{2588}\n"), "{narrow}");
}

#[tokio::test]
async fn the_json_has_the_days_that_are_asked_for() {
    let days = Days::pass().await;
    let json = serde_json::to_value(days.read(2)).unwrap();
    let of = |list: &Value, name: &str| -> Vec<Value> {
        let list = list.as_array().unwrap();
        list.iter().map(|one| one[name].clone()).collect()
    };
    assert_eq!(of(&json["days"], "day"), ["2030-01-02", "2030-01-03"]);
    assert_eq!(of(&json["days"], "enrolled"), [20, 45]);
    let source = &json["sources"][0];
    assert_eq!(source["name"], SOURCE);
    assert_eq!(of(&source["days"], "gapMs"), [12 * 3_600_000, 0]);
    assert_eq!(of(&source["days"], "followed"), [true, true]);
    assert_eq!(json["statistics"]["asOf"], "2030-01-03T06:00:00.000Z");
}

#[tokio::test]
async fn a_directory_without_a_day_has_numbers_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("directory.db");
    let store = DirectoryStore::open(&path).unwrap();
    let now = Timestamp::parse_rfc3339("2030-01-01T12:00:00Z").unwrap();
    let file = DirectoryFile::open(&path).unwrap();
    let numbers = file.query(|q| Numbers::read(q, now, 30)).unwrap();
    let mut text = Vec::new();
    render::text(&numbers, now, Some(80), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with("\nno day has begun\n"), "{text}");
    store.shutdown().await;
}
