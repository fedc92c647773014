//! The client library: stores messaging keys, publishes them, looks up and verifies recipients, and
//! sends and receives messages. Neither directory nor mediator is trusted.

pub mod enrolment;
pub mod lookup;
pub mod mediator;
pub mod messaging;
mod settings;
pub mod wallet;

#[cfg(test)]
mod testing;

pub use atcomm_proto::verify::attribution::{
    Attribution, Claim, Doubt, GRACE, Standing, attribute,
};
pub use atcomm_proto::verify::fingerprint::fingerprint;
pub use atcomm_proto::verify::pin::{Changed, MAX_KNOWN_AS, Pin, Previous};
pub use atcomm_proto::verify::pinning::KeyChange;
pub use atcomm_proto::verify::{evidence, succession};
pub use enrolment::account::{AccountClient, AccountError, Published};
pub use enrolment::enroll::{EnrolError, Enroller, Located, Outcome, Plan, Step};
pub use lookup::authoritative::{WhoisError, proven_document};
pub use lookup::directory::{Change, Denial, DirectoryClient, DirectoryError, Refreshed, View};
pub use lookup::outcome::{Hold, RecipientError, Resolved, Shower, Unconfirmed, Warning};
pub use lookup::recipient::Recipients;
pub use lookup::sender::Attributed;
pub use mediator::client::{Mail, MailError, MediatorClient, document};
pub use mediator::live::Live;
pub use mediator::route::{MAX_ROUTING_KEYS, Others, Route, RouteError};
pub use messaging::attempt::{Failure, Way, ways};
pub use messaging::outbox::{Attempt, AttemptState, GivenUp, KEPT, Reported, Sent, Verdict};
pub use messaging::receive::{Next, Received, Receiver, Taken, mediators_of};
pub use messaging::self_test::{ProbeError, round_trip};
pub use messaging::send::{Courier, Handed};
pub use messaging::{dm, embed, open, wrap};
pub use settings::ClientSettings;
pub use wallet::enrolment::{Enrolment, KEEP, KeyState, MessagingKey};
pub use wallet::error::WalletError;
pub use wallet::file::Placed;
pub use wallet::messages::{Kept, Stored};
pub use wallet::session::Session;
pub use wallet::undecryptable::Unopened;
pub use wallet::{Drawer, Wallet, backup};
