//! The changes that an observation leaves in the log, which tells its readers the state of every
//! account.

use super::EntryUpdate;
use crate::store::{Change, ChangeKind, EntryState};

impl EntryUpdate<'_> {
    /// Adds the change of a state that no other change tells of, and has all changes tell the state
    /// that the observation leaves.
    pub(super) fn complete_changes(&mut self) {
        let now = EntryState::of(&self.entry);
        if self.changes.is_empty() && now != self.before {
            let (kind, detail) = self.untold(&now);
            self.change(kind, detail);
        }
        for change in &mut self.changes {
            let of_package = matches!(
                change.kind,
                ChangeKind::Package
                    | ChangeKind::Invalid
                    | ChangeKind::Removed
                    | ChangeKind::Unverifiable
                    | ChangeKind::Dropped
            );
            if !of_package {
                let (kind, detail) = (change.kind, change.detail.take());
                *change = Change::of(&self.entry, kind, detail, self.seen.at);
            } else if change.account.is_some() {
                change.account = Some(now.clone());
            }
        }
    }

    /// Returns the kind of the change to a state, and its details.
    fn untold(&self, now: &EntryState) -> (ChangeKind, Option<String>) {
        if now.status != self.before.status {
            (ChangeKind::Status, Some(now.status.to_string()))
        } else if now.regressed != self.before.regressed {
            (ChangeKind::Recovered, None)
        } else if now.state != self.before.state {
            // A removal that was only reported before.
            (ChangeKind::Removed, Some("proven".to_owned()))
        } else {
            let handle = now.handle.as_ref();
            (ChangeKind::Identity, handle.map(ToString::to_string))
        }
    }
}
