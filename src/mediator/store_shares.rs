//! How senders, and the hosts of accounts, share what this mediator keeps in all.
//!
//! Exact counters would cost each message two more writes. So what each sender group and each host
//! holds is counted anew every few seconds, in tables of a fixed size, and in between what this
//! process stores is added. What leaves meanwhile is still counted: that refuses a little too much,
//! and never too little. While most of the limit is free, no share is checked.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::store::{ClaimantHost, MailboxStore, Pot, Sender, SenderClass, SenderGroup, StoreError};
use atcomm_proto::clock::Clock;

/// Shares are checked once this part of the limit is used: one of so many.
const CHECKED_PART: u64 = 4;

/// Shares are counted once this part is used, so that they are known when they are checked.
const COUNTED_PART: u64 = 8;

/// What a host may hold, in shares of one sender: it has many accounts.
const HOST_WEIGHT: u64 = 4;

/// Rows read in one look. Few, so that no look holds up the writer's log.
const ROW_CHUNK: usize = 20_000;

/// Counters of one table; two tables are kept.
const COUNTERS: usize = 1 << 14;

/// A count takes at most one of so many parts of the time.
const MAX_LOAD: u32 = 20;

/// Approximate sums by key, never too small, in a fixed amount of memory: keys that share a counter
/// in one table rarely do in the other. Every sketch spreads its keys anew, so that keys that do
/// are apart after the next count.
struct Sketch {
    tables: [(RandomState, Vec<u64>); 2],
}

impl Sketch {
    fn new() -> Self {
        Self {
            tables: [(); 2].map(|()| (RandomState::new(), vec![0; COUNTERS])),
        }
    }

    fn add(&mut self, key: &(impl Hash + ?Sized), amount: u64) {
        for (hasher, counters) in &mut self.tables {
            let at = hasher.hash_one(key) as usize % COUNTERS;
            if let Some(counter) = counters.get_mut(at) {
                *counter = counter.saturating_add(amount);
            }
        }
    }

    fn sum(&self, key: &(impl Hash + ?Sized)) -> u64 {
        let counters = self.tables.iter().map(|(hasher, counters)| {
            let at = hasher.hash_one(key) as usize % COUNTERS;
            counters.get(at).copied().unwrap_or(u64::MAX)
        });
        counters.min().unwrap_or(u64::MAX)
    }
}

struct Counts {
    /// Bytes of all mail on the disk.
    used: u64,
    senders: Sketch,
    hosts: Sketch,
}

impl Counts {
    fn new(used: u64) -> Self {
        Self {
            used,
            senders: Sketch::new(),
            hosts: Sketch::new(),
        }
    }
}

/// The shares of all mail that is kept.
pub(super) struct StoreShares {
    limit: u64,
    clock: Clock,
    counts: Mutex<Counts>,
    /// Monotonic time of the next count.
    next_count: Mutex<Duration>,
}

impl StoreShares {
    pub(super) fn new(limit: u64, clock: Clock) -> Self {
        Self {
            limit,
            clock,
            counts: Mutex::new(Counts::new(0)),
            next_count: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether shares are counted now, so that a message has to come with its recipient's
    /// hosts.
    pub(super) fn are_counted(&self) -> bool {
        self.lock().used >= self.limit / COUNTED_PART
    }

    /// Returns whether a sender may store `cost` more bytes for a recipient on these hosts. One host
    /// with room suffices: others may claim a DID that is not theirs. Mail for an account of this
    /// service's own PDSes may use all of the limit.
    pub(super) fn admit(&self, sender: Sender, hosts: &[ClaimantHost], cost: u64) -> bool {
        let counts = self.lock();
        if counts.used < self.limit / CHECKED_PART {
            return true;
        }
        let is_local = hosts.iter().any(|host| host.is_local);
        let class = if is_local {
            SenderClass::Local
        } else {
            sender.class
        };
        let pot = Pot {
            limit: class.part_of(self.limit),
            used: counts.used,
        };
        let held = |group: SenderGroup| counts.senders.sum(&group);
        let host_has_room = is_local
            || hosts.is_empty()
            || hosts
                .iter()
                .any(|host| pot.admits(counts.hosts.sum(&host.name), cost, HOST_WEIGHT));
        host_has_room && pot.admits_sender(held(sender.group), held(sender.group.wide()), cost)
    }

    /// Counts a message that was stored.
    pub(super) fn add(&self, sender: Sender, hosts: &[ClaimantHost], cost: u64) {
        let mut counts = self.lock();
        counts.used = counts.used.saturating_add(cost);
        let (group, wide) = (sender.group, sender.group.wide());
        counts.senders.add(&group, cost);
        if group != wide {
            counts.senders.add(&wide, cost);
        }
        for host in hosts {
            counts.hosts.add(&host.name, cost);
        }
    }

    /// Counts all mail anew, if there is much of it. A count that takes long is not repeated soon.
    pub(super) async fn count(&self, mailbox: &MailboxStore) -> Result<(), StoreError> {
        let started = self.clock.monotonic();
        let is_due = {
            let next = self.next_count.lock();
            *next.unwrap_or_else(PoisonError::into_inner) <= started
        };
        if !is_due {
            return Ok(());
        }
        let used = mailbox.query(|q| q.mail_cost()).await?;
        let mut counts = Counts::new(used);
        if used >= self.limit / COUNTED_PART {
            counts = count_senders(mailbox, counts).await?;
            counts = count_hosts(mailbox, counts).await?;
        }
        *self.lock() = counts;
        let ended = self.clock.monotonic();
        let next = ended + (ended.saturating_sub(started)) * MAX_LOAD;
        *self
            .next_count
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

async fn count_senders(mailbox: &MailboxStore, mut counts: Counts) -> Result<Counts, StoreError> {
    let mut after = Some((i64::MIN, [0; 16]));
    while let Some(position) = after {
        (counts, after) = mailbox
            .query(move |q| {
                let add = |group, cost| counts.senders.add(&group, cost);
                let last = q.visit_senders(position, ROW_CHUNK, add)?;
                Ok((counts, last))
            })
            .await?;
    }
    Ok(counts)
}

async fn count_hosts(mailbox: &MailboxStore, mut counts: Counts) -> Result<Counts, StoreError> {
    let mut after = Some(i64::MIN);
    while let Some(id) = after {
        (counts, after) = mailbox
            .query(move |q| {
                let last = q.visit_recipients(id, ROW_CHUNK, |did, cost| {
                    for host in q.hosts_of(did)? {
                        counts.hosts.add(&host.name, cost);
                    }
                    Ok(())
                })?;
                Ok((counts, last))
            })
            .await?;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atcomm_proto::clock::Timestamp;

    const LIMIT: u64 = 8 << 20;

    fn shares() -> StoreShares {
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        StoreShares::new(LIMIT, clock)
    }

    fn sender(number: u64, class: SenderClass) -> Sender {
        let mut group = [0; 16];
        group[..8].copy_from_slice(&number.to_be_bytes());
        Sender {
            group: SenderGroup(group),
            class,
        }
    }

    fn host(name: &str) -> [ClaimantHost; 1] {
        [ClaimantHost {
            name: name.to_owned(),
            is_local: name == "local",
        }]
    }

    /// Stores as much as is admitted, of as many senders as it takes.
    fn fill(shares: &StoreShares, senders: std::ops::Range<u64>, to: &str) -> u64 {
        let (cost, mut stored) = (10_000, 0);
        for number in senders {
            let sender = sender(number, SenderClass::Other);
            while shares.admit(sender, &host(to), cost) {
                shares.add(sender, &host(to), cost);
                stored += cost;
            }
        }
        stored
    }

    #[test]
    fn inv7_neither_a_sender_nor_a_host_takes_the_store_from_others() {
        let of_one = shares();
        let stored = fill(&of_one, 0..1, "evil");
        assert!(stored < LIMIT * 2 / 5, "{stored}");
        assert!(fill(&of_one, 1..2, "evil") > LIMIT / 20);

        let of_host = shares();
        let stored = fill(&of_host, 0..100, "evil");
        assert!(stored < LIMIT / 2, "{stored}");
        let of_others = fill(&of_host, 100..101, "good");
        assert!(of_others > LIMIT / 40, "{of_others}");
        // What is left of the limit is for the service's own accounts.
        fill(&of_host, 200..300, "good");
        fill(&of_host, 300..400, "other");
        assert!(fill(&of_host, 400..500, "local") > LIMIT / 10);
        assert!(of_host.lock().used <= LIMIT);
        // A DID that several hosts claim has the room of any of them.
        let both = [host("evil"), host("new")].concat();
        let small = of_host.admit(sender(999, SenderClass::Local), &both, 100);
        assert!(small && !of_host.admit(sender(999, SenderClass::Local), &host("evil"), 100));
    }

    #[test]
    fn a_sketch_never_counts_too_little() {
        let mut sketch = Sketch::new();
        for key in 0..100_000_u64 {
            sketch.add(&key, key % 7);
        }
        assert!((0..100_000_u64).all(|key| sketch.sum(&key) >= key % 7));
        let mut few = Sketch::new();
        few.add("a", 1000);
        few.add("b", 5);
        assert_eq!((few.sum("a"), few.sum("b"), few.sum("c")), (1000, 5, 0));
    }
}
