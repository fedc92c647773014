//! Processing of each message that a mediator hands over.
//!
//! A message is unpacked, attributed and saved in the wallet; only then may it be acknowledged. An
//! envelope that cannot be unpacked is saved as it came. A report that a relay failed leads to the
//! recipient's next mediator.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::attempt::DeliveryPath;
use super::attribute::Attributor;
use super::dm::Dm;
use super::outbox::{ReportOutcome, SentMessage, UndeliverableReport};
use super::send::{DeliveryOutcome, Sender};
use super::unpack::{Unpacked, unpack};
use crate::lookup::sender::SenderLookup;
use crate::mediator::client::{Mail, MediatorClient};
use crate::wallet::enrolment::{Enrolment, MessagingKey};
use crate::wallet::error::WalletError;
use crate::wallet::file::Saved;
use crate::wallet::messages::StoredMessage;
use crate::wallet::undecryptable::Undecryptable;
use crate::wallet::{AccountStore, Wallet};
use atcomm_proto::clock::Clock;
use atcomm_proto::didcomm::message::{BodyError, Message, TypeUri};
use atcomm_proto::didcomm::protocol::Body as _;
use atcomm_proto::didcomm::protocol::empty::Empty;
use atcomm_proto::didcomm::protocol::problem::Report;
use atcomm_proto::didcomm::protocol::trust_ping::Ping;
use atcomm_proto::syntax::RemoteText;
use atcomm_proto::verify::attribution::{Attribution, Claim};

/// The result of processing a message. Every one of them may be acknowledged.
#[derive(Debug)]
pub enum Received {
    /// A direct message.
    Message {
        /// The message as it is stored.
        stored: StoredMessage,
        /// Its body.
        dm: Dm,
        /// Its attribution.
        attribution: Attribution,
    },
    /// A message of another type, or one whose body cannot be read.
    Other {
        /// The message as it is stored.
        stored: StoredMessage,
        /// Its attribution, as far as such a message claims an account.
        attribution: Attribution,
        /// Why the message has nothing to show.
        why: String,
    },
    /// An envelope that cannot be unpacked, stored as it came.
    Undecryptable {
        /// The envelope, with the reason.
        undecryptable: Undecryptable,
    },
    /// A message that is stored already.
    Duplicate,
    /// A message that asks for nothing and says nothing.
    Ignored,
    /// A report of an own mediator that it did not deliver a message of ours.
    Undeliverable {
        /// The message. One that is given up stays in the wallet until
        /// [`Receiver::mark_reported`].
        sent: SentMessage,
        /// The mediator's reason.
        words: RemoteText,
        /// What happens to the message.
        next: NextStep,
    },
}

/// What happens to a message that was not delivered.
#[derive(Debug)]
pub enum NextStep {
    /// The message is on another path.
    Retried(DeliveryPath),
    /// Another attempt of the message may still arrive.
    Pending,
    /// No mediator is left, or none accepted the message.
    GivenUp,
}

impl Received {
    /// Whether it is a message that was not stored before.
    pub(super) fn is_new_message(&self) -> bool {
        matches!(self, Self::Message { .. } | Self::Other { .. })
    }

    /// Whether it is mail, as a message or as an envelope that cannot be unpacked.
    pub(super) fn is_mail(&self) -> bool {
        self.is_new_message() || matches!(self, Self::Undecryptable { .. })
    }

    /// Returns the id of a message that was given up.
    pub(super) fn id_given_up(&self) -> Option<String> {
        match self {
            Self::Undeliverable {
                sent,
                next: NextStep::GivenUp,
                ..
            } => Some(sent.id.clone()),
            _ => None,
        }
    }

    /// Returns the report about a message of the outbox that was given up.
    pub(super) fn given_up(sent: SentMessage) -> Self {
        let given_up = sent.given_up.as_ref();
        let words = given_up.map(|given_up| given_up.words.clone());
        Self::Undeliverable {
            words: words.unwrap_or_default(),
            sent,
            next: NextStep::GivenUp,
        }
    }
}

/// A message that was processed.
#[derive(Debug)]
pub struct Processed {
    /// The result.
    pub received: Received,
    /// A damaged file of the wallet that stood in the message's place, by its new name.
    pub set_aside: Option<PathBuf>,
}

impl From<Received> for Processed {
    fn from(received: Received) -> Self {
        Self {
            received,
            set_aside: None,
        }
    }
}

/// Processes messages for one account.
pub struct Receiver {
    store: AccountStore,
    enrolment: Arc<Enrolment>,
    attributor: Attributor,
    sender: Sender,
    clock: Clock,
}

impl Receiver {
    /// Returns a receiver for the account of `store`, with the keys of `enrolment`. Dials nothing.
    pub fn new(
        wallet: Wallet,
        store: AccountStore,
        enrolment: Arc<Enrolment>,
        senders: SenderLookup,
        sender: Sender,
        clock: Clock,
    ) -> Self {
        Self {
            attributor: Attributor::new(wallet, senders, clock.clone()),
            store,
            enrolment,
            sender,
            clock,
        }
    }

    /// Processes a message. The message is on disk when this returns, and nothing is awaited after it
    /// was saved. After an error, which is always one of the wallet, the message must stay at the
    /// mediator.
    pub async fn process(
        &self,
        client: &MediatorClient,
        mail: &Mail,
    ) -> Result<Processed, WalletError> {
        let known = std::slice::from_ref(client.party());
        let ring = self.enrolment.reading(self.clock.now());
        let unpacked = match unpack(&mail.envelope, &ring, known) {
            Ok(unpacked) => unpacked,
            Err(error) => return self.save_undecryptable(client, mail, &error.to_string()),
        };
        if unpacked.sender.as_deref() == Some(client.did().as_str())
            && let Some(report) = UndeliverableReport::read(&unpacked)
        {
            return Ok(self.follow_up(&report).await?.into());
        }
        if says_nothing(&unpacked.message) {
            return Ok(Received::Ignored.into());
        }
        let dm = unpacked.message.body_of::<Dm>();
        let claim = Claim {
            sender_peer: unpacked.sender.clone(),
            sender_did: dm.as_ref().ok().and_then(|dm| dm.sender_did.clone()),
            recipient_did: dm.as_ref().ok().and_then(|dm| dm.recipient_did.clone()),
            recipient: self.enrolment.account.clone(),
        };
        let attribution = self.attributor.attribute(&claim).await?;
        let stored = self.stored(&unpacked, &attribution);
        let set_aside = match self.store.save_message(&stored) {
            Ok(Saved::New) => None,
            Ok(Saved::DamagedSetAside(path)) => Some(path),
            Ok(Saved::Duplicate) => return Ok(Received::Duplicate.into()),
            // No message that can be unpacked is that long. If one were, it must not block the
            // queue.
            Err(error @ WalletError::TooLong { .. }) => {
                return self.save_undecryptable(client, mail, &error.to_string());
            }
            Err(error) => return Err(error),
        };
        let received = received(stored, dm, attribution, &unpacked.message.kind);
        Ok(Processed {
            received,
            set_aside,
        })
    }

    /// Returns the messages of the outbox that were given up and not reported since.
    pub fn given_up(&self) -> Result<Vec<SentMessage>, WalletError> {
        let mut sent = self.store.sent::<SentMessage>()?;
        sent.retain(|one| one.given_up.is_some());
        Ok(sent)
    }

    /// Deletes a message that was given up, once the user has read that.
    pub fn mark_reported(&self, id: &str) -> Result<(), WalletError> {
        self.store.delete_sent(id).map(drop)
    }

    /// Attributes a stored message anew. An attribution that proves its sender is saved.
    pub async fn attribute_again(
        &self,
        stored: &StoredMessage,
        dm: &Dm,
    ) -> Result<Attribution, WalletError> {
        let claim = Claim {
            sender_peer: stored.from.clone(),
            sender_did: dm.sender_did.clone(),
            recipient_did: dm.recipient_did.clone(),
            recipient: self.enrolment.account.clone(),
        };
        let attribution = self.attributor.attribute(&claim).await?;
        if attribution.account().is_some() {
            self.store.reattribute(&StoredMessage {
                attribution: json!(attribution),
                ..stored.clone()
            })?;
        }
        Ok(attribution)
    }

    fn stored(&self, unpacked: &Unpacked, attribution: &Attribution) -> StoredMessage {
        let mut keys = self.enrolment.keys.iter();
        let key = keys.find(|key| key.peer.as_str() == unpacked.recipient);
        StoredMessage {
            id: unpacked.message.id.clone(),
            from: unpacked.sender.clone(),
            recipient: unpacked.recipient.clone(),
            recipient_replaced: key.is_some_and(MessagingKey::is_replaced),
            received_at: self.clock.now(),
            message: String::from_utf8_lossy(&unpacked.plaintext).into_owned(),
            attribution: json!(attribution),
        }
    }

    fn save_undecryptable(
        &self,
        client: &MediatorClient,
        mail: &Mail,
        why: &str,
    ) -> Result<Processed, WalletError> {
        let recipient = client.key().peer.as_str();
        let undecryptable = Undecryptable::new(&mail.envelope, recipient, self.clock.now(), why);
        Ok(match self.store.save_undecryptable(&undecryptable)? {
            Saved::New | Saved::DamagedSetAside(_) => {
                Received::Undecryptable { undecryptable }.into()
            }
            Saved::Duplicate => Received::Duplicate.into(),
        })
    }

    /// Follows up a report of an own mediator: tries the next mediator of the recipient, or gives
    /// the message up.
    async fn follow_up(&self, report: &UndeliverableReport) -> Result<Received, WalletError> {
        for mut sent in self.store.sent::<SentMessage>()? {
            let outcome = sent.report(report);
            if outcome == ReportOutcome::NotOurs {
                continue;
            }
            sent.given_up = None;
            self.store.save_sent(&sent.id, &sent)?;
            let failures = match outcome {
                ReportOutcome::TryNext(left) => match self.sender.resend(&mut sent, &left).await? {
                    DeliveryOutcome::Accepted { path, .. } => {
                        if !sent.is_open(self.clock.now()) {
                            // No report about it will come.
                            self.store.delete_sent(&sent.id)?;
                        }
                        return Ok(undeliverable(sent, report, NextStep::Retried(path)));
                    }
                    DeliveryOutcome::Refused(failures) => failures,
                },
                ReportOutcome::GivenUp => Vec::new(),
                ReportOutcome::Pending | ReportOutcome::NotOurs => {
                    return Ok(undeliverable(sent, report, NextStep::Pending));
                }
            };
            sent.give_up(&report.words, &failures);
            self.store.save_sent(&sent.id, &sent)?;
            return Ok(undeliverable(sent, report, NextStep::GivenUp));
        }
        // The message is in the outbox no longer.
        Ok(Received::Ignored)
    }
}

fn undeliverable(sent: SentMessage, report: &UndeliverableReport, next: NextStep) -> Received {
    Received::Undeliverable {
        sent,
        words: report.words.clone(),
        next,
    }
}

/// Sorts a stored message by its body.
fn received(
    stored: StoredMessage,
    dm: Result<Dm, BodyError>,
    attribution: Attribution,
    kind: &str,
) -> Received {
    let why = match dm {
        Ok(dm) => {
            return Received::Message {
                stored,
                dm,
                attribution,
            };
        }
        Err(BodyError::Field(error)) => format!("it cannot be shown: {error}"),
        Err(BodyError::Type(_)) => format!("it is of a type that is not shown here: {kind}"),
    };
    Received::Other {
        stored,
        attribution,
        why,
    }
}

/// Whether a message needs no answer and is not mail. Pings are not answered either: an answer would
/// tell the sender when the account's mail is read.
fn says_nothing(message: &Message) -> bool {
    let is = |known: &str| {
        let known = TypeUri::parse(known);
        let kind = TypeUri::parse(&message.kind);
        known.is_ok_and(|known| kind.is_ok_and(|kind| kind.reads_as(&known)))
    };
    [Ping::TYPE, Empty::TYPE, Report::TYPE].into_iter().any(is)
}

#[cfg(test)]
mod tests;
