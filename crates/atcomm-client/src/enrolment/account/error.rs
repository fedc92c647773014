//! Errors of an account's PDS.

use std::time::Duration;

use crate::wallet::error::WalletError;
use atcomm_net::net::{NetError, XrpcError};
use atcomm_proto::syntax::RemoteText;

/// Errors of requests to an account's PDS.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The PDS does not accept the password.
    #[error("the PDS does not take this password")]
    WrongPassword,
    /// The PDS has sent a code by mail and asks for it.
    #[error("the PDS asks for the code that it has sent by mail")]
    CodeNeeded,
    /// There is no session, or it has ended.
    #[error("not signed in at the PDS")]
    SignedOut,
    /// The session is not allowed to do this.
    #[error("the PDS does not allow this session to write the record: {0}")]
    Forbidden(RemoteText),
    /// The account is not active at the PDS.
    #[error("the account is {0} at its PDS")]
    Inactive(RemoteText),
    /// Another key package was written since the record was read.
    #[error("the key package was changed by somebody else in the meantime")]
    Swapped,
    /// The rate limit of the PDS, or ours for it, is used up.
    #[error("the PDS takes no more requests now")]
    RateLimited {
        /// When a new attempt makes sense, where that is known.
        retry_after: Option<Duration>,
    },
    /// The PDS gave no answer.
    #[error("the PDS cannot be reached: {0}")]
    Unreachable(#[source] NetError),
    /// The PDS answered with a server error.
    #[error("the PDS does not work now: it answered {0}")]
    Failing(u16),
    /// The PDS refused.
    #[error("the PDS refused: {message} ({error})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Name of the error.
        error: RemoteText,
        /// Its message for people.
        message: RemoteText,
    },
    /// The network layer rejected the answer.
    #[error("the PDS gave an answer that makes no sense: {0}")]
    Unusable(#[source] NetError),
    /// The answer does not have the form of the method.
    #[error("the PDS gave an answer that makes no sense: {0}")]
    Malformed(#[from] PdsFault),
    /// The session cannot be read or saved.
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

/// Causes of [`AccountError::Malformed`].
#[derive(Debug, thiserror::Error)]
pub enum PdsFault {
    /// The record to be written is outside of the data model.
    #[error(transparent)]
    Record(serde_json::Error),
    /// The address of the request cannot be parsed.
    #[error(transparent)]
    Address(#[from] url::ParseError),
    /// The answer is not JSON of the form of the method. Only the place is kept, since the text of
    /// the parser can repeat a token.
    #[error("line {line} column {column}")]
    Json {
        /// Line of the answer.
        line: usize,
        /// Column of the line.
        column: usize,
    },
    /// The answer is of another media type.
    #[error("it is not JSON")]
    NotJson,
    /// The answer does not name the CID of the record.
    #[error("a record without a CID")]
    NoCid,
    /// The session is another account's.
    #[error("the session of another account")]
    OtherAccount,
    /// The library rejects an identifier that this program has checked.
    #[error("{0}")]
    Identifier(&'static str),
    /// The library cannot write the request.
    #[error("it cannot be asked that")]
    Request,
    /// An error of the library without a type, in its words.
    #[error("{0}")]
    Library(String),
}

impl AccountError {
    pub(super) fn inactive(status: &str) -> Self {
        Self::Inactive(RemoteText::new(status))
    }

    /// Whether the PDS refuses because of `swapRecord`. No field but the message for people tells:
    /// implementations that cannot compare with the present record name this error `InvalidRequest`
    /// like any other, and only a mismatch has a name of its own, `InvalidSwap`.
    pub(super) fn is_about_swap(&self) -> bool {
        matches!(self, Self::Refused { message, .. } if message.as_str().contains("swapRecord"))
    }

    /// Whether a later attempt may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. } | Self::Unreachable(_) | Self::Failing(_)
        )
    }
}

impl From<XrpcError> for AccountError {
    fn from(error: XrpcError) -> Self {
        let status = error.status.as_u16();
        let retry_after = error.retry_after;
        let message = error
            .message
            .unwrap_or_else(|| RemoteText::new("no reason given"));
        let name = error.name.unwrap_or_default();
        match (status, name.as_str()) {
            (_, "AuthFactorTokenRequired") => Self::CodeNeeded,
            (_, "AccountTakedown" | "RepoTakendown") => Self::inactive("taken down"),
            (_, "AccountDeactivated" | "RepoDeactivated") => Self::inactive("deactivated"),
            (_, "AccountSuspended" | "RepoSuspended") => Self::inactive("suspended"),
            (_, "InvalidSwap") => Self::Swapped,
            (401, _) | (_, "ExpiredToken" | "InvalidToken" | "AuthenticationRequired") => {
                Self::SignedOut
            }
            (429, _) => Self::RateLimited { retry_after },
            (500.., _) => Self::Failing(status),
            (403, _) => Self::Forbidden(message),
            (_, "") => Self::Refused {
                status,
                error: RemoteText::new(&status.to_string()),
                message,
            },
            _ => Self::Refused {
                status,
                error: name,
                message,
            },
        }
    }
}

impl From<NetError> for AccountError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::HostBusy { retry_after } => Self::RateLimited {
                retry_after: Some(retry_after),
            },
            error if error.is_transient() => Self::Unreachable(error),
            error => Self::Unusable(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atcomm_net::net::Response;

    #[test]
    fn answers_are_understood() {
        let of = |status, body: &str| {
            let answer = Response {
                status: http::StatusCode::from_u16(status).unwrap(),
                headers: http::HeaderMap::new(),
                body: bytes::Bytes::copy_from_slice(body.as_bytes()),
                retry_after: None,
            };
            AccountError::from(answer.accepted().unwrap_err())
        };
        let named = |status, name: &str| of(status, &format!("{{\"error\":\"{name}\"}}"));
        use AccountError as E;
        assert!(matches!(named(401, "AuthenticationRequired"), E::SignedOut));
        assert!(matches!(named(400, "ExpiredToken"), E::SignedOut));
        assert!(matches!(
            named(401, "AuthFactorTokenRequired"),
            E::CodeNeeded
        ));
        assert!(matches!(named(401, "AccountTakedown"), E::Inactive(_)));
        assert!(matches!(named(400, "InvalidSwap"), E::Swapped));
        assert!(matches!(of(403, "no"), E::Forbidden(_)));
        assert!(matches!(of(429, ""), E::RateLimited { .. }));
        assert!(of(502, "<html>").is_transient() && of(429, "").is_transient());
        let refused = of(400, "{\"error\":\"Odd\",\"message\":\"\\u001b[31mred\"}");
        assert_eq!(
            refused.to_string(),
            "the PDS refused: \u{fffd}[31mred (Odd)"
        );
        assert_eq!(
            of(404, "?").to_string(),
            "the PDS refused: no reason given (404)"
        );
    }
}
