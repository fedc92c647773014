//! Owed looks: what events, walks and age ask for, done in the background.
//!
//! What is owed stands in the store; the worker only takes what is due, a bounded number at a
//! time, and puts off what did not work. A host that hangs or is over its limits holds up its own
//! accounts and nobody else's.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Refresh, RefreshError, RefreshOutcome, Resolver};
use crate::directory::{BACKOFF, Outcome, PendingUpdate};
use crate::store::{PendingRefresh, StoreError, Trigger};
use atcomm_net::backoff::Spread;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, MediatorDid};

/// How often the worker asks the store for what is due when nobody wakes it.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Mediators looked up at the same time.
const MEDIATORS_AT_ONCE: usize = 16;

/// An owed look is given up after this many tries without success, about ten days; an account in
/// the directory is looked at again by age all the same.
const MAX_ATTEMPTS: u32 = 250;

/// An account that is not in the directory and shows nothing that can be proven is tried this
/// often, over about four hours.
const MAX_UNPROVEN: u32 = 8;

/// Least and most time added to the wait of every refresh that was turned away.
const BUSY_SPREAD: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(4595));

/// Most that a look which was turned away waits beyond what it was told.
const MAX_BUSY_WAIT: Duration = Duration::from_secs(30);

/// Longest wait that a server can ask for.
const MAX_TOLD_WAIT: Duration = Duration::from_secs(3600);

/// Wait before a refresh that the store could not write is made again.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// The background worker.
pub struct Worker {
    resolver: Resolver,
}

/// A look that the worker has begun.
enum Task {
    /// Owed by an event or a walk.
    Pending(PendingRefresh),
    /// Due by age.
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
    /// A worker for what `resolver`'s directory owes.
    pub fn new(resolver: Resolver) -> Self {
        Self { resolver }
    }

    /// Works until `stop`; looks under way are then left, since they are owed still.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            ((), ()) = async { tokio::join!(self.accounts(), self.mediators()) } => {}
        }
    }

    async fn accounts(&self) {
        let inner = &self.resolver.inner;
        let places = inner.settings.maintenance.max(1);
        let mut busy: HashSet<Did> = HashSet::new();
        let mut looks: JoinSet<Did> = JoinSet::new();
        loop {
            while let Some(done) = looks.try_join_next() {
                forget(&mut busy, done);
            }
            let mut started = false;
            if busy.len() < places {
                match self.next(&busy, places).await {
                    Ok(tasks) => {
                        for task in tasks {
                            if busy.len() == places || !busy.insert(task.did().clone()) {
                                continue;
                            }
                            let resolver = self.resolver.clone();
                            looks.spawn(async move { resolver.work(task).await });
                            started = true;
                        }
                    }
                    Err(error) => tracing::error!(%error, "cannot read what is owed"),
                }
            }
            metrics::gauge!("atcomm_resolve_looks_under_way").set(busy.len() as f64);
            if started {
                continue;
            }
            tokio::select! {
                Some(done) = looks.join_next(), if !looks.is_empty() => forget(&mut busy, done),
                () = inner.wake.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }

    /// What is due and not under way: owed looks first, then re-proofs.
    async fn next(&self, busy: &HashSet<Did>, places: usize) -> Result<Vec<Task>, StoreError> {
        let (owed, due) = self
            .resolver
            .inner
            .directory
            .due(places + busy.len())
            .await?;
        let free = |did: &Did| !busy.contains(did);
        let owed = owed
            .into_iter()
            .filter(|row| free(&row.did))
            .map(Task::Pending);
        let due = due.into_iter().filter(free).map(Task::Due);
        Ok(owed.chain(due).collect())
    }

    async fn mediators(&self) {
        let mut busy: HashSet<MediatorDid> = HashSet::new();
        let mut checks: JoinSet<MediatorDid> = JoinSet::new();
        loop {
            while let Some(done) = checks.try_join_next() {
                forget(&mut busy, done);
            }
            let mut started = false;
            if busy.len() < MEDIATORS_AT_ONCE {
                // One that hangs holds up a place, and nobody else.
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
                Some(done) = checks.join_next(), if !checks.is_empty() => forget(&mut busy, done),
                () = self.resolver.inner.wake_mediators.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }
}

fn forget<T: Eq + Hash>(busy: &mut HashSet<T>, done: Result<T, tokio::task::JoinError>) {
    match done {
        Ok(one) => {
            busy.remove(&one);
        }
        // Which one it was is not known any more; none may stay busy for ever.
        Err(error) => {
            tracing::error!(%error, "a look failed");
            busy.clear();
        }
    }
}

impl Resolver {
    /// Looks one mediator up.
    async fn check(&self, did: MediatorDid) -> MediatorDid {
        if let Err(error) = self.inner.check_mediator(&did).await {
            tracing::error!(%error, "cannot keep what a mediator says");
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

/// How a pending refresh ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PendingVerdict {
    /// It is complete, and no longer pending.
    Done,
    /// Something newer was applied meanwhile, without regard to status and handle.
    Overtaken,
    /// Nothing could be proven, and the account has no entry that leads to another refresh.
    Unproven,
    /// Nothing could be proven, too often.
    GivenUp,
    /// A limit was reached.
    Busy,
    /// It failed.
    Failed,
}

impl PendingVerdict {
    fn of(
        row: &PendingRefresh,
        result: &Result<RefreshOutcome, RefreshError>,
        is_tracked: bool,
    ) -> Self {
        match result {
            Ok(refreshed) => match refreshed.outcome {
                Outcome::Ignored => Self::Overtaken,
                Outcome::Unverifiable if is_tracked => Self::Done,
                Outcome::Unverifiable if row.attempts < MAX_UNPROVEN => Self::Unproven,
                Outcome::Unverifiable => Self::GivenUp,
                _ => Self::Done,
            },
            Err(RefreshError::Busy { .. }) => Self::Busy,
            Err(RefreshError::Unreachable { .. } | RefreshError::Store(_)) => Self::Failed,
        }
    }

    /// Returns the code in metrics.
    fn code(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Overtaken => "again",
            Self::Unproven => "unproven",
            Self::GivenUp => "given_up",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }

    /// Returns what is to be written of the pending refresh, if the refresh itself has not.
    fn update(
        self,
        row: &PendingRefresh,
        result: &Result<RefreshOutcome, RefreshError>,
        now: Timestamp,
    ) -> Option<PendingUpdate> {
        let attempts = row.attempts + 1;
        let wait = match result {
            Ok(_) if self == Self::Overtaken => POLL_INTERVAL,
            Ok(_) => BACKOFF.wait(attempts, Spread::of(row.did.as_str())),
            Err(error) => wait_after(error, row, now),
        };
        match self {
            Self::Done => None,
            Self::GivenUp => Some(PendingUpdate::Complete(row.generation)),
            Self::Busy | Self::Failed if attempts > MAX_ATTEMPTS => {
                Some(PendingUpdate::Complete(row.generation))
            }
            Self::Overtaken | Self::Unproven | Self::Busy | Self::Failed => {
                Some(PendingUpdate::RetryAt {
                    generation: row.generation,
                    not_before: now.plus(wait),
                    failed: matches!(self, Self::Unproven | Self::Failed),
                })
            }
        }
    }
}

/// Returns the wait before a refresh that failed is made again.
fn wait_after(error: &RefreshError, row: &PendingRefresh, now: Timestamp) -> Duration {
    match error {
        RefreshError::Busy { retry_after } => {
            // The longer a refresh waits already, the less a moment more matters.
            let age = now.since(row.since);
            spread_out(*retry_after, &row.did) + (age / 8).min(MAX_BUSY_WAIT)
        }
        RefreshError::Unreachable { retry_after, .. } => {
            let told = retry_after.unwrap_or_default().min(MAX_TOLD_WAIT);
            BACKOFF
                .wait(row.attempts + 1, Spread::of(row.did.as_str()))
                .max(told)
        }
        RefreshError::Store(_) => STORE_RETRY,
    }
}

/// The wait of a look that was turned away, spread so that such looks do not come back together.
fn spread_out(retry_after: Duration, did: &Did) -> Duration {
    let (least, most) = BUSY_SPREAD;
    retry_after + least + Spread::of(did.as_str()).part(most - least)
}
