mod attack;
mod editions;
mod years;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::*;
use attack::{Attack, Group, Publisher, read};
use years::{Host, Year, year};

/// The threshold of the tests: the default one.
const THRESHOLD: i64 = 10;

fn request(since: Option<Day>, until: Option<Day>) -> DatasetRequest {
    DatasetRequest {
        since,
        until,
        settings: DatasetSettings::default(),
        origin: Some("https://dir.example.com".to_owned()),
    }
}

fn make(year: &Year, name: &str, request: &DatasetRequest) -> PathBuf {
    make_of(year.path(), name, request)
}

fn make_of(data_dir: &Path, name: &str, request: &DatasetRequest) -> PathBuf {
    let to = data_dir.join(name);
    write(&data_dir.join("directory.db"), &to, request, &mut || true).unwrap();
    to
}

/// Writes the tables as a publisher does who folds small groups into one row of others.
fn fold(data_dir: &Path, name: &str, threshold: i64) -> PathBuf {
    let to = data_dir.join(name);
    std::fs::create_dir(&to).unwrap();
    let file = DirectoryFile::open(&data_dir.join("directory.db")).unwrap();
    let range = file.query(|q| q.closed_days()).unwrap().unwrap();
    let mut daily = csv::Writer::from_path(to.join("daily.csv")).unwrap();
    let columns = [
        "day", "enrolled", "invalid", "new", "returned", "found", "departed",
    ];
    daily.write_record(columns).unwrap();
    for row in file.query(|q| q.days(range.0, range.1)).unwrap() {
        let [enrolled, _, invalid] = row.stock;
        let numbers = [
            enrolled,
            invalid,
            row.new,
            row.returned,
            row.found,
            row.departed,
        ];
        daily.write_field(row.day.to_string()).unwrap();
        for number in numbers {
            daily.write_field(number.to_string()).unwrap();
        }
        daily.write_record(None::<&[u8]>).unwrap();
    }
    let mut groups = csv::Writer::from_path(to.join("groups.csv")).unwrap();
    let columns = ["kind", "name", "day", "accounts", "came", "went"];
    groups.write_record(columns).unwrap();
    for kind in GroupKind::ALL {
        let mut others: BTreeMap<Day, i64> = BTreeMap::new();
        let rows = file
            .query(|q| q.group_rows(*kind, range, None, usize::MAX))
            .unwrap();
        for row in rows {
            if row.accounts < threshold {
                *others.entry(row.day).or_default() += row.accounts;
                continue;
            }
            let name = rows::public_name(*kind, &row.name).unwrap();
            let day = row.day.to_string();
            let numbers = [row.accounts, row.came, row.went].map(|number| number.to_string());
            let [accounts, came, went] = &numbers;
            let record = [kind.as_str(), &name, &day, accounts, came, went];
            groups.write_record(record).unwrap();
        }
        for (day, accounts) in others {
            let (day, accounts) = (day.to_string(), accounts.to_string());
            let record = [kind.as_str(), "", &day, &accounts, "", ""];
            groups.write_record(record).unwrap();
        }
    }
    to
}

/// What an attacker has found out of groups below the threshold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Recovered {
    /// Days on which the number of accounts of such a group is known.
    counts: usize,
    /// Pairs of days between which one account came to such a group, or went from it, and that is
    /// known.
    single: usize,
    /// Days and pairs of days that could have been found.
    secrets: usize,
}

fn recovered(
    attack: &Attack,
    truth: &[BTreeMap<Group, i64>],
    groups: &BTreeSet<Group>,
    threshold: i64,
) -> Recovered {
    let mut found = Recovered::default();
    for group in groups {
        let accounts: Vec<i64> = truth
            .iter()
            .map(|day| day.get(group).copied().unwrap_or(0))
            .collect();
        for (one, before) in accounts.iter().enumerate() {
            if *before >= threshold {
                continue;
            }
            found.secrets += 1;
            let (low, high) = attack.accounts(group, one);
            assert!((low..=high).contains(before), "{group:?} on {one}");
            found.counts += usize::from(low == high);
            // Every later day is compared, not the next one only.
            for (other, after) in accounts.iter().enumerate().skip(one + 1) {
                if before.abs_diff(*after) != 1 || *after >= threshold {
                    continue;
                }
                found.secrets += 1;
                found.single += usize::from(attack.knows_a_change(group, one, other));
            }
        }
    }
    found
}

/// Hosts of different sizes: one large and one small, which the attacker knows to be all; one that
/// grows and shrinks past the threshold; several small ones.
const WORLDS: [&[Host]; 4] = [
    &[
        Host {
            first: 40,
            most: 90,
        },
        Host { first: 3, most: 9 },
    ],
    &[
        Host {
            first: 50,
            most: 90,
        },
        Host { first: 9, most: 14 },
        Host { first: 2, most: 9 },
    ],
    &[
        Host {
            first: 30,
            most: 60,
        },
        Host {
            first: 25,
            most: 40,
        },
        Host { first: 8, most: 24 },
        Host { first: 1, most: 4 },
        Host { first: 0, most: 2 },
    ],
    &[Host { first: 6, most: 9 }, Host { first: 8, most: 25 }],
];

/// Lets a year pass, publishes an edition every few days and each day at the end, and attacks them.
async fn attacked(seed: u64, hosts: &[Host], every: i32) -> [Recovered; 3] {
    let year = year(seed, 365, hosts).await;
    let groups = year.groups();
    let mut editions = Vec::new();
    for n in (20..365).filter(|n| n % every == 0 || *n >= 355) {
        let until = year.first.plus(n);
        let name = format!("edition{n}");
        editions.push(make(&year, &name, &request(None, Some(until))));
    }
    let by = |publisher, editions: &[PathBuf]| {
        let attack = Attack::new(publisher, editions, &groups);
        recovered(&attack, &year.truth, &groups, THRESHOLD)
    };
    let rounded = by(Publisher::Rounded(THRESHOLD), &editions);
    let folded = fold(year.path(), "folded", THRESHOLD);
    // The totals of one publisher with the groups of the other.
    let mixed = year.path().join("mixed");
    std::fs::create_dir(&mixed).unwrap();
    std::fs::copy(folded.join("daily.csv"), mixed.join("daily.csv")).unwrap();
    let last = editions.last().unwrap();
    std::fs::copy(last.join("groups.csv"), mixed.join("groups.csv")).unwrap();
    [
        rounded,
        by(Publisher::RoundedGroups(THRESHOLD), &[mixed]),
        by(Publisher::Folded(THRESHOLD), &[folded]),
    ]
}

#[tokio::test]
async fn all_editions_of_a_year_tell_nothing_of_single_accounts_in_small_groups() {
    let (mut with_totals, mut folded) = (Recovered::default(), Recovered::default());
    for (seed, hosts) in (1..).zip(WORLDS) {
        let [rounded, mixed, naive] = attacked(0x5eed_0000 + seed, hosts, 60).await;
        println!("{rounded:?}; totals exact: {mixed:?}; folded: {naive:?}");
        assert!(rounded.secrets > 1000, "{rounded:?}");
        assert_eq!((rounded.counts, rounded.single), (0, 0));
        with_totals.single += mixed.single;
        folded.counts += naive.counts;
        folded.single += naive.single;
    }
    // The same attack succeeds where small groups are only folded into one row, and still where
    // groups are rounded and totals are not.
    assert!(folded.counts > 300 && folded.single > 100, "{folded:?}");
    assert!(with_totals.single > 10, "{with_totals:?}");
}

/// Reads the groups of each day as they were counted.
fn counted(file: &Path) -> Vec<BTreeMap<Group, i64>> {
    let file = DirectoryFile::open(file).unwrap();
    let (first, last) = file.query(|q| q.closed_days()).unwrap().unwrap();
    let days = usize::try_from(last.since(first) + 1).unwrap();
    let mut truth = vec![BTreeMap::new(); days];
    for kind in GroupKind::ALL {
        let read = |q: &Queries<'_>| q.group_rows(*kind, (first, last), None, usize::MAX);
        for row in file.query(read).unwrap() {
            let name = rows::public_name(*kind, &row.name).unwrap().into_owned();
            let day = usize::try_from(row.day.since(first)).unwrap();
            truth[day].insert((kind.as_str().to_owned(), name), row.accounts);
        }
    }
    truth
}

/// The threshold for a directory of few accounts.
const SMALL: i64 = 4;

#[tokio::test]
async fn the_year_of_a_directory_with_outages_tells_nothing_of_single_accounts() {
    let dir = crate::directory::simulated_year(0x5eed_0002).await;
    let truth = counted(&dir.path().join("directory.db"));
    let groups: BTreeSet<Group> = truth.iter().flat_map(BTreeMap::keys).cloned().collect();
    let settings = DatasetSettings {
        threshold: u32::try_from(SMALL).unwrap(),
        ..DatasetSettings::default()
    };
    let last = Day::parse("2030-01-01").unwrap().plus(364);
    let editions = (0..12).map(|n| {
        let request = DatasetRequest {
            settings: settings.clone(),
            ..request(None, Some(last.plus(-30 * n)))
        };
        make_of(dir.path(), &format!("edition{n}"), &request)
    });
    let editions: Vec<PathBuf> = editions.collect();
    // In tests a day has few rows of a kind, so that some mediators have none on some days, and what
    // ties their days to each other does not hold. The other kinds are never cut.
    let known = groups.iter().filter(|group| group.0 != "mediator");
    let known: BTreeSet<Group> = known.cloned().collect();
    let by = |publisher, editions: &[PathBuf]| {
        let attack = Attack::new(publisher, editions, &known);
        recovered(&attack, &truth, &known, SMALL)
    };
    let rounded = by(Publisher::Rounded(SMALL), &editions);
    let folded = fold(dir.path(), "folded", SMALL);
    let naive = by(Publisher::Folded(SMALL), &[folded]);
    println!("{rounded:?}; folded: {naive:?}");
    assert!(rounded.secrets > 1000 && !read(&editions[0], "groups.csv").is_empty());
    assert_eq!((rounded.counts, rounded.single), (0, 0));
    assert!(naive.counts > 100 && naive.single > 100, "{naive:?}");
}

#[tokio::test]
async fn a_dataset_is_the_same_each_time_and_holds_what_it_says() {
    let year = year(7, 40, WORLDS[1]).await;
    let request = request(None, None);
    let (one, other) = (make(&year, "one", &request), make(&year, "other", &request));
    let names = |dir: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    };
    let expected = [
        "CITATION.cff",
        "README.md",
        "SHA256SUMS",
        "croissant.json",
        "daily.csv",
        "daily.parquet",
        "datapackage.json",
        "groups.csv",
        "groups.parquet",
        "provenance.json",
        "sources.csv",
        "sources.parquet",
    ];
    assert_eq!(names(&one), expected.map(str::to_owned).into());
    let sums = std::fs::read_to_string(one.join(HASHES)).unwrap();
    assert_eq!(sums.lines().count(), expected.len() - 1);
    for name in names(&one) {
        let bytes = std::fs::read(one.join(&name)).unwrap();
        assert_eq!(bytes, std::fs::read(other.join(&name)).unwrap(), "{name}");
        assert!(!bytes.windows(4).any(|four| four == b"did:"), "{name}");
        if name != HASHES {
            let line = format!("{}  {name}", HEXLOWER.encode(&Sha256::digest(&bytes)));
            assert!(sums.lines().any(|known| known == line), "{name}");
        }
    }
    let days = read(&one, "daily.csv");
    assert_eq!(days.len(), 40);
    assert_eq!(days[39]["day"], "2030-02-09");
    let shown: BTreeSet<String> = (read(&one, "groups.csv").iter())
        .map(|row| row["name"].clone())
        .collect();
    let large = ["X25519", "m0.example.com", "pds0.example.com"];
    assert_eq!(shown, large.map(str::to_owned).into());
}

#[tokio::test]
async fn an_edition_is_a_part_of_the_series_and_fails_without_a_trace() {
    let year = year(8, 30, WORLDS[1]).await;
    let (since, until) = (year.first.plus(5), year.first.plus(9));
    let part = make(&year, "part", &request(Some(since), Some(until)));
    let whole = make(&year, "whole", &request(None, None));
    for (table, rows) in [("daily.csv", 5), ("groups.csv", 15)] {
        let (part, whole) = (read(&part, table), read(&whole, table));
        assert_eq!(part.len(), rows);
        assert!(part.iter().all(|row| whole.contains(row)), "{table}");
    }
    let to = year.path().join("never");
    let attempt = |request: &DatasetRequest, go_on: bool| {
        let made = write(&year.file(), &to, request, &mut || go_on);
        assert!(!to.exists() && !year.path().join("never.part").exists());
        made.unwrap_err()
    };
    let later = request(Some(year.first.plus(30)), None);
    let (first, last) = (year.first, year.first.plus(29));
    assert!(matches!(
        attempt(&later, true),
        DatasetError::NoSuchDays { first: one, last: other } if (one, other) == (first, last)
    ));
    let earlier = request(None, Some(first.plus(-1)));
    assert!(matches!(
        attempt(&earlier, true),
        DatasetError::NoSuchDays { .. }
    ));
    assert!(matches!(
        attempt(&later, false),
        DatasetError::NoSuchDays { .. }
    ));
    let stopped = attempt(&request(None, None), false);
    assert!(matches!(stopped, DatasetError::Stopped), "{stopped}");
    let taken = write(&year.file(), &whole, &later, &mut || true).unwrap_err();
    assert!(matches!(taken, DatasetError::Exists), "{taken}");
    let settings = DatasetSettings {
        days: 7,
        ..DatasetSettings::default()
    };
    let week = DatasetRequest {
        settings,
        ..request(None, None)
    };
    assert_eq!(read(&make(&year, "week", &week), "daily.csv").len(), 7);
}

#[tokio::test]
async fn with_a_threshold_of_one_every_number_is_shown() {
    let year = year(9, 30, WORLDS[1]).await;
    let settings = DatasetSettings {
        threshold: 1,
        ..DatasetSettings::default()
    };
    let exact = DatasetRequest {
        settings,
        ..request(None, None)
    };
    let shown = read(&make(&year, "exact", &exact), "groups.csv");
    for (day, truth) in year.truth.iter().enumerate() {
        let day = year.first.plus(i32::try_from(day).unwrap()).to_string();
        for ((kind, name), accounts) in truth {
            let mut rows = shown.iter();
            let row =
                rows.find(|row| row["day"] == day && row["kind"] == *kind && row["name"] == *name);
            assert_eq!(
                row.unwrap()["accounts"],
                accounts.to_string(),
                "{day} {name}"
            );
        }
    }
}

#[test]
fn only_plain_names_are_public() {
    let name = |kind, name| rows::public_name(kind, name).map(|name| name.into_owned());
    for (public, did) in [
        (Some("m.example.com"), "did:web:m.example.com"),
        (Some("m.example.com:8080"), "did:web:m.example.com%3A8080"),
        (None, "did:web:M.example.com"),
        (None, "did:web:m.example.com%3a8080"),
        (None, "did:web:m.example.com:user:alice"),
        (
            None,
            "did:peer:2.Ez6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc",
        ),
        (None, "did:plc:ewvi7nxzyoun6zhxrhs64oiz"),
        (None, ""),
    ] {
        assert_eq!(name(GroupKind::Mediator, did).as_deref(), public, "{did}");
    }
    for host in ["pds.example.com", "localhost:2583", "[::1]:2583"] {
        assert_eq!(name(GroupKind::Host, host).as_deref(), Some(host));
    }
    for other in ["", "a b", "a,b", "=1", "did:web:a", "a\nb"] {
        assert_eq!(name(GroupKind::Host, other), None, "{other}");
    }
}

#[test]
fn all_followed_pdses_are_one_source() {
    let day = Day::parse("2030-01-01").unwrap();
    let row = |source: &str, listed| SourceDay {
        day,
        source: source.to_owned(),
        covered_until: Some(day.end()),
        ended_at: Some(day.end()),
        gaps: 1,
        gap_ms: 1000,
        listed,
        unknown: None,
        unlisted: Some(7),
        position: Some(99),
    };
    let rows = [
        row("jetstream wss://jet.example.com", None),
        row("pds https://alice.example.com", Some(1)),
        row("pds https://bob.example.com", Some(40)),
        row("relay https://relay.example.com", Some(100)),
    ];
    let public = SourcesOfDay::new(&rows).public();
    let names: Vec<&str> = public.iter().map(|source| source.name).collect();
    let expected = [
        "jetstream wss://jet.example.com",
        "pds",
        "relay https://relay.example.com",
    ];
    assert_eq!(names, expected);
    let pds = &public[1];
    assert_eq!((pds.sources, pds.row.gaps, pds.row.gap_ms), (2, 2, 2000));
    assert_eq!((pds.row.listed, pds.row.unlisted), (Some(41), None));
    let hidden = (pds.row.covered_until, pds.row.ended_at, pds.row.position);
    assert_eq!(hidden, (None, None, None));
    assert_eq!(public[2].row.position, Some(99));
}
