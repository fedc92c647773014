//! `routing/2.0/forward`: into a queue here, or into the outbox for another mediator.
//!
//! Source: DIDComm Messaging 2.1, "Routing Protocol 2.0".

use std::sync::Arc;
use std::time::Duration;

use super::parties;
use super::queues::{Enqueued, NewMessage};
use super::relay::{NewRelay, NextHop};
use super::session::Session;
use super::{Core, Refused};
use atcomm_net::backoff::Spread;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::envelope::{self, Authenticated};
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::protocol::Request;
use atcomm_proto::didcomm::protocol::routing::Forward;

/// Messages in one forward: each is stored by itself, and clients send one.
const MAX_ATTACHMENTS: usize = 16;

/// Longest delay that a sender may ask for (`delay_milli`).
const MAX_DELAY: Duration = Duration::from_secs(3600);

/// The contents of a forward.
struct ForwardRequest {
    next: String,
    messages: Vec<Arc<[u8]>>,
    /// The messages are not handed out before.
    available_at: Timestamp,
    /// The messages are worthless afterwards.
    expires_at: Option<Timestamp>,
    /// Thread of a report that the messages cannot be delivered.
    thread: String,
    /// Id of the forward, for the same report.
    id: String,
    /// Whether another mediator has made the forward, by its own directory.
    relayed: bool,
}

impl ForwardRequest {
    fn read(message: &Message, next: &str, now: Timestamp) -> Result<Self, Refused> {
        let count = message.attachments.len();
        if count == 0 {
            return Err(unreadable("the forward has no attachment"));
        }
        if count > MAX_ATTACHMENTS {
            return Err(unreadable("the forward has more than 16 attachments"));
        }
        let messages = message.attachments.iter().map(|attachment| {
            let bytes = attachment.bytes().map_err(|_| {
                unreadable("an attachment of the forward is neither json nor base64")
            })?;
            // Only encrypted messages are forwarded: others cannot come from a DIDComm client.
            if envelope::recipient_kids(&bytes).is_empty() {
                return Err(unreadable(
                    "an attachment of the forward is not an encrypted message",
                ));
            }
            Ok(Arc::from(bytes))
        });
        Ok(Self {
            next: next.to_owned(),
            messages: messages.collect::<Result<_, _>>()?,
            available_at: now.plus(delay(message.delay_milli)),
            expires_at: message
                .expires_time
                .map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1000))),
            thread: message.thread().to_owned(),
            id: message.id.clone(),
            relayed: message.relayed,
        })
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Returns the messages as the outbox takes them.
    fn relay(&self, sender: Option<&Authenticated>) -> NewRelay {
        NewRelay {
            messages: self.messages.clone(),
            sender: sender.map(|sender| sender.party.clone()),
            thread: self.thread.clone(),
            id: self.id.clone(),
            not_before: self.available_at,
            expires_at: self.expires_at,
        }
    }
}

fn unreadable(reason: &'static str) -> Refused {
    Refused::Unreadable(reason.into())
}

/// Returns how long a forward is delayed: for a negative number a random time up to its amount.
fn delay(delay_milli: Option<i64>) -> Duration {
    let asked = delay_milli.unwrap_or(0);
    let longest = Duration::from_millis(asked.unsigned_abs()).min(MAX_DELAY);
    if asked >= 0 {
        return longest;
    }
    Spread::random().part(longest)
}

impl<S> Session<S> {
    /// Routes a forward. Returns whether its recipient is unknown and the settings allow to report
    /// that.
    pub(super) async fn forward(
        &self,
        forward: &Forward,
        sender: Option<&Authenticated>,
    ) -> Result<bool, Refused> {
        let ctx = &self.ctx;
        let request = ForwardRequest::read(&ctx.message, &forward.next, ctx.now)?;
        let mut requests = Vec::with_capacity(1);
        if ctx.core.identity.is_named_by(&ctx.keys, &request.next) {
            // The envelope for this mediator holds a forward to this mediator. One such layer is
            // unwrapped and no more, so that a message cannot loop.
            for message in &request.messages {
                requests.push(self.unwrap_self_forward(&request, message).await?);
            }
        } else {
            requests.push((request, sender.cloned()));
        }
        let mut is_unknown = false;
        for (request, sender) in requests {
            let outcome = ctx.core.route_forward(&request, sender.as_ref(), ctx.now);
            is_unknown |= outcome.await? == ForwardOutcome::Unknown;
        }
        Ok(is_unknown && ctx.core.settings.report_unknown)
    }

    /// Opens the forward inside a forward to this mediator. Returns it with its own sender, since the
    /// sender of the outer layer gets no report about it.
    async fn unwrap_self_forward(
        &self,
        outer: &ForwardRequest,
        message: &[u8],
    ) -> Result<(ForwardRequest, Option<Authenticated>), Refused> {
        let ctx = &self.ctx;
        let no_forward = || unreadable("what is forwarded to this mediator itself is no forward");
        let opened = parties::open_envelope(&ctx.core.mailbox, &ctx.keys, message)
            .await?
            .map_err(|_| no_forward())?;
        let inner = Message::parse(&opened.plaintext).map_err(|_| no_forward())?;
        let Ok(Request::Forward(forward)) = Request::read(&inner) else {
            return Err(no_forward());
        };
        if ctx.core.identity.is_named_by(&ctx.keys, &forward.next) {
            count("looped");
            return Err(unreadable(
                "it is forwarded to this mediator again and again",
            ));
        }
        let mut request = ForwardRequest::read(&inner, &forward.next, ctx.now)?;
        request.available_at = request.available_at.max(outer.available_at);
        request.expires_at = match (request.expires_at, outer.expires_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Ok((request, opened.sender))
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("atcomm_mediator_forwards_total", "outcome" => outcome).increment(1);
}

/// The outcome of a forward that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ForwardOutcome {
    /// Its time had ended when it came.
    Expired,
    /// Neither this mediator nor the directory knows the recipient.
    Unknown,
    /// The messages wait in a queue here.
    Queued,
    /// The messages wait in the outbox, and perhaps in a queue here, too.
    Relayed,
}

impl ForwardOutcome {
    /// Stable code for metrics.
    fn code(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Unknown => "unknown",
            Self::Queued => "kept",
            Self::Relayed => "relayed",
        }
    }
}

/// Where the `next` of a forward leads.
enum Destination {
    /// The canonical DID of a recipient.
    Recipient(String),
    /// Another mediator.
    Mediator(NextHop),
    Unknown,
}

/// The outcome of the copy for the recipient's queue here.
enum LocalCopy {
    /// The messages wait in a queue that an account reads.
    Read,
    /// The messages wait in a queue without a reader.
    Unread,
    /// The queue has no reader and is full.
    Full,
    /// The recipient has no queue here.
    NoQueue,
}

/// The outcome of the copies for the other mediators of a recipient.
enum RelayCopies {
    /// No other mediator is known.
    None,
    /// Every copy waits in the outbox.
    Enqueued,
}

impl Core {
    /// Takes the messages of a forward to their next hop. On disk when this returns.
    async fn route_forward(
        &self,
        request: &ForwardRequest,
        sender: Option<&Authenticated>,
        now: Timestamp,
    ) -> Result<ForwardOutcome, Refused> {
        let outcome = if request.is_expired(now) {
            ForwardOutcome::Expired
        } else {
            match self.resolve_destination(request).await? {
                Destination::Recipient(did) => {
                    self.forward_to_recipient(&did, request, sender, now)
                        .await?
                }
                Destination::Mediator(hop) => {
                    let relay = request.relay(sender);
                    self.outbox.enqueue_relay(hop, relay).await?;
                    ForwardOutcome::Relayed
                }
                Destination::Unknown => {
                    // Waits for the same commit as mail to a known recipient.
                    self.queues.enqueue(Vec::new()).await?;
                    ForwardOutcome::Unknown
                }
            }
        };
        count(outcome.code());
        Ok(outcome)
    }

    async fn resolve_destination(&self, request: &ForwardRequest) -> Result<Destination, Refused> {
        if let Some(did) = parties::queue_name(&request.next) {
            return Ok(Destination::Recipient(did));
        }
        let destinations = self.outbox.destinations();
        let hop = destinations.mediator_hop(&request.next, request.relayed);
        Ok(hop
            .await?
            .map_or(Destination::Unknown, Destination::Mediator))
    }

    /// Puts messages into the recipient's queue here and, where no account reads that queue, into
    /// the outbox for the recipient's other mediators. Which of several claims on a did:peer is its
    /// owner's is not known here, so a copy that was not taken may be the one that counts, and
    /// refuses the forward. The copies that were taken stay, and are the same when the sender
    /// repeats the forward.
    async fn forward_to_recipient(
        &self,
        recipient: &str,
        request: &ForwardRequest,
        sender: Option<&Authenticated>,
        now: Timestamp,
    ) -> Result<ForwardOutcome, Refused> {
        let local = self.enqueue_locally(recipient, request, now).await?;
        if matches!(local, LocalCopy::Read) {
            return Ok(ForwardOutcome::Queued);
        }
        let copies = self.relay_copies(recipient, request, sender).await?;
        match (local, copies) {
            (LocalCopy::Full, _) => Err(Refused::QueueFull),
            (_, RelayCopies::Enqueued) => Ok(ForwardOutcome::Relayed),
            (LocalCopy::Read | LocalCopy::Unread, RelayCopies::None) => Ok(ForwardOutcome::Queued),
            (LocalCopy::NoQueue, RelayCopies::None) => Ok(ForwardOutcome::Unknown),
        }
    }

    async fn enqueue_locally(
        &self,
        recipient: &str,
        request: &ForwardRequest,
        now: Timestamp,
    ) -> Result<LocalCopy, Refused> {
        let latest = now.plus(self.settings.time_to_live);
        let expires_at = request.expires_at.unwrap_or(latest).min(latest);
        let message = |body: &Arc<[u8]>| {
            let (recipient, body) = (recipient.to_owned(), Arc::clone(body));
            NewMessage::new(recipient, body, request.available_at, expires_at)
        };
        let messages = request.messages.iter().map(message).collect();
        match self.queues.enqueue(messages).await {
            Ok(outcomes) => Ok(match outcomes.first() {
                Some(Enqueued::Queued(Some(_))) => LocalCopy::Read,
                // The key package that opened the queue may be of another account, which has
                // published this did:peer as its own while the owner uses another mediator.
                Some(Enqueued::Queued(None)) => LocalCopy::Unread,
                Some(Enqueued::UnknownRecipient) | None => LocalCopy::NoQueue,
            }),
            // The same holds for a full queue without a reader.
            Err(Refused::QueueFull) if !self.queues.has_reader(recipient).await? => {
                Ok(LocalCopy::Full)
            }
            Err(refused) => Err(refused),
        }
    }

    /// Puts one copy for each other mediator of the recipient into the outbox. Fails with the last
    /// refusal if any copy is refused; the others are put in all the same.
    async fn relay_copies(
        &self,
        recipient: &str,
        request: &ForwardRequest,
        sender: Option<&Authenticated>,
    ) -> Result<RelayCopies, Refused> {
        // The mediator that has relayed the message here has decided by its own directory. By another
        // directory the message might go back to it.
        if request.relayed {
            return Ok(RelayCopies::None);
        }
        let hops = self.outbox.destinations().other_mediators_of(recipient);
        let mut results = Vec::new();
        for hop in hops.await? {
            let relay = request.relay(sender);
            results.push(self.outbox.enqueue_relay(hop, relay).await);
        }
        if results.is_empty() {
            return Ok(RelayCopies::None);
        }
        let refused = results.into_iter().filter_map(Result::err).next_back();
        refused.map_or(Ok(RelayCopies::Enqueued), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_bounded_and_random_below_zero() {
        assert_eq!(delay(None), Duration::ZERO);
        assert_eq!(delay(Some(1500)), Duration::from_millis(1500));
        assert_eq!(delay(Some(i64::MAX)), MAX_DELAY);
        let random: std::collections::BTreeSet<_> =
            (0..100).map(|_| delay(Some(-1_000_000))).collect();
        assert!(random.len() > 50 && random.iter().all(|d| *d <= Duration::from_secs(1000)));
        assert!(delay(Some(i64::MIN)) <= MAX_DELAY);
    }
}
