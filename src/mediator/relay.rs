//! Messages for other mediators: where they may go, and the durable outbox that they wait in.
//!
//! A forward to another mediator's DID holds a message that is encrypted to that mediator already,
//! and is passed on as it is. A single forward to a did:peer whose accounts name other mediators is
//! wrapped anew for one of them. Each message in the outbox has one next hop; a message that cannot
//! be delivered ends in a report to its sender where the sender is known.

mod attempt;
mod consent;
mod outbox;
mod report;
mod route;
mod schedule;
mod standing;
mod worker;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Refused, RelaySettings};
use crate::resolve::Resolver;
use crate::store::StoreError;
use atcomm_net::net::registrable_domain;
use atcomm_net::rate_limit::{Rate, RateLimit};
use atcomm_net::ttl_cache::TtlCache;
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::MediatorDid;

use consent::Consents;
use route::RouteError;
use standing::Standings;
pub use worker::Relay;

pub(super) use outbox::{NewRelay, Outbox};

/// Shortest time before an attempt is repeated, and the time between two scans of the outbox.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Accounts that claim one did:peer and are looked at, those that named it first.
const MAX_CLAIMANTS: usize = 256;

/// Copies of a message for the mediators of one did:peer.
const MAX_COPIES: usize = 16;

/// Mediators of one account that are tried.
const MAX_MEDIATORS: usize = 8;

/// How long it is remembered that no other mediator claims a did:peer: as long as the claims on this
/// mediator take at most to follow the directory.
const UNCLAIMED_TTL: Duration = Duration::from_secs(1);

/// Most did:peers of which that is remembered, each by a hash of 32 bytes.
const MAX_UNCLAIMED: usize = 1 << 14;

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
    // Each with locks of its own.
    /// Hashes of did:peers that no other mediator claimed lately. Most mail is for such a did:peer,
    /// and finds that out without a read of the directory.
    unclaimed: TtlCache<[u8; 32], ()>,
    /// Which endpoints may be posted to now.
    standings: Standings,
    /// Which hosts agree to that.
    consents: Consents,
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
            standings: Standings::new(settings.longest_pause, clock.clone()),
            consents: Consents::new(clock.clone()),
            unclaimed: TtlCache::with_entries(MAX_UNCLAIMED, clock.clone()),
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

    /// Returns whether a moment ago no other mediator claimed a did:peer, and an account read its
    /// mail here.
    pub(super) fn is_unclaimed(&self, recipient: &str) -> bool {
        self.unclaimed.get(&hash(recipient)).is_some()
    }

    /// Remembers for a moment that no other mediator claims a did:peer. To be called only where an
    /// account reads its mail here: mail for any other did:peer may be lost by a claim overlooked.
    pub(super) fn remember_unclaimed(&self, recipient: &str) {
        self.unclaimed.insert(hash(recipient), (), UNCLAIMED_TTL);
    }

    /// Returns the hops to a did:peer by the key packages that name it and not this mediator.
    pub(super) async fn other_mediators_of(
        &self,
        recipient: &str,
    ) -> Result<OtherMediators, StoreError> {
        let peer = recipient.to_owned();
        let own = self.own.clone();
        let directory = self.resolver.directory().store();
        directory
            .query(move |q| {
                let mut claims = Vec::new();
                for account in q.claimants(&peer, MAX_CLAIMANTS)? {
                    claims.push(q.mediators_of(&account)?);
                }
                Ok(OtherMediators::of(&peer, claims, &own))
            })
            .await
    }
}

fn hash(recipient: &str) -> [u8; 32] {
    Sha256::digest(recipient).into()
}

/// The hops to the mediators that claim a did:peer, other than this one. Each account that claims it
/// gets its own copy, so that none of them takes another's mail away.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OtherMediators {
    pub(super) hops: Vec<NextHop>,
    /// Whether the first account that named the did:peer names none but other mediators. That is
    /// most probably its owner: other accounts cannot know the did:peer before it is published.
    pub(super) have_first: bool,
}

impl OtherMediators {
    /// Chooses the hops from the mediators that each claimant names, in the order in which the
    /// claimants first named `peer`. The places go round between the domains of mediators, the
    /// first claimant of each before the second of any: so those of one domain, however many and
    /// however early, leave places for the others.
    fn of(peer: &str, claims: Vec<Vec<MediatorDid>>, own: &MediatorDid) -> Self {
        let mut have_first = false;
        let mut ranked = Vec::new();
        let mut claims_of_domain: HashMap<String, usize> = HashMap::new();
        for (position, mut mediators) in claims.into_iter().enumerate() {
            if mediators.contains(own) {
                continue;
            }
            mediators.retain(|mediator| mediator.web().is_some());
            mediators.truncate(MAX_MEDIATORS);
            let Some(web) = mediators.first().and_then(MediatorDid::web) else {
                continue;
            };
            have_first |= position == 0;
            let hop = NextHop::peer(peer.to_owned(), mediators);
            if ranked.iter().any(|(_, known)| *known == hop) {
                continue;
            }
            let domain = claims_of_domain
                .entry(registrable_domain(&web.host).to_owned())
                .or_default();
            ranked.push((*domain, hop));
            *domain += 1;
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.truncate(MAX_COPIES);
        Self {
            hops: ranked.into_iter().map(|(_, hop)| hop).collect(),
            have_first,
        }
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
    fn mediators(names: &[&str]) -> Vec<MediatorDid> {
        let parse = |name: &&str| MediatorDid::parse(name).unwrap();
        names.iter().map(parse).collect()
    }

    /// Returns the first mediator of each hop.
    fn firsts(others: &OtherMediators) -> Vec<&str> {
        let hops = others.hops.iter();
        hops.map(|hop| hop.mediators[0].as_str()).collect()
    }

    #[test]
    fn inv7_many_claimants_of_one_domain_hide_none_of_another() {
        let own = MediatorDid::parse("did:web:here.example.com").unwrap();
        let mut claims: Vec<_> = (0..200)
            .map(|n| mediators(&[&format!("did:web:m{n}.evil.example")]))
            .collect();
        claims.push(mediators(&["did:web:home.example.org"]));
        let others = OtherMediators::of("did:peer:2.a", claims, &own);
        assert_eq!(
            firsts(&others)[..3],
            [
                "did:web:m0.evil.example",
                "did:web:home.example.org",
                "did:web:m1.evil.example"
            ]
        );
        assert_eq!(others.hops.len(), MAX_COPIES);
        assert!(others.have_first);
    }

    #[test]
    fn copies_go_to_other_mediators_and_once_to_each() {
        let own = MediatorDid::parse("did:web:here.example.com").unwrap();
        let other = ["did:web:there.example.org", "did:web:far.example.net"];
        let claims = vec![
            mediators(&["did:web:here.example.com", "did:web:there.example.org"]),
            mediators(&["did:plc:ewvi7nxzyoun6zhxrhs64oiz"]),
            mediators(&other),
            mediators(&other),
        ];
        let others = OtherMediators::of("did:peer:2.a", claims, &own);
        assert_eq!(firsts(&others), ["did:web:there.example.org"]);
        // The account that named the did:peer first is here.
        assert!(!others.have_first);
        let none = OtherMediators::of("did:peer:2.a", Vec::new(), &own);
        assert_eq!(none, OtherMediators::default());
    }
}
