//! Per-address limit on a shared resource (sockets, memory).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atcomm_net::net::group_of;

/// Counts the permits that each address holds. All addresses of an IPv6 /64 count as one.
#[derive(Clone)]
pub(super) struct PerAddressLimit {
    held: Arc<Mutex<HashMap<u128, usize>>>,
    max: usize,
}

/// A permit of one address, released when it is dropped.
pub(super) struct AddressPermit {
    held: Arc<Mutex<HashMap<u128, usize>>>,
    group: u128,
}

impl PerAddressLimit {
    /// Creates a limit of `max` permits for each address, at least one.
    pub(super) fn new(max: usize) -> Self {
        Self {
            held: Arc::default(),
            max: max.max(1),
        }
    }

    /// Takes a permit for the address. Returns `None` if the address holds the maximum.
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
    fn an_address_is_limited_and_removed_with_its_last_permit() {
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
