//! What has to be done now and then: the directory is followed, what has ended is removed.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::admission::READING;
use super::session::confirm;
use super::{Inner, Mediator, replay};
use crate::directory::DROP;
use crate::store::{ClaimState, ReplayKind, StoreError};

/// How soon a change of the directory counts here.
const FOLLOW: Duration = Duration::from_secs(1);

/// How often what has ended is looked for.
const ROUND: Duration = Duration::from_secs(10);

/// Rows removed in one transaction, so that mail that comes does not wait for long.
const SLICE: usize = 200;

/// Slices of one kind in one round: after a long pause there is much, and it is not urgent.
const SLICES: usize = 50;

/// An account that asked for nothing this long is forgotten; it can register again. Longer than
/// any message waits, so that nothing is lost by it.
const IDLE_ACCOUNT: Duration = Duration::from_secs(400 * 24 * 3600);

/// A claim whose account was switched off, or is not known to a new directory, ends after the time
/// after which the directory drops such an account, and the time for reading after that.
const PAUSED: Duration = READING.saturating_add(DROP);

/// How long it is remembered how it went with a mediator that nothing is carried to any more.
const IDLE_DESTINATION: Duration = Duration::from_secs(30 * 24 * 3600);

/// Free pages that are left in the file, 64 MiB of them, and those given back at a time.
const SPARE_PAGES: u64 = 16_384;
const SHRINK_PAGES: u64 = 512;

/// Follows the directory and tidies up until it is told to stop.
pub struct Keeper {
    mediator: Mediator,
}

impl Keeper {
    /// Of this mediator.
    pub fn new(mediator: Mediator) -> Self {
        Self { mediator }
    }

    /// Works until `stop`. What fails is tried again in the next round.
    pub async fn run(self, stop: CancellationToken) {
        let inner = &self.mediator.inner;
        let (mut follow, mut round) = (interval(FOLLOW), interval(ROUND));
        follow.set_missed_tick_behavior(MissedTickBehavior::Delay);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let result = tokio::select! {
                () = stop.cancelled() => return,
                _ = follow.tick() => inner.follow().await,
                _ = round.tick() => inner.tidy().await,
            };
            if let Err(error) = result {
                tracing::error!(%error, "the mediator cannot keep its mailbox in order");
            }
        }
    }
}

impl Inner {
    async fn follow(&self) -> Result<(), StoreError> {
        self.admission.catch_up().await?;
        let now = self.clock.now();
        // Mail that was to wait comes to the end of its queue, where those who read on find it.
        let accounts = self
            .mailbox
            .transact(move |tx| {
                let mut accounts = Vec::new();
                for recipient in tx.release(now, SLICE)? {
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

    async fn tidy(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.forget_ended_keys(now);
        for _ in 0..SLICES {
            let expired = self
                .mailbox
                .transact(move |tx| tx.expire(now, SLICE))
                .await?;
            metrics::counter!("atcomm_mediator_expired_total").increment(expired);
            if expired < SLICE as u64 {
                break;
            }
        }
        for _ in 0..SLICES {
            let done = self
                .mailbox
                .transact(move |tx| {
                    let lapsed = tx.lapsed_accounts(now, SLICE)?;
                    for account in &lapsed {
                        if !confirm(tx, account, now)? {
                            tx.delete_account(account.id)?;
                        }
                    }
                    let mut ended = 0;
                    for (state, time) in [
                        (ClaimState::Replaced, READING),
                        (ClaimState::Dropped, READING),
                        (ClaimState::Inactive, PAUSED),
                    ] {
                        let over = tx.claims_before(state, now.minus(time), SLICE)?;
                        ended += over.len();
                        for claim in over {
                            tx.delete_claim(&claim.account, &claim.peer)?;
                        }
                    }
                    let idle = tx.idle_accounts(now.minus(IDLE_ACCOUNT), SLICE)?;
                    for account in &idle {
                        tx.delete_account(account.id)?;
                    }
                    let dropped = tx.drop_idle_recipients(SLICE)?;
                    let most = lapsed.len().max(ended).max(idle.len());
                    Ok(most < SLICE && dropped < SLICE as u64)
                })
                .await?;
            if done {
                break;
            }
        }
        self.mailbox
            .transact(move |tx| {
                for kind in [ReplayKind::Change, ReplayKind::Question] {
                    let keep = replay::MAX_REQUESTS as u64;
                    tx.prune_replays(kind, now.minus(replay::WINDOW), keep)?;
                }
                tx.prune_outcomes(now.minus(IDLE_DESTINATION), SLICE)?;
                tx.shrink(SPARE_PAGES, SHRINK_PAGES)
            })
            .await?;
        self.show().await
    }

    /// Sets the gauges.
    async fn show(&self) -> Result<(), StoreError> {
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
