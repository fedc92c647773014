//! The XRPC methods (`lexicons/at/didcomm/directory/*.json`).

mod accounts;
mod cursor;
mod identity;
mod lists;
mod recipient;
mod refresh;
mod stats;
mod timeline;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::ExtensionRejection;
use axum::extract::{DefaultBodyLimit, Extension, FromRequestParts, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::client_address::ClientAddress;
use super::conditional;
use super::error::XrpcError;
use super::params::Params;
use super::response_budget::{Exhausted, LargeResponseBudget, ResponsePermit};
use super::routes::{
    EXPLAIN_ACCOUNT, FIND_BY_PEER, GET_HISTORY, GET_PROOF, GET_REPO_STATUS, GET_STATS,
    GET_TIMELINE, HEALTH, LIST_MEDIATORS, LIST_RECIPIENTS, LIST_REPOS_BY_COLLECTION, REFRESH,
    RESOLVE_DID, RESOLVE_HANDLE, RESOLVE_IDENTITY, RESOLVE_RECIPIENT, RESOLVE_RECIPIENTS,
};
use crate::mediator::Mediator;
use crate::resolve::Resolver;

/// A cached view is rendered anew after 15 s; together with 15 s in caches on the way, a client
/// sees nothing older than 30 s.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=15");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const CAR: HeaderValue = HeaderValue::from_static("application/vnd.ipld.car");

/// Names the revision of an account's repository that an answer is at, as PDSes do.
const REPO_REV: HeaderName = HeaderName::from_static("atproto-repo-rev");

/// `Retry-After` for a request that finds no free slot.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) use recipient::recipient_response;

/// State of the handlers.
struct Shared {
    resolver: Resolver,
    mediator: Option<Mediator>,
    /// Slots for requests that may wait for the store or the network.
    slots: Semaphore,
    large_responses: LargeResponseBudget,
}

impl Shared {
    /// Takes a slot for a request that may wait for the store or the network.
    fn acquire_slot(&self) -> Result<SemaphorePermit<'_>, XrpcError> {
        self.slots
            .try_acquire()
            .map_err(|_| XrpcError::overloaded(RETRY_AFTER))
    }

    /// Takes a permit for a response with a proof or a history.
    fn acquire_response(&self, client: IpAddr) -> Result<ResponsePermit, XrpcError> {
        self.large_responses
            .acquire(client)
            .map_err(|exhausted| match exhausted {
                Exhausted::Address => XrpcError::rate_limited(RETRY_AFTER),
                Exhausted::Total => XrpcError::overloaded(RETRY_AFTER),
            })
    }
}

/// Returns the routes of all methods and of the health check.
pub(super) fn routes(
    resolver: Resolver,
    mediator: Option<Mediator>,
    max_requests: usize,
) -> Router {
    let slots = max_requests.clamp(1, Semaphore::MAX_PERMITS);
    Router::new()
        .route(RESOLVE_RECIPIENT.path, get(recipient::resolve_recipient))
        .route(RESOLVE_RECIPIENTS.path, get(accounts::resolve_recipients))
        .route(FIND_BY_PEER.path, get(accounts::find_by_peer))
        .route(EXPLAIN_ACCOUNT.path, get(accounts::explain_account))
        .route(GET_REPO_STATUS.path, get(accounts::repo_status))
        .route(RESOLVE_HANDLE.path, get(identity::resolve_handle))
        .route(RESOLVE_DID.path, get(identity::resolve_did))
        .route(RESOLVE_IDENTITY.path, get(identity::resolve_identity))
        .route(GET_PROOF.path, get(recipient::get_proof))
        .route(GET_HISTORY.path, get(recipient::get_history))
        .route(LIST_RECIPIENTS.path, get(lists::list_recipients))
        .route(LIST_MEDIATORS.path, get(lists::list_mediators))
        .route(GET_STATS.path, get(stats::get_stats))
        .route(
            LIST_REPOS_BY_COLLECTION.path,
            get(lists::list_repos_by_collection),
        )
        .route(GET_TIMELINE.path, get(timeline::get_timeline))
        .route(
            REFRESH.path,
            post(refresh::refresh).layer(DefaultBodyLimit::max(refresh::MAX_BODY_LEN)),
        )
        .route(HEALTH.path, get(health))
        .with_state(Arc::new(Shared {
            resolver,
            mediator,
            slots: Semaphore::new(slots),
            large_responses: LargeResponseBudget::new(max_requests / 4),
        }))
}

/// A query: what its handler takes from the request, and the state of the handlers.
struct Query {
    shared: Arc<Shared>,
    client: IpAddr,
    uri: Uri,
    headers: HeaderMap,
}

impl FromRequestParts<Arc<Shared>> for Query {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        shared: &Arc<Shared>,
    ) -> Result<Self, Self::Rejection> {
        let Extension(ClientAddress(client)) = Extension::from_request_parts(parts, shared).await?;
        Ok(Self {
            shared: Arc::clone(shared),
            client,
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
        })
    }
}

impl Query {
    fn params(&self) -> Params<'_> {
        Params::of(&self.uri)
    }
}

/// Returns the ETag of a body that is not cached here.
fn etag_of(body: &[u8]) -> String {
    format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(body)))
}

/// Returns the weak ETag of a body that says the same as another one with this digest.
fn etag_of_digest(digest: Sha256) -> String {
    format!("W/\"{}\"", HEXLOWER.encode(&digest.finalize()))
}

/// Adds the revision that an answer about one account is at.
fn add_rev(response: &mut Response, rev: &str) {
    // A revision is letters and digits, so the conversion succeeds.
    if let Ok(rev) = HeaderValue::from_str(rev) {
        response.headers_mut().insert(REPO_REV, rev);
    }
}

/// Returns the body with its ETag, or 304 if the client's ETag matches.
fn cacheable(body: &Bytes, etag: &str, media_type: HeaderValue, asked: &HeaderMap) -> Response {
    let known = conditional::not_modified(asked, etag);
    let mut response = Response::new(if known {
        Body::empty()
    } else {
        body.clone().into()
    });
    let mut headers = HeaderMap::with_capacity(8);
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(CONTENT_TYPE, media_type);
    }
    headers.insert(CACHE_CONTROL, CACHE);
    // ETags are quoted hexadecimal, so the conversion succeeds; without one the response is only
    // not cached.
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(ETAG, etag);
    }
    *response.headers_mut() = headers;
    response
}

#[derive(Serialize)]
struct Health {
    version: &'static str,
}

async fn health(State(shared): State<Arc<Shared>>) -> Result<Response, XrpcError> {
    let mail = shared.mediator.as_ref().is_none_or(Mediator::is_healthy);
    if !mail || !shared.resolver.directory().is_healthy() {
        return Err(XrpcError::unavailable());
    }
    let health = Health {
        version: env!("CARGO_PKG_VERSION"),
    };
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(health)).into_response())
}
