//! The directory: applies verified findings to the store and answers questions from it.
//!
//! [`Directory::apply`] takes an [`Observation`], whose proofs only the `proof` module can make;
//! entry, change log and the end of owed work go into one transaction, and rendered answers about
//! the account are forgotten when it has committed.

mod answers;
mod apply;
mod history;
mod known;
mod observation;
mod view;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::identity::{MediatorDocument, MediatorState, PlcLog};
use crate::store::directory::{Queries, Tx};
use crate::store::{
    ChangeKind, DirectoryStore, Entry, MediatorRow, Owed, PendingRow, SourceCursor, StoreError,
    WalkRow,
};
use crate::syntax::{Actor, Did, MediatorDid};

use answers::Answers;
pub use apply::{BACKOFF, DROP, REPROVE, STALE, backoff, spread_of};
pub use history::{LogFit, MAX_CHANGES, Page};
use known::Known;
pub use observation::{Authority, Finding, IdentityFacts, Observation, Outcome};
use view::Showing;
pub use view::{MAX_MEDIATORS, Rendered};

/// Mediator documents are looked up again this long after the last time.
pub const MEDIATOR_RECHECK: Duration = Duration::from_secs(3600);

/// Most other claimants of a did:peer whose answers are forgotten one by one; with more of them
/// all answers are forgotten.
const MAX_TOUCHED: usize = 1000;

/// Why there is no recipient view for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which error of the lexicon it is.
    pub kind: RefusalKind,
    /// A sentence for people.
    pub message: String,
}

impl Refusal {
    /// With a message that names the rule, never a secret.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// Errors of the directory's methods, as the lexicons name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// No DID is found under the handle.
    HandleNotFound,
    /// The DID is not known, or has ended.
    DidNotFound,
    /// Proven: the account has no key package.
    NotEnrolled,
    /// Claimed without proof: the account has no key package.
    NotEnrolledUnproven,
    /// The account is deactivated, suspended, taken down or deleted.
    AccountInactive,
    /// Proven to be there, and breaking a rule.
    InvalidKeyPackage,
    /// A server that had to be asked failed.
    Upstream,
}

/// One event's worth of work, or several: all of it is written in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Findings with inline proofs, in the order of the stream.
    pub observations: Vec<Observation>,
    /// Accounts owed a look.
    pub owed: Vec<Owed>,
    /// How far the source is processed once this is durable.
    pub cursor: Option<SourceCursor>,
    /// How far the source's enumeration has come.
    pub walk: Option<WalkRow>,
    /// Sources, by name, that have to be enumerated anew because events were missed.
    pub gaps: Vec<String>,
}

/// How an owed look ends.
#[derive(Debug, Clone, Copy)]
pub enum Settle {
    /// Nothing was owed.
    Nothing,
    /// The look that was owed at this generation is done.
    Done(i64),
    /// It stays owed until then; `failed` counts it as a look without success.
    PutOff {
        /// Generation at which the look began.
        generation: i64,
        /// When it is due again.
        not_before: Timestamp,
        /// Whether it counts as a failure.
        failed: bool,
    },
}

/// The directory.
pub struct Directory {
    store: DirectoryStore,
    answers: Answers,
    known: Arc<Known>,
    clock: Clock,
}

/// Accounts whose answers a transaction changes.
#[derive(Default)]
struct Touched {
    dids: Vec<Did>,
    /// More than could be listed.
    all: bool,
}

impl Directory {
    /// Opens the directory over a store, and learns which accounts are in it.
    pub async fn bind(
        store: DirectoryStore,
        clock: Clock,
        cache_bytes: u64,
    ) -> Result<Self, StoreError> {
        let known = Arc::new(Known::default());
        let noted = Arc::clone(&known);
        store
            .query(move |q| q.each_did(|did| noted.insert(did)))
            .await?;
        let answers = Answers::new(cache_bytes);
        Ok(Self {
            store,
            answers,
            known,
            clock,
        })
    }

    /// Whether an account has an entry; may rarely say so of one that has none.
    pub fn knows(&self, did: &str) -> bool {
        self.known.contains(did)
    }

    /// Accounts with an entry.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no account has an entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The store below, for questions that need no rendering.
    pub fn store(&self) -> &DirectoryStore {
        &self.store
    }

    /// Applies one finding and settles the look that led to it. Durable when it returns;
    /// idempotent: the same proof again changes nothing but its time.
    pub async fn apply(&self, seen: Observation, settle: Settle) -> Result<Outcome, StoreError> {
        let known = Arc::clone(&self.known);
        let did = seen.did.clone();
        let result = self
            .store
            .transact(move |tx| {
                let mut touched = Touched::default();
                let outcome = apply_one(tx, &seen, &known, &mut touched)?;
                // What was overtaken has seen neither the newest status nor the newest handle: it
                // is owed still. So is the look that proved nothing and left nothing behind.
                let unsettled = outcome == Outcome::Ignored
                    || (outcome == Outcome::Unverifiable && tx.entry(&seen.did)?.is_none());
                if !unsettled {
                    write_settlement(tx, &seen.did, settle)?;
                }
                Ok((outcome, touched))
            })
            .await;
        // What was noted as gone may not have been committed.
        let (outcome, touched) = result.inspect_err(|_| self.known.insert(did.as_str()))?;
        self.forget(&touched);
        metrics::counter!("atcomm_directory_outcomes_total", "outcome" => outcome.code())
            .increment(1);
        Ok(outcome)
    }

    /// Applies a batch from a source: findings, owed looks and cursor, all or nothing
    /// (invariant 2). Safe to repeat.
    pub async fn apply_batch(&self, batch: Batch) -> Result<Vec<Outcome>, StoreError> {
        let now = self.clock.now();
        let known = Arc::clone(&self.known);
        let dids: Vec<Did> = batch
            .observations
            .iter()
            .map(|seen| seen.did.clone())
            .collect();
        let result = self
            .store
            .transact(move |tx| {
                let mut touched = Touched::default();
                let mut outcomes = Vec::with_capacity(batch.observations.len());
                for seen in &batch.observations {
                    outcomes.push(apply_one(tx, seen, &known, &mut touched)?);
                }
                for owed in &batch.owed {
                    tx.owe(owed, now)?;
                }
                if let Some(walk) = &batch.walk {
                    tx.advance_walk(walk)?;
                }
                for source in &batch.gaps {
                    tx.begin_walk(source, now)?;
                }
                if let Some(cursor) = &batch.cursor {
                    tx.set_cursor(cursor, now)?;
                }
                Ok((outcomes, touched))
            })
            .await;
        let (outcomes, touched) =
            result.inspect_err(|_| dids.iter().for_each(|did| self.known.insert(did.as_str())))?;
        self.forget(&touched);
        for outcome in &outcomes {
            metrics::counter!("atcomm_directory_outcomes_total", "outcome" => outcome.code())
                .increment(1);
        }
        Ok(outcomes)
    }

    /// Settles an owed look that found nothing to apply.
    pub async fn settle(&self, did: &Did, settle: Settle) -> Result<(), StoreError> {
        let did = did.clone();
        self.store
            .transact(move |tx| write_settlement(tx, &did, settle))
            .await
    }

    /// Looks that are due, and after them entries that are; at most `limit` of each.
    pub async fn due(&self, limit: usize) -> Result<(Vec<PendingRow>, Vec<Did>), StoreError> {
        let now = self.clock.now();
        self.store
            .query(move |q| Ok((q.due_pending(now, limit)?, q.due_entries(now, limit)?)))
            .await
    }

    /// Writes what is known of a mediator, and forgets the answers that show it if it changed.
    pub async fn put_mediator(
        &self,
        did: &MediatorDid,
        document: &MediatorDocument,
    ) -> Result<(), StoreError> {
        let failed = matches!(
            document.state,
            MediatorState::Unreachable | MediatorState::Unresolved
        );
        let now = self.clock.now();
        let json = document.to_stored();
        let (did, document) = (did.clone(), document.clone());
        let touched = self
            .store
            .transact(move |tx| {
                let before = tx.mediator(&did)?;
                let failures = match &before {
                    Some(row) if failed => row.failures.saturating_add(1),
                    _ => u32::from(failed),
                };
                let wait = if failed {
                    // Sooner than the hourly look: senders wait for it to come back.
                    backoff(failures, 0x8000).min(MEDIATOR_RECHECK)
                } else {
                    MEDIATOR_RECHECK
                };
                tx.put_mediator(&MediatorRow {
                    did: did.clone(),
                    document: json,
                    checked_at: now,
                    next_check_at: now.plus(wait),
                    failures,
                })?;
                let same = before
                    .and_then(|row| MediatorDocument::from_stored(&row.document))
                    .is_some_and(|old| same_for_senders(&old, &document));
                let mut touched = Touched::default();
                if !same {
                    touched.dids = tx.accounts_of_mediator(&did, MAX_TOUCHED + 1)?;
                    touched.all = touched.dids.len() > MAX_TOUCHED;
                }
                Ok(touched)
            })
            .await?;
        self.forget(&touched);
        Ok(())
    }

    /// Mediators whose documents are due; forgets those that no package names any more.
    pub async fn due_mediators(&self, limit: usize) -> Result<Vec<MediatorDid>, StoreError> {
        let now = self.clock.now();
        let (due, unnamed) = self
            .store
            .query(move |q| {
                let (mut due, mut unnamed) = (Vec::new(), Vec::new());
                for row in q.due_mediators(now, limit)? {
                    let list = if q.is_named(&row.did)? {
                        &mut due
                    } else {
                        &mut unnamed
                    };
                    list.push(row.did);
                }
                Ok((due, unnamed))
            })
            .await?;
        if !unnamed.is_empty() {
            self.store
                .transact(move |tx| {
                    unnamed
                        .iter()
                        .try_for_each(|did| tx.forget_mediator(did).map(drop))
                })
                .await?;
        }
        Ok(due)
    }

    /// Puts the next look at an entry off, where it could not be made now.
    pub async fn postpone(&self, did: &Did, until: Timestamp) -> Result<(), StoreError> {
        let did = did.clone();
        self.store
            .transact(move |tx| tx.postpone(&did, until))
            .await
    }

    /// What is stored of a mediator.
    pub async fn mediator(
        &self,
        did: &MediatorDid,
    ) -> Result<Option<MediatorDocument>, StoreError> {
        let did = did.clone();
        let row = self.store.query(move |q| q.mediator(&did)).await?;
        Ok(row.and_then(|row| MediatorDocument::from_stored(&row.document)))
    }

    /// Puts the next look-up of a mediator off, where it could not be made now.
    pub async fn postpone_mediator(
        &self,
        did: &MediatorDid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let did = did.clone();
        self.store
            .transact(move |tx| tx.postpone_mediator(&did, until))
            .await
    }

    /// The mediators of an account whose look-up is due, never looked up or not lately.
    pub async fn due_mediators_of(&self, did: &Did) -> Result<Vec<MediatorDid>, StoreError> {
        let (did, now) = (did.clone(), self.clock.now());
        self.store
            .query(move |q| {
                let mediators = q
                    .entry(&did)?
                    .map(|entry| entry.mediators)
                    .unwrap_or_default();
                let mut due = Vec::new();
                for mediator in mediators.into_iter().take(MAX_MEDIATORS) {
                    if q.mediator(&mediator)?
                        .is_some_and(|row| row.next_check_at <= now)
                    {
                        due.push(mediator);
                    }
                }
                Ok(due)
            })
            .await
    }

    /// The answer that is ready under this text, a DID or a handle in lower case.
    pub fn ready(&self, actor: &str) -> Option<Arc<Rendered>> {
        self.answers.ready(actor, self.clock.now())
    }

    /// The recipient view of an account in the directory; `None` when it has no entry.
    pub async fn recipient(
        &self,
        actor: &Actor,
    ) -> Result<Option<Result<Arc<Rendered>, Refusal>>, StoreError> {
        // What changes after this point makes the rendering below unfit to be kept.
        let epoch = self.answers.epoch();
        let rendered = self.render(actor.clone(), Showing::Plain).await?;
        if let Some(Ok(rendered)) = &rendered {
            self.answers.keep(rendered, epoch);
        }
        Ok(rendered)
    }

    /// The same with the proof, and with the account's operation log where that leads to the key
    /// that the proof is signed with. Never kept ready.
    pub async fn recipient_with_proof(
        &self,
        did: &Did,
        log: Option<Arc<PlcLog>>,
    ) -> Result<Option<Result<Arc<Rendered>, Refusal>>, StoreError> {
        self.render(Actor::Did(did.clone()), Showing::Proof(log))
            .await
    }

    async fn render(
        &self,
        actor: Actor,
        showing: Showing,
    ) -> Result<Option<Result<Arc<Rendered>, Refusal>>, StoreError> {
        let now = self.clock.now();
        let found = self
            .store
            .query(move |q| {
                let did = match actor {
                    Actor::Did(did) => did,
                    Actor::Handle(handle) => match q.did_by_handle(&handle)? {
                        Some(did) => did,
                        None => return Ok(None),
                    },
                };
                let Some(entry) = q.entry(&did)? else {
                    return Ok(None);
                };
                if let Some(refusal) = view::refusal(&entry) {
                    return Ok(Some(Err(refusal)));
                }
                let around = surroundings(q, &entry)?;
                Ok(Some(Ok((entry, around))))
            })
            .await?;
        // The store's readers are few: they do not wait for this.
        let (entry, around) = match found {
            Some(Ok(found)) => found,
            Some(Err(refusal)) => return Ok(Some(Err(refusal))),
            None => return Ok(None),
        };
        let rendered = view::render(&entry, &around, &showing, now).ok_or_else(|| {
            StoreError::Corrupt(format!("the entry of {} is incomplete", entry.did))
        })?;
        Ok(Some(Ok(Arc::new(rendered))))
    }

    /// Whether the store takes writes.
    pub fn is_healthy(&self) -> bool {
        self.store.is_healthy()
    }

    /// Writes what waits and closes the store.
    pub async fn shutdown(&self) {
        self.store.shutdown().await;
    }

    fn forget(&self, touched: &Touched) {
        if touched.all {
            self.answers.forget_all();
        } else {
            self.answers.forget(&touched.dids);
        }
    }
}

/// Writes how an owed look ended.
fn write_settlement(tx: &Tx<'_>, did: &Did, settle: Settle) -> Result<(), StoreError> {
    match settle {
        Settle::Nothing => Ok(()),
        Settle::Done(generation) => tx.settle(did, generation),
        Settle::PutOff {
            generation,
            not_before,
            failed,
        } => tx.put_off(did, generation, not_before, failed),
    }
}

/// Decides about one observation and writes the decision.
fn apply_one(
    tx: &Tx<'_>,
    seen: &Observation,
    known: &Known,
    touched: &mut Touched,
) -> Result<Outcome, StoreError> {
    let old = tx.entry(&seen.did)?;
    let old_peer = old.as_ref().and_then(|entry| entry.peer.clone());
    let decision = apply::decide(old, seen);
    if let Some(superseded) = &decision.supersedes {
        tx.keep_proof(superseded)?;
    }
    let mut positions = Vec::with_capacity(decision.changes.len());
    for change in &decision.changes {
        positions.push(tx.append_change(change)?);
        if change.kind == ChangeKind::Regressed {
            tracing::warn!("a PDS showed an older revision than one already proven");
        }
    }
    if let Some(shown) = &decision.evidence {
        let pds = seen.identity.as_ref().and_then(|facts| facts.pds.as_ref());
        tx.keep_evidence(
            &seen.did,
            shown.rev(),
            pds,
            shown.key(),
            shown.car(),
            seen.at,
        )?;
    }
    let mut peers = vec![old_peer.clone()];
    match decision.write {
        apply::Write::Nothing => return Ok(decision.outcome),
        apply::Write::Delete => {
            tx.delete_entry(&seen.did)?;
            known.remove(seen.did.as_str());
        }
        apply::Write::Put(mut entry) => {
            if let Some(seq) = decision.entry_change.and_then(|i| positions.get(i)) {
                entry.change_seq = *seq;
            }
            if let Some(handle) = &entry.handle {
                touched
                    .dids
                    .extend(tx.claim_handle(handle, &entry.did, seen.at)?);
            }
            peers.push(entry.peer.clone());
            tx.put_entry(&entry)?;
            // Mediators nobody looked up yet are due at once; the row is what is owed.
            for did in entry.mediators.iter().take(MAX_MEDIATORS) {
                if did.web().is_some() && tx.mediator(did)?.is_none() {
                    let document = MediatorDocument::unchecked(did.clone()).to_stored();
                    tx.put_mediator(&MediatorRow {
                        did: did.clone(),
                        document,
                        checked_at: seen.at,
                        next_check_at: seen.at,
                        failures: 0,
                    })?;
                }
            }
            known.insert(seen.did.as_str());
        }
    }
    touched.dids.push(seen.did.clone());
    // Whoever else claims the same did:peer is, or is no longer, ambiguous.
    if decision.outcome != Outcome::Proven {
        for peer in peers.iter().flatten() {
            touched.dids.extend(tx.claimants(peer, MAX_TOUCHED)?);
        }
    }
    touched.all |= touched.dids.len() > MAX_TOUCHED;
    Ok(decision.outcome)
}

/// Whether two documents of a mediator tell a sender the same, whenever they were read.
fn same_for_senders(a: &MediatorDocument, b: &MediatorDocument) -> bool {
    a.state == b.state && a.key_agreement == b.key_agreement && a.services == b.services
}

/// What a view shows besides the entry itself.
fn surroundings(q: &Queries<'_>, entry: &Entry) -> Result<view::Surroundings, StoreError> {
    let mut mediators = Vec::new();
    for (i, did) in entry.mediators.iter().enumerate() {
        let row = if i < MAX_MEDIATORS {
            q.mediator(did)?
        } else {
            None
        };
        let document = row.and_then(|row| MediatorDocument::from_stored(&row.document));
        mediators.push(document.unwrap_or_else(|| {
            let mut unknown = MediatorDocument::unchecked(did.clone());
            if did.web().is_none() {
                unknown.state = MediatorState::Unsupported;
            }
            unknown
        }));
    }
    let peer = entry.peer.as_deref().unwrap_or_default();
    Ok(view::Surroundings {
        mediators,
        ambiguous: q.claimants(peer, 2)?.len() > 1,
    })
}
