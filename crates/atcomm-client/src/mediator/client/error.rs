//! Errors of a mediator.

use std::time::Duration;

use crate::mediator::route::RouteError;
use atcomm_net::identity::Busy;
use atcomm_net::net::NetError;
use atcomm_proto::didcomm::envelope::EnvelopeError;
use atcomm_proto::didcomm::message::{FieldError, MessageError};
use atcomm_proto::didcomm::protocol::problem::Code;
use atcomm_proto::syntax::RemoteText;

/// Errors of a mediator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// The mediator or its DID document cannot be reached now.
    #[error("it cannot be reached: {why}")]
    Unreachable {
        /// The failure.
        #[source]
        why: MediatorOutage,
        /// When a new attempt makes sense, where that is known.
        retry_after: Option<Duration>,
    },
    /// The DID document cannot be used by this client.
    #[error("it cannot be used: {0}")]
    Unusable(#[source] MediatorDefect),
    /// The mediator refused.
    #[error("it refused: {words} ({code})")]
    Refused {
        /// HTTP status; `None` for a problem report.
        status: Option<u16>,
        /// Name of the error, or code of the report.
        code: RemoteText,
        /// Reason in words.
        words: RemoteText,
        /// When a new attempt makes sense, where that is known.
        retry_after: Option<Duration>,
    },
    /// The mediator does not accept mail for this key.
    #[error("it does not keep mail for this key")]
    Denied,
    /// The mediator answered without a message.
    #[error("it gave no answer")]
    Silent,
    /// The answer is not one of this mediator to this request.
    #[error("what answered is not it: {0}")]
    NotOurs(#[source] ForeignAnswer),
}

/// Causes of [`MailError::Unreachable`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediatorOutage {
    /// The request failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The mediator's host takes no further request now.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The DID document could not be read when it was looked up last, for this reason.
    #[error("its DID document: {0}")]
    Document(RemoteText),
    /// The DID document could not be read when it was looked up last, and no reason is known.
    #[error("its DID document cannot be had")]
    NoDocument,
    /// The mediator reports an error of its own.
    #[error("it failed while it did what was asked")]
    Failed,
}

/// Causes of [`MailError::Unusable`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediatorDefect {
    /// The network policy forbids dialling the mediator's host.
    #[error(transparent)]
    Net(#[from] NetError),
    /// No route leads to the mediator.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Nothing can be encrypted to the mediator's key.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The mediator's DID is of another method.
    #[error("only mediators of the method did:web can be looked up")]
    Method,
    /// The document names no endpoint for live mail.
    #[error("it has no endpoint for live mail")]
    NoLiveEndpoint,
    /// The recipient's record names no mediator.
    #[error("the record names no mediator")]
    NoMediator,
}

/// Causes of [`MailError::NotOurs`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForeignAnswer {
    /// The answer cannot be decrypted.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The plaintext is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The body of the message breaks the rules of its type.
    #[error(transparent)]
    Body(#[from] FieldError),
    /// The answer is not authenticated.
    #[error("nothing shows who wrote it")]
    Anonymous,
    /// The answer is of a type that does not answer the request.
    #[error("its answer is of another kind than the question")]
    OtherKind,
    /// The answer is in the thread of another request.
    #[error("its answer is to another question")]
    OtherThread,
    /// The mediator delivers messages that it was told to delete.
    #[error("it hands out again what was acknowledged")]
    Repeated,
    /// The mediator delivers only messages that are in the wallet already.
    #[error("nothing new was in its last {deliveries} deliveries")]
    NothingNew {
        /// Number of deliveries in a row without a new message.
        deliveries: u32,
    },
}

impl MailError {
    /// Whether a later attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent => true,
            Self::Refused { status, .. } => {
                status.is_some_and(|status| status >= 500 || matches!(status, 408 | 425 | 429))
            }
            Self::Unusable(_) | Self::Denied | Self::NotOurs(_) => false,
        }
    }

    /// When a new attempt makes sense, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { retry_after, .. } | Self::Refused { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }

    /// Whether the mediator does not know the key that asks.
    pub fn is_about_unknown_key(&self) -> bool {
        self.is_code(Code::NotEnrolled)
    }

    pub(super) fn is_code(&self, wanted: Code) -> bool {
        matches!(self, Self::Refused { code, .. } if code.as_str() == wanted.to_string())
    }
}

impl From<NetError> for MailError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Refused(_) => Self::Unusable(error.into()),
            _ => Self::Unreachable {
                retry_after: error.retry_after(),
                why: error.into(),
            },
        }
    }
}

impl From<Busy> for MailError {
    fn from(busy: Busy) -> Self {
        Self::Unreachable {
            retry_after: Some(busy.retry_after),
            why: busy.into(),
        }
    }
}

impl From<RouteError> for MailError {
    fn from(error: RouteError) -> Self {
        Self::Unusable(error.into())
    }
}
