//! The rows of `mailbox.db`, as values. DIDs of recipients, accounts and destinations are in
//! canonical form; hashes are sha-256 of the body, made by the caller.

use super::super::columns::words;
use super::fair_share::Sender;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, RemoteText};

/// A DID that was granted mediation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Set by the store; never used twice.
    pub id: i64,
    /// Canonical DID.
    pub did: String,
    /// The DID that its keys are read from: the long form of a did:peer:4, else the same.
    pub long: String,
    /// When mediation was granted.
    pub granted_at: Timestamp,
    /// End of a grant that nothing has confirmed yet; `None`: granted for good.
    pub provisional_until: Option<Timestamp>,
    /// The group of addresses that asked for it, while the grant is provisional.
    pub address_group: Option<[u8; 16]>,
    /// Last request, to the minute.
    pub seen_at: Timestamp,
    /// Whether the account has sent a change with its time. [`super::Tx::put_account`] leaves it.
    pub dates_changes: bool,
}

/// A DID that mail is addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Set by the store; never used twice.
    pub id: i64,
    /// Canonical DID.
    pub did: String,
    /// The account that reads its mail.
    pub account: Option<i64>,
    /// When the account removed its own DID; `None`: the queue takes mail.
    pub closed_at: Option<Timestamp>,
    /// Messages stored, including delayed and expired ones.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// The account that reads a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// Id of the account.
    pub account: i64,
    /// Whether the account has removed its own DID, which is the DID of the queue.
    pub is_closed: bool,
    /// The account's last request, to the minute.
    pub seen_at: Timestamp,
}

words! {
    /// The state of a key package's claim on a DID with this mediator.
    ClaimState {
        /// The package names the DID.
        Current = "current",
        /// The package names another DID now.
        Replaced = "replaced",
        /// The package, or this mediator in it, was removed.
        Dropped = "dropped",
        /// The atproto account is not active.
        Inactive = "inactive",
    }
}

/// A statement in the key package of an atproto account: its mail for this DID is at this mediator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The atproto account.
    pub account: Did,
    /// The DID in its key package, canonical.
    pub peer: String,
    /// Whether the package still makes it.
    pub state: ClaimState,
    /// Start of the state.
    pub since: Timestamp,
}

/// A selection of recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queue {
    /// All recipients bound to the account with this id.
    Account(i64),
    /// The recipient with this id.
    Recipient(i64),
}

/// The size of a queue, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSize {
    /// The DID that the mail is addressed to.
    pub did: String,
    /// Whether an account is registered that reads it.
    pub is_registered: bool,
    /// Some of the atproto accounts whose key packages claim the DID.
    pub claimants: Vec<Did>,
    /// Messages stored.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// When the oldest of them was stored.
    pub oldest: Option<Timestamp>,
}

/// A queued message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Id in the order of arrival.
    pub id: i64,
    /// The recipient's DID.
    pub recipient: String,
    /// sha-256 of the body.
    pub hash: [u8; 32],
    /// The bytes as received.
    pub body: Vec<u8>,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// The size of a queue's deliverable part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStatus {
    /// Number of messages.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// When the oldest of them was stored.
    pub oldest: Option<Timestamp>,
    /// When the newest of them was stored.
    pub newest: Option<Timestamp>,
}

/// A message to be stored.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// Id of its recipient.
    pub recipient: i64,
    /// sha-256 of the body.
    pub hash: [u8; 32],
    /// The bytes to deliver.
    pub body: &'a [u8],
    /// The current time.
    pub now: Timestamp,
    /// Start of delivery; `now` for most.
    pub available_at: Timestamp,
    /// End of delivery.
    pub expires_at: Timestamp,
    /// The parties that its sender is; it is charged to the first whose share has room.
    pub senders: &'a [Sender],
}

/// What a message takes on the disk besides its body: its row, its index entries and its part of
/// the counters.
pub const MESSAGE_OVERHEAD: u64 = 256;

/// The part of its quota that a queue has whose reader was not here lately: one of so many.
pub(super) const QUIET_PART: u64 = 4;

/// Upper bounds for a push, which may be reached. Bytes include [`MESSAGE_OVERHEAD`] for each
/// message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Messages of the recipient.
    pub messages: u64,
    /// Bytes of the recipient.
    pub bytes: u64,
    /// Bytes of all recipients.
    pub total_bytes: u64,
    /// A recipient whose reader was not here since then has a quarter of these.
    pub seen_since: Timestamp,
}

/// Result of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The message is queued, under this id.
    Stored(i64),
    /// The same bytes are queued for this recipient already.
    Duplicate,
    /// The message exceeds the recipient's quota, or its sender's share of it.
    RecipientFull,
    /// The message exceeds the quota of all recipients.
    StoreFull,
    /// The recipient does not exist (any more): open its queue and push again.
    Gone,
}

/// Result of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The recipient is bound to the account now.
    New,
    /// The recipient was bound to the account before.
    Already,
    /// The recipient is bound to the account with this id.
    Taken(i64),
}

/// A message for another mediator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Set by the store.
    pub id: i64,
    /// DID of the mediator.
    pub destination: String,
    /// The way to the destination, as the relay worker writes it.
    pub route: String,
    /// sha-256 of the body.
    pub hash: [u8; 32],
    /// The bytes to send.
    pub body: Vec<u8>,
    /// The DID to notify when the message is given up.
    pub sender: Option<String>,
    /// The thread of that notification.
    pub thread: Option<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// Earliest time of the next attempt.
    pub next_at: Timestamp,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When the message is given up.
    pub expires_at: Timestamp,
}

/// A message for another mediator, to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewOutbound<'a> {
    /// DID of the mediator.
    pub destination: &'a str,
    /// The way to the destination, as the relay worker writes it.
    pub route: &'a str,
    /// sha-256 of the body.
    pub hash: [u8; 32],
    /// The bytes to send.
    pub body: &'a [u8],
    /// The DID to notify when the message is given up.
    pub sender: Option<&'a str>,
    /// The thread of that notification.
    pub thread: Option<&'a str>,
    /// The current time.
    pub now: Timestamp,
    /// Earliest time of the first attempt; `now` for most.
    pub next_at: Timestamp,
    /// When the message is given up.
    pub expires_at: Timestamp,
    /// The domain that the destination shares with others of its owner.
    pub domain: &'a str,
    /// The parties that its sender is; it is charged to the first whose share has room.
    pub senders: &'a [Sender],
}

impl NewOutbound<'_> {
    /// Returns the bytes of what is stored besides the body.
    pub(super) fn extra(&self) -> u64 {
        let texts = [Some(self.route), self.sender, self.thread];
        texts
            .into_iter()
            .flatten()
            .map(|text| text.len() as u64)
            .sum()
    }
}

/// What a message in the outbox takes on the disk besides its body and texts: its row, its index
/// entries and its part of the counters.
pub const OUTBOUND_OVERHEAD: u64 = 768;

/// Upper bounds for a push to the outbox, which may be reached. Bytes are those of a message with
/// its route, sender and thread, and [`OUTBOUND_OVERHEAD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxQuota {
    /// Messages for one destination.
    pub per_destination_messages: u64,
    /// Bytes for one destination.
    pub per_destination_bytes: u64,
    /// Messages for all destinations.
    pub total_messages: u64,
    /// Bytes for all destinations.
    pub total_bytes: u64,
    /// Destinations that messages wait for.
    pub destinations: u64,
}

/// Result of a push to the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutPushed {
    /// The message is queued, under this id.
    Stored(i64),
    /// The same bytes are queued for this destination already.
    Duplicate,
    /// The message exceeds the destination's quota, or its sender's share of it.
    DestinationFull,
    /// The message exceeds the quota of all destinations, or the share of its sender or of the
    /// destination's domain.
    StoreFull,
}

/// The end of an outbound message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The destination accepted it.
    Delivered,
    /// The destination refused it for good.
    Refused,
    /// It could not be delivered in time.
    GivenUp,
}

/// A destination's queue, and the outcomes of its deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOutcome {
    /// DID of the mediator.
    pub destination: String,
    /// Messages queued.
    pub waiting: u64,
    /// Bytes of their bodies, routes, senders and threads.
    pub waiting_bytes: u64,
    /// Messages accepted.
    pub delivered: u64,
    /// Failed attempts that were deferred.
    pub failed: u64,
    /// Messages refused for good.
    pub refused: u64,
    /// Messages given up.
    pub given_up: u64,
    /// The last failure.
    pub last_error: Option<RemoteText>,
    /// The last attempt.
    pub last_at: Option<Timestamp>,
}

/// The kind of a request. Requests of each kind are remembered apart, so that a flood of one kind
/// does not let another be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayKind {
    /// It changes something.
    Write,
    /// It only reads.
    Read,
}
