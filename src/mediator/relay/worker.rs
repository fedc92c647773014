//! The task that empties the outbox.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, Slot};
use super::{NextHop, POLL_INTERVAL};
use crate::mediator::{Core, Mediator};
use crate::store::{Outbound, Outcome};
use atcomm_proto::syntax::RemoteText;

/// Time between the end of a delivery and the next scan, so that deliveries that end together cause
/// one scan.
const COALESCE_DELAY: Duration = Duration::from_millis(5);

/// Time for in-flight deliveries when the service ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two scans for destinations that had no room in memory.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);

/// Reason of giving up where no attempt was made.
const TIME_ENDED: &str = "its time has ended";

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
        tokio::join!(self.deliver_all(&stop), self.end_expired(&stop));
    }

    /// Delivers what is due until `stop`.
    async fn deliver_all(&self, stop: &CancellationToken) {
        let outbox = &self.core.outbox;
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut next_scan = Instant::now();
        let mut next_take = next_scan;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = tasks.join_next() => {
                    // The next message may have waited for this slot.
                    next_take = next_take.min(Instant::now() + COALESCE_DELAY);
                    continue;
                }
                () = outbox.added(), if outbox.has_free_slot() => {}
                // Catches retries that became due.
                () = sleep_until(next_take), if outbox.has_free_slot() => {}
            }
            next_take = Instant::now() + POLL_INTERVAL;
            if next_scan <= Instant::now() {
                match outbox.scan().await {
                    // The first scans follow on each other, with deliveries in between.
                    Ok(false) => next_take = Instant::now(),
                    Ok(true) => next_scan = Instant::now() + SCAN_INTERVAL,
                    Err(error) => {
                        tracing::error!(%error, "the outbox cannot be read");
                        next_scan = next_take;
                    }
                }
            }
            while self.take_into(&mut tasks).await {}
        }
        // Waits briefly for in-flight deliveries, so that they are recorded as delivered instead of
        // retried after the restart.
        let rest = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, rest).await;
    }

    /// Takes what is due and begins to deliver it. Returns whether more can be taken at once.
    async fn take_into(&self, tasks: &mut JoinSet<()>) -> bool {
        match self.core.outbox.take().await {
            Ok(taken) => {
                for (row, slot) in taken.messages {
                    let relay = self.clone();
                    tasks.spawn(async move { relay.deliver(row, slot).await });
                }
                taken.is_partial
            }
            Err(error) => {
                tracing::error!(%error, "nothing can be taken from the outbox");
                false
            }
        }
    }

    /// Tries one message and records the result.
    async fn deliver(&self, row: Outbound, slot: Slot) {
        let outbox = &self.core.outbox;
        let (id, started) = (row.id, self.core.clock.now());
        let Ok(hop) = serde_json::from_str::<NextHop>(&row.route) else {
            tracing::error!("a route in the outbox cannot be read; its message is given up");
            outbox
                .finish(id, Outcome::Refused, Some(UNREADABLE_ROUTE), started)
                .await;
            return;
        };
        let attempt = if row.expires_at <= started {
            // Ended by the scan for such messages, so that it is reported once.
            Attempt::Untried(POLL_INTERVAL)
        } else {
            outbox.destinations().attempt(&hop, &row, &slot).await
        };
        let now = self.core.clock.now();

        outbox.pause_or_resume(&row, &hop, &attempt);
        let (reason, asked) = match attempt {
            Attempt::Delivered => {
                outbox.remember_delivered(row.hash);
                outbox.finish(id, Outcome::Delivered, None, now).await;
                return;
            }
            Attempt::Refused(reason) => {
                self.report_undeliverable(&row, &hop, &reason).await;
                outbox
                    .finish(id, Outcome::Refused, Some(&reason), now)
                    .await;
                return;
            }
            // Where the time ends before, the message is found when it has ended.
            Attempt::Untried(wait) => {
                outbox.defer(&row, now.plus(wait.max(POLL_INTERVAL))).await;
                return;
            }
            Attempt::Deferred(reason, asked) | Attempt::Failed(reason, asked) => (reason, asked),
        };
        match outbox.next_attempt(&row, asked, now) {
            Some(next_at) => outbox.retry(&row, next_at, reason, now).await,
            None => self.give_up(&row, &hop, &reason).await,
        }
    }

    /// Ends a message whose time has ended, and tells its sender.
    async fn give_up(&self, row: &Outbound, hop: &NextHop, reason: &str) {
        self.report_undeliverable(row, hop, reason).await;
        let now = self.core.clock.now();
        let outbox = &self.core.outbox;
        outbox
            .finish(row.id, Outcome::GivenUp, Some(reason), now)
            .await;
    }

    /// Gives up the messages whose time ends while their destinations are paused, until `stop`.
    async fn end_expired(&self, stop: &CancellationToken) {
        let outbox = &self.core.outbox;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            match outbox.expired().await {
                Ok(expired) => {
                    for (row, last_error) in expired {
                        let reason = last_error.as_ref().map_or(TIME_ENDED, RemoteText::as_str);
                        match serde_json::from_str(&row.route) {
                            Ok(hop) => self.give_up(&row, &hop, reason).await,
                            Err(_) => {
                                self.core
                                    .outbox
                                    .finish(
                                        row.id,
                                        Outcome::GivenUp,
                                        Some(UNREADABLE_ROUTE),
                                        self.core.clock.now(),
                                    )
                                    .await
                            }
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "expired messages cannot be read"),
            }
        }
    }
}
