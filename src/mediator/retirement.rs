//! The retirement of a mediator: it takes no new accounts, tells those that it has, and takes mail
//! for them until a day that the operator chose. Mail for accounts that have named another mediator
//! meanwhile goes on to that one, as always; what waits can be fetched after the end, too.

use std::sync::{Arc, PoisonError, RwLock};

use super::Mediator;
use crate::store::{Damage, MailboxStore, StoreError};
use atcomm_proto::clock::Timestamp;

/// Key in the mailbox's store: when the mediator stops taking mail, in milliseconds since 1970.
const END_KEY: &str = "retires_at";

/// Key in the mailbox's store: the account that was told last, by its id.
pub(super) const TOLD_KEY: &str = "retirement_told";

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

pub(super) fn read_number(text: &str) -> Result<i64, StoreError> {
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
