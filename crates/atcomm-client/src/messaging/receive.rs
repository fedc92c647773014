//! What becomes of each message that a mediator hands over.
//!
//! It is opened, attributed and kept in the wallet, and only then may the mediator let it go. What
//! cannot be opened is kept as it came. A report that a relay failed leads to the reader's next
//! mediator.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout};

use super::attempt::DeliveryPath;
use super::dm::Dm;
use super::open::{Unpacked, open};
use super::outbox::{ReportOutcome, SentMessage, UndeliverableReport};
use super::send::{DeliveryOutcome, Sender};
use crate::lookup::sender::{Attributed, SenderLookup};
use crate::mediator::client::{Mail, MediatorClient};
use crate::wallet::enrolment::{Enrolment, MessagingKey};
use crate::wallet::error::WalletError;
use crate::wallet::file::Saved;
use crate::wallet::messages::StoredMessage;
use crate::wallet::undecryptable::Undecryptable;
use crate::wallet::{AccountStore, Wallet};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::didcomm::message::{BodyError, Message, TypeUri};
use atcomm_proto::didcomm::protocol::Body as _;
use atcomm_proto::didcomm::protocol::empty::Empty;
use atcomm_proto::didcomm::protocol::problem::Report;
use atcomm_proto::didcomm::protocol::trust_ping::Ping;
use atcomm_proto::syntax::RemoteText;
use atcomm_proto::verify::attribution::{
    AccountState, Attribution, Claim, UnverifiedReason, attribute,
};

/// Time for one account to be looked up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time that may be spent in vain on accounts of strangers, and within how long. What is over it is
/// shown as not verified, and looked at again when it is shown the next time.
const SPENT: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(600);

/// What a message turned out to be. Whatever it was, the mediator may let it go.
#[derive(Debug)]
pub enum Received {
    /// A direct message, kept.
    Message {
        /// As it is kept.
        kept: StoredMessage,
        /// Its body.
        dm: Dm,
        /// Whose it is.
        attribution: Attribution,
    },
    /// A message of another type or one whose body cannot be read, kept.
    Other {
        /// As it is kept.
        kept: StoredMessage,
        /// Whose it is, as far as such a message shows.
        attribution: Attribution,
        /// Why there is nothing to be shown.
        why: String,
    },
    /// An envelope that cannot be opened, kept as it came.
    Undecryptable {
        /// As it is kept, with the reason.
        undecryptable: Undecryptable,
    },
    /// A message that is kept already.
    Duplicate,
    /// Something that asks for nothing and says nothing.
    Ignored,
    /// A mediator of ours did not deliver a message of ours.
    Undeliverable {
        /// The message; where it is given up, [`Receiver::mark_reported`] is to hear when its writer has read
        /// that.
        sent: SentMessage,
        /// Why not, in the mediator's words.
        words: RemoteText,
        /// What comes next.
        next: NextStep,
    },
}

/// What comes next for a message that was not delivered.
#[derive(Debug)]
pub enum NextStep {
    /// The message is on another path.
    Retried(DeliveryPath),
    /// Another attempt of it may still arrive.
    Pending,
    /// Nothing: no mediator is left, or none took it. The wallet remembers it until its writer was
    /// told.
    GivenUp,
}

impl Received {
    /// Whether it is a message that was not here before.
    pub(super) fn is_new_message(&self) -> bool {
        matches!(self, Self::Message { .. } | Self::Other { .. })
    }

    /// Whether it is mail of others, also where nothing can be read of it.
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

    /// Returns a message of the outbox that was given up.
    pub(super) fn given_up(sent: SentMessage) -> Self {
        let words = sent
            .given_up
            .as_ref()
            .map(|given_up| given_up.words.clone());
        Self::Undeliverable {
            sent,
            words: words.unwrap_or_default(),
            next: NextStep::GivenUp,
        }
    }
}

/// A message that was taken.
#[derive(Debug)]
pub struct Processed {
    /// What it turned out to be.
    pub received: Received,
    /// A damaged file of the wallet that stood in its way, by its new name.
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

/// Takes messages for one account.
pub struct Receiver {
    wallet: Wallet,
    store: AccountStore,
    enrolment: Arc<Enrolment>,
    senders: SenderLookup,
    sender: Sender,
    clock: Clock,
    waited: LookupBudget,
}

/// Time spent in vain on accounts of strangers: each message may claim another one whose host does
/// not answer, and all the others would wait behind it.
#[derive(Default)]
struct LookupBudget(Mutex<Option<(Timestamp, Duration)>>);

impl LookupBudget {
    fn add(&self, time: Duration, now: Timestamp) {
        let mut waited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *waited = Some(match *waited {
            Some((since, spent)) if now.since(since) < WINDOW => (since, spent + time),
            _ => (now, time),
        });
    }

    fn is_over(&self, now: Timestamp) -> bool {
        let waited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waited.is_some_and(|(since, spent)| now.since(since) < WINDOW && spent >= SPENT)
    }
}

impl Receiver {
    /// For the account of `store`, with the keys of `enrolment`.
    pub fn new(
        wallet: Wallet,
        store: AccountStore,
        enrolment: Arc<Enrolment>,
        senders: SenderLookup,
        sender: Sender,
        clock: Clock,
    ) -> Self {
        Self {
            wallet,
            store,
            enrolment,
            senders,
            sender,
            clock,
            waited: LookupBudget::default(),
        }
    }

    /// The account's keys and mediators.
    pub fn enrolment(&self) -> &Enrolment {
        &self.enrolment
    }

    /// Takes a message; on disk when it returns, and nothing waits between. An error keeps the
    /// message at the mediator, and is about the wallet and not about the message.
    pub async fn take(
        &self,
        client: &MediatorClient,
        mail: &Mail,
    ) -> Result<Processed, WalletError> {
        let known = std::slice::from_ref(client.party());
        let ring = self.enrolment.reading(self.clock.now());
        let opened = match open(&mail.envelope, &ring, known) {
            Ok(opened) => opened,
            Err(error) => return self.save_undecryptable(client, mail, &error.to_string()),
        };
        if opened.writer.as_deref() == Some(client.did().as_str())
            && let Some(reported) = UndeliverableReport::read(&opened)
        {
            return Ok(self.returned(&reported).await?.into());
        }
        if says_nothing(&opened.message) {
            return Ok(Received::Ignored.into());
        }
        let dm = opened.message.body_of::<Dm>();
        let claim = Claim {
            sender_peer: opened.writer.clone(),
            sender_did: dm.as_ref().ok().and_then(|dm| dm.sender_did.clone()),
            recipient_did: dm.as_ref().ok().and_then(|dm| dm.recipient_did.clone()),
            recipient: self.enrolment.account.clone(),
        };
        let attribution = self.attribute(&claim).await?;
        let kept = self.kept(&opened, &attribution);
        let set_aside = match self.store.save_message(&kept) {
            Ok(Saved::New) => None,
            Ok(Saved::DamagedSetAside(path)) => Some(path),
            Ok(Saved::Duplicate) => return Ok(Received::Duplicate.into()),
            // None that is opened gets so long; and if one did, the others go on.
            Err(error @ WalletError::TooLong { .. }) => {
                return self.save_undecryptable(client, mail, &error.to_string());
            }
            Err(error) => return Err(error),
        };
        let received = match dm {
            Ok(dm) => Received::Message {
                kept,
                dm,
                attribution,
            },
            Err(BodyError::Field(error)) => Received::Other {
                kept,
                attribution,
                why: format!("it cannot be shown: {error}"),
            },
            Err(BodyError::Type(_)) => Received::Other {
                kept,
                attribution,
                why: format!(
                    "it is of a type that is not shown here: {}",
                    opened.message.kind
                ),
            },
        };
        Ok(Processed {
            received,
            set_aside,
        })
    }

    /// Messages of ours that were given up and whose writer was not told.
    pub fn given_up(&self) -> Result<Vec<SentMessage>, WalletError> {
        let mut sent = self.store.sent::<SentMessage>()?;
        sent.retain(|one| one.given_up.is_some());
        Ok(sent)
    }

    /// Deletes a message that was given up, once its sender has read that.
    pub fn mark_reported(&self, id: &str) -> Result<(), WalletError> {
        self.store.delete_sent(id).map(drop)
    }

    /// Whose a message is, by what is known now; what is learnt of a contact is kept.
    pub async fn attribute(&self, claim: &Claim) -> Result<Attribution, WalletError> {
        let pins = self.wallet.contacts()?;
        let account = claim.account();
        let is_known = account.is_none_or(|account| pins.iter().any(|pin| pin.account == account));
        if !is_known && self.waited.is_over(self.clock.now()) {
            let unknown = AccountState::Unknown(UnverifiedReason::Unreachable);
            return Ok(attribute(claim, &unknown, None, self.clock.now()));
        }
        let began = Instant::now();
        let attributed = timeout(PATIENCE, self.senders.attribute(claim, &pins)).await;
        let attributed = attributed.unwrap_or_else(|_| {
            let unknown = AccountState::Unknown(UnverifiedReason::Unreachable);
            Attributed {
                attribution: attribute(claim, &unknown, None, self.clock.now()),
                pin: None,
            }
        });
        if !is_known && is_vain(&attributed.attribution) {
            self.waited.add(began.elapsed(), self.clock.now());
        }
        if let Some(pin) = &attributed.pin {
            let before = pins.iter().find(|known| known.account == pin.account);
            match self.wallet.replace_pin(before, pin) {
                // Made long by its owner, who thereby stays unknown; the message counts.
                Ok(_) | Err(WalletError::TooLong { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(attributed.attribution)
    }

    /// Attributes a message that is kept anew, and keeps what proves its writer.
    pub async fn attribute_again(
        &self,
        kept: &StoredMessage,
        dm: &Dm,
    ) -> Result<Attribution, WalletError> {
        let claim = Claim {
            sender_peer: kept.from.clone(),
            sender_did: dm.sender_did.clone(),
            recipient_did: dm.recipient_did.clone(),
            recipient: self.enrolment.account.clone(),
        };
        let attribution = self.attribute(&claim).await?;
        if attribution.account().is_some() {
            let kept = StoredMessage {
                attribution: json!(attribution),
                ..kept.clone()
            };
            self.store.reattribute(&kept)?;
        }
        Ok(attribution)
    }

    fn kept(&self, opened: &Unpacked, attribution: &Attribution) -> StoredMessage {
        let mut keys = self.enrolment.keys.iter();
        let reader = keys.find(|key| key.peer.as_str() == opened.reader);
        StoredMessage {
            id: opened.message.id.clone(),
            from: opened.writer.clone(),
            reader: opened.reader.clone(),
            reader_replaced: reader.is_some_and(MessagingKey::is_replaced),
            received_at: self.clock.now(),
            message: String::from_utf8_lossy(&opened.plaintext).into_owned(),
            attribution: json!(attribution),
        }
    }

    fn save_undecryptable(
        &self,
        client: &MediatorClient,
        mail: &Mail,
        why: &str,
    ) -> Result<Processed, WalletError> {
        let reader = client.key().peer.as_str();
        let undecryptable = Undecryptable::new(&mail.envelope, reader, self.clock.now(), why);
        Ok(match self.store.save_undecryptable(&undecryptable)? {
            Saved::New | Saved::DamagedSetAside(_) => {
                Received::Undecryptable { undecryptable }.into()
            }
            Saved::Duplicate => Received::Duplicate.into(),
        })
    }

    /// Follows up a report of a mediator of ours.
    async fn returned(&self, reported: &UndeliverableReport) -> Result<Received, WalletError> {
        for mut sent in self.store.sent::<SentMessage>()? {
            let verdict = sent.report(reported);
            if verdict == ReportOutcome::NotOurs {
                continue;
            }
            sent.given_up = None;
            self.store.save_sent(&sent.id, &sent)?;
            let failures = match verdict {
                ReportOutcome::TryNext(left) => match self.sender.resend(&mut sent, &left).await? {
                    DeliveryOutcome::Accepted { path, .. } => {
                        if !sent.is_open(self.clock.now()) {
                            // No report about it will come.
                            self.store.delete_sent(&sent.id)?;
                        }
                        return Ok(returned(sent, reported, NextStep::Retried(path)));
                    }
                    DeliveryOutcome::Refused(failures) => failures,
                },
                ReportOutcome::GivenUp => Vec::new(),
                ReportOutcome::Pending | ReportOutcome::NotOurs => {
                    return Ok(returned(sent, reported, NextStep::Pending));
                }
            };
            sent.give_up(&reported.words, &failures);
            self.store.save_sent(&sent.id, &sent)?;
            return Ok(returned(sent, reported, NextStep::GivenUp));
        }
        // About something that is not remembered any more.
        Ok(Received::Ignored)
    }
}

fn is_vain(attribution: &Attribution) -> bool {
    matches!(
        attribution,
        Attribution::Unverified {
            reason: UnverifiedReason::Unreachable,
            ..
        }
    )
}

fn returned(sent: SentMessage, reported: &UndeliverableReport, next: NextStep) -> Received {
    Received::Undeliverable {
        sent,
        words: reported.words.clone(),
        next,
    }
}

/// Pings are not answered: that would tell strangers when somebody reads.
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
