//! The directory: applies verified findings to the store and answers questions from it.
//!
//! [`Directory::apply`] takes an [`Observation`], whose proofs only the `proof` module can make.
//! The entry, the change log and the end of the pending refresh are written in one transaction, and
//! the cached views of the account are invalidated after its commit.

mod apply;
mod batch;
mod chain;
mod channel;
mod claimants;
mod daily;
mod doubt;
mod enrolled;
mod explain;
mod handles;
mod history;
mod housekeeping;
mod lists;
mod lookup;
mod observation;
mod quota;
mod stats;
mod updates;
mod view;
mod view_cache;

#[cfg(test)]
pub(crate) use daily::simulation::simulated_year;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::store::{
    AnnouncedChange, Damage, DirectoryStore, MediatorRow, NewPending, PendingRefresh, StoreError,
    Trigger,
};
use atcomm_net::backoff::Spread;
use atcomm_net::identity::{MediatorDocument, MediatorState, PlcLog};
use atcomm_net::ttl_cache::TtlCache;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::{Actor, Did, MediatorDid, RemoteText};

pub use apply::{BACKOFF, DROP, REPROVE, STALE};
pub use batch::{Batch, PendingUpdate};
use batch::{Invalidated, MAX_INVALIDATED};
pub use chain::{ChainCommit, ChainEvent};
pub use channel::{ChannelEvent, ChannelPage, Consumer};
pub use claimants::{Claimants, MAX_CLAIMANTS};
use daily::SourceStates;
pub use daily::{Interval, MAX_BUCKETS, Timeline};
use enrolled::EnrolledSet;
pub use explain::{ExplainedState, Explanation, Known, LastError, Reason, explain};
pub use history::{History, LogFit, MAX_CHANGES, Page};
pub use housekeeping::Housekeeping;
pub use lists::NamedMediator;
pub use lookup::{Lookup, Refused};
pub use observation::{Authority, Begun, Finding, IdentityFacts, Observation, Outcome};
use quota::Quota;
pub use quota::{Full, Limits};
use stats::LastStatistics;
pub(crate) use stats::{Grouping, Happenings, StatsView};
pub use stats::{MAX_GROUPS, Statistics};
pub use updates::{CursorRefusal, PackageRef, Update, UpdatePage};
use view::ViewOptions;
pub use view::{MAX_MEDIATORS, RecipientView, Refusal};
use view_cache::ViewCache;

/// Age of a mediator's document at which it is looked up again.
pub const MEDIATOR_RECHECK: Duration = Duration::from_secs(3600);

/// Most bytes that are kept of a mediator's document: several times those of one with the most keys
/// and services. An account names several mediators, and no more of them than of its proof.
const MAX_STORED_MEDIATOR: usize = 8 * 1024;

/// Most accounts that are remembered as refused at a limit, and how long.
const MAX_REFUSED: usize = 10_000;
const REFUSED_TTL: Duration = Duration::from_secs(24 * 3600);

/// The directory.
pub struct Directory {
    store: DirectoryStore,
    view_cache: ViewCache,
    enrolled: Arc<EnrolledSet>,
    quota: Arc<Quota>,
    statistics: LastStatistics,
    /// Accounts that were refused at a limit.
    refused: TtlCache<Did, (Full, Timestamp)>,
    source_states: SourceStates,
    clock: Clock,
}

impl Directory {
    /// Opens the directory over a store, brings its time series to the present day, and reads which
    /// accounts have an entry.
    pub async fn bind(
        store: DirectoryStore,
        clock: Clock,
        cache_bytes: u64,
    ) -> Result<Self, StoreError> {
        let enrolled = Arc::new(EnrolledSet::default());
        let filled = Arc::clone(&enrolled);
        store
            .query(move |q| filled.fill(|insert| q.each_did(insert)))
            .await?;
        let now = clock.now();
        store.transact(move |tx| tx.reach_day(now)).await?;
        let view_cache = ViewCache::new(cache_bytes, clock.clone());
        Ok(Self {
            store,
            view_cache,
            enrolled,
            quota: Arc::default(),
            statistics: LastStatistics::default(),
            refused: TtlCache::with_entries(MAX_REFUSED, clock.clone()),
            source_states: SourceStates::default(),
            clock,
        })
    }

    /// Sets what may be added to the file, in place of the defaults.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self {
            quota: Arc::new(Quota::new(limits)),
            ..self
        }
    }

    /// Returns whether an account has an entry. May rarely return `true` for an account without
    /// one.
    pub fn is_tracked(&self, did: &str) -> bool {
        self.enrolled.contains(did)
    }

    /// Returns the number of accounts with an entry.
    pub fn len(&self) -> usize {
        self.enrolled.len()
    }

    /// Returns whether no account has an entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the store, for questions that need no rendering.
    pub fn store(&self) -> &DirectoryStore {
        &self.store
    }

    /// Returns the state of an account's entry, to be read before a refresh asks anybody.
    pub async fn begin(&self, did: &Did) -> Result<Begun, StoreError> {
        let did = did.clone();
        let state = self.store.query(move |q| q.entry_state(&did)).await?;
        Ok(
            state.map_or_else(Begun::default, |(proofs, doubt_since, status)| Begun {
                proofs,
                doubt_since,
                hidden: !status.is_active(),
            }),
        )
    }

    /// Applies one finding, and writes the end of the pending refresh that led to it. Durable when
    /// this returns. Idempotent: the same proof again changes nothing but its time.
    pub async fn apply(
        &self,
        seen: Observation,
        update: PendingUpdate,
    ) -> Result<Outcome, StoreError> {
        let (enrolled, quota) = (Arc::clone(&self.enrolled), Arc::clone(&self.quota));
        let (did, at) = (seen.did.clone(), seen.at);
        let result = self
            .store
            .transact(move |tx| {
                let mut invalidated = Invalidated::default();
                let outcome = batch::apply_one(tx, &seen, &quota, &enrolled, &mut invalidated)?;
                // A refresh that was overtaken has read neither the newest status nor the newest
                // handle, so it stays pending. So does a refresh that proved nothing of an account
                // without an entry.
                let stays_pending = outcome == Outcome::Ignored
                    || (outcome == Outcome::Unverifiable && tx.entry(&seen.did)?.is_none());
                if !stays_pending {
                    batch::write_pending_update(tx, &seen.did, update)?;
                }
                Ok((outcome, invalidated))
            })
            .await;
        // An account may have been removed from the set by a transaction that did not commit.
        let (outcome, invalidated) = result.inspect_err(|_| self.enrolled.insert(did.as_str()))?;
        self.invalidate(&invalidated);
        count(outcome);
        if let Outcome::Full(full) = outcome {
            self.refused.insert(did, (full, at), REFUSED_TTL);
        }
        Ok(outcome)
    }

    /// Applies a batch of a source: findings, pending refreshes and cursor, all or nothing
    /// (invariant 2). Idempotent.
    pub async fn apply_batch(&self, batch: Batch) -> Result<Vec<Outcome>, StoreError> {
        let now = self.clock.now();
        let (enrolled, quota) = (Arc::clone(&self.enrolled), Arc::clone(&self.quota));
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
                    let outcome = batch::apply_one(tx, seen, &quota, &enrolled, &mut invalidated)?;
                    outcomes.push(outcome);
                }
                for takedown in &batch.takedowns {
                    batch::take_down(tx, takedown, now, &mut invalidated)?;
                }
                for pending in &batch.pending {
                    tx.enqueue_pending(pending, now)?;
                    tx.brought_by_source(&pending.did)?;
                }
                let broken = chain::apply(tx, &batch.chain, now)?;
                if let Some(backfill) = &batch.backfill {
                    tx.advance_backfill(backfill)?;
                }
                for source in &batch.gaps {
                    tx.request_backfill(source, now)?;
                }
                if let Some(cursor) = &batch.cursor {
                    tx.set_cursor(cursor, now)?;
                }
                if let Some(coverage) = &batch.coverage {
                    tx.set_coverage(coverage)?;
                }
                if let Some(gap) = &batch.gap {
                    tx.open_gap_row(gap, now)?;
                    invalidated.all = true;
                }
                Ok((outcomes, invalidated, broken))
            })
            .await;
        let (outcomes, invalidated, broken) = result.inspect_err(|_| {
            dids.iter()
                .for_each(|did| self.enrolled.insert(did.as_str()))
        })?;
        self.invalidate(&invalidated);
        metrics::counter!("atcomm_directory_broken_chains_total").increment(broken);
        for outcome in &outcomes {
            count(*outcome);
        }
        Ok(outcomes)
    }

    /// Forgets what relays said of the status of accounts, but for these sources, and makes refreshes
    /// of the accounts pending.
    pub async fn keep_takedowns_of(&self, sources: Vec<String>) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.store
            .transact(move |tx| {
                for did in tx.keep_takedowns_of(&sources)? {
                    let pending = NewPending {
                        did,
                        trigger: Trigger::Recheck,
                        announced: AnnouncedChange::Keep,
                        not_before: now,
                    };
                    tx.enqueue_pending(&pending, now)?;
                }
                Ok(())
            })
            .await
    }

    /// Writes the end of a pending refresh that found nothing to apply.
    pub async fn update_pending(&self, did: &Did, update: PendingUpdate) -> Result<(), StoreError> {
        let did = did.clone();
        self.store
            .transact(move |tx| batch::write_pending_update(tx, &did, update))
            .await
    }

    /// Returns the pending refreshes that are due, and the entries that are due; at most `limit` of
    /// each.
    pub async fn due(&self, limit: usize) -> Result<(Vec<PendingRefresh>, Vec<Did>), StoreError> {
        let now = self.clock.now();
        self.store
            .query(move |q| Ok((q.due_pending(now, limit)?, q.due_entries(now, limit)?)))
            .await
    }

    /// Writes a mediator's document, and invalidates the cached views with that document if it
    /// changed.
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
        let mut json = document.to_stored();
        let (did, mut document) = (did.clone(), document.clone());
        if json.len() > MAX_STORED_MEDIATOR {
            let checked_at = document.checked_at;
            document = MediatorDocument::unchecked(did.clone());
            document.state = MediatorState::Unresolved;
            document.checked_at = checked_at;
            document.reason = Some(RemoteText::new(
                "its document is larger than is kept of one",
            ));
            json = document.to_stored();
        }
        let invalidated = self
            .store
            .transact(move |tx| {
                let before = tx.mediator(&did)?;
                let failures = match &before {
                    Some(row) if failed => row.failures.saturating_add(1),
                    _ => u32::from(failed),
                };
                let wait = if failed {
                    // Sooner than after an hour: senders wait for the mediator to come back.
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
        self.invalidate(&invalidated);
        Ok(())
    }

    /// Returns the mediators whose documents are due. Deletes those that no package names any more.
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

    /// Defers the next check of an entry that could not be made now.
    pub async fn defer_check(&self, did: &Did, until: Timestamp) -> Result<(), StoreError> {
        let did = did.clone();
        self.store
            .transact(move |tx| tx.defer_check(&did, until))
            .await
    }

    /// Returns the stored document of a mediator.
    pub async fn mediator(
        &self,
        did: &MediatorDid,
    ) -> Result<Option<MediatorDocument>, StoreError> {
        let did = did.clone();
        let row = self.store.query(move |q| q.mediator(&did)).await?;
        Ok(row.and_then(|row| MediatorDocument::from_stored(&row.document)))
    }

    /// Defers the next look-up of a mediator that could not be made now.
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

    /// Returns the mediators of an account whose look-up is due.
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

    /// Returns the cached view under this text, a DID or a handle in lower case.
    pub fn cached_view(&self, actor: &str) -> Option<Arc<RecipientView>> {
        self.view_cache.view(actor)
    }

    /// Returns the recipient view of an account, and caches it.
    pub async fn recipient(&self, actor: &Actor) -> Result<Lookup, StoreError> {
        // A change after this point makes the view below unfit for the cache.
        let epoch = self.view_cache.epoch();
        let found = self.render(actor.clone(), ViewOptions::Plain).await?;
        // What is in doubt is looked at before it is served, so it is not served from the cache.
        if let Lookup::Found(view) = &found
            && !view.in_doubt
        {
            self.view_cache.insert(view, epoch);
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
        let found = self
            .store
            .query(move |q| lookup::find(q, &actor, now))
            .await?;
        // The store has few readers: rendering does not keep one of them.
        let (entry, context) = match found {
            Lookup::Found(found) => found,
            Lookup::Refused(refused) => return Ok(Lookup::Refused(refused)),
            Lookup::Unknown => return Ok(Lookup::Unknown),
        };
        let view = view::render(&entry, &context, &options, now)
            .ok_or_else(|| StoreError::Corrupt(Damage::Incomplete(entry.did.clone())))?;
        Ok(Lookup::Found(Arc::new(view)))
    }

    /// Returns whether the store takes writes.
    pub fn is_healthy(&self) -> bool {
        self.store.is_healthy()
    }

    /// Commits all waiting writes and closes the store.
    pub async fn shutdown(&self) {
        self.store.shutdown().await;
    }

    fn invalidate(&self, invalidated: &Invalidated) {
        if invalidated.all {
            self.view_cache.invalidate_all();
        } else {
            self.view_cache.invalidate(&invalidated.dids);
        }
    }
}

fn count(outcome: Outcome) {
    metrics::counter!("atcomm_directory_outcomes_total", "outcome" => outcome.code()).increment(1);
    if let Outcome::Full(full) = outcome {
        metrics::counter!("atcomm_directory_refused_total", "limit" => full.code()).increment(1);
    }
}

/// Returns whether two documents of a mediator, read at any time, tell a sender the same.
fn same_for_senders(a: &MediatorDocument, b: &MediatorDocument) -> bool {
    a.state == b.state && a.key_agreement == b.key_agreement && a.services == b.services
}
