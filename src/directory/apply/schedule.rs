//! When an entry is checked again.

use std::time::Duration;

use super::{BACKOFF, EntryUpdate, REPROVE};
use crate::store::Trigger;
use atcomm_net::backoff::{Backoff, Jitter, Spread};
use atcomm_proto::clock::Timestamp;

/// The waits between checks of an entry that is not served as it was: hidden, regressed, or with
/// nothing proven. What hid it may have been an accident of minutes.
const UNSETTLED: Backoff = Backoff {
    first: Duration::from_secs(60),
    longest: REPROVE,
    jitter: Jitter::between(0.75, 1.0),
};

impl EntryUpdate<'_> {
    /// Schedules the next check after one that proved something: within `within` of the time at
    /// which the identity was asked for, spread over the last quarter of it, so that accounts found
    /// together are not checked together.
    pub(super) fn checked(&mut self, within: Duration) {
        let entry = &mut self.entry;
        entry.checked_at = self.seen.at;
        entry.failures = 0;
        self.entry.next_check_at = self.due_within(within);
    }

    /// Returns the next check of a proven entry. A proof under an old document puts off no look at
    /// a new one.
    fn due_within(&self, within: Duration) -> Timestamp {
        let now = self.seen.at;
        let spread = Spread::of(self.entry.did.as_str());
        let quarter = within / 4;
        let known = self.entry.identity_at.filter(|known| *known <= now);
        let due = known
            .unwrap_or(now)
            .plus(within - quarter)
            .plus(spread.part(quarter));
        if due > now {
            return due;
        }
        // A recheck asks for a new document first, so none could be had.
        if self.seen.trigger == Trigger::Recheck {
            return now.plus(BACKOFF.jitter.apply(BACKOFF.longest, spread));
        }
        now
    }

    /// Schedules the next check of an entry that is not served as it was, with growing waits. `news`
    /// begins them anew.
    pub(super) fn unsettled(&mut self, news: bool) {
        let entry = &mut self.entry;
        entry.checked_at = self.seen.at;
        entry.failures = if news {
            1
        } else {
            entry.failures.saturating_add(1)
        };
        let wait = UNSETTLED.wait(entry.failures, Spread::of(entry.did.as_str()));
        entry.next_check_at = self.seen.at.plus(wait);
    }

    /// Schedules the next check after one without an answer.
    pub(super) fn failed(&mut self) {
        let entry = &mut self.entry;
        entry.checked_at = self.seen.at;
        entry.failures = entry.failures.saturating_add(1);
        let wait = BACKOFF.wait(entry.failures, Spread::of(entry.did.as_str()));
        entry.next_check_at = self.seen.at.plus(wait);
    }
}
