//! Mail into queues: who takes it, how much, and what that wakes.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota as Rate, RateLimiter};
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::admission::Admission;
use super::{Core, Refused};
use crate::store::mailbox::{Queries, Tx};
use crate::store::{Abort, ClaimState, Push, Pushed, Quota, StoreError};
use atcomm_proto::clock::Timestamp;

/// When something came for nobody, in the mailbox's store.
const UNKNOWN_KEY: &str = "unknown_at";

/// Recipients whose rates are remembered; the ones unseen for longest are forgotten first.
const MAX_RECIPIENTS: u64 = 100_000;

/// A recipient that got nothing this long is forgotten: its allowance is full again by then.
const FORGET: Duration = Duration::from_secs(120);

/// A rate per recipient, so that a flood to one does not fill the store's queue of writes.
pub(super) struct RecipientLimiter {
    rate: Rate,
    clock: DefaultClock,
    by_recipient: Cache<[u8; 32], Arc<DefaultDirectRateLimiter>>,
}

impl RecipientLimiter {
    pub(super) fn new(per_minute: u32) -> Self {
        Self {
            rate: Rate::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN)),
            clock: DefaultClock::default(),
            by_recipient: Cache::builder()
                .max_capacity(MAX_RECIPIENTS)
                .time_to_idle(FORGET)
                .build(),
        }
    }

    /// Takes one message from the recipient's allowance. What is not known here has one, too, so
    /// that being refused tells nothing.
    fn charge(&self, recipient: &str) -> Result<(), Refused> {
        let limiter = self
            .by_recipient
            .get_with(Sha256::digest(recipient).into(), || {
                Arc::new(RateLimiter::direct(self.rate))
            });
        limiter
            .check()
            .map_err(|wait| Refused::RateLimited(wait.wait_time_from(self.clock.now())))
    }
}

/// One message for one queue.
pub(super) struct NewMessage {
    /// The canonical DID of its recipient.
    pub(super) recipient: String,
    pub(super) body: Arc<[u8]>,
    /// SHA-256 of the body: its id for the recipient.
    pub(super) hash: [u8; 32],
    /// Not to be handed out before.
    pub(super) available_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// What became of mail.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Enqueued {
    /// It is on disk. The account to be woken, if one is registered.
    Queued(Option<i64>),
    /// No mail is kept for this recipient.
    UnknownRecipient,
}

impl Core {
    /// Puts messages of one envelope into queues: all of them, or none and a reason. On disk when
    /// it returns; who waits for them has been woken. Recipients that are not known take the same
    /// way through the same commit.
    pub(super) async fn enqueue(&self, mail: Vec<NewMessage>) -> Result<Vec<Enqueued>, Refused> {
        for message in &mail {
            self.by_recipient.charge(&message.recipient)?;
        }
        let now = self.clock.now();
        let quota = Quota {
            messages: self.settings.queue_messages,
            bytes: self.settings.queue_bytes,
            total_bytes: self.settings.total_bytes,
        };
        let open = self.policy.is_open();
        let delivered = self
            .mailbox
            .attempt(move |tx| {
                let push = |message| push(tx, message, &quota, open, now);
                let delivered = mail.iter().map(push).collect::<Result<Vec<_>, _>>()?;
                if !delivered
                    .iter()
                    .any(|one| matches!(one, Enqueued::Queued(_)))
                {
                    // A commit that writes nothing does not wait for the disk, and would tell who
                    // is unknown by its haste.
                    tx.set_meta(UNKNOWN_KEY, &now.millis().to_string())?;
                }
                Ok(delivered)
            })
            .await?;
        for outcome in &delivered {
            if let Enqueued::Queued(Some(account)) = outcome {
                self.live.wake(*account);
            }
        }
        Ok(delivered)
    }
}

fn push(
    tx: &Tx<'_>,
    message: &NewMessage,
    quota: &Quota,
    open: bool,
    now: Timestamp,
) -> Result<Enqueued, Abort<Refused>> {
    let Some((recipient, account)) = queue_of(tx, &message.recipient, open, now)? else {
        return Ok(Enqueued::UnknownRecipient);
    };
    let push = Push {
        recipient,
        hash: message.hash,
        body: &message.body,
        now,
        available_at: message.available_at,
        expires_at: message.expires_at,
    };
    match tx.push(&push, quota)? {
        // What waits already was woken for already, but once more does no harm.
        Pushed::Stored(_) | Pushed::Duplicate => Ok(Enqueued::Queued(account)),
        // Nothing of the envelope is kept then.
        Pushed::RecipientFull | Pushed::StoreFull => Err(Abort::Refused(Refused::QueueFull)),
        // Found or opened in this very transaction.
        Pushed::Gone => {
            let gone = "a queue is gone within a transaction".to_owned();
            Err(StoreError::Corrupt(gone).into())
        }
    }
}

/// The queue of a recipient for whom mail is taken, opened if need be, and the account that reads
/// it.
fn queue_of(
    tx: &Tx<'_>,
    did: &str,
    open: bool,
    now: Timestamp,
) -> Result<Option<(i64, Option<i64>)>, StoreError> {
    let known = tx.recipient(did)?.map(|one| (one.id, one.account));
    let bound = known.is_some_and(|(_, account)| account.is_some());
    if !(open && bound || accepts_mail(tx, did, now)?) {
        return Ok(None);
    }
    if bound {
        return Ok(known);
    }
    let id = match known {
        Some((id, _)) => id,
        None => tx.open_queue(did)?,
    };
    // Its owner may have registered before the first mail came.
    let owner = tx.account(did)?.map(|account| account.id);
    if let Some(owner) = owner {
        tx.rebind(did, owner)?;
    }
    Ok(Some((id, owner)))
}

/// Whether accounts have published that mail for this DID is kept here. Claims that stand come
/// first, so that mostly one is read.
fn accepts_mail(q: &Queries<'_>, did: &str, now: Timestamp) -> Result<bool, StoreError> {
    for state in ClaimState::ALL {
        let claim = q.claim_in(did, *state)?;
        if claim.is_some_and(|claim| Admission::of(&[claim], now).mail) {
            return Ok(true);
        }
    }
    Ok(false)
}
