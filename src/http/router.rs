//! The router: every request that the cache of views does not answer.

use std::sync::{Arc, OnceLock};

use atrium_api::types::string::Nsid;
use axum::Router;
use axum::http::{StatusCode, Uri};

use super::error::XrpcError;
use super::routes::wrong_verb;
use super::socket::Sockets;
use super::{didcomm, pages, xrpc};
use crate::dataset::Editions;
use crate::mediator::{Mediator, PublicAddress};
use crate::resolve::Resolver;

/// Longest NSID in bytes (atproto specification, "Namespaced Identifiers").
const MAX_NSID_LEN: usize = 317;

/// Merges the routes of all modules; without a mediator its paths are unknown. The pages tell of the
/// datasets once there are some.
pub(super) fn router(
    resolver: Resolver,
    mediator: Option<(Mediator, Sockets)>,
    address: Option<&PublicAddress>,
    datasets: Arc<OnceLock<Editions>>,
    max_requests: usize,
) -> Router {
    let served = mediator.as_ref().map(|(mediator, _)| mediator);
    let mut router = Router::new()
        .merge(pages::routes(
            resolver.clone(),
            served,
            datasets,
            max_requests,
        ))
        .merge(xrpc::routes(resolver, served.cloned(), max_requests));
    if let Some((mediator, sockets)) = mediator {
        router = router.merge(didcomm::routes(mediator, sockets));
    } else if let Some(address) = address {
        router = router.merge(didcomm::document_of_directory(address));
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_verb)
}

/// Answers paths that have no route, with the same distinctions as the reference server.
async fn unknown(uri: Uri) -> XrpcError {
    let Some(nsid) = uri.path().strip_prefix("/xrpc/") else {
        return XrpcError::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "there is nothing here; see /",
        );
    };
    // The library matches a regular expression against the whole text, so the length is bounded
    // first.
    if nsid.len() > MAX_NSID_LEN || Nsid::new(nsid.to_owned()).is_err() {
        return XrpcError::invalid("the path below /xrpc/ is not the name of a method");
    }
    XrpcError::new(
        StatusCode::NOT_IMPLEMENTED,
        "MethodNotImplemented",
        "this server does not have that method; see / for those it has",
    )
}
