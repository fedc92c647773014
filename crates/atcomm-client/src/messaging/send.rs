//! Handing a message over: to the first of the reader's mediators that takes it.
//!
//! Mediators that do not answer now are tried after those that do, since a relay takes mail for them
//! and then tries for a day. Each attempt is written down before it is made and again when its end
//! is known, so that a report finds it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::{DeliveryPath, PathFailure, delivery_paths};
use super::outbox::{AttemptState, SentMessage};
use super::wrap::{WrappedMessage, parcel};
use crate::mediator::client::{
    MAX_REFUSAL, MEDIA_TYPE, MailError, check_usable, document, refused,
};
use crate::mediator::route::RouteError;
use crate::wallet::enrolment::MessagingKey;
use atcomm_net::identity::{Freshness, Identity, MediatorDocument, MediatorState};
use atcomm_net::net::{Net, Priority, Request, Trust};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{MediatorDid, RemoteText};

/// Time for a mediator to take a message.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Most other mediators that are looked up for one way.
const MAX_OTHERS: usize = 6;

/// What hands messages over.
#[derive(Clone)]
pub struct Courier {
    net: Net,
    identity: Identity,
    clock: Clock,
}

/// How handing over ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// Somebody took it.
    Accepted {
        /// The way that it is on.
        way: DeliveryPath,
        /// Whether the reader's mediator answered when it was looked at.
        reachable: bool,
        /// What was tried before.
        failures: Vec<PathFailure>,
    },
    /// Nobody did.
    Refused(Vec<PathFailure>),
}

impl Courier {
    /// Dials nothing yet.
    pub fn new(net: &Net, identity: &Identity, clock: &Clock) -> Self {
        Self {
            net: net.clone(),
            identity: identity.clone(),
            clock: clock.clone(),
        }
    }

    /// Hands a message over by the first way that works. `theirs` are the reader's mediators that
    /// are to be tried, `own` those that keep mail for `key`, which wrote the message. `keep` is
    /// called before and after each attempt; where it fails, nothing more is tried.
    pub async fn deliver<E>(
        &self,
        sent: &mut SentMessage,
        theirs: &[Arc<MediatorDocument>],
        own: &[MediatorDid],
        key: &MessagingKey,
        keep: &mut (dyn FnMut(&SentMessage) -> Result<(), E> + Send),
    ) -> Result<DeliveryOutcome, E> {
        let mut failures: Vec<PathFailure> = Vec::new();
        // Who did not answer is not asked again for another mediator.
        let mut away = BTreeSet::new();
        for way in delivery_paths(theirs, own) {
            let posted_to = way.via.as_ref().unwrap_or(&way.mediator).clone();
            if away.contains(&posted_to) || away.contains(&way.mediator) {
                continue;
            }
            let Some(document) = theirs.iter().find(|one| one.did == way.mediator) else {
                continue;
            };
            if let Err(error) = check_usable(document) {
                // Nothing can be encrypted to it, whoever relays.
                away.insert(way.mediator.clone());
                let way = DeliveryPath { via: None, ..way };
                failures.push(PathFailure { way, error });
                continue;
            }
            let parcel = match self.prepare(sent, document, &way, key).await {
                Ok(parcel) => parcel,
                Err(error) => {
                    if matches!(error, MailError::Unreachable { .. }) {
                        away.insert(posted_to);
                    }
                    failures.push(PathFailure { way, error });
                    continue;
                }
            };
            let now = self.clock.now();
            let (mediator, via) = (parcel.mediator.clone(), parcel.via.clone());
            sent.begin(mediator, via, parcel.forward_id.clone(), now);
            keep(sent)?;
            match post(&self.net, parcel).await {
                Ok(()) => {
                    sent.end(AttemptState::Taken);
                    keep(sent)?;
                    return Ok(DeliveryOutcome::Accepted {
                        reachable: document.state != MediatorState::Unreachable,
                        way,
                        failures,
                    });
                }
                Err(error) => {
                    sent.end(AttemptState::Failed(RemoteText::new(&error.to_string())));
                    keep(sent)?;
                    if matches!(error, MailError::Unreachable { .. }) {
                        away.insert(posted_to);
                    }
                    failures.push(PathFailure { way, error });
                }
            }
        }
        Ok(DeliveryOutcome::Refused(failures))
    }

    /// Reads the documents of mediators; those that cannot be had now are left out.
    pub async fn documents(
        &self,
        mediators: &[MediatorDid],
    ) -> Result<Vec<Arc<MediatorDocument>>, MailError> {
        let mut found = Vec::new();
        let mut last = MailError::Unusable("the record names no mediator".to_owned());
        for did in mediators {
            match document(&self.identity, did, Freshness::Cached).await {
                Ok(document) => found.push(document),
                Err(error) => last = error,
            }
        }
        match found.is_empty() {
            true => Err(last),
            false => Ok(found),
        }
    }

    /// Wraps a message for a way, looking up who else stands on it.
    async fn prepare(
        &self,
        sent: &SentMessage,
        theirs: &Arc<MediatorDocument>,
        way: &DeliveryPath,
        key: &MessagingKey,
    ) -> Result<WrappedMessage, MailError> {
        // What is posted to is what this client has read itself, whoever has shown `theirs`.
        let posted_to = way.via.as_ref().unwrap_or(&way.mediator);
        let own = document(&self.identity, posted_to, Freshness::Cached).await?;
        let now = self.clock.now().millis() / 1000;
        let mut others: Vec<Arc<MediatorDocument>> = Vec::new();
        loop {
            let known = |did: &MediatorDid| others.iter().find(|one| one.did == *did).cloned();
            let envelope = sent.envelope.as_bytes();
            match parcel(envelope, &sent.peer, theirs, &own, key, now, &known) {
                Err(RouteError::Unresolved { did }) if others.len() < MAX_OTHERS => {
                    others.push(document(&self.identity, &did, Freshness::Cached).await?);
                }
                made => return Ok(made?),
            }
        }
    }
}

/// Posts a parcel; taken when it returns.
pub(super) async fn post(net: &Net, parcel: WrappedMessage) -> Result<(), MailError> {
    let request = Request {
        priority: Priority::Mail,
        timeout: Some(TIMEOUT),
        ..Request::new(parcel.url, Trust::Untrusted, MAX_REFUSAL)
    };
    let answer = net.post(&request, MEDIA_TYPE, parcel.body.into()).await?;
    match answer.status.is_success() {
        true => Ok(()),
        false => Err(refused(&answer)),
    }
}
