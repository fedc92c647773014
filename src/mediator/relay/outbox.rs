//! The outbox: messages for other mediators, from the commit that takes them in to the attempt that
//! ends them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::attempt::{Attempt, Slot, lock};
use super::schedule::{Pick, Schedule};
use super::standing::pauses;
use super::{Destinations, NextHop, POLL_INTERVAL};
use crate::mediator::{Refused, RelaySettings};
use crate::store::mailbox::{Queries, Tx};
use crate::store::{
    Abort, MailboxStore, NewOutbound, OutPushed, Outbound, OutboxQuota, Outcome, Sender, StoreError,
};
use atcomm_net::backoff::Spread;
use atcomm_net::net::owner_domain;
use atcomm_net::ttl_cache::TtlCache;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::syntax::{MediatorDid, RemoteText};

/// How long a message that was taken is not taken again. A crash delays it by that.
const LEASE: Duration = Duration::from_secs(90);

/// Most bytes of the bodies that are taken at a time; one message at least is taken.
const MAX_TAKEN_BYTES: u64 = 8 << 20;

/// Destinations that one scan reads.
const SCAN_BATCH: usize = 1024;

/// Expired messages that are read at a time.
const EXPIRY_BATCH: usize = 256;

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
    /// Whose message is delivered next.
    schedule: Arc<Mutex<Schedule>>,
    /// The destination that the next scan begins behind.
    scanned: Mutex<String>,
}

/// Messages that were taken, each with its slot.
pub(super) struct Taken {
    pub(super) messages: Vec<(Outbound, Slot)>,
    /// Whether more may be taken at once.
    pub(super) is_partial: bool,
}

impl Outbox {
    pub(in crate::mediator) fn new(
        settings: RelaySettings,
        destinations: Destinations,
        mailbox: Arc<MailboxStore>,
        clock: Clock,
    ) -> Self {
        let schedule = Schedule::new(settings.concurrency);
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
            schedule: Arc::new(Mutex::new(schedule)),
            scanned: Mutex::default(),
        }
    }

    pub(in crate::mediator) fn destinations(&self) -> &Destinations {
        &self.destinations
    }

    /// Returns whether a further delivery may start.
    pub(super) fn has_free_slot(&self) -> bool {
        lock(&self.schedule).has_free_slot()
    }

    /// Returns until when a destination is paused, and whether it is slow.
    pub(in crate::mediator) fn trouble_of(&self, destination: &str) -> (Option<Timestamp>, bool) {
        let Ok(did) = MediatorDid::parse(destination) else {
            return (None, false);
        };
        let now = self.clock.now();
        let schedule = lock(&self.schedule);
        (
            schedule.paused_until(&did, now),
            schedule.is_slow(&did, now),
        )
    }

    /// Returns the number of destinations that are paused, and of domains that are slow.
    pub(in crate::mediator) fn troubled(&self) -> (usize, usize) {
        lock(&self.schedule).troubled(self.clock.now())
    }

    /// Puts messages in: all of them, or none and a reason. On disk when this returns. Putting the
    /// same message in for the same hop twice stores it once, and what was delivered there within a
    /// day is not stored again.
    pub(in crate::mediator) async fn enqueue_relay(
        &self,
        mut hop: NextHop,
        new: NewRelay,
    ) -> Result<(), Refused> {
        // A message with several mediators does not wait for one that is paused.
        let open = |mediator: &&MediatorDid| {
            self.destinations
                .standings
                .pause(mediator.as_str())
                .is_zero()
        };
        let mut mediators = hop.mediators.iter();
        let Some(destination) = mediators.find(open).or(hop.mediators.first()).cloned() else {
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
        let (named, not_before) = (destination.clone(), new.not_before);
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
                lock(&self.schedule).waits(named.as_str(), not_before);
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

    /// Tells the schedule of destinations in the store that it does not know: all of them at the
    /// start, and later those that had no room in memory. Returns whether the end was reached.
    pub(super) async fn scan(&self) -> Result<bool, StoreError> {
        let after = self
            .scanned
            .lock()
            .map(|after| after.clone())
            .unwrap_or_default();
        let found = self
            .mailbox
            .query(move |q| q.outbox_waiting(&after, SCAN_BATCH))
            .await?;
        let is_end = found.len() < SCAN_BATCH;
        let last = found.last().map(|(did, _)| did.clone());
        let mut schedule = lock(&self.schedule);
        for (destination, due_at) in &found {
            schedule.waits(destination, *due_at);
        }
        drop(schedule);
        if let Ok(mut scanned) = self.scanned.lock() {
            *scanned = last.filter(|_| !is_end).unwrap_or_default();
        }
        Ok(is_end)
    }

    /// Takes messages that are due from the destinations whose turn it is. A message that was taken
    /// is not taken again within its lease. The bodies are read beside the writer, which only marks
    /// the messages by their ids.
    pub(super) async fn take(&self) -> Result<Taken, StoreError> {
        let now = self.clock.now();
        let picks = self.pick_all(now);
        if picks.is_empty() {
            return Ok(Taken {
                messages: Vec::new(),
                is_partial: false,
            });
        }
        let destinations: Vec<_> = picks
            .iter()
            .map(|(pick, slots)| (pick.clone(), slots.len()))
            .collect();
        let due = self
            .mailbox
            .query(move |q| read_due(q, &destinations, now))
            .await?;
        let ids: Vec<Vec<i64>> = due
            .iter()
            .map(|rows| rows.iter().map(|row| row.id).collect())
            .collect();
        let named: Vec<_> = picks
            .iter()
            .map(|(pick, _)| pick.destination.clone())
            .collect();
        let marked = self
            .mailbox
            .transact(move |tx| mark_taken(tx, &ids, &named, now))
            .await?;
        let mut taken = Taken {
            messages: Vec::new(),
            is_partial: false,
        };
        for (((pick, slots), rows), marked) in picks.into_iter().zip(due).zip(marked) {
            lock(&self.schedule).set_next(&pick.destination, marked.next_at);
            let mut slots = slots.into_iter();
            for row in rows.into_iter().filter(|row| marked.ids.contains(&row.id)) {
                if let Some(slot) = slots.next() {
                    taken.messages.push((row, slot));
                }
            }
            // Slots without a message are given back, and may be of use to another destination.
            let is_short = slots.next().is_some();
            if is_short && pick.is_probe {
                self.probe_again(&pick.destination, now);
            }
            taken.is_partial |= is_short;
        }
        Ok(taken)
    }

    /// Picks destinations until all slots are held, each with its slots.
    fn pick_all(&self, now: Timestamp) -> Vec<(Pick, Vec<Slot>)> {
        let mut schedule = lock(&self.schedule);
        let mut picks: Vec<(Pick, Vec<Slot>)> = Vec::new();
        while let Some(pick) = schedule.pick(now) {
            let slot = Slot {
                schedule: Arc::clone(&self.schedule),
                clock: self.clock.clone(),
                id: pick.slot,
            };
            match picks
                .iter_mut()
                .find(|(one, _)| one.destination == pick.destination)
            {
                Some((_, slots)) => slots.push(slot),
                None => picks.push((pick, vec![slot])),
            }
        }
        picks
    }

    /// Returns messages whose time has ended and that are not under way, without their bodies, each
    /// with the last failure of its destination.
    pub(super) async fn expired(&self) -> Result<Vec<(Outbound, Option<RemoteText>)>, StoreError> {
        let now = self.clock.now();
        self.mailbox
            .query(move |q| {
                let rows = q.outbox_expired(now, EXPIRY_BATCH)?;
                let with_reason = rows.into_iter().map(|row| {
                    let reason = q.outbox_last_error(&row.destination)?;
                    Ok((row, reason))
                });
                with_reason.collect()
            })
            .await
    }

    /// Pauses the destination of a message until one of its mediators may be tried again, or ends
    /// the pause.
    pub(super) fn pause_or_resume(&self, row: &Outbound, hop: &NextHop, attempt: &Attempt) {
        let Ok(destination) = MediatorDid::parse(&row.destination) else {
            return;
        };
        let standings = &self.destinations.standings;
        let pauses = hop
            .mediators
            .iter()
            .map(|one| standings.pause(one.as_str()));
        let mut pause = pauses.min().unwrap_or_default();
        // The mediator's endpoint may be that of others, too, and paused for them.
        if let (Attempt::Untried(wait), [_]) = (attempt, &hop.mediators[..])
            && *wait > POLL_INTERVAL
        {
            pause = pause.max(*wait);
        }
        let has_answered = matches!(attempt, Attempt::Delivered | Attempt::Refused(_));

        let now = self.clock.now();
        let mut schedule = lock(&self.schedule);
        if !pause.is_zero() {
            schedule.pause(&destination, now.plus(pause));
        } else if has_answered {
            schedule.resume(&destination);
        } else {
            schedule.probe_again(&destination, now.plus(POLL_INTERVAL));
        }
    }

    fn probe_again(&self, destination: &str, at: Timestamp) {
        if let Ok(did) = MediatorDid::parse(destination) {
            lock(&self.schedule).probe_again(&did, at);
        }
    }

    /// Tells the schedule when a message that goes back is due.
    fn waits(&self, row: &Outbound, next_at: Timestamp) {
        lock(&self.schedule).waits(&row.destination, next_at);
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
    pub(super) async fn retry(
        &self,
        row: &Outbound,
        next_at: Timestamp,
        reason: String,
        now: Timestamp,
    ) {
        count("failed");
        let (id, reason) = (row.id, RemoteText::new(&reason));
        let retried = self
            .mailbox
            .transact(move |tx| tx.outbox_retry(id, next_at, &reason, now));
        log_failure(retried.await);
        self.waits(row, next_at);
    }

    /// Puts a message back without an attempt, until `next_at`.
    pub(super) async fn defer(&self, row: &Outbound, next_at: Timestamp) {
        let id = row.id;
        let deferred = self
            .mailbox
            .transact(move |tx| tx.outbox_defer(id, next_at));
        log_failure(deferred.await);
        self.waits(row, next_at);
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

/// Reads what is due for each of the picked destinations.
fn read_due(
    q: &Queries<'_>,
    picks: &[(Pick, usize)],
    now: Timestamp,
) -> Result<Vec<Vec<Outbound>>, StoreError> {
    let mut bytes_left = MAX_TAKEN_BYTES;
    let mut due = Vec::with_capacity(picks.len());
    for (n, (pick, slots)) in picks.iter().enumerate() {
        if n > 0 && bytes_left == 0 {
            due.push(Vec::new());
            continue;
        }
        let rows = if pick.is_probe {
            // An attacker's messages may be the smallest.
            let smallest = pick.slot % 2 == 0;

            q.outbox_probe(&pick.destination, now, smallest)?
                .into_iter()
                .collect()
        } else {
            q.outbox_due(&pick.destination, now, *slots, bytes_left)?
        };
        let bytes: u64 = rows.iter().map(|row| row.body.len() as u64).sum();
        bytes_left = bytes_left.saturating_sub(bytes);
        due.push(rows);
    }
    Ok(due)
}

/// What was taken for one destination.
struct Marked {
    ids: Vec<i64>,
    /// When its next message is due.
    next_at: Option<Timestamp>,
}

/// Takes messages by their ids, those of each destination that are still there.
fn mark_taken(
    tx: &Tx<'_>,
    ids: &[Vec<i64>],
    destinations: &[String],

    now: Timestamp,
) -> Result<Vec<Marked>, StoreError> {
    let mut marked = Vec::with_capacity(ids.len());
    for (ids, destination) in ids.iter().zip(destinations) {
        let mut taken = Vec::with_capacity(ids.len());
        for id in ids {
            if tx.outbox_take(*id, now, now.plus(LEASE))? {
                taken.push(*id);
            }
        }
        marked.push(Marked {
            ids: taken,
            next_at: tx.outbox_next(destination)?,
        });
    }
    Ok(marked)
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
