//! How a mediator is reached: its endpoint, and the layers of encryption on the way.
//!
//! Source: DIDComm Messaging 2.1, "Service Endpoint" and "Using a DID as an endpoint".

use std::sync::Arc;

use serde_json::value::RawValue;
use url::Url;

use super::{Destinations, NextHop};
use crate::store::StoreError;
use atcomm_net::identity::{Busy, Freshness, MediatorDocument, Service};
use atcomm_proto::didcomm::envelope::{self, ContentEncryption, PublicKey};
use atcomm_proto::didcomm::message::fresh_id;
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::didcomm::protocol::routing::Forward;
use atcomm_proto::syntax::{MediatorDid, RemoteText};

/// Errors of resolving the route to a mediator.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum RouteError {
    /// The document cannot be resolved now.
    #[error("its DID document cannot be had: {0}")]
    NoDocument(#[source] DocumentFault),
    /// The document names no endpoint that messages can be posted to.
    #[error("its DID document names no endpoint that can be used")]
    NoEndpoint,
    /// A mediator or routing key to wrap for has no usable key.
    #[error("a key to wrap for cannot be found")]
    NoKey,
    /// The message was wrapped by a mediator before, and would have to be wrapped again.
    #[error("the message was relayed already, and that mediator is reached by way of others")]
    Indirect,
    /// A message cannot be wrapped.
    #[error("the message cannot be wrapped")]
    Wrapping,
}

/// The reason why a mediator's document cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum DocumentFault {
    /// The store does not tell what is known of the mediator.
    #[error(transparent)]
    Store(StoreError),
    /// The look-up has to wait.
    #[error(transparent)]
    Busy(Busy),
    /// The check of the mediator failed. Holds the reason that is kept with its state.
    #[error("{0}")]
    Failed(RemoteText),
    /// The document has no service.
    #[error("it has no service")]
    NoService,
}

/// The route to one mediator.
pub(super) struct Route {
    pub(super) endpoint: Url,
    /// The mediator whose document names the endpoint.
    pub(super) named_by: MediatorDid,
    /// Layers to put around the message, the innermost first: the key of each, and the DID that
    /// follows behind it.
    layers: Vec<(PublicKey, String)>,
    /// Whether the innermost layer is opened by the mediator that keeps the message.
    ends_at_peer: bool,
}

/// The ends of a message's life, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    /// The end that the sender has set. Holds in the recipient's queue, too.
    pub(super) sender: Option<i64>,
    /// The end of all attempts to carry the message there. Mediators on the way take it over, so
    /// that the time does not begin anew with each of them.
    pub(super) carried: i64,
}

impl Route {
    /// Wraps the message in all layers.
    pub(super) fn wrap(&self, message: Vec<u8>, ends: Ends) -> Result<Vec<u8>, RouteError> {
        let mut wrapped = message;
        for (n, (key, next)) in self.layers.iter().enumerate() {
            let is_last_stop = n == 0 && self.ends_at_peer;
            let expires = if is_last_stop {
                ends.sender
            } else {
                Some(ends.carried)
            };
            wrapped = wrap(&wrapped, key, next, expires)?;
        }
        Ok(wrapped)
    }
}

/// Makes a forward to `next`, encrypted to one key. The forward is marked as relayed, so that
/// mediators whose directories contradict each other do not send it to and fro.
fn wrap(
    message: &[u8],
    key: &PublicKey,
    next: &str,
    expires: Option<i64>,
) -> Result<Vec<u8>, RouteError> {
    let text = String::from_utf8(message.to_vec()).map_err(|_| RouteError::Wrapping)?;
    let raw = RawValue::from_string(text).map_err(|_| RouteError::Wrapping)?;
    let did = key.kid().split_once('#').map_or("", |(did, _)| did);
    let mut forward = Forward::of(fresh_id(), next, raw).to(did);
    forward.expires_time = expires;
    forward.relayed = true;
    envelope::anoncrypt(
        &forward.to_vec(),
        std::slice::from_ref(key),
        ContentEncryption::A256CbcHs512,
    )
    .map_err(|_| RouteError::Wrapping)
}

impl Destinations {
    /// Resolves the route to one mediator of a hop, and behind it to the hop's did:peer where the
    /// message is wrapped anew.
    pub(super) async fn route(
        &self,
        mediator: &MediatorDid,
        hop: &NextHop,
    ) -> Result<Route, RouteError> {
        let document = self.document(mediator).await?;
        if hop.relayed && is_indirect(&document) {
            return Err(RouteError::Indirect);
        }
        let mut layers = Vec::new();
        if let Some(peer) = &hop.peer {
            layers.push((first_key(&document)?, peer.clone()));
        }
        // The first endpoint that messages can be posted to. Only where there is none, one behind
        // the DID of another mediator.
        let direct = document
            .services
            .iter()
            .find_map(|s| Some((s, post_to(s)?)));
        let (service, endpoint, behind) = match direct {
            Some((service, endpoint)) => (service.clone(), endpoint, None),
            None => {
                let (service, other, endpoint) = self.behind(&document).await?;
                (service, endpoint, Some(other))
            }
        };
        // Wrapping begins with the last key of the list.
        let mut next = mediator.as_str().to_owned();
        for text in foreign_keys(&service, mediator).rev() {
            let behind = std::mem::replace(&mut next, text.clone());
            layers.push((self.routing_key(text).await?, behind));
        }
        let mut named_by = mediator.clone();
        if let Some(other) = behind {
            layers.push((first_key(&other)?, next));
            named_by = other.did.clone();
        }
        Ok(Route {
            endpoint,
            named_by,
            layers,
            ends_at_peer: hop.peer.is_some(),
        })
    }

    /// Finds a service whose endpoint is the DID of another mediator. Returns the service, that
    /// mediator and its endpoint.
    async fn behind(
        &self,
        document: &MediatorDocument,
    ) -> Result<(Service, Arc<MediatorDocument>, Url), RouteError> {
        for service in &document.services {
            let Ok(did) = MediatorDid::parse(&service.uri) else {
                continue;
            };
            let own = self.own.web();
            if did.web().is_none() || did == document.did || did.web() == own {
                continue;
            }
            let other = self.document(&did).await?;
            if let Some(endpoint) = other.services.iter().find_map(post_to) {
                return Ok((service.clone(), other, endpoint));
            }
        }
        Err(RouteError::NoEndpoint)
    }

    pub(super) async fn document(
        &self,
        did: &MediatorDid,
    ) -> Result<Arc<MediatorDocument>, RouteError> {
        let directory = self.resolver.directory();
        let known = directory
            .mediator(did)
            .await
            .map_err(|error| RouteError::NoDocument(DocumentFault::Store(error)))?;
        let identity = self.resolver.identity();
        let document = identity
            .mediator(did, Freshness::Cached, known)
            .await
            .map_err(|busy| RouteError::NoDocument(DocumentFault::Busy(busy)))?;
        if document.services.is_empty() {
            let reason = document.reason.clone();
            return Err(RouteError::NoDocument(
                reason.map_or(DocumentFault::NoService, DocumentFault::Failed),
            ));
        }
        Ok(document)
    }

    async fn routing_key(&self, text: &str) -> Result<PublicKey, RouteError> {
        let (did, has_fragment) = match text.split_once('#') {
            Some((did, _)) => (did, true),
            None => (text, false),
        };
        if let Ok(party) = Party::resolve(did) {
            let key = if has_fragment {
                party.key(text)
            } else {
                party.key_agreement().first()
            };
            return key.cloned().ok_or(RouteError::NoKey);
        }
        let did = MediatorDid::parse(did).map_err(|_| RouteError::NoKey)?;
        let document = self.document(&did).await?;
        if !has_fragment {
            return first_key(&document);
        }
        document
            .key_agreement
            .iter()
            .find(|key| key.id == text)
            .and_then(|key| PublicKey::from_multikey(&key.id, &key.public_key_multibase).ok())
            .ok_or(RouteError::NoKey)
    }
}

/// Returns whether messages for a mediator go by way of other mediators first.
pub(super) fn is_indirect(document: &MediatorDocument) -> bool {
    let direct = document.services.iter().find(|s| post_to(s).is_some());
    match direct {
        Some(service) => foreign_keys(service, &document.did).next().is_some(),
        None => document.services.iter().any(|s| s.uri.starts_with("did:")),
    }
}

/// Returns the routing keys of a service without the mediator's own: messages are encrypted to those
/// already.
fn foreign_keys<'s>(
    service: &'s Service,
    mediator: &MediatorDid,
) -> impl DoubleEndedIterator<Item = &'s String> {
    let mediator = mediator.as_str().to_owned();
    let own = format!("{mediator}#");
    let keys = service.routing_keys.iter();
    keys.filter(move |key| !key.starts_with(&own) && **key != mediator)
}

/// Returns the first key of a document that can be encrypted to.
fn first_key(document: &MediatorDocument) -> Result<PublicKey, RouteError> {
    document
        .key_agreement
        .iter()
        .find_map(|key| PublicKey::from_multikey(&key.id, &key.public_key_multibase).ok())
        .ok_or(RouteError::NoKey)
}

/// Returns the URL of a service, if messages can be posted there.
fn post_to(service: &Service) -> Option<Url> {
    let v2 = |profile: &String| profile == "didcomm/v2" || profile.starts_with("didcomm/v2;");
    let accepts = service.accept.is_empty() || service.accept.iter().any(v2);
    let url = Url::parse(&service.uri).ok()?;
    (accepts && matches!(url.scheme(), "https" | "http")).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atcomm_proto::didcomm::envelope::{Curve, SecretKey, SelfCertified, unpack};
    use atcomm_proto::didcomm::message::Message;
    use atcomm_proto::didcomm::protocol::Body as _;

    #[test]
    fn layers_are_opened_from_the_outermost_in() {
        let secret = |name: &str| {
            let kid = format!("did:web:{name}.example.com#key-1");
            SecretKey::generate(Curve::X25519, kid)
        };
        let (near, far) = (secret("near"), secret("far"));
        let route = Route {
            endpoint: Url::parse("https://near.example.com/didcomm").unwrap(),
            named_by: MediatorDid::parse("did:web:near.example.com").unwrap(),
            layers: vec![
                (far.public(), "did:peer:2.Ez6LS".to_owned()),
                (near.public(), "did:web:far.example.com".to_owned()),
            ],
            ends_at_peer: true,
        };
        // The white space shows that the message is not serialised anew on the way.
        let ends = Ends {
            sender: None,
            carried: 1_800_000_000,
        };
        let message = br#"{ "protected": "x",  "recipients": [] }"#.to_vec();
        let mut wrapped = route.wrap(message.clone(), ends).unwrap();
        // The end of the way is not the end of the message's life in the queue.
        for (key, next, expires) in [
            (&near, "did:web:far.example.com", Some(1_800_000_000)),
            (&far, "did:peer:2.Ez6LS", None),
        ] {
            let ring =
                vec![SecretKey::from_bytes(Curve::X25519, key.kid(), &key.to_bytes()).unwrap()];
            let opened = unpack(&wrapped, &ring, &SelfCertified).unwrap();
            let forward = Message::parse(&opened.plaintext).unwrap();
            assert_eq!(forward.kind, Forward::TYPE);
            assert!(forward.relayed && forward.expires_time == expires);
            assert_eq!(forward.body_of::<Forward>().unwrap().next, next);
            wrapped = forward.attachments[0].bytes().unwrap().into_owned();
        }
        assert_eq!(wrapped, message);
        assert!(matches!(
            route.wrap(b"no JSON".to_vec(), ends),
            Err(RouteError::Wrapping)
        ));
    }

    #[test]
    fn endpoints_that_can_be_posted_to() {
        let service = |uri: &str, accept: &[&str]| Service {
            uri: uri.to_owned(),
            accept: accept.iter().map(|&s| s.to_owned()).collect(),
            routing_keys: Vec::new(),
        };
        for (uri, accept, good) in [
            ("https://m.example.com/x", &[][..], true),
            (
                "https://m.example.com/x",
                &["didcomm/aip1", "didcomm/v2"],
                true,
            ),
            ("https://m.example.com/x", &["didcomm/v2;env=x"], true),
            (
                "https://m.example.com/x",
                &["didcomm/aip2;env=rfc19"],
                false,
            ),
            ("wss://m.example.com/x", &["didcomm/v2"], false),
            ("did:web:m.example.com", &["didcomm/v2"], false),
            ("didcomm:transport/queue", &["didcomm/v2"], false),
        ] {
            assert_eq!(
                post_to(&service(uri, accept)).is_some(),
                good,
                "{uri} {accept:?}"
            );
        }
    }
}
