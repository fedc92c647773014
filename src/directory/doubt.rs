//! Entries that a gap in a source's stream puts in doubt.
//!
//! A gap is written together with the source's cursor; its entries are marked afterwards, a bounded
//! number in one transaction. A refresh that began after an entry was marked, and that the
//! account's PDS answered, ends the doubt.

use std::time::Duration;

use super::{Directory, lookup};
use crate::store::{Marked, StoreError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Actor, Did};

/// Entries marked in one transaction, which keeps the writer for some milliseconds.
const MARKED_AT_ONCE: usize = 50;

/// Entries of a gap that are due at once, one every [`FIRST_INTERVAL`].
const FIRST: u64 = 64;

/// Interval between the first entries of a gap that are due: a handful is right within seconds.
const FIRST_INTERVAL: Duration = Duration::from_millis(100);

/// Interval between the further ones, which a public PLC directory bears: 1,000 entries are due
/// within 8 minutes. An entry that is asked for does not wait for its time.
const INTERVAL: Duration = Duration::from_millis(500);

/// Returns when the entry with this number is due, of those that a gap opened at `opened` concerns.
fn due(number: u64, opened: Timestamp) -> Timestamp {
    let times = |interval: Duration, n: u64| {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(millis.saturating_mul(n))
    };
    let first = times(FIRST_INTERVAL, number.min(FIRST));
    opened.plus(first.saturating_add(times(INTERVAL, number.saturating_sub(FIRST))))
}

impl Directory {
    /// Lets the marking of all open gaps begin anew. To be called once, at the start.
    pub async fn restart_gaps(&self) -> Result<(), StoreError> {
        self.store.transact(|tx| tx.restart_gaps()).await
    }

    /// Marks some entries of the oldest open gap. Returns `None` where no gap is open. Durable when
    /// this returns, and continued after a crash.
    pub async fn mark_gap(&self) -> Result<Option<Marked>, StoreError> {
        let marked = self
            .store
            .transact(|tx| tx.mark_gap(MARKED_AT_ONCE, due))
            .await?;
        if marked.as_ref().is_some_and(|marked| marked.entries > 0) {
            self.view_cache.invalidate_all();
        }
        Ok(marked)
    }

    /// Returns the account that an actor names, if its entry is in doubt.
    pub async fn in_doubt(&self, actor: &Actor) -> Result<Option<Did>, StoreError> {
        let actor = actor.clone();
        let now = self.clock.now();
        self.store
            .query(move |q| lookup::in_doubt(q, &actor, now))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handful_is_due_within_seconds_and_a_thousand_within_minutes() {
        let opened = Timestamp::from_millis(1_800_000_000_000);
        let wait = |number| due(number, opened).since(opened);
        assert_eq!(wait(0), Duration::ZERO);
        assert!(wait(19) <= Duration::from_secs(2));
        assert!(wait(FIRST) <= Duration::from_secs(10));
        assert!(wait(999) <= Duration::from_secs(480), "{:?}", wait(999));
        for number in 0..2000 {
            assert!(wait(number) < wait(number + 1));
        }
        // No number overflows.
        due(u64::MAX, opened);
    }
}
