//! The client: a wallet of messaging keys, and what it takes to publish them, to find others, to
//! write and to read, believing nobody in between.

mod attribution;
mod datetime;
mod enrolment;
mod pin;
mod settings;
pub mod succession;

pub use attribution::{Attribution, Claim, Doubt, Standing, attribute};
pub use enrolment::{Enrolment, GRACE, KeyState, MessagingKey};
pub use pin::{Changed, Pin, Previous};
pub use settings::ClientSettings;
