//! What has to be done now and then: the directory is followed, what has ended is removed.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::admission::READ_PERIOD;
use super::session::confirm_provisional;
use super::{Core, Mediator, replay};
use crate::directory::DROP;
use crate::store::{ClaimState, ReplayKind, StoreError};

/// How soon a change of the directory counts here.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// How often what has ended is looked for.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(10);

/// Rows removed in one transaction, so that mail that comes does not wait for long.
const ROW_BATCH: usize = 200;

/// Slices of one kind in one round: after a long pause there is much, and it is not urgent.
const MAX_BATCHES: usize = 50;

/// An account that asked for nothing this long is forgotten; it can register again. Longer than
/// any message waits, so that nothing is lost by it.
const IDLE_ACCOUNT: Duration = Duration::from_secs(400 * 24 * 3600);

/// A claim whose account was switched off, or is not known to a new directory, ends after the time
/// after which the directory drops such an account, and the time for reading after that.
const INACTIVE_CLAIM_PERIOD: Duration = READ_PERIOD.saturating_add(DROP);

/// How long it is remembered how it went with a mediator that nothing is carried to any more.
const IDLE_DESTINATION: Duration = Duration::from_secs(30 * 24 * 3600);

/// Free pages that are left in the file, 64 MiB of them, and those given back at a time.
const SPARE_PAGES: u64 = 16_384;
const RECLAIM_PAGES: u64 = 512;

/// Follows the directory and tidies up until it is told to stop.
pub struct Maintenance {
    mediator: Mediator,
}

impl Maintenance {
    /// Of this mediator.
    pub fn new(mediator: Mediator) -> Self {
        Self { mediator }
    }

    /// Works until `stop`. What fails is tried again in the next round.
    pub async fn run(self, stop: CancellationToken) {
        let core = &self.mediator.core;
        let (mut follow, mut round) = (interval(FOLLOW_INTERVAL), interval(MAINTENANCE_INTERVAL));
        follow.set_missed_tick_behavior(MissedTickBehavior::Delay);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let result = tokio::select! {
                () = stop.cancelled() => return,
                _ = follow.tick() => core.follow_directory().await,
                _ = round.tick() => core.expire_and_prune().await,
            };
            if let Err(error) = result {
                tracing::error!(%error, "the mediator cannot keep its mailbox in order");
            }
        }
    }
}

impl Core {
    async fn follow_directory(&self) -> Result<(), StoreError> {
        self.admission.catch_up().await?;
        let now = self.clock.now();
        // Mail that was to wait comes to the end of its queue, where those who read on find it.
        let accounts = self
            .mailbox
            .transact(move |tx| {
                let mut accounts = Vec::new();
                for recipient in tx.release(now, ROW_BATCH)? {
                    accounts.extend(tx.reader_of(recipient)?);
                }
                Ok(accounts)
            })
            .await?;
        accounts
            .into_iter()
            .for_each(|account| self.live.wake(account));
        Ok(())
    }

    async fn expire_and_prune(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.drop_expired_keys(now);
        for _ in 0..MAX_BATCHES {
            let expired = self
                .mailbox
                .transact(move |tx| tx.expire(now, ROW_BATCH))
                .await?;
            metrics::counter!("atcomm_mediator_expired_total").increment(expired);
            if expired < ROW_BATCH as u64 {
                break;
            }
        }
        for _ in 0..MAX_BATCHES {
            let done = self
                .mailbox
                .transact(move |tx| {
                    let lapsed = tx.lapsed_accounts(now, ROW_BATCH)?;
                    for account in &lapsed {
                        if !confirm_provisional(tx, account, now)? {
                            tx.delete_account(account.id)?;
                        }
                    }
                    let mut ended = 0;
                    for (state, time) in [
                        (ClaimState::Replaced, READ_PERIOD),
                        (ClaimState::Dropped, READ_PERIOD),
                        (ClaimState::Inactive, INACTIVE_CLAIM_PERIOD),
                    ] {
                        let over = tx.claims_before(state, now.minus(time), ROW_BATCH)?;
                        ended += over.len();
                        for claim in over {
                            tx.delete_claim(&claim.account, &claim.peer)?;
                        }
                    }
                    let idle = tx.idle_accounts(now.minus(IDLE_ACCOUNT), ROW_BATCH)?;
                    for account in &idle {
                        tx.delete_account(account.id)?;
                    }
                    let dropped = tx.drop_idle_recipients(ROW_BATCH)?;
                    let most = lapsed.len().max(ended).max(idle.len());
                    Ok(most < ROW_BATCH && dropped < ROW_BATCH as u64)
                })
                .await?;
            if done {
                break;
            }
        }
        self.mailbox
            .transact(move |tx| {
                for kind in [ReplayKind::Write, ReplayKind::Read] {
                    let keep = replay::MAX_REQUESTS as u64;
                    tx.prune_replays(kind, now.minus(replay::WINDOW), keep)?;
                }
                tx.prune_outcomes(now.minus(IDLE_DESTINATION), ROW_BATCH)?;
                tx.shrink(SPARE_PAGES, RECLAIM_PAGES)
            })
            .await?;
        self.publish_gauges().await
    }

    /// Sets the gauges.
    async fn publish_gauges(&self) -> Result<(), StoreError> {
        let (mail, outbox, accounts, file) = self
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
        for (name, value) in [
            ("atcomm_mediator_queued_messages", mail.0),
            ("atcomm_mediator_queued_bytes", mail.1),
            ("atcomm_mediator_outbox_messages", outbox.0),
            ("atcomm_mediator_outbox_bytes", outbox.1),
            ("atcomm_mediator_accounts", accounts),
            ("atcomm_mediator_file_bytes", file.0),
            ("atcomm_mediator_live_accounts", self.live.accounts() as u64),
        ] {
            metrics::gauge!(name).set(value as f64);
        }
        Ok(())
    }
}
