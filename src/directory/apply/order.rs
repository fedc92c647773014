//! The order of proofs of one account (invariant 4).

use super::super::observation::Authority;
use super::EntryUpdate;
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

impl EntryUpdate<'_> {
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
