//! What the tables of `mailbox.db` hold, as values. DIDs of recipients, accounts and destinations
//! are in canonical form; hashes are sha-256 of the body, made by the caller.

use super::super::columns::words;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Did;

/// A DID that was granted mediation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Set by the store; never used twice.
    pub id: i64,
    /// Canonical DID.
    pub did: String,
    /// The DID from which its keys are read: the long form of a did:peer:4, else the same.
    pub long: String,
    /// When mediation was granted.
    pub granted_at: Timestamp,
    /// Until when a grant stands that nothing has confirmed yet; `None`: granted for good.
    pub provisional_until: Option<Timestamp>,
    /// The addresses that asked for it, while the grant is provisional.
    pub address_group: Option<[u8; 16]>,
    /// Last request, to the minute.
    pub seen_at: Timestamp,
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
    /// Messages stored, those that wait for their time or are past it included.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

words! {
    /// What became of a key package that names a DID with this mediator.
    ClaimState {
        /// It stands.
        Current = "current",
        /// The account names another DID now.
        Replaced = "replaced",
        /// The package, or this mediator in it, is gone.
        Dropped = "dropped",
        /// The account is not active.
        Inactive = "inactive",
    }
}

/// That an account of atproto names, or named, a DID with this mediator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The account of atproto.
    pub account: Did,
    /// The DID in its key package, canonical.
    pub peer: String,
    /// Whether it still does.
    pub state: ClaimState,
    /// Since when the state is this.
    pub since: Timestamp,
}

/// Whose mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Of all recipients bound to the account with this id.
    Account(i64),
    /// Of the recipient with this id.
    Recipient(i64),
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place: later messages have greater ones.
    pub id: i64,
    /// The DID it is addressed to.
    pub recipient: String,
    /// sha-256 of the body.
    pub hash: [u8; 32],
    /// The bytes as they came.
    pub body: Vec<u8>,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What can be delivered of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStatus {
    /// Messages.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// When the first of them was stored.
    pub oldest: Option<Timestamp>,
    /// When the last of them was stored.
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
    /// The time now.
    pub now: Timestamp,
    /// Not to be delivered before; `now` for most.
    pub available_at: Timestamp,
    /// Not to be delivered from then on.
    pub expires_at: Timestamp,
}

/// What may be stored. All are upper bounds that may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Messages of the recipient.
    pub messages: u64,
    /// Bytes of the recipient.
    pub bytes: u64,
    /// Bytes of all recipients.
    pub total_bytes: u64,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits, under this id.
    Stored(i64),
    /// The same bytes wait for this recipient already.
    Duplicate,
    /// The recipient's quota does not take it.
    RecipientFull,
    /// All recipients' quota does not take it.
    StoreFull,
    /// There is no such recipient, or no more: open its queue and push again.
    Gone,
}

/// What became of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The recipient belongs to the account from now on.
    New,
    /// It did before.
    Already,
    /// It belongs to the account with this id.
    Taken(i64),
}

/// A message for another mediator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Set by the store.
    pub id: i64,
    /// DID of the mediator.
    pub destination: String,
    /// How to get there, in the relay worker's own words.
    pub route: String,
    /// sha-256 of the body.
    pub hash: [u8; 32],
    /// The bytes to send.
    pub body: Vec<u8>,
    /// Who is told when it is given up.
    pub sender: Option<String>,
    /// In which thread.
    pub thread: Option<String>,
    /// Attempts so far.
    pub attempts: u32,
    /// Not to be tried before.
    pub next_at: Timestamp,
    /// When it was stored.
    pub created_at: Timestamp,
    /// When it is to be given up.
    pub expires_at: Timestamp,
}

/// A message for another mediator, to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewOutbound<'a> {
    /// DID of the mediator.
    pub destination: &'a str,
    /// How to get there, in the relay worker's own words.
    pub route: &'a str,
    /// sha-256 of the body.
    pub hash: [u8; 32],
    /// The bytes to send.
    pub body: &'a [u8],
    /// Who is told when it is given up.
    pub sender: Option<&'a str>,
    /// In which thread.
    pub thread: Option<&'a str>,
    /// The time now.
    pub now: Timestamp,
    /// Not to be tried before; `now` for most.
    pub next_at: Timestamp,
    /// When it is to be given up.
    pub expires_at: Timestamp,
}

/// What may wait for elsewhere. All are upper bounds that may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxQuota {
    /// Messages for one destination.
    pub per_destination_messages: u64,
    /// Bytes for one destination.
    pub per_destination_bytes: u64,
    /// Bytes for all destinations.
    pub total_bytes: u64,
}

/// What became of a push to the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutPushed {
    /// It waits, under this id.
    Stored(i64),
    /// The same bytes wait for this destination already.
    Duplicate,
    /// The destination's quota does not take it.
    DestinationFull,
    /// All destinations' quota does not take it.
    StoreFull,
}

/// How the time of an outbound message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its destination took it.
    Delivered,
    /// Its destination refused it for good.
    Refused,
    /// It could not be delivered in its time.
    GivenUp,
}

/// What waits for a destination, and how it went there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOutcome {
    /// DID of the mediator.
    pub destination: String,
    /// Messages that wait.
    pub waiting: u64,
    /// Bytes of their bodies.
    pub waiting_bytes: u64,
    /// Messages that it took.
    pub delivered: u64,
    /// Attempts that failed and were put off.
    pub failed: u64,
    /// Messages that it refused for good.
    pub refused: u64,
    /// Messages that were given up.
    pub given_up: u64,
    /// What the last failure was.
    pub last_error: Option<String>,
    /// The last attempt.
    pub last_at: Option<Timestamp>,
}

/// What a request is about. Each kind is remembered by itself, so that one makes no room for
/// another to be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayKind {
    /// It changes something.
    Write,
    /// It only asks.
    Read,
}
