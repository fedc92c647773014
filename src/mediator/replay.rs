//! Replay protection for authenticated requests.
//!
//! An attacker who has recorded an envelope can send it again without being able to read it. So a
//! repeated request is refused, across restarts: ids of requests are kept in the store, the newest
//! of them in memory. Forwards need no protection, since a queue takes the same message once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::store::mailbox::Tx;
use crate::store::{MailboxStore, ReplayKind, StoreError};
use atcomm_proto::clock::{Clock, Timestamp};

/// How long a request cannot be repeated.
pub(super) const WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Requests in one window, 16 bytes each. Beyond it the oldest are evicted early.
const MAX_REQUESTS: usize = 200_000;

/// Least places of removed requests that are cleared together.
const MIN_CLEARED: usize = 1024;

/// Reads that are being recorded at the same time.
const MAX_RECORDING: usize = 256;

/// The first half of the hash that identifies an authenticated message
/// ([`atcomm_proto::didcomm::envelope::Unpacked::seal`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ReplayId(pub(super) [u8; 16]);

/// Authenticated requests that were received lately. Requests that change something have a window
/// of their own, so that reads, which any sender may send, do not evict them.
pub(super) struct Replays {
    // Each with a lock of its own.
    pub(super) writes: ReplayWindow,
    pub(super) reads: ReplayWindow,
    // Shared with the other parts of the mediator.
    mailbox: Arc<MailboxStore>,
    /// Permits for reads that are being recorded in the background.
    recording: Arc<Semaphore>,
}

impl Replays {
    /// Loads the requests that were recorded before the restart.
    pub(super) async fn load(
        mailbox: Arc<MailboxStore>,
        clock: &Clock,
    ) -> Result<Self, StoreError> {
        let (writes, reads) = mailbox
            .query(|q| {
                let writes = q.replays(ReplayKind::Write, MAX_REQUESTS)?;
                let reads = q.replays(ReplayKind::Read, MAX_REQUESTS)?;
                Ok((writes, reads))
            })
            .await?;
        let replays = Self {
            writes: ReplayWindow::default(),
            reads: ReplayWindow::default(),
            mailbox,
            recording: Arc::new(Semaphore::new(MAX_RECORDING)),
        };
        replays.writes.restore(&writes, clock.now());
        replays.reads.restore(&reads, clock.now());
        Ok(replays)
    }

    /// Records a request that changes something. On disk when this returns.
    pub(super) async fn record_write(
        &self,
        id: ReplayId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.mailbox
            .transact(move |tx| tx.record_replay(ReplayKind::Write, id.0, now))
            .await?;
        Ok(())
    }

    /// Records a read on disk in the background. While the disk is behind, the read stays in memory
    /// only.
    pub(super) fn record_read(&self, id: ReplayId, now: Timestamp) {
        let Ok(permit) = Arc::clone(&self.recording).try_acquire_owned() else {
            return;
        };
        let mailbox = Arc::clone(&self.mailbox);
        tokio::spawn(async move {
            let recorded =
                mailbox.transact(move |tx| tx.record_replay(ReplayKind::Read, id.0, now));
            if let Err(error) = recorded.await {
                tracing::warn!(%error, "a request is not remembered");
            }
            drop(permit);
        });
    }
}

/// Removes recorded requests that are older than the window or more than fit into it.
pub(super) fn prune(tx: &Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    for kind in [ReplayKind::Write, ReplayKind::Read] {
        tx.prune_replays(kind, now.minus(WINDOW), MAX_REQUESTS as u64)?;
    }
    Ok(())
}

/// The newest requests of one kind.
#[derive(Default)]
pub(super) struct ReplayWindow(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    /// The number of each request.
    known: HashMap<ReplayId, u64>,
    /// By number, those that were removed since included.
    order: VecDeque<(Timestamp, ReplayId, u64)>,
    numbers: u64,
}

impl ReplayWindow {
    /// Inserts the ids that were recorded before a restart, the newest first. Their time begins
    /// anew.
    pub(super) fn restore(&self, ids: &[[u8; 16]], now: Timestamp) {
        for id in ids.iter().rev() {
            self.insert(ReplayId(*id), now);
        }
    }

    /// Inserts a request. Returns false if it is in the window already.
    pub(super) fn insert(&self, id: ReplayId, now: Timestamp) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, ..)) = seen.order.front()
            && now.since(*at) > WINDOW
        {
            seen.evict_oldest();
        }
        if seen.known.contains_key(&id) {
            return false;
        }
        while seen.known.len() >= MAX_REQUESTS {
            seen.evict_oldest();
        }
        seen.numbers += 1;
        let number = seen.numbers;
        seen.known.insert(id, number);
        seen.order.push_back((now, id, number));
        true
    }

    /// Removes a request whose effect was not made durable, so that it can be repeated.
    pub(super) fn remove(&self, id: &ReplayId) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.known.remove(id);
        // Its place in the order stays for a while: to find it would take as long as there are
        // requests. Places are cleared when most of them are of removed requests.
        if seen.order.len() > 2 * seen.known.len() + MIN_CLEARED {
            let Recent { known, order, .. } = &mut *seen;
            order.retain(|(_, id, number)| known.get(id) == Some(number));
        }
    }
}

impl Recent {
    fn evict_oldest(&mut self) {
        if let Some((_, oldest, number)) = self.order.pop_front()
            // It may have been removed, and inserted again later.
            && self.known.get(&oldest) == Some(&number)
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(n: usize) -> ReplayId {
        ReplayId((n as u128).to_be_bytes())
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_request_is_new_once_in_a_day() {
        let replays = ReplayWindow::default();
        assert!(replays.insert(print(1), at(0)));
        assert!(!replays.insert(print(1), at(24 * 3600)));
        assert!(replays.insert(print(1), at(24 * 3600 + 1)));
        replays.remove(&print(1));
        assert!(replays.insert(print(1), at(24 * 3600 + 2)));
    }

    #[test]
    fn inv7_the_oldest_are_forgotten_when_there_are_too_many() {
        let replays = ReplayWindow::default();
        replays.restore(&[print(2).0, print(1).0], at(2));
        for n in 3..=MAX_REQUESTS + 1 {
            assert!(replays.insert(print(n), at(3)));
        }
        assert!(replays.insert(print(1), at(3)));
        assert!(!replays.insert(print(3), at(3)) && replays.insert(print(2), at(3)));
        let seen = replays.0.lock().unwrap();
        assert!(seen.order.len() <= MAX_REQUESTS && seen.known.len() == seen.order.len());
    }

    #[test]
    fn inv7_removing_a_request_costs_the_same_among_many() {
        let many = MAX_REQUESTS - 1;
        let time_among = |count: usize| {
            let replays = ReplayWindow::default();
            for n in 0..count {
                replays.insert(print(n), at(0));
            }
            let started = std::time::Instant::now();
            for n in 0..5000 {
                assert!(replays.insert(print(count + n), at(1)));
                replays.remove(&print(count + n));
            }
            let taken = started.elapsed();
            let seen = replays.0.lock().unwrap();
            assert!(seen.order.len() <= 2 * count + MIN_CLEARED + 1);
            assert_eq!(seen.known.len(), count);
            taken
        };
        let (few, all) = (time_among(100), time_among(many));
        println!("5000 removed among 100 in {few:?}, among {many} in {all:?}");
        // A search of the order takes thousands of times as long.
        assert!(
            all < few * 50 + Duration::from_millis(50),
            "{few:?}, {all:?}"
        );
        let replays = ReplayWindow::default();
        assert!(replays.insert(print(0), at(0)) && replays.insert(print(many), at(1)));
        replays.remove(&print(many));
        // What was removed can come again, once, and does not leave with its earlier place.
        assert!(replays.insert(print(many), at(2)));
        assert!(!replays.insert(print(many), at(24 * 3600 + 2)));
        assert!(replays.insert(print(0), at(24 * 3600 + 1)));
    }
}
