//! The outbox: messages for other mediators, from the commit that takes them in to the attempt that
//! ends them.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::concurrency::DestinationSlots;
use super::{Destinations, NextHop};
use crate::mediator::address::owner_domain;
use crate::mediator::{Refused, RelaySettings};
use crate::store::{
    Abort, MailboxStore, NewOutbound, OutPushed, Outbound, OutboxQuota, Outcome, Sender, StoreError,
};
use atcomm_net::backoff::{Backoff, Jitter, Spread};
use atcomm_net::ttl_cache::TtlCache;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::syntax::RemoteText;

/// Shortest time before an attempt is repeated, and the time between two scans of the outbox.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a message that was taken is not taken again. A crash delays it by that.
const LEASE: Duration = Duration::from_secs(90);

/// How long a delivered message is remembered: longer than any message is tried by default.
const DELIVERED_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Delivered messages remembered, each by a hash of 32 bytes.
const MAX_DELIVERED: usize = 1 << 16;

/// Messages to be relayed.
pub(in crate::mediator) struct NewRelay {
    pub(in crate::mediator) messages: Vec<Arc<[u8]>>,
    /// Receives a report if the delivery fails.
    pub(in crate::mediator) sender: Option<Party>,
    /// Thread of the report.
    pub(in crate::mediator) thread: String,
    /// Id of the forward that the report is about.
    pub(in crate::mediator) id: String,
    pub(in crate::mediator) not_before: Timestamp,
    pub(in crate::mediator) expires_at: Option<Timestamp>,
    /// The parties that the sender is.
    pub(in crate::mediator) charged_to: Vec<Sender>,
}

/// Messages that wait for other mediators.
pub(in crate::mediator) struct Outbox {
    // Fixed when the mediator is bound.
    settings: RelaySettings,
    quota: OutboxQuota,
    clock: Clock,
    // Owns its budget of messages to unlisted mediators.
    destinations: Destinations,
    // Shared with the other parts of the mediator; the store orders all transactions.
    mailbox: Arc<MailboxStore>,
    // With a lock of its own.
    /// Wakes the relay when messages were put in.
    added: Notify,
    /// Hashes of route and body of what was delivered lately. The same message does not go the same
    /// way again, whichever mediator sends it back here.
    delivered: TtlCache<[u8; 32], ()>,
}

impl Outbox {
    pub(in crate::mediator) fn new(
        settings: RelaySettings,
        destinations: Destinations,
        mailbox: Arc<MailboxStore>,
        clock: Clock,
    ) -> Self {
        Self {
            quota: OutboxQuota {
                per_destination_messages: settings.destination_messages,
                per_destination_bytes: settings.destination_bytes,
                total_messages: settings.total_messages,
                total_bytes: settings.total_bytes,
                destinations: settings.total_destinations,
            },
            settings,
            delivered: TtlCache::with_entries(MAX_DELIVERED, clock.clone()),
            clock,
            destinations,
            mailbox,
            added: Notify::new(),
        }
    }

    pub(in crate::mediator) fn destinations(&self) -> &Destinations {
        &self.destinations
    }

    /// Returns how many deliveries may run at the same time.
    pub(super) fn concurrency(&self) -> usize {
        self.settings.concurrency.max(1)
    }

    /// Puts messages in: all of them, or none and a reason. On disk when this returns. Putting the
    /// same message in for the same hop twice stores it once, and what was delivered there within a
    /// day is not stored again.
    pub(in crate::mediator) async fn enqueue_relay(
        &self,
        mut hop: NextHop,
        new: NewRelay,
    ) -> Result<(), Refused> {
        let Some(destination) = hop.mediators.first().cloned() else {
            return Ok(());
        };
        let (now, quota) = (self.clock.now(), self.quota);
        // The time counts from when the message may go, so that a delayed one has all of it.
        let latest = now.max(new.not_before).plus(self.settings.give_up);
        let expires_at = new.expires_at.unwrap_or(latest).min(latest);
        let domain = destination
            .web()
            .map_or_else(String::new, |did| owner_domain(&did.host, did.port));
        // One message over one route waits once, whichever forward brought it.
        let route_hash = Sha256::new_with_prefix(format!("{:?} {:?} ", hop.mediators, hop.peer));
        let hash = move |body: &[u8]| -> [u8; 32] {
            route_hash.clone().chain_update(body).finalize().into()
        };
        let messages: Vec<_> = new
            .messages
            .into_iter()
            .map(|body| (hash(&body), body))
            .filter(|(hash, _)| self.delivered.get(hash).is_none())
            .collect();
        if messages.is_empty() {
            count("repeated");
            return Ok(());
        }
        hop.expires = new.expires_at.map(|at| at.millis() / 1000);
        hop.forward = Some(new.id);
        let route = serde_json::to_string(&hop).map_err(|error| {
            tracing::error!(%error, "a route cannot be written");
            Refused::Unavailable
        })?;
        let pushed = self
            .mailbox
            .attempt(move |tx| {
                for (hash, body) in &messages {
                    let outbound = NewOutbound {
                        destination: destination.as_str(),
                        route: &route,
                        hash: *hash,
                        body,
                        sender: new.sender.as_ref().map(Party::did),
                        thread: Some(&new.thread),
                        now,
                        next_at: new.not_before,
                        expires_at,
                        domain: &domain,
                        senders: &new.charged_to,
                    };
                    match tx.outbox_push(&outbound, &quota)? {
                        OutPushed::Stored(_) | OutPushed::Duplicate => {}
                        // Undoes the messages of this envelope that were pushed before.
                        OutPushed::DestinationFull | OutPushed::StoreFull => {
                            return Err(Abort::Refused(Refused::RelayFull));
                        }
                    }
                }
                Ok(())
            })
            .await;
        match pushed {
            Ok(()) => {
                self.added.notify_one();
                Ok(())
            }
            Err(Abort::Store(StoreError::Full)) => Err(Refused::RelayFull),
            Err(error) => Err(error.into()),
        }
    }

    /// Remembers that a message was delivered.
    pub(super) fn remember_delivered(&self, hash: [u8; 32]) {
        self.delivered.insert(hash, (), DELIVERED_RETENTION);
    }

    /// Waits until messages were put in.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    /// Makes the messages due again that were taken before a restart. Returns their number.
    pub(super) async fn recover(&self) -> Result<u64, StoreError> {
        let now = self.clock.now();
        self.mailbox
            .transact(move |tx| tx.outbox_recover(now))
            .await
    }

    /// Takes messages that are due, at most `free` and for each destination as many as it has
    /// slots. A message that was taken is not taken again within its lease.
    pub(super) async fn take(
        &self,
        free: usize,
        mut slots: DestinationSlots,
    ) -> Result<Vec<Outbound>, StoreError> {
        let now = self.clock.now();
        // Mostly nothing is due, and asking is cheaper than a write.
        if !self.mailbox.query(move |q| q.outbox_is_due(now)).await? {
            return Ok(Vec::new());
        }
        self.mailbox
            .transact(move |tx| {
                let slots_of = |destination: &str| slots.of(destination);
                tx.outbox_take(now, now.plus(LEASE), free, slots_of)
            })
            .await
    }

    /// Removes a message and records how its delivery ended.
    pub(super) async fn finish(
        &self,
        id: i64,
        outcome: Outcome,
        reason: Option<&str>,
        now: Timestamp,
    ) {
        count(match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Refused => "refused",
            Outcome::GivenUp => "given_up",
        });
        let reason = reason.map(RemoteText::new);
        let done = self
            .mailbox
            .transact(move |tx| tx.outbox_done(id, outcome, reason.as_ref(), now));
        log_failure(done.await.map(drop));
    }

    /// Records a failed attempt, to be repeated at `next_at`.
    pub(super) async fn retry(&self, id: i64, next_at: Timestamp, reason: String, now: Timestamp) {
        count("failed");
        let reason = RemoteText::new(&reason);
        let retried = self
            .mailbox
            .transact(move |tx| tx.outbox_retry(id, next_at, &reason, now));
        log_failure(retried.await);
    }

    /// Puts a message back without an attempt, until `next_at`.
    pub(super) async fn defer(&self, id: i64, next_at: Timestamp) {
        let deferred = self
            .mailbox
            .transact(move |tx| tx.outbox_defer(id, next_at));
        log_failure(deferred.await);
    }

    /// Returns when a message is tried again; `None`: it expires before. The last attempt comes
    /// shortly before the message expires, however long the pause would be. `asked` is the pause
    /// that the mediator asks for.
    pub(super) fn next_attempt(
        &self,
        row: &Outbound,
        asked: Option<Duration>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let longest = self.settings.longest_pause;
        // A mediator may ask for a pause, but not for one that uses up the message's time.
        let pause = pauses(longest)
            .wait(row.attempts.saturating_add(1), Spread::random())
            .max(asked.unwrap_or_default().min(longest));
        let last = row.expires_at.minus(2 * POLL_INTERVAL);
        match now.plus(pause) {
            next_at if next_at < row.expires_at => Some(next_at),
            _ if last > now.plus(POLL_INTERVAL) => Some(last),
            _ => None,
        }
    }
}

/// Logs a write that failed. The message is tried again when its lease has ended.
fn log_failure(result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::error!(%error, "the outbox cannot be written");
    }
}

/// Counts the outcomes of relayed messages.
pub(super) fn count(outcome: &'static str) {
    metrics::counter!("atcomm_mediator_relay_total", "outcome" => outcome).increment(1);
}

/// Returns the pauses between the attempts of one message: a second, doubled each time, up to
/// `longest`, each multiplied by a number from a half to one and a half.
fn pauses(longest: Duration) -> Backoff {
    Backoff {
        first: Duration::from_secs(1),
        longest,
        jitter: Jitter::between(0.5, 1.5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_vary() {
        let longest = Duration::from_secs(1800);
        let pause = |failures, place| pauses(longest).wait(failures, Spread::at(place));
        assert_eq!(pause(1, 0.5), Duration::from_secs(1));
        assert_eq!(pause(4, 0.5), Duration::from_secs(8));
        assert_eq!(pause(4, 0.0), Duration::from_secs(4));
        assert_eq!(pause(4, 1.0), Duration::from_secs(12));
        for failures in [12, 33, u32::MAX] {
            assert_eq!(pause(failures, 0.5), longest);
        }
    }
}
