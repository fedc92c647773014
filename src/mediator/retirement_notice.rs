//! The word to each account that this mediator retires.

use super::queues::NewMessage;
use super::retirement::{TOLD_KEY, read_number};
use super::{Core, Refused};
use crate::store::{Account, StoreError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::didcomm::protocol::problem::{RETIRING, Report};

/// Accounts that are told in one interval of the maintenance.
const BATCH: usize = 200;

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
