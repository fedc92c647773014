//! The numbers of accounts.

use axum::response::Response;

use super::super::error::XrpcError;
use super::{JSON, Query, cacheable};

pub(super) async fn get_stats(query: Query) -> Result<Response, XrpcError> {
    let _slot = query.shared.acquire_slot()?;
    let statistics = query.shared.resolver.directory().statistics().await?;
    Ok(cacheable(
        &statistics.body,
        &statistics.etag,
        JSON,
        &query.headers,
    ))
}
