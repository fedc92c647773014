//! Error responses of XRPC: `{"error": "UpperCamel", "message": "..."}`.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::directory::Refusal;
use crate::mediator::Refused;
use crate::resolve::ResolveError;
use crate::store::StoreError;
use atcomm_proto::syntax::LexiconError;

/// An error response. Details for the operator are logged where the error is created.
#[derive(Debug)]
pub(super) struct XrpcError {
    status: StatusCode,
    error: &'static str,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// Whether it is the client's allowance of looks that is used up.
    is_of_looks: bool,
}

/// Marks the response to a client whose allowance of looks is used up, with the time to wait.
#[derive(Clone, Copy)]
pub(super) struct LooksUsedUp(pub(super) Duration);

impl XrpcError {
    pub(super) fn new(
        status: StatusCode,
        error: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            error,
            message: message.into(),
            retry_after: None,
            is_of_looks: false,
        }
    }

    /// Creates an error for a request that the lexicon does not allow.
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", message)
    }

    /// Creates an error that a method's lexicon declares.
    pub(super) fn named(error: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, message)
    }

    /// Creates an error for a client whose address exceeds a limit.
    pub(super) fn rate_limited(retry_after: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "RateLimitExceeded",
            "too many requests from this address are under way or need a look at the network",
        )
        .retry_after(retry_after)
    }

    /// Creates an error for a limit that all clients together exceed.
    pub(super) fn overloaded(retry_after: Duration) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Overloaded",
            "too many requests are under way that need a look at the network or the store",
        )
        .retry_after(retry_after)
    }

    /// Creates an error for a failure of the service, which the log describes.
    pub(super) fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            "the directory cannot answer at the moment",
        )
    }

    /// Creates an error for a defect, which the log describes.
    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            "internal server error",
        )
    }

    /// Creates an error for a request that exceeds its time limit.
    pub(super) fn timeout() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            "the request took too long",
        )
        .retry_after(Duration::from_secs(5))
    }

    /// Returns the name of the error.
    pub(super) fn name(&self) -> &'static str {
        self.error
    }

    /// Returns the reason as a sentence for the client.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Returns the time to wait in whole seconds, rounded up: a client that returns too early is
    /// refused again.
    pub(super) fn retry_seconds(&self) -> Option<u64> {
        let wait = self.retry_after?;
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Some(seconds.max(1))
    }

    /// Adds `Retry-After`.
    pub(super) fn retry_after(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }
}

impl From<ResolveError> for XrpcError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Refused(refusal) => refusal.into(),
            ResolveError::OverBudget {
                own: true,
                retry_after,
            } => Self {
                is_of_looks: true,
                ..Self::rate_limited(retry_after)
            },
            ResolveError::OverBudget {
                own: false,
                retry_after,
            } => Self::overloaded(retry_after),
            ResolveError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for XrpcError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed under a request");
        Self::unavailable()
    }
}

impl From<Refusal> for XrpcError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.kind {
            LexiconError::HandleNotFound
            | LexiconError::DidNotFound
            | LexiconError::NotEnrolled
            | LexiconError::NotEnrolledUnproven
            | LexiconError::AccountInactive
            | LexiconError::InvalidKeyPackage => StatusCode::BAD_REQUEST,
            LexiconError::UpstreamFailure => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, refusal.kind.as_str(), refusal.message)
    }
}

impl From<Refused> for XrpcError {
    fn from(refused: Refused) -> Self {
        let (status, error) = match refused {
            Refused::Unreadable(_) => (StatusCode::BAD_REQUEST, "NotUnpackable"),
            Refused::RateLimited(_) | Refused::OwnAnswersUnread(_) => {
                (StatusCode::TOO_MANY_REQUESTS, "RateLimitExceeded")
            }
            Refused::QueueFull => (StatusCode::SERVICE_UNAVAILABLE, "QueueFull"),
            Refused::RelayFull => (StatusCode::SERVICE_UNAVAILABLE, "RelayFull"),
            Refused::RelayRefused => (StatusCode::FORBIDDEN, "RelayRefused"),
            Refused::Busy(_) | Refused::AnswersUnread(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "Overloaded")
            }
            Refused::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        };
        let error = Self::new(status, error, refused.to_string());
        match refused.retry_after() {
            Some(wait) => error.retry_after(wait),
            None => error,
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    message: &'a str,
}

impl IntoResponse for XrpcError {
    fn into_response(self) -> Response {
        let retry_after = self.retry_seconds();
        let body = Body {
            error: self.error,
            message: &self.message,
        };
        // Serialization of two strings cannot fail.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
            if self.is_of_looks {
                let wait = Duration::from_secs(seconds);
                response.extensions_mut().insert(LooksUsedUp(wait));
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Damage;

    /// Returns status, `Retry-After` and body of the response.
    fn response(error: ResolveError) -> (u16, Option<String>, serde_json::Value) {
        let response = XrpcError::from(error).into_response();
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        let retry = response.headers().get(RETRY_AFTER);
        let retry = retry.map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = futures_util::FutureExt::now_or_never(axum::body::to_bytes(
            response.into_body(),
            10_000,
        ));
        (
            status,
            retry,
            serde_json::from_slice(&body.unwrap().unwrap()).unwrap(),
        )
    }

    #[test]
    fn every_refusal_has_its_name_and_status() {
        for (kind, status, name) in [
            (LexiconError::HandleNotFound, 400, "HandleNotFound"),
            (LexiconError::DidNotFound, 400, "DidNotFound"),
            (LexiconError::NotEnrolled, 400, "NotEnrolled"),
            (
                LexiconError::NotEnrolledUnproven,
                400,
                "NotEnrolledUnproven",
            ),
            (LexiconError::AccountInactive, 400, "AccountInactive"),
            (LexiconError::InvalidKeyPackage, 400, "InvalidKeyPackage"),
            (LexiconError::UpstreamFailure, 502, "UpstreamFailure"),
        ] {
            let (found, retry, body) = response(ResolveError::Refused(Refusal::new(kind, "why")));
            assert_eq!((found, retry), (status, None));
            assert_eq!(body, serde_json::json!({"error": name, "message": "why"}));
        }
    }

    #[test]
    fn an_exhausted_budget_says_when_to_retry() {
        for (own, retry_after, status, name, wait) in [
            (true, Duration::ZERO, 429, "RateLimitExceeded", "1"),
            (
                true,
                Duration::from_millis(1001),
                429,
                "RateLimitExceeded",
                "2",
            ),
            (false, Duration::from_secs(2), 503, "Overloaded", "2"),
        ] {
            let (found, retry, body) = response(ResolveError::OverBudget { own, retry_after });
            assert_eq!((found, retry.as_deref()), (status, Some(wait)));
            assert_eq!(body["error"], name);
        }
    }

    #[test]
    fn a_message_of_the_store_is_not_sent() {
        let error = StoreError::Corrupt(Damage::Contents("/var/lib/atcomm/directory.db"));
        let (status, _, body) = response(ResolveError::Store(error));
        assert_eq!(
            (status, body["error"].as_str()),
            (503, Some("ServiceUnavailable"))
        );
        assert!(!body.to_string().contains("directory.db"));
    }
}
