//! Methods about identities, as PDSes serve them (`lexicons/com/atproto/identity/*.json`).

use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use super::super::error::XrpcError;
use super::accounts::json;
use super::{JSON, Query, cacheable, etag_of};
use crate::resolve::IdentityFailure;
use atcomm_proto::syntax::{Did, Handle};

#[derive(Serialize)]
struct HandleAnswer<'a> {
    did: &'a Did,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DidAnswer<'a> {
    did_doc: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IdentityAnswer<'a> {
    did: &'a Did,
    handle: &'a str,
    did_doc: &'a RawValue,
}

pub(super) async fn resolve_handle(query: Query) -> Result<Response, XrpcError> {
    let handle = query.params().handle()?;
    let _slot = query.shared.acquire_slot()?;
    let resolver = &query.shared.resolver;
    let did = resolver.did_of_handle(&handle, query.client).await?;
    answer(&HandleAnswer { did: &did }, &query)
}

pub(super) async fn resolve_did(query: Query) -> Result<Response, XrpcError> {
    let did = query.params().did()?;
    let _slot = query.shared.acquire_slot()?;
    let resolver = &query.shared.resolver;
    let whole = resolver.did_document(&did, query.client).await?;
    let did_doc = &whole.json;
    answer(&DidAnswer { did_doc }, &query)
}

pub(super) async fn resolve_identity(query: Query) -> Result<Response, XrpcError> {
    let actor = query.params().identifier()?;
    let _slot = query.shared.acquire_slot()?;
    let resolver = &query.shared.resolver;
    let found = resolver.resolve_identity(&actor, query.client).await?;
    let identity = IdentityAnswer {
        did: &found.whole.document.did,
        handle: found
            .handle
            .as_ref()
            .map_or("handle.invalid", Handle::as_str),
        did_doc: &found.whole.json,
    };
    answer(&identity, &query)
}

fn answer<T: Serialize>(value: &T, query: &Query) -> Result<Response, XrpcError> {
    let body = json(value)?.into();
    Ok(cacheable(&body, &etag_of(&body), JSON, &query.headers))
}

impl From<IdentityFailure> for XrpcError {
    fn from(failure: IdentityFailure) -> Self {
        match failure {
            IdentityFailure::Ended => Self::named("DidDeactivated", "the DID has ended"),
            IdentityFailure::Other(error) => error.into(),
        }
    }
}
