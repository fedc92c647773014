//! The background worker: refreshes for events, listings and age, and beside them the checks of
//! mediators and handles.
//!
//! Pending refreshes are in the store. The worker takes those that are due, a bounded number at a
//! time, and defers those that fail. A host that hangs or is over its limits holds up only its own
//! accounts.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::pending::{PendingVerdict, spread_out};
use super::{Refresh, RefreshError, Resolver};
use crate::directory::PendingUpdate;
use crate::store::{PendingRefresh, StoreError, Trigger};
use atcomm_proto::syntax::{Did, MediatorDid};

/// Longest time between two queries for what is due; a notification shortens it.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Mediators looked up at the same time.
const MEDIATORS_AT_ONCE: usize = 16;

/// The background worker.
pub struct Worker {
    resolver: Resolver,
}

/// A refresh that the worker makes.
enum Task {
    /// Triggered by an event or a listing.
    Pending(PendingRefresh),
    /// A recheck by age.
    Due(Did),
}

impl Task {
    fn did(&self) -> &Did {
        match self {
            Self::Pending(row) => &row.did,
            Self::Due(did) => did,
        }
    }
}

impl Worker {
    /// Returns a worker for the directory of `resolver`.
    pub fn new(resolver: Resolver) -> Self {
        Self { resolver }
    }

    /// Runs until `stop`. Running refreshes are then abandoned, because they are still pending.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            ((), (), (), ()) = async {
                tokio::join!(
                    self.accounts(),
                    self.mediators(),
                    self.resolver.check_handles(),
                    self.resolver.follow_documents(),
                )
            } => {}
        }
    }

    async fn accounts(&self) {
        let inner = &self.resolver.inner;
        let slots = inner.settings.maintenance.max(1);
        let mut busy: HashSet<Did> = HashSet::new();
        let mut refreshes: JoinSet<Did> = JoinSet::new();
        loop {
            while let Some(done) = refreshes.try_join_next() {
                release(&mut busy, done);
            }
            let mut started = false;
            if busy.len() < slots {
                match self.next(&busy, slots).await {
                    Ok(tasks) => {
                        for task in tasks {
                            if busy.len() == slots || !busy.insert(task.did().clone()) {
                                continue;
                            }
                            let resolver = self.resolver.clone();
                            refreshes.spawn(async move { resolver.work(task).await });
                            started = true;
                        }
                    }
                    Err(error) => tracing::error!(%error, "cannot read the pending refreshes"),
                }
            }
            metrics::gauge!("atcomm_resolve_looks_under_way").set(busy.len() as f64);
            if started {
                continue;
            }
            tokio::select! {
                Some(done) = refreshes.join_next(), if !refreshes.is_empty() => release(&mut busy, done),
                () = inner.wake.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// Returns what is due and not running: pending refreshes first, then rechecks.
    async fn next(&self, busy: &HashSet<Did>, slots: usize) -> Result<Vec<Task>, StoreError> {
        let (pending, due) = self
            .resolver
            .inner
            .directory
            .due(slots + busy.len())
            .await?;
        let free = |did: &Did| !busy.contains(did);
        let pending = pending
            .into_iter()
            .filter(|row| free(&row.did))
            .map(Task::Pending);
        let due = due.into_iter().filter(free).map(Task::Due);
        Ok(pending.chain(due).collect())
    }

    async fn mediators(&self) {
        let mut busy: HashSet<MediatorDid> = HashSet::new();
        let mut checks: JoinSet<MediatorDid> = JoinSet::new();
        loop {
            while let Some(done) = checks.try_join_next() {
                release(&mut busy, done);
            }
            let mut started = false;
            if busy.len() < MEDIATORS_AT_ONCE {
                // A mediator that hangs takes one slot, and holds up no other.
                let limit = MEDIATORS_AT_ONCE + busy.len();
                match self.resolver.inner.directory.due_mediators(limit).await {
                    Ok(due) => {
                        for did in due {
                            if busy.len() == MEDIATORS_AT_ONCE || !busy.insert(did.clone()) {
                                continue;
                            }
                            let resolver = self.resolver.clone();
                            checks.spawn(async move { resolver.check(did).await });
                            started = true;
                        }
                    }
                    Err(error) => tracing::error!(%error, "cannot read which mediators are due"),
                }
            }
            if started {
                continue;
            }
            tokio::select! {
                Some(done) = checks.join_next(), if !checks.is_empty() => release(&mut busy, done),
                () = self.resolver.inner.wake_mediators.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }
}

fn release<T: Eq + Hash>(busy: &mut HashSet<T>, done: Result<T, tokio::task::JoinError>) {
    match done {
        Ok(one) => {
            busy.remove(&one);
        }
        // The failed one is unknown, and none may stay busy for ever.
        Err(error) => {
            tracing::error!(%error, "a refresh failed");
            busy.clear();
        }
    }
}

impl Resolver {
    /// Looks one mediator up.
    async fn check(&self, did: MediatorDid) -> MediatorDid {
        if let Err(error) = self.inner.check_mediator(&did).await {
            tracing::error!(%error, "cannot write a mediator's document");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        did
    }

    /// Makes one refresh, and writes how it ended.
    async fn work(&self, task: Task) -> Did {
        match task {
            Task::Pending(row) => {
                self.refresh_pending(&row).await;
                row.did
            }
            Task::Due(did) => {
                self.recheck(&did).await;
                did
            }
        }
    }

    async fn refresh_pending(&self, row: &PendingRefresh) {
        let refresh = Refresh {
            announced: row.announced.clone(),
            ..Refresh::new(row.trigger.clone())
        };
        let done = PendingUpdate::Complete(row.generation);
        let result = self.refresh_and_update(&row.did, refresh, done, None).await;
        let is_tracked = self.inner.directory.is_tracked(row.did.as_str());
        let verdict = PendingVerdict::of(row, &result, is_tracked);
        count(verdict.code());
        let Some(update) = verdict.update(row, &result, self.inner.clock.now()) else {
            return;
        };
        if let Err(error) = self.inner.directory.update_pending(&row.did, update).await {
            tracing::error!(%error, "cannot defer a pending refresh");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn recheck(&self, did: &Did) {
        let refresh = Refresh::new(Trigger::Recheck);
        let unchanged = PendingUpdate::Unchanged;
        let result = self.refresh_and_update(did, refresh, unchanged, None).await;
        match result {
            Ok(_) => count("done"),
            Err(RefreshError::Busy { retry_after }) => {
                count("busy");
                // A recheck that was turned away makes room for those that were not.
                let until = self.inner.clock.now().plus(spread_out(retry_after, did));
                if let Err(error) = self.inner.directory.defer_check(did, until).await {
                    tracing::error!(%error, "cannot defer a recheck");
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            }
            Err(RefreshError::Unreachable { .. }) => count("failed"),
            Err(RefreshError::Store(_)) => {
                count("failed");
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }
}

fn count(result: &'static str) {
    metrics::counter!("atcomm_resolve_owed_total", "result" => result).increment(1);
}
