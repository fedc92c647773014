//! The inbox of an account: every queue that can hold mail for it, fetched once or followed.
//!
//! A message is saved in the wallet, then shown to the caller, and only then acknowledged to its
//! mediator, which deletes it. A message that could not be saved stays in its queue. A message that
//! was saved and not shown, because the caller could not show it or the process ended in between, is
//! shown first by the next reader; at its mediator it is a [`Received::Duplicate`] then.

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

/// Most messages that one call of [`Inbox::keep`] fetches: two full queues of a mediator.
pub const MAX_KEPT: u64 = 10_000;

/// Most messages per call of [`Inbox::history`] whose attribution spoke against their sender and is
/// looked up again.
const MAX_ADVERSE_LOOKUPS: u32 = 50;

/// The inbox of one account.
pub struct Inbox {
    receiver: Receiver,
    pub(super) store: AccountStore,
    queues: Vec<OwnQueue>,
    net: Net,
    identity: Identity,
    pub(super) clock: Clock,
}

/// A queue of the account with the key that opens it.
pub(super) struct OwnQueue {
    pub(super) name: Queue,
    pub(super) key: MessagingKey,
}

/// The queue of one messaging key at one mediator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The mediator.
    pub mediator: MediatorDid,
    /// The did:peer of the key.
    pub peer: String,
    /// Whether others write to this key by this mediator now. Queues of replaced keys are read until
    /// the keys expire, and those of mediators that the record does not name any more for as long.
    pub is_current: bool,
}

/// What [`Inbox::keep`] has fetched.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Number of messages that were not in the wallet before.
    pub messages: u64,
    /// The mediators of queues that could not be read, with their errors.
    pub failed: Vec<(MediatorDid, MailError)>,
}

/// What an inbox shows to its caller.
#[derive(Debug)]
pub enum Event {
    /// A message or a report. Every one of them is on disk.
    Received(Box<Received>),
    /// A damaged file of the wallet that stood in the place of a message. It was renamed to this
    /// path.
    SetAside(PathBuf),
    /// So many older messages of senders that nothing proves were deleted to make room.
    Evicted(u64),
    /// A stored message that cannot be read, and is left out of the history.
    Unreadable(WalletError),
    /// A queue whose mediator has been told to accept no more mail, since the time is over for which
    /// it is asked, and nothing waits there.
    Left(Queue),
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
    /// Whether messages are only saved, for a later reader to show.
    only_keeps: bool,
    /// Whether the caller asked for an end.
    is_closed: bool,
}

impl<S: AsyncFnMut(Event) -> ControlFlow<()>> Reader<S> {
    pub(super) fn new(sink: S, limit: Option<u64>) -> Self {
        Self {
            sink,
            left: limit,
            new: 0,
            only_keeps: false,
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

    /// Shows a message that is saved. Returns whether the caller has taken it.
    async fn show_processed(&mut self, processed: Processed) -> bool {
        let Processed {
            received,
            set_aside,
            evicted,
            mark,
        } = processed;
        if let Some(path) = set_aside {
            self.show(Event::SetAside(path)).await;
        }
        if evicted > 0 {
            self.show(Event::Evicted(evicted)).await;
        }
        if matches!(received, Received::Ignored) {
            return !self.is_closed;
        }
        self.new += u64::from(received.is_new_message());
        if received.is_mail() {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        if self.only_keeps && mark.is_some() {
            // The mark stays, and a later reader shows the message.
            return true;
        }
        let is_taken = !self.is_closed && self.show(Event::Received(Box::new(received))).await;
        if is_taken && let Some(mark) = mark {
            mark.shown();
        }
        is_taken
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

    /// Shows the mail that was kept and not shown, fetches the mail that waits in every queue, one
    /// queue after the other, and shows at most `limit` messages to `sink`. What `sink` is shown is
    /// on disk. What it has taken, by [`ControlFlow::Continue`], is acknowledged. What it has not
    /// taken, by [`ControlFlow::Break`], is shown again another time, and nothing more is shown now;
    /// mail beyond that, or beyond the limit, stays in its queue.
    ///
    /// A queue that cannot be read is an [`Event::Unavailable`], and an error where no queue could be
    /// read. A mediator that others do not write to any more and that refuses is passed over.
    pub async fn drain(
        &self,
        limit: Option<u64>,
        sink: impl AsyncFnMut(Event) -> ControlFlow<()>,
    ) -> Result<(), InboxError> {
        let mut reader = Reader::new(sink, limit);
        self.show_unshown(&mut reader).await?;
        self.drain_queues(&mut reader).await?;
        if !reader.is_done() {
            self.leave_expired().await;
        }
        Ok(())
    }

    /// Fetches the mail that waits in every queue, up to [`MAX_KEPT`] messages, and shows none of
    /// it: the next reader does.
    pub async fn keep(&self) -> Result<Fetched, WalletError> {
        let mut failed = Vec::new();
        let sink = async |event| {
            if let Event::Unavailable { queue, error } = event {
                failed.push((queue.mediator, error));
            }
            ControlFlow::Continue(())
        };
        let mut reader = Reader::new(sink, Some(MAX_KEPT));
        reader.only_keeps = true;
        let drained = self.drain_queues(&mut reader).await;
        let messages = reader.new;
        match drained {
            // Each queue that could not be read was shown.
            Ok(()) | Err(InboxError::Mediator(_)) => Ok(Fetched { messages, failed }),
            Err(InboxError::Wallet(error)) => Err(error),
        }
    }

    async fn drain_queues<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        reader: &mut Reader<S>,
    ) -> Result<(), InboxError> {
        let mut is_read = false;
        let mut last = None;
        for queue in &self.queues {
            if reader.is_done() {
                break;
            }
            match self.fetch_queue(queue, reader).await {
                Ok(()) => is_read = true,
                Err(InboxError::Mediator(error)) => {
                    if queue.name.is_current || error.is_transient() {
                        let event = Event::Unavailable {
                            queue: queue.name.clone(),
                            error: error.clone(),
                        };
                        reader.show(event).await;
                    }
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match last {
            Some(error) if !is_read => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether there is a queue to fetch mail from.
    pub fn has_queues(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Shows the mail that was kept and not shown by an earlier reader.
    pub(super) async fn show_unshown<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        reader: &mut Reader<S>,
    ) -> Result<(), WalletError> {
        let mut adverse = MAX_ADVERSE_LOOKUPS;
        for unshown in self.store.unshown()? {
            if reader.is_done() {
                break;
            }
            let (item, mark) = unshown?;
            let (event, is_mail) = match self.event_of(item, &mut adverse).await? {
                Event::Received(received) => {
                    let is_mail = received.is_mail();
                    (Event::Received(received), is_mail)
                }
                event => (event, false),
            };
            if !reader.show(event).await {
                break;
            }
            mark.shown();
            reader.left = reader.left.map(|left| left.saturating_sub(is_mail.into()));
        }
        Ok(())
    }

    async fn fetch_queue<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        queue: &OwnQueue,
        reader: &mut Reader<S>,
    ) -> Result<(), InboxError> {
        let client = self.open(queue, Freshness::Cached).await?;
        self.fetch(&client, reader).await?;
        self.leave_shown(queue, &client, reader).await?;
        Ok(())
    }

    /// Leaves the mediator of a queue whose mail was fetched, if it is time, and shows that. Returns
    /// whether it was left. A mediator that fails is left another time.
    pub(super) async fn leave_shown<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        queue: &OwnQueue,
        client: &MediatorClient,
        reader: &mut Reader<S>,
    ) -> Result<bool, InboxError> {
        if reader.is_done() {
            return Ok(false);
        }
        match self.leave(queue, client).await {
            Ok(true) => {
                reader.show(Event::Left(queue.name.clone())).await;
                Ok(true)
            }
            Ok(false) | Err(InboxError::Mediator(_)) => Ok(false),
            Err(error) => Err(error),
        }
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
        for (item, file) in self.store.received_files(newest)? {
            let event = self.event_of(item, &mut adverse).await?;
            if !reader.show(event).await {
                break;
            }
            self.store.mark_shown(&file);
        }
        Ok(())
    }

    /// Returns what is shown of an item of the wallet.
    async fn event_of(
        &self,
        item: Result<StoredItem, WalletError>,
        adverse: &mut u32,
    ) -> Result<Event, WalletError> {
        Ok(match item {
            Ok(StoredItem::Message(stored)) => self.again(*stored, adverse).await?.into(),
            Ok(StoredItem::Undecryptable(undecryptable)) => {
                Received::Undecryptable { undecryptable }.into()
            }
            // The others are shown all the same.
            Err(error) => Event::Unreadable(error),
        })
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
            let why = match &stored.cut {
                Some(cut) => format!("it cannot be shown; {cut}"),
                None => "it cannot be shown".to_owned(),
            };
            return Ok(Received::Other {
                stored,
                attribution,
                why,
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
            let mail = match client.fetch(limit).await {
                // The run that was to register was interrupted, and the record was there already.
                Err(error) if error.is_about_unknown_key() => {
                    client.introduce(self.store.account()).await?;
                    client.fetch(limit).await?
                }
                mail => mail?,
            };
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

    /// Saves and shows each message, and then acknowledges those that the caller has taken. Returns
    /// their ids.
    pub(super) async fn take<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        client: &MediatorClient,
        mail: &[Mail],
        reader: &mut Reader<S>,
    ) -> Result<Vec<String>, InboxError> {
        let mut taken = Vec::new();
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
            match self.show(reader, processed).await {
                Ok(true) => taken.push(one.id.clone()),
                // It comes again, and was kept.
                Ok(false) => break,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        // Whatever went wrong after a message was taken, it was taken.
        let acknowledged = client.acknowledge(&taken).await;
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(acknowledged.map(|()| taken)?),
        }
    }

    /// Shows what was saved, and returns whether the caller has taken it. A message of the outbox
    /// that was given up is deleted then.
    async fn show<S: AsyncFnMut(Event) -> ControlFlow<()>>(
        &self,
        reader: &mut Reader<S>,
        processed: Processed,
    ) -> Result<bool, WalletError> {
        let given_up = processed.received.id_given_up();
        let is_taken = reader.show_processed(processed).await;
        if is_taken && let Some(id) = given_up {
            self.receiver.mark_reported(&id)?;
        }
        Ok(is_taken)
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
/// first, and last those of mediators that the account does not name any more. Mail to a key that has
/// expired is left to expire there.
fn queues(enrolment: &Enrolment, clock: &Clock) -> Vec<OwnQueue> {
    let now = clock.now();
    let current = enrolment.current().map(|key| &key.peer);
    let mut found: Vec<OwnQueue> = Vec::new();
    for key in enrolment.keys.iter().rev().filter(|key| key.reads(now)) {
        let is_current = |did| current == Some(&key.peer) && enrolment.names(key, did);
        found.extend(enrolment.holders(key).into_iter().map(|mediator| OwnQueue {
            name: Queue {
                mediator: mediator.clone(),
                peer: key.peer.as_str().to_owned(),
                is_current: is_current(mediator),
            },
            key: key.clone(),
        }));
    }
    // A mediator of before may be gone for good and keep its caller waiting.
    found.sort_by_key(|queue| !enrolment.mediators.contains(&queue.name.mediator));
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
