//! Memory for answers with mail: taken before the bodies are read from the store and held until the
//! last byte of the answer is written, so that slow readers keep theirs (invariant 7).
//!
//! What is free is shared, not first come, first served: of the part `f` of the memory that stays
//! free, one address (a /64 of IPv6) and one account may each hold at most `f * f / 8`. So the first
//! of many that take all they can get does not leave the others nothing: `n` of them leave at least
//! the part `7 / (n + 7)` free, while with a fixed share they would leave a power of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use atcomm_net::net::group_of;

/// Answers up to this length take no memory from the budget: requests with small answers, and mail
/// in small pieces, go on however many answers wait to be read. The number of connections bounds
/// them.
pub(super) const MAX_UNCOUNTED: usize = 16 * 1024;

/// Divides the square of the free part: what one address or account may hold.
const DIVISOR: usize = 8;

/// Times the longest answer that the memory has to be, so that one holder may take it.
const MIN_ANSWERS: usize = 10;

/// Memory for answers, shared by all connections.
#[derive(Clone)]
pub(super) struct ResponseMemory {
    shared: Arc<Shared>,
}

struct Shared {
    total: usize,
    state: Mutex<State>,
    /// Notified when memory becomes free.
    released: Notify,
}

#[derive(Default)]
struct State {
    used: usize,
    held: HashMap<Holder, usize>,
}

/// What memory is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    Address(u128),
    Account(i64),
}

/// The limit that leaves no memory for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhausted {
    /// The address or the account holds answers that it does not read.
    Own,
    /// All together do.
    Total,
}

/// Memory for one answer, released when it is dropped.
pub(super) struct ResponsePermit {
    shared: Arc<Shared>,
    holders: [Holder; 2],
    /// Length of the answer so far, in bytes.
    len: usize,
    /// Bytes of it that are charged: all or none.
    charged: usize,
}

impl ResponseMemory {
    /// Creates a budget of `total` bytes; at least as much as lets one holder take an answer of
    /// `longest` bytes while all is free.
    pub(super) fn new(total: usize, longest: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                total: total.max(longest.saturating_mul(MIN_ANSWERS)),
                state: Mutex::default(),
                released: Notify::new(),
            }),
        }
    }

    /// Returns a permit of an account at an address for an answer that is empty so far.
    pub(super) fn permit(&self, address: IpAddr, account: i64) -> ResponsePermit {
        ResponsePermit {
            shared: Arc::clone(&self.shared),
            holders: [Holder::Address(group_of(address)), Holder::Account(account)],
            len: 0,
            charged: 0,
        }
    }
}

impl ResponsePermit {
    /// Adds `more` bytes to the answer.
    pub(super) fn grow(&mut self, more: usize) -> Result<(), Exhausted> {
        let len = self.len.saturating_add(more);
        if len > MAX_UNCOUNTED {
            self.charge(len - self.charged)?;
        }
        self.len = len;
        Ok(())
    }

    fn charge(&mut self, more: usize) -> Result<(), Exhausted> {
        let mut state = lock(&self.shared.state);
        let free = self.shared.total.saturating_sub(state.used);
        let held = self.holders.map(|holder| state.held_by(holder));
        let limit = free
            .checked_sub(more)
            .map_or(0, |left| limit(left, self.shared.total));
        let fits = |held: &usize| held.saturating_add(more) <= limit;
        // While all is free, the longest answer is made, too, so that no message waits for ever.
        if state.used > 0 && !held.iter().all(fits) {
            // A permit that only grows does not make its holder one that does not read.
            let own = held.iter().any(|held| *held > self.charged);
            return Err(if own {
                Exhausted::Own
            } else {
                Exhausted::Total
            });
        }
        state.used += more;
        for holder in self.holders {
            *state.held.entry(holder).or_default() += more;
        }
        self.charged += more;
        Ok(())
    }

    /// Waits until an answer of `len` bytes may fit. Takes nothing.
    pub(super) async fn wait_for(&self, len: usize) {
        loop {
            let released = self.shared.released.notified();
            tokio::pin!(released);
            // From here on no release is missed.
            released.as_mut().enable();
            if self.probe(len) {
                return;
            }
            released.await;
        }
    }

    fn probe(&self, len: usize) -> bool {
        let mut probe = Self {
            shared: Arc::clone(&self.shared),
            holders: self.holders,
            len: 0,
            charged: 0,
        };
        let fits = probe.grow(len).is_ok();
        let charged = std::mem::take(&mut probe.charged);
        self.refund(charged);
        fits
    }

    /// Splits off the permit for a part of the answer.
    pub(super) fn split(&mut self, len: usize) -> Self {
        let len = len.min(self.len);
        let charged = len.min(self.charged);
        self.len -= len;
        self.charged -= charged;
        Self {
            shared: Arc::clone(&self.shared),
            holders: self.holders,
            len,
            charged,
        }
    }

    /// Ties the memory to the finished answer: it is released when the last reference to the bytes
    /// is dropped. The buffers of the server hold references after the response itself is gone. What
    /// was taken beyond the length of the answer is released at once.
    pub(super) fn attach(mut self, answer: Bytes) -> Bytes {
        if self.charged == 0 {
            return answer;
        }
        // The length is estimated from above.
        let surplus = self.charged.saturating_sub(answer.len());
        self.charged -= surplus;
        self.refund(surplus);
        self.shared.notify(surplus);
        Bytes::from_owner(PermittedAnswer {
            answer,
            _permit: self,
        })
    }

    fn refund(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut state = lock(&self.shared.state);
        state.used = state.used.saturating_sub(bytes);
        for holder in self.holders {
            if let Some(held) = state.held.get_mut(&holder) {
                *held = held.saturating_sub(bytes);
                if *held == 0 {
                    state.held.remove(&holder);
                }
            }
        }
    }
}

impl Drop for ResponsePermit {
    fn drop(&mut self) {
        self.refund(self.charged);
        self.shared.notify(self.charged);
    }
}

impl Shared {
    fn notify(&self, released: usize) {
        if released > 0 {
            self.released.notify_waiters();
        }
    }
}

impl State {
    fn held_by(&self, holder: Holder) -> usize {
        self.held.get(&holder).copied().unwrap_or_default()
    }
}

struct PermittedAnswer {
    answer: Bytes,
    _permit: ResponsePermit,
}

impl AsRef<[u8]> for PermittedAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

/// Returns what one holder may hold while `left` bytes of `total` stay free.
fn limit(left: usize, total: usize) -> usize {
    let (left, total) = (left as u128, total as u128);
    let limit = left * left / (total * DIVISOR as u128).max(1);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(n).into()
    }

    fn used(memory: &ResponseMemory) -> usize {
        lock(&memory.shared.state).used
    }

    /// Returns a permit of `len` bytes.
    fn take(
        memory: &ResponseMemory,
        n: u32,
        account: i64,
        len: usize,
    ) -> Result<ResponsePermit, Exhausted> {
        let mut permit = memory.permit(address(n), account);
        permit.grow(len).map(|()| permit)
    }

    #[test]
    fn inv7_an_answer_keeps_its_memory_until_its_last_byte_is_dropped() {
        let memory = ResponseMemory::new(10 * MIB, 0);
        let permit = take(&memory, 1, 1, MIB).unwrap();
        assert_eq!(used(&memory), MIB);
        // The estimate was longer than the answer.
        let mut answer = permit.attach(Bytes::from(vec![0; 100_000]));
        assert_eq!(used(&memory), 100_000);
        let rest = answer.split_off(99_999);
        drop(answer);
        assert_eq!(used(&memory), 100_000);
        drop(rest);
        assert_eq!(used(&memory), 0);
        assert!(lock(&memory.shared.state).held.is_empty());
        // A refused permit keeps nothing, and small answers are not counted.
        let held = take(&memory, 2, 2, MIB).unwrap();
        assert!(take(&memory, 1, 1, 8 * MIB).is_err());
        drop(held);
        let small: Vec<_> = (0..5000)
            .map(|_| take(&memory, 1, 1, MAX_UNCOUNTED))
            .collect();
        assert!(small.iter().all(Result::is_ok));
        assert_eq!(used(&memory), 0);
    }

    #[test]
    fn inv7_an_address_and_an_account_hold_a_part_and_are_told_apart_from_all() {
        let memory = ResponseMemory::new(50 * MIB, 0);
        let greedy: Vec<_> = std::iter::from_fn(|| take(&memory, 1, 1, MIB).ok()).collect();
        assert_eq!(greedy.len(), 5, "a tenth of the whole");
        assert_eq!(take(&memory, 1, 1, MIB).err(), Some(Exhausted::Own));
        // Neither other accounts nor other addresses help.
        assert_eq!(take(&memory, 1, 2, MIB).err(), Some(Exhausted::Own));
        assert_eq!(take(&memory, 2, 1, MIB).err(), Some(Exhausted::Own));
        let other = take(&memory, 2, 2, 3 * MIB).unwrap();
        assert_eq!(take(&memory, 3, 3, 20 * MIB).err(), Some(Exhausted::Total));
        drop((greedy, other));
        assert_eq!(used(&memory), 0);
    }

    #[test]
    fn the_longest_answer_is_made_while_all_is_free() {
        let memory = ResponseMemory::new(1, MIB);
        let first = take(&memory, 1, 1, MIB).unwrap();
        assert!(take(&memory, 2, 2, MIB).is_err());
        drop(first);
        // Also one that is longer than any is now, stored under another limit.
        let long = take(&memory, 1, 1, 30 * MIB).unwrap();
        assert!(take(&memory, 2, 2, MIB).is_err());
        drop(long);
        assert!(take(&memory, 2, 2, MIB).is_ok());
    }

    #[test]
    fn parts_of_an_answer_are_released_one_by_one() {
        let memory = ResponseMemory::new(50 * MIB, 0);
        let mut permit = take(&memory, 1, 1, 3 * MIB).unwrap();
        let first = permit.split(MIB).attach(Bytes::from(vec![0; MIB]));
        let second = permit.split(2 * MIB).attach(Bytes::from(vec![0; 2 * MIB]));
        drop(permit);
        assert_eq!(used(&memory), 3 * MIB);
        drop(first);
        assert_eq!(used(&memory), 2 * MIB);
        drop(second);
        assert_eq!(used(&memory), 0);
    }

    #[tokio::test]
    async fn a_waiting_answer_wakes_when_there_is_room() {
        let memory = ResponseMemory::new(50 * MIB, 0);
        let held = take(&memory, 1, 1, 5 * MIB).unwrap();
        let permit = memory.permit(address(1), 1);
        let mut waiting = Box::pin(permit.wait_for(MIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held);
        assert!(waiting.as_mut().now_or_never().is_some());
        assert_eq!(used(&memory), 0, "waiting takes nothing");
    }

    proptest! {
        /// However many holders take what they can get, memory stays free for one that comes later.
        #[test]
        fn inv7_no_number_of_holders_takes_what_others_need(
            holders in 1..200_u32, step in 20_000..MIB,
        ) {
            let memory = ResponseMemory::new(64 * MIB, 0);
            let mut held = Vec::new();
            for n in 0..holders {
                held.extend(std::iter::from_fn(|| take(&memory, n, n.into(), step).ok()));
            }
            let free = 64 * MIB - used(&memory);
            let fair = 64 * MIB * 7 / (holders as usize + 7);
            prop_assert!(free >= fair, "{free} of {fair}");
            let late = take(&memory, 1000, 1000, limit(free * 9 / 10, 64 * MIB));
            prop_assert!(late.is_ok());
            drop(late);
            drop(held);
            prop_assert_eq!(used(&memory), 0);
        }
    }
}
