//! What an entry takes over from the account's DID document.

use super::EntryUpdate;
use crate::store::ChangeKind;
use atcomm_net::identity::HandleCheck;
use atcomm_proto::syntax::Handle;

impl EntryUpdate<'_> {
    /// Takes over the identity from the DID document.
    pub(super) fn identity(&mut self) {
        let Some(facts) = &self.seen.identity else {
            return;
        };
        let handle = match &facts.handle {
            HandleCheck::Verified(handle) => Some(handle.clone()),
            HandleCheck::Invalid => None,
            // A name server that does not answer takes no handle away.
            HandleCheck::Inconclusive => self.entry.handle.clone(),
        };
        self.handle_unverified = facts.handle == HandleCheck::Inconclusive && handle.is_none();
        let entry = &mut self.entry;
        let changed =
            entry.handle != handle || entry.pds != facts.pds || entry.signing_key != facts.key;
        entry.handle = handle;
        entry.pds.clone_from(&facts.pds);
        entry.signing_key.clone_from(&facts.key);
        entry.claimed.clone_from(&facts.claimed);
        entry.identity_at = Some(facts.asked_at);
        if changed && self.was_proven {
            let detail = self.entry.handle.as_ref().map(Handle::to_string);
            self.change(ChangeKind::Identity, detail);
        }
    }
}
