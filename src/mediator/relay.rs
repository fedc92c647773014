//! Messages for other mediators: where they may go, and the durable outbox that they wait in.
//!
//! A forward to another mediator's DID holds a message that is encrypted to that mediator already,
//! and is passed on as it is. A single forward to a did:peer that lives elsewhere is wrapped anew
//! for one of the mediators that its accounts have published. One destination per message; what
//! cannot be delivered ends in a report to its sender where the sender is known.

mod concurrency;
mod route;
mod worker;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::{Core, Refused, RelaySettings};
use crate::store::{Abort, NewOutbound, OutPushed, OutboxQuota, StoreError};
use atcomm_net::backoff::{Backoff, Jitter};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::syntax::MediatorDid;

pub use worker::Relay;

/// Where mail may be carried.
pub(super) struct Destinations {
    allow: BTreeSet<MediatorDid>,
    /// The budget for everywhere else; `None`: nothing.
    unlisted: Option<DefaultDirectRateLimiter>,
    /// Never carried anywhere: it would come back.
    own: MediatorDid,
    /// Rung when there is something to carry.
    pub(super) pending: Arc<Notify>,
}

impl Destinations {
    pub(super) fn new(settings: &RelaySettings, own: MediatorDid) -> Self {
        let unlisted = NonZeroU32::new(settings.strangers_per_hour);
        Self {
            allow: settings.allow.clone(),
            unlisted: unlisted.map(|n| RateLimiter::direct(Quota::per_hour(n))),
            own,
            pending: Arc::default(),
        }
    }
}

/// The next hop of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NextHop {
    /// Mediators, each tried in turn until one takes the message; one at least.
    mediators: Vec<MediatorDid>,
    /// For whom the message is wrapped anew; `None`: it is passed on as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    /// When the sender wants it to be worth nothing any more, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
    /// Id of the forward that it came by, for a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forward: Option<String>,
}

impl NextHop {
    /// A mediator that the message is encrypted to.
    fn mediator(did: MediatorDid) -> Self {
        Self {
            mediators: vec![did],
            peer: None,
            expires: None,
            forward: None,
        }
    }

    /// A did:peer behind any of several mediators.
    pub(super) fn peer(did: String, mediators: Vec<MediatorDid>) -> Self {
        Self {
            mediators,
            peer: Some(did),
            expires: None,
            forward: None,
        }
    }

    /// Whether a mediator is named.
    pub(super) fn has_mediator(&self) -> bool {
        !self.mediators.is_empty()
    }
}

/// Messages to be carried on.
pub(super) struct NewRelay {
    pub(super) messages: Vec<Arc<[u8]>>,
    /// Who is told when it fails.
    pub(super) sender: Option<Party>,
    /// In which thread, about which message.
    pub(super) thread: String,
    pub(super) id: String,
    pub(super) not_before: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
}

impl Core {
    /// The mediator that a forward names, if anything may be carried there. `None` for what is no
    /// mediator's DID.
    pub(super) async fn mediator_hop(&self, next: &str) -> Result<Option<NextHop>, Refused> {
        let did = next.split_once('#').map_or(next, |(did, _)| did);
        let Ok(did) = MediatorDid::parse(did) else {
            return Ok(None);
        };
        if did.web().is_none() || did.web() == self.destinations.own.web() {
            return Ok(None);
        }
        if !self.destinations.allow.contains(&did) {
            let named = did.clone();
            let directory = self.resolver.directory().store();
            if !directory.query(move |q| q.is_named(&named)).await? {
                let Some(budget) = &self.destinations.unlisted else {
                    return Err(Refused::RelayRefused);
                };
                if let Err(wait) = budget.check() {
                    let clock = governor::clock::DefaultClock::default();
                    return Err(Refused::RateLimited(wait.wait_time_from(clock.now())));
                }
            }
        }
        Ok(Some(NextHop::mediator(did)))
    }

    /// Puts messages into the outbox: all of them, or none and a reason. On disk when it returns.
    pub(super) async fn enqueue_relay(
        &self,
        mut next: NextHop,
        new: NewRelay,
    ) -> Result<(), Refused> {
        let Some(destination) = next.mediators.first().cloned() else {
            return Ok(());
        };
        let settings = &self.settings.relay;
        let now = self.clock.now();
        let quota = OutboxQuota {
            per_destination_messages: settings.destination_messages,
            per_destination_bytes: settings.destination_bytes,
            total_bytes: settings.total_bytes,
        };
        // From when it may go, so that a message that waits has its time, too.
        let longest = now.max(new.not_before).plus(settings.give_up);
        let expires_at = new.expires_at.unwrap_or(longest).min(longest);
        // The same message on the same way waits once, by whichever forward it came.
        let route_hash = Sha256::new_with_prefix(format!("{:?} {:?} ", next.mediators, next.peer));
        next.expires = new.expires_at.map(|at| at.millis() / 1000);
        next.forward = Some(new.id);
        let route = serde_json::to_string(&next).map_err(|error| {
            tracing::error!(%error, "a route cannot be written");
            Refused::Unavailable
        })?;
        let pushed = self
            .mailbox
            .attempt(move |tx| {
                for body in &new.messages {
                    let outbound = NewOutbound {
                        destination: destination.as_str(),
                        route: &route,
                        hash: route_hash.clone().chain_update(body).finalize().into(),
                        body,
                        sender: new.sender.as_ref().map(Party::did),
                        thread: Some(&new.thread),
                        now,
                        next_at: new.not_before,
                        expires_at,
                    };
                    match tx.outbox_push(&outbound, &quota)? {
                        OutPushed::Stored(_) | OutPushed::Duplicate => {}
                        // Nothing of the envelope is kept then.
                        OutPushed::DestinationFull | OutPushed::StoreFull => {
                            return Err(Abort::Refused(Refused::RelayFull));
                        }
                    }
                }
                Ok(())
            })
            .await;
        match pushed {
            Ok(()) => {
                self.destinations.pending.notify_one();
                Ok(())
            }
            Err(Abort::Store(StoreError::Full)) => Err(Refused::RelayFull),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the pauses between the attempts of one message: a second, doubled each time, up to
/// `longest`, each multiplied by a number from a half to one and a half.
fn pauses(longest: Duration) -> Backoff {
    Backoff {
        first: Duration::from_secs(1),
        longest,
        jitter: Jitter::between(0.5, 1.5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atcomm_net::backoff::Spread;

    #[test]
    fn pauses_double_up_to_the_longest_and_vary() {
        let longest = Duration::from_secs(1800);
        let pause = |failures, place| pauses(longest).wait(failures, Spread::at(place));
        assert_eq!(pause(1, 0.5), Duration::from_secs(1));
        assert_eq!(pause(4, 0.5), Duration::from_secs(8));
        assert_eq!(pause(4, 0.0), Duration::from_secs(4));
        assert_eq!(pause(4, 1.0), Duration::from_secs(12));
        for failures in [12, 33, u32::MAX] {
            assert_eq!(pause(failures, 0.5), longest);
        }
    }

    #[test]
    fn routes_outlive_a_restart() {
        let mediator = MediatorDid::parse("did:web:m.example.com").unwrap();
        for next in [
            NextHop::mediator(mediator.clone()),
            NextHop::peer("did:peer:2.Ez6LS".to_owned(), vec![mediator]),
        ] {
            let text = serde_json::to_string(&next).unwrap();
            assert_eq!(serde_json::from_str::<NextHop>(&text).unwrap(), next);
        }
    }
}
