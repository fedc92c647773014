//! The directory: applies verified findings to the store and answers questions from it.
//!
//! [`Directory::apply`] takes an [`Observation`], whose proofs only the `proof` module can make;
//! entry, change log and the end of owed work go into one transaction, and rendered answers about
//! the account are forgotten when it has committed.

mod apply;
mod enrolled;
mod history;
mod observation;
mod view;
mod view_cache;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::store::directory::{Queries, Tx};
use crate::store::{
    BackfillRow, ChangeKind, DirectoryStore, Entry, MediatorRow, NewPending, PendingRefresh,
    SourceCursor, StoreError,
};
use atcomm_net::backoff::Spread;
use atcomm_net::identity::{MediatorDocument, MediatorState, PlcLog};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::{Actor, Did, MediatorDid};

pub use apply::{BACKOFF, DROP, REPROVE, STALE};
use enrolled::EnrolledSet;
pub use history::{LogFit, MAX_CHANGES, Page};
pub use observation::{Authority, Finding, IdentityFacts, Observation, Outcome};
use view::ViewOptions;
pub use view::{MAX_MEDIATORS, RecipientView};
use view_cache::ViewCache;

/// Mediator documents are looked up again this long after the last time.
pub const MEDIATOR_RECHECK: Duration = Duration::from_secs(3600);

/// Most other claimants of a did:peer whose answers are forgotten one by one; with more of them
/// all answers are forgotten.
const MAX_INVALIDATED: usize = 1000;

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

/// What the directory has of an account that is asked for.
#[derive(Debug, Clone)]
pub enum Lookup<T = Arc<RecipientView>> {
    /// What was asked for.
    Found(T),
    /// The account has an entry and no recipient view.
    Refused(Refusal),
    /// The account has no entry.
    Unknown,
}

impl<T> Lookup<T> {
    /// Returns what was found, or `None` for an account without an entry.
    pub fn found(self) -> Result<Option<T>, Refusal> {
        match self {
            Self::Found(found) => Ok(Some(found)),
            Self::Refused(refusal) => Err(refusal),
            Self::Unknown => Ok(None),
        }
    }
}

/// One event's worth of work, or several: all of it is written in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Findings with inline proofs, in the order of the stream.
    pub observations: Vec<Observation>,
    /// Accounts owed a look.
    pub pending: Vec<NewPending>,
    /// How far the source is processed once this is durable.
    pub cursor: Option<SourceCursor>,
    /// How far the source's enumeration has come.
    pub backfill: Option<BackfillRow>,
    /// Sources, by name, that have to be enumerated anew because events were missed.
    pub gaps: Vec<String>,
}

/// How an owed look ends.
#[derive(Debug, Clone, Copy)]
pub enum PendingUpdate {
    /// Nothing was owed.
    Unchanged,
    /// The look that was owed at this generation is done.
    Complete(i64),
    /// It stays owed until then; `failed` counts it as a look without success.
    RetryAt {
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
    view_cache: ViewCache,
    enrolled: Arc<EnrolledSet>,
    clock: Clock,
}

/// Accounts whose answers a transaction changes.
#[derive(Default)]
struct Invalidated {
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
        let enrolled = Arc::new(EnrolledSet::default());
        let filled = Arc::clone(&enrolled);
        store
            .query(move |q| q.each_did(|did| filled.insert(did)))
            .await?;
        let view_cache = ViewCache::new(cache_bytes);
        Ok(Self {
            store,
            view_cache,
            enrolled,
            clock,
        })
    }

    /// Whether an account has an entry; may rarely say so of one that has none.
    pub fn is_tracked(&self, did: &str) -> bool {
        self.enrolled.contains(did)
    }

    /// Accounts with an entry.
    pub fn len(&self) -> usize {
        self.enrolled.len()
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
    pub async fn apply(
        &self,
        seen: Observation,
        update: PendingUpdate,
    ) -> Result<Outcome, StoreError> {
        let enrolled = Arc::clone(&self.enrolled);
        let did = seen.did.clone();
        let result = self
            .store
            .transact(move |tx| {
                let mut invalidated = Invalidated::default();
                let outcome = apply_one(tx, &seen, &enrolled, &mut invalidated)?;
                // What was overtaken has seen neither the newest status nor the newest handle: it
                // is owed still. So is the look that proved nothing and left nothing behind.
                let unsettled = outcome == Outcome::Ignored
                    || (outcome == Outcome::Unverifiable && tx.entry(&seen.did)?.is_none());
                if !unsettled {
                    write_pending_update(tx, &seen.did, update)?;
                }
                Ok((outcome, invalidated))
            })
            .await;
        // What was noted as gone may not have been committed.
        let (outcome, invalidated) = result.inspect_err(|_| self.enrolled.insert(did.as_str()))?;
        self.forget(&invalidated);
        metrics::counter!("atcomm_directory_outcomes_total", "outcome" => outcome.code())
            .increment(1);
        Ok(outcome)
    }

    /// Applies a batch from a source: findings, owed looks and cursor, all or nothing
    /// (invariant 2). Safe to repeat.
    pub async fn apply_batch(&self, batch: Batch) -> Result<Vec<Outcome>, StoreError> {
        let now = self.clock.now();
        let enrolled = Arc::clone(&self.enrolled);
        let dids: Vec<Did> = batch
            .observations
            .iter()
            .map(|seen| seen.did.clone())
            .collect();
        let result = self
            .store
            .transact(move |tx| {
                let mut invalidated = Invalidated::default();
                let mut outcomes = Vec::with_capacity(batch.observations.len());
                for seen in &batch.observations {
                    outcomes.push(apply_one(tx, seen, &enrolled, &mut invalidated)?);
                }
                for pending in &batch.pending {
                    tx.enqueue_pending(pending, now)?;
                }
                if let Some(backfill) = &batch.backfill {
                    tx.advance_backfill(backfill)?;
                }
                for source in &batch.gaps {
                    tx.begin_backfill(source, now)?;
                }
                if let Some(cursor) = &batch.cursor {
                    tx.set_cursor(cursor, now)?;
                }
                Ok((outcomes, invalidated))
            })
            .await;
        let (outcomes, invalidated) = result.inspect_err(|_| {
            dids.iter()
                .for_each(|did| self.enrolled.insert(did.as_str()))
        })?;
        self.forget(&invalidated);
        for outcome in &outcomes {
            metrics::counter!("atcomm_directory_outcomes_total", "outcome" => outcome.code())
                .increment(1);
        }
        Ok(outcomes)
    }

    /// Settles an owed look that found nothing to apply.
    pub async fn update_pending(&self, did: &Did, update: PendingUpdate) -> Result<(), StoreError> {
        let did = did.clone();
        self.store
            .transact(move |tx| write_pending_update(tx, &did, update))
            .await
    }

    /// Looks that are due, and after them entries that are; at most `limit` of each.
    pub async fn due(&self, limit: usize) -> Result<(Vec<PendingRefresh>, Vec<Did>), StoreError> {
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
        let invalidated = self
            .store
            .transact(move |tx| {
                let before = tx.mediator(&did)?;
                let failures = match &before {
                    Some(row) if failed => row.failures.saturating_add(1),
                    _ => u32::from(failed),
                };
                let wait = if failed {
                    // Sooner than the hourly look: senders wait for it to come back.
                    BACKOFF.wait(failures, Spread::MIDDLE).min(MEDIATOR_RECHECK)
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
                let mut invalidated = Invalidated::default();
                if !same {
                    invalidated.dids = tx.accounts_of_mediator(&did, MAX_INVALIDATED + 1)?;
                    invalidated.all = invalidated.dids.len() > MAX_INVALIDATED;
                }
                Ok(invalidated)
            })
            .await?;
        self.forget(&invalidated);
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
                        .try_for_each(|did| tx.delete_mediator(did).map(drop))
                })
                .await?;
        }
        Ok(due)
    }

    /// Puts the next look at an entry off, where it could not be made now.
    pub async fn defer_check(&self, did: &Did, until: Timestamp) -> Result<(), StoreError> {
        let did = did.clone();
        self.store
            .transact(move |tx| tx.defer_check(&did, until))
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
    pub async fn defer_mediator_check(
        &self,
        did: &MediatorDid,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let did = did.clone();
        self.store
            .transact(move |tx| tx.defer_mediator_check(&did, until))
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
    pub fn ready(&self, actor: &str) -> Option<Arc<RecipientView>> {
        self.view_cache.ready(actor, self.clock.now())
    }

    /// Returns the recipient view of an account, and caches it.
    pub async fn recipient(&self, actor: &Actor) -> Result<Lookup, StoreError> {
        // What changes after this point makes the view below unfit for the cache.
        let epoch = self.view_cache.epoch();
        let found = self.render(actor.clone(), ViewOptions::Plain).await?;
        if let Lookup::Found(view) = &found {
            self.view_cache.keep(view, epoch);
        }
        Ok(found)
    }

    /// Returns the recipient view with the proof, and with the account's operation log where that
    /// leads to the key that the proof is signed with. Never cached.
    pub async fn recipient_with_proof(
        &self,
        did: &Did,
        log: Option<Arc<PlcLog>>,
    ) -> Result<Lookup, StoreError> {
        self.render(Actor::Did(did.clone()), ViewOptions::Proof(log))
            .await
    }

    async fn render(&self, actor: Actor, options: ViewOptions) -> Result<Lookup, StoreError> {
        let now = self.clock.now();
        let found = self.store.query(move |q| find(q, &actor)).await?;
        // The store's readers are few: they do not wait for this.
        let (entry, context) = match found {
            Lookup::Found(found) => found,
            Lookup::Refused(refusal) => return Ok(Lookup::Refused(refusal)),
            Lookup::Unknown => return Ok(Lookup::Unknown),
        };
        let view = view::render(&entry, &context, &options, now).ok_or_else(|| {
            StoreError::Corrupt(format!("the entry of {} is incomplete", entry.did))
        })?;
        Ok(Lookup::Found(Arc::new(view)))
    }

    /// Whether the store takes writes.
    pub fn is_healthy(&self) -> bool {
        self.store.is_healthy()
    }

    /// Writes what waits and closes the store.
    pub async fn shutdown(&self) {
        self.store.shutdown().await;
    }

    fn forget(&self, invalidated: &Invalidated) {
        if invalidated.all {
            self.view_cache.forget_all();
        } else {
            self.view_cache.forget(&invalidated.dids);
        }
    }
}

/// Writes how an owed look ended.
fn write_pending_update(tx: &Tx<'_>, did: &Did, update: PendingUpdate) -> Result<(), StoreError> {
    match update {
        PendingUpdate::Unchanged => Ok(()),
        PendingUpdate::Complete(generation) => tx.complete_pending(did, generation),
        PendingUpdate::RetryAt {
            generation,
            not_before,
            failed,
        } => tx.retry_pending(did, generation, not_before, failed),
    }
}

/// Decides about one observation and writes the decision.
fn apply_one(
    tx: &Tx<'_>,
    seen: &Observation,
    enrolled: &EnrolledSet,
    invalidated: &mut Invalidated,
) -> Result<Outcome, StoreError> {
    let old = tx.entry(&seen.did)?;
    let old_peer = old.as_ref().and_then(|entry| entry.peer.clone());
    let decision = apply::decide(old, seen);
    if let Some(superseded) = &decision.supersedes {
        tx.save_proof(superseded)?;
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
        tx.save_evidence(
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
            enrolled.remove(seen.did.as_str());
        }
        apply::Write::Put(mut entry) => {
            if let Some(seq) = decision.entry_change.and_then(|i| positions.get(i)) {
                entry.change_seq = *seq;
            }
            if let Some(handle) = &entry.handle {
                invalidated
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
            enrolled.insert(seen.did.as_str());
        }
    }
    invalidated.dids.push(seen.did.clone());
    // Whoever else claims the same did:peer is, or is no longer, ambiguous.
    if decision.outcome != Outcome::Proven {
        for peer in peers.iter().flatten() {
            invalidated
                .dids
                .extend(tx.claimants(peer, MAX_INVALIDATED)?);
        }
    }
    invalidated.all |= invalidated.dids.len() > MAX_INVALIDATED;
    Ok(decision.outcome)
}

/// Whether two documents of a mediator tell a sender the same, whenever they were read.
fn same_for_senders(a: &MediatorDocument, b: &MediatorDocument) -> bool {
    a.state == b.state && a.key_agreement == b.key_agreement && a.services == b.services
}

/// Reads what the view of an account is made of.
fn find(q: &Queries<'_>, actor: &Actor) -> Result<Lookup<(Entry, view::ViewContext)>, StoreError> {
    let did = match actor {
        Actor::Did(did) => Some(did.clone()),
        Actor::Handle(handle) => q.did_by_handle(handle)?,
    };
    let entry = match did {
        Some(did) => q.entry(&did)?,
        None => None,
    };
    let Some(entry) = entry else {
        return Ok(Lookup::Unknown);
    };
    if let Some(refusal) = view::refusal(&entry) {
        return Ok(Lookup::Refused(refusal));
    }
    let context = view_context(q, &entry)?;
    Ok(Lookup::Found((entry, context)))
}

/// What a view shows besides the entry itself.
fn view_context(q: &Queries<'_>, entry: &Entry) -> Result<view::ViewContext, StoreError> {
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
    Ok(view::ViewContext {
        mediators,
        ambiguous: q.claimants(peer, 2)?.len() > 1,
    })
}
