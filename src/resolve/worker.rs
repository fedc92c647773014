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

use super::{IdentityNeed, Refresh, RefreshError, RefreshOutcome, Resolver};
use crate::directory::{Outcome, PendingUpdate, backoff};
use crate::store::{PendingRefresh, StoreError};
use crate::syntax::{Did, MediatorDid, Origin};

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

/// Most that a look which was turned away waits beyond what it was told.
const MAX_BUSY_WAIT: Duration = Duration::from_secs(30);

/// The background worker.
pub struct Worker {
    resolver: Resolver,
}

/// A look that the worker has begun.
enum Task {
    /// Owed by an event or a walk.
    NewPending(PendingRefresh),
    /// Due by age.
    Due(Did),
}

impl Task {
    fn did(&self) -> &Did {
        match self {
            Self::NewPending(row) => &row.did,
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
            .map(Task::NewPending);
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

    /// Does one owed look, and writes how it ended.
    async fn work(&self, task: Task) -> Did {
        let (refresh, row) = match &task {
            Task::NewPending(row) => (refresh_of(row), Some(row)),
            Task::Due(_) => {
                let refresh = Refresh {
                    identity: IdentityNeed::RefreshOrCached,
                    ..Refresh::new("recheck")
                };
                (refresh, None)
            }
        };
        let did = task.did();
        let update = row.map_or(PendingUpdate::Unchanged, |row| {
            PendingUpdate::Complete(row.generation)
        });
        let result = self.refresh_and_update(did, refresh, update, None).await;
        let now = self.inner.clock.now();
        let put_off = |row: &PendingRefresh, wait: Duration, failed: bool| PendingUpdate::RetryAt {
            generation: row.generation,
            not_before: now.plus(wait),
            failed,
        };
        let (label, end) = match (&result, row) {
            (Ok(refreshed), Some(row)) => match self.left_over(refreshed, row) {
                Some(PendingVerdict::Overtaken) => {
                    ("again", Some(put_off(row, POLL_INTERVAL, false)))
                }
                Some(PendingVerdict::Unproven) => {
                    let wait = backoff(row.attempts + 1, spread(did));
                    ("unproven", Some(put_off(row, wait, true)))
                }
                Some(PendingVerdict::GivenUp) => {
                    ("given_up", Some(PendingUpdate::Complete(row.generation)))
                }
                None => ("done", None),
            },
            (Ok(_), None) => ("done", None),
            (Err(error), row) => {
                let busy = matches!(error, RefreshError::Busy { .. });
                let attempts = row.map_or(1, |row| row.attempts + 1);
                let wait = match error {
                    RefreshError::Busy { retry_after } => {
                        // The longer a look waits already, the less a moment more matters.
                        let age = row.map_or(Duration::ZERO, |row| now.since(row.since));
                        spread_out(*retry_after, did) + (age / 8).min(MAX_BUSY_WAIT)
                    }
                    RefreshError::Unreachable { retry_after, .. } => backoff(attempts, spread(did))
                        .max(
                            retry_after
                                .unwrap_or_default()
                                .min(Duration::from_secs(3600)),
                        ),
                    RefreshError::Store(_) => Duration::from_secs(5),
                };
                let end = row.map(|row| match attempts > MAX_ATTEMPTS {
                    true => PendingUpdate::Complete(row.generation),
                    false => put_off(row, wait, !busy),
                });
                (if busy { "busy" } else { "failed" }, end)
            }
        };
        metrics::counter!("atcomm_resolve_owed_total", "result" => label).increment(1);
        if let Some(end) = end {
            if let Err(error) = self.inner.directory.update_pending(did, end).await {
                tracing::error!(%error, "cannot put off an owed look");
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        } else if let Err(RefreshError::Busy { retry_after }) = &result {
            // A re-proof that was turned away makes room for those that were not.
            let until = self.inner.clock.now().plus(spread_out(*retry_after, did));
            if let Err(error) = self.inner.directory.defer_check(did, until).await {
                tracing::error!(%error, "cannot put off a re-proof");
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        } else if matches!(result, Err(RefreshError::Store(_))) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        did.clone()
    }
}

/// Why an owed look is not done though it ended without an error.
enum PendingVerdict {
    /// Something newer was applied meanwhile; status and handle were not looked at since.
    Overtaken,
    /// Nothing could be proven, and nothing in the directory will lead to another look.
    Unproven,
    /// As before, too often.
    GivenUp,
}

impl Resolver {
    fn left_over(
        &self,
        refreshed: &RefreshOutcome,
        row: &PendingRefresh,
    ) -> Option<PendingVerdict> {
        match refreshed.outcome {
            Outcome::Ignored => Some(PendingVerdict::Overtaken),
            Outcome::Unverifiable if !self.inner.directory.is_tracked(row.did.as_str()) => {
                Some(match row.attempts < MAX_UNPROVEN {
                    true => PendingVerdict::Unproven,
                    false => PendingVerdict::GivenUp,
                })
            }
            _ => None,
        }
    }
}

/// The wait of a look that was turned away, spread so that such looks do not come back together.
fn spread_out(retry_after: Duration, did: &Did) -> Duration {
    retry_after + Duration::from_millis(500 + u64::from(spread(did)) / 16)
}

fn spread(did: &Did) -> u16 {
    crate::directory::spread_of(did)
}

/// What an owed look is about.
fn refresh_of(row: &PendingRefresh) -> Refresh {
    // "<source> <event>", or "listing <PDS>"; words of another version are a plain look.
    let (source, event) = row.reason.split_once(' ').unwrap_or((&row.reason, ""));
    let source = match source {
        "pds" => "pds",
        "relay" => "relay",
        "jetstream" => "jetstream",
        "listing" => "listing",
        _ => "recheck",
    };
    let prefilter = if source == "listing" {
        Origin::parse(event).ok()
    } else {
        None
    };
    let identity = match event {
        "sync" | "identity" | "account" => IdentityNeed::Refresh,
        _ if source == "listing" => IdentityNeed::RefreshOrCached,
        _ => IdentityNeed::Cached,
    };
    Refresh {
        source,
        identity,
        announced: row.announced.clone(),
        prefilter,
    }
}
