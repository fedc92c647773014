//! What one asker's address may cause: rates of what comes in, for everything above.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;

/// Addresses remembered; the ones unseen for longest are forgotten first.
const MAX_ADDRESSES: u64 = 100_000;

/// An address that asked for nothing this long is forgotten: its allowance is full again by then.
const FORGET: Duration = Duration::from_secs(120);

/// A rate per address. An IPv6 asker is its /64: one household has that many addresses.
pub struct AddressLimiter {
    quota: Quota,
    clock: DefaultClock,
    by_address: Cache<u128, Arc<DefaultDirectRateLimiter>>,
}

impl AddressLimiter {
    /// So many a minute, at least one, all of which may come at once.
    pub fn new(per_minute: u32) -> Self {
        Self {
            quota: Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN)),
            clock: DefaultClock::default(),
            by_address: Cache::builder()
                .max_capacity(MAX_ADDRESSES)
                .time_to_idle(FORGET)
                .build(),
        }
    }

    /// Takes one from the address's allowance, or says how long to wait.
    pub fn charge(&self, address: IpAddr) -> Result<(), Duration> {
        let limiter = self.by_address.get_with(group_of(address), || {
            Arc::new(RateLimiter::direct(self.quota))
        });
        limiter
            .check()
            .map_err(|not_yet| not_yet.wait_time_from(self.clock.now()))
    }
}

/// The group of addresses that shares one allowance.
pub fn group_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits() & !u128::from(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_own_allowance_and_ipv6_one_per_64() {
        let limiter = AddressLimiter::new(3);
        let address = |s: &str| s.parse::<IpAddr>().unwrap();
        for _ in 0..3 {
            assert!(limiter.charge(address("192.0.2.1")).is_ok());
        }
        let wait = limiter.charge(address("192.0.2.1")).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(20));
        assert!(limiter.charge(address("::ffff:192.0.2.1")).is_err());
        assert!(limiter.charge(address("192.0.2.2")).is_ok());
        for host in 0..3 {
            assert!(
                limiter
                    .charge(address(&format!("2001:db8::{host}")))
                    .is_ok()
            );
        }
        assert!(limiter.charge(address("2001:db8::ffff")).is_err());
        assert!(limiter.charge(address("2001:db8:0:1::1")).is_ok());
    }
}
