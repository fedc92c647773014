//! Sending: a message is encrypted, saved, and delivered to the first of the recipient's mediators
//! that accepts it.
//!
//! Mediators that do not answer now are tried after those that do, since a relay accepts mail for
//! them and then tries for a day. Each attempt is saved before it is made and again when its result
//! is known, so that a later report finds it.

use std::collections::BTreeSet;
use std::string::FromUtf8Error;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::{DeliveryPath, PathFailure, delivery_paths};
use super::dm::Dm;
use super::outbox::{AttemptState, SENT_RETENTION, SentMessage};
use super::wrap::{WrappedMessage, seal, wrap};
use crate::lookup::outcome::Recipient;
use crate::lookup::trust::{Consent, SendBlocker};
use crate::mediator::client::{
    MAX_REFUSAL, MEDIA_TYPE, MailError, MediatorDefect, check_usable, document, refused,
};
use crate::mediator::route::{Progress, RouteError};
use crate::wallet::AccountStore;
use crate::wallet::enrolment::{Enrolment, MessagingKey};
use crate::wallet::error::WalletError;
use atcomm_net::identity::{Freshness, Identity, MediatorDocument, MediatorState};
use atcomm_net::net::{Net, Priority, Request, Trust};
use atcomm_proto::clock::Clock;
use atcomm_proto::didcomm::envelope::EnvelopeError;
use atcomm_proto::didcomm::message::fresh_id;
use atcomm_proto::syntax::{Did, Handle, MediatorDid, RemoteText};

/// Timeout for a mediator to accept a message.
const POST_TIMEOUT: Duration = Duration::from_secs(15);

/// Most other mediators that are looked up for one path.
const MAX_OTHERS: usize = 6;

/// Sends messages of one account. Cloning is cheap.
#[derive(Clone)]
pub struct Sender {
    net: Net,
    identity: Identity,
    clock: Clock,
    store: AccountStore,
    enrolment: Arc<Enrolment>,
}

/// Errors of sending a message. Nothing was accepted by a mediator where one is returned, but for
/// [`SendError::Wallet`], after which the message may be on its way.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The account has no messaging key.
    #[error("{0} has no messaging key")]
    NotEnrolled(Did),
    /// A reason not to send that the consent does not cover.
    #[error("{0}")]
    Blocked(SendBlocker),
    /// The message cannot be encrypted for the recipient.
    #[error("the message cannot be encrypted: {0}")]
    Encryption(#[from] EncryptionError),
    /// No mediator accepted the message: the failures in the order of the attempts. Empty where no
    /// mediator of the recipient can be used.
    #[error("no mediator accepted the message")]
    NotDelivered(Vec<PathFailure>),
    /// The wallet cannot be read or written.
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

/// Causes of [`SendError::Encryption`].
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// The envelope cannot be made.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The envelope is not text.
    #[error(transparent)]
    NotText(#[from] FromUtf8Error),
}

/// A message that a mediator accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Id of the message.
    pub id: String,
    /// The recipient's account.
    pub to: Did,
    /// The recipient's verified handle.
    pub handle: Option<Handle>,
    /// The did:peer that the message is encrypted to.
    pub peer: String,
    /// The path that the message takes.
    pub path: DeliveryPath,
    /// Whether the recipient's mediator answered when its document was last read. A relay goes on
    /// trying where it did not.
    pub reachable: bool,
    /// The paths that failed before.
    pub failures: Vec<PathFailure>,
}

/// Result of trying the paths to a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// A mediator accepted the message.
    Accepted {
        /// The path that the message takes.
        path: DeliveryPath,
        /// Whether the recipient's mediator answered when its document was last read.
        reachable: bool,
        /// The paths that failed before.
        failures: Vec<PathFailure>,
    },
    /// No mediator did.
    Refused(Vec<PathFailure>),
}

impl Sender {
    /// Returns a sender for the account of `store`. Dials nothing.
    pub fn new(
        net: &Net,
        identity: &Identity,
        clock: &Clock,
        store: &AccountStore,
        enrolment: &Arc<Enrolment>,
    ) -> Self {
        Self {
            net: net.clone(),
            identity: identity.clone(),
            clock: clock.clone(),
            store: store.clone(),
            enrolment: Arc::clone(enrolment),
        }
    }

    /// Encrypts a message for a recipient and delivers it by the first path that works. Returns once
    /// a mediator has accepted the message. Where a relay has it, the message stays in the wallet
    /// until [`SENT_RETENTION`] has passed, so that it can be sent again when the relay reports that
    /// it could not be delivered.
    ///
    /// Nothing is sent while the recipient has a [`SendBlocker`] that `consent` does not cover.
    pub async fn send(
        &self,
        to: &Recipient,
        dm: &Dm,
        consent: Consent,
    ) -> Result<Delivery, SendError> {
        if let Some(blocker) = to.blocker(consent) {
            return Err(SendError::Blocked(blocker));
        }
        let key = self
            .enrolment
            .current()
            .ok_or_else(|| SendError::NotEnrolled(self.enrolment.account.clone()))?;
        let mut sent = self.seal(to, dm, key)?;
        self.delete_expired()?;
        let theirs: Vec<_> = to.mediators.iter().cloned().map(Arc::new).collect();
        let outcome = self.deliver(&mut sent, &theirs, key).await?;
        self.delete_closed(&sent.id)?;
        match outcome {
            DeliveryOutcome::Accepted {
                path,
                reachable,
                failures,
            } => Ok(Delivery {
                id: sent.id,
                to: sent.account,
                handle: sent.handle,
                peer: sent.peer,
                path,
                reachable,
                failures,
            }),
            DeliveryOutcome::Refused(failures) => Err(SendError::NotDelivered(failures)),
        }
    }

    /// Delivers a message that is in the outbox by way of these mediators of the recipient.
    pub(super) async fn resend(
        &self,
        sent: &mut SentMessage,
        mediators: &[MediatorDid],
    ) -> Result<DeliveryOutcome, WalletError> {
        let mut keys = self.enrolment.keys.iter();
        let Some(key) = keys.find(|key| key.peer.as_str() == sent.from) else {
            return Ok(DeliveryOutcome::Refused(Vec::new()));
        };
        match self.documents(mediators).await {
            Ok(documents) => self.deliver(sent, &documents, key).await,
            Err(error) => Ok(DeliveryOutcome::Refused(all_failed(mediators, &error))),
        }
    }

    /// Encrypts a message; nothing of it is saved yet.
    fn seal(&self, to: &Recipient, dm: &Dm, key: &MessagingKey) -> Result<SentMessage, SendError> {
        let now = self.clock.now();
        let package = to.package.package();
        let (from, peer) = (key.peer.as_str(), package.peer.as_str());
        let message = dm.message(fresh_id(), from, peer, now.millis() / 1000);
        let id = message.id.clone();
        let envelope = seal(message, key, &package.peer).map_err(EncryptionError::from)?;
        Ok(SentMessage {
            id,
            account: to.account.clone(),
            handle: to.handle.clone(),
            peer: peer.to_owned(),
            from: from.to_owned(),
            envelope: String::from_utf8(envelope).map_err(EncryptionError::from)?,
            mediators: package.distinct_mediators(),
            attempts: Vec::new(),
            at: now,
            given_up: None,
        })
    }

    /// Deletes messages from the outbox that no relay will report any more.
    fn delete_expired(&self) -> Result<(), WalletError> {
        let now = self.clock.now();
        for sent in self.store.sent::<SentMessage>()? {
            if now.since(sent.at) > SENT_RETENTION {
                self.delete_closed(&sent.id)?;
            }
        }
        Ok(())
    }

    /// Deletes a message from the outbox unless a report about it may come or was not read yet.
    pub(super) fn delete_closed(&self, id: &str) -> Result<(), WalletError> {
        let now = self.clock.now();
        self.store.change_sent(id, |sent: Option<SentMessage>| {
            (sent.filter(|sent| sent.is_open(now)), ())
        })
    }

    /// Changes a message of the outbox, here and in the wallet. What another process has saved of it
    /// in the meantime stays.
    pub(super) fn change(
        &self,
        sent: &mut SentMessage,
        change: impl FnOnce(&mut SentMessage),
    ) -> Result<(), WalletError> {
        let known = sent.clone();
        *sent = self.store.change_sent(&known.id.clone(), |saved| {
            let mut next: SentMessage = saved.unwrap_or(known);
            change(&mut next);
            (Some(next.clone()), next)
        })?;
        Ok(())
    }

    /// Delivers a message by the first path that works. `theirs` are the recipient's mediators to
    /// try, `key` is the one that encrypted the message. Each attempt is saved before it is made
    /// and when its result is known; where that fails, no further path is tried.
    async fn deliver(
        &self,
        sent: &mut SentMessage,
        theirs: &[Arc<MediatorDocument>],
        key: &MessagingKey,
    ) -> Result<DeliveryOutcome, WalletError> {
        let mut failures: Vec<PathFailure> = Vec::new();
        // A mediator that did not answer is not asked again for another one.
        let mut away = BTreeSet::new();
        for path in delivery_paths(theirs, &self.enrolment.mediators_of(key)) {
            let first_hop = path.first_hop().clone();
            if away.contains(&first_hop) || away.contains(&path.mediator) {
                continue;
            }
            let Some(document) = theirs.iter().find(|one| one.did == path.mediator) else {
                continue;
            };
            if let Err(error) = check_usable(document) {
                // Nothing can be encrypted to it, by whichever relay.
                away.insert(path.mediator.clone());
                let path = DeliveryPath { via: None, ..path };
                failures.push(PathFailure { path, error });
                continue;
            }
            let attempt = match self.wrap(sent, document, &path, key).await {
                Ok(wrapped) => self.attempt(sent, wrapped).await?,
                Err(error) => Err(error),
            };
            match attempt {
                Ok(()) => {
                    return Ok(DeliveryOutcome::Accepted {
                        reachable: document.state != MediatorState::Unreachable,
                        path,
                        failures,
                    });
                }
                Err(error) => {
                    if matches!(error, MailError::Unreachable { .. }) {
                        away.insert(first_hop);
                    }
                    failures.push(PathFailure { path, error });
                }
            }
        }
        Ok(DeliveryOutcome::Refused(failures))
    }

    /// Posts a wrapped message, and saves the attempt before and after.
    async fn attempt(
        &self,
        sent: &mut SentMessage,
        wrapped: WrappedMessage,
    ) -> Result<Result<(), MailError>, WalletError> {
        let (mediator, via) = (wrapped.mediator.clone(), wrapped.via.clone());
        let (forward, now) = (wrapped.forward_id.clone(), self.clock.now());
        self.change(sent, |sent| sent.begin(mediator, via, forward.clone(), now))?;
        let posted = post(&self.net, wrapped).await;
        let state = match &posted {
            Ok(()) => AttemptState::Taken,
            Err(error) => AttemptState::Failed(RemoteText::new(&error.to_string())),
        };
        self.change(sent, |sent| sent.end(&forward, state))?;
        Ok(posted)
    }

    /// Reads the documents of mediators, and leaves out those that cannot be read now.
    async fn documents(
        &self,
        mediators: &[MediatorDid],
    ) -> Result<Vec<Arc<MediatorDocument>>, MailError> {
        let mut found = Vec::new();
        let mut last = MailError::Unusable(MediatorDefect::NoMediator);
        for did in mediators {
            match document(&self.identity, did, Freshness::Cached).await {
                Ok(document) => found.push(document),
                Err(error) => last = error,
            }
        }
        if found.is_empty() {
            return Err(last);
        }
        Ok(found)
    }

    /// Wraps a message for a path, and looks up further mediators that stand on it.
    async fn wrap(
        &self,
        sent: &SentMessage,
        theirs: &MediatorDocument,
        path: &DeliveryPath,
        key: &MessagingKey,
    ) -> Result<WrappedMessage, MailError> {
        // The first hop's document is one that this client has read itself, also where the
        // directory has supplied `theirs`.
        let own = document(&self.identity, path.first_hop(), Freshness::Cached).await?;
        let now = self.clock.now().millis() / 1000;
        let envelope = sent.envelope.as_bytes();
        let mut others: Vec<Arc<MediatorDocument>> = Vec::new();
        loop {
            let known = |did: &MediatorDid| others.iter().find(|one| one.did == *did).cloned();
            match wrap(envelope, &sent.peer, theirs, &own, key, now, &known)? {
                Progress::Done(wrapped) => return Ok(wrapped),
                Progress::Need(did) if others.len() < MAX_OTHERS => {
                    others.push(document(&self.identity, &did, Freshness::Cached).await?);
                }
                Progress::Need(did) => return Err(RouteError::NoDocument(did).into()),
            }
        }
    }
}

/// Posts a wrapped message; the mediator has accepted it when this returns.
pub(super) async fn post(net: &Net, wrapped: WrappedMessage) -> Result<(), MailError> {
    let request = Request {
        priority: Priority::Mail,
        timeout: Some(POST_TIMEOUT),
        ..Request::new(wrapped.url, Trust::Untrusted, MAX_REFUSAL)
    };
    let answer = net.post(&request, MEDIA_TYPE, wrapped.body.into()).await?;
    if answer.status.is_success() {
        Ok(())
    } else {
        Err(refused(&answer))
    }
}

fn all_failed(mediators: &[MediatorDid], error: &MailError) -> Vec<PathFailure> {
    let failure = |mediator: &MediatorDid| PathFailure {
        path: DeliveryPath {
            mediator: mediator.clone(),
            via: None,
        },
        error: error.clone(),
    };
    mediators.iter().map(failure).collect()
}
