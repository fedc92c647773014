//! The client library: stores messaging keys, publishes them, looks up and verifies recipients, and
//! sends and receives messages. Neither directory nor mediator is trusted.
//!
//! A program opens an [`Account`] of a wallet. The account looks a [`Recipient`] up, composes and
//! sends with a [`Sender`], and reads with an [`Inbox`]: `examples/` has three whole programs.
//!
//! # What is promised
//!
//! Nothing is given up before it is fetched. The client keeps a message, then shows it, then
//! acknowledges it: what could not be kept stays at its mediator, and what was kept and could not be
//! shown is shown by the next reader of the [`Inbox`]. A mediator that the account's record stops
//! naming, and the mediators of a replaced key, are asked for
//! [`DROPPED_MEDIATOR_RETENTION`] more, and left only where nothing waits.
//!
//! # Modules by rank
//!
//! A module imports only modules of lower rank (`tests/structure` of the program checks).
//!
//! | rank | module | holds |
//! |---|---|---|
//! | 0 | [`wallet`] | what is on disk: keys, contacts, messages, sessions, backups |
//! | 1 | [`lookup`], [`mediator`] | recipients and senders found and verified; requests to one mediator |
//! | 2 | [`messaging`], [`contacts`] | a message's life: composed, wrapped, sent, received; keys accepted |
//! | 3 | [`account`] | the wiring of an account at work |
//! | 4 | [`enrolment`] | publishing, replacing and deleting a key package |
//! | 5 | [`diagnose`] | what is wrong with an account |

// 0
mod settings;
pub mod wallet;
// 1
pub mod lookup;
pub mod mediator;
// 2
pub mod contacts;
pub mod messaging;
// 3
pub mod account;
// 4
pub mod enrolment;
// 5
pub mod diagnose;

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
pub use enrolment::elsewhere::published_now;
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
pub use messaging::inbox::{Event, Fetched, Inbox, InboxError, Queue};
pub use messaging::outbox::{
    Attempt, AttemptState, GivenUp, ReportOutcome, SENT_RETENTION, SentMessage, UndeliverableReport,
};
pub use messaging::receive::{NextStep, Processed, Received, Receiver};
pub use messaging::self_test::{SelfTestError, self_test};
pub use messaging::send::{Delivery, DeliveryOutcome, EncryptionError, SendError, Sender};
pub use messaging::{dm, embed, unpack, wrap};
pub use settings::ClientSettings;
pub use wallet::enrolment::{
    DROPPED_MEDIATOR_RETENTION, DroppedMediator, Enrolment, KeyState, MessagingKey,
    REPLACED_KEY_RETENTION,
};
pub use wallet::error::{Damage, WalletError};
pub use wallet::file::Saved;
pub use wallet::mark::ShowMark;
pub use wallet::messages::{Cut, StoredItem, StoredMessage};
pub use wallet::session::Session;
pub use wallet::undecryptable::Undecryptable;
pub use wallet::{AccountStore, Wallet, backup};
