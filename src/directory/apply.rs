//! The effect of a finding on an entry: a pure function of the old entry, the observation and the
//! time, run inside the store's transaction.

mod absence;
mod changes;
mod doubt;
pub(super) mod handle;
mod identity;
mod order;
mod schedule;

use std::time::Duration;

use super::observation::{Authority, Finding, Observation, Outcome};
use crate::store::{
    AccountStatus, Change, ChangeKind, Entry, EntryState, PackageState, ProofMethod,
    SupersededProof, Trigger,
};
use atcomm_net::backoff::{Backoff, Jitter};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::keypackage::KeyPackage;
use atcomm_proto::proof::{Commitment, VerifiedAbsence, VerifiedRecord};
use order::{IdentityOrder, Order};

/// Longest time from one proof of an entry to the next.
pub const REPROVE: Duration = Duration::from_secs(24 * 3600);

/// Age of the last proof above which an answer is marked as stale.
pub const STALE: Duration = Duration::from_secs(72 * 3600);

/// Age of the last proof at which an entry is dropped, and age of a removal at which the entry of a
/// removed package is dropped.
pub const DROP: Duration = Duration::from_secs(30 * 24 * 3600);

/// The waits after checks without success in a row.
pub const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(60),
    longest: Duration::from_secs(3600),
    jitter: Jitter::between(0.5, 1.0),
};

/// What is to be written.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) outcome: Outcome,
    pub(super) write: Write,
    /// Changes, in order.
    pub(super) changes: Vec<Change>,
    /// The change among them that brought the entry's package.
    pub(super) entry_change: Option<usize>,
    /// The newest proof.
    pub(super) proof: ProofWrite,
    /// The last proof of the superseded package, for the change that brought the package.
    pub(super) supersedes: Option<SupersededProof>,
    /// The commit of a revision that went backwards.
    pub(super) evidence: Option<Commitment>,
    /// The trigger of a refresh that becomes pending: the observation raises a question that only
    /// the account's servers can answer.
    pub(super) refresh: Option<Trigger>,
}

/// The write to the entry.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives for the length of one transaction"
)]
pub(super) enum Write {
    Nothing,
    Put(Entry),
    /// Deletes the entry. What the change log has of the account stays.
    Delete,
    /// Deletes the entry and all that is known of the account.
    Forget,
}

/// The write to the account's newest proof.
#[derive(Debug)]
pub(super) enum ProofWrite {
    Keep,
    Put(Vec<u8>),
    Delete,
}

impl ProofWrite {
    /// Returns the bytes that are written.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Put(car) => car.len(),
            Self::Keep | Self::Delete => 0,
        }
    }
}

/// Decides about an observation. `takedown` is the status in which the account is not active by the
/// word of a relay.
pub(super) fn decide(
    old: Option<Entry>,
    seen: &Observation,
    takedown: Option<AccountStatus>,
) -> Decision {
    let Some(old) = old else {
        return new_entry(seen);
    };
    let mut update = EntryUpdate::new(old, seen);
    update.takedown = takedown;
    match update.identity_order() {
        IdentityOrder::Newer => update.identity(),
        IdentityOrder::Older => {}
        IdentityOrder::Replaced => {
            update.refresh = Some(update.identity_refresh());
            return update.finish(Outcome::Ignored);
        }
    }
    let outcome = match &seen.finding {
        Finding::Present(record) => update.present(record),
        Finding::Absent(absence) => update.absent(absence),
        Finding::AbsentUnproven => update.absent_unproven(),
        Finding::Inactive(status) => update.inactive(status),
        Finding::Missing => update.missing(),
        Finding::Deleted => update.deleted(),
        Finding::Unverifiable { reason, detail } => update.unverifiable(reason, detail),
        Finding::Unreachable { .. } => update.unreachable(),
    };
    update.entry.failure = if outcome == Outcome::Regressed {
        Some("regressed".to_owned())
    } else {
        seen.failure().map(str::to_owned)
    };
    update.finish(outcome)
}

/// Decides about an account without an entry: only a record that its PDS serves now makes one. The
/// proof in a stream may be of an account that its PDS has taken down since.
fn new_entry(seen: &Observation) -> Decision {
    let mut refresh = None;
    let outcome = match &seen.finding {
        Finding::Present(_) if seen.authority == Authority::Stream => {
            refresh = Some(seen.trigger.clone());
            Outcome::Ignored
        }
        Finding::Present(record) => {
            let empty = Entry {
                asked: true,
                ..Entry::empty(seen.did.clone(), seen.trigger.source(), seen.at)
            };
            let mut update = EntryUpdate::new(empty, seen);
            update.identity();
            let outcome = update.present(record);
            return update.finish(outcome);
        }
        Finding::Absent(_) | Finding::AbsentUnproven => Outcome::NotEnrolled,
        Finding::Inactive(_) | Finding::Missing | Finding::Deleted => Outcome::Inactive,
        Finding::Unverifiable { .. } => Outcome::Unverifiable,
        Finding::Unreachable { .. } => Outcome::Unreachable,
    };
    Decision {
        outcome,
        write: Write::Nothing,
        changes: Vec::new(),
        entry_change: None,
        proof: ProofWrite::Keep,
        supersedes: None,
        evidence: None,
        refresh,
    }
}

/// An entry while an observation is applied to it.
struct EntryUpdate<'o> {
    seen: &'o Observation,
    entry: Entry,
    changes: Vec<Change>,
    entry_change: Option<usize>,
    proof: ProofWrite,
    supersedes: Option<SupersededProof>,
    evidence: Option<Commitment>,
    refresh: Option<Trigger>,
    /// The status in which the account is hidden, although it is active at its PDS.
    takedown: Option<AccountStatus>,
    /// The account's state before this observation.
    before: EntryState,
    /// Whether the package had been proven before this observation.
    was_proven: bool,
    /// When the entry was to be checked before this observation.
    was_due: Timestamp,
}

impl<'o> EntryUpdate<'o> {
    fn new(old: Entry, seen: &'o Observation) -> Self {
        let mut update = Self {
            seen,
            before: EntryState::of(&old),
            was_proven: old.change_seq != 0,
            was_due: old.next_check_at,
            entry: old,
            changes: Vec::new(),
            entry_change: None,
            proof: ProofWrite::Keep,
            supersedes: None,
            evidence: None,
            refresh: None,
            takedown: None,
        };
        update.entry.asked &= !seen.trigger.is_of_source();
        update
    }

    fn present(&mut self, record: &VerifiedRecord) -> Outcome {
        let commitment = record.commitment();
        match self.order(commitment) {
            Order::Newer => self.entry.regressed = false,
            Order::Same => {}
            Order::Late => return Outcome::Ignored,
            Order::Backwards => return self.regressed(commitment),
        }
        let same = self.entry.cid.as_ref() == Some(record.cid())
            && matches!(
                self.entry.state,
                PackageState::Present | PackageState::Invalid
            );
        if !same {
            self.supersede();
        }
        self.proven(commitment);
        self.entry.cid = Some(*record.cid());
        // Parsed again each time: a newer version of this program may judge otherwise.
        let before = (self.entry.state, self.entry.reason.clone());
        match KeyPackage::parse(record.record()) {
            Ok(package) => {
                self.entry.state = PackageState::Present;
                self.entry.reason = None;
                self.entry.detail = None;
                self.entry.peer = Some(package.peer.as_str().to_owned());
                self.entry.mediators = package.mediators;
            }
            Err(invalid) => {
                self.entry.state = PackageState::Invalid;
                self.entry.reason = Some(invalid.rule.code().to_owned());
                self.entry.detail = Some(invalid.to_string());
                self.entry.peer = None;
                self.entry.mediators = Vec::new();
            }
        }
        if same && before == (self.entry.state, self.entry.reason.clone()) {
            return Outcome::Proven;
        }
        self.entry.observed_at = self.seen.at;
        self.entry_change = Some(self.changes.len());
        if self.entry.state == PackageState::Present {
            self.change(ChangeKind::Package, None);
            Outcome::Package
        } else {
            let detail = self.entry.reason.clone();
            self.change(ChangeKind::Invalid, detail);
            Outcome::Invalid
        }
    }

    fn absent(&mut self, absence: &VerifiedAbsence) -> Outcome {
        let commitment = absence.commitment();
        match self.order(commitment) {
            Order::Newer => self.entry.regressed = false,
            Order::Same => {}
            Order::Late => return Outcome::Ignored,
            Order::Backwards => return self.regressed(commitment),
        }
        let gone = matches!(
            self.entry.state,
            PackageState::Removed | PackageState::RemovedUnproven
        );
        if !gone {
            self.supersede();
            self.change(ChangeKind::Removed, None);
            self.entry.observed_at = self.seen.at;
        }
        self.clear(PackageState::Removed);
        self.proven(commitment);
        if !gone {
            Outcome::Removed
        } else if self.seen.at.since(self.entry.observed_at) > DROP {
            self.change(ChangeKind::Dropped, None);
            Outcome::Dropped
        } else {
            Outcome::NotEnrolled
        }
    }

    fn unverifiable(&mut self, reason: &str, detail: &str) -> Outcome {
        self.entry.missing_since = None;
        if self.entry.state != PackageState::Unverifiable && self.proof_is_current() {
            // The entry is proven under the present identity. A useless answer of a server does not
            // invalidate what the account signed.
            self.failed();
        } else {
            let news = self.withdraw(reason, detail);
            self.unsettled(news);
        }
        self.drop_if_old().unwrap_or(Outcome::Unverifiable)
    }

    fn unreachable(&mut self) -> Outcome {
        self.failed();
        if !self.proof_is_current() {
            self.withdraw(
                "pds_unreachable",
                "the account's key or PDS changed, and its PDS cannot be asked for a new proof",
            );
        }
        self.drop_if_old().unwrap_or(Outcome::Unreachable)
    }

    /// Withdraws what was proven under another key or PDS, of presence or absence. Returns whether
    /// there was anything left to withdraw.
    fn withdraw(&mut self, reason: &str, detail: &str) -> bool {
        if self.entry.state == PackageState::Unverifiable {
            return false;
        }
        self.supersede();
        self.change(ChangeKind::Unverifiable, Some(reason.to_owned()));
        self.clear(PackageState::Unverifiable);
        // The proof of an absence does not verify under the present key, either.
        self.proof = ProofWrite::Delete;
        self.entry.reason = Some(reason.to_owned());
        self.entry.detail = Some(detail.to_owned());
        self.entry.observed_at = self.seen.at;
        true
    }

    fn regressed(&mut self, commitment: &Commitment) -> Outcome {
        self.unsettled(!self.entry.regressed);
        self.entry.missing_since = None;
        self.active();
        self.evidence = Some(commitment.clone());
        if !self.entry.regressed {
            self.entry.regressed = true;
            self.change(ChangeKind::Regressed, Some(commitment.rev().to_string()));
        }
        self.drop_if_old().unwrap_or(Outcome::Regressed)
    }

    /// Takes over a proof.
    fn proven(&mut self, commitment: &Commitment) {
        let seen = self.seen;
        self.proof = ProofWrite::Put(commitment.car().to_vec());
        let entry = &mut self.entry;
        entry.rev = Some(commitment.rev());
        entry.commit = Some(*commitment.commit());
        entry.proof_key = Some(commitment.key().clone());
        entry.identity_key.clone_from(&entry.signing_key);
        entry.proof_pds.clone_from(&entry.pds);
        entry.proved_at = Some(seen.at);
        entry.proofs += 1;
        entry.missing_since = None;
        seen.trigger.source().clone_into(&mut entry.source);
        entry.method = match seen.authority {
            Authority::Stream => ProofMethod::Commit,
            Authority::Pds => ProofMethod::GetRecord,
        };
        if seen.authority == Authority::Stream && !self.entry.status.is_active() {
            // Old events can be replayed after newer ones: only the answer of the PDS itself proves
            // that an account is active again. That question is asked now, and the next check is not
            // put off by it.
            self.refresh = Some(seen.trigger.clone());
            return;
        }
        self.checked(REPROVE);
        if seen.authority == Authority::Pds {
            self.active();
        }
    }

    /// Saves the proof of the package that is about to be replaced.
    fn supersede(&mut self) {
        let had = matches!(
            self.entry.state,
            PackageState::Present | PackageState::Invalid
        );
        if had {
            self.proof = ProofWrite::Delete;
            self.supersedes = Some(SupersededProof {
                seq: self.entry.change_seq,
                rev: self.entry.rev,
                key: self.entry.proof_key.clone(),
            });
        }
    }

    /// Removes the package from the entry.
    fn clear(&mut self, state: PackageState) {
        let entry = &mut self.entry;
        entry.state = state;
        entry.reason = None;
        entry.detail = None;
        entry.cid = None;
        entry.peer = None;
        entry.mediators = Vec::new();
    }

    fn change(&mut self, kind: ChangeKind, detail: Option<String>) {
        let change = Change::of(&self.entry, kind, detail, self.seen.at);
        self.changes.push(change);
    }

    fn finish(mut self, outcome: Outcome) -> Decision {
        self.end_doubt();
        self.complete_changes();
        let (did, at) = (self.entry.did.clone(), self.seen.at);
        let write = match outcome {
            Outcome::Ignored => Write::Nothing,
            Outcome::Deleted => Write::Forget,
            Outcome::Dropped => Write::Delete,
            _ => Write::Put(self.entry),
        };
        match write {
            Write::Nothing => self.changes.clear(),
            // What is forgotten leaves one mark, for those who follow the change log.
            Write::Forget => self.changes = vec![Change::bare(did, ChangeKind::Deleted, at)],
            Write::Put(_) | Write::Delete => {}
        }
        let kept = matches!(write, Write::Put(_) | Write::Delete);
        Decision {
            outcome,
            write,
            changes: self.changes,
            entry_change: self.entry_change,
            proof: self.proof,
            supersedes: self.supersedes.filter(|_| kept),
            evidence: self.evidence,
            refresh: self.refresh,
        }
    }
}
