//! Years of a directory, written into the time series as the directory writes them, with what was
//! true on each day.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::attack::Group;
use crate::store::DirectoryStore;
use crate::store::directory::{Day, DayDelta, GroupKind, Tx};

/// A generator of numbers that gives the same ones each time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// The accounts of a host: how many it has at first, and how many it never exceeds.
#[derive(Clone, Copy)]
pub(super) struct Host {
    pub(super) first: usize,
    pub(super) most: usize,
}

struct Account {
    enrolled: bool,
    invalid: bool,
    host: usize,
    mediator: usize,
    key: usize,
}

/// A year that has passed.
pub(super) struct Year {
    dir: tempfile::TempDir,
    /// The accounts of each group on each day.
    pub(super) truth: Vec<BTreeMap<Group, i64>>,
    pub(super) first: Day,
}

impl Year {
    pub(super) fn file(&self) -> PathBuf {
        self.dir.path().join("directory.db")
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns all groups that had an account on some day.
    pub(super) fn groups(&self) -> BTreeSet<Group> {
        let groups = self.truth.iter().flat_map(BTreeMap::keys);
        groups.cloned().collect()
    }
}

/// Lets days pass at a few hosts. The other kinds have a large group and small ones.
pub(super) async fn year(seed: u64, days: i32, hosts: &[Host]) -> Year {
    let dir = tempfile::tempdir().unwrap();
    let store = DirectoryStore::open(&dir.path().join("directory.db")).unwrap();
    let first = Day::parse("2030-01-01").unwrap();
    let mut world = World {
        dice: Dice(seed),
        hosts: hosts.to_vec(),
        accounts: Vec::new(),
    };
    let mut truth = Vec::new();
    for n in 0..days {
        let day = first.plus(n);
        let deltas = world.pass_day(n == 0);
        let write = store.transact(move |tx| write_day(tx, day, &deltas));
        write.await.unwrap();
        truth.push(world.truth());
    }
    let end = first.plus(days);
    let close = store.transact(move |tx| {
        tx.reach_day(end.start())?;
        tx.cover_day(end.plus(-1), end.start())?;
        tx.close_day(end.plus(-1), end.start())?;
        tx.set_hosts(end.plus(-1), 3, 2)
    });
    close.await.unwrap();
    store.shutdown().await;
    Year { dir, truth, first }
}

fn write_day(tx: &Tx<'_>, day: Day, deltas: &[DayDelta]) -> Result<(), crate::store::StoreError> {
    let newest = tx.reach_day(day.start())?;
    assert_eq!(newest, day);
    let before = day.plus(-1);
    tx.cover_day(before, day.start())?;
    tx.set_hosts(before, 3, 2)?;
    tx.close_day(before, day.start())?;
    for delta in deltas {
        tx.add_to_day(day, newest, delta)?;
    }
    Ok(())
}

struct World {
    dice: Dice,
    hosts: Vec<Host>,
    accounts: Vec<Account>,
}

impl World {
    fn enrolled_at(&self, host: usize) -> usize {
        let accounts = self.accounts.iter();
        accounts
            .filter(|account| account.enrolled && account.host == host)
            .count()
    }

    /// Returns a host that has room, mostly one that has had many from the beginning.
    fn host(&mut self) -> usize {
        for _ in 0..20 {
            let all: usize = self.hosts.iter().map(|host| host.first + 2).sum();
            let mut at = self.dice.below(all as u64) as usize;
            let mut hosts = self.hosts.iter().map(|host| host.first + 2);
            let chosen = hosts.position(|size| {
                let is_here = at < size;
                at = at.saturating_sub(size);
                is_here
            });
            let chosen = chosen.unwrap();
            if self.enrolled_at(chosen) < self.hosts[chosen].most {
                return chosen;
            }
        }
        0
    }

    fn pass_day(&mut self, is_first: bool) -> Vec<DayDelta> {
        let mut deltas = Vec::new();
        if is_first {
            for host in 0..self.hosts.len() {
                for _ in 0..self.hosts[host].first {
                    deltas.push(self.enrol(Some(host)));
                }
            }
            return deltas;
        }
        for _ in 0..self.dice.below(4) {
            deltas.extend(match self.dice.below(10) {
                0..4 => Some(self.enrol(None)),
                4..7 => self.depart(),
                7..9 => self.change_host(),
                _ => self.break_rule(),
            });
        }
        deltas
    }

    fn enrol(&mut self, host: Option<usize>) -> DayDelta {
        let host = host.unwrap_or_else(|| self.host());
        let mut one_in = |n: u64| usize::from(self.dice.below(n) == 0);
        let account = Account {
            enrolled: true,
            invalid: false,
            host,
            mediator: one_in(12) + one_in(20),
            key: one_in(15),
        };
        let delta = DayDelta {
            stock: [1, 0, 0],
            new: 1,
            delay: Some(500),
            groups: moves(&account, 1),
            ..DayDelta::default()
        };
        self.accounts.push(account);
        delta
    }

    fn pick(&mut self, wanted: impl Fn(&Account) -> bool) -> Option<usize> {
        let with = self.accounts.iter().enumerate();
        let with: Vec<usize> = with.filter(|(_, a)| wanted(a)).map(|(n, _)| n).collect();
        let at = self.dice.below(with.len().max(1) as u64) as usize;
        with.get(at).copied()
    }

    fn depart(&mut self) -> Option<DayDelta> {
        let account = self.pick(|account| account.enrolled)?;
        let account = &mut self.accounts[account];
        account.enrolled = false;
        Some(DayDelta {
            stock: [-1, 0, 0],
            departed: 1,
            groups: moves(account, -1),
            ..DayDelta::default()
        })
    }

    fn change_host(&mut self) -> Option<DayDelta> {
        let to = self.host();
        let account = self.pick(|account| account.enrolled && account.host != to)?;
        let account = &mut self.accounts[account];
        let from = std::mem::replace(&mut account.host, to);
        let groups = vec![
            (GroupKind::Host, host_name(from), -1),
            (GroupKind::Host, host_name(to), 1),
        ];
        Some(DayDelta {
            groups,
            ..DayDelta::default()
        })
    }

    fn break_rule(&mut self) -> Option<DayDelta> {
        let account = self.pick(|account| account.enrolled)?;
        let account = &mut self.accounts[account];
        (account.enrolled, account.invalid) = (false, true);
        let mut groups = moves(account, -1);
        groups.push((GroupKind::Rule, rule(account).to_owned(), 1));
        Some(DayDelta {
            stock: [-1, 0, 1],
            departed: 1,
            groups,
            ..DayDelta::default()
        })
    }

    fn truth(&self) -> BTreeMap<Group, i64> {
        let mut truth = BTreeMap::new();
        for account in &self.accounts {
            let groups = if account.enrolled {
                moves(account, 1)
            } else if account.invalid {
                vec![(GroupKind::Rule, rule(account).to_owned(), 1)]
            } else {
                Vec::new()
            };
            for (kind, name, _) in groups {
                let name = name.strip_prefix("did:web:").unwrap_or(&name).to_owned();
                *truth.entry((kind.as_str().to_owned(), name)).or_default() += 1;
            }
        }
        truth
    }
}

fn host_name(host: usize) -> String {
    format!("pds{host}.example.com")
}

fn rule(account: &Account) -> &'static str {
    ["did", "mediators"][account.key]
}

fn moves(account: &Account, accounts: i64) -> Vec<(GroupKind, String, i64)> {
    let mediator = format!("did:web:m{}.example.com", account.mediator);
    vec![
        (GroupKind::Host, host_name(account.host), accounts),
        (GroupKind::Mediator, mediator, accounts),
        (
            GroupKind::KeyType,
            ["X25519", "P-256"][account.key].to_owned(),
            accounts,
        ),
    ]
}
