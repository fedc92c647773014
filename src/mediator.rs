//! The mediator: accepts encrypted messages, queues them for accounts whose key package names this
//! mediator, delivers them on pickup, and relays forwards addressed to other mediators.
//!
//! A message goes one way: [`Mediator::receive`] opens the envelope, a `session` carries out the
//! request that its sender may make and returns the answer, the store commits, and only then is
//! anything acknowledged (invariant 3). No code here owns a socket: answers are returned,
//! [`SocketSession`] returns live mail to the owner of the connection, and relayed messages go out
//! through [`atcomm_net::net`].
//!
//! Sources: DIDComm Messaging 2.1; the pages of its protocols at didcomm.org; the binding at
//! didcomm.at, "Mediators".

mod address;
mod admission;
mod claims;
mod delivery;
mod document;
mod forward;
mod identity;
mod keys;
mod live;
mod maintenance;
mod parties;
mod purge;
mod queues;
mod recipient_rate;
mod relay;
mod replay;
mod response_memory;
mod senders;
mod session;
mod settings;
mod socket;
mod store_shares;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::resolve::Resolver;
use crate::store::{Abort, MailboxStore, StoreError};
use atcomm_net::net::AddressLimiter;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::didcomm::message::fresh_id;
use atcomm_proto::didcomm::protocol::out_of_band;
use atcomm_proto::syntax::{MediatorDid, Origin, SyntaxError};

pub use address::{ENDPOINT, PublicAddress};
pub use admission::{INACTIVE_MAIL_PERIOD, READ_PERIOD, REPLACED_MAIL_PERIOD};
pub use keys::{
    FILE as KEYS_FILE, KeyFileFault, KeyMakingError, Keys, KeysError, RETIRED_KEY_GRACE,
};
pub use maintenance::Maintenance;
pub use purge::{Purge, PurgeError, PurgedQueue};
pub use relay::Relay;
pub use settings::{AdmissionMode, MediatorSettings, RelaySettings};
pub use socket::SocketSession;

use admission::Policy;
use claims::ClaimFollower;
use delivery::Wrapping;
use identity::MediatorIdentity;
use keys::IdentityKind;
use queues::Queues;
use relay::{Destinations, Outbox};
use replay::Replays;
use response_memory::ResponseMemory;
use senders::SenderNames;

/// Time that a sender should wait before the next attempt after a queue was full.
const QUEUE_FULL_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Signed reports a minute to one address. Each may tell whether a recipient is known here.
const REPORTS_PER_MINUTE: u32 = 60;

/// Errors of starting the mediator.
#[derive(Debug, thiserror::Error)]
pub enum MediatorError {
    /// The public address is malformed.
    #[error("mediator.public_url: {0}")]
    Address(#[from] SyntaxError),
    /// The keys cannot be loaded.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The store failed.
    #[error("the mailbox cannot be read: {0}")]
    Store(#[from] StoreError),
}

/// The result of a message, as its sender sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The message is accepted and has no response.
    Accepted,
    /// One message in response.
    Reply(Form, Bytes),
}

/// The envelope of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Encrypted to the sender.
    Encrypted,
    /// Signed, for an unauthenticated sender.
    Signed,
}

/// Reasons to refuse a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The message is not one for this mediator. Names the kind of fault, and tells the sender
    /// nothing new.
    #[error("the message cannot be opened: {0}")]
    Unreadable(Cow<'static, str>),
    /// The sender's address, or the recipient, has used up its rate.
    #[error("too many messages")]
    RateLimited(Duration),
    /// The recipient's queue or the whole store is full, or the sender has used up its share of
    /// either.
    #[error("the recipient's queue, or your share of it, is full")]
    QueueFull,
    /// Too many messages wait for the mediator that the message is to be relayed to.
    #[error("too many messages wait for that mediator")]
    RelayFull,
    /// The settings do not allow to relay messages to that mediator.
    #[error("messages are not carried to that mediator")]
    RelayRefused,
    /// Too many messages are being received now.
    #[error("too many messages are being received")]
    Busy(Duration),
    /// The sender's address or account has too many answers with mail that it does not read.
    #[error("too many answers to this account or address wait to be read")]
    OwnAnswersUnread(Duration),
    /// Too many answers with mail wait to be read by all clients together.
    #[error("too many answers wait to be read")]
    AnswersUnread(Duration),
    /// This service failed; the log tells how.
    #[error("the mediator cannot take messages at the moment")]
    Unavailable,
}

impl Refused {
    /// Returns how long the sender should wait before another attempt, if one can succeed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(wait)
            | Self::Busy(wait)
            | Self::OwnAnswersUnread(wait)
            | Self::AnswersUnread(wait) => Some(*wait),
            Self::QueueFull | Self::RelayFull => Some(QUEUE_FULL_RETRY_AFTER),
            Self::Unavailable => Some(Duration::from_secs(5)),
            Self::Unreadable(_) | Self::RelayRefused => None,
        }
    }

    /// Stable code for metrics.
    fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::RateLimited(_) => "rate_limited",
            Self::QueueFull => "queue_full",
            Self::RelayFull => "relay_full",
            Self::RelayRefused => "relay_refused",
            Self::Busy(_) => "busy",
            Self::OwnAnswersUnread(_) => "own_answers_unread",
            Self::AnswersUnread(_) => "answers_unread",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        // Senders are told the same of a full disk as of a full queue.
        if matches!(error, StoreError::Full) {
            return Self::QueueFull;
        }
        tracing::error!(%error, "the mailbox failed under a message");
        Self::Unavailable
    }
}

impl From<Abort<Refused>> for Refused {
    fn from(abort: Abort<Self>) -> Self {
        match abort {
            Abort::Refused(refused) => refused,
            Abort::Store(error) => error.into(),
        }
    }
}

/// A handle of the mediator. Cloning is cheap.
#[derive(Clone)]
pub struct Mediator {
    core: Arc<Core>,
}

/// State that all handles, sessions and tasks of one mediator share.
struct Core {
    // Fixed when the mediator is bound.
    settings: MediatorSettings,
    policy: Arc<Policy>,
    resolver: Resolver,
    clock: Clock,
    // Accounts, claims and counts; the messages in it belong to `queues` and `outbox`. The store
    // orders all transactions.
    mailbox: Arc<MailboxStore>,
    // Each part owns its state and its locks.
    identity: MediatorIdentity,
    claims: ClaimFollower,
    queues: Queues,
    outbox: Outbox,
    replays: Replays,
    sender_names: SenderNames,
    response_memory: ResponseMemory,
    /// Limits messages by the address that they come from.
    by_address: AddressLimiter,
    /// Limits signed reports by the address that they go to.
    reports: AddressLimiter,
}

impl Mediator {
    /// Restores the state that outlives a restart and follows the directory up to now. `local` are
    /// the PDSes whose accounts [`AdmissionMode::Local`] admits.
    pub async fn bind(
        settings: MediatorSettings,
        address: PublicAddress,
        local: BTreeSet<Origin>,
        keys: Keys,
        mailbox: MailboxStore,
        resolver: Resolver,
        clock: Clock,
    ) -> Result<Self, MediatorError> {
        let policy = Arc::new(Policy::new(&settings, local, address.did().clone()));
        let mailbox = Arc::new(mailbox);
        let claims = ClaimFollower::new(
            Arc::clone(&policy),
            Arc::clone(resolver.directory()),
            Arc::clone(&mailbox),
            clock.clone(),
        );
        claims.catch_up().await?;
        let replays = Replays::load(Arc::clone(&mailbox), &clock).await?;
        let sender_names = SenderNames::load(&mailbox).await?;
        tracing::info!(
            did = %address.did(),
            admission = policy.mode().as_str(),
            "the mediator keeps mail"
        );
        let destinations = Destinations::new(
            &settings.relay,
            address.did().clone(),
            resolver.clone(),
            clock.clone(),
        );
        Ok(Self {
            core: Arc::new(Core {
                identity: MediatorIdentity::new(address, keys),
                claims,
                queues: Queues::new(&settings, Arc::clone(&mailbox), clock.clone()),
                outbox: Outbox::new(
                    settings.relay.clone(),
                    destinations,
                    Arc::clone(&mailbox),
                    clock.clone(),
                ),
                replays,
                sender_names,
                response_memory: ResponseMemory::new(
                    settings.response_memory,
                    Wrapping::Delivery.len_of(settings.max_message as u64),
                ),
                by_address: AddressLimiter::new(settings.address_rate, clock.clone()),
                reports: AddressLimiter::new(REPORTS_PER_MINUTE, clock.clone()),
                settings,
                policy,
                resolver,
                clock,
                mailbox,
            }),
        })
    }

    /// Returns the settings that the mediator was bound with.
    pub fn settings(&self) -> &MediatorSettings {
        &self.core.settings
    }

    /// Returns until when nothing is relayed to another mediator after failures, and whether
    /// deliveries to its domain take long.
    pub fn relay_trouble(&self, destination: &str) -> (Option<Timestamp>, bool) {
        self.core.outbox.trouble_of(destination)
    }

    /// Returns where others reach the mediator.
    pub fn address(&self) -> &PublicAddress {
        self.core.identity.address()
    }

    /// Returns the DID of the mediator.
    pub fn did(&self) -> &MediatorDid {
        self.core.identity.did()
    }

    /// Returns the DID document, as JSON.
    pub fn did_document(&self) -> Bytes {
        let identity = &self.core.identity;
        document::did_document(identity.address(), &identity.keys())
            .to_string()
            .into()
    }

    /// Returns the invitation, as JSON.
    pub fn invitation(&self) -> Bytes {
        document::invitation(self.core.identity.keys().peer_identity())
            .to_vec()
            .into()
    }

    /// Returns this mediator's own invitation that the value of `_oob=` names by its sender, as
    /// JSON. Of the value nothing is repeated: anybody can write a message with this sender.
    pub fn read_invitation(&self, oob: &str) -> Option<Bytes> {
        let (message, _) = out_of_band::read_parameter(oob).ok()?;
        let keys = self.core.identity.keys();
        let named = keys.identity(message.from.as_deref()?)?;
        let peer = (named.kind == IdentityKind::Peer).then_some(named)?;
        Some(document::invitation(peer).to_vec().into())
    }

    /// Charges one message to the rate of an address.
    pub fn charge(&self, address: IpAddr) -> Result<(), Refused> {
        self.core.by_address.charge(address).map_err(|wait| {
            let refused = Refused::RateLimited(wait);
            count_refused(&refused);
            refused
        })
    }

    /// Handles one message that came over HTTP. A change that it makes is on disk when this returns.
    pub async fn receive(&self, message: &[u8], address: IpAddr) -> Result<Answer, Refused> {
        let answer = session::receive(&self.core, message, session::Transport::Http(address)).await;
        answer
            .map(|output| output.answer)
            .inspect_err(count_refused)
    }

    /// Begins a conversation over one WebSocket.
    pub fn socket(&self, address: IpAddr) -> SocketSession {
        SocketSession::new(Arc::clone(&self.core), address)
    }

    /// Replaces the keys by those that the file at `path` holds now.
    pub fn reload_keys(&self, path: &Path) -> Result<(), KeysError> {
        self.core.identity.reload(path, self.core.clock.now())
    }

    /// Has the directory beside this mediator show the present keys.
    pub async fn show_in_directory(&self) -> Result<(), StoreError> {
        let resolver = &self.core.resolver;
        resolver
            .set_own_mediator(self.did(), self.did_document())
            .await
    }

    /// Returns the mailbox store, for the status reports of the operator.
    pub fn mailbox(&self) -> &Arc<MailboxStore> {
        &self.core.mailbox
    }

    /// Returns whether messages can be stored.
    pub fn is_healthy(&self) -> bool {
        self.core.mailbox.is_healthy()
    }

    /// Returns the bytes that the write-ahead log beside the mediator's file takes.
    pub fn log_bytes(&self) -> u64 {
        self.core.mailbox.log_bytes()
    }

    /// Completes pending writes and closes the store.
    pub async fn shutdown(&self) {
        self.core.mailbox.shutdown().await;
    }
}

fn count_refused(refused: &Refused) {
    metrics::counter!("atcomm_mediator_refused_total", "reason" => refused.code()).increment(1);
}
