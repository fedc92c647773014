//! Wrapping: a message is encrypted to its recipient, wrapped for the recipient's mediator, and
//! wrapped once more for the sender's own, so that the recipient's mediator does not see the
//! sender's address.
//!
//! ```text
//! sender's mediator <- forward from the sender, next = recipient's mediator
//!                        recipient's mediator <- anonymous forward, next = recipient
//!                                                  recipient <- message from the sender
//! ```
//!
//! Where one mediator serves both parties, the outermost layer is left out. The outermost forward
//! names its sender, so that the sender's mediator can report to it when relaying fails.
//!
//! Source: the binding, "Envelope and delivery"; DIDComm Messaging 2.1, "Routing Protocol 2.0".

use url::Url;

use crate::mediator::route::{self, Others, Progress, Route, RouteError};
use crate::wallet::enrolment::MessagingKey;
use atcomm_net::identity::MediatorDocument;
use atcomm_proto::did_peer::PeerDid;
use atcomm_proto::didcomm::envelope::{self, Curve, EnvelopeError, PublicKey};
use atcomm_proto::didcomm::message::{Message, fresh_id};
use atcomm_proto::didcomm::protocol::routing::Forward;
use atcomm_proto::syntax::MediatorDid;

/// A message ready to be posted.
#[derive(Debug, Clone)]
pub struct WrappedMessage {
    /// The address to post to.
    pub url: Url,
    /// The body of the request.
    pub body: Vec<u8>,
    /// Id of the outermost forward, and of its thread; a report about the forward names it.
    pub forward_id: String,
    /// The own mediator that relays to `mediator`; `None` where the message is posted directly.
    pub via: Option<MediatorDid>,
    /// The recipient's mediator.
    pub mediator: MediatorDid,
}

/// Encrypts a message from the sender's key to the recipient's first X25519 key, and sets `from`
/// and `to` of the message.
pub fn seal(message: Message, key: &MessagingKey, to: &PeerDid) -> Result<Vec<u8>, EnvelopeError> {
    let mut keys = to.key_agreement().iter();
    let first = keys
        .find_map(|key| PublicKey::new(key.id.as_str(), Curve::X25519, key.as_bytes()).ok())
        .ok_or(EnvelopeError::NoRecipients)?;
    let message = Message {
        from: Some(key.peer.as_str().to_owned()),
        to: vec![to.as_str().to_owned()],
        ..message
    };
    envelope::authcrypt(
        &message.to_vec(),
        &key.agreement,
        std::slice::from_ref(&first),
    )
}

/// Wraps a sealed message for the recipient `peer` at the mediator of `theirs`, relayed by the
/// mediator of `own` where that is another one. The client has read `own` itself. `now` is in
/// seconds since 1970. Every call makes new layers.
pub fn wrap(
    envelope: &[u8],
    peer: &str,
    theirs: &MediatorDocument,
    own: &MediatorDocument,
    key: &MessagingKey,
    now: i64,
    others: Others<'_>,
) -> Result<Progress<WrappedMessage>, RouteError> {
    let is_relayed = theirs.did != own.did;
    let to_theirs = is_relayed.then(|| route::first_key(theirs)).transpose()?;
    let route = match Route::to(own, others)? {
        Progress::Done(route) => route,
        Progress::Need(did) => return Ok(Progress::Need(did)),
    };
    let to_own = route::first_key(own)?;
    let forward_id = fresh_id();
    let body = match to_theirs {
        None => route::forward(forward_id.clone(), envelope, &to_own, peer, now)?,
        Some(to_theirs) => {
            let inner = route::forward(fresh_id(), envelope, &to_theirs, peer, now)?;
            let next = theirs.did.as_str();
            let outer = Forward::of(forward_id.as_str(), next, route::json(&inner)?)
                .from(key.peer.as_str())
                .to(own.did.as_str())
                .created_time(now);
            let to_own = std::slice::from_ref(&to_own);
            envelope::authcrypt(&outer.to_vec(), &key.agreement, to_own)
                .map_err(|_| RouteError::Wrapping)?
        }
    };
    Ok(Progress::Done(WrappedMessage {
        body: route.wrap(body, now)?,
        url: route.endpoint,
        forward_id,
        via: is_relayed.then(|| own.did.clone()),
        mediator: theirs.did.clone(),
    }))
}

#[cfg(test)]
mod tests;
