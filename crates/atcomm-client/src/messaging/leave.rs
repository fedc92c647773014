//! Leaving mediators: telling them to accept no more mail, once nothing can wait there.

use std::time::Duration;

use super::inbox::{Inbox, InboxError, OwnQueue, Queue};
use crate::mediator::client::MediatorClient;
use crate::wallet::enrolment::{Enrolment, KeyState, MessagingKey, REPLACED_KEY_RETENTION};
use atcomm_net::identity::Freshness;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::MediatorDid;

/// Time after its replacement at which a key is not used for leaving mediators any more. Mail to it
/// cannot be read by then, so nothing is lost where a mediator is never told.
const LEAVING_GIVEN_UP_AFTER: Duration = REPLACED_KEY_RETENTION.saturating_mul(2);

impl Inbox {
    /// Tells the mediator of a queue to accept no more mail for the key, where the time is over for
    /// which it is asked and it says that nothing waits. Returns whether it was told. No other
    /// process changes the enrolment meanwhile; where one does, the mediator is left another time.
    pub(super) async fn leave(
        &self,
        queue: &OwnQueue,
        client: &MediatorClient,
    ) -> Result<bool, InboxError> {
        let now = self.clock.now();
        if !self.may_leave(queue, now)? {
            return Ok(false);
        }
        let Some(_lock) = self.store.change_lock()? else {
            return Ok(false);
        };
        // The enrolment may have changed before the lock was taken.
        if !self.may_leave(queue, now)? || client.status().await?.message_count > 0 {
            return Ok(false);
        }
        client.remove().await?;
        let _lock = self.store.lock()?;
        let Some(mut enrolment) = self.store.enrolment()? else {
            return Ok(false);
        };
        let of_key = |key: &&mut MessagingKey| key.peer == queue.key.peer;
        for key in enrolment.keys.iter_mut().filter(of_key) {
            let did = &queue.name.mediator;
            key.registered.retain(|one| one != did);
            key.dropped.retain(|one| one.did != *did);
        }
        self.store.save(&enrolment)?;
        Ok(true)
    }

    fn may_leave(&self, queue: &OwnQueue, now: Timestamp) -> Result<bool, InboxError> {
        let enrolment = self.store.enrolment()?;
        Ok(enrolment.is_some_and(|enrolment| {
            let of_key = |key: &&MessagingKey| key.peer == queue.key.peer;
            let key = enrolment.keys.iter().find(of_key);
            key.is_some_and(|key| {
                let is_held = enrolment.holders(key).contains(&&queue.name.mediator);
                is_held && enrolment.may_leave(key, &queue.name.mediator, now)
            })
        }))
    }

    /// Leaves the mediators of expired keys, as far as they answer: mail to these keys cannot be read
    /// any more.
    pub(super) async fn leave_expired(&self) {
        let Ok(Some(enrolment)) = self.store.enrolment() else {
            return;
        };
        for queue in expired(&enrolment, self.clock.now()) {
            if let Ok(client) = self.open(&queue, Freshness::Cached).await {
                // A mediator that fails is told by a later run, or never.
                drop(self.leave(&queue, &client).await);
            }
        }
    }
}

/// Returns the queues of expired keys whose mediators were not left.
fn expired(enrolment: &Enrolment, now: Timestamp) -> Vec<OwnQueue> {
    let is_due = |key: &&MessagingKey| {
        let since = match key.state {
            KeyState::Replaced { at } => now.since(at),
            KeyState::Minted | KeyState::Published { .. } => return false,
        };
        !key.reads(now) && since < LEAVING_GIVEN_UP_AFTER
    };
    let queue = |key: &MessagingKey, mediator: &MediatorDid| OwnQueue {
        name: Queue {
            mediator: mediator.clone(),
            peer: key.peer.as_str().to_owned(),
            is_current: false,
        },
        key: key.clone(),
    };
    enrolment
        .keys
        .iter()
        .filter(is_due)
        .flat_map(|key| {
            let holders = enrolment.holders(key).into_iter();
            holders.map(move |did| queue(key, did))
        })
        .collect()
}
