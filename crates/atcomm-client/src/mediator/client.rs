//! The client of one own mediator for one own key: registering, fetching, acknowledging.
//!
//! Requests go over HTTP and are answered on the same connection. An answer counts when the
//! mediator's own DID has encrypted it to the key that asked, in the thread of the request; any
//! other answer is [`MailError::NotOurs`].
//!
//! Source: the protocols of [`atcomm_proto::didcomm::protocol`]; DIDComm Messaging 2.1, "Transports".

mod error;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use url::Url;

use super::route::{self, RouteError};
use crate::wallet::enrolment::MessagingKey;
use atcomm_net::identity::{Freshness, Identity, MediatorDocument, MediatorState};
use atcomm_net::net::{Net, Priority, Request, Response, Trust, XrpcError};
use atcomm_proto::clock::Clock;
use atcomm_proto::didcomm::envelope::{self, Layer, PublicKey};
use atcomm_proto::didcomm::message::{Message, ReturnRoute, TypeUri, fresh_id};
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::didcomm::protocol::Body as _;
use atcomm_proto::didcomm::protocol::coordination::{self, Action, Outcome, Update};
use atcomm_proto::didcomm::protocol::pickup::{self, Status};
use atcomm_proto::didcomm::protocol::problem::{Code, Report};
use atcomm_proto::didcomm::protocol::trust_ping::{Ping, PingResponse};
use atcomm_proto::syntax::{Did, MediatorDid, RemoteText};

pub use error::{ForeignAnswer, MailError, MediatorDefect, MediatorOutage};

/// Longest answer, in bytes. A delivery of 2 MiB of mail contains it twice, each time a third
/// longer, and the envelope around it adds another third; a single message may be longer.
pub(super) const MAX_ANSWER: usize = 16 << 20;

/// Timeout for an answer. The answer to a mediate-request may wait for the mediator's directory,
/// which refreshes the account.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest refusal of a forward that is read, in bytes.
pub(crate) const MAX_REFUSAL: usize = 16 * 1024;

/// Media type of requests.
pub(crate) const MEDIA_TYPE: &str = "application/didcomm-encrypted+json";

/// A message in a queue of the mediator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Id at the mediator, to acknowledge the message by.
    pub id: String,
    /// The envelope; empty where the mediator did not deliver it in a form that can be read.
    pub envelope: Vec<u8>,
}

/// A mediator as one key sees it. Cloning is cheap.
#[derive(Clone)]
pub struct MediatorClient(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) net: Net,
    pub(super) clock: Clock,
    pub(super) document: Arc<MediatorDocument>,
    /// The mediator as a sender of messages.
    pub(super) party: Party,
    pub(super) endpoint: Url,
    /// The key that requests are encrypted to.
    pub(super) to: PublicKey,
    pub(super) key: MessagingKey,
}

/// Reads the document of a mediator. A mediator whose endpoint does not answer the probe is usable,
/// too, as long as its keys are known.
pub async fn document(
    identity: &Identity,
    did: &MediatorDid,
    freshness: Freshness,
) -> Result<Arc<MediatorDocument>, MailError> {
    let document = identity.mediator(did, freshness, None).await?;
    check_usable(&document)?;
    Ok(document)
}

/// Checks that a document has what it takes to send to the mediator.
pub(crate) fn check_usable(document: &MediatorDocument) -> Result<(), MailError> {
    match document.state {
        MediatorState::Unsupported => Err(MailError::Unusable(MediatorDefect::Method)),
        MediatorState::Unresolved => Err(MailError::Unreachable {
            why: match &document.reason {
                Some(reason) => MediatorOutage::Document(reason.clone()),
                None => MediatorOutage::NoDocument,
            },
            retry_after: None,
        }),
        MediatorState::Reachable | MediatorState::Unreachable | MediatorState::Unchecked => Ok(()),
    }
}

impl MediatorClient {
    /// Reads the mediator's document; sends no request yet.
    pub async fn open(
        net: &Net,
        identity: &Identity,
        clock: &Clock,
        did: &MediatorDid,
        key: &MessagingKey,
        freshness: Freshness,
    ) -> Result<Self, MailError> {
        let document = document(identity, did, freshness).await?;
        Self::with_document(net, clock, document, key)
    }

    /// Returns a client of the mediator with this document.
    pub fn with_document(
        net: &Net,
        clock: &Clock,
        document: Arc<MediatorDocument>,
        key: &MessagingKey,
    ) -> Result<Self, MailError> {
        let mut services = document.services.iter();
        let endpoint = services.find_map(|service| route::address(service, "https", "http"));
        let keys = document
            .key_agreement
            .iter()
            .filter_map(|key| PublicKey::from_multikey(&key.id, &key.public_key_multibase).ok());
        Ok(Self(Arc::new(Inner {
            net: net.clone(),
            clock: clock.clone(),
            party: Party::from_document(document.did.as_str(), keys.collect(), Vec::new()),
            endpoint: endpoint.ok_or(RouteError::NoEndpoint)?,
            to: route::first_key(&document)?,
            key: key.clone(),
            document,
        })))
    }

    /// The mediator's DID.
    pub fn did(&self) -> &MediatorDid {
        &self.0.document.did
    }

    /// The mediator's document.
    pub fn document(&self) -> &Arc<MediatorDocument> {
        &self.0.document
    }

    /// The mediator as a sender of messages: it reports on its own what became of relayed messages.
    pub fn party(&self) -> &Party {
        &self.0.party
    }

    /// The key that the requests come from.
    pub fn key(&self) -> &MessagingKey {
        &self.0.key
    }

    /// Asks the mediator to accept mail for the key. `account` tells it where the record that names
    /// the key is. Idempotent.
    ///
    /// Source: coordinate-mediation 3.0.
    pub async fn register(&self, account: &Did) -> Result<(), MailError> {
        self.introduce(account).await?;
        self.update(Action::Add).await
    }

    /// Asks the mediator to serve the key, without asking it to accept mail: a mediator that read the
    /// record of `account` may have kept mail for the key before it was asked for anything.
    /// Idempotent.
    pub async fn introduce(&self, account: &Did) -> Result<(), MailError> {
        let request = coordination::Request::Mediate {
            account: Some(account.clone()),
        };
        match self.coordinate(request).await? {
            coordination::Reply::Grant { .. } => Ok(()),
            coordination::Reply::Deny => Err(MailError::Denied),
            _ => Err(unexpected()),
        }
    }

    /// Asks the mediator to accept no more mail for the key. Some mediators hand out no queued mail
    /// after it, so nothing should wait. Idempotent.
    pub async fn remove(&self) -> Result<(), MailError> {
        match self.update(Action::Remove).await {
            Err(error) if error.is_code(Code::NotEnrolled) => Ok(()),
            result => result,
        }
    }

    /// Asks whether the mediator accepts mail for the key.
    pub async fn is_registered(&self) -> Result<bool, MailError> {
        let own = self.0.key.peer.as_str();
        match self.coordinate(coordination::Request::Query(None)).await {
            Ok(coordination::Reply::Recipients { dids, .. }) => {
                Ok(dids.iter().any(|did| did == own))
            }
            Ok(_) => Err(unexpected()),
            Err(error) if error.is_code(Code::NotEnrolled) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a trust ping and waits for the answer.
    pub async fn ping(&self) -> Result<(), MailError> {
        let answer = self.ask(Message::new(fresh_id(), &Ping::default())).await?;
        match answer.body_of::<PingResponse>() {
            Ok(_) => Ok(()),
            Err(_) => Err(unexpected()),
        }
    }

    /// Asks how much mail is queued for the key.
    pub async fn status(&self) -> Result<Status, MailError> {
        let request = pickup::Request::Status {
            recipient_did: None,
        };
        match self.pick_up(request).await? {
            pickup::Reply::Status(status) => Ok(status),
            pickup::Reply::Delivery { .. } => Err(unexpected()),
        }
    }

    /// Fetches the oldest queued messages, at most `limit`, or fewer where they are long. They stay
    /// in the queue until they are acknowledged.
    pub async fn fetch(&self, limit: u64) -> Result<Vec<Mail>, MailError> {
        let request = pickup::Request::Delivery {
            limit,
            recipient_did: None,
        };
        Ok(match self.pick_up(request).await? {
            pickup::Reply::Status(_) => Vec::new(),
            delivery @ pickup::Reply::Delivery { .. } => mail(delivery),
        })
    }

    /// Acknowledges messages by their ids at the mediator, at most 1000. The mediator deletes them.
    pub async fn acknowledge(&self, ids: &[String]) -> Result<(), MailError> {
        if ids.is_empty() {
            return Ok(());
        }
        let request = pickup::Request::Received(ids.to_vec());
        self.pick_up(request).await.map(drop)
    }

    async fn update(&self, action: Action) -> Result<(), MailError> {
        let own = self.0.key.peer.as_str();
        let request = coordination::Request::Update(vec![Update {
            recipient_did: own.to_owned(),
            action,
        }]);
        let coordination::Reply::Updated(updated) = self.coordinate(request).await? else {
            return Err(unexpected());
        };
        let mut updated = updated.iter();
        let change = updated.find(|one| one.recipient_did == own && one.action == action);
        match change.map(|one| one.result) {
            Some(Outcome::Success | Outcome::NoChange) => Ok(()),
            Some(Outcome::ClientError) => Err(MailError::Denied),
            Some(Outcome::ServerError) => Err(MailError::Unreachable {
                why: MediatorOutage::Failed,
                retry_after: None,
            }),
            None => Err(unexpected()),
        }
    }

    async fn coordinate(
        &self,
        request: coordination::Request,
    ) -> Result<coordination::Reply, MailError> {
        let request = request.write(coordination::Version::V3, fresh_id());
        let answer = self.ask(request).await?;
        match coordination::Reply::of(&answer) {
            Ok(Some((coordination::Version::V3, reply))) => Ok(reply),
            Ok(_) => Err(unexpected()),
            Err(error) => Err(MailError::NotOurs(error.into())),
        }
    }

    async fn pick_up(&self, request: pickup::Request) -> Result<pickup::Reply, MailError> {
        let request = request.write(pickup::Version::V3, fresh_id());
        let answer = self.ask(request).await?;
        match pickup::Reply::of(&answer) {
            Ok(Some((pickup::Version::V3, reply))) => Ok(reply),
            Ok(_) => Err(unexpected()),
            Err(error) => Err(MailError::NotOurs(error.into())),
        }
    }

    /// Sends a request and returns the answer. A problem report is an error.
    async fn ask(&self, question: Message) -> Result<Message, MailError> {
        let thread = question.id.clone();
        let body = self.seal(question)?;
        let request = Request {
            // A `Retry-After` of the mediator is returned to the caller and does not close the host
            // for other requests.
            priority: Priority::Mail,
            timeout: Some(REQUEST_TIMEOUT),
            ..Request::new(self.0.endpoint.clone(), Trust::Untrusted, MAX_ANSWER)
        };
        let answer = self.0.net.post(&request, MEDIA_TYPE, body).await?;
        match answer.status {
            StatusCode::OK => {}
            status if status.is_success() => return Err(MailError::Silent),
            _ => return Err(refused(&answer)),
        }
        let answer = self.open_answer(&answer.body)?;
        self.in_thread(answer, &thread)
    }

    /// Encrypts a request to the mediator.
    pub(super) fn seal(&self, message: Message) -> Result<Bytes, MailError> {
        let Inner { key, clock, to, .. } = &*self.0;
        let message = message
            .from(key.peer.as_str())
            .to(self.did().as_str())
            .created_time(clock.now().millis() / 1000)
            .return_route(ReturnRoute::All);
        envelope::authcrypt(&message.to_vec(), &key.agreement, std::slice::from_ref(to))
            .map(Bytes::from)
            .map_err(|error| MailError::Unusable(error.into()))
    }

    /// Decrypts a message that the mediator has encrypted to the key.
    pub(super) fn open_answer(&self, bytes: &[u8]) -> Result<Message, MailError> {
        let Inner { key, party, .. } = &*self.0;
        let known = |did: &str| party.is(did).then(|| party.clone());
        let opened = envelope::unpack(bytes, key, &known)
            .map_err(|error| MailError::NotOurs(error.into()))?;
        if !opened.layers.contains(&Layer::Authcrypt) || opened.sender.is_none() {
            return Err(MailError::NotOurs(ForeignAnswer::Anonymous));
        }
        Message::parse(&opened.plaintext).map_err(|error| MailError::NotOurs(error.into()))
    }

    /// Checks that an answer is in the thread of its request.
    pub(super) fn in_thread(&self, answer: Message, thread: &str) -> Result<Message, MailError> {
        if let Some(refused) = problem(&answer) {
            let about = [&answer.pthid, &answer.thid];
            return if about.iter().any(|one| one.as_deref() == Some(thread)) {
                Err(refused)
            } else {
                Err(another_thread())
            };
        }
        if answer.thid.as_deref() == Some(thread) {
            Ok(answer)
        } else {
            Err(another_thread())
        }
    }
}

pub(super) fn unexpected() -> MailError {
    MailError::NotOurs(ForeignAnswer::OtherKind)
}

fn another_thread() -> MailError {
    MailError::NotOurs(ForeignAnswer::OtherThread)
}

/// Returns the messages of a delivery. One without an id cannot be acknowledged and is left out.
pub(super) fn mail(reply: pickup::Reply) -> Vec<Mail> {
    let pickup::Reply::Delivery { messages, .. } = reply else {
        return Vec::new();
    };
    let read = |attachment: atcomm_proto::didcomm::message::Attachment| {
        let envelope = attachment.bytes().map(|bytes| bytes.into_owned());
        Some(Mail {
            envelope: envelope.unwrap_or_default(),
            id: attachment.id?,
        })
    };
    messages.into_iter().filter_map(read).collect()
}

/// Reads a problem report as an error.
fn problem(message: &Message) -> Option<MailError> {
    let kind = TypeUri::parse(&message.kind).ok()?;
    if kind.name != "problem-report" {
        return None;
    }
    let (code, words) = match Report::read(&message.body) {
        Ok(report) => (
            RemoteText::new(&report.code),
            RemoteText::new(&report.text()),
        ),
        Err(_) => (
            RemoteText::new("?"),
            RemoteText::new("its reason cannot be read"),
        ),
    };
    Some(MailError::Refused {
        status: None,
        code,
        words,
        retry_after: None,
    })
}

/// Reads a refusal over HTTP: `{error, message}` from a mediator of this program.
pub(crate) fn refused(answer: &Response) -> MailError {
    let status = answer.status.as_u16();
    let error = XrpcError::of(answer);
    let (code, words) = match error.name {
        Some(name) => (name.clone(), error.message.unwrap_or(name)),
        None => (
            RemoteText::new(&status.to_string()),
            RemoteText::new(&format!("it answered with the status {status}")),
        ),
    };
    MailError::Refused {
        status: Some(status),
        code,
        words,
        retry_after: error.retry_after,
    }
}

#[cfg(test)]
mod tests;
