//! The XRPC methods (`lexicons/at/didcomm/directory/*.json`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{BytesRejection, ExtensionRejection};
use axum::extract::{DefaultBodyLimit, Extension, FromRequestParts, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::client_address::ClientAddress;
use super::conditional;
use super::error::XrpcError;
use super::params::Params;
use super::response_budget::{Exhausted, LargeResponseBudget, ResponsePermit};
use super::routes::{GET_HISTORY, GET_PROOF, HEALTH, REFRESH, RESOLVE_RECIPIENT};
use crate::directory::{MAX_CHANGES, Page, RecipientView};
use crate::mediator::Mediator;
use crate::resolve::Resolver;
use crate::store::PackageState;
use atcomm_proto::syntax::{Actor, Did, LexiconError};

/// A cached view is rendered anew after 15 s; together with 15 s in caches on the way, a client
/// sees nothing older than 30 s.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=15");

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const CAR: HeaderValue = HeaderValue::from_static("application/vnd.ipld.car");

/// Maximum length of a procedure's body in bytes: a DID of the maximum length, and its JSON.
const MAX_BODY_LEN: usize = 4 * 1024;

/// `Retry-After` for a request that finds no free slot.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Changes in a page of `getHistory` without `limit`.
const DEFAULT_CHANGES: usize = 50;

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
        .route(RESOLVE_RECIPIENT.path, get(resolve_recipient))
        .route(GET_PROOF.path, get(get_proof))
        .route(GET_HISTORY.path, get(get_history))
        .route(
            REFRESH.path,
            post(refresh).layer(DefaultBodyLimit::max(MAX_BODY_LEN)),
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

async fn resolve_recipient(query: Query) -> Result<Response, XrpcError> {
    let params = query.params();
    let (actor, with_proof) = (params.actor()?, params.flag("proof")?);
    let (resolver, client) = (&query.shared.resolver, query.client);
    let _slot = query.shared.acquire_slot()?;
    if !with_proof {
        let rendered = resolver.recipient(&actor, client).await?;
        return Ok(recipient(&rendered, &query.headers));
    }
    let permit = query.shared.acquire_response(client)?;
    let rendered = resolver.recipient_with_proof(&actor, client).await?;
    let body = permit.attach(rendered.body.clone());
    Ok(cacheable(&body, &rendered.etag, JSON, &query.headers))
}

/// Returns the recipient view, or 304 if the client's ETag matches.
pub(super) fn recipient(rendered: &RecipientView, asked: &HeaderMap) -> Response {
    cacheable(&rendered.body, &rendered.etag, JSON, asked)
}

async fn get_proof(query: Query) -> Result<Response, XrpcError> {
    let did = query.params().did()?;
    let _slot = query.shared.acquire_slot()?;
    let permit = query.shared.acquire_response(query.client)?;
    let car = query.shared.resolver.proof(&did, query.client).await?;
    let body = permit.attach(car);
    Ok(cacheable(&body, &etag_of(&body), CAR, &query.headers))
}

async fn get_history(query: Query) -> Result<Response, XrpcError> {
    let params = query.params();
    let did = params.did()?;
    let page = Page {
        before: params.cursor()?,
        limit: params.limit(MAX_CHANGES, DEFAULT_CHANGES)?,
        with_proof: params.flag("proof")?,
        log: None,
    };
    let _slot = query.shared.acquire_slot()?;
    let permit = query.shared.acquire_response(query.client)?;
    let resolver = &query.shared.resolver;
    let body = permit.attach(resolver.history(&did, page, query.client).await?);
    Ok(cacheable(&body, &etag_of(&body), JSON, &query.headers))
}

/// Returns the ETag of a body that is not cached here.
fn etag_of(body: &[u8]) -> String {
    format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(body)))
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

#[derive(Deserialize)]
struct RefreshInput {
    did: String,
}

#[derive(Serialize)]
struct Refreshed<'a> {
    did: &'a Did,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<&'a RawValue>,
}

async fn refresh(
    State(shared): State<Arc<Shared>>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, XrpcError> {
    let did = refresh_input(&headers, body)?;
    let _slot = shared.acquire_slot()?;
    let resolver = &shared.resolver;
    let refreshed = resolver.refresh(&did, client).await?;
    let known = resolver
        .directory()
        .recipient(&Actor::Did(did.clone()))
        .await?;
    let served = known.found().ok().flatten();
    if let (None, Some(refusal)) = (&served, refreshed.refusal)
        && matches!(
            refusal.kind,
            LexiconError::DidNotFound | LexiconError::UpstreamFailure
        )
    {
        return Err(refusal.into());
    }
    let recipient = match &served {
        Some(rendered) => Some(serde_json::from_slice(&rendered.body).map_err(|error| {
            tracing::error!(%error, "a rendered answer is no JSON");
            XrpcError::internal()
        })?),
        None => None,
    };
    let reason = match &served {
        Some(_) => None,
        None => invalid_package_reason(resolver, &did).await?,
    };
    let answer = Refreshed {
        did: &did,
        outcome: refreshed.outcome.code(),
        reason,
        recipient,
    };
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(answer)).into_response())
}

/// Reads the DID in the body of a refresh.
fn refresh_input(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Did, XrpcError> {
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = format!("the body is longer than {MAX_BODY_LEN} bytes");
            XrpcError::new(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", message)
        } else {
            XrpcError::invalid("the body did not arrive")
        }
    })?;
    let Some(media_type) = headers.get(CONTENT_TYPE) else {
        return Err(XrpcError::invalid(
            "Content-Type is missing; it must be application/json",
        ));
    };
    let media_type = media_type.to_str().unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(XrpcError::invalid("Content-Type must be application/json"));
    }
    let input: RefreshInput = serde_json::from_slice(&body).map_err(|why| {
        XrpcError::invalid(format!("the body is not {{\"did\": \"...\"}}: {why}"))
    })?;
    Did::parse(&input.did).map_err(|why| XrpcError::invalid(format!("input did: {why}")))
}

/// Returns the code of the rule that an account's key package breaks, if the package is invalid.
async fn invalid_package_reason(
    resolver: &Resolver,
    did: &Did,
) -> Result<Option<String>, XrpcError> {
    let did = did.clone();
    let entry = resolver
        .directory()
        .store()
        .query(move |q| q.entry(&did))
        .await?;
    Ok(entry
        .filter(|entry| entry.state == PackageState::Invalid)
        .and_then(|entry| entry.reason))
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
