//! The mailbox as the operator sees it: what waits, for whom, and what was deleted.

use serde::{Deserialize, Serialize};

use crate::mediator::{Mediator, Purge, PurgeError};
use crate::store::StoreError;

/// State of the queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailboxStatus {
    /// DID of the mediator.
    pub did: String,
    /// Registered accounts.
    pub accounts: u64,
    /// Messages that wait for pickup.
    pub messages: u64,
    /// Bytes of the messages that wait for pickup.
    pub bytes: u64,
    /// Size of the store's file in bytes.
    pub file_bytes: u64,
}

/// The largest queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailboxQueues {
    /// Messages in all queues.
    pub messages: u64,
    /// Bytes of the messages in all queues.
    pub bytes: u64,
    /// The queues, the one with the most bytes first.
    pub queues: Vec<QueueStatus>,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// The did:peer or did:key that the mail is addressed to.
    pub did: String,
    /// Whether an account is registered that reads it.
    pub registered: bool,
    /// Some of the atproto accounts whose key packages claim the DID.
    pub accounts: Vec<String>,
    /// Messages that wait.
    pub messages: u64,
    /// Bytes of the messages that wait.
    pub bytes: u64,
    /// When the oldest of them came (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
}

/// Mail that was deleted, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Purged {
    /// Whether nothing was to be deleted.
    pub dry_run: bool,
    /// Messages deleted.
    pub messages: u64,
    /// Bytes of the messages deleted.
    pub bytes: u64,
    /// The queues that were emptied.
    pub queues: Vec<PurgedQueueStatus>,
    /// Queues left alone, since other accounts claim their DIDs, too.
    pub kept: Vec<PurgedQueueStatus>,
}

/// Mail of one queue that was deleted, or left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PurgedQueueStatus {
    /// The did:peer or did:key that the mail is addressed to.
    pub did: String,
    /// Number of messages.
    pub messages: u64,
    /// Bytes of the messages.
    pub bytes: u64,
}

/// One step of a purge: what it deleted, and what is left to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PurgeStep {
    pub(super) purged: Purged,
    pub(super) up_to: i64,
    pub(super) remaining: u64,
}

impl Purged {
    /// Adds what a later step deleted of the same queues.
    pub(super) fn add(&mut self, later: &Self) {
        self.messages += later.messages;
        self.bytes += later.bytes;
        for more in &later.queues {
            match self.queues.iter_mut().find(|queue| queue.did == more.did) {
                Some(queue) => {
                    queue.messages += more.messages;
                    queue.bytes += more.bytes;
                }
                None => self.queues.push(more.clone()),
            }
        }
    }
}

pub(super) async fn status(mediator: &Mediator) -> Result<MailboxStatus, StoreError> {
    let (accounts, (messages, bytes), (file_bytes, _)) = mediator
        .mailbox()
        .query(|q| Ok((q.account_count()?, q.totals()?, q.file_bytes()?)))
        .await?;
    Ok(MailboxStatus {
        did: mediator.did().to_string(),
        accounts,
        messages,
        bytes,
        file_bytes,
    })
}

pub(super) async fn queues(mediator: &Mediator, limit: usize) -> Result<MailboxQueues, StoreError> {
    let (messages, bytes) = mediator.mailbox().query(|q| q.totals()).await?;
    let largest = mediator.largest_queues(limit).await?;
    let queues = largest.into_iter().map(|queue| QueueStatus {
        did: queue.did,
        registered: queue.is_registered,
        accounts: queue.claimants.iter().map(ToString::to_string).collect(),
        messages: queue.messages,
        bytes: queue.bytes,
        oldest: queue.oldest.map(|at| at.to_string()),
    });
    Ok(MailboxQueues {
        messages,
        bytes,
        queues: queues.collect(),
    })
}

/// Deletes the mail that waits for a DID, for some seconds.
pub(super) async fn purge(
    mediator: &Mediator,
    did: &str,
    up_to: Option<i64>,
    dry_run: bool,
) -> Result<PurgeStep, PurgeError> {
    let Purge {
        queues,
        up_to,
        remaining,
    } = mediator.purge(did, up_to, dry_run).await?;
    let (kept, emptied): (Vec<_>, Vec<_>) = queues.into_iter().partition(|queue| queue.is_kept);
    let statuses = |queues: Vec<crate::mediator::PurgedQueue>| {
        let status = |queue: crate::mediator::PurgedQueue| PurgedQueueStatus {
            did: queue.did,
            messages: queue.messages,
            bytes: queue.bytes,
        };
        queues.into_iter().map(status).collect()
    };
    let purged = Purged {
        dry_run,
        messages: emptied.iter().map(|queue| queue.messages).sum(),
        bytes: emptied.iter().map(|queue| queue.bytes).sum(),
        queues: statuses(emptied),
        kept: statuses(kept),
    };
    Ok(PurgeStep {
        purged,
        up_to,
        remaining,
    })
}
