//! `messagepickup` 3.0 and `message-pickup` 4.0: messages are counted, delivered and acknowledged.
//!
//! The id of a message is the SHA-256 of its bytes in hexadecimal, so that a recipient to whom
//! version 3.0 pushes the bare message can compute the id to acknowledge.

use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;

use super::{LiveChange, LiveMode, Registered, Reply, Session, Transport, WrappedDelivery};
use crate::mediator::delivery::{DeliveryRoom, Wrapping};
use crate::mediator::{Refused, fresh_id, parties};
use crate::store::{Message as Mail, Queue, QueueStatus, StoreError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::message::{Attachment, Message};
use atcomm_proto::didcomm::protocol::pickup::{Reply as PickupReply, Request, Status, Version};
use atcomm_proto::didcomm::protocol::problem::{Code, Report};

/// Accounts in live mode on one socket.
const MAX_LIVE: usize = 16;

/// Messages in one delivery, even if the request allows more.
const MAX_DELIVERY: usize = 100;

/// A queue without messages: ids of recipients begin at 1.
const NO_QUEUE: Queue = Queue::Recipient(0);

impl Session<Registered> {
    pub(super) async fn pick_up(
        self,
        version: Version,
        request: Request,
    ) -> Result<Reply, Refused> {
        self.touch().await?;
        match request {
            Request::Status { recipient_did } => self.status(version, recipient_did).await,
            Request::Delivery {
                limit,
                recipient_did,
            } => self.deliver(version, limit, recipient_did).await,
            Request::Received(ids) => self.acknowledge(version, &ids).await,
            Request::Live(on) => self.change_live(version, on).await,
        }
    }

    /// Records that the account is in use, at most once a minute.
    async fn touch(&self) -> Result<(), StoreError> {
        let (account, now) = (self.state.account.clone(), self.ctx.now);
        if now.since(account.seen_at) < SEEN_AT_PRECISION {
            return Ok(());
        }
        let mailbox = &self.ctx.core.mailbox;
        mailbox
            .transact(move |tx| tx.touch_account(account.id, now))
            .await
    }

    /// Returns the queue of the account: all its recipients, or none where it may not read.
    fn own_queue(&self) -> Queue {
        if self.state.may_read {
            Queue::Account(self.state.account.id)
        } else {
            NO_QUEUE
        }
    }

    /// Returns the queue that a request is about: that of one recipient of the account, or all. `None`
    /// if the recipient is not registered to the account.
    async fn queue(&self, recipient: Option<&str>) -> Result<Option<Queue>, StoreError> {
        let account = self.state.account.id;
        let Some(named) = recipient else {
            return Ok(Some(self.own_queue()));
        };
        let Some(did) = parties::canonical(named) else {
            return Ok(None);
        };
        let own = did == self.state.account.did;
        let found = self
            .ctx
            .core
            .mailbox
            .query(move |q| q.recipient(&did))
            .await?;
        Ok(match found {
            Some(one) if one.account == Some(account) => Some(if self.state.may_read {
                Queue::Recipient(one.id)
            } else {
                NO_QUEUE
            }),
            // The DID of the account itself, without mail so far. Mail of its aliases is not counted.
            None if own => Some(NO_QUEUE),
            _ => None,
        })
    }

    fn foreign_recipient(&self) -> Reply {
        let comment = "recipient_did is not registered to the sender's account";
        Reply::of(self.ctx.report(&Report::new(Code::NotEnrolled, comment)))
    }

    fn respond(&self, version: Version, answer: PickupReply) -> Reply {
        Reply::of(self.ctx.reply(answer.write(version, fresh_id())))
    }

    async fn status(&self, version: Version, recipient: Option<String>) -> Result<Reply, Refused> {
        let Some(queue) = self.queue(recipient.as_deref()).await? else {
            return Ok(self.foreign_recipient());
        };
        let now = self.ctx.now;
        let status = self
            .ctx
            .core
            .mailbox
            .query(move |q| q.queue(queue, now))
            .await?;
        Ok(self.respond(version, self.status_body(&status, recipient)))
    }

    fn status_body(&self, status: &QueueStatus, recipient_did: Option<String>) -> PickupReply {
        PickupReply::Status(Status {
            message_count: status.messages,
            recipient_did,
            longest_waited: status.oldest.map(|oldest| self.ctx.now.since(oldest)),
            newest_received: status.newest,
            oldest_received: status.oldest,
            total_bytes: Some(status.bytes),
            live_delivery: match &self.ctx.transport {
                Transport::Socket { live, .. } => live.contains(&self.state.account.id),
                Transport::Http(_) => false,
            },
        })
    }

    async fn deliver(
        &self,
        version: Version,
        limit: u64,
        recipient: Option<String>,
    ) -> Result<Reply, Refused> {
        let Some(queue) = self.queue(recipient.as_deref()).await? else {
            return Ok(self.foreign_recipient());
        };
        let limit = usize::try_from(limit).map_or(MAX_DELIVERY, |limit| limit.min(MAX_DELIVERY));
        let now = self.ctx.now;
        // Before any body is read, and until the answer is written.
        let mut room = DeliveryRoom::new(Wrapping::Delivery, self.response_permit());
        let (status, mail, room) = self
            .ctx
            .core
            .mailbox
            .query(move |q| {
                let mail = q.peek(queue, 0, limit, |len| room.take(len), now)?;
                let status = if mail.is_empty() {
                    q.queue(queue, now)?
                } else {
                    QueueStatus::default()
                };
                Ok((status, mail, room))
            })
            .await?;
        let permit = room.finish().map_err(|(no_room, _)| no_room)?;
        if mail.is_empty() && version == Version::V3 {
            return Ok(self.respond(version, self.status_body(&status, recipient)));
        }
        metrics::counter!("atcomm_mediator_handed_out_total", "how" => "delivery")
            .increment(mail.len() as u64);
        let answer = PickupReply::Delivery {
            recipient_did: recipient,
            messages: attachments(mail),
        };
        Ok(Reply {
            permit: Some(permit),
            ..self.respond(version, answer)
        })
    }

    async fn acknowledge(&self, version: Version, ids: &[String]) -> Result<Reply, Refused> {
        let (account, queue, now) = (self.state.account.id, self.own_queue(), self.ctx.now);
        // A malformed id names no message, so there is nothing to remove.
        let hashes: Vec<[u8; 32]> = ids
            .iter()
            .filter(|_| self.state.may_read)
            .filter_map(|id| HEX.decode(id.as_bytes()).ok()?.try_into().ok())
            .collect();
        let (removed, status) = self
            .ctx
            .core
            .mailbox
            .transact(move |tx| {
                let removed = tx.ack(account, &hashes)?;
                Ok((removed, tx.queue(queue, now)?))
            })
            .await?;
        metrics::counter!("atcomm_mediator_acknowledged_total").increment(removed);
        Ok(self.respond(version, self.status_body(&status, None)))
    }

    async fn change_live(&self, version: Version, on: bool) -> Result<Reply, Refused> {
        let room = match &self.ctx.transport {
            Transport::Http(_) => false,
            Transport::Socket { live, .. } => {
                live.len() < MAX_LIVE || live.contains(&self.state.account.id)
            }
        };
        if on && !room {
            return Ok(Reply::of(self.ctx.problem(Code::LiveModeNotSupported)));
        }
        let (account, queue, now) = (self.state.account.id, self.own_queue(), self.ctx.now);
        let (after, status) = self
            .ctx
            .core
            .mailbox
            .query(move |q| {
                let status = q.queue(queue, now)?;
                Ok((q.newest_message()?, status))
            })
            .await?;
        let mut answer = self.status_body(&status, None);
        if let PickupReply::Status(status) = &mut answer {
            status.live_delivery = on;
        }
        let mode = LiveMode {
            after,
            wrapped: (version == Version::V4).then(|| WrappedDelivery {
                to: self.state.sender.clone(),
                from: self.ctx.own.party.did().to_owned(),
            }),
        };
        Ok(Reply {
            live: Some(LiveChange {
                account,
                on: on.then_some(mode),
            }),
            ..self.respond(version, answer)
        })
    }
}

/// The time of an account's last request is recorded with this precision.
const SEEN_AT_PRECISION: Duration = Duration::from_secs(60);

/// Returns the attachments that deliver messages. Each body is dropped as soon as it is in one.
fn attachments(mail: Vec<Mail>) -> Vec<Attachment> {
    let attachment = |one: Mail| Attachment::message(HEX.encode(&one.hash), &one.body);
    mail.into_iter().map(attachment).collect()
}

/// Returns a delivery of messages that came while a socket was in live mode (4.0).
pub(in crate::mediator) fn live_delivery(mail: Vec<Mail>, now: Timestamp) -> Message {
    let answer = PickupReply::Delivery {
        recipient_did: None,
        messages: attachments(mail),
    };
    answer
        .write(Version::V4, fresh_id())
        .created_time(now.millis() / 1000)
}
