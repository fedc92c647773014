//! What one address may hold of something that all share: sockets, memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::net::group_of;

/// Counts what each address holds. An IPv6 address is its /64.
#[derive(Clone)]
pub(super) struct Shares {
    held: Arc<Mutex<HashMap<u128, usize>>>,
    most: usize,
}

/// A part that is held until it is dropped.
pub(super) struct Share {
    held: Arc<Mutex<HashMap<u128, usize>>>,
    group: u128,
}

impl Shares {
    /// At most so many of one address, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self {
            held: Arc::default(),
            most: most.max(1),
        }
    }

    /// One more for the address, if it may have that.
    pub(super) fn take(&self, address: IpAddr) -> Option<Share> {
        let group = group_of(address);
        let mut held = lock(&self.held);
        let own = held.entry(group).or_default();
        if *own >= self.most {
            return None;
        }
        *own += 1;
        Some(Share {
            held: Arc::clone(&self.held),
            group,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(own) = held.get_mut(&self.group) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                held.remove(&self.group);
            }
        }
    }
}

fn lock(held: &Mutex<HashMap<u128, usize>>) -> MutexGuard<'_, HashMap<u128, usize>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_its_share_and_is_forgotten_without_one() {
        let shares = Shares::new(2);
        let address = |s: &str| s.parse::<IpAddr>().unwrap();
        let first = shares.take(address("192.0.2.1")).unwrap();
        let second = shares.take(address("::ffff:192.0.2.1")).unwrap();
        assert!(shares.take(address("192.0.2.1")).is_none());
        assert!(shares.take(address("192.0.2.2")).is_some());
        drop(first);
        assert!(shares.take(address("192.0.2.1")).is_some());
        drop(second);
        assert!(lock(&shares.held).is_empty());
        let _one = shares.take(address("2001:db8::1")).unwrap();
        let _two = shares.take(address("2001:db8::2")).unwrap();
        assert!(shares.take(address("2001:db8::3")).is_none());
    }
}
