//! The inbox of an account: every queue that can hold mail for it, fetched once or followed.
//!
//! A message is saved in the wallet, then shown to the caller, and only then acknowledged to its
//! mediator, which deletes it. A message that could not be saved stays in its queue. A message that
//! was saved and not shown, because the process ended in between, comes again and is a
//! [`Received::Duplicate`]; [`Inbox::history`] has it.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use super::dm::Dm;
use super::receive::{Processed, Received, Receiver};
use crate::mediator::client::{ForeignAnswer, Mail, MailError, MediatorClient};
use crate::wallet::AccountStore;
use crate::wallet::enrolment::{Enrolment, MessagingKey};
use crate::wallet::error::WalletError;
use crate::wallet::messages::{StoredItem, StoredMessage};
use atcomm_net::identity::{Freshness, Identity};
use atcomm_net::net::Net;
use atcomm_proto::clock::Clock;
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::syntax::MediatorDid;
use atcomm_proto::verify::attribution::{Attribution, PREVIOUS_KEY_GRACE};

/// Most messages of one delivery.
const DELIVERY_BATCH: u64 = 50;

/// Most deliveries in a row without a new message that are taken from one queue. A full queue of
/// pings has fewer, and must not hide the mail behind it; only a mediator that hands out the same
/// messages under ever new ids has more.
const MAX_STALE_DELIVERIES: u32 = 200;

/// Most messages per call of [`Inbox::history`] whose attribution spoke against their sender and is
/// looked up again.
const MAX_ADVERSE_LOOKUPS: u32 = 50;

/// The inbox of one account.
pub struct Inbox {
    receiver: Receiver,
    store: AccountStore,
    queues: Vec<OwnQueue>,
    net: Net,
    identity: Identity,
    clock: Clock,
}

/// A queue of the account with the key that opens it.
pub(super) struct OwnQueue {
    pub(super) name: Queue,
    key: MessagingKey,
}

/// The queue of one messaging key at one mediator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The mediator.
    pub mediator: MediatorDid,
    /// The did:peer of the key.
    pub peer: String,
    /// Whether others write to this key now. Queues of replaced keys are read until the keys expire.
    pub is_current: bool,
}

/// What an inbox shows to its caller.
#[derive(Debug)]
pub enum Event {
    /// A message or a report. Every one of them is on disk.
    Received(Box<Received>),
    /// A damaged file of the wallet that stood in the place of a message. It was renamed to this
    /// path.
    SetAside(PathBuf),
    /// A stored message that cannot be read, and is left out of the history.
    Unreadable(WalletError),
    /// A queue that cannot be read now. [`Inbox::follow`] tries again.
    Unavailable {
        /// The queue.
        queue: Queue,
        /// The error of its mediator.
        error: MailError,
    },
    /// All waiting mail of a queue was shown, and [`Inbox::follow`] waits for more.
    Waiting {
        /// The queue.
        queue: Queue,
        /// Whether the queue was unavailable before.
        again: bool,
    },
}

/// Errors of reading an inbox.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// No mediator handed mail over: the error of the last one.
    #[error("{0}")]
    Mediator(#[from] MailError),
    /// The wallet cannot be read or written. What was not saved stays in its queue.
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

/// The caller's end of an inbox, and how much mail it still takes.
pub(super) struct Reader<S> {
    sink: S,
    /// Mail that is still to be shown; `None` without a limit.
    left: Option<u64>,
    /// Number of new messages.
    new: u64,
    /// Whether the caller asked for an end.
    is_closed: bool,
}

impl<S: AsyncFnMut(Event) -> ControlFlow<()>> Reader<S> {
    pub(super) fn new(sink: S, limit: Option<u64>) -> Self {
        Self {
            sink,
            left: limit,
            new: 0,
            is_closed: false,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_closed || self.left == Some(0)
    }

    /// Shows an event. Returns whether the caller goes on.
    pub(super) async fn show(&mut self, event: Event) -> bool {
        let flow = (self.sink)(event).await;
        self.is_closed |= flow.is_break();
        flow.is_continue()
    }

    /// Shows a message that is saved. Returns whether the caller goes on.
    async fn show_processed(&mut self, processed: Processed) -> bool {
        let warned = match processed.set_aside {
            Some(path) => self.show(Event::SetAside(path)).await,
            None => true,
        };
        let received = processed.received;
        if matches!(received, Received::Ignored) {
            return warned;
        }
        self.new += u64::from(received.is_new_message());
        if received.is_mail() {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        self.show(Event::Received(Box::new(received))).await && warned
    }
}

impl Inbox {
    /// Returns the inbox of the account of `enrolment`. Dials nothing.
    pub fn new(
        net: &Net,
        identity: &Identity,
        clock: &Clock,
        store: &AccountStore,
        enrolment: &Enrolment,
        receiver: Receiver,
    ) -> Self {
        Self {
            queues: queues(enrolment, clock),
            receiver,
            store: store.clone(),
            net: net.clone(),
            identity: identity.clone(),
            clock: clock.clone(),
        }
    }

    /// Fetches the mail that waits in every queue, one queue after the other, and shows at most
    /// `limit` messages to `sink`. What `sink` is shown is on disk. What it has been shown is
    /// acknowledged, also where it asks for an end by [`ControlFlow::Break`]; mail beyond that, or
    /// beyond the limit, stays in its queue.
    ///
    /// A queue of a replaced key that cannot be read is passed over; one of the current key is an
    /// [`Event::Unavailable`], and an error where no queue could be read.
    pub async fn drain(
        &self,
        limit: Option<u64>,
        sink: impl AsyncFnMut(Event) -> ControlFlow<()>,
    ) -> Result<(), InboxError> {
        let mut reader = Reader::new(sink, limit);
        let mut is_read = false;
        let mut last = None;
        for queue in &self.queues {
            if reader.is_done() {
                break;
            }
            match self.fetch_queue(queue, &mut reader).await {
                Ok(()) => is_read = true,
                Err(InboxError::Mediator(error)) if queue.name.is_current => {
                    let event = Event::Unavailable {
                        queue: queue.name.clone(),
                        error: error.clone(),
                    };
                    reader.show(event).await;
                    last = Some(error);
                }
                Err(InboxError::Mediator(_)) => {}
                Err(error) => return Err(error),
            }
        }
        match last {
            Some(error) if !is_read => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn fetch_queue<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        queue: &OwnQueue,
        reader: &mut Reader<S>,
    ) -> Result<(), InboxError> {
        let client = self.open(queue, Freshness::Cached).await?;
        self.fetch(&client, reader).await
    }

    /// Shows the messages of the outbox that were given up and not shown since. One is deleted once
    /// `sink` goes on after it.
    pub async fn undeliverable(
        &self,
        sink: impl AsyncFnMut(Event) -> ControlFlow<()>,
    ) -> Result<(), WalletError> {
        let mut reader = Reader::new(sink, None);
        for sent in self.receiver.given_up()? {
            let shown = self.show(&mut reader, Received::given_up(sent).into());
            if !shown.await? {
                break;
            }
        }
        Ok(())
    }

    /// Shows the mail that is stored, or the `newest` of it, in the order in which it came. Where
    /// a sender could not be verified, or the attribution may have changed since, the sender is
    /// looked up again.
    pub async fn history(
        &self,
        newest: Option<usize>,
        sink: impl AsyncFnMut(Event) -> ControlFlow<()>,
    ) -> Result<(), WalletError> {
        let mut reader = Reader::new(sink, None);
        let mut adverse = MAX_ADVERSE_LOOKUPS;
        for item in self.store.received(newest)? {
            let event = match item {
                Ok(StoredItem::Message(stored)) => self.again(*stored, &mut adverse).await?.into(),
                Ok(StoredItem::Undecryptable(undecryptable)) => {
                    Received::Undecryptable { undecryptable }.into()
                }
                // The others are shown all the same.
                Err(error) => Event::Unreadable(error),
            };
            if !reader.show(event).await {
                break;
            }
        }
        Ok(())
    }

    /// Reads a stored message, with its attribution of now.
    async fn again(
        &self,
        stored: StoredMessage,
        adverse: &mut u32,
    ) -> Result<Received, WalletError> {
        // A file of another version may hold an attribution that cannot be read: nothing is shown
        // of its sender.
        let attribution = serde_json::from_value::<Attribution>(stored.attribution.clone())
            .unwrap_or(Attribution::Anonymous);
        let message = Message::parse(stored.message.as_bytes());
        let Ok(Ok(dm)) = message.map(|message| message.body_of::<Dm>()) else {
            return Ok(Received::Other {
                stored,
                attribution,
                why: "it cannot be shown".to_owned(),
            });
        };
        let age = self.clock.now().since(stored.received_at);
        let attribution = if may_have_changed(&attribution, age, adverse) {
            self.receiver.attribute_again(&stored, &dm).await?
        } else {
            attribution
        };
        Ok(Received::Message {
            stored,
            dm,
            attribution,
        })
    }

    /// Takes all mail that waits in one queue.
    pub(super) async fn fetch<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        client: &MediatorClient,
        reader: &mut Reader<S>,
    ) -> Result<(), InboxError> {
        let mut before: Vec<String> = Vec::new();
        let mut stale = 0;
        while !reader.is_done() {
            let limit = reader.left.unwrap_or(DELIVERY_BATCH).min(DELIVERY_BATCH);
            let mail = client.fetch(limit).await?;
            if mail.is_empty() {
                break;
            }
            if mail.iter().all(|one| before.contains(&one.id)) {
                return Err(MailError::NotOurs(ForeignAnswer::Repeated).into());
            }
            let new = reader.new;
            before = self.take(client, &mail, reader).await?;
            stale = if reader.new == new { stale + 1 } else { 0 };
            if stale >= MAX_STALE_DELIVERIES {
                let why = ForeignAnswer::NothingNew {
                    deliveries: MAX_STALE_DELIVERIES,
                };
                return Err(MailError::NotOurs(why).into());
            }
        }
        Ok(())
    }

    /// Saves and shows each message, and then acknowledges those that were saved. Returns their
    /// ids.
    pub(super) async fn take<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        client: &MediatorClient,
        mail: &[Mail],
        reader: &mut Reader<S>,
    ) -> Result<Vec<String>, InboxError> {
        let mut saved = Vec::new();
        let mut failed = None;
        for one in mail {
            if reader.is_done() {
                break;
            }
            let processed = match self.receiver.process(client, one).await {
                Ok(processed) => processed,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            saved.push(one.id.clone());
            if let Err(error) = self.show(reader, processed).await {
                failed = Some(error);
                break;
            }
        }
        // Whatever went wrong after a message was saved, it is saved.
        let acknowledged = client.acknowledge(&saved).await;
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(acknowledged.map(|()| saved)?),
        }
    }

    /// Shows what was saved. A message of the outbox that was given up is deleted once the caller
    /// goes on after it.
    async fn show<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        reader: &mut Reader<S>,
        processed: Processed,
    ) -> Result<bool, WalletError> {
        let given_up = processed.received.id_given_up();
        let goes_on = reader.show_processed(processed).await;
        if goes_on && let Some(id) = given_up {
            self.receiver.mark_reported(&id)?;
        }
        Ok(goes_on)
    }

    pub(super) fn queues(&self) -> &[OwnQueue] {
        &self.queues
    }

    pub(super) async fn open(
        &self,
        queue: &OwnQueue,
        freshness: Freshness,
    ) -> Result<MediatorClient, MailError> {
        let OwnQueue { name, key } = queue;
        let (net, identity, clock) = (&self.net, &self.identity, &self.clock);
        MediatorClient::open(net, identity, clock, &name.mediator, key, freshness).await
    }
}

impl From<Received> for Event {
    fn from(received: Received) -> Self {
        Self::Received(Box::new(received))
    }
}

/// Returns every queue that can hold mail for the account: also those of replaced keys, the oldest
/// first. Mail to a key that has expired is left to expire there.
fn queues(enrolment: &Enrolment, clock: &Clock) -> Vec<OwnQueue> {
    let now = clock.now();
    let current = enrolment.current().map(|key| &key.peer);
    let mut found: Vec<OwnQueue> = Vec::new();
    for key in enrolment.keys.iter().rev().filter(|key| key.reads(now)) {
        let is_current = current == Some(&key.peer);
        // Where an enrolment was interrupted, the key may be registered all the same.
        let named = is_current.then_some(&enrolment.mediators);
        for mediator in named.into_iter().flatten().chain(&key.registered) {
            let name = Queue {
                mediator: mediator.clone(),
                peer: key.peer.as_str().to_owned(),
                is_current,
            };
            if !found.iter().any(|queue| queue.name == name) {
                let key = key.clone();
                found.push(OwnQueue { name, key });
            }
        }
    }
    found
}

/// Whether looking up the sender of a message of this age can lead to another attribution. A key
/// that was replaced a minute before the message came may have looked like fraud; after
/// [`PREVIOUS_KEY_GRACE`] no look-up clears it any more. `adverse` counts down the look-ups of that
/// kind.
fn may_have_changed(attribution: &Attribution, age: Duration, adverse: &mut u32) -> bool {
    match attribution {
        Attribution::Unverified { reason, .. } => reason.may_pass(),
        found if found.is_adverse() && age <= PREVIOUS_KEY_GRACE && *adverse > 0 => {
            *adverse -= 1;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
