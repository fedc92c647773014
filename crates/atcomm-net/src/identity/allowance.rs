//! How many requests askers may cause at the PLC directory, which has a limit of its own for us:
//! used up by strangers, it would be missing where events and re-proofs need it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atcomm_proto::clock::{Clock, Timestamp};

/// A token bucket that holds the requests of one minute.
pub(super) struct Allowance {
    clock: Clock,
    per_minute: f64,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    /// Requests that may be made now.
    tokens: f64,
    refilled: Timestamp,
}

impl Allowance {
    pub(super) fn new(per_minute: u32, clock: Clock) -> Self {
        let per_minute = f64::from(per_minute.max(1));
        Self {
            per_minute,
            bucket: Mutex::new(Bucket {
                tokens: per_minute,
                refilled: clock.now(),
            }),
            clock,
        }
    }

    /// Takes one request, or says when there will be one.
    pub(super) fn take(&self) -> Result<(), Duration> {
        let now = self.clock.now();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = now.since(bucket.refilled).as_secs_f64() * self.per_minute / 60.0;
        bucket.tokens = (bucket.tokens + earned).min(self.per_minute);
        // Also backwards: after the system's clock was set back the bucket must fill again.
        bucket.refilled = now;
        if bucket.tokens < 1.0 {
            let wait = (1.0 - bucket.tokens) * 60.0 / self.per_minute;
            return Err(Duration::from_secs_f64(wait.clamp(0.001, 60.0)));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}
