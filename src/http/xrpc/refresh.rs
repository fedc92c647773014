//! The procedure `refresh`: a look at an account at once.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::client_address::ClientAddress;
use super::super::error::XrpcError;
use super::{NO_STORE, Shared, add_rev};
use crate::resolve::Resolver;
use crate::store::PackageState;
use atcomm_proto::syntax::{Actor, Did, LexiconError};

/// Maximum length of the body in bytes: a DID of the maximum length, and its JSON.
pub(super) const MAX_BODY_LEN: usize = 4 * 1024;

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

pub(super) async fn refresh(
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
    let mut response = ([(CACHE_CONTROL, NO_STORE)], Json(answer)).into_response();
    if let Some(rev) = served.as_ref().and_then(|view| view.rev.as_ref()) {
        add_rev(&mut response, rev.as_str());
    }
    Ok(response)
}

/// Reads the DID in the body of a refresh.
fn refresh_input(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Did, XrpcError> {
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message =
                format!("the body {{\"did\": \"...\"}} is longer than {MAX_BODY_LEN} bytes");
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
        let mut message = "the body is not {\"did\": \"...\"}".to_owned();
        // What is JSON and has another form would be repeated, at any length.
        if !why.is_data() {
            message.push_str(&format!(": {why}"));
        }
        XrpcError::invalid(message)
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
