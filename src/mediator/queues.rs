//! The queues of recipients: which messages they accept, how many, and whom a message wakes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::Refused;
use super::admission::{Admission, READ_PERIOD};
use super::delivery::DeliveryRoom;
use super::live::{LiveSockets, LiveSubscription};
use super::recipient_rate::RecipientRate;
use super::settings::{AdmissionMode, MediatorSettings};
use super::store_shares::StoreShares;
use crate::store::mailbox::{Queries, Tx};
use crate::store::{
    Abort, ClaimState, Damage, MESSAGE_OVERHEAD, MailboxStore, Message, Push, Pushed, Queue, Quota,
    Reader, Sender, StoreError,
};
use atcomm_proto::clock::{Clock, Timestamp};

/// Key in the mailbox's store: when a message came for an unknown recipient.
const UNKNOWN_KEY: &str = "unknown_at";

/// A queue whose reader was not here for this long, or never, has a smaller quota: what waits there
/// is likely never read.
const QUIET_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Messages pushed to a socket at once.
const MAX_PUSH: usize = 32;

/// One message for one queue.
pub(super) struct NewMessage {
    /// The canonical DID of its recipient.
    pub(super) recipient: String,
    pub(super) body: Arc<[u8]>,
    /// SHA-256 of the body: its id for the recipient.
    pub(super) hash: [u8; 32],
    /// The message is not handed out before.
    pub(super) available_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

impl NewMessage {
    pub(super) fn new(
        recipient: String,
        body: Arc<[u8]>,
        available_at: Timestamp,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            recipient,
            hash: Sha256::digest(&body).into(),
            body,
            available_at,
            expires_at,
        }
    }
}

/// The outcome for one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Enqueued {
    /// It is on disk.
    Queued {
        /// The account that may read the queue, if one is registered.
        reader: Option<Reader>,
    },
    /// No mail is kept for this recipient.
    UnknownRecipient,
}

/// The queues of all recipients: takes messages in, under limits, and wakes their readers.
pub(super) struct Queues {
    // Fixed by the settings.
    quota: Quota,
    /// Whether a registered account suffices to receive mail, without a claim.
    is_open: bool,
    clock: Clock,
    // Shared with the other parts of the mediator; the store orders all transactions.
    mailbox: Arc<MailboxStore>,
    // Each with a lock of its own.
    live: Arc<LiveSockets>,
    /// Unknown recipients are limited, too, so that a refusal does not show who is known.
    by_recipient: RecipientRate,
    store_shares: Arc<StoreShares>,
}

impl Queues {
    pub(super) fn new(
        settings: &MediatorSettings,
        mailbox: Arc<MailboxStore>,
        clock: Clock,
    ) -> Self {
        Self {
            quota: Quota {
                messages: settings.queue_messages,
                bytes: settings.queue_bytes,
                total_bytes: settings.total_bytes,
                seen_since: Timestamp::default(),
            },
            is_open: settings.admission == AdmissionMode::Open,
            by_recipient: RecipientRate::new(settings.queue_rate, &clock),
            store_shares: Arc::new(StoreShares::new(settings.total_bytes, clock.clone())),
            clock,
            mailbox,
            live: Arc::default(),
        }
    }

    /// Puts the messages of one envelope into their queues: all of them, or none and a reason. The
    /// messages are on disk and their readers woken when this returns. Unknown recipients take the
    /// same way through the same commit. Putting a message in twice stores it once. `senders` are
    /// the parties that its sender is.
    pub(super) async fn enqueue(
        &self,
        messages: Vec<NewMessage>,
        senders: &[Sender],
    ) -> Result<Vec<Enqueued>, Refused> {
        for message in &messages {
            self.by_recipient
                .take(Sha256::digest(&message.recipient).into(), senders)
                .map_err(Refused::RateLimited)?;
        }
        let (now, is_open) = (self.clock.now(), self.is_open);
        let quota = Quota {
            seen_since: now.minus(QUIET_AFTER),
            ..self.quota
        };
        let (senders, shares) = (senders.to_vec(), Arc::clone(&self.store_shares));
        let outcomes = self
            .mailbox
            .attempt(move |tx| {
                let push = |message| push(tx, message, &senders, &shares, &quota, is_open, now);
                let outcomes = messages.iter().map(push).collect::<Result<Vec<_>, _>>()?;
                let is_queued = |outcome| matches!(outcome, &Enqueued::Queued { .. });
                if !outcomes.iter().any(is_queued) {
                    // An empty commit skips the sync of the disk and returns sooner, which would
                    // tell that the recipient is unknown. So a row is written in any case.
                    tx.set_meta(UNKNOWN_KEY, &now.millis().to_string())?;
                }
                Ok(outcomes)
            })
            .await?;
        for outcome in &outcomes {
            if let Enqueued::Queued {
                reader: Some(reader),
            } = outcome
            {
                self.live.wake(reader.account);
            }
        }
        Ok(outcomes)
    }

    /// Returns whether an account reads the queue of a recipient.
    pub(super) async fn has_reader(&self, recipient: &str) -> Result<bool, StoreError> {
        let did = recipient.to_owned();
        let found = self.mailbox.query(move |q| q.reader(&did)).await?;
        Ok(found.is_some_and(|(_, reader)| self.is_read(reader.as_ref())))
    }

    /// Returns whether an account reads a queue: it takes mail for the DID, and was here lately or
    /// has a socket in live mode. An account that has moved on may be registered for a year more.
    pub(super) fn is_read(&self, reader: Option<&Reader>) -> bool {
        reader.is_some_and(|reader| {
            let was_here = self.clock.now().since(reader.seen_at) < READ_PERIOD;
            !reader.is_closed && (was_here || self.live.contains(reader.account))
        })
    }

    /// Returns messages of an account that came after the message `after`, to be pushed, as many as
    /// there is room for.
    pub(super) async fn messages_after(
        &self,
        account: i64,
        after: i64,
        mut room: DeliveryRoom,
    ) -> Result<(Vec<Message>, DeliveryRoom), StoreError> {
        let (queue, now) = (Queue::Account(account), self.clock.now());
        self.mailbox
            .query(move |q| {
                let mail = q.peek(queue, after, MAX_PUSH, |len| room.take(len), now)?;
                Ok((mail, room))
            })
            .await
    }

    /// Moves delayed messages whose time has come to the end of their queues, at most `limit`, and
    /// wakes their readers. Returns whether there were any.
    pub(super) async fn release_delayed(&self, limit: usize) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let (any, accounts) = self
            .mailbox
            .transact(move |tx| {
                let recipients = tx.release(now, limit)?;
                let mut accounts = BTreeSet::new();
                for recipient in &recipients {
                    accounts.extend(tx.reader_of(*recipient)?);
                }
                Ok((!recipients.is_empty(), accounts))
            })
            .await?;
        for account in accounts {
            self.live.wake(account);
        }
        Ok(any)
    }

    /// Counts anew what senders and hosts hold of all mail.
    pub(super) async fn count_shares(&self) -> Result<(), StoreError> {
        self.store_shares.count(&self.mailbox).await
    }

    /// Wakes a socket whenever messages come for the account, until the subscription is dropped.
    pub(super) fn subscribe(&self, account: i64, wake: &Arc<Notify>) -> LiveSubscription {
        self.live.subscribe(account, wake)
    }

    /// Returns the number of accounts with a socket in live mode.
    pub(super) fn live_accounts(&self) -> usize {
        self.live.accounts()
    }
}

fn push(
    tx: &Tx<'_>,
    message: &NewMessage,
    senders: &[Sender],
    shares: &StoreShares,
    quota: &Quota,
    open: bool,
    now: Timestamp,
) -> Result<Enqueued, Abort<Refused>> {
    let Some((recipient, reader)) = queue_of(tx, &message.recipient, open, now)? else {
        return Ok(Enqueued::UnknownRecipient);
    };
    let hosts = if shares.are_counted() {
        tx.hosts_of(&message.recipient)?
    } else {
        Vec::new()
    };
    let cost = message.body.len() as u64 + MESSAGE_OVERHEAD;
    let mut with_room = senders.to_vec();
    with_room.retain(|sender| shares.admit(*sender, &hosts, cost));
    let push = Push {
        recipient,
        hash: message.hash,
        body: &message.body,
        now,
        available_at: message.available_at,
        expires_at: message.expires_at,
        senders: &with_room,
    };
    let pushed = tx.push(&push, quota)?;
    if let (Pushed::Stored(_), Some(sender)) = (pushed, with_room.first()) {
        shares.add(*sender, &hosts, cost);
    }
    match pushed {
        // A duplicate wakes the readers once more, which does no harm.
        Pushed::Stored(_) | Pushed::Duplicate => Ok(Enqueued::Queued { reader }),
        // Undoes the messages of this envelope that were pushed before.
        Pushed::RecipientFull | Pushed::StoreFull => Err(Abort::Refused(Refused::QueueFull)),
        // The queue was found or opened in this transaction.
        Pushed::Gone => {
            let gone = Damage::Contents("a queue is gone within a transaction");
            Err(StoreError::Corrupt(gone).into())
        }
    }
}

/// Returns the queue of a recipient whose mail is accepted, and the account that may read it. Opens
/// the queue if there is none. A queue that its account has closed takes what a claim admits, and
/// nothing else; it stays closed.
fn queue_of(
    tx: &Tx<'_>,
    did: &str,
    open: bool,
    now: Timestamp,
) -> Result<Option<(i64, Option<Reader>)>, StoreError> {
    let known = tx.reader(did)?;
    let is_registered = matches!(known, Some((_, Some(reader))) if !reader.is_closed);
    if !(open && is_registered || accepts_mail(tx, did, now)?) {
        return Ok(None);
    }
    let id = match known {
        Some((_, Some(_))) => return Ok(known),
        Some((id, None)) => id,
        None => tx.open_queue(did)?,
    };
    // The owner may have registered before the first message came.
    let owner = tx.account(did)?;
    if let Some(owner) = &owner {
        tx.rebind(did, owner.id)?;
    }
    let reader = owner.map(|owner| Reader {
        account: owner.id,
        is_closed: false,
        seen_at: owner.seen_at,
    });
    Ok(Some((id, reader)))
}

/// Returns whether a claim admits mail for this DID. The states are asked in the order in which they
/// are likely to admit it, so mostly one is read.
fn accepts_mail(q: &Queries<'_>, did: &str, now: Timestamp) -> Result<bool, StoreError> {
    for state in ClaimState::ALL {
        let claim = q.claim_in(did, *state)?;
        if claim.is_some_and(|claim| Admission::of(&[claim], now).mail) {
            return Ok(true);
        }
    }
    Ok(false)
}
