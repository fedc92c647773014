//! Routes to a mediator: the address to post to, and the keys to wrap for on the way.
//!
//! Source: DIDComm Messaging 2.1, "Service Endpoint" and "Using a DID as an endpoint".

use std::sync::Arc;

use serde_json::value::RawValue;
use url::Url;

use atcomm_net::identity::{MediatorDocument, Service};
use atcomm_proto::didcomm::envelope::{self, ContentEncryption, Curve, PublicKey};
use atcomm_proto::didcomm::message::fresh_id;
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::didcomm::protocol::routing::Forward;
use atcomm_proto::syntax::MediatorDid;

/// Most routing keys of one service; wrapping for each makes the message longer by a third.
pub const MAX_ROUTING_KEYS: usize = 4;

/// Errors of finding or using a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The document names no endpoint that can be posted to.
    #[error("its DID document names no endpoint that can be used")]
    NoEndpoint,
    /// A key to wrap for is missing, or is no X25519 key.
    #[error("a key to wrap for cannot be found in its DID document")]
    NoKey,
    /// A service has more than [`MAX_ROUTING_KEYS`].
    #[error("its DID document names more than {MAX_ROUTING_KEYS} routing keys")]
    TooManyKeys,
    /// The document of a mediator on the way is not at hand.
    #[error("the DID document of {0} is needed, which stands on the way")]
    NoDocument(MediatorDid),
    /// The message cannot be wrapped.
    #[error("the message cannot be wrapped")]
    Wrapping,
}

/// A result, or the mediator whose DID document is needed for it.
#[derive(Debug)]
pub enum Progress<T> {
    /// The result.
    Done(T),
    /// The mediator whose document is to be added to the [`Others`] of the next call.
    Need(MediatorDid),
}

impl<T> Progress<T> {
    /// Returns the result, if there is one.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(result) => Some(result),
            Self::Need(_) => None,
        }
    }
}

/// The documents of other mediators that may stand on the way.
pub type Others<'a> = &'a dyn Fn(&MediatorDid) -> Option<Arc<MediatorDocument>>;

/// A route to one mediator.
#[derive(Debug, Clone)]
pub struct Route {
    /// The address to post to.
    pub endpoint: Url,
    /// Layers to put around a message, the innermost first: the key, and the next hop behind it.
    layers: Vec<(PublicKey, String)>,
}

impl Route {
    /// Finds the route to the mediator of `document`: its first endpoint that can be posted to, or
    /// else the first that is another mediator.
    pub fn to(
        document: &MediatorDocument,
        others: Others<'_>,
    ) -> Result<Progress<Self>, RouteError> {
        let direct = document
            .services
            .iter()
            .find_map(|service| Some((service, address(service, "https", "http")?)));
        let (service, endpoint, behind) = match direct {
            Some((service, endpoint)) => (service, endpoint, None),
            None => match behind(document, others)? {
                Progress::Done(found) => (found.service, found.endpoint, Some(found.other)),
                Progress::Need(did) => return Ok(Progress::Need(did)),
            },
        };
        if service.routing_keys.len() > MAX_ROUTING_KEYS {
            return Err(RouteError::TooManyKeys);
        }
        let own = format!("{}#", document.did);
        let mut layers = Vec::new();
        // The last routing key in the list is wrapped for first. A key of the mediator itself is
        // left out: the message is encrypted to the mediator already.
        let mut next = document.did.as_str().to_owned();
        let keys = service.routing_keys.iter().rev();
        for text in keys.filter(|key| !key.starts_with(&own) && **key != *document.did.as_str()) {
            let key = match routing_key(text, others)? {
                Progress::Done(key) => key,
                Progress::Need(did) => return Ok(Progress::Need(did)),
            };
            layers.push((key, std::mem::replace(&mut next, text.clone())));
        }
        if let Some(other) = behind {
            layers.push((first_key(&other)?, next));
        }
        Ok(Progress::Done(Self { endpoint, layers }))
    }

    /// Wraps a message to the mediator for posting.
    pub fn wrap(&self, message: Vec<u8>, now: i64) -> Result<Vec<u8>, RouteError> {
        self.layers.iter().try_fold(message, |inner, (key, next)| {
            forward(fresh_id(), &inner, key, next, now)
        })
    }
}

/// Encrypts an anonymous forward to `next` for the hop with `key`; `now` is in seconds since 1970.
pub(crate) fn forward(
    id: String,
    envelope: &[u8],
    key: &PublicKey,
    next: &str,
    now: i64,
) -> Result<Vec<u8>, RouteError> {
    let did = key.kid().split_once('#').map_or("", |(did, _)| did);
    let forward = Forward::of(id, next, json(envelope)?)
        .to(did)
        .created_time(now);
    envelope::anoncrypt(
        &forward.to_vec(),
        std::slice::from_ref(key),
        ContentEncryption::A256CbcHs512,
    )
    .map_err(|_| RouteError::Wrapping)
}

/// Reads an envelope as the JSON value that a forward contains, to the byte.
pub(crate) fn json(envelope: &[u8]) -> Result<Box<RawValue>, RouteError> {
    let text = String::from_utf8(envelope.to_vec()).map_err(|_| RouteError::Wrapping)?;
    RawValue::from_string(text).map_err(|_| RouteError::Wrapping)
}

/// Returns the first X25519 key of a document.
pub(crate) fn first_key(document: &MediatorDocument) -> Result<PublicKey, RouteError> {
    let keys = document.key_agreement.iter();
    keys.filter_map(|key| PublicKey::from_multikey(&key.id, &key.public_key_multibase).ok())
        .find(|key| key.curve() == Curve::X25519)
        .ok_or(RouteError::NoKey)
}

/// Returns the address of a service under one of two schemes, if it accepts DIDComm v2.
pub(crate) fn address(service: &Service, secure: &str, plain: &str) -> Option<Url> {
    let v2 = |profile: &String| profile == "didcomm/v2" || profile.starts_with("didcomm/v2;");
    let accepts = service.accept.is_empty() || service.accept.iter().any(v2);
    let url = Url::parse(&service.uri).ok()?;
    (accepts && [secure, plain].contains(&url.scheme())).then_some(url)
}

/// A service whose endpoint is the DID of another mediator.
struct Behind<'d> {
    service: &'d Service,
    other: Arc<MediatorDocument>,
    /// The address that the other mediator is posted to at.
    endpoint: Url,
}

/// Returns the first service whose endpoint is the DID of another mediator that can be posted to.
/// A mediator behind that one is not followed.
fn behind<'d>(
    document: &'d MediatorDocument,
    others: Others<'_>,
) -> Result<Progress<Behind<'d>>, RouteError> {
    for service in &document.services {
        let Ok(did) = MediatorDid::parse(&service.uri) else {
            continue;
        };
        if did.web().is_none() || did == document.did {
            continue;
        }
        let Some(other) = others(&did) else {
            return Ok(Progress::Need(did));
        };
        let post_to = |service| address(service, "https", "http");
        if let Some(endpoint) = other.services.iter().find_map(post_to) {
            return Ok(Progress::Done(Behind {
                service,
                other,
                endpoint,
            }));
        }
    }
    Err(RouteError::NoEndpoint)
}

fn routing_key(text: &str, others: Others<'_>) -> Result<Progress<PublicKey>, RouteError> {
    let did = text.split_once('#').map_or(text, |(did, _)| did);
    let named = text.len() > did.len();
    let key = match Party::resolve(did) {
        Ok(party) if named => party.agreement_key(text).cloned(),
        Ok(party) => {
            let mut keys = party.key_agreement().iter();
            keys.find(|key| key.curve() == Curve::X25519).cloned()
        }
        Err(_) => {
            let did = MediatorDid::parse(did).map_err(|_| RouteError::NoKey)?;
            if did.web().is_none() {
                return Err(RouteError::NoKey);
            }
            let Some(document) = others(&did) else {
                return Ok(Progress::Need(did));
            };
            if !named {
                return first_key(&document).map(Progress::Done);
            }
            let mut keys = document.key_agreement.iter();
            keys.find(|key| key.id == text)
                .and_then(|key| PublicKey::from_multikey(&key.id, &key.public_key_multibase).ok())
        }
    };
    key.map(Progress::Done).ok_or(RouteError::NoKey)
}

#[cfg(test)]
mod tests;
