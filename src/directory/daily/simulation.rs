//! A year in the life of a directory: accounts come, change and go, sources are away or lose events,
//! and the process is killed. What a complete day says must be what was true.

mod year;

pub(crate) use year::simulated_year;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::super::{Directory, PendingUpdate};
use super::*;
use crate::directory::{Batch, IdentityFacts, Observation};
use crate::store::{
    AccountStatus, AnnouncedChange, BackfillRow, Coverage, DirectoryStore, EventKind, Gap,
    NewPending, SourceKind,
};
use atcomm_proto::clock::Clock;
use atcomm_proto::proof::Proven;
use atcomm_proto::syntax::Origin;
use testkit::proto::account::TestKey;
use testkit::proto::repo::{TestRepo, package};

const SOURCE: &str = "relay https://relay.example.com";
const DAYS: i32 = 365;
const DAY: i64 = 24 * 3600;

/// Seconds after which a source that cannot be reached is reported as a gap for the first time.
const REPORT: i64 = 300;

/// A generator of numbers that gives the same ones each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn pick(&mut self, n: usize) -> usize {
        usize::try_from(self.below(u64::try_from(n).unwrap())).unwrap()
    }

    fn seconds(&mut self, from: i64, to: i64) -> i64 {
        from + i64::try_from(self.below(u64::try_from(to - from).unwrap())).unwrap()
    }
}

/// The accounts of a year, and the part of them that is at each host, when it begins and later.
#[derive(Clone, Copy)]
struct Population {
    accounts: usize,
    hosts: [usize; 3],
}

impl Population {
    /// Returns the host of a place among all.
    fn host(self, place: usize) -> usize {
        let mut before = 0;
        let mut hosts = self.hosts.iter();
        let host = hosts.position(|accounts| {
            before += accounts;
            place < before
        });
        host.unwrap()
    }

    fn places(self) -> usize {
        self.hosts.iter().sum()
    }
}

/// What is true of an account.
#[derive(Debug, Clone, Default, PartialEq)]
struct Truth {
    /// The mediators of its package; `None`: it has none.
    package: Option<Vec<usize>>,
    invalid: bool,
    inactive: bool,
    host: usize,
}

struct Account {
    repo: TestRepo,
    newest: Proven,
    truth: Truth,
    key: Option<TestKey>,
    /// Whether the directory knew the account when it last ran.
    known: bool,
    since: Vec<(i64, Truth)>,
}

impl Account {
    fn at(&self, moment: i64) -> Truth {
        let mut states = self.since.iter().rev();
        let state = states.find(|(since, _)| *since < moment);
        state.map_or_else(Truth::default, |(_, truth)| truth.clone())
    }
}

/// An event of the source.
#[derive(Clone)]
enum Event {
    Commit(usize, Box<Proven>),
    About(usize, EventKind),
}

/// What happened on a day, as the accounts know it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Happened {
    came: i64,
    went: i64,
    vouched: i64,
    unvouched: i64,
}

struct World {
    dir: tempfile::TempDir,
    directory: Option<Directory>,
    clock: Clock,
    start: i64,
    dice: Dice,
    population: Population,
    accounts: Vec<Account>,
    /// Events that the directory has not heard.
    waiting: Vec<(i64, Event)>,
    /// Whether the connection to the source stands.
    connected: bool,
    covered: (i64, i64),
    /// Refreshes of doubt and listings wait until then.
    slow_until: i64,
    happened: BTreeMap<Day, Happened>,
    /// Days on which the directory or its source was away.
    disturbed: BTreeSet<Day>,
}

async fn open(dir: &Path, clock: &Clock) -> Directory {
    let store = DirectoryStore::open(&dir.join("directory.db")).unwrap();
    let directory = Directory::bind(store, clock.clone(), 1 << 20)
        .await
        .unwrap();
    directory
        .follow_sources(vec![SOURCE.to_owned()])
        .await
        .unwrap();
    directory
}

fn host(n: usize) -> Origin {
    Origin::parse(&format!("https://pds{n}.example.com")).unwrap()
}

fn mediator(n: usize) -> String {
    format!("did:web:m{n}.example.com")
}

impl World {
    async fn new(seed: u64, population: Population) -> Self {
        let start = Day::parse("2030-01-01").unwrap().start();
        let clock = Clock::manual(start.plus(Duration::from_secs(3600)));
        let dir = tempfile::tempdir().unwrap();
        let directory = open(dir.path(), &clock).await;
        let start = start.millis() / 1000;
        let mut accounts = Vec::new();
        for n in 0..population.accounts {
            let letter = |n: usize| char::from(b'a' + u8::try_from(n % 26).unwrap());
            let tail: String = (0..24).map(|at| letter(n + at / 23 * (n / 26))).collect();
            let mut repo = TestRepo::new(&format!("did:plc:{tail}"), u8::try_from(n + 1).unwrap());
            repo.touch(0);
            let newest = repo.prove_at(clock.now());
            accounts.push(Account {
                repo,
                newest,
                truth: Truth {
                    host: population.host(n % population.places()),
                    ..Truth::default()
                },
                key: None,
                known: false,
                since: Vec::new(),
            });
        }
        let now = clock.now().millis() / 1000;
        let mut world = Self {
            dir,
            directory: Some(directory),
            clock,
            start,
            dice: Dice(seed),
            population,
            accounts,
            waiting: Vec::new(),
            connected: false,
            covered: (now, now),
            slow_until: 0,
            happened: BTreeMap::new(),
            disturbed: BTreeSet::new(),
        };
        world.connect().await;
        world
    }

    fn now(&self) -> i64 {
        self.clock.now().millis() / 1000
    }

    fn today(&self) -> Day {
        Day::of(self.clock.now())
    }

    fn directory(&self) -> &Directory {
        self.directory.as_ref().unwrap()
    }

    /// Lets time pass, and the directory work meanwhile.
    async fn pass(&mut self, until: i64) {
        const TICKS: [i64; 7] = [30, 120, 240, 21_600, 43_200, 64_800, 80_000];
        while self.now() < until {
            let now = self.now();
            let midnight = now - now.rem_euclid(DAY);
            let ticks = TICKS.iter().chain(&[DAY + 30]);
            let next = ticks.map(|tick| midnight + tick).find(|tick| *tick > now);
            let next = next.unwrap().min(until);
            let step = u64::try_from(next - now).unwrap();
            self.clock.advance(Duration::from_secs(step));
            if self.directory.is_some() && next < until {
                self.work().await;
                self.directory().keep_days().await.unwrap();
            }
        }
    }

    /// Makes all refreshes that are due.
    async fn work(&mut self) {
        for _ in 0..50 {
            let slow = self.now() < self.slow_until;
            let (pending, due) = self.directory().due(100).await.unwrap();
            let pending = pending
                .into_iter()
                .filter(|row| !slow || !matches!(row.trigger, Trigger::Listing(_)));
            let mut looks: Vec<(usize, Trigger, PendingUpdate)> = pending
                .map(|row| {
                    let update = PendingUpdate::Complete(row.generation);
                    (self.index(&row.did), row.trigger, update)
                })
                .collect();
            if looks.is_empty() && !slow {
                let due = due.iter().map(|did| self.index(did));
                looks.extend(due.map(|n| (n, Trigger::Recheck, PendingUpdate::Unchanged)));
            }
            if looks.is_empty() {
                return;
            }
            let mut seen = Vec::new();
            for (n, trigger, update) in looks {
                seen.push((self.look(n, trigger).await, update));
            }
            let applied = seen.into_iter();
            let applied = applied.map(|(seen, update)| self.directory().apply(seen, update));
            for outcome in join_all(applied).await {
                outcome.unwrap();
            }
        }
        panic!("the work has no end");
    }

    fn index(&self, did: &Did) -> usize {
        let mut accounts = self.accounts.iter();
        accounts
            .position(|account| account.repo.did == *did)
            .unwrap()
    }

    /// Asks the account's PDS.
    async fn look(&self, n: usize, trigger: Trigger) -> Observation {
        let account = &self.accounts[n];
        let finding = if account.truth.inactive {
            Finding::Inactive(AccountStatus::Deactivated)
        } else {
            found(account.newest.clone())
        };
        self.observation(n, finding, Authority::Pds, trigger).await
    }

    async fn observation(
        &self,
        n: usize,
        finding: Finding,
        authority: Authority,
        trigger: Trigger,
    ) -> Observation {
        let account = &self.accounts[n];
        let now = self.clock.now();
        Observation {
            did: account.repo.did.clone(),
            identity: Some(IdentityFacts {
                pds: Some(host(account.truth.host)),
                key: Some(account.repo.key()),
                claimed: None,
                asked_at: now,
            }),
            finding,
            authority,
            trigger,
            begun: self.directory().begin(&account.repo.did).await.unwrap(),
            at: now,
        }
    }

    /// Hears an event that the source sent at a time.
    async fn hear(&mut self, at: i64, event: Event) {
        let mut batch = Batch::default();
        let trigger = |event| Trigger::Event {
            source: SourceKind::Relay,
            event,
        };
        match event {
            Event::Commit(n, proven) => {
                let trigger = trigger(EventKind::Commit);
                let finding = found(*proven);
                let seen = self.observation(n, finding, Authority::Stream, trigger);
                batch.observations.push(seen.await);
            }
            Event::About(n, kind) => batch.pending.push(NewPending {
                did: self.accounts[n].repo.did.clone(),
                trigger: trigger(kind),
                announced: AnnouncedChange::Keep,
                not_before: self.clock.now(),
            }),
        }
        self.covered.1 = self.covered.1.max(at);
        batch.coverage = Some(self.coverage());
        self.directory().apply_batch(batch).await.unwrap();
        if self.dice.below(2) == 0 || self.waiting.is_empty() {
            self.work().await;
        }
        // Started again between two transactions: each is durable once it has returned.
        if self.dice.below(40) == 0 {
            self.stop().await;
            self.directory = Some(open(self.dir.path(), &self.clock).await);
            self.directory().set_connection(SOURCE, true);
        }
    }

    async fn stop(&mut self) {
        if let Some(directory) = self.directory.take() {
            directory.shutdown().await;
        }
    }

    fn coverage(&self) -> Coverage {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        Coverage {
            source: SOURCE.to_owned(),
            since: at(self.covered.0),
            until: at(self.covered.1),
        }
    }

    /// Connects to the source, which continues where it was, and hears what has waited.
    async fn connect(&mut self) {
        self.connected = true;
        self.directory().set_connection(SOURCE, true);
        if self.covered.0 == self.covered.1 {
            let coverage = Some(self.coverage());
            let batch = Batch {
                coverage,
                ..Batch::default()
            };
            self.directory().apply_batch(batch).await.unwrap();
        }
        for (at, event) in std::mem::take(&mut self.waiting) {
            self.hear(at, event).await;
        }
        self.list().await;
        self.work().await;
    }

    /// Connects to the source, which has lost all that waited, and lists its accounts.
    async fn connect_with_loss(&mut self) {
        self.connected = true;
        self.waiting.clear();
        self.report("outdated").await;
        self.directory().set_connection(SOURCE, true);
        self.list().await;
        if self.dice.below(2) == 0 {
            self.slow_until = self.now() + self.dice.seconds(600, 30 * 3600);
            let last = Day::of(Timestamp::from_millis(self.slow_until * 1000));
            self.disturbed.extend([self.today().next(), last]);
        }
        self.work().await;
    }

    /// Writes a gap up to now, and marks the entries that it concerns.
    async fn report(&mut self, reason: &'static str) {
        let since = Timestamp::from_millis(self.covered.1 * 1000);
        self.covered = (self.now(), self.now());
        let batch = Batch {
            gaps: vec![SOURCE.to_owned()],
            coverage: Some(self.coverage()),
            gap: Some(Gap {
                source: SOURCE.to_owned(),
                reason,
                since,
                pds: None,
                covered: BTreeSet::new(),
            }),
            ..Batch::default()
        };
        self.directory().apply_batch(batch).await.unwrap();
        while self.directory().mark_gap().await.unwrap().is_some() {}
    }

    /// Enumerates the accounts of the source, where that is due.
    async fn list(&self) {
        let now = self.clock.now();
        let store = self.directory().store();
        let row = store.query(|q| q.backfill(SOURCE)).await.unwrap();
        let Some(row) = row.filter(|row| row.done_at.is_none()) else {
            return;
        };
        let pending = self.accounts.iter().map(|account| NewPending {
            did: account.repo.did.clone(),
            trigger: Trigger::Listing(None),
            announced: AnnouncedChange::Keep,
            not_before: now,
        });
        let batch = Batch {
            pending: pending.collect(),
            backfill: Some(BackfillRow {
                done_at: Some(now),
                ..row
            }),
            ..Batch::default()
        };
        self.directory().apply_batch(batch).await.unwrap();
    }

    /// Lets the directory or its source be away for a while, and the accounts go on.
    async fn outage(&mut self) {
        let killed = self.dice.below(2) == 0;
        let lossy = self.dice.below(3) == 0;
        let length = match self.dice.below(3) {
            0 => self.dice.seconds(120, 3600),
            1 => self.dice.seconds(3600, DAY),
            _ => self.dice.seconds(DAY, 3 * DAY),
        };
        self.connected = false;
        self.note_known();
        if killed {
            self.stop().await;
        } else {
            self.directory().set_connection(SOURCE, false);
        }
        let until = self.now() + length;
        let mut reported = self.now();
        while self.now() < until {
            self.disturbed.insert(self.today());
            let pause = self.dice.seconds(60, 6 * 3600);
            let report = if killed { i64::MAX } else { reported + REPORT };
            let next = until
                .min(self.now() + pause)
                .min(report.max(self.now() + 1));
            self.pass(next).await;
            // A source that cannot be reached is reported, although it brings the events later.
            if self.now() >= report {
                reported = self.now() + 6 * 3600;
                self.report("unreachable").await;
            }
            if self.now() < until {
                self.act();
            }
        }
        self.disturbed.insert(self.today());
        if killed {
            self.directory = Some(open(self.dir.path(), &self.clock).await);
        }
        if lossy {
            self.connect_with_loss().await;
        } else {
            self.connect().await;
        }
    }

    fn note_known(&mut self) {
        let directory = self.directory.as_ref().unwrap();
        for account in &mut self.accounts {
            account.known = directory.is_tracked(account.repo.did.as_str());
        }
    }

    /// Lets an account do something. The source has an event of it.
    fn act(&mut self) {
        // An account that is away for a month is forgotten.
        let is_long_away = |account: &Account| {
            let last = account.since.last();
            account.truth.inactive && last.is_some_and(|(at, _)| self.now() - at > 12 * DAY)
        };
        let away = self.accounts.iter().position(is_long_away);
        let n = away.unwrap_or_else(|| self.dice.pick(self.accounts.len()));
        let (now, day) = (self.now(), self.today());
        let before = self.accounts[n].truth.clone();
        let event = self.change(n, &before);
        let account = &mut self.accounts[n];
        account.since.push((now, account.truth.clone()));
        let enrolled = |truth: &Truth| truth.package.is_some() && !truth.inactive && !truth.invalid;
        let happened = self.happened.entry(day).or_default();
        happened.came += i64::from(!enrolled(&before) && enrolled(&account.truth));
        happened.went += i64::from(enrolled(&before) && !enrolled(&account.truth));
        if let Some(event) = event {
            self.waiting.push((now, event));
        }
    }

    fn change(&mut self, n: usize, before: &Truth) -> Option<Event> {
        if before.inactive {
            self.accounts[n].truth.inactive = false;
            return Some(Event::About(n, EventKind::Account));
        }
        match (self.dice.below(10), &before.package) {
            (0 | 1, Some(_)) => Some(self.remove(n)),
            (2, Some(_)) if self.accounts[n].known => {
                self.accounts[n].truth.inactive = true;
                Some(Event::About(n, EventKind::Account))
            }
            (3, _) => {
                let place = self.dice.pick(self.population.places());
                self.accounts[n].truth.host = self.population.host(place);
                let now = self.clock.now();
                self.accounts[n].newest = self.accounts[n].repo.prove_at(now);
                Some(Event::About(n, EventKind::Identity))
            }
            // It writes something else, of which the source says nothing here.
            (4, _) => {
                let now = self.clock.now();
                self.accounts[n].newest = self.accounts[n].repo.prove_at(now);
                None
            }
            _ => Some(self.put(n, before)),
        }
    }

    fn remove(&mut self, n: usize) -> Event {
        let now = self.clock.now();
        let account = &mut self.accounts[n];
        account.repo.delete();
        account.newest = account.repo.prove_at(now);
        account.truth.package = None;
        account.truth.invalid = false;
        account.key = None;
        Event::Commit(n, Box::new(account.newest.clone()))
    }

    /// Writes a package with another did:peer, or an invalid one.
    fn put(&mut self, n: usize, before: &Truth) -> Event {
        let (now, day) = (self.clock.now(), self.today());
        let first = self.dice.pick(8);
        let mediators: Vec<usize> = (0..=self.dice.pick(2)).map(|i| (first + i) % 8).collect();
        let invalid = self.dice.below(8) == 0;
        let vouched = self.dice.below(2) == 0;
        let account = &mut self.accounts[n];
        let key = TestKey::generate();
        let record = if invalid {
            json!({"$type": "at.didcomm.keyPackage", "did": 42, "now": now.millis()})
        } else {
            let names: Vec<String> = mediators.iter().map(|n| mediator(*n)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut record = package(key.peer.as_str(), &names);
            if let Some(old) = account.key.as_ref().filter(|_| vouched) {
                let statement = old.vouch(&key, &account.repo.did, now);
                record[succession::FIELD] = Value::String(statement);
            }
            record
        };
        account.repo.put(&record);
        account.newest = account.repo.prove_at(now);
        if before.package.is_some() && !before.invalid && !invalid {
            let happened = self.happened.entry(day).or_default();
            happened.vouched += i64::from(vouched);
            happened.unvouched += i64::from(!vouched);
        }
        account.truth.package = Some(mediators);
        account.truth.invalid = invalid;
        account.key = (!invalid).then_some(key);
        Event::Commit(n, Box::new(account.newest.clone()))
    }
}

fn found(proven: Proven) -> Finding {
    match proven {
        Proven::Present(record) => Finding::Present(record),
        Proven::Absent(absence) => Finding::Absent(absence),
    }
}
