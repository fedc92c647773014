//! The client: a wallet of messaging keys, and what it takes to publish them, to find others, to
//! write and to read, believing nobody in between.

mod attribution;
mod continuity;
mod datetime;
mod directory;
mod enrolment;
pub mod evidence;
mod firsthand;
mod pin;
mod recipient;
mod settings;
pub mod succession;

pub use attribution::{Attribution, Claim, Doubt, Standing, attribute};
pub use continuity::KeyChange;
pub use directory::{Change, Denial, DirectoryClient, DirectoryError, Refreshed, View};
pub use enrolment::{Enrolment, GRACE, KeyState, MessagingKey};
pub use pin::{Changed, Pin, Previous};
pub use recipient::{Attributed, Hold, RecipientError, Recipients, Resolved, Shower, Warning};
pub use settings::ClientSettings;
