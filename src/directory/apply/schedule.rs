//! When an entry is checked again.

use std::time::Duration;

use super::{BACKOFF, EntryUpdate};
use atcomm_net::backoff::Spread;

impl EntryUpdate<'_> {
    /// Schedules the next check after one that had an answer: within `within`, spread over the last
    /// quarter of it, so that accounts found together are not checked together.
    pub(super) fn checked(&mut self, within: Duration) {
        let entry = &mut self.entry;
        entry.checked_at = self.seen.at;
        entry.failures = 0;
        let quarter = within / 4;
        entry.next_check_at = self
            .seen
            .at
            .plus(within - quarter)
            .plus(Spread::of(entry.did.as_str()).part(quarter));
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
