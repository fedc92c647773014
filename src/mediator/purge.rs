//! Queues emptied by the operator: those of accounts that the settings deny, and those that a
//! command names. All is deleted in batches, so that other mail does not wait for long.

use std::time::Duration;

use tokio::time::Instant;

use super::admission::Admission;
use super::{Core, Mediator, parties};
use crate::store::mailbox::{Queries, Tx};
use crate::store::{QueueSize, StoreError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Did;

/// Messages deleted in one transaction.
const BATCH_MESSAGES: usize = 200;

/// Bytes of bodies deleted in one transaction.
const BATCH_BYTES: u64 = 8 << 20;

/// Batches deleted for denied accounts in one interval of the maintenance.
const DENIED_BATCHES: usize = 16;

/// Longest time of one request of the operator. What is left then is left for the next request.
const REQUEST_TIME: Duration = Duration::from_secs(4);

/// Errors of emptying queues.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The name is no DID of a kind that has mail here.
    #[error("{0} is no did:peer, did:key, did:plc or did:web")]
    NotADid(String),
    /// No mail is kept for the DID.
    #[error("no queue is kept here for {0}")]
    Unknown(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of emptying queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// The queues that the name stands for.
    pub queues: Vec<PurgedQueue>,
    /// Newest message that is meant: later ones stay.
    pub up_to: i64,
    /// Messages that are meant and still there.
    pub remaining: u64,
}

/// What was deleted of one queue; what would be, where nothing is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgedQueue {
    /// The DID that the mail is addressed to.
    pub did: String,
    /// Number of messages.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Whether the queue is left alone: the name is that of an atproto account, and other accounts
    /// claim the DID, too.
    pub is_kept: bool,
}

impl Mediator {
    /// Returns the queues with the most bytes, at most `limit`.
    pub async fn largest_queues(&self, limit: usize) -> Result<Vec<QueueSize>, StoreError> {
        let mailbox = &self.core.mailbox;
        mailbox.query(move |q| q.largest_queues(limit)).await
    }

    /// Deletes the mail that waits for a did:peer, or for every did:peer that the key packages of
    /// an atproto account claim, up to the message `up_to` (`None`: the newest now). Works for some
    /// seconds: the caller repeats the request until nothing remains. A `dry_run` counts only.
    pub async fn purge(
        &self,
        name: &str,
        up_to: Option<i64>,
        dry_run: bool,
    ) -> Result<Purge, PurgeError> {
        let core = &self.core;
        let (text, now) = (name.to_owned(), core.clock.now());
        let (meant, newest) = core
            .mailbox
            .query(move |q| Ok((queues_of(q, &text, now)?, q.newest_message()?)))
            .await?;
        let meant = meant.ok_or_else(|| PurgeError::NotADid(name.to_owned()))?;
        if meant.is_empty() {
            return Err(PurgeError::Unknown(name.to_owned()));
        }
        let up_to = up_to.unwrap_or(newest);
        let end = Instant::now() + REQUEST_TIME;
        let mut purge = Purge {
            queues: Vec::with_capacity(meant.len()),
            up_to,
            remaining: 0,
        };
        for (id, mut queue) in meant {
            if !queue.is_kept && !dry_run {
                (queue.messages, queue.bytes) = core.purge_until(id, up_to, end).await?;
            }
            let waiting = core.mailbox.query(move |q| q.waiting_up_to(id, up_to));
            let (messages, bytes) = waiting.await?;
            if queue.is_kept || dry_run {
                (queue.messages, queue.bytes) = (messages, bytes);
            } else {
                purge.remaining += messages;
            }
            purge.queues.push(queue);
        }
        Ok(purge)
    }
}

/// Returns the queues that a name stands for, with the ids of their recipients; `None` for a name
/// that is no DID.
fn queues_of(
    q: &Queries<'_>,
    name: &str,
    now: Timestamp,
) -> Result<Option<Vec<(i64, PurgedQueue)>>, StoreError> {
    let mut named = Vec::new();
    if let Some(peer) = parties::queue_name(name) {
        named.push((peer, false));
    } else if let Ok(account) = Did::parse(name) {
        for claim in q.claims_of(&account)? {
            let others = q.claims_of_others(&claim.peer, &account)?;
            let is_kept = Admission::of(&others, now) != Admission::default();
            named.push((claim.peer, is_kept));
        }
    } else {
        return Ok(None);
    }
    let mut queues = Vec::with_capacity(named.len());
    for (did, is_kept) in named {
        if let Some(recipient) = q.recipient(&did)? {
            let queue = PurgedQueue {
                did,
                messages: 0,
                bytes: 0,
                is_kept,
            };
            queues.push((recipient.id, queue));
        }
    }
    Ok(Some(queues))
}

impl Core {
    /// Deletes the messages of a recipient up to one of them, until `end` at the latest.
    async fn purge_until(
        &self,
        recipient: i64,
        up_to: i64,
        end: Instant,
    ) -> Result<(u64, u64), StoreError> {
        let mut all = (0, 0);
        while Instant::now() < end {
            let (messages, bytes) = self
                .mailbox
                .transact(move |tx| tx.purge(recipient, up_to, BATCH_MESSAGES, BATCH_BYTES))
                .await?;
            if messages == 0 {
                break;
            }
            all = (all.0 + messages, all.1 + bytes);
        }
        count_purged("operator", all);
        Ok(all)
    }

    /// Deletes mail that only denied accounts could read, some batches of it.
    pub(super) async fn purge_denied(&self) -> Result<(), StoreError> {
        let (is_open, now) = (self.policy.is_open(), self.clock.now());
        let mut all = (0, 0);
        for _ in 0..DENIED_BATCHES {
            let Some(did) = self.mailbox.query(|q| q.denied_queue()).await? else {
                break;
            };
            let (messages, bytes) = self
                .mailbox
                .transact(move |tx| purge_denied_batch(tx, &did, is_open, now))
                .await?;
            all = (all.0 + messages, all.1 + bytes);
        }
        count_purged("denied", all);
        Ok(())
    }
}

/// Deletes one batch of a queue whose claims were denied. Ends the denial where other claims stand
/// on the DID, where an account may read without a claim, and where nothing is left.
fn purge_denied_batch(
    tx: &Tx<'_>,
    did: &str,
    is_open: bool,
    now: Timestamp,
) -> Result<(u64, u64), StoreError> {
    let Some(recipient) = tx.recipient(did)? else {
        return Ok((0, 0));
    };
    let is_claimed = Admission::of(&tx.claims(did)?, now) != Admission::default();
    let may_read = is_claimed || is_open && recipient.account.is_some();
    if may_read || recipient.messages == 0 {
        tx.set_denied(did, false)?;
        return Ok((0, 0));
    }
    tx.purge(recipient.id, i64::MAX, BATCH_MESSAGES, BATCH_BYTES)
}

fn count_purged(reason: &'static str, (messages, bytes): (u64, u64)) {
    if messages > 0 {
        metrics::counter!("atcomm_mediator_purged_total", "reason" => reason).increment(messages);
        tracing::info!(messages, bytes, reason, "mail is deleted unread");
    }
}
