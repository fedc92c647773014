//! Identities: DID documents and handles of accounts, documents of mediators. Cached.
//!
//! An answer is served from the cache up to its limits of age, and refreshed in the background
//! before the last of them. Concurrent look-ups of one subject are one look-up. After
//! [`Identity::purge`], which every `#identity` event must lead to, the next answer is a new one.

mod document;
mod fetch;
mod handle;
mod lookups;
mod mediator;
mod migration;
mod pds;
mod plc_log;
mod resolver;
mod settings;
mod whole;

pub use document::{DidDocument, DocumentError, MAX_DOCUMENT_LEN, Unusable};
pub use fetch::IdentityError;
pub use handle::HandleError;
pub use lookups::Freshness;
pub use mediator::{Busy, MediatorDocument, MediatorState, Service};
pub use migration::PreMigrationKey;
pub use pds::{
    PdsOptions, RecordAnswer, RepoStatus, StatusAnswer, UnusableAnswer, fetch_record, fetch_status,
};
pub use plc_log::{PlcLog, PlcLogError};
pub use resolver::{CheckedHandle, HandleCheck, Identity, NamedDid};
pub use settings::IdentitySettings;
pub use whole::WholeDocument;

#[cfg(test)]
mod tests;
