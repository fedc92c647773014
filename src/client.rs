//! The client: a wallet of messaging keys, and what it takes to publish them, to find others, to
//! write and to read, believing nobody in between.

pub mod account;
mod attribution;
pub mod backup;
mod continuity;
pub mod delivery;
mod directory;
pub mod dm;
pub mod enrolling;
mod enrolment;
pub mod evidence;
mod fingerprint;
mod firsthand;
mod mail;
pub mod opening;
mod pin;
mod probe;
mod receiving;
mod recipient;
pub mod reference;
mod route;
mod sending;
mod sent;
mod session;
mod settings;
pub mod succession;
#[cfg(test)]
pub(crate) mod testing;
pub mod wallet;

pub use account::{AccountClient, AccountError, Published};
pub use attribution::{Attribution, Claim, Doubt, Standing, attribute};
pub use continuity::KeyChange;
pub use directory::{Change, Denial, DirectoryClient, DirectoryError, Refreshed, View};
pub use enrolling::{EnrolError, Enroller, Located, Outcome, Plan, Step};
pub use enrolment::{Enrolment, GRACE, KEEP, KeyState, MessagingKey};
pub use fingerprint::fingerprint;
pub use firsthand::{WhoisError, proven_document};
pub use mail::{Live, Mail, MailError, MediatorClient, document};
pub use pin::{Changed, MAX_KNOWN_AS, Pin, Previous};
pub use probe::{ProbeError, round_trip};
pub use receiving::{Next, Received, Receiver, Taken, mediators_of};
pub use recipient::{
    Attributed, Hold, RecipientError, Recipients, Resolved, Shower, Unconfirmed, Warning,
};
pub use route::{MAX_ROUTING_KEYS, Others, Route, RouteError};
pub use sending::{Courier, Failure, Handed, Way, ways};
pub use sent::{Attempt, AttemptState, GivenUp, KEPT, Reported, Sent, Verdict};
pub use session::Session;
pub use settings::ClientSettings;
pub use wallet::{Drawer, Kept, Placed, Stored, Unopened, Wallet, WalletError};
