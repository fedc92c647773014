//! The client library: stores messaging keys, publishes them, looks up and verifies recipients, and
//! sends and receives messages. Neither directory nor mediator is trusted.

pub mod account;
pub mod contacts;
pub mod diagnose;
pub mod enrolment;
pub mod lookup;
pub mod mediator;
pub mod messaging;
mod settings;
pub mod wallet;

#[cfg(test)]
mod testing;

pub use account::{Account, Client, LookupError, OpenError, Settings};
pub use atcomm_proto::syntax::{Actor, Did, Handle, MediatorDid, Origin};
pub use atcomm_proto::verify::attribution::{
    AccountState, Attribution, Claim, PREVIOUS_KEY_GRACE, UnverifiedReason, attribute,
};
pub use atcomm_proto::verify::fingerprint::fingerprint;
pub use atcomm_proto::verify::pin::{Changed, MAX_KNOWN_AS, Pin, Previous};
pub use atcomm_proto::verify::pinning::KeyChange;
pub use atcomm_proto::verify::{evidence, succession};
pub use contacts::{Acceptance, accept};
pub use enrolment::account::{AccountClient, AccountError, PdsFault, Published};
pub use enrolment::enroll::{
    EnrolError, Enroller, Located, Operation, Outcome, Plan, PublishedState, Step, Unenrolled,
    mediator_did,
};
pub use lookup::authoritative::{AccountIdentityError, IdentityOutage, proven_document};
pub use lookup::directory::{
    Change, DirectoryClient, DirectoryError, DirectoryFault, Refreshed, View,
};
pub use lookup::outcome::{AnswerFault, NoAnswer, Recipient, RecipientError, Source, Warning};
pub use lookup::recipient::RecipientLookup;
pub use lookup::sender::{Attributed, SenderLookup};
pub use lookup::trust::{Consent, SendBlocker, Trust, Unconfirmed};
pub use mediator::client::{
    ForeignAnswer, Mail, MailError, MediatorClient, MediatorDefect, MediatorOutage, document,
};
pub use mediator::live::Live;
pub use mediator::route::{MAX_ROUTING_KEYS, Others, Route, RouteError};
pub use messaging::attempt::{DeliveryPath, PathFailure, delivery_paths};
pub use messaging::compose::ComposeError;
pub use messaging::inbox::{Event, Inbox, InboxError, Queue};
pub use messaging::outbox::{
    Attempt, AttemptState, GivenUp, ReportOutcome, SENT_RETENTION, SentMessage, UndeliverableReport,
};
pub use messaging::receive::{NextStep, Processed, Received, Receiver};
pub use messaging::self_test::{SelfTestError, self_test};
pub use messaging::send::{Delivery, DeliveryOutcome, EncryptionError, SendError, Sender};
pub use messaging::{dm, embed, unpack, wrap};
pub use settings::ClientSettings;
pub use wallet::enrolment::{Enrolment, KeyState, MessagingKey, REPLACED_KEY_RETENTION};
pub use wallet::error::{Damage, WalletError};
pub use wallet::file::Saved;
pub use wallet::messages::{StoredItem, StoredMessage};
pub use wallet::session::Session;
pub use wallet::undecryptable::Undecryptable;
pub use wallet::{AccountStore, Wallet, backup};
