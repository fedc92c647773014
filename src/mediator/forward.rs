//! `routing/2.0/forward`: into a queue here, or on to another mediator.
//!
//! Source: DIDComm Messaging 2.1, "Routing Protocol 2.0".

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

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

/// Messages in one forward: each is stored by itself, and nobody needs many.
const MAX_ATTACHMENTS: usize = 16;

/// Longest wait that a sender may ask for (`delay_milli`).
const MAX_DELAY: Duration = Duration::from_secs(3600);

/// What a forward holds, once it was looked at.
struct ForwardRequest {
    next: String,
    messages: Vec<Arc<[u8]>>,
    /// When it may be handed out, and when it is worth nothing any more.
    available_at: Timestamp,
    expires_at: Option<Timestamp>,
    /// What to name if it cannot be delivered.
    thread: String,
    id: String,
    /// Made by another mediator, which has looked into its own directory.
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
            // Only encrypted messages are carried: what is not one, nobody could have sent.
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

    /// The same for the outbox.
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

fn unreadable(why: &'static str) -> Refused {
    Refused::Unreadable(why.into())
}

/// How long a forward is to wait: below zero a random time up to that.
fn delay(delay_milli: Option<i64>) -> Duration {
    let wanted = delay_milli.unwrap_or(0);
    let longest = Duration::from_millis(wanted.unsigned_abs()).min(MAX_DELAY);
    if wanted >= 0 {
        return longest;
    }
    Spread::random().part(longest)
}

impl<S> Session<'_, S> {
    /// Carries out a forward. Says whether its recipient is unknown and the operator wants that to
    /// be told.
    pub(super) async fn forward(
        &self,
        forward: &Forward,
        sender: Option<&Authenticated>,
    ) -> Result<bool, Refused> {
        let (mediator, now) = (self.mediator(), self.now());
        let request = ForwardRequest::read(self.message(), &forward.next, now)?;
        let mut requests = Vec::with_capacity(1);
        if mediator.is_own_name(self.keys(), &request.next) {
            // Addressed to us inside an envelope that was for us already: one more layer at most,
            // so that nothing goes round in circles.
            for message in &request.messages {
                requests.push(self.unwrap_self_forward(&request, message).await?);
            }
        } else {
            requests.push((request, sender.cloned()));
        }
        let mut unknown = false;
        for (request, sender) in requests {
            unknown |= mediator
                .route_forward(request, sender.as_ref(), now)
                .await?;
        }
        Ok(unknown && mediator.settings.report_unknown)
    }

    /// The forward inside a forward to ourselves, and its own sender: whoever has put one layer
    /// more around it has nothing to do with what becomes of it.
    async fn unwrap_self_forward(
        &self,
        outer: &ForwardRequest,
        message: &[u8],
    ) -> Result<(ForwardRequest, Option<Authenticated>), Refused> {
        let no_forward = || unreadable("what is forwarded to this mediator itself is no forward");
        let opened = parties::open_envelope(self.mediator(), self.keys(), message).await?;
        let opened = opened.map_err(|_| no_forward())?;
        let inner = Message::parse(&opened.plaintext).map_err(|_| no_forward())?;
        let Ok(Request::Forward(forward)) = Request::read(&inner) else {
            return Err(no_forward());
        };
        if self.mediator().is_own_name(self.keys(), &forward.next) {
            metrics::counter!("atcomm_mediator_forwards_total", "outcome" => "looped").increment(1);
            return Err(unreadable(
                "it is forwarded to this mediator again and again",
            ));
        }
        let mut request = ForwardRequest::read(&inner, &forward.next, self.now())?;
        request.available_at = request.available_at.max(outer.available_at);
        request.expires_at = match (request.expires_at, outer.expires_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Ok((request, opened.sender))
    }
}

impl Core {
    /// Takes a parcel to its next hop. True where that is nobody that is known.
    async fn route_forward(
        &self,
        request: ForwardRequest,
        sender: Option<&Authenticated>,
        now: Timestamp,
    ) -> Result<bool, Refused> {
        let count = |outcome: &'static str| {
            metrics::counter!("atcomm_mediator_forwards_total", "outcome" => outcome).increment(1);
        };
        if request.expires_at.is_some_and(|at| at <= now) {
            count("expired");
            return Ok(false);
        }
        let Some(recipient) = parties::queue_name(&request.next) else {
            let Some(next) = self.mediator_hop(&request.next).await? else {
                // The same commit that mail to somebody known waits for.
                self.enqueue(Vec::new()).await?;
                count("unknown");
                return Ok(true);
            };
            self.enqueue_relay(next, request.relay(sender)).await?;
            count("relayed");
            return Ok(false);
        };
        let longest = now.plus(self.settings.time_to_live);
        let mail = |body: &Arc<[u8]>| NewMessage {
            recipient: recipient.clone(),
            hash: Sha256::digest(body).into(),
            body: Arc::clone(body),
            available_at: request.available_at,
            expires_at: request.expires_at.unwrap_or(longest).min(longest),
        };
        let mail = request.messages.iter().map(mail).collect();
        let (kept, refused) = match self.enqueue(mail).await {
            Ok(delivered) => match delivered.first() {
                Some(Enqueued::Queued(Some(_))) => {
                    count("kept");
                    return Ok(false);
                }
                // Nobody reads that queue yet: the package that opened it may be somebody else's,
                // who has published this did:peer as his own, while its owner lives at another
                // mediator.
                Some(Enqueued::Queued(None)) => (true, None),
                Some(Enqueued::UnknownRecipient) | None => (false, None),
            },
            // So may be the one that is full, if nobody reads it.
            Err(Refused::QueueFull) if !self.has_reader(&recipient).await? => {
                (false, Some(Refused::QueueFull))
            }
            Err(refused) => return Err(refused),
        };
        // What a mediator has sent here by its directory is not sent on by ours.
        let other_hops = match request.relayed {
            true => Vec::new(),
            false => self.other_mediators_of(&recipient).await?,
        };
        let (mut relayed, mut refused) = (false, refused);
        for next in other_hops {
            match self.enqueue_relay(next, request.relay(sender)).await {
                Ok(()) => relayed = true,
                Err(why) => refused = Some(why),
            }
        }
        // Which of several claims is its owner's is not known here, so the copy that was not taken
        // may be the one that counts. Those that were taken stay, and are the same when the sender
        // comes again.
        if let Some(refused) = refused {
            return Err(refused);
        }
        count(match (relayed, kept) {
            (true, _) => "relayed",
            (false, true) => "kept",
            (false, false) => "unknown",
        });
        Ok(!relayed && !kept)
    }

    /// Whether an account reads the queue of a recipient.
    async fn has_reader(&self, recipient: &str) -> Result<bool, Refused> {
        let did = recipient.to_owned();
        let found = self.mailbox.query(move |q| q.recipient(&did)).await?;
        Ok(found.is_some_and(|one| one.account.is_some()))
    }

    /// Where a did:peer lives besides here, as its accounts have published: for each account that
    /// names it and not this mediator, that account's mediators. Each account has its own copy, so
    /// that none of them takes another's mail away.
    pub(super) async fn other_mediators_of(
        &self,
        recipient: &str,
    ) -> Result<Vec<NextHop>, Refused> {
        let peer = recipient.to_owned();
        let ours = self.address.did().clone();
        let directory = self.resolver.directory();
        Ok(directory
            .store()
            .query(move |q| {
                let mut hops = Vec::new();
                for account in q.claimants(&peer, MAX_CLAIMANTS)? {
                    let named = q.entry(&account)?.map(|entry| entry.mediators);
                    let mut mediators = named.unwrap_or_default();
                    if mediators.contains(&ours) {
                        continue;
                    }
                    mediators.retain(|mediator| mediator.web().is_some());
                    mediators.truncate(MAX_MEDIATORS);
                    let hop = NextHop::peer(peer.clone(), mediators);
                    if hop.has_mediator() && !hops.contains(&hop) {
                        hops.push(hop);
                    }
                }
                Ok(hops)
            })
            .await?)
    }
}

/// Accounts that claim one did:peer whose mediators are tried, and mediators of each.
const MAX_CLAIMANTS: usize = 16;
const MAX_MEDIATORS: usize = 8;

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
