//! One message and the requests that its sender may make.
//!
//! The state in the type of a session limits its requests: an [`Unauthenticated`] session can only
//! forward; an [`Authenticated`] one can ask to be registered; only a [`Registered`] one can read or
//! change anything. A handler returns its reply and sends nothing itself.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::keys::{IdentityKeys, Keys};
use super::replay::ReplayId;
use super::response_memory::ResponsePermit;
use super::{Answer, Core, Refused, count_refused, fresh_id, parties};
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
mod unauthenticated;

pub(super) use mediation::confirm_provisional;
pub(super) use pickup::live_delivery;

/// How a message came.
pub(super) enum Transport {
    /// As a request of its own, answered with at most one message.
    Http(IpAddr),
    /// Over a socket, which may be sent more later.
    Socket {
        /// Address of the peer.
        address: IpAddr,
        /// Whether the socket may be answered on. Once asked for, this holds for later messages.
        may_answer: bool,
        /// Accounts in live mode on the socket.
        live: Vec<i64>,
    },
}

/// The effects of a message on its connection.
pub(super) struct HandlerOutput {
    pub(super) answer: Answer,
    /// A change of live mode, for the socket that the message came over.
    pub(super) live: Option<LiveChange>,
    /// Whether the connection may be answered on from now on; `None`: as before.
    pub(super) may_answer: Option<bool>,
}

/// A change of an account's live mode on a socket.
pub(super) struct LiveChange {
    pub(super) account: i64,
    /// `None`: off.
    pub(super) on: Option<LiveMode>,
}

/// How new mail is pushed.
pub(super) struct LiveMode {
    /// Id of the last message that was there before.
    pub(super) after: i64,
    /// The ends of the deliveries that messages are wrapped in; `None`: bare messages are pushed.
    pub(super) wrapped: Option<WrappedDelivery>,
}

/// The two ends of a wrapped delivery.
#[derive(Clone)]
pub(super) struct WrappedDelivery {
    pub(super) to: Authenticated,
    /// The own DID that the delivery is sent from.
    pub(super) from: String,
}

/// State of a session whose envelope proves no sender.
pub(super) struct Unauthenticated;

/// State of a session whose sender has an account here.
pub(super) struct Registered {
    sender: Authenticated,
    account: Account,
    /// Whether the account may read. A grant without a key package, which is provisional, gives no
    /// right to what waits from before.
    may_read: bool,
}

/// An opened message with everything that its handlers need.
pub(super) struct Context {
    pub(super) core: Arc<Core>,
    /// The keys that the message was opened with.
    pub(super) keys: Arc<Keys>,
    /// The identity that the message is addressed to, and is answered from.
    own: Arc<IdentityKeys>,
    pub(super) message: Message,
    transport: Transport,
    /// When the message came.
    pub(super) now: Timestamp,
    /// Identifies the part of the message that its sender has authenticated.
    replay_id: ReplayId,
}

/// A message whose sender is in the state `S`: [`Unauthenticated`], [`Authenticated`] or
/// [`Registered`].
pub(super) struct Session<S> {
    pub(super) ctx: Arc<Context>,
    state: S,
}

impl Session<Registered> {
    /// Returns a permit for an answer to the account, empty so far.
    fn response_permit(&self) -> ResponsePermit {
        let core = &self.ctx.core;
        core.response_memory
            .permit(self.ctx.address(), self.state.account.id)
    }
}

/// The reply to the sender.
struct Reply {
    message: Option<Message>,
    live: Option<LiveChange>,
    /// The memory that the message takes until it is written, where it may be long.
    permit: Option<ResponsePermit>,
}

impl Reply {
    fn none() -> Self {
        Self {
            message: None,
            live: None,
            permit: None,
        }
    }

    fn of(message: Message) -> Self {
        Self {
            message: Some(message),
            live: None,
            permit: None,
        }
    }
}

/// A request that was carried out, or answered with a problem.
struct Handled {
    reply: Reply,
    /// Stable code for metrics.
    outcome: &'static str,
}

impl Handled {
    fn new(message: Message, outcome: &'static str) -> Self {
        Self {
            reply: Reply::of(message),
            outcome,
        }
    }
}

/// Opens a message, carries out its request and makes the answer.
pub(super) async fn receive(
    core: &Arc<Core>,
    bytes: &[u8],
    transport: Transport,
) -> Result<HandlerOutput, Refused> {
    let keys = core.identity.keys();
    let opened = parties::open_envelope(&core.mailbox, &keys, bytes)
        .await?
        .map_err(|error| unreadable(&error))?;
    let message = Message::parse(&opened.plaintext)
        .map_err(|_| Refused::Unreadable("its content is not a DIDComm message".into()))?;
    // A signed message can be repeated by all who receive it: a signature does not suffice to act
    // for the signer, and no protocol here asks for one.
    let own = opened.recipient.as_deref().and_then(|kid| keys.by_kid(kid));
    let Some(own) = own.cloned() else {
        return Err(Refused::Unreadable(
            "it is not encrypted to this mediator".into(),
        ));
    };
    let ctx = Arc::new(Context {
        core: Arc::clone(core),
        own,
        message,
        transport,
        now: core.clock.now(),
        replay_id: replay_id(opened.replay_id.unwrap_or_default()),
        keys,
    });
    match opened.sender {
        None => {
            let state = Unauthenticated;
            Session { ctx, state }.answer().await
        }
        Some(state) => Session { ctx, state }.answer().await,
    }
}

/// Returns the fault of an envelope, as far as the sender may know it.
fn unreadable(error: &EnvelopeError) -> Refused {
    metrics::counter!("atcomm_mediator_unreadable_total", "reason" => error.code()).increment(1);
    Refused::Unreadable(error.to_string().into())
}

fn replay_id(hash: [u8; 32]) -> ReplayId {
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    ReplayId(id)
}

/// Returns the refusal of a malformed forward. A forward has no response, so without a refusal its
/// sender would believe it delivered.
fn malformed_forward(error: &ReadError) -> Option<Refused> {
    let ReadError::Malformed { piuri, why } = error else {
        return None;
    };
    let kind = TypeUri::parse(piuri).ok()?;
    (kind.protocol == "routing").then(|| Refused::Unreadable(why.to_string().into()))
}

/// Returns the label of a request in metrics, which contains no text of the sender.
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

impl Context {
    fn is_expired(&self) -> bool {
        let expires = self.message.expires_time;
        expires.is_some_and(|at| at.saturating_mul(1000) <= self.now.millis())
    }

    pub(super) fn address(&self) -> IpAddr {
        match &self.transport {
            Transport::Http(address) | Transport::Socket { address, .. } => *address,
        }
    }

    /// Returns whether an answer is wanted on this connection.
    fn wants_answers(&self) -> bool {
        match self.message.return_route {
            Some(ReturnRoute::All | ReturnRoute::Thread) => true,
            Some(ReturnRoute::None) => false,
            None => matches!(
                self.transport,
                Transport::Socket {
                    may_answer: true,
                    ..
                }
            ),
        }
    }

    /// Returns whether the message allows or forbids answers on this connection from now on.
    fn may_answer(&self) -> Option<bool> {
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

    /// Reports a problem with this message.
    fn problem(&self, code: Code) -> Message {
        let comment = code.comment();
        self.report(&Report::new(code, comment))
    }

    fn report(&self, report: &Report) -> Message {
        report
            .about(fresh_id(), &self.message)
            .created_time(self.now.millis() / 1000)
    }

    fn unknown_recipient(&self) -> Message {
        let comment = "the recipient of the forward is not known to this mediator";
        self.report(&Report::new(Code::NotEnrolled, comment))
    }

    /// Turns a refusal into a report if the message came over a socket that may be answered on, since
    /// a socket has no status. A request over HTTP is refused by its status, which relays in between
    /// understand, too.
    fn report_refusal(&self, refused: Refused) -> Result<Message, Refused> {
        if matches!(self.transport, Transport::Socket { .. }) && self.wants_answers() {
            count_refused(&refused);
            let code = problem_code(&refused);
            return Ok(self.report(&Report::new(code, refused.to_string())));
        }
        Err(refused)
    }
}

/// Returns the problem code that stands for a refusal.
fn problem_code(refused: &Refused) -> Code {
    match refused {
        Refused::QueueFull
        | Refused::RelayFull
        | Refused::RateLimited(_)
        | Refused::Busy(_)
        | Refused::OwnAnswersUnread(_)
        | Refused::AnswersUnread(_)
        | Refused::Unavailable => Code::Storage,
        Refused::RelayRefused => Code::NotEnrolled,
        Refused::Unreadable(_) => Code::Malformed(Forward::TYPE.to_owned()),
    }
}

/// Encrypts an answer to the key that the sender has used, since the sender has its secret at hand.
/// Key and DID are spelt as the sender spells them: its secrets may be stored under an older
/// spelling, or under the short form of its DID.
pub(super) fn encrypt_reply(
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
    let plaintext = message.to_vec();
    // A delivery is large, so one copy of it is enough.
    drop(message);
    match envelope::authcrypt(&plaintext, &own.agreement, std::slice::from_ref(&key)) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => {
            tracing::error!(%error, "cannot encrypt an answer");
            Err(Refused::Unavailable)
        }
    }
}
