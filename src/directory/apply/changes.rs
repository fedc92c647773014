//! The changes that an observation leaves in the log, which tells its readers the state of every
//! account.

use super::EntryUpdate;
use crate::store::{Change, ChangeKind, EntryState};

impl EntryUpdate<'_> {
    /// Adds the change of a state that no other change tells of, and has the changes tell the state
    /// that the observation leaves. Those before a change of the package tell none: it follows at
    /// once.
    pub(super) fn complete_changes(&mut self) {
        let now = EntryState::of(&self.entry);
        if self.changes.is_empty() && now != self.before {
            let (kind, detail) = self.untold(&now);
            self.change(kind, detail);
        }
        let of_package = self
            .changes
            .iter()
            .rposition(|change| is_of_package(change.kind));
        for (n, change) in self.changes.iter_mut().enumerate() {
            if of_package.is_some_and(|last| n < last) {
                change.account = None;
            } else if is_of_package(change.kind) {
                change.account = change.account.take().map(|_| now.clone());
            } else {
                let (kind, detail) = (change.kind, change.detail.take());
                *change = Change::of(&self.entry, kind, detail, self.seen.at);
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

/// Returns whether a change of this kind says what package has come or gone.
fn is_of_package(kind: ChangeKind) -> bool {
    matches!(
        kind,
        ChangeKind::Package
            | ChangeKind::Invalid
            | ChangeKind::Removed
            | ChangeKind::Unverifiable
            | ChangeKind::Dropped
    )
}
