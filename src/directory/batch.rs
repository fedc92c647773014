//! Writes to the directory: the work of events and refreshes, applied inside one transaction.

use super::apply;
use super::chain::ChainEvent;
use super::daily::{self, Basis};
use super::enrolled::EnrolledSet;
use super::observation::{Observation, Outcome};
use super::quota::{Full, Quota};
use super::view::MAX_MEDIATORS;
use crate::store::directory::{Owner, Tx};
use crate::store::{
    AnnouncedChange, BackfillRow, Change, ChangeKind, Coverage, Entry, Gap, MediatorRow,
    NewPending, SourceCursor, StoreError, Takedown,
};
use atcomm_net::identity::MediatorDocument;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Did;

/// Most accounts whose cached views are invalidated one by one. With more of them all cached views
/// are invalidated.
pub(super) const MAX_INVALIDATED: usize = 1000;

/// The work of one event, or of several: all of it is written in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Findings with inline proofs, in the order of the stream.
    pub observations: Vec<Observation>,
    /// Commits and other changes of whole repositories, in the order of the stream.
    pub chain: Vec<ChainEvent>,
    /// What a relay says of the status of accounts, where its word counts.
    pub takedowns: Vec<Takedown>,
    /// Refreshes to be made.
    pub pending: Vec<NewPending>,
    /// The cursor of the source, once this is durable.
    pub cursor: Option<SourceCursor>,
    /// The progress of the source's backfill.
    pub backfill: Option<BackfillRow>,
    /// Names of the sources that are to be enumerated because events were missed.
    pub gaps: Vec<String>,
    /// The interval in which the source is proven to have missed nothing.
    pub coverage: Option<Coverage>,
    /// Events that the source has missed: the entries that they may concern are in doubt.
    pub gap: Option<Gap>,
}

/// The effect of a refresh on the pending one that led to it.
#[derive(Debug, Clone, Copy)]
pub enum PendingUpdate {
    /// None: there was no pending refresh, or it stays as it is.
    Unchanged,
    /// The pending refresh at this generation is done.
    Complete(i64),
    /// It stays pending.
    RetryAt {
        /// Generation at which the refresh began.
        generation: i64,
        /// When it is due again.
        not_before: Timestamp,
        /// Whether it counts as a failure.
        failed: bool,
        /// Class of the error that it ended in.
        failure: Option<&'static str>,
    },
}

/// Accounts whose cached views a transaction makes invalid.
#[derive(Default)]
pub(super) struct Invalidated {
    pub(super) dids: Vec<Did>,
    /// Whether there are more than could be listed.
    pub(super) all: bool,
}

/// Writes the end of a pending refresh.
pub(super) fn write_pending_update(
    tx: &Tx<'_>,
    did: &Did,
    update: PendingUpdate,
) -> Result<(), StoreError> {
    match update {
        PendingUpdate::Unchanged => Ok(()),
        PendingUpdate::Complete(generation) => tx.complete_pending(did, generation),
        PendingUpdate::RetryAt {
            generation,
            not_before,
            failed,
            failure,
        } => tx.retry_pending(did, generation, not_before, failed, failure),
    }
}

/// Decides about one observation and writes the decision.
pub(super) fn apply_one(
    tx: &Tx<'_>,
    seen: &Observation,
    quota: &Quota,
    enrolled: &EnrolledSet,
    invalidated: &mut Invalidated,
) -> Result<Outcome, StoreError> {
    let old = tx.entry(&seen.did)?;
    let mut peers = vec![old.as_ref().and_then(|entry| entry.peer.clone())];
    let mut decision = apply::decide(old.clone(), seen, tx.takedown(&seen.did)?);
    if let Some(full) = limit_reached(tx, quota, old.as_ref(), &mut decision, seen.at)? {
        if let Some(old) = &old {
            drop_entry(tx, old, full, seen.at)?;
            enrolled.remove(seen.did.as_str());
            invalidated.dids.push(seen.did.clone());
        }
        return Ok(Outcome::Full(full));
    }
    enqueue_refresh(tx, seen, &decision)?;
    daily::note_written(tx, seen, old.as_ref())?;
    let shift = shift(tx, seen, old.as_ref(), &decision)?;
    if matches!(decision.write, apply::Write::Forget) {
        tx.delete_entry(&seen.did)?;
        tx.delete_history(&seen.did)?;
    }
    let positions = write_changes(tx, seen, quota, old.as_ref(), &decision)?;
    match decision.write {
        apply::Write::Nothing => {
            shift.map_or(Ok(()), |shift| daily::write(tx, &shift))?;
            return Ok(decision.outcome);
        }
        apply::Write::Delete => {
            tx.delete_entry(&seen.did)?;
            enrolled.remove(seen.did.as_str());
        }
        apply::Write::Forget => enrolled.remove(seen.did.as_str()),
        apply::Write::Put(mut entry) => {
            if let Some(seq) = decision.entry_change.and_then(|i| positions.get(i)) {
                entry.change_seq = *seq;
            }
            tx.put_entry(&entry)?;
            write_proof(tx, &entry.did, &decision.proof)?;
            write_head(tx, seen, old.as_ref(), &entry, &decision.proof)?;
            add_mediators(tx, &entry, seen.at)?;
            peers.push(entry.peer);
            enrolled.insert(seen.did.as_str());
        }
    }
    if let Some(shift) = &shift {
        daily::write(tx, shift)?;
    }
    invalidated.dids.push(seen.did.clone());
    // The other claimants of the same did:peer become ambiguous, or are so no longer.
    if decision.outcome != Outcome::Proven {
        for peer in peers.iter().flatten() {
            invalidated.dids.extend(now_or_not_alone(tx, peer)?);
        }
    }
    invalidated.all |= invalidated.dids.len() > MAX_INVALIDATED;
    Ok(decision.outcome)
}

/// Returns how a decision counts in the time series.
fn shift(
    tx: &Tx<'_>,
    seen: &Observation,
    old: Option<&Entry>,
    decision: &apply::Decision,
) -> Result<Option<daily::Shift>, StoreError> {
    let new = match &decision.write {
        apply::Write::Nothing => return daily::without_result(tx, seen, old.is_some()),
        apply::Write::Put(entry) => Some(entry),
        apply::Write::Delete | apply::Write::Forget => None,
    };
    match daily::shift(tx, Basis::Seen(seen), seen.at, old, new)? {
        Some(shift) => Ok(Some(shift)),
        None => daily::without_result(tx, seen, old.is_some()),
    }
}

/// Takes over the commit of a proof as the newest one of its account. Revisions are ordered under
/// one PDS and key.
fn write_head(
    tx: &Tx<'_>,
    seen: &Observation,
    old: Option<&Entry>,
    entry: &Entry,
    proof: &apply::ProofWrite,
) -> Result<(), StoreError> {
    let (apply::ProofWrite::Put(_), Some(commitment)) = (proof, seen.finding.commitment()) else {
        return Ok(());
    };
    let is_new_order =
        old.is_none_or(|old| old.proof_pds != entry.proof_pds || old.proof_key != entry.proof_key);
    let data = commitment.data().to_bytes();
    tx.prove_head(&entry.did, commitment.rev(), &data, is_new_order)
}

/// Writes what a relay says of the status of an account, and hides the account at once. That it is
/// active again is for its PDS to say.
pub(super) fn take_down(
    tx: &Tx<'_>,
    takedown: &Takedown,
    now: Timestamp,
    invalidated: &mut Invalidated,
) -> Result<(), StoreError> {
    let Some(mut entry) = tx.entry(&takedown.did)? else {
        return Ok(());
    };
    tx.set_takedown(takedown)?;
    let Some(status) = takedown
        .status
        .as_ref()
        .filter(|_| entry.status.is_active())
    else {
        return Ok(());
    };
    let detail = Some(status.to_string());
    let old = entry.clone();
    entry.status = status.clone();
    let shift = daily::shift(tx, Basis::Relay, now, Some(&old), Some(&entry))?;
    let change = Change::of(&entry, ChangeKind::Status, detail, now);
    tx.append_change(&change, &Owner::of(&entry))?;
    tx.put_entry(&entry)?;
    if let Some(shift) = &shift {
        daily::write(tx, shift)?;
    }
    if let Some(peer) = &entry.peer {
        invalidated
            .dids
            .extend(tx.claimants(peer, MAX_INVALIDATED)?);
    }
    invalidated.dids.push(entry.did);
    invalidated.all |= invalidated.dids.len() > MAX_INVALIDATED;
    Ok(())
}

/// Writes what a decision adds to the change log and to the evidence. Returns the positions of the
/// changes.
fn write_changes(
    tx: &Tx<'_>,
    seen: &Observation,
    quota: &Quota,
    old: Option<&Entry>,
    decision: &apply::Decision,
) -> Result<Vec<i64>, StoreError> {
    let entry = match &decision.write {
        apply::Write::Put(entry) => Some(entry),
        apply::Write::Nothing | apply::Write::Delete | apply::Write::Forget => old,
    };
    // An account without an entry has no change.
    let Some(entry) = entry else {
        return Ok(Vec::new());
    };
    let owner = Owner::of(entry);
    let saves = (decision.supersedes.is_some() || decision.evidence.is_some())
        && quota.has_room(tx, entry)?;
    if let Some(superseded) = decision.supersedes.as_ref().filter(|_| saves) {
        tx.save_proof(&seen.did, superseded)?;
    }
    let mut positions = Vec::with_capacity(decision.changes.len());
    for change in &decision.changes {
        positions.push(tx.append_change(change, &owner)?);
        if change.kind == ChangeKind::Regressed {
            tracing::warn!("a PDS showed an older revision than one already proven");
        }
    }
    if let Some(commitment) = decision.evidence.as_ref().filter(|_| saves) {
        let pds = seen.identity.as_ref().and_then(|facts| facts.pds.as_ref());
        tx.save_evidence(
            &seen.did,
            commitment.rev(),
            pds,
            commitment.key(),
            commitment.car(),
            &owner,
            seen.at,
        )?;
    }
    Ok(positions)
}

/// Stores the refresh that a decision leads to.
fn enqueue_refresh(
    tx: &Tx<'_>,
    seen: &Observation,
    decision: &apply::Decision,
) -> Result<(), StoreError> {
    let Some(trigger) = &decision.refresh else {
        return Ok(());
    };
    let pending = NewPending {
        did: seen.did.clone(),
        trigger: trigger.clone(),
        announced: AnnouncedChange::Keep,
        not_before: seen.at,
    };
    tx.enqueue_pending(&pending, seen.at)
}

/// Deletes an entry that a limit does not let be kept up to date.
fn drop_entry(tx: &Tx<'_>, old: &Entry, full: Full, now: Timestamp) -> Result<(), StoreError> {
    let shift = daily::shift(tx, Basis::Limit, now, Some(old), None)?;
    let limit = Some(full.code().to_owned());
    let change = Change::of(old, ChangeKind::Dropped, limit, now);
    tx.append_change(&change, &Owner::of(old))?;
    tx.delete_entry(&old.did)?;
    shift.map_or(Ok(()), |shift| daily::write(tx, &shift))
}

/// Returns the limit at which an entry is not made, or not kept with a proof of unusual length, if
/// there is one.
fn limit_reached(
    tx: &Tx<'_>,
    quota: &Quota,
    old: Option<&Entry>,
    decision: &mut apply::Decision,
    now: Timestamp,
) -> Result<Option<Full>, StoreError> {
    let apply::Write::Put(entry) = &mut decision.write else {
        return Ok(None);
    };
    if old.is_some() {
        return quota.refuses_growth(tx, entry, decision.proof.len(), now);
    }
    // The refresh that a source has led to may come later than that of a client.
    entry.asked = entry.asked && !is_named_by_source(tx, &entry.did)?;
    quota.refuses(tx, entry, decision.proof.len(), now)
}

fn write_proof(tx: &Tx<'_>, did: &Did, write: &apply::ProofWrite) -> Result<(), StoreError> {
    match write {
        apply::ProofWrite::Keep => Ok(()),
        apply::ProofWrite::Put(car) => tx.put_proof(did, car),
        apply::ProofWrite::Delete => tx.delete_proof(did),
    }
}

/// Returns the claimants of a did:peer whose views say something else where one claimant has come or
/// gone. Where three are left, each of them was beside another before, and still is.
fn now_or_not_alone(tx: &Tx<'_>, peer: &str) -> Result<Vec<Did>, StoreError> {
    let mut claimants = tx.claimants(peer, 3)?;
    if claimants.len() == 3 {
        claimants.clear();
    }
    Ok(claimants)
}

/// Returns whether a refresh of the account is pending because of a source.
fn is_named_by_source(tx: &Tx<'_>, did: &Did) -> Result<bool, StoreError> {
    let pending = tx.pending(did)?;
    Ok(pending.is_some_and(|row| row.trigger.is_of_source()))
}

/// Adds a row for each mediator of an entry that was never looked up, and makes it due at once.
fn add_mediators(tx: &Tx<'_>, entry: &Entry, now: Timestamp) -> Result<(), StoreError> {
    for did in entry.mediators.iter().take(MAX_MEDIATORS) {
        if did.web().is_some() && tx.mediator(did)?.is_none() {
            tx.put_mediator(&MediatorRow {
                did: did.clone(),
                document: MediatorDocument::unchecked(did.clone()).to_stored(),
                checked_at: now,
                next_check_at: now,
                failures: 0,
            })?;
        }
    }
    Ok(())
}
