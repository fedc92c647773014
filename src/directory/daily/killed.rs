//! A process that is killed around every midnight, again and again: the series is what was true, and
//! that of a process which was never killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::super::{Directory, PendingUpdate};
use super::*;
use crate::directory::{Batch, IdentityFacts};
use crate::store::directory::GroupKind;
use crate::store::{Coverage, DirectoryStore, SourceCursor, SourceKind, read_rows};
use atcomm_proto::clock::Clock;
use atcomm_proto::proof::Proven;
use atcomm_proto::syntax::Origin;
use testkit::proto::repo::{TestRepo, package, peer};

const SOURCE: &str = "relay https://relay.example.com";
const ACCOUNTS: usize = 7;
const DAYS: i32 = 12;

/// Most kills at each midnight: one at least, and more where the process has to go through it again.
const KILLS: u64 = 3;

/// Tells the process that is killed where its store is.
const DIRECTORY: &str = "ATCOMM_TEST_KILLED";

/// What an account writes: the number of a did:peer, or nothing any more.
type Written = Option<u8>;

/// A step of the process, at a time.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Midnight comes: here the process is killed.
    Midnight,
    /// An account has written at a time, and the source tells of it now.
    Hear(usize, Timestamp, Written),
    /// The source has come to the present.
    Cover,
    /// The days are kept.
    Keep,
}

/// Returns the steps with their times, the same ones each time.
fn steps() -> Vec<(Timestamp, Step)> {
    let first = Day::parse("2030-01-01").unwrap();
    let mut packages = [None; ACCOUNTS];
    let mut written = 2_u8;
    let mut write = |n: usize| {
        // Every third time a package is removed, where there is one.
        let record = (packages[n].is_none() || !written.is_multiple_of(3)).then_some(written);
        packages[n] = record;
        written += 1;
        record
    };
    let mut steps = Vec::new();
    for day in 0..DAYS {
        let at = |seconds: u64| first.plus(day).start().plus(Duration::from_secs(seconds));
        let n = usize::try_from(day).unwrap();
        for (hour, account) in [(6, 4 * n), (12, 4 * n + 1), (18, 4 * n + 2)] {
            let (at, account) = (at(hour * 3600), account % ACCOUNTS);
            steps.push((at, Step::Hear(account, at, write(account))));
        }
        let midnight = 24 * 3600;
        steps.push((at(midnight + 30), Step::Midnight));
        steps.push((at(midnight + 30), Step::Keep));
        // Written before midnight, and heard after it.
        let account = (4 * n + 3) % ACCOUNTS;
        let late = Step::Hear(account, at(midnight - 10), write(account));
        steps.push((at(midnight + 40), late));
        steps.push((at(midnight + 60), Step::Cover));
        steps.push((at(midnight + 90), Step::Keep));
        steps.push((at(midnight + 120), Step::Keep));
    }
    steps
}

/// The process that follows the source.
struct Process {
    directory: Directory,
    clock: Clock,
    repos: Vec<TestRepo>,
    newest: BTreeMap<usize, Proven>,
}

impl Process {
    /// Starts it, and returns the position of the first step that is not durable.
    async fn start(dir: &Path, steps: &[(Timestamp, Step)]) -> (Self, usize) {
        let store = DirectoryStore::open(&dir.join("directory.db")).unwrap();
        let cursor = store.query(|q| q.cursor(SOURCE)).await.unwrap();
        let done = cursor.map_or(0, |cursor| usize::try_from(cursor.position).unwrap() + 1);
        let (now, _) = *steps.get(done).or(steps.last()).unwrap();
        let clock = Clock::manual(now);
        let directory = Directory::bind(store, clock.clone(), 1 << 20)
            .await
            .unwrap();
        let repos = (0..ACCOUNTS).map(|n| {
            let tail = "abcdefg".get(n..=n).unwrap().repeat(24);
            let mut repo = TestRepo::new(&format!("did:plc:{tail}"), u8::try_from(n + 1).unwrap());
            repo.touch(0);
            repo
        });
        let process = Self {
            directory,
            clock,
            repos: repos.collect(),
            newest: BTreeMap::new(),
        };
        // The series begins with the first start, and the source is followed from then on.
        let coverage = process.coverage(now);
        let known = process.directory.store().query(|q| q.followed_sources());
        if known.await.unwrap().is_empty() {
            process.apply(None, Some(coverage), None).await;
        }
        let sources = vec![SOURCE.to_owned()];
        process.directory.follow_sources(sources).await.unwrap();
        (process, done)
    }

    fn coverage(&self, until: Timestamp) -> Coverage {
        Coverage {
            source: SOURCE.to_owned(),
            since: Timestamp::from_millis(0),
            until,
        }
    }

    /// Writes what an account writes into its repository.
    fn write(&mut self, n: usize, at: Timestamp, written: Written) {
        let repo = &mut self.repos[n];
        match written {
            Some(seed) => repo.put(&package(&peer(seed), &["did:web:m.example.com"])),
            None => repo.delete(),
        };
        let newest = repo.prove_at(at);
        self.newest.insert(n, newest);
    }

    /// Makes all steps after those that are durable, and calls `before` each one.
    async fn run(dir: &Path, mut before: impl FnMut(usize, Step)) {
        let steps = steps();
        let (mut process, done) = Self::start(dir, &steps).await;
        for (position, (at, step)) in steps.into_iter().enumerate() {
            if at > process.clock.now() {
                process.clock.advance(at.since(process.clock.now()));
            }
            if let Step::Hear(n, written_at, written) = step {
                process.write(n, written_at, written);
            }
            if position < done {
                continue;
            }
            before(position, step);
            process.step(position, step).await;
        }
        process.directory.shutdown().await;
    }

    async fn step(&self, position: usize, step: Step) {
        match step {
            Step::Midnight => {}
            Step::Hear(n, at, _) => {
                let seen = self.observe(n, Authority::Stream).await;
                let coverage = self.coverage(at);
                self.apply(Some(seen), Some(coverage), Some(position)).await;
            }
            Step::Cover => {
                let coverage = self.coverage(self.clock.now());
                self.apply(None, Some(coverage), Some(position)).await;
            }
            Step::Keep => self.directory.keep_days().await.unwrap(),
        }
        self.work().await;
    }

    /// Writes an event with the cursor behind it.
    async fn apply(
        &self,
        seen: Option<Observation>,
        coverage: Option<Coverage>,
        position: Option<usize>,
    ) {
        let cursor = position.map(|position| SourceCursor {
            source: SOURCE.to_owned(),
            position: i64::try_from(position).unwrap(),
            event_time: None,
        });
        let batch = Batch {
            observations: seen.into_iter().collect(),
            coverage,
            cursor,
            ..Batch::default()
        };
        self.directory.apply_batch(batch).await.unwrap();
    }

    /// Makes the refreshes that are pending.
    async fn work(&self) {
        loop {
            let (pending, _) = self.directory.due(100).await.unwrap();
            if pending.is_empty() {
                return;
            }
            for row in pending {
                let mut repos = self.repos.iter();
                let n = repos.position(|repo| repo.did == row.did).unwrap();
                let seen = self.observe(n, Authority::Pds).await;
                let update = PendingUpdate::Complete(row.generation);
                self.directory.apply(seen, update).await.unwrap();
            }
        }
    }

    async fn observe(&self, n: usize, authority: Authority) -> Observation {
        let repo = &self.repos[n];
        let finding = match self.newest[&n].clone() {
            Proven::Present(record) => Finding::Present(record),
            Proven::Absent(absence) => Finding::Absent(absence),
        };
        Observation {
            did: repo.did.clone(),
            identity: Some(IdentityFacts {
                pds: Some(Origin::parse(&format!("https://{}", host(n))).unwrap()),
                key: Some(repo.key()),
                claimed: None,
                asked_at: self.clock.now(),
            }),
            finding,
            authority,
            trigger: Trigger::Event {
                source: SourceKind::Relay,
                event: EventKind::Commit,
            },
            begun: self.directory.begin(&repo.did).await.unwrap(),
            at: self.clock.now(),
        }
    }
}

fn host(n: usize) -> String {
    format!("pds{}.example.com", n % 2)
}

/// The process that is killed. It tells each step before it makes it, and the end. At midnight and
/// at the end it waits for a word, so that a kill that comes late does not miss it.
#[tokio::test]
#[ignore = "run as a process of its own"]
async fn child() {
    let Some(dir) = std::env::var_os(DIRECTORY) else {
        return;
    };
    Process::run(Path::new(&dir), |position, step| {
        println!("@{position} {step:?}");
        if matches!(step, Step::Midnight) {
            wait_for_a_word();
        }
    })
    .await;
    println!("@end");
    wait_for_a_word();
}

fn wait_for_a_word() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Starts the process.
fn start(dir: &Path) -> (Child, impl Iterator<Item = String>) {
    let name = format!("{}::child", module_path!().split_once("::").unwrap().1);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--ignored", "--nocapture"])
        .env(DIRECTORY, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let lines = stdout.lines().map(Result::unwrap);
    // The test harness may begin the first line.
    let told = lines.filter_map(|line| Some(line.split_once('@')?.1.to_owned()));
    (child, told)
}

/// Runs the process to its end, and kills it at each midnight some moments after it has come there.
/// Returns the number of kills.
fn run_and_kill(dir: &Path) -> u64 {
    let mut kills: BTreeMap<usize, u64> = BTreeMap::new();
    let mut passed = 0;
    loop {
        let (mut child, told) = start(dir);
        let mut words = child.stdin.take().unwrap();
        let mut has_ended = false;
        for line in told {
            if line == "end" {
                // The test harness has a line to say as well.
                has_ended = true;
                words.write_all(b"\n").unwrap();
                continue;
            }
            let (position, step) = line.split_once(' ').unwrap();
            let position: usize = position.parse().unwrap();
            // What was durable is not made again; the days are kept again.
            assert!(position >= passed, "{position} after {passed}");
            if step.starts_with("Hear") || step == "Cover" {
                passed = position;
            }
            let killed = kills.entry(position).or_default();
            if step == "Midnight" {
                words.write_all(b"\n").unwrap();
            }
            if step == "Midnight" && *killed < KILLS {
                *killed += 1;
                let number: u64 = kills.values().sum();
                // From at once to the time in which the midnight is over.
                std::thread::sleep(Duration::from_millis(number * 7 % 23));
                child.kill().unwrap();
                break;
            }
        }
        let status = child.wait().unwrap();
        if has_ended {
            assert!(status.success(), "{status}");
            return kills.values().sum();
        }
        assert!(!status.success(), "the process ended by itself");
    }
}

/// What is true of the days.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Truth {
    enrolled: i64,
    came: i64,
    departed: i64,
    unvouched: i64,
    hosts: BTreeMap<String, i64>,
}

fn truth() -> BTreeMap<Day, Truth> {
    let mut written: Vec<(Timestamp, usize, Written)> = steps()
        .into_iter()
        .filter_map(|(_, step)| match step {
            Step::Hear(n, at, written) => Some((at, n, written)),
            _ => None,
        })
        .collect();
    written.sort_by_key(|(at, ..)| *at);
    let mut days: BTreeMap<Day, Truth> = BTreeMap::new();
    let mut packages = [None; ACCOUNTS];
    for (at, n, now) in written {
        let day = Day::of(at);
        let truth = days.entry(day).or_default();
        match (packages[n], now) {
            (None, Some(_)) => truth.came += 1,
            (Some(_), None) => truth.departed += 1,
            (Some(_), Some(_)) => truth.unvouched += 1,
            (None, None) => {}
        }
        packages[n] = now;
        truth.enrolled = 0;
        truth.hosts.clear();
        for (n, _) in packages.iter().enumerate().filter(|(_, one)| one.is_some()) {
            truth.enrolled += 1;
            *truth.hosts.entry(host(n)).or_default() += 1;
        }
    }
    days
}

/// Returns the rows of the series, but for the times at which something was looked at.
fn series(dir: &Path) -> Vec<Vec<String>> {
    let path = dir.join("directory.db");
    let read = |sql: &str| read_rows(&path, sql);
    let mut rows = read(
        "SELECT day, enrolled, inactive, invalid, new, returned, found, departed, vouched, unvouched,
           within_1s + within_10s + within_1m + within_10m + within_1h + within_1d + longer,
           uncertain, hosts, reached, begun, missed, gap, covered, closed_at IS NOT NULL, complete
         FROM daily ORDER BY day",
    );
    rows.extend(read("SELECT * FROM daily_group ORDER BY kind, name, day"));
    rows.extend(read(
        "SELECT kind, name, accounts FROM group_now ORDER BY kind, name",
    ));
    rows.extend(read(
        "SELECT day, source, gaps, gap_ms FROM daily_source ORDER BY day, source",
    ));
    rows
}

#[tokio::test]
async fn inv10_the_series_of_a_process_that_is_killed_at_every_midnight_is_true() {
    let (killed, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kills = run_and_kill(killed.path());
    assert!(kills >= u64::try_from(DAYS).unwrap(), "{kills}");
    Process::run(whole.path(), |_, _| {}).await;
    assert_eq!(series(killed.path()), series(whole.path()));

    let store = DirectoryStore::open(&killed.path().join("directory.db")).unwrap();
    let expected = truth();
    let (first, last) = (
        *expected.keys().next().unwrap(),
        *expected.keys().last().unwrap(),
    );
    let rows = store.query(move |q| q.days(first, last)).await.unwrap();
    assert_eq!(rows.len(), expected.len());
    for (row, (day, expected)) in rows.iter().zip(expected) {
        assert_eq!(row.day, day);
        assert!(row.complete, "{row:?}");
        let groups = store.query(move |q| q.groups_of_day(day)).await.unwrap();
        let hosts = groups.into_iter();
        let hosts = hosts.filter(|(kind, name, accounts)| {
            *kind == GroupKind::Host && !name.is_empty() && *accounts > 0
        });
        let counted = Truth {
            enrolled: row.stock[0],
            came: row.new + row.returned + row.found,
            departed: row.departed,
            unvouched: row.vouched + row.unvouched,
            hosts: hosts.map(|(_, name, accounts)| (name, accounts)).collect(),
        };
        assert_eq!(counted, expected, "{day}");
    }
    store.shutdown().await;
}
