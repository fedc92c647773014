//! The retirement of a mediator: it takes no new accounts, tells those that it has, and takes mail
//! for them until a day that the operator chose. Mail for accounts that have named another mediator
//! meanwhile goes on to that one, as always; what waits can be fetched after the end, too.

use std::sync::{Arc, PoisonError, RwLock};

use super::queues::NewMessage;
use super::{Core, Mediator, Refused};
use crate::store::{Account, Damage, MailboxStore, StoreError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::didcomm::protocol::problem::{RETIRING, Report};

/// Key in the mailbox's store: when the mediator stops taking mail, in milliseconds since 1970.
const END_KEY: &str = "retires_at";

/// Key in the mailbox's store: the account that was told last, by its id.
const TOLD_KEY: &str = "retirement_told";

/// Accounts that are told in one interval of the maintenance.
const BATCH: usize = 200;

/// Whether and when a mediator retires.
#[derive(Debug, Default)]
pub(super) struct Retirement(RwLock<Option<Timestamp>>);

impl Retirement {
    /// Reads what the operator decided before.
    pub(super) async fn load(mailbox: &MailboxStore) -> Result<Arc<Self>, StoreError> {
        let end = mailbox.query(|q| q.meta(END_KEY)).await?;
        let end = end.map(|text| read_number(&text)).transpose()?;
        Ok(Arc::new(Self(RwLock::new(end.map(Timestamp::from_millis)))))
    }

    /// Returns when the mediator stops taking mail, if it retires.
    pub(super) fn end(&self) -> Option<Timestamp> {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether no mail is taken any more.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.end().is_some_and(|end| end <= now)
    }
}

fn read_number(text: &str) -> Result<i64, StoreError> {
    text.parse()
        .map_err(|_| StoreError::Corrupt(Damage::Contents("the end of the mediator is no number")))
}

impl Mediator {
    /// Returns when the mediator stops taking mail, if it retires.
    pub fn retires_at(&self) -> Option<Timestamp> {
        self.core.retirement.end()
    }

    /// Decides when the mediator stops taking mail; `None`: it goes on after all. On disk when this
    /// returns. Its accounts are told within the next minutes, also after a restart.
    pub async fn retire(&self, end: Option<Timestamp>) -> Result<(), StoreError> {
        let core = &self.core;
        core.mailbox
            .transact(move |tx| {
                tx.delete_meta(TOLD_KEY)?;
                match end {
                    Some(end) => tx.set_meta(END_KEY, &end.millis().to_string()),
                    None => tx.delete_meta(END_KEY),
                }
            })
            .await?;
        let mut current = core
            .retirement
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = end;
        Ok(())
    }
}

impl Core {
    /// Tells some of the accounts that were not told yet that the mediator retires.
    pub(super) async fn tell_retirement(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let Some(end) = self.retirement.end().filter(|end| now < *end) else {
            return Ok(());
        };
        let told = self.mailbox.query(|q| q.meta(TOLD_KEY)).await?;
        let told = told.map_or(Ok(0), |text| read_number(&text))?;
        let accounts = self
            .mailbox
            .query(move |q| q.accounts_after(told, BATCH))
            .await?;
        for account in &accounts {
            self.tell_account(account, end, now).await;
        }
        let Some(last) = accounts.last().map(|account| account.id) else {
            return Ok(());
        };
        tracing::info!(
            accounts = accounts.len(),
            "accounts are told that this mediator retires"
        );
        self.mailbox
            .transact(move |tx| tx.set_meta(TOLD_KEY, &last.to_string()))
            .await
    }

    /// Puts the word into the queue of an account. One whose queue is full learns it from the denied
    /// request to be mediated for again, or from the operator.
    async fn tell_account(&self, account: &Account, end: Timestamp, now: Timestamp) {
        let Ok(party) = Party::resolve(&account.long) else {
            return;
        };
        let mut report = Report::new(RETIRING, "{1} takes no more messages after {2}");
        report.args = vec![self.identity.did().to_string(), end.to_string()];
        let id = format!("retires-{}", end.millis());
        let message = Message::new(id, &report).created_time(now.millis() / 1000);
        let Some(encrypted) = self.encrypt_to(message, &party) else {
            return;
        };
        let expires = now.plus(self.settings.time_to_live);
        let new = NewMessage::new(account.did.clone(), encrypted.into(), now, expires);
        let own = [self.sender_names.own()];
        if let Err(refused) = self.queues.enqueue(vec![new], &own).await
            && refused != Refused::QueueFull
        {
            tracing::warn!(%refused, "an account cannot be told that this mediator retires");
        }
    }
}
