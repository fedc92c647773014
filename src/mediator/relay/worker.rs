//! The task that empties the outbox.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::NextHop;
use super::attempt::Attempt;
use super::concurrency::{DestinationHealth, InFlight};
use super::outbox::POLL_INTERVAL;
use crate::mediator::{Core, Mediator};
use crate::store::{Outbound, Outcome};

/// Time between the end of a delivery and the next scan, so that deliveries that end together cause
/// one scan.
const COALESCE_DELAY: Duration = Duration::from_millis(5);

/// Time for in-flight deliveries when the service ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Reason of a refusal where the stored hop is damaged.
const UNREADABLE_ROUTE: &str = "its route cannot be read";

/// Delivers the messages in the outbox.
#[derive(Clone)]
pub struct Relay {
    pub(super) core: Arc<Core>,
}

impl Relay {
    /// Takes a handle of the mediator whose outbox is to be emptied.
    pub fn new(mediator: Mediator) -> Self {
        Self {
            core: mediator.core,
        }
    }

    /// Works until `stop`. Deliveries in flight at that time are finished, or tried again after the
    /// restart.
    pub async fn run(self, stop: CancellationToken) {
        let outbox = &self.core.outbox;
        match outbox.recover().await {
            Ok(0) => {}
            Ok(messages) => tracing::info!(messages, "the relay takes up what was under way"),
            // The messages are due when their leases have ended.
            Err(error) => tracing::error!(%error, "the outbox cannot be recovered"),
        }
        let concurrency = outbox.concurrency();
        let mut in_flight = InFlight::new(concurrency);
        let mut tasks: JoinSet<DestinationHealth> = JoinSet::new();
        let mut next_scan = Instant::now();
        loop {
            let has_room = tasks.len() < concurrency;
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next_with_id() => {
                    match ended {
                        Ok((id, health)) => in_flight.remove(id, health),
                        // The panic hook has logged the place of the panic.
                        Err(error) => in_flight.remove(error.id(), DestinationHealth::Failing),
                    }
                    // The next message may have waited for this slot.
                    next_scan = next_scan.min(Instant::now() + COALESCE_DELAY);
                    continue;
                }
                () = outbox.added(), if has_room => {}
                // Catches retries that became due and rows left by a crashed process.
                () = sleep_until(next_scan), if has_room => {}
            }
            next_scan = Instant::now() + POLL_INTERVAL;
            match outbox
                .take(concurrency - tasks.len(), in_flight.slots())
                .await
            {
                Ok(taken) => {
                    for row in taken {
                        let destination = row.destination.clone();
                        let relay = self.clone();
                        let task = tasks.spawn(async move { relay.deliver(row).await });
                        in_flight.insert(task.id(), destination);
                    }
                }
                Err(error) => tracing::error!(%error, "nothing can be taken from the outbox"),
            }
        }
        // Waits briefly for in-flight deliveries, so that they are recorded as delivered instead of
        // retried after the restart.
        let rest = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, rest).await;
    }

    /// Tries one message and records the result. Returns what the attempt says about the
    /// destination.
    async fn deliver(&self, row: Outbound) -> DestinationHealth {
        let outbox = &self.core.outbox;
        let (id, started) = (row.id, self.core.clock.now());
        let Ok(hop) = serde_json::from_str::<NextHop>(&row.route) else {
            tracing::error!("a route in the outbox cannot be read; its message is given up");
            outbox
                .finish(id, Outcome::Refused, Some(UNREADABLE_ROUTE), started)
                .await;
            return DestinationHealth::Unknown;
        };
        let attempt = if row.expires_at <= started {
            Attempt::Failed("its time has ended".to_owned(), None)
        } else {
            outbox.destinations().attempt(&hop, &row).await
        };
        let now = self.core.clock.now();
        let (reason, asked, health) = match attempt {
            Attempt::Delivered => {
                outbox.remember_delivered(row.hash);
                outbox.finish(id, Outcome::Delivered, None, now).await;
                return DestinationHealth::Healthy;
            }
            Attempt::Refused(reason) => {
                self.report_undeliverable(&row, &hop, &reason).await;
                outbox
                    .finish(id, Outcome::Refused, Some(&reason), now)
                    .await;
                return DestinationHealth::Healthy;
            }
            Attempt::HostBusy(wait) if now.plus(wait) < row.expires_at => {
                outbox.defer(id, now.plus(wait.max(POLL_INTERVAL))).await;
                return DestinationHealth::Unknown;
            }
            Attempt::HostBusy(_) => {
                let reason = "there was no time to try".to_owned();
                (reason, None, DestinationHealth::Unknown)
            }
            Attempt::Deferred(reason, asked) => (reason, asked, DestinationHealth::Unknown),
            Attempt::Failed(reason, asked) => (reason, asked, DestinationHealth::Failing),
        };
        match outbox.next_attempt(&row, asked, now) {
            Some(next_at) => outbox.retry(id, next_at, reason, now).await,
            None => {
                self.report_undeliverable(&row, &hop, &reason).await;
                outbox
                    .finish(id, Outcome::GivenUp, Some(&reason), now)
                    .await;
            }
        }
        health
    }
}
