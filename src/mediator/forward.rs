//! `routing/2.0/forward`: into a queue here, or into the outbox for another mediator.
//!
//! Source: DIDComm Messaging 2.1, "Routing Protocol 2.0".

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::parties;
use super::queues::{Enqueued, NewMessage};
use super::relay::{NewRelay, NextHop, OtherMediators};
use super::session::Session;
use super::{Core, Refused};
use crate::store::{Sender, StoreError};
use atcomm_net::backoff::Spread;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::envelope::{self, Authenticated, EnvelopeError};
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::protocol::Request;
use atcomm_proto::didcomm::protocol::routing::Forward;

/// Messages in one forward: each is stored by itself, and clients send one.
const MAX_ATTACHMENTS: usize = 16;

/// Messages that one request may put into queues, and copies that it may put into the outbox.
const MAX_COPIES: usize = 64;

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
    /// The parties that its sender is.
    senders: Vec<Sender>,
    copies: Option<Arc<Copies>>,
}

/// What one request may still cause, and the address that it is charged to. A request pays for its
/// first message when it comes, and here for all further messages and copies.
struct Copies {
    address: IpAddr,
    left: AtomicUsize,
}

impl Copies {
    /// Takes the copies of `messages` messages for `hops` hops.
    fn take(&self, core: &Core, messages: usize, hops: usize) -> Result<(), Refused> {
        let copies = messages.saturating_mul(hops);
        let take = |left: usize| left.checked_sub(copies);
        let order = Ordering::Relaxed;
        if self.left.fetch_update(order, order, take).is_err() {
            return Err(unreadable(
                "it would make more than 64 copies for other mediators; send fewer messages in one",
            ));
        }
        core.charge_more(self.address, copies.saturating_sub(messages))
    }
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
            check_attachment(&bytes).map(|()| Arc::from(bytes))
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
            senders: Vec::new(),
            copies: None,
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
            charged_to: self.senders.clone(),
        }
    }
}

/// Checks the content of an attachment. Only encrypted messages are forwarded: others cannot come
/// from a DIDComm client. A message that the recipient's parser refuses would make the delivery
/// that contains it unreadable, and all that waits behind it.
fn check_attachment(bytes: &[u8]) -> Result<(), Refused> {
    envelope::check_encrypted(bytes).map_err(|error| match error {
        EnvelopeError::IJson(why) => Refused::Unreadable(
            format!("some clients cannot read an attachment of the forward as JSON: {why}").into(),
        ),
        _ => unreadable("an attachment of the forward is not an encrypted message"),
    })
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
        let messages: usize = requests.iter().map(|(one, _)| one.messages.len()).sum();
        if messages > MAX_COPIES {
            return Err(unreadable("it holds more than 64 messages"));
        }
        ctx.core
            .charge_more(ctx.address(), messages.saturating_sub(1))?;
        let copies = Arc::new(Copies {
            address: ctx.address(),
            left: AtomicUsize::new(MAX_COPIES),
        });
        let mut is_unknown = false;
        for (mut request, sender) in requests {
            request.copies = Some(Arc::clone(&copies));
            let senders = ctx.core.senders_of(sender.as_ref(), ctx.address(), ctx.now);
            request.senders = senders.await?;
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
    /// The queue is full. Holds whether an account reads it.
    Full { is_read: bool },
    /// The recipient has no queue here.
    NoQueue,
}

/// Returns the outcome of a forward to a did:peer, given the outcome of each copy, and whether the
/// first of the `copies` is that of the account that named the did:peer first.
fn outcome_of(
    local: &LocalCopy,
    copies: Vec<Result<(), Refused>>,
    have_first: bool,
) -> Result<ForwardOutcome, Refused> {
    if have_first
        && !matches!(local, LocalCopy::Read)
        && let Some(Err(refused)) = copies.first()
    {
        return Err(refused.clone());
    }
    let is_relayed = copies.iter().any(Result::is_ok);
    match local {
        LocalCopy::Full { is_read } if *is_read || !have_first => Err(Refused::QueueFull),
        _ if is_relayed => Ok(ForwardOutcome::Relayed),
        LocalCopy::Read | LocalCopy::Unread => Ok(ForwardOutcome::Queued),
        LocalCopy::Full { .. } => Err(Refused::QueueFull),
        LocalCopy::NoQueue => match copies.into_iter().find_map(Result::err) {
            Some(refused) => Err(refused),
            None => Ok(ForwardOutcome::Unknown),
        },
    }
}

impl Core {
    /// Charges an address for what a request causes beyond the message that it pays for.
    fn charge_more(&self, address: IpAddr, more: usize) -> Result<(), Refused> {
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.by_address
            .charge_many(address, more)
            .map_err(Refused::RateLimited)
    }

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
                    self.queues.enqueue(Vec::new(), &[]).await?;
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

    /// Puts messages into the recipient's queue here and, unless its owner reads that queue, into
    /// the outbox for the recipient's other mediators, one copy for each account that claims the
    /// did:peer. The forward is refused where the owner's copy was not taken. That is the copy in a
    /// queue that an account reads, since it has proven its keys; else most probably the copy of
    /// the first claimant. A copy of another claimant neither stands for it nor is missed. The
    /// copies that were taken stay, and are the same when the sender repeats the forward.
    async fn forward_to_recipient(
        &self,
        recipient: &str,
        request: &ForwardRequest,
        sender: Option<&Authenticated>,
        now: Timestamp,
    ) -> Result<ForwardOutcome, Refused> {
        // Both are done at the same time, so that the time of an answer does not show who is
        // registered here.
        let destinations = self.outbox.destinations();
        let known = destinations.is_unclaimed(recipient);
        let (local, others) = tokio::join!(
            self.enqueue_locally(recipient, request, now),
            self.other_mediators(recipient, request, known)
        );
        let (local, mut others) = (local?, others?);
        let is_read = matches!(local, LocalCopy::Read);
        if known && !is_read {
            others = self.other_mediators(recipient, request, false).await?;
        } else if is_read && !known && !request.relayed && others == OtherMediators::default() {
            destinations.remember_unclaimed(recipient);
        }
        match local {
            LocalCopy::Read if !others.have_first => return Ok(ForwardOutcome::Queued),
            LocalCopy::Full { is_read: true } => return Err(Refused::QueueFull),
            LocalCopy::Read | LocalCopy::Unread | LocalCopy::Full { .. } | LocalCopy::NoQueue => {}
        }
        let copies = self.relay_copies(others.hops, request, sender).await?;
        outcome_of(&local, copies, others.have_first)
    }

    /// Returns the hops to the recipient's other mediators. Asks the directory, unless it is known
    /// that there are none.
    async fn other_mediators(
        &self,
        recipient: &str,
        request: &ForwardRequest,
        have_none: bool,
    ) -> Result<OtherMediators, StoreError> {
        // The mediator that has relayed the message here has decided by its own directory. By another
        // directory the message might go back to it.
        if request.relayed || have_none {
            return Ok(OtherMediators::default());
        }
        let destinations = self.outbox.destinations();
        destinations.other_mediators_of(recipient).await
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
        match self.queues.enqueue(messages, &request.senders).await {
            Ok(outcomes) => Ok(match outcomes.first() {
                Some(Enqueued::Queued { reader }) if self.queues.is_read(reader.as_ref()) => {
                    LocalCopy::Read
                }
                // The key package that opened the queue may be of another account, which has
                // published this did:peer as its own while the owner uses another mediator.
                Some(Enqueued::Queued { .. }) => LocalCopy::Unread,
                Some(Enqueued::UnknownRecipient) | None => LocalCopy::NoQueue,
            }),
            Err(Refused::QueueFull) => Ok(LocalCopy::Full {
                is_read: self.queues.has_reader(recipient).await?,
            }),
            Err(refused) => Err(refused),
        }
    }

    /// Puts one copy for each hop into the outbox. Returns the outcome of each. Fails only where the
    /// store does.
    async fn relay_copies(
        &self,
        hops: Vec<NextHop>,
        request: &ForwardRequest,
        sender: Option<&Authenticated>,
    ) -> Result<Vec<Result<(), Refused>>, Refused> {
        if let Some(copies) = &request.copies {
            copies.take(self, request.messages.len(), hops.len())?;
        }
        let mut copies = Vec::with_capacity(hops.len());
        for hop in hops {
            let copy = self.outbox.enqueue_relay(hop, request.relay(sender)).await;
            if copy == Err(Refused::Unavailable) {
                return Err(Refused::Unavailable);
            }
            copies.push(copy);
        }
        Ok(copies)
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

    #[test]
    fn inv3_a_forward_is_taken_with_the_owners_copy_and_refused_without() {
        let full = || Err(Refused::RelayFull);
        let (read, unread, none) = (LocalCopy::Read, LocalCopy::Unread, LocalCopy::NoQueue);
        let local_full = |is_read| LocalCopy::Full { is_read };
        let relayed = Ok(ForwardOutcome::Relayed);
        let queued = Ok(ForwardOutcome::Queued);
        for (local, copies, have_first, wanted) in [
            // The first claimant is elsewhere: its copy counts, and those of others do not.
            (&none, vec![Ok(()), full()], true, relayed.clone()),
            (&none, vec![full(), Ok(())], true, Err(Refused::RelayFull)),
            (&unread, vec![full(), Ok(())], true, Err(Refused::RelayFull)),
            (&unread, vec![Ok(()), full()], true, relayed.clone()),
            (&local_full(false), vec![Ok(())], true, relayed.clone()),
            // An account here has proven its keys.
            (&read, vec![full()], true, queued.clone()),
            (
                &local_full(true),
                vec![Ok(())],
                true,
                Err(Refused::QueueFull),
            ),
            // The first claimant is here.
            (&unread, vec![full()], false, queued.clone()),
            (&unread, vec![], false, queued),
            (
                &local_full(false),
                vec![Ok(())],
                false,
                Err(Refused::QueueFull),
            ),
            // It is nowhere that is known.
            (&none, vec![full(), Ok(())], false, relayed),
            (&none, vec![full()], false, Err(Refused::RelayFull)),
            (&none, vec![], false, Ok(ForwardOutcome::Unknown)),
        ] {
            let told = format!("{copies:?} {have_first}");
            assert_eq!(outcome_of(local, copies, have_first), wanted, "{told}");
        }
    }
}
