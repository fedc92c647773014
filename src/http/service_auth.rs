//! Calls in the name of an account: the token that a PDS adds to a request that it passes on
//! (`atproto-proxy: did:web:HOST#atcomm_directory`).
//!
//! Calls without a token are answered all the same. A token that is there has to be right: an answer
//! under a wrong one would tell the caller that it was taken.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;

use super::error::XrpcError;
use super::routes;
use crate::mediator::PublicAddress;
use crate::resolve::{CallerError, Resolver};
use atcomm_net::identity::IdentityError;
use atcomm_proto::service_token::{ServiceToken, TokenError};
use atcomm_proto::syntax::MediatorDid;

/// The name of the directory in the DID document of this server.
pub(super) const SERVICE_ID: &str = "atcomm_directory";

/// `Retry-After` where the servers of an account do not answer.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Verifies the tokens of callers.
pub(super) struct ServiceAuth {
    did: MediatorDid,
    resolver: Resolver,
}

/// The token of a request, not read yet.
pub(super) struct Presented {
    method: &'static str,
    token: String,
}

impl Presented {
    /// Returns the token of a request, if it has one and calls a method.
    pub(super) fn of(request: &Request) -> Result<Option<Self>, XrpcError> {
        let Some(method) = routes::method(request.uri().path()) else {
            return Ok(None);
        };
        let values = request.headers().get_all(AUTHORIZATION);
        let mut tokens = values.iter().filter_map(|value| {
            let (scheme, rest) = value.as_bytes().split_at_checked(7)?;
            let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
            is_bearer.then(|| rest.trim_ascii())
        });
        let Some(token) = tokens.next() else {
            return Ok(None);
        };
        if tokens.next().is_some() {
            return Err(refused("BadJwt", "the request has several tokens"));
        }
        let token = String::from_utf8(token.to_vec())
            .map_err(|_| refused("BadJwt", "the token is not text"))?;
        Ok(Some(Self { method, token }))
    }
}

impl ServiceAuth {
    pub(super) fn new(address: &PublicAddress, resolver: Resolver) -> Self {
        Self {
            did: address.did().clone(),
            resolver,
        }
    }

    /// Verifies the token of a request.
    pub(super) async fn verify(
        &self,
        presented: &Presented,
        client: IpAddr,
    ) -> Result<(), XrpcError> {
        let Presented { method, token } = presented;
        let now = self.resolver.now();
        let token = ServiceToken::parse(token, now)
            .and_then(|token| {
                token.check(&self.did, SERVICE_ID, method, now)?;
                Ok(token)
            })
            .map_err(|error| self.refused_for(error, method))?;
        let verified = self.resolver.verify_caller(&token, client).await;
        verified.map_err(|error| match error {
            CallerError::Token(error) => self.refused_for(error, method),
            CallerError::Replayed => refused("BadJwt", "the token was used before: take a new one"),
            CallerError::Account(IdentityError::Unreachable { retry_after }) => XrpcError::new(
                StatusCode::BAD_GATEWAY,
                "UpstreamFailure",
                "the document of the token's account cannot be looked up now",
            )
            .retry_after(retry_after.unwrap_or(RETRY_AFTER)),
            CallerError::Account(error) => {
                refused("BadJwtIss", format!("iss of the token: {error}"))
            }
            CallerError::Resolve(error) => error.into(),
        })
    }

    /// Returns the error for a token, with what it has to say instead.
    fn refused_for(&self, error: TokenError, method: &str) -> XrpcError {
        let message = match error {
            TokenError::Audience => format!("{error}: aud has to be {}#{SERVICE_ID}", self.did),
            TokenError::Method => format!("{error}: lxm has to be {method}"),
            error => error.to_string(),
        };
        refused(error.code(), message)
    }
}

fn refused(code: &'static str, message: impl Into<Cow<'static, str>>) -> XrpcError {
    XrpcError::new(StatusCode::UNAUTHORIZED, code, message)
}
