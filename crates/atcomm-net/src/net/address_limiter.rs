//! Requests that one client address may cause, and how addresses are grouped.

use std::net::IpAddr;
use std::time::Duration;

use crate::rate_limit::{KeyedRateLimit, Left, Rate};
use atcomm_proto::clock::Clock;

/// Most groups of addresses with a bucket of their own; the least recently used are evicted first.
const MAX_ADDRESSES: usize = 100_000;

/// A rate limit per address. All addresses of an IPv6 /64 share one bucket: one household has that
/// many addresses.
pub struct AddressLimiter {
    by_address: KeyedRateLimit<u128>,
}

impl AddressLimiter {
    /// Allows each address `per_minute` requests, at least one, all of which may come at once.
    pub fn new(per_minute: u32, clock: Clock) -> Self {
        Self::with_rate(Rate::per_minute(per_minute), clock)
    }

    /// Allows each address these requests.
    pub fn with_rate(rate: Rate, clock: Clock) -> Self {
        Self {
            by_address: KeyedRateLimit::new(rate, MAX_ADDRESSES, clock),
        }
    }

    /// Charges the address with one request, and says what is left; or returns the time to wait.
    pub fn spend(&self, address: IpAddr) -> Result<Left, Duration> {
        self.by_address.spend(&group_of(address))
    }

    /// Charges the address with one request, or returns the time to wait.
    pub fn charge(&self, address: IpAddr) -> Result<(), Duration> {
        self.by_address.take(&group_of(address))
    }

    /// Charges the address with `n` requests, or with none and returns the time to wait. More than
    /// it may have at once counts as all of that.
    pub fn charge_many(&self, address: IpAddr, n: u32) -> Result<(), Duration> {
        self.by_address.take_many(&group_of(address), n)
    }
}

/// Returns the group of addresses that share one limit: an IPv4 address, or an IPv6 /64.
pub fn group_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits() & !u128::from(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atcomm_proto::clock::Timestamp;

    #[test]
    fn an_address_has_its_own_bucket_and_ipv6_one_per_64() {
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        let limiter = AddressLimiter::new(3, clock.clone());
        let address = |s: &str| s.parse::<IpAddr>().unwrap();
        for _ in 0..3 {
            assert!(limiter.charge(address("192.0.2.1")).is_ok());
        }
        let wait = limiter.charge(address("192.0.2.1")).unwrap_err();
        assert_eq!(wait, Duration::from_secs(20));
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
        clock.advance(wait);
        assert!(limiter.charge(address("192.0.2.1")).is_ok());
        assert!(limiter.charge(address("192.0.2.1")).is_err());
    }
}
