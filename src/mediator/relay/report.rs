//! Reports to senders whose messages could not be delivered.

use std::sync::Arc;

use super::outbox::{NewRelay, count};
use super::{NextHop, Relay};
use crate::mediator::queues::{Enqueued, NewMessage};
use crate::store::Outbound;
use atcomm_proto::didcomm::envelope::{self, Curve};
use atcomm_proto::didcomm::message::{Message, fresh_id};
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::didcomm::protocol::problem::Report;
use atcomm_proto::syntax::MediatorDid;

/// Problem code of the reports.
const UNDELIVERABLE: &str = "e.p.xfer.undeliverable";

impl Relay {
    /// Reports to the sender of a message that it was not delivered, if the sender is known and has
    /// a queue here or names another mediator. Reports never lead to reports.
    pub(super) async fn report_undeliverable(&self, row: &Outbound, hop: &NextHop, reason: &str) {
        let Some(Ok(sender)) = row.sender.as_deref().map(Party::resolve) else {
            return;
        };
        let now = self.core.clock.now();
        let mut report = Report::new(UNDELIVERABLE, "{1} did not take the message: {2}");
        let tried: Vec<&str> = hop.mediators.iter().map(MediatorDid::as_str).collect();
        report.args = vec![tried.join(", "), reason.to_owned()];
        let mut message = Message::new(fresh_id(), &report)
            .pthid(row.thread.clone().unwrap_or_default())
            .created_time(now.millis() / 1000);
        if let Some(forward) = &hop.forward {
            message = message.ack(forward);
        }
        let Some(encrypted) = self.encrypt_to(message, &sender) else {
            return;
        };
        let body: Arc<[u8]> = encrypted.into();
        let report = NewMessage::new(
            sender.canonical().to_owned(),
            Arc::clone(&body),
            now,
            now.plus(self.core.settings.time_to_live),
        );
        let queues = &self.core.queues;
        let own = [self.core.sender_names.own()];
        let is_read = match queues.enqueue(vec![report], &own).await {
            Ok(outcomes) => match outcomes.first() {
                Some(Enqueued::Queued { reader }) => {
                    count("reported");
                    queues.is_read(reader.as_ref())
                }
                Some(Enqueued::UnknownRecipient) | None => false,
            },
            Err(refused) => {
                tracing::warn!(%refused, "a report cannot be queued here");
                false
            }
        };
        let destinations = self.core.outbox.destinations();
        let others = destinations.other_mediators_of(sender.canonical()).await;
        let others = others.unwrap_or_default();
        // As for a forward: the queue here may be one that the sender does not read.
        if is_read && !others.have_first {
            return;
        }
        for hop in others.hops {
            let relay = NewRelay {
                messages: vec![Arc::clone(&body)],
                sender: None,
                thread: String::new(),
                id: String::new(),
                not_before: now,
                expires_at: None,
                charged_to: own.to_vec(),
            };
            if self.core.outbox.enqueue_relay(hop, relay).await.is_ok() {
                count("reported");
            }
        }
    }

    /// Encrypts a message of this mediator to a party's first key.
    fn encrypt_to(&self, message: Message, to: &Party) -> Option<Vec<u8>> {
        let keys = self.core.identity.keys();
        let own = keys.web_identity();
        let key = to
            .key_agreement()
            .iter()
            .find(|key| key.curve() == Curve::X25519)?;
        let message = message.from(own.party.did()).to(to.did());
        envelope::authcrypt(&message.to_vec(), &own.agreement, std::slice::from_ref(key)).ok()
    }
}
