//! Periodic work: follow the directory's change log, expire messages, prune accounts and claims.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::admission::READ_PERIOD;
use super::session::confirm_provisional;
use super::{Core, Mediator, replay};
use crate::directory::DROP;
use crate::store::mailbox::Tx;
use crate::store::{ClaimState, StoreError};
use atcomm_proto::clock::Timestamp;

/// How often the change log is read.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// How often rows that have ended are removed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(10);

/// Rows removed in one transaction. Few, so that new messages do not wait for long.
const ROW_BATCH: usize = 200;

/// Batches of one kind in one interval. After a long downtime there may be many, and removing them
/// is not urgent.
const MAX_BATCHES: usize = 50;

/// An account without requests for this long is removed; it can register again. Longer than any
/// message waits, so no message is lost.
const IDLE_ACCOUNT: Duration = Duration::from_secs(400 * 24 * 3600);

/// A claim of an inactive account, or of one that a new directory does not know, ends after this
/// time: the directory drops such an account after [`DROP`], and its mail can be read for
/// [`READ_PERIOD`] more.
const INACTIVE_CLAIM_PERIOD: Duration = READ_PERIOD.saturating_add(DROP);

/// Relay statistics of a destination are removed after this long without a message.
const IDLE_DESTINATION: Duration = Duration::from_secs(30 * 24 * 3600);

/// Free pages that stay in the file: 64 MiB.
const SPARE_PAGES: u64 = 16_384;

/// Pages returned to the file system in one interval.
const RECLAIM_PAGES: u64 = 512;

/// The periodic work of one mediator.
pub struct Maintenance {
    core: Arc<Core>,
}

impl Maintenance {
    /// Takes a handle of the mediator to maintain.
    pub fn new(mediator: Mediator) -> Self {
        Self {
            core: mediator.core,
        }
    }

    /// Works until `stop`. A step that fails is repeated at its next interval.
    pub async fn run(self, stop: CancellationToken) {
        let (mut follow, mut prune) = (interval(FOLLOW_INTERVAL), interval(PRUNE_INTERVAL));
        follow.set_missed_tick_behavior(MissedTickBehavior::Delay);
        prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let result = tokio::select! {
                () = stop.cancelled() => return,
                _ = follow.tick() => self.follow_directory().await,
                _ = prune.tick() => self.expire_and_prune().await,
            };
            if let Err(error) = result {
                tracing::error!(%error, "the mediator cannot keep its mailbox in order");
            }
        }
    }

    async fn follow_directory(&self) -> Result<(), StoreError> {
        self.core.claims.catch_up().await?;
        self.core.purge_denied().await?;
        // Batch after batch, so that a flood that becomes due at once holds up no other mail for
        // long; other writes go on in between.
        for _ in 0..MAX_BATCHES {
            if !self.core.queues.release_delayed(ROW_BATCH).await? {
                break;
            }
        }
        Ok(())
    }

    async fn expire_and_prune(&self) -> Result<(), StoreError> {
        let now = self.core.clock.now();
        self.core.identity.drop_expired(now);
        self.core.queues.count_shares().await?;
        self.expire_messages(now).await?;
        self.prune_accounts(now).await?;
        self.core
            .mailbox
            .transact(move |tx| {
                replay::prune(tx, now)?;
                tx.prune_outcomes(now.minus(IDLE_DESTINATION), ROW_BATCH)?;
                tx.shrink(SPARE_PAGES, RECLAIM_PAGES)
            })
            .await?;
        self.publish_gauges().await
    }

    async fn expire_messages(&self, now: Timestamp) -> Result<(), StoreError> {
        for _ in 0..MAX_BATCHES {
            let mailbox = &self.core.mailbox;
            let expired = mailbox
                .transact(move |tx| tx.expire(now, ROW_BATCH))
                .await?;
            metrics::counter!("atcomm_mediator_expired_total").increment(expired);
            if expired == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Removes accounts and claims that have ended, and recipients without either.
    async fn prune_accounts(&self, now: Timestamp) -> Result<(), StoreError> {
        for _ in 0..MAX_BATCHES {
            let mailbox = &self.core.mailbox;
            let is_done = mailbox
                .transact(move |tx| prune_accounts_batch(tx, now))
                .await?;
            if is_done {
                break;
            }
        }
        Ok(())
    }

    async fn publish_gauges(&self) -> Result<(), StoreError> {
        let (mail, outbox, accounts, file) = self
            .core
            .mailbox
            .query(|q| {
                Ok((
                    q.totals()?,
                    q.outbox_totals()?,
                    q.account_count()?,
                    q.file_bytes()?,
                ))
            })
            .await?;
        let live_accounts = self.core.queues.live_accounts() as u64;
        let (paused, slow) = self.core.outbox.troubled();
        for (name, value) in [
            ("atcomm_mediator_relay_paused", paused as u64),
            ("atcomm_mediator_relay_slow", slow as u64),
            ("atcomm_mediator_queued_messages", mail.0),
            ("atcomm_mediator_queued_bytes", mail.1),
            ("atcomm_mediator_outbox_messages", outbox.0),
            ("atcomm_mediator_outbox_bytes", outbox.1),
            ("atcomm_mediator_accounts", accounts),
            ("atcomm_mediator_file_bytes", file.0),
            ("atcomm_mediator_live_accounts", live_accounts),
        ] {
            metrics::gauge!(name).set(value as f64);
        }
        Ok(())
    }
}

/// Removes one batch of each kind of row that has ended. Returns whether nothing is left to remove.
fn prune_accounts_batch(tx: &Tx<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let lapsed = tx.lapsed_accounts(now, ROW_BATCH)?;
    for account in &lapsed {
        if !confirm_provisional(tx, account, now)? {
            tx.delete_account(account.id)?;
        }
    }
    let mut claims = 0;
    for (state, period) in [
        (ClaimState::Replaced, READ_PERIOD),
        (ClaimState::Dropped, READ_PERIOD),
        (ClaimState::Inactive, INACTIVE_CLAIM_PERIOD),
    ] {
        let ended = tx.claims_before(state, now.minus(period), ROW_BATCH)?;
        claims += ended.len();
        for claim in ended {
            tx.delete_claim(&claim.account, &claim.peer)?;
        }
    }
    let idle = tx.idle_accounts(now.minus(IDLE_ACCOUNT), ROW_BATCH)?;
    for account in &idle {
        tx.delete_account(account.id)?;
    }
    let recipients = tx.drop_idle_recipients(ROW_BATCH)?;
    let most = lapsed.len().max(claims).max(idle.len());
    Ok(most < ROW_BATCH && recipients < ROW_BATCH as u64)
}
