//! One message and what may be done with it.
//!
//! What is known of the sender is in the type: a session of a stranger can forward and nothing
//! else; one whose envelope names its sender can ask to be registered; only one with a registered
//! account can read or change anything. Each step returns what is to be said, and says nothing.

use std::net::IpAddr;

use bytes::Bytes;

use super::keys::{IdentityKeys, Keys};
use super::parties;
use super::replay::ReplayId;
use super::{Answer, Core, Form, Refused, fresh_id};
use crate::store::Account;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::envelope::{self, Authenticated, Curve, EnvelopeError, PublicKey};
use atcomm_proto::didcomm::message::{Message, ReturnRoute, TypeUri};
use atcomm_proto::didcomm::protocol::problem::{Code, Report};
use atcomm_proto::didcomm::protocol::routing::Forward;
use atcomm_proto::didcomm::protocol::{Body as _, ReadError, Request};

mod authenticated;
mod mediation;
mod pickup;
mod ping_discover;

pub(super) use mediation::confirm_provisional;
pub(super) use pickup::live_delivery;

/// How a message came.
#[derive(Clone)]
pub(super) enum Transport {
    /// As a request of its own, answered with at most one message.
    Http(IpAddr),
    /// Over a socket, which may be sent more later.
    Socket {
        /// Whose.
        address: IpAddr,
        /// Whether the socket may be answered on: asked for once, it holds.
        answers: bool,
        /// Accounts in live mode on it.
        live: Vec<i64>,
    },
}

/// What came of a message.
pub(super) struct HandlerOutput {
    pub(super) answer: Answer,
    /// A change of live mode, for the socket that it came over.
    pub(super) live: Option<LiveChange>,
    /// Whether the connection may be answered on from now on; `None`: as before.
    pub(super) answers: Option<bool>,
}

/// What a socket is to do about live mode.
#[derive(Clone)]
pub(super) struct LiveChange {
    pub(super) account: i64,
    /// `None`: off.
    pub(super) on: Option<LiveMode>,
}

/// How new mail is pushed.
#[derive(Clone)]
pub(super) struct LiveMode {
    /// The last message that was there before.
    pub(super) after: i64,
    /// Where deliveries are wrapped ones: who they are for, and as which of our DIDs they are sent.
    pub(super) wrapped: Option<Wrapped>,
}

/// The two ends of a wrapped delivery.
#[derive(Clone)]
pub(super) struct Wrapped {
    pub(super) sender: Authenticated,
    pub(super) own: String,
}

/// Nothing vouches for the sender.
pub(super) struct Anonymous;

/// The envelope proves who sent it.
pub(super) struct Known {
    sender: Authenticated,
}

/// The sender has an account here.
pub(super) struct Registered {
    sender: Authenticated,
    account: Account,
}

/// A message that was opened.
pub(super) struct Session<'m, S> {
    mediator: &'m Core,
    keys: &'m Keys,
    /// As whom we were addressed, and so answer.
    own: &'m IdentityKeys,
    message: Message,
    transport: Transport,
    now: Timestamp,
    /// Of what the sender has authenticated, whatever stands around it.
    replay_id: ReplayId,
    state: S,
}

/// What is to be said to the sender.
pub(super) struct Reply {
    message: Option<Message>,
    live: Option<LiveChange>,
}

impl Reply {
    fn none() -> Self {
        Self {
            message: None,
            live: None,
        }
    }

    fn of(message: Message) -> Self {
        Self {
            message: Some(message),
            live: None,
        }
    }
}

/// Opens a message, does what it asks for and makes the answer.
pub(super) async fn receive(
    mediator: &Core,
    bytes: &[u8],
    transport: Transport,
) -> Result<HandlerOutput, Refused> {
    let keys = mediator.keys();
    let opened = parties::open_envelope(mediator, &keys, bytes).await?;
    let opened = opened.map_err(|error| unreadable(&error))?;
    let message = Message::parse(&opened.plaintext)
        .map_err(|_| Refused::Unreadable("its content is not a DIDComm message".into()))?;
    // Signed messages can be shown to others by whoever has received them: not enough to act for
    // somebody, and nothing here asks for a signature.
    let own = opened.recipient.as_deref().and_then(|kid| keys.by_kid(kid));
    let own = own.ok_or(Refused::Unreadable(
        "it is not encrypted to this mediator".into(),
    ))?;
    let session = Session {
        mediator,
        keys: &keys,
        own,
        transport,
        now: mediator.clock.now(),
        replay_id: replay_id(opened.seal.unwrap_or_default()),
        state: Anonymous,
        message,
    };
    match opened.sender {
        None => session.answer_unauthenticated().await,
        Some(sender) => session.known(sender).answer().await,
    }
}

/// Which fault it was, as far as the sender may know.
fn unreadable(error: &EnvelopeError) -> Refused {
    metrics::counter!("atcomm_mediator_unreadable_total", "reason" => error.code()).increment(1);
    Refused::Unreadable(error.to_string().into())
}

fn replay_id(replay_id: [u8; 32]) -> ReplayId {
    let mut half = ReplayId::default();
    half.copy_from_slice(&replay_id[..16]);
    half
}

/// The refusal of a forward that breaks its rules: its sender, who asks for no answer, would take it
/// for delivered.
fn refused_forward(error: &ReadError) -> Option<Refused> {
    let ReadError::Malformed { piuri, why } = error else {
        return None;
    };
    let kind = TypeUri::parse(piuri).ok()?;
    (kind.protocol == "routing").then(|| Refused::Unreadable(why.to_string().into()))
}

/// What a message of this kind is called in metrics: never a word of the sender's.
fn label(request: &Result<Request, ReadError>) -> &'static str {
    match request {
        Ok(Request::Forward(_)) => "routing",
        Ok(Request::Coordination(..)) => "coordinate-mediation",
        Ok(Request::Pickup(..)) => "messagepickup",
        Ok(Request::Ping(_)) => "trust-ping",
        Ok(Request::Queries(_)) => "discover-features",
        Ok(Request::Problem(_)) => "report-problem",
        Ok(Request::Empty) => "empty",
        Err(_) => "unknown",
    }
}

fn count(label: &'static str, outcome: &'static str) {
    metrics::counter!("atcomm_mediator_messages_total", "protocol" => label, "outcome" => outcome)
        .increment(1);
}

impl<'m, S> Session<'m, S> {
    fn with<T>(self, state: T) -> Session<'m, T> {
        let Self {
            mediator,
            keys,
            own,
            message,
            transport,
            now,
            replay_id,
            state: _,
        } = self;
        Session {
            mediator,
            keys,
            own,
            message,
            transport,
            now,
            replay_id,
            state,
        }
    }

    fn is_expired(&self) -> bool {
        let expires = self.message.expires_time;
        expires.is_some_and(|at| at.saturating_mul(1000) <= self.now.millis())
    }

    fn address(&self) -> IpAddr {
        match &self.transport {
            Transport::Http(address) | Transport::Socket { address, .. } => *address,
        }
    }

    /// Whether an answer is wanted on this connection.
    fn wants_answers(&self) -> bool {
        match self.message.return_route {
            Some(ReturnRoute::All | ReturnRoute::Thread) => true,
            Some(ReturnRoute::None) => false,
            None => matches!(self.transport, Transport::Socket { answers: true, .. }),
        }
    }

    /// What the message says about answers on this connection from now on.
    fn answers(&self) -> Option<bool> {
        match self.message.return_route {
            Some(ReturnRoute::All) => Some(true),
            Some(ReturnRoute::None) => Some(false),
            Some(ReturnRoute::Thread) | None => None,
        }
    }

    /// Puts a message into the thread of this one.
    fn reply(&self, message: Message) -> Message {
        message
            .thid(self.message.thread())
            .created_time(self.now.millis() / 1000)
    }

    /// A problem with this message.
    fn problem(&self, code: Code) -> Message {
        let comment = code.comment();
        self.report(&Report::new(code, comment))
    }

    fn report(&self, report: &Report) -> Message {
        report
            .about(fresh_id(), &self.message)
            .created_time(self.now.millis() / 1000)
    }

    pub(super) fn message(&self) -> &Message {
        &self.message
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn mediator(&self) -> &'m Core {
        self.mediator
    }

    pub(super) fn keys(&self) -> &'m Keys {
        self.keys
    }
}

impl<'m> Session<'m, Anonymous> {
    fn known(self, sender: Authenticated) -> Session<'m, Known> {
        self.with(Known { sender })
    }

    /// A stranger can have something forwarded; to anything else there is only silence.
    async fn answer_unauthenticated(self) -> Result<HandlerOutput, Refused> {
        let request = Request::read(&self.message);
        let label = label(&request);
        let answer = match request {
            _ if self.is_expired() => {
                count(label, "expired");
                Answer::Accepted
            }
            Ok(Request::Forward(forward)) => match self.forward(&forward, None).await {
                Ok(unknown) => {
                    count(label, "done");
                    match unknown && self.wants_answers() {
                        true => self.signed(self.unknown_recipient())?,
                        false => Answer::Accepted,
                    }
                }
                // A request is refused by its status; a socket has nothing but messages.
                Err(refused) => match (&self.transport, problem_code(&refused)) {
                    (Transport::Socket { .. }, Some(code)) if self.wants_answers() => {
                        super::count_refused(&refused);
                        self.signed(self.report(&Report::new(code, refused.to_string())))?
                    }
                    _ => return Err(refused),
                },
            },
            Err(error) => {
                count(label, "anonymous");
                refused_forward(&error).map_or(Ok(Answer::Accepted), Err)?
            }
            _ => {
                count(label, "anonymous");
                Answer::Accepted
            }
        };
        Ok(HandlerOutput {
            answer,
            live: None,
            answers: self.answers(),
        })
    }

    /// An answer to somebody whose keys are not known: signed, so that it is believed.
    fn signed(&self, message: Message) -> Result<Answer, Refused> {
        if self.mediator.reports.charge(self.address()).is_err() {
            return Ok(Answer::Accepted);
        }
        let message = message.from(self.own.party.did());
        let signed = envelope::sign(&message.to_vec(), &self.own.signing);
        match signed {
            Ok(bytes) => Ok(Answer::Reply(Form::Signed, bytes.into())),
            Err(error) => {
                tracing::error!(%error, "cannot sign");
                Err(Refused::Unavailable)
            }
        }
    }
}

impl<S> Session<'_, S> {
    /// The report about a recipient that is not known here.
    fn unknown_recipient(&self) -> Message {
        let comment = "the recipient of the forward is not known to this mediator";
        self.report(&Report::new(Code::NotEnrolled, comment))
    }
}

/// What a refusal of a forward is as a problem.
fn problem_code(refused: &Refused) -> Option<Code> {
    match refused {
        Refused::QueueFull
        | Refused::RelayFull
        | Refused::RateLimited(_)
        | Refused::Busy(_)
        | Refused::Unavailable => Some(Code::Storage),
        Refused::RelayRefused => Some(Code::NotEnrolled),
        Refused::Unreadable(_) => Some(Code::Malformed(Forward::TYPE.to_owned())),
    }
}

/// Encrypts an answer to the key that the sender has used: that one it has at hand. Key and DID are
/// called as the sender calls them, whose secrets may lie under an older spelling, or under the
/// short form of its DID.
pub(super) fn encrypt(
    message: Message,
    own: &IdentityKeys,
    to: &Authenticated,
) -> Result<Bytes, Refused> {
    let named = to.kid.split_once('#').map_or(&*to.kid, |(did, _)| did);
    let message = message.from(own.party.did()).to(named);
    let key = to
        .party
        .key(&to.kid)
        .filter(|key| key.curve() == Curve::X25519)
        .and_then(|key| PublicKey::new(&*to.kid, key.curve(), key.as_bytes()).ok());
    let Some(key) = key else {
        return Err(Refused::Unreadable(
            "its sender has no X25519 key to answer to".into(),
        ));
    };
    match envelope::authcrypt(
        &message.to_vec(),
        &own.agreement,
        std::slice::from_ref(&key),
    ) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => {
            tracing::error!(%error, "cannot encrypt an answer");
            Err(Refused::Unavailable)
        }
    }
}
