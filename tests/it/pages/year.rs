//! A directory with a past: what it learnt from one source in more than a year.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use atcomm::directory::{
    Authority, Batch, Directory, Finding, IdentityFacts, Observation, PendingUpdate,
};
use atcomm::store::directory::{BackfillRow, Coverage, Day, Gap};
use atcomm::store::{
    AccountStatus, AnnouncedChange, DirectoryStore, EventKind, NewPending, SourceKind, Trigger,
};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::proof::Proven;
use atcomm_proto::syntax::Origin;
use atcomm_proto::verify::succession;
use serde_json::{Value, json};
use testkit::proto::account::TestKey;
use testkit::proto::repo::{TestRepo, package};

const SOURCE: &str = "relay https://relay.example.com";

/// Days of the past.
pub(super) const DAYS: i32 = 400;

/// Most accounts that ever enrol.
const ACCOUNTS: usize = 60;

/// Days on which nothing runs, by their number. A whole week is among them.
const AWAY: [std::ops::Range<i32>; 2] = [150..166, 370..373];

const HOSTS: [&str; 4] = [
    "https://pds.example.com",
    "https://eu.example.net",
    "https://self-hosted-at-home.family.example.org:8443",
    "https://morel.example.social",
];

const MEDIATORS: [&str; 3] = [
    "did:web:mail.example.com",
    "did:web:mediator.a-rather-long-name-of-a-domain.example.org",
    "did:web:relay.example.net",
];

struct Account {
    repo: TestRepo,
    key: Option<TestKey>,
    host: &'static str,
    proven: Option<Proven>,
}

struct Past {
    directory: Option<Directory>,
    clock: Clock,
    accounts: Vec<Account>,
    covered_since: Timestamp,
    covered_until: Timestamp,
}

/// Fills an empty data directory, up to the present moment.
pub(super) async fn fill(data_dir: &Path) {
    let now = Clock::system().now();
    let first = Day::of(now).plus(-DAYS);
    let clock = Clock::manual(first.start().plus(Duration::from_secs(3600)));
    let mut past = Past {
        directory: None,
        covered_since: clock.now(),
        covered_until: clock.now(),
        clock,
        accounts: Vec::new(),
    };
    for n in 0..=DAYS {
        let noon = first.plus(n).start().plus(Duration::from_secs(11 * 3600));
        past.clock.advance(noon.min(now).since(past.clock.now()));
        if AWAY.iter().any(|days| days.contains(&n)) {
            past.stop().await;
            continue;
        }
        if past.directory.is_none() {
            past.start(data_dir).await;
            if n > 0 {
                past.report_gap().await;
            }
        }
        past.day(n).await;
    }
    past.clock.advance(now.since(past.clock.now()));
    past.prove_all().await;
    past.stop().await;
}

impl Past {
    fn directory(&self) -> &Directory {
        self.directory.as_ref().expect("it runs")
    }

    async fn start(&mut self, data_dir: &Path) {
        let store = DirectoryStore::open(&data_dir.join("directory.db")).expect("a store");
        let directory = Directory::bind(store, self.clock.clone(), 1 << 20);
        let directory = directory.await.expect("a directory");
        let followed = directory.follow_sources(vec![SOURCE.to_owned()]);
        followed.await.expect("a source");
        directory.set_connection(SOURCE, true);
        self.directory = Some(directory);
    }

    async fn stop(&mut self) {
        if let Some(directory) = self.directory.take() {
            directory.shutdown().await;
        }
    }

    fn coverage(&self) -> Coverage {
        Coverage {
            source: SOURCE.to_owned(),
            since: self.covered_since,
            until: self.clock.now(),
        }
    }

    /// The source has lost what happened while nothing ran.
    async fn report_gap(&mut self) {
        let since = self.covered_until;
        self.covered_since = self.clock.now();
        let batch = Batch {
            gaps: vec![SOURCE.to_owned()],
            coverage: Some(self.coverage()),
            gap: Some(Gap {
                source: SOURCE.to_owned(),
                reason: "outdated",
                since,
                pds: None,
                covered: BTreeSet::new(),
            }),
            ..Batch::default()
        };
        let directory = self.directory();
        directory.apply_batch(batch).await.expect("a gap");
        while directory.mark_gap().await.expect("marks").is_some() {}
        self.list().await;
        self.prove_all().await;
    }

    /// Reads the source's list of accounts to its end, where that is due.
    async fn list(&self) {
        let now = self.clock.now();
        let store = self.directory().store();
        let row = store.query(|q| q.backfill(SOURCE)).await.expect("a row");
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
        let directory = self.directory();
        directory.apply_batch(batch).await.expect("an outcome");
    }

    /// Makes all refreshes that are due: asks the hosts of the accounts.
    async fn work(&self) {
        loop {
            let (pending, due) = self.directory().due(100).await.expect("what is due");
            let rechecks = due
                .into_iter()
                .map(|did| (did, Trigger::Recheck, PendingUpdate::Unchanged));
            let refreshes: Vec<_> = pending
                .into_iter()
                .map(|row| {
                    (
                        row.did,
                        row.trigger,
                        PendingUpdate::Complete(row.generation),
                    )
                })
                .chain(rechecks)
                .collect();
            if refreshes.is_empty() {
                return;
            }
            for (did, trigger, update) in refreshes {
                let mut accounts = self.accounts.iter();
                let number = accounts.position(|account| account.repo.did == did);
                let number = number.expect("an account of the source");
                self.ask(number, trigger, update).await;
            }
        }
    }

    /// Asks the host of an account. One account is not active there since a while.
    async fn ask(&self, number: usize, trigger: Trigger, update: PendingUpdate) {
        let finding = match &self.accounts[number].proven {
            _ if number == 11 && self.accounts.len() > 40 => {
                Finding::Inactive(AccountStatus::Deactivated)
            }
            Some(proven) => found(proven.clone()),
            None => return,
        };
        let seen = self.seen(number, finding, Authority::Pds, trigger).await;
        let applied = self.directory().apply(seen, update).await;
        applied.expect("an outcome");
    }

    /// Lets a day pass: the source tells of some accounts, and is heard until noon.
    async fn day(&mut self, n: i32) {
        let wanted = usize::try_from(n).expect("a number") * ACCOUNTS / 400 + 8;
        while self.accounts.len() < wanted.min(ACCOUNTS) {
            let number = self.accounts.len();
            self.accounts.push(account(number));
            self.put(number, false).await;
        }
        let one = usize::try_from(n * 7).expect("a number") % self.accounts.len();
        match n % 10 {
            1 => self.delete(one).await,
            3 => {
                let gone = self.accounts.iter().position(|of| of.key.is_none());
                if let Some(gone) = gone {
                    self.put(gone, false).await;
                }
            }
            5 | 6 => self.put(one, true).await,
            8 if n % 20 == 8 => self.put(one, false).await,
            _ => {}
        }
        self.covered_until = self.clock.now();
        let batch = Batch {
            coverage: Some(self.coverage()),
            ..Batch::default()
        };
        let directory = self.directory();
        directory.apply_batch(batch).await.expect("an outcome");
        self.work().await;
        // Once for the new day, and once for those before it.
        directory.keep_days().await.expect("days");
        directory.keep_days().await.expect("days");
    }

    /// Publishes another key, with or without the word of the one before.
    async fn put(&mut self, number: usize, vouched: bool) {
        let now = self.clock.now();
        let account = &mut self.accounts[number];
        let key = TestKey::generate();
        let mediators = [MEDIATORS[number % 2], MEDIATORS[2]];
        let named = &mediators[..1 + usize::from(number.is_multiple_of(5))];
        let mut record = package(key.peer.as_str(), named);
        if let Some(old) = account.key.as_ref().filter(|_| vouched) {
            let statement = old.vouch(&key, &account.repo.did, now);
            record[succession::FIELD] = Value::String(statement);
        }
        if number == 7 {
            record["did"] = json!(42);
        }
        account.repo.put(&record);
        account.key = Some(key);
        self.tell(number).await;
    }

    async fn delete(&mut self, number: usize) {
        let account = &mut self.accounts[number];
        if account.key.take().is_some() {
            account.repo.delete();
            self.tell(number).await;
        }
    }

    /// The source tells of the newest commit of an account.
    async fn tell(&mut self, number: usize) {
        let now = self.clock.now();
        let proven = self.accounts[number].repo.prove_at(now);
        self.accounts[number].proven = Some(proven.clone());
        let trigger = Trigger::Event {
            source: SourceKind::Relay,
            event: EventKind::Commit,
        };
        let seen = self.seen(number, found(proven), Authority::Stream, trigger);
        let batch = Batch {
            observations: vec![seen.await],
            ..Batch::default()
        };
        let directory = self.directory();
        directory.apply_batch(batch).await.expect("an outcome");
        self.work().await;
    }

    /// Asks the hosts of all accounts once more.
    async fn prove_all(&self) {
        for number in 0..self.accounts.len() {
            self.ask(number, Trigger::Recheck, PendingUpdate::Unchanged)
                .await;
        }
        self.work().await;
    }

    async fn seen(
        &self,
        number: usize,
        finding: Finding,
        authority: Authority,
        trigger: Trigger,
    ) -> Observation {
        let account = &self.accounts[number];
        let did = account.repo.did.clone();
        let now = self.clock.now();
        Observation {
            identity: Some(IdentityFacts {
                pds: Origin::parse(account.host).ok(),
                key: Some(account.repo.key()),
                claimed: None,
                asked_at: now,
            }),
            finding,
            authority,
            trigger,
            begun: self.directory().begin(&did).await.expect("a state"),
            did,
            at: now,
        }
    }
}

fn account(number: usize) -> Account {
    let letters = "abcdefghijklmnopqrstuvwxyz234567";
    let letter = |n: usize| &letters[n % 32..=n % 32];
    let did = format!(
        "did:plc:{}{}",
        letter(number / 32),
        letter(number).repeat(23)
    );
    let seed = u8::try_from(number + 1).expect("few accounts");
    Account {
        repo: TestRepo::new(&did, seed),
        key: None,
        // Some hosts have more accounts than others.
        host: HOSTS[[0, 0, 0, 1, 1, 2, 3][number % 7]],
        proven: None,
    }
}

fn found(proven: Proven) -> Finding {
    match proven {
        Proven::Present(record) => Finding::Present(record),
        Proven::Absent(absence) => Finding::Absent(absence),
    }
}
