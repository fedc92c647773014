//! Processing of each message that a mediator hands over.
//!
//! A message is unpacked, attributed and saved in the wallet; only then may it be acknowledged. An
//! envelope that cannot be unpacked is saved as it came. A report that a relay failed leads to the
//! recipient's next mediator.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

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
use crate::wallet::mark::ShowMark;
use crate::wallet::messages::StoredMessage;
use crate::wallet::undecryptable::Undecryptable;
use crate::wallet::unproven::MAX_UNPROVEN;
use crate::wallet::{AccountStore, Wallet};
use atcomm_proto::clock::Clock;
use atcomm_proto::didcomm::message::{BodyError, Message, TypeUri};
use atcomm_proto::didcomm::protocol::Body as _;
use atcomm_proto::didcomm::protocol::empty::Empty;
use atcomm_proto::didcomm::protocol::problem::Report;
use atcomm_proto::didcomm::protocol::trust_ping::Ping;
use atcomm_proto::syntax::RemoteText;
use atcomm_proto::verify::attribution::{Attribution, Claim};

/// Bytes of mail of unknown senders between two measurements of its room. Measuring lists a folder, so
/// it is not done for each message; several processes may exceed the room by as much each.
const ROOM_CHECK_INTERVAL: u64 = MAX_UNPROVEN / 16;

/// What a message takes on the disk beyond its text, in bytes: the rest of a block, and its marks.
const MESSAGE_OVERHEAD: u64 = 4096;

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
    /// Number of older messages of unknown senders that were deleted to make room.
    pub evicted: u64,
    /// The mark of a message that is saved and was not shown yet. Until it is told that the message
    /// was shown, [`Inbox`](super::inbox::Inbox) shows the message again.
    pub mark: Option<ShowMark>,
}

impl From<Received> for Processed {
    fn from(received: Received) -> Self {
        Self {
            received,
            set_aside: None,
            evicted: 0,
            mark: None,
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
    /// Bytes of unknown senders that are saved before the wallet's room is measured again.
    room: Mutex<u64>,
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
            // Other processes may have used the room up.
            room: Mutex::new(0),
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
        let mut stored = self.stored(&unpacked, &attribution);
        if dm.is_err() {
            stored.cut();
        }
        let (set_aside, mark) = match self.store.save_unshown(&stored) {
            Ok((Saved::New, mark)) => (None, mark),
            Ok((Saved::DamagedSetAside(path), mark)) => (Some(path), mark),
            Ok((Saved::Duplicate, _)) => return Ok(Received::Duplicate.into()),
            // No message that can be unpacked is that long. If one were, it must not block the
            // queue.
            Err(error @ WalletError::TooLong { .. }) => {
                return self.save_undecryptable(client, mail, &error.to_string());
            }
            Err(error) => return Err(error),
        };
        let evicted = self.make_room(&stored, &attribution);
        let received = received(stored, dm, attribution, &unpacked.message.kind);
        Ok(Processed {
            received,
            set_aside,
            evicted,
            mark,
        })
    }

    /// Returns the messages of the outbox that were given up and not reported since.
    pub fn given_up(&self) -> Result<Vec<SentMessage>, WalletError> {
        let mut sent = self.store.sent::<SentMessage>()?;
        sent.retain(|one| one.given_up.is_some());
        Ok(sent)
    }

    /// Deletes a message that was given up, once the user has read that. One that is on another path
    /// since stays.
    pub fn mark_reported(&self, id: &str) -> Result<(), WalletError> {
        self.store.change_sent(id, |sent: Option<SentMessage>| {
            (sent.filter(|sent| sent.given_up.is_none()), ())
        })
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
            cut: None,
            attribution: json!(attribution),
        }
    }

    /// Makes room in the wallet where this process has saved so much mail of unknown senders that
    /// there may be too little. Returns the number of messages that were deleted.
    fn make_room(&self, stored: &StoredMessage, attribution: &Attribution) -> u64 {
        if attribution.account().is_some() {
            return 0;
        }
        let mut left = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(stored.message.len() as u64 + MESSAGE_OVERHEAD);
        if *left > 0 {
            return 0;
        }
        *left = ROOM_CHECK_INTERVAL;
        // Where that fails, the message is saved all the same: a full disk ends receiving when it is
        // full, and not before.
        self.store.make_room().unwrap_or_default()
    }

    fn save_undecryptable(
        &self,
        client: &MediatorClient,
        mail: &Mail,
        why: &str,
    ) -> Result<Processed, WalletError> {
        let recipient = client.key().peer.as_str();
        let undecryptable = Undecryptable::new(&mail.envelope, recipient, self.clock.now(), why);
        let (saved, mark) = self.store.save_undecryptable_unshown(&undecryptable)?;
        let received = match saved {
            Saved::New | Saved::DamagedSetAside(_) => Received::Undecryptable { undecryptable },
            Saved::Duplicate => Received::Duplicate,
        };
        Ok(Processed {
            mark,
            ..received.into()
        })
    }

    /// Follows up a report of an own mediator: tries the next mediator of the recipient, or gives
    /// the message up.
    async fn follow_up(&self, report: &UndeliverableReport) -> Result<Received, WalletError> {
        for mut sent in self.store.sent::<SentMessage>()? {
            if sent.report(report) == ReportOutcome::NotOurs {
                continue;
            }
            // Decided by the state of now: another process may be delivering it.
            let mut outcome = ReportOutcome::NotOurs;
            self.sender.change(&mut sent, |sent| {
                outcome = sent.report(report);
                sent.given_up = None;
            })?;
            let failures = match outcome {
                ReportOutcome::TryNext(left) => match self.sender.resend(&mut sent, &left).await? {
                    DeliveryOutcome::Accepted { path, .. } => {
                        // Where it was posted directly, no report about it will come.
                        self.sender.delete_closed(&sent.id)?;
                        return Ok(undeliverable(sent, report, NextStep::Retried(path)));
                    }
                    DeliveryOutcome::Refused(failures) => failures,
                },
                ReportOutcome::GivenUp => Vec::new(),
                ReportOutcome::Pending | ReportOutcome::NotOurs => {
                    return Ok(undeliverable(sent, report, NextStep::Pending));
                }
            };
            self.sender.change(&mut sent, |sent| {
                sent.give_up(&report.words, &failures);
            })?;
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
    let why = match &stored.cut {
        Some(cut) => format!("{why}; {cut}"),
        None => why,
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
