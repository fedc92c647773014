//! `routing/2.0/forward`: into a queue here, or on to another mediator.
//!
//! Source: DIDComm Messaging 2.1, "Routing Protocol 2.0".

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::deliver::{Delivered, Mail};
use super::peers;
use super::relay::{NewRelay, Next};
use super::session::Session;
use super::{Inner, Refused, random};
use crate::clock::Timestamp;
use crate::didcomm::envelope::{self, Authenticated};
use crate::didcomm::message::Message;
use crate::didcomm::protocol::Request;
use crate::didcomm::protocol::routing::Forward;

/// Messages in one forward: each is stored by itself, and nobody needs many.
const MAX_ATTACHMENTS: usize = 16;

/// Longest wait that a sender may ask for (`delay_milli`).
const MAX_DELAY: Duration = Duration::from_secs(3600);

/// What a forward holds, once it was looked at.
struct Parcel {
    next: String,
    messages: Vec<Vec<u8>>,
    /// When it may be handed out, and when it is worth nothing any more.
    available_at: Timestamp,
    expires_at: Option<Timestamp>,
    /// Whom to tell if it cannot be delivered.
    thread: String,
}

impl Parcel {
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
            Ok(bytes.into_owned())
        });
        Ok(Self {
            next: next.to_owned(),
            messages: messages.collect::<Result<_, _>>()?,
            available_at: now.plus(delay(message.delay_milli)),
            expires_at: message
                .expires_time
                .map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1000))),
            thread: message.thread().to_owned(),
        })
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
    let millis = u64::try_from(longest.as_millis()).unwrap_or(0);
    Duration::from_millis(random() % (millis + 1))
}

impl<S> Session<'_, S> {
    /// Carries out a forward. Says whether its recipient is unknown and the operator wants that to
    /// be told.
    pub(super) async fn forward(
        &self,
        forward: &Forward,
        sender: Option<&Authenticated>,
    ) -> Result<bool, Refused> {
        let (message, now, mediator) = (self.message(), self.now(), self.mediator());
        let mut parcel = Parcel::read(message, &forward.next, now)?;
        if self.keys().identity(&parcel.next).is_some() {
            // Addressed to us inside an envelope that was for us already: one more layer at most,
            // so that nothing goes round in circles.
            let Some(inner) = self.peel(&parcel).await? else {
                metrics::counter!("atcomm_mediator_forwards_total", "outcome" => "looped")
                    .increment(1);
                return Ok(false);
            };
            parcel = inner;
        }
        let unknown = mediator.carry(parcel, sender, now).await?;
        Ok(unknown && mediator.settings.report_unknown)
    }

    /// The forward inside a forward to ourselves.
    async fn peel(&self, parcel: &Parcel) -> Result<Option<Parcel>, Refused> {
        let [message] = parcel.messages.as_slice() else {
            return Ok(None);
        };
        let sender = peers::of_sender(self.mediator(), message).await?;
        let Ok(opened) = envelope::unpack(message, self.keys(), &sender) else {
            return Ok(None);
        };
        let Ok(inner) = Message::parse(&opened.plaintext) else {
            return Ok(None);
        };
        let Ok(Request::Forward(forward)) = Request::read(&inner) else {
            return Ok(None);
        };
        if self.keys().identity(&forward.next).is_some() {
            return Ok(None);
        }
        let mut inner = Parcel::read(&inner, &forward.next, self.now())?;
        inner.available_at = inner.available_at.max(parcel.available_at);
        inner.expires_at = match (inner.expires_at, parcel.expires_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let over = inner.expires_at.is_some_and(|at| at <= self.now());
        Ok((!over).then_some(inner))
    }
}

impl Inner {
    /// Takes a parcel to its next hop. True where that is nobody that is known.
    async fn carry(
        &self,
        parcel: Parcel,
        sender: Option<&Authenticated>,
        now: Timestamp,
    ) -> Result<bool, Refused> {
        let count = |outcome: &'static str| {
            metrics::counter!("atcomm_mediator_forwards_total", "outcome" => outcome).increment(1);
        };
        let next = match peers::canonical(&parcel.next) {
            Some(recipient) => {
                let longest = now.plus(self.settings.time_to_live);
                let mail = |body: &Vec<u8>| Mail {
                    recipient: recipient.clone(),
                    hash: Sha256::digest(body).into(),
                    body: body.clone(),
                    available_at: parcel.available_at,
                    expires_at: parcel.expires_at.unwrap_or(longest).min(longest),
                };
                let mail = parcel.messages.iter().map(mail).collect();
                let delivered = self.deliver(mail).await?;
                if delivered.iter().any(|one| *one != Delivered::Unknown) {
                    count("kept");
                    return Ok(false);
                }
                self.elsewhere(&recipient).await?
            }
            None => self.mediator_named(&parcel.next).await?,
        };
        let Some(next) = next else {
            if peers::canonical(&parcel.next).is_none() {
                // The same commit that mail to somebody known waits for.
                self.deliver(Vec::new()).await?;
            }
            count("unknown");
            return Ok(true);
        };
        self.send_on(
            next,
            NewRelay {
                messages: parcel.messages,
                sender: sender.map(|sender| sender.party.clone()),
                thread: parcel.thread,
                not_before: parcel.available_at,
                expires_at: parcel.expires_at,
            },
        )
        .await?;
        count("relayed");
        Ok(false)
    }

    /// Where a did:peer lives that no mail is kept for here, as its accounts have published.
    pub(super) async fn elsewhere(&self, recipient: &str) -> Result<Option<Next>, Refused> {
        let peer = recipient.to_owned();
        let ours = self.address.did().clone();
        let directory = self.resolver.directory();
        let mediators = directory
            .store()
            .query(move |q| {
                let mut mediators = Vec::new();
                for account in q.claimants(&peer, MAX_CLAIMANTS)? {
                    let named = q.entry(&account)?.map(|entry| entry.mediators);
                    for mediator in named.unwrap_or_default() {
                        if mediator.web().is_some() && !mediators.contains(&mediator) {
                            mediators.push(mediator);
                        }
                    }
                }
                Ok(mediators)
            })
            .await?;
        // Where one of its packages names us, it is our own rules that keep its mail out.
        let named_here = mediators.contains(&ours);
        let mediators: Vec<_> = mediators.into_iter().take(MAX_MEDIATORS).collect();
        Ok((!named_here && !mediators.is_empty())
            .then(|| Next::peer(recipient.to_owned(), mediators)))
    }
}

/// Accounts that claim one did:peer whose mediators are tried, and mediators tried in all.
const MAX_CLAIMANTS: usize = 4;
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
