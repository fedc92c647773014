//! Messages for other mediators: where they may go, and the durable outbox that they wait in.
//!
//! A forward to another mediator's DID holds a message that is encrypted to that mediator already,
//! and is passed on as it is. A single forward to a did:peer whose accounts name other mediators is
//! wrapped anew for one of them. Each message in the outbox has one next hop; a message that cannot
//! be delivered ends in a report to its sender where the sender is known.

mod attempt;
mod concurrency;
mod outbox;
mod report;
mod route;
mod worker;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Refused, RelaySettings};
use crate::resolve::Resolver;
use crate::store::StoreError;
use atcomm_net::rate_limit::{Rate, RateLimit};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::MediatorDid;

use route::RouteError;
pub use worker::Relay;

pub(super) use outbox::{NewRelay, Outbox};

/// Accounts that claim one did:peer whose mediators are tried.
const MAX_CLAIMANTS: usize = 16;

/// Mediators of one account that are tried.
const MAX_MEDIATORS: usize = 8;

/// The next hop of a message, as the outbox stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NextHop {
    /// Mediators, each tried in turn until one takes the message; one at least.
    mediators: Vec<MediatorDid>,
    /// The did:peer that the message is wrapped anew for; `None`: it is passed on as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    /// The end that the sender has set, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<i64>,
    /// Id of the forward that brought the message, for a report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forward: Option<String>,
    /// Another mediator has wrapped the message on its way here. It goes on only to a mediator that
    /// takes its own messages: documents that lead from one mediator to the next could otherwise
    /// send it in a circle.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    relayed: bool,
}

impl NextHop {
    /// Leads to a mediator that the message is encrypted to.
    fn mediator(did: MediatorDid, relayed: bool) -> Self {
        Self {
            mediators: vec![did],
            peer: None,
            expires: None,
            forward: None,
            relayed,
        }
    }

    /// Leads to a did:peer behind any of several mediators.
    fn peer(did: String, mediators: Vec<MediatorDid>) -> Self {
        Self {
            mediators,
            peer: Some(did),
            expires: None,
            forward: None,
            relayed: false,
        }
    }
}

/// The other mediators: which of them messages are relayed to, and how each is reached.
pub(super) struct Destinations {
    // Fixed when the mediator is bound.
    /// Never relayed to: the message would come back.
    own: MediatorDid,
    /// Relayed to although no key package names them.
    allow: BTreeSet<MediatorDid>,
    resolver: Resolver,
    // With a lock of its own.
    /// Budget for mediators that neither `allow` nor a key package names; `None`: no messages.
    unlisted: Option<RateLimit>,
}

impl Destinations {
    pub(super) fn new(
        settings: &RelaySettings,
        own: MediatorDid,
        resolver: Resolver,
        clock: Clock,
    ) -> Self {
        let per_hour = settings.unlisted_per_hour;
        Self {
            own,
            allow: settings.allow.clone(),
            resolver,
            unlisted: (per_hour > 0).then(|| RateLimit::new(Rate::per_hour(per_hour), clock)),
        }
    }

    /// Returns the hop to the mediator that a forward names, if messages may be relayed there.
    /// `None` for a name that is no other mediator's DID. `relayed` is whether another mediator has
    /// made the forward; the hop is refused here where the document at hand shows already that it
    /// cannot be carried.
    pub(super) async fn mediator_hop(
        &self,
        next: &str,
        relayed: bool,
    ) -> Result<Option<NextHop>, Refused> {
        let did = next.split_once('#').map_or(next, |(did, _)| did);
        let Ok(did) = MediatorDid::parse(did) else {
            return Ok(None);
        };
        if did.web().is_none() || did.web() == self.own.web() {
            return Ok(None);
        }
        let document = self.resolver.identity().cached_mediator(&did);
        if relayed && document.is_some_and(|document| route::is_indirect(&document)) {
            return Err(Refused::Unreadable(RouteError::Indirect.to_string().into()));
        }
        if !self.is_listed(&did).await? {
            let Some(budget) = &self.unlisted else {
                return Err(Refused::RelayRefused);
            };
            budget.take().map_err(Refused::RateLimited)?;
        }
        Ok(Some(NextHop::mediator(did, relayed)))
    }

    /// Returns whether the settings or a key package name a mediator.
    async fn is_listed(&self, did: &MediatorDid) -> Result<bool, StoreError> {
        if self.allow.contains(did) {
            return Ok(true);
        }
        let did = did.clone();
        let directory = self.resolver.directory().store();
        directory.query(move |q| q.is_named(&did)).await
    }

    /// Returns the hops to a did:peer by the key packages that name it and not this mediator: one
    /// hop per account, over the mediators of that account. Each account gets its own copy, so that
    /// none of them takes another's mail away.
    pub(super) async fn other_mediators_of(
        &self,
        recipient: &str,
    ) -> Result<Vec<NextHop>, StoreError> {
        let peer = recipient.to_owned();
        let own = self.own.clone();
        let directory = self.resolver.directory().store();
        directory
            .query(move |q| {
                let mut hops = Vec::new();
                for account in q.claimants(&peer, MAX_CLAIMANTS)? {
                    let named = q.entry(&account)?.map(|entry| entry.mediators);
                    let mut mediators = named.unwrap_or_default();
                    if mediators.contains(&own) {
                        continue;
                    }
                    mediators.retain(|mediator| mediator.web().is_some());
                    mediators.truncate(MAX_MEDIATORS);
                    let hop = NextHop::peer(peer.clone(), mediators);
                    if !hop.mediators.is_empty() && !hops.contains(&hop) {
                        hops.push(hop);
                    }
                }
                Ok(hops)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_outlive_a_restart() {
        let mediator = MediatorDid::parse("did:web:m.example.com").unwrap();
        for hop in [
            NextHop::mediator(mediator.clone(), false),
            NextHop::mediator(mediator.clone(), true),
            NextHop::peer("did:peer:2.Ez6LS".to_owned(), vec![mediator]),
        ] {
            let text = serde_json::to_string(&hop).unwrap();
            assert_eq!(serde_json::from_str::<NextHop>(&text).unwrap(), hop);
        }
    }
}
