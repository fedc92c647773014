//! What an entry takes over from the account's DID document.

use super::{EntryUpdate, handle};
use crate::store::{ChangeKind, EventKind, Trigger};
use atcomm_proto::syntax::Handle;

impl EntryUpdate<'_> {
    /// Takes over the identity from the DID document.
    pub(super) fn identity(&mut self) {
        let Some(facts) = &self.seen.identity else {
            return;
        };
        let entry = &mut self.entry;
        let before = entry.handle.clone();
        if entry.claimed != facts.claimed {
            handle::claim(entry, facts.claimed.as_ref(), self.seen.at);
        } else if may_be_news_of_a_handle(&self.seen.trigger) {
            handle::make_due(entry, self.seen.at);
        }
        let changed =
            entry.handle != before || entry.pds != facts.pds || entry.signing_key != facts.key;
        entry.pds.clone_from(&facts.pds);
        entry.signing_key.clone_from(&facts.key);
        entry.identity_at = Some(facts.asked_at);
        if changed && self.was_proven {
            let detail = self.entry.handle.as_ref().map(Handle::to_string);
            self.change(ChangeKind::Identity, detail);
        }
    }
}

/// Returns whether the trigger of a refresh may be about the account's handle: an event of the
/// account as a whole, or a client that asks. Writes, listings and age say nothing of a handle.
fn may_be_news_of_a_handle(trigger: &Trigger) -> bool {
    match trigger {
        Trigger::Event { event, .. } => *event != EventKind::Commit,
        Trigger::Request => true,
        Trigger::Listing(_) | Trigger::Recheck => false,
    }
}
