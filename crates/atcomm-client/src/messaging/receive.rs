//! What becomes of each message that a mediator hands over.
//!
//! It is opened, attributed and kept in the wallet, and only then may the mediator let it go. What
//! cannot be opened is kept as it came. A report that a relay failed leads to the reader's next
//! mediator.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout};

use super::attempt::{Failure, Way};
use super::dm::Dm;
use super::open::{Opened, open};
use super::outbox::{Reported, Sent, Verdict};
use super::send::{Courier, Handed};
use crate::lookup::recipient::Recipients;
use crate::lookup::sender::Attributed;
use crate::mediator::client::{Mail, MailError, MediatorClient};
use crate::wallet::enrolment::{Enrolment, MessagingKey};
use crate::wallet::error::WalletError;
use crate::wallet::file::Placed;
use crate::wallet::messages::Kept;
use crate::wallet::undecryptable::Unopened;
use crate::wallet::{Drawer, Wallet};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::didcomm::message::{BodyError, Message, TypeUri};
use atcomm_proto::didcomm::protocol::Body as _;
use atcomm_proto::didcomm::protocol::empty::Empty;
use atcomm_proto::didcomm::protocol::problem::Report;
use atcomm_proto::didcomm::protocol::trust_ping::Ping;
use atcomm_proto::syntax::MediatorDid;
use atcomm_proto::verify::attribution::{Attribution, Claim, Doubt, Standing, attribute};

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
        kept: Kept,
        /// Its body.
        dm: Dm,
        /// Whose it is.
        attribution: Attribution,
    },
    /// A message of another type or one whose body cannot be read, kept.
    Other {
        /// As it is kept.
        kept: Kept,
        /// Whose it is, as far as such a message shows.
        attribution: Attribution,
        /// Why there is nothing to be shown.
        why: String,
    },
    /// An envelope that cannot be opened, kept as it came.
    Unreadable {
        /// As it is kept, with the reason.
        unopened: Unopened,
    },
    /// A message that is kept already.
    Copy,
    /// Something that asks for nothing and says nothing.
    Nothing,
    /// A mediator of ours did not deliver a message of ours.
    Returned {
        /// The message; where it is given up, [`Receiver::told`] is to hear when its writer has read
        /// that.
        sent: Sent,
        /// Why not, in the mediator's words.
        words: String,
        /// What comes next.
        next: Next,
    },
}

/// What comes next for a message that was not delivered.
#[derive(Debug)]
pub enum Next {
    /// It is on another way.
    Again(Handed),
    /// Another attempt of it may still arrive.
    Pending,
    /// Nothing: no mediator is left, or none took it. The wallet remembers it until its writer was
    /// told.
    GivenUp,
}

/// A message that was taken.
#[derive(Debug)]
pub struct Taken {
    /// What it turned out to be.
    pub received: Received,
    /// A damaged file of the wallet that stood in its way, by its new name.
    pub set_aside: Option<PathBuf>,
}

impl From<Received> for Taken {
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
    drawer: Drawer,
    enrolment: Enrolment,
    recipients: Recipients,
    courier: Courier,
    clock: Clock,
    waited: Waited,
}

/// Time spent in vain on accounts of strangers: each message may claim another one whose host does
/// not answer, and all the others would wait behind it.
#[derive(Default)]
struct Waited(Mutex<Option<(Timestamp, Duration)>>);

impl Waited {
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
    /// For the account of `drawer`, with the keys of `enrolment`.
    pub fn new(
        wallet: Wallet,
        drawer: Drawer,
        enrolment: Enrolment,
        recipients: Recipients,
        courier: Courier,
        clock: Clock,
    ) -> Self {
        Self {
            wallet,
            drawer,
            enrolment,
            recipients,
            courier,
            clock,
            waited: Waited::default(),
        }
    }

    /// The account's keys and mediators.
    pub fn enrolment(&self) -> &Enrolment {
        &self.enrolment
    }

    /// Takes a message; on disk when it returns, and nothing waits between. An error keeps the
    /// message at the mediator, and is about the wallet and not about the message.
    pub async fn take(&self, client: &MediatorClient, mail: &Mail) -> Result<Taken, WalletError> {
        let known = std::slice::from_ref(client.party());
        let ring = self.enrolment.reading(self.clock.now());
        let opened = match open(&mail.envelope, &ring, known) {
            Ok(opened) => opened,
            Err(error) => return self.keep_unopened(client, mail, &error.to_string()),
        };
        if opened.writer.as_deref() == Some(client.did().as_str())
            && let Some(reported) = Reported::read(&opened)
        {
            return Ok(self.returned(&reported).await?.into());
        }
        if says_nothing(&opened.message) {
            return Ok(Received::Nothing.into());
        }
        let dm = opened.message.body_of::<Dm>();
        let claim = Claim {
            writer: opened.writer.clone(),
            sender: dm.as_ref().ok().and_then(|dm| dm.sender_did.clone()),
            recipient: dm.as_ref().ok().and_then(|dm| dm.recipient_did.clone()),
            reader: self.enrolment.account.clone(),
        };
        let attribution = self.attribute(&claim).await?;
        let kept = self.kept(&opened, &attribution);
        let set_aside = match self.drawer.keep_message(&kept) {
            Ok(Placed::New) => None,
            Ok(Placed::InPlaceOf(path)) => Some(path),
            Ok(Placed::Copy) => return Ok(Received::Copy.into()),
            // None that is opened gets so long; and if one did, the others go on.
            Err(error @ WalletError::TooLong { .. }) => {
                return self.keep_unopened(client, mail, &error.to_string());
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
        Ok(Taken {
            received,
            set_aside,
        })
    }

    /// Messages of ours that were given up and whose writer was not told.
    pub fn given_up(&self) -> Result<Vec<Sent>, WalletError> {
        let mut sent = self.drawer.sent::<Sent>()?;
        sent.retain(|one| one.given_up.is_some());
        Ok(sent)
    }

    /// The writer of a message that was given up has read that.
    pub fn told(&self, sent: &Sent) -> Result<(), WalletError> {
        self.drawer.forget_sent(&sent.id).map(drop)
    }

    /// Whose a message is, by what is known now; what is learnt of a contact is kept.
    pub async fn attribute(&self, claim: &Claim) -> Result<Attribution, WalletError> {
        let pins = self.wallet.contacts()?;
        let account = claim.account();
        let is_known = account.is_none_or(|account| pins.iter().any(|pin| pin.account == account));
        if !is_known && self.waited.is_over(self.clock.now()) {
            let unknown = Standing::Unknown(Doubt::Unreachable);
            return Ok(attribute(claim, &unknown, None, self.clock.now()));
        }
        let began = Instant::now();
        let attributed = timeout(PATIENCE, self.recipients.attribute(claim, &pins)).await;
        let attributed = attributed.unwrap_or_else(|_| {
            let unknown = Standing::Unknown(Doubt::Unreachable);
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
    pub async fn attribute_again(&self, kept: &Kept, dm: &Dm) -> Result<Attribution, WalletError> {
        let claim = Claim {
            writer: kept.from.clone(),
            sender: dm.sender_did.clone(),
            recipient: dm.recipient_did.clone(),
            reader: self.enrolment.account.clone(),
        };
        let attribution = self.attribute(&claim).await?;
        if attribution.account().is_some() {
            let kept = Kept {
                attribution: json!(attribution),
                ..kept.clone()
            };
            self.drawer.reattribute(&kept)?;
        }
        Ok(attribution)
    }

    fn kept(&self, opened: &Opened, attribution: &Attribution) -> Kept {
        let mut keys = self.enrolment.keys.iter();
        let reader = keys.find(|key| key.peer.as_str() == opened.reader);
        Kept {
            id: opened.message.id.clone(),
            from: opened.writer.clone(),
            reader: opened.reader.clone(),
            reader_replaced: reader.is_some_and(MessagingKey::is_replaced),
            received_at: self.clock.now(),
            message: String::from_utf8_lossy(&opened.plaintext).into_owned(),
            attribution: json!(attribution),
        }
    }

    fn keep_unopened(
        &self,
        client: &MediatorClient,
        mail: &Mail,
        why: &str,
    ) -> Result<Taken, WalletError> {
        let reader = client.key().peer.as_str();
        let unopened = Unopened::new(&mail.envelope, reader, self.clock.now(), why);
        Ok(match self.drawer.keep_unopened(&unopened)? {
            Placed::New | Placed::InPlaceOf(_) => Received::Unreadable { unopened }.into(),
            Placed::Copy => Received::Copy.into(),
        })
    }

    /// Follows up a report of a mediator of ours.
    async fn returned(&self, reported: &Reported) -> Result<Received, WalletError> {
        for mut sent in self.drawer.sent::<Sent>()? {
            let verdict = sent.report(reported);
            if verdict == Verdict::NotOurs {
                continue;
            }
            sent.given_up = None;
            self.drawer.keep_sent(&sent.id, &sent)?;
            let failures = match verdict {
                Verdict::Next(left) => match self.try_next(&mut sent, &left).await? {
                    taken @ Handed::Taken { .. } => {
                        self.forget_over(&sent)?;
                        return Ok(returned(sent, reported, Next::Again(taken)));
                    }
                    Handed::Refused(failures) => failures,
                },
                Verdict::GivenUp => Vec::new(),
                Verdict::Pending | Verdict::NotOurs => {
                    return Ok(returned(sent, reported, Next::Pending));
                }
            };
            sent.give_up(&reported.words, &failures);
            self.drawer.keep_sent(&sent.id, &sent)?;
            return Ok(returned(sent, reported, Next::GivenUp));
        }
        // About something that is not remembered any more.
        Ok(Received::Nothing)
    }

    async fn try_next(&self, sent: &mut Sent, left: &[MediatorDid]) -> Result<Handed, WalletError> {
        let mut keys = self.enrolment.keys.iter();
        let Some(key) = keys.find(|key| key.peer.as_str() == sent.from) else {
            return Ok(Handed::Refused(Vec::new()));
        };
        let documents = match self.courier.documents(left).await {
            Ok(documents) => documents,
            Err(error) => return Ok(Handed::Refused(all_failed(left, &error))),
        };
        let own = mediators_of(&self.enrolment, key);
        let drawer = &self.drawer;
        let mut keep = |sent: &Sent| drawer.keep_sent(&sent.id, sent);
        self.courier
            .hand_over(sent, &documents, own, key, &mut keep)
            .await
    }

    /// Nothing more is to be heard of what no relay has.
    fn forget_over(&self, sent: &Sent) -> Result<(), WalletError> {
        if !sent.is_open(self.clock.now()) {
            self.drawer.forget_sent(&sent.id)?;
        }
        Ok(())
    }
}

fn is_vain(attribution: &Attribution) -> bool {
    matches!(
        attribution,
        Attribution::Unverified {
            reason: Doubt::Unreachable,
            ..
        }
    )
}

/// The mediators that keep mail for a key: those where it is registered, or else is to be.
pub fn mediators_of<'e>(enrolment: &'e Enrolment, key: &'e MessagingKey) -> &'e [MediatorDid] {
    match key.registered.is_empty() {
        true => &enrolment.mediators,
        false => &key.registered,
    }
}

fn returned(sent: Sent, reported: &Reported, next: Next) -> Received {
    Received::Returned {
        sent,
        words: reported.words.clone(),
        next,
    }
}

fn all_failed(mediators: &[MediatorDid], error: &MailError) -> Vec<Failure> {
    let failure = |mediator: &MediatorDid| Failure {
        way: Way {
            mediator: mediator.clone(),
            via: None,
        },
        error: error.clone(),
    };
    mediators.iter().map(failure).collect()
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
