//! The client: a wallet of messaging keys, and what it takes to publish them, to find others, to
//! write and to read, believing nobody in between.

mod enrolment;
mod mail;
mod pin;
mod route;
mod settings;

pub use enrolment::{Enrolment, GRACE, KeyState, MessagingKey};
pub use mail::{Live, Mail, MailError, MediatorClient, document};
pub use pin::{Changed, Pin, Previous};
pub use route::{MAX_ROUTING_KEYS, Others, Route, RouteError};
pub use settings::ClientSettings;
