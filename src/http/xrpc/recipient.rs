//! Methods about one account: its recipient view, proof and history.

use axum::http::HeaderMap;
use axum::response::Response;

use super::super::error::XrpcError;
use super::{CAR, JSON, Query, add_rev, cacheable, etag_of};
use crate::directory::{MAX_CHANGES, Page, RecipientView};
use atcomm_proto::syntax::Rev;

/// Changes in a page of `getHistory` without `limit`.
const DEFAULT_CHANGES: usize = 50;

pub(super) async fn resolve_recipient(query: Query) -> Result<Response, XrpcError> {
    let params = query.params();
    let (actor, with_proof) = (params.actor()?, params.flag("proof")?);
    let (resolver, client) = (&query.shared.resolver, query.client);
    let _slot = query.shared.acquire_slot()?;
    if !with_proof {
        let rendered = resolver.recipient(&actor, client).await?;
        return Ok(recipient_response(&rendered, &query.headers));
    }
    let permit = query.shared.acquire_response(client)?;
    let rendered = resolver.recipient_with_proof(&actor, client).await?;
    let body = permit.attach(rendered.body.clone());
    let response = cacheable(&body, &rendered.etag, JSON, &query.headers);
    Ok(with_rev(response, rendered.rev.as_ref()))
}

/// Returns the recipient view, or 304 if the client's ETag matches.
pub(in crate::http) fn recipient_response(rendered: &RecipientView, asked: &HeaderMap) -> Response {
    let response = cacheable(&rendered.body, &rendered.etag, JSON, asked);
    with_rev(response, rendered.rev.as_ref())
}

/// Adds the revision that an answer is at.
fn with_rev(mut response: Response, rev: Option<&Rev>) -> Response {
    if let Some(rev) = rev {
        add_rev(&mut response, rev.as_str());
    }
    response
}

pub(super) async fn get_proof(query: Query) -> Result<Response, XrpcError> {
    let did = query.params().did()?;
    let _slot = query.shared.acquire_slot()?;
    let permit = query.shared.acquire_response(query.client)?;
    let proof = query.shared.resolver.proof(&did, query.client).await?;
    let body = permit.attach(proof.car);
    let response = cacheable(&body, &etag_of(&body), CAR, &query.headers);
    Ok(with_rev(response, proof.rev.as_ref()))
}

pub(super) async fn get_history(query: Query) -> Result<Response, XrpcError> {
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
    let history = resolver.history(&did, page, query.client).await?;
    let body = permit.attach(history.body);
    let response = cacheable(&body, &etag_of(&body), JSON, &query.headers);
    Ok(with_rev(response, history.rev.as_ref()))
}
