//! What one address may hold of something that all share: sockets, memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atcomm_net::net::group_of;

/// Counts what each address holds. An IPv6 address is its /64.
#[derive(Clone)]
pub(super) struct PerAddressLimit {
    held: Arc<Mutex<HashMap<u128, usize>>>,
    max: usize,
}

/// A part that is held until it is dropped.
pub(super) struct AddressPermit {
    held: Arc<Mutex<HashMap<u128, usize>>>,
    group: u128,
}

impl PerAddressLimit {
    /// At most so many of one address, at least one.
    pub(super) fn new(max: usize) -> Self {
        Self {
            held: Arc::default(),
            max: max.max(1),
        }
    }

    /// One more for the address, if it may have that.
    pub(super) fn acquire(&self, address: IpAddr) -> Option<AddressPermit> {
        let group = group_of(address);
        let mut held = lock(&self.held);
        let own = held.entry(group).or_default();
        if *own >= self.max {
            return None;
        }
        *own += 1;
        Some(AddressPermit {
            held: Arc::clone(&self.held),
            group,
        })
    }
}

impl Drop for AddressPermit {
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
        let limit = PerAddressLimit::new(2);
        let address = |s: &str| s.parse::<IpAddr>().unwrap();
        let first = limit.acquire(address("192.0.2.1")).unwrap();
        let second = limit.acquire(address("::ffff:192.0.2.1")).unwrap();
        assert!(limit.acquire(address("192.0.2.1")).is_none());
        assert!(limit.acquire(address("192.0.2.2")).is_some());
        drop(first);
        assert!(limit.acquire(address("192.0.2.1")).is_some());
        drop(second);
        assert!(lock(&limit.held).is_empty());
        let _one = limit.acquire(address("2001:db8::1")).unwrap();
        let _two = limit.acquire(address("2001:db8::2")).unwrap();
        assert!(limit.acquire(address("2001:db8::3")).is_none());
    }
}
