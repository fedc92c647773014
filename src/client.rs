//! The client: a wallet of messaging keys, and what it takes to publish them, to find others, to
//! write and to read, believing nobody in between.

pub mod account;
mod enrolment;
mod pin;
mod session;
mod settings;
pub mod wallet;

pub use account::{AccountClient, AccountError, Published};
pub use enrolment::{Enrolment, GRACE, KeyState, MessagingKey};
pub use pin::{Changed, Pin, Previous};
pub use session::Session;
pub use settings::ClientSettings;
pub use wallet::{Drawer, Kept, Wallet, WalletError};
