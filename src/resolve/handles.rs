//! Checks of the handles that accounts claim, beside the refreshes: no refresh waits for a name
//! server, and no check repeats a refresh.

mod schedule;

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Inner, NamedBy, Refresh, RefreshError, Resolver};
use crate::store::{DuePosition, StoreError};
use atcomm_net::identity::{HandleCheck, Identity};
use atcomm_net::net::Priority;
use atcomm_proto::syntax::Did;
use schedule::{Class, Schedule};

/// Longest time that the refresh of a client waits for a check. The answer is proven without it, and
/// the check is made again beside the refreshes.
const HANDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Time between two readings of what is due.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// Least time between two readings, however many checks become due.
const LEAST_READ_INTERVAL: Duration = Duration::from_millis(100);

/// Rows read at a time, and most rows of one reading. What is due beyond them is read the next time,
/// from there on.
const PAGE: usize = 512;
const MAX_READ: usize = 4 * PAGE;

/// Time until a reading after one that failed.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// The result of a check that ended.
struct Ended {
    did: Did,
    /// How long the handle's domain must not be asked.
    retry_after: Option<Duration>,
}

/// The reader of what is due.
#[derive(Default)]
struct Reader {
    /// Where the next reading of each class begins.
    positions: Option<[DuePosition; 2]>,
    /// Whether the last reading left something behind.
    has_more: bool,
}

impl Resolver {
    /// Checks the handles that are due, for ever.
    pub(super) async fn check_handles(&self) {
        let inner = &self.inner;
        let mut schedule = Schedule::default();
        let mut reader = Reader::default();
        let mut checks: JoinSet<Ended> = JoinSet::new();
        let mut last_read = Instant::now();
        let mut next_read = last_read;
        loop {
            if Instant::now() >= next_read {
                last_read = Instant::now();
                next_read = last_read + READ_INTERVAL;
                if let Err(error) = reader.read(inner, &mut schedule).await {
                    tracing::error!(%error, "cannot read which handles are due");
                    next_read = Instant::now() + STORE_RETRY;
                }
            }
            while let Some(did) = schedule.next(inner.clock.now()) {
                let resolver = self.clone();
                checks.spawn(async move { resolver.check_due_handle(did).await });
            }
            metrics::gauge!("atcomm_resolve_handles_under_way").set(schedule.len() as f64);
            let soon = last_read + LEAST_READ_INTERVAL;
            tokio::select! {
                Some(ended) = checks.join_next(), if !checks.is_empty() => {
                    match ended {
                        Ok(ended) => schedule.ended(&ended.did, ended.retry_after, inner.clock.now()),
                        Err(error) => {
                            tracing::error!(%error, "the check of a handle failed");
                            schedule.all_ended();
                        }
                    }
                    if reader.has_more && schedule.is_dry(inner.clock.now()) {
                        next_read = next_read.min(soon);
                    }
                }
                () = inner.wake_handles.notified() => next_read = next_read.min(soon),
                () = sleep_until(next_read) => {}
            }
        }
    }

    async fn check_due_handle(&self, did: Did) -> Ended {
        let identity = &self.inner.identity;
        let retry_after = match self.inner.check_handle(&did, identity).await {
            Ok(retry_after) => retry_after,
            Err(error) => {
                tracing::error!(%error, "cannot write the check of a handle");
                Some(STORE_RETRY)
            }
        };
        Ended { did, retry_after }
    }
}

impl Reader {
    /// Offers what is due to the schedule, from where the last reading ended.
    async fn read(&mut self, inner: &Inner, schedule: &mut Schedule) -> Result<(), StoreError> {
        let mut positions = self.positions.unwrap_or([DuePosition::START; 2]);
        self.has_more = false;
        for (class, position) in Class::ALL.into_iter().zip(&mut positions) {
            let mut read = 0;
            while read < MAX_READ {
                let is_news = class == Class::News;
                let rows = inner
                    .directory
                    .due_handles(is_news, *position, PAGE)
                    .await?;
                let now = inner.clock.now();
                for row in &rows {
                    self.has_more |= schedule.offer(class, row, now);
                }
                read += rows.len();
                *position = match rows.last() {
                    Some(last) if rows.len() == PAGE => last.position,
                    _ => DuePosition::START,
                };
                if *position == DuePosition::START {
                    break;
                }
            }
            self.has_more |= *position != DuePosition::START;
        }
        self.positions = Some(positions);
        Ok(())
    }
}

impl Inner {
    /// Checks the handle that an account claims, if the check is due. Returns the time to wait where
    /// a limit kept the handle from being looked up; it stays due then.
    async fn check_handle(
        &self,
        did: &Did,
        identity: &Identity,
    ) -> Result<Option<Duration>, StoreError> {
        let Some(claimed) = self.directory.due_handle(did).await? else {
            return Ok(None);
        };
        let checked = identity.check_handle(did, &claimed).await;
        let result = match (&checked.check, checked.retry_after) {
            (_, Some(_)) => "busy",
            (HandleCheck::Verified(_), None) => "verified",
            (HandleCheck::Invalid, None) => "invalid",
            (HandleCheck::Inconclusive, None) => "inconclusive",
        };
        metrics::counter!("atcomm_resolve_handles_total", "result" => result).increment(1);
        if checked.retry_after.is_none() {
            self.directory
                .apply_handle(did, &claimed, checked.check, checked.asked_at)
                .await?;
        }
        Ok(checked.retry_after)
    }

    /// Checks the account's handle for a client that waits for the refresh, for a limited time. A
    /// handle that the client has asked by is confirmed without another look-up.
    pub(super) async fn check_handle_briefly(
        &self,
        did: &Did,
        refresh: &Refresh,
    ) -> Result<(), RefreshError> {
        if let Some(named) = &refresh.named {
            // What else the account may claim is no answer to the client.
            self.confirm_handle(did, named).await?;
        } else if refresh.priority() == Priority::Interactive {
            let identity = self.identity.interactive();
            let check = self.check_handle(did, &identity);
            if let Ok(checked) = timeout(HANDLE_TIMEOUT, check).await {
                checked?;
            }
        }
        self.wake_handles.notify_one();
        Ok(())
    }

    /// Confirms the handle that led to an account, if the account claims it.
    pub(super) async fn confirm_handle(
        &self,
        did: &Did,
        named: &NamedBy,
    ) -> Result<(), StoreError> {
        let check = HandleCheck::Verified(named.handle.clone());
        self.directory
            .apply_handle(did, &named.handle, check, named.asked_at)
            .await
    }
}

#[cfg(test)]
mod tests;
