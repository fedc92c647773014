//! The order of proofs of one account (invariant 4).

use super::super::observation::Authority;
use super::EntryUpdate;
use crate::store::{EventKind, Trigger};
use atcomm_proto::proof::Commitment;

/// Order of a proof relative to the entry's proof.
pub(super) enum Order {
    /// The first under this PDS and key, or a later revision.
    Newer,
    /// The same commit.
    Same,
    /// Older, and only late: a replay, or something newer was applied during the fetch.
    Late,
    /// Older, or another commit of the same revision, served by the PDS itself.
    Backwards,
}

/// Order of an observation's identity relative to the entry's (invariant 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdentityOrder {
    /// Asked for later, or at the same time.
    Newer,
    /// Asked for earlier, with the same key and PDS, or no identity at all: what is proven under it
    /// counts, and the rest is not taken over.
    Older,
    /// With a key or a PDS that may have been replaced since.
    Replaced,
}

impl EntryUpdate<'_> {
    /// Compares the observation's identity with the entry's by when they were asked for. A time in
    /// our future, after a step of the clock, is older than any that is known. A stream changes
    /// neither key nor PDS, whenever its document was asked for: the account is looked at then.
    pub(super) fn identity_order(&self) -> IdentityOrder {
        let Some(facts) = &self.seen.identity else {
            return IdentityOrder::Older;
        };
        let now = self.seen.at;
        let is_same = facts.pds == self.entry.pds && facts.key == self.entry.signing_key;
        let is_newer = match self.entry.identity_at.filter(|known| *known <= now) {
            Some(known) => known <= facts.asked_at && facts.asked_at <= now,
            None => is_same || !self.overtaken(),
        };
        match (is_newer, is_same) {
            (true, true) => IdentityOrder::Newer,
            (true, false) if self.seen.authority == Authority::Pds => IdentityOrder::Newer,
            (false, true) => IdentityOrder::Older,
            (_, false) => IdentityOrder::Replaced,
        }
    }

    /// Returns the trigger of a refresh that reads the identity anew.
    pub(super) fn identity_refresh(&self) -> Trigger {
        match self.seen.trigger {
            Trigger::Event { source, .. } => Trigger::Event {
                source,
                event: EventKind::Identity,
            },
            Trigger::Listing(_) | Trigger::Request | Trigger::Recheck => Trigger::Recheck,
        }
    }

    /// Compares a commitment with the entry's proof (invariant 4): revisions are ordered only under
    /// one account, PDS and key.
    pub(super) fn order(&self, commitment: &Commitment) -> Order {
        let Some(rev) = self.entry.rev else {
            return Order::Newer;
        };
        let same_pds = self.entry.proof_pds == self.entry.pds;
        // Once the present key has signed, a commit by the previous key is history.
        let outdated = same_pds
            && self.entry.proof_key == self.entry.signing_key
            && self.entry.signing_key.as_ref() != Some(commitment.key());
        let is_ordered = same_pds && self.entry.proof_key.as_ref() == Some(commitment.key());
        if !outdated && (!is_ordered || commitment.rev() > rev) {
            return Order::Newer;
        }
        if !outdated
            && commitment.rev() == rev
            && self.entry.commit.as_ref() == Some(commitment.commit())
        {
            // A stream that repeats a known commit says nothing about the present.
            return match self.seen.authority {
                Authority::Stream => Order::Late,
                Authority::Pds => Order::Same,
            };
        }
        if self.seen.authority == Authority::Stream || self.overtaken() {
            return Order::Late;
        }
        Order::Backwards
    }

    /// Returns whether something was proven after this refresh began.
    pub(super) fn overtaken(&self) -> bool {
        self.entry.proofs != self.seen.begun.proofs
    }

    /// Returns whether the entry's proof was made under the present PDS and key.
    pub(super) fn proof_is_current(&self) -> bool {
        self.seen.identity.is_none()
            || (self.entry.proof_pds == self.entry.pds
                && self.entry.identity_key == self.entry.signing_key)
    }
}
