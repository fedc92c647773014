//! When an entry is checked again.

use std::time::Duration;

use super::{BACKOFF, EntryUpdate};
use atcomm_net::backoff::Spread;

/// Factor of the wait before a handle is verified again that could not be: minutes at first, six
/// hours in the end.
const HANDLE_BACKOFF: u32 = 6;

impl EntryUpdate<'_> {
    /// Schedules the next check after one that had an answer: within `within`, spread over the last
    /// quarter of it, so that accounts found together are not checked together.
    pub(super) fn checked(&mut self, within: Duration) {
        let entry = &mut self.entry;
        entry.checked_at = self.seen.at;
        if self.handle_unverified {
            // The package is proven, but clients look it up by a handle that is not verified yet.
            entry.failures = entry.failures.saturating_add(1);
            let spread = Spread::of(entry.did.as_str());
            let wait = BACKOFF.wait(entry.failures, spread) * HANDLE_BACKOFF;
            entry.next_check_at = self.seen.at.plus(wait.min(within));
            return;
        }
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
