//! Token buckets by the injected clock: one bucket, or one bucket per key.
//!
//! The arithmetic is `governor`'s (the generic cell rate algorithm).

use std::convert::Infallible;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use quick_cache::sync::Cache;

use atcomm_proto::clock::Clock;

/// Shortest wait that a refusal names.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// How many requests a bucket holds, and how fast it fills again.
#[derive(Debug, Clone, Copy)]
pub struct Rate(Quota);

impl Rate {
    /// Allows `n` requests per second and `burst` at once; at least one each.
    pub fn per_second(n: u32, burst: u32) -> Self {
        Self(Quota::per_second(at_least_one(n)).allow_burst(at_least_one(burst)))
    }

    /// Allows `n` requests per minute, at least one, all of which may come at once.
    pub fn per_minute(n: u32) -> Self {
        Self(Quota::per_minute(at_least_one(n)))
    }

    /// Allows `n` requests in each `period`, at least one, all of which may come at once. A period
    /// that is too short for them counts as a second.
    pub fn per(n: u32, period: Duration) -> Self {
        let n = at_least_one(n);
        let quota = Quota::with_period(period / n.get());
        Self(quota.map_or(Quota::per_second(n), |quota| quota.allow_burst(n)))
    }

    /// Allows `n` requests per hour, at least one, all of which may come at once.
    pub fn per_hour(n: u32) -> Self {
        Self(Quota::per_hour(at_least_one(n)))
    }
}

fn at_least_one(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

/// What a bucket holds after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Requests that may come at once.
    pub requests: u32,
    /// Time until the bucket is full again.
    pub full_in: Duration,
}

/// One bucket, full at the beginning. Safe to use concurrently.
pub struct RateLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, BucketClock, StateInformationMiddleware>,
    /// Requests that the full bucket holds.
    most: u32,
}

impl RateLimit {
    /// Creates a full bucket.
    pub fn new(rate: Rate, clock: Clock) -> Self {
        let clock = BucketClock {
            clock,
            ahead: AtomicU64::new(0),
        };
        Self {
            limiter: RateLimiter::direct_with_clock(rate.0, clock).with_middleware(),
            most: rate.0.burst_size().get(),
        }
    }

    /// Takes one request out of the bucket, or returns the time until the bucket has one.
    pub fn take(&self) -> Result<(), Duration> {
        self.spend().map(drop)
    }

    /// Does the same as [`RateLimit::take`], and says what is left.
    pub fn spend(&self) -> Result<Left, Duration> {
        let state = self.limiter.check().map_err(|refused| {
            let now = governor::clock::Clock::now(self.limiter.clock());
            refused.wait_time_from(now).max(MIN_WAIT)
        })?;
        let requests = state.remaining_burst_capacity();
        let spent = self.most.saturating_sub(requests);
        Ok(Left {
            requests,
            full_in: state.quota().replenish_interval().saturating_mul(spent),
        })
    }

    /// Takes `n` requests out of the bucket, or none and returns the time until it has them. More
    /// than the bucket can hold counts as all that it can hold.
    pub fn take_many(&self, n: u32) -> Result<(), Duration> {
        let Some(n) = NonZeroU32::new(n.min(self.most)) else {
            return Ok(());
        };
        let Ok(checked) = self.limiter.check_n(n) else {
            return Ok(());
        };
        checked.map(drop).map_err(|refused| {
            let now = governor::clock::Clock::now(self.limiter.clock());
            refused.wait_time_from(now).max(MIN_WAIT)
        })
    }

    /// Takes one request, on credit if need be, and returns the time that the caller has to wait
    /// until the credit is paid. Where that is more than `longest`, takes nothing and returns the
    /// wait as an error.
    ///
    /// The algorithm counts a request at the time of its arrival, so a request on credit is one
    /// that arrives when the bucket has it.
    pub fn reserve(&mut self, longest: Duration) -> Result<Duration, Duration> {
        let Err(wait) = self.take() else {
            return Ok(Duration::ZERO);
        };
        if wait > longest {
            return Err(wait);
        }
        let ahead = &self.limiter.clock().ahead;
        ahead.store(
            u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        let taken = self.take();
        // `&mut self`: no other thread reads the clock in between.
        self.limiter.clock().ahead.store(0, Ordering::Relaxed);
        taken.map(|()| wait)
    }
}

/// The time of a bucket: the clock's monotonic time, so that a bucket fills again also after the
/// machine's clock was set back.
struct BucketClock {
    clock: Clock,
    /// Nanoseconds by which a reservation looks ahead.
    ahead: AtomicU64,
}

impl governor::clock::Clock for BucketClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.clock.monotonic() + Duration::from_nanos(self.ahead.load(Ordering::Relaxed))
    }
}

/// A bucket for each key, created full at the first request of the key. Safe to use concurrently.
pub struct KeyedRateLimit<K> {
    rate: Rate,
    clock: Clock,
    by_key: Cache<K, Arc<RateLimit>>,
}

impl<K: Hash + Eq + Clone> KeyedRateLimit<K> {
    /// Creates buckets for up to `max_keys` keys at a time. Beyond that a key that was not used for
    /// long is evicted and begins with a full bucket when it comes back.
    pub fn new(rate: Rate, max_keys: usize, clock: Clock) -> Self {
        Self {
            rate,
            clock,
            by_key: Cache::new(max_keys),
        }
    }

    /// Takes one request out of the bucket of `key`, or returns the time until it has one.
    pub fn take(&self, key: &K) -> Result<(), Duration> {
        self.bucket(key).take()
    }

    /// Does the same as [`KeyedRateLimit::take`], and says what is left.
    pub fn spend(&self, key: &K) -> Result<Left, Duration> {
        self.bucket(key).spend()
    }

    /// Takes `n` requests out of the bucket of `key`, or none and returns the time until it has
    /// them. More than the bucket can hold counts as all that it can hold.
    pub fn take_many(&self, key: &K, n: u32) -> Result<(), Duration> {
        self.bucket(key).take_many(n)
    }

    fn bucket(&self, key: &K) -> Arc<RateLimit> {
        let new = || Ok::<_, Infallible>(Arc::new(RateLimit::new(self.rate, self.clock.clone())));
        let Ok(limit) = self.by_key.get_or_insert_with(key, new);
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atcomm_proto::clock::Timestamp;

    fn clock() -> Clock {
        Clock::manual(Timestamp::from_millis(1_800_000_000_000))
    }

    const fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let clock = clock();
        let limit = RateLimit::new(Rate::per_second(2, 3), clock.clone());
        for _ in 0..3 {
            assert_eq!(limit.take(), Ok(()));
        }
        assert_eq!(limit.take(), Err(millis(500)));
        clock.advance(millis(499));
        assert_eq!(limit.take(), Err(millis(1)));
        clock.advance(millis(1));
        assert_eq!(limit.take(), Ok(()));
        assert_eq!(limit.take(), Err(millis(500)));
        clock.advance(Duration::from_secs(3600));
        for _ in 0..3 {
            assert_eq!(limit.take(), Ok(()));
        }
        assert_eq!(limit.take(), Err(millis(500)));
    }

    #[test]
    fn minutes_and_hours_come_at_once() {
        for (rate, period) in [(Rate::per_minute(4), 60), (Rate::per_hour(4), 3600)] {
            let clock = clock();
            let limit = RateLimit::new(rate, clock.clone());
            for _ in 0..4 {
                assert_eq!(limit.take(), Ok(()));
            }
            let wait = Duration::from_secs(period) / 4;
            assert_eq!(limit.take(), Err(wait));
            clock.advance(wait);
            assert_eq!(limit.take(), Ok(()));
        }
        let none = RateLimit::new(Rate::per_minute(0), clock());
        assert_eq!(none.take(), Ok(()));
        assert_eq!(none.take(), Err(Duration::from_secs(60)));
    }

    #[test]
    fn a_reservation_is_paid_in_the_order_of_calls() {
        let clock = clock();
        let mut limit = RateLimit::new(Rate::per_second(2, 1), clock.clone());
        let longest = millis(1000);
        assert_eq!(limit.reserve(longest), Ok(Duration::ZERO));
        assert_eq!(limit.reserve(longest), Ok(millis(500)));
        assert_eq!(limit.reserve(longest), Ok(millis(1000)));
        // What is refused takes nothing.
        assert_eq!(limit.reserve(longest), Err(millis(1500)));
        assert_eq!(limit.reserve(longest), Err(millis(1500)));
        assert_eq!(limit.take(), Err(millis(1500)));
        clock.advance(millis(600));
        assert_eq!(limit.reserve(longest), Ok(millis(900)));
        clock.advance(millis(1400));
        assert_eq!(limit.reserve(longest), Ok(Duration::ZERO));
    }

    #[test]
    fn many_are_taken_together_or_not_at_all() {
        let clock = clock();
        let limit = RateLimit::new(Rate::per_second(1, 10), clock.clone());
        assert_eq!(limit.take_many(0), Ok(()));
        assert_eq!(limit.take_many(7), Ok(()));
        assert_eq!(limit.take_many(4), Err(millis(1000)));
        assert_eq!(limit.take_many(3), Ok(()));
        // More than fits costs all.
        clock.advance(millis(9000));
        assert_eq!(limit.take_many(99), Err(millis(1000)));
        clock.advance(millis(1000));
        assert_eq!(limit.take_many(99), Ok(()));
        assert_eq!(limit.take(), Err(millis(1000)));
    }

    #[test]
    fn what_is_left_is_counted_and_comes_back() {
        let clock = clock();
        let limit = RateLimit::new(Rate::per(3, millis(3000)), clock.clone());
        for (requests, full_in) in [(2, 1000), (1, 2000), (0, 3000)] {
            let full_in = millis(full_in);
            assert_eq!(limit.spend(), Ok(Left { requests, full_in }));
        }
        assert_eq!(limit.spend(), Err(millis(1000)));
        clock.advance(millis(2000));
        let full_in = millis(2000);
        assert_eq!(limit.spend().map(|left| left.requests), Ok(1));
        clock.advance(full_in);
        assert_eq!(limit.spend().map(|left| left.requests), Ok(2));
        let none = RateLimit::new(Rate::per(0, millis(3000)), clock);
        assert_eq!(none.spend().map(|left| left.requests), Ok(0));
    }

    #[test]
    fn each_key_has_its_own_bucket() {
        let clock = clock();
        let limit = KeyedRateLimit::new(Rate::per_minute(2), 10, clock.clone());
        for key in ["a", "b"] {
            assert_eq!(limit.take(&key), Ok(()));
            assert_eq!(limit.take(&key), Ok(()));
            assert_eq!(limit.take(&key), Err(Duration::from_secs(30)));
        }
        clock.advance(Duration::from_secs(30));
        assert_eq!(limit.take(&"a"), Ok(()));
    }

    #[test]
    fn inv7_keys_are_bounded() {
        let limit = KeyedRateLimit::new(Rate::per_minute(1), 100, clock());
        for key in 0..10_000 {
            limit.take(&key).unwrap();
        }
        assert!(limit.by_key.len() <= 100);
    }
}
