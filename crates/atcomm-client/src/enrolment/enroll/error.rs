//! Errors of enrolling.

use crate::enrolment::account::AccountError;
use crate::lookup::authoritative::AccountIdentityError;
use crate::mediator::client::MailError;
use crate::wallet::error::WalletError;
use atcomm_net::identity::HandleError;
use atcomm_proto::didcomm::envelope::EnvelopeError;
use atcomm_proto::syntax::{Did, MediatorDid};

/// Errors of enrolling, rotating and unenrolling. All steps before the error are saved, and the
/// next run continues from there.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The handle does not resolve.
    #[error("{handle}: {error}")]
    Handle {
        /// The handle.
        handle: String,
        /// The error of the look-up.
        #[source]
        error: HandleError,
    },
    /// The handle names an account that does not claim it.
    #[error("{handle} leads to {account}, which does not call itself that")]
    NotItsHandle {
        /// The handle.
        handle: String,
        /// The account that it names.
        account: Did,
    },
    /// The account has no DID document, or none that is proven.
    #[error("{account}: {error}")]
    Identity {
        /// The account.
        account: Did,
        /// The error of the look-up.
        #[source]
        error: AccountIdentityError,
    },
    /// The DID document names no PDS.
    #[error("the DID document of {0} names no PDS")]
    NoPds(Did),
    /// A mediator cannot be used by senders, so it is not published.
    #[error("the mediator {did}: {error}")]
    Mediator {
        /// The mediator.
        did: MediatorDid,
        /// The error of the mediator.
        #[source]
        error: MailError,
    },
    /// No mediator is named, now or before.
    #[error("no mediator is named")]
    NoMediator,
    /// There are more mediators than a record may name.
    #[error("{0} mediators are too many")]
    TooManyMediators(usize),
    /// Mail may wait at more mediators that the record named before than are remembered.
    #[error("mail may still wait at {0} mediators that the account named before")]
    TooManyDropped(usize),
    /// The label breaks the rules of the record.
    #[error("the label is longer than 64 characters or has control characters")]
    Label,
    /// The record names a key that this wallet does not have.
    #[error("the account publishes another key already{}", named(label.as_deref()))]
    Foreign {
        /// The did:peer in the record, where there is one.
        peer: Option<String>,
        /// The device's name in the record.
        label: Option<String>,
    },
    /// The account has no published key in this wallet.
    #[error("{0} is not enrolled from this wallet")]
    NotEnrolled(Did),
    /// The account publishes no key any more.
    #[error("{0} publishes no key any more")]
    Unpublished(Did),
    /// The succession statement cannot be signed.
    #[error("the old key cannot speak for the new one: {0}")]
    Succession(#[source] EnvelopeError),
    /// The PDS failed or refused.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The wallet cannot be used.
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

fn named(label: Option<&str>) -> String {
    label.map_or(String::new(), |label| {
        // The label is text of whatever program wrote the record.
        let shown: String = label.chars().filter(|c| !c.is_control()).take(64).collect();
        format!(", of a device named \"{shown}\"")
    })
}

impl EnrolError {
    /// Whether a later attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Handle { error, .. } => *error == HandleError::Unreachable,
            Self::Identity { error, .. } => matches!(error, AccountIdentityError::Unreachable(_)),
            Self::Mediator { error, .. } => error.is_transient(),
            Self::Account(error) => error.is_transient(),
            _ => false,
        }
    }
}
