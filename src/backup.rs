//! Backups of a service, and what is made of them after the loss of a disk.
//!
//! A backup is a folder, a *set*, named after the moment at which it began:
//!
//! ```text
//! atcomm-20261201T133000.000Z/
//!   manifest.json        versions, times, and the length and SHA-256 of every other file
//!   mailbox.db           or mailbox.db.age, where the set is encrypted
//!   directory.db
//!   mediator-keys.json
//! ```
//!
//! A set is made under a hidden name and renamed when all of it is on disk, so a folder with the name
//! of a set is a whole one. Its files are copied in this order:
//!
//! 1. `mailbox.db`, as it is at the beginning. It holds all that was acknowledged before.
//! 2. `directory.db`, which is never behind the mailbox: the mailbox remembers how far it has read the
//!    directory's change log, and must find that place again.
//! 3. The keys. Each generation stays in the file for a month, so the newest file opens whatever is
//!    in the older mailbox.
//!
//! Encryption is that of age (age-encryption.org/v1) to X25519 recipients: `age -d` opens each file
//! too. It hides the content; it does not show who made a set, since anybody can encrypt to a
//! recipient.

mod copier;
mod error;
mod make;
mod manifest;
mod replay;
mod restore;
mod schedule;
mod seal;
mod segment;
mod sets;
mod settings;

#[cfg(test)]
mod tests;

pub use copier::Copier;
pub use error::BackupError;
pub use make::{Made, Plan, make};
pub use restore::{LOCK_FILE, RESTORE_MARK, RestorePlan, Restored, restore};
pub use schedule::Schedule;
pub use seal::{Identities, Recipients};
pub use sets::{SetSummary, newest};
pub use settings::{BackupSettings, CopySettings};
