//! Requests that were received already.
//!
//! Somebody who has recorded an envelope can send it again without being able to read it. What
//! changes state is refused the second time, across restarts: hashes are kept in the store, the
//! newest of them in memory. Forwards need none of this, since a queue takes the same message once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atcomm_proto::clock::Timestamp;

/// How long a request is remembered.
pub(super) const WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Requests remembered, 16 bytes each; beyond it the oldest are forgotten before their time.
pub(super) const MAX_REQUESTS: usize = 200_000;

/// The first half of what tells one authenticated message from every other
/// ([`atcomm_proto::didcomm::envelope::Unpacked::seal`]).
pub(super) type ReplayId = [u8; 16];

/// The requests received lately. Those that change something have room of their own, so that
/// questions, which anybody may ask, do not make room for them to be repeated.
#[derive(Default)]
pub(super) struct Replays {
    pub(super) writes: ReplayWindow,
    pub(super) reads: ReplayWindow,
}

/// Requests of one kind.
#[derive(Default)]
pub(super) struct ReplayWindow(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    known: HashSet<ReplayId>,
    order: VecDeque<(Timestamp, ReplayId)>,
}

impl ReplayWindow {
    /// What was remembered before a restart, the newest first. Their window begins anew.
    pub(super) fn restore(&self, ids: &[ReplayId], now: Timestamp) {
        for id in ids.iter().rev() {
            self.insert(*id, now);
        }
    }

    /// Notes a request; false if it was noted before.
    pub(super) fn insert(&self, id: ReplayId, now: Timestamp) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, _)) = seen.order.front()
            && now.since(*at) > WINDOW
        {
            seen.evict_oldest();
        }
        if seen.known.contains(&id) {
            return false;
        }
        if seen.order.len() >= MAX_REQUESTS {
            seen.evict_oldest();
        }
        seen.known.insert(id);
        seen.order.push_back((now, id));
        true
    }

    /// Forgets a request whose effect was not made durable, so that it can be sent again.
    pub(super) fn remove(&self, id: &ReplayId) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.known.remove(id);
        seen.order.retain(|(_, noted)| noted != id);
    }
}

impl Recent {
    fn evict_oldest(&mut self) {
        if let Some((_, oldest)) = self.order.pop_front() {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(n: usize) -> ReplayId {
        (n as u128).to_be_bytes()
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
        replays.restore(&[print(2), print(1)], at(2));
        for n in 3..=MAX_REQUESTS + 1 {
            assert!(replays.insert(print(n), at(3)));
        }
        assert!(replays.insert(print(1), at(3)));
        assert!(!replays.insert(print(3), at(3)) && replays.insert(print(2), at(3)));
        let seen = replays.0.lock().unwrap();
        assert!(seen.order.len() <= MAX_REQUESTS && seen.known.len() == seen.order.len());
    }
}
