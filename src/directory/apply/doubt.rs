//! The end of a doubt.

use super::EntryUpdate;
use crate::directory::observation::{Authority, Finding};

impl EntryUpdate<'_> {
    /// Ends the doubt about the entry, where the refresh began after the doubt was known and has an
    /// answer: what the account's PDS says now includes what was missed before. An entry that stays
    /// in doubt stays due as it was.
    pub(super) fn end_doubt(&mut self) {
        let is_answer = match &self.seen.finding {
            Finding::Present(_)
            | Finding::Absent(_)
            | Finding::AbsentUnproven
            | Finding::Inactive(_)
            | Finding::Deleted => true,
            Finding::Missing | Finding::Unverifiable { .. } | Finding::Unreachable { .. } => false,
        };
        if !is_answer || self.entry.doubt_since.is_none() {
            return;
        }
        let is_later = self.seen.begun.doubt_since == self.entry.doubt_since;
        if is_later && self.seen.authority == Authority::Pds {
            self.entry.doubt_since = None;
        } else {
            self.entry.next_check_at = self.entry.next_check_at.min(self.was_due);
        }
    }
}
