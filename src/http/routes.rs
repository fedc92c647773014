//! The table of routes: paths, verbs and names of every method.
//!
//! Handlers, pages and metrics read the table; it knows none of them.

use axum::extract::Request;
use axum::http::{Method, StatusCode};

use super::error::XrpcError;
use super::params::{MAX_ACTORS_QUERY_LEN, MAX_QUERY_LEN};
use crate::mediator::ENDPOINT;

/// A path that is served.
pub(super) struct Route {
    pub(super) path: &'static str,
    /// Name in metrics and logs: the NSID of an XRPC method, the path of any other route.
    pub(super) label: &'static str,
    /// The verb that an error tells to clients that used another one.
    verb: &'static str,
    /// Lines that show the route on the page at `/`.
    pub(super) example: &'static str,
}

macro_rules! xrpc_method {
    ($verb:literal, $nsid:literal, $example:literal) => {
        Route {
            path: concat!("/xrpc/", $nsid),
            label: $nsid,
            verb: $verb,
            example: concat!($verb, " /xrpc/", $nsid, $example),
        }
    };
}

pub(super) const RESOLVE_RECIPIENT: Route = xrpc_method!(
    "GET",
    "at.didcomm.directory.resolveRecipient",
    "?actor=alice.example.com"
);
pub(super) const RESOLVE_RECIPIENTS: Route = xrpc_method!(
    "GET",
    "at.didcomm.directory.resolveRecipients",
    "?actors=alice.example.com&actors=bob.example.com"
);
pub(super) const FIND_BY_PEER: Route = xrpc_method!(
    "GET",
    "at.didcomm.directory.findByPeer",
    "?peer=did:peer:2.Ez6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc"
);
pub(super) const EXPLAIN_ACCOUNT: Route = xrpc_method!(
    "GET",
    "at.didcomm.directory.explainAccount",
    "?did=did:plc:ewvi7nxzyoun6zhxrhs64oiz"
);
pub(super) const GET_REPO_STATUS: Route = xrpc_method!(
    "GET",
    "com.atproto.sync.getRepoStatus",
    "?did=did:plc:ewvi7nxzyoun6zhxrhs64oiz"
);
pub(super) const RESOLVE_HANDLE: Route = xrpc_method!(
    "GET",
    "com.atproto.identity.resolveHandle",
    "?handle=alice.example.com"
);
pub(super) const RESOLVE_DID: Route = xrpc_method!(
    "GET",
    "com.atproto.identity.resolveDid",
    "?did=did:plc:ewvi7nxzyoun6zhxrhs64oiz"
);
pub(super) const RESOLVE_IDENTITY: Route = xrpc_method!(
    "GET",
    "com.atproto.identity.resolveIdentity",
    "?identifier=alice.example.com"
);
pub(super) const GET_PROOF: Route = xrpc_method!(
    "GET",
    "at.didcomm.directory.getProof",
    "?did=did:plc:ewvi7nxzyoun6zhxrhs64oiz"
);
pub(super) const GET_HISTORY: Route = xrpc_method!(
    "GET",
    "at.didcomm.directory.getHistory",
    "?did=did:plc:ewvi7nxzyoun6zhxrhs64oiz&limit=20"
);
pub(super) const LIST_RECIPIENTS: Route = xrpc_method!(
    "GET",
    "at.didcomm.directory.listRecipients",
    "?host=pds.example.com&state=enrolled&limit=100"
);
pub(super) const LIST_MEDIATORS: Route =
    xrpc_method!("GET", "at.didcomm.directory.listMediators", "?limit=50");
pub(super) const GET_STATS: Route = xrpc_method!("GET", "at.didcomm.directory.getStats", "");
pub(super) const LIST_REPOS_BY_COLLECTION: Route = xrpc_method!(
    "GET",
    "com.atproto.sync.listReposByCollection",
    "?collection=at.didcomm.keyPackage"
);
pub(super) const GET_TIMELINE: Route = xrpc_method!(
    "GET",
    "at.didcomm.directory.getTimeline",
    "?interval=week&since=2026-01-01"
);
pub(super) const REFRESH: Route = xrpc_method!(
    "POST",
    "at.didcomm.directory.refresh",
    "  {\"did\": \"did:plc:ewvi7nxzyoun6zhxrhs64oiz\"}"
);
pub(super) const SUBSCRIBE_UPDATES: Route = xrpc_method!(
    "GET",
    "at.didcomm.directory.subscribeUpdates",
    "?cursor=0  a WebSocket"
);
pub(super) const HEALTH: Route = xrpc_method!("GET", "_health", "");

/// All XRPC methods (`lexicons/at/didcomm/directory/*.json`) and the health check.
pub(super) static XRPC: &[Route] = &[
    RESOLVE_RECIPIENT,
    RESOLVE_RECIPIENTS,
    FIND_BY_PEER,
    EXPLAIN_ACCOUNT,
    GET_REPO_STATUS,
    RESOLVE_HANDLE,
    RESOLVE_DID,
    RESOLVE_IDENTITY,
    GET_PROOF,
    GET_HISTORY,
    LIST_RECIPIENTS,
    LIST_MEDIATORS,
    GET_STATS,
    LIST_REPOS_BY_COLLECTION,
    GET_TIMELINE,
    REFRESH,
    SUBSCRIBE_UPDATES,
    // The health check is the last.
    HEALTH,
];

/// Messages by POST and WebSocket.
pub(super) const MESSAGES: Route = Route {
    path: ENDPOINT,
    label: ENDPOINT,
    verb: "POST, or GET for a WebSocket",
    example: "POST /didcomm  an encrypted message\n\
              GET /didcomm  a WebSocket, one message a frame",
};
pub(super) const DID_DOCUMENT: Route = Route {
    path: "/.well-known/did.json",
    label: "/.well-known/did.json",
    verb: "GET",
    example: "GET /.well-known/did.json  its DID document",
};
pub(super) const INVITATION: Route = Route {
    path: "/invitation",
    label: "/invitation",
    verb: "GET",
    example: "GET /invitation  its invitation, for clients that know no did:web",
};

/// All routes of the mediator.
pub(super) static MEDIATOR: [Route; 3] = [MESSAGES, DID_DOCUMENT, INVITATION];

/// Changes with acknowledgements, for consumers of the operator.
pub(super) const CHANNEL: Route = Route {
    path: "/channel",
    label: "/channel",
    verb: "GET for a WebSocket",
    example: "GET /channel  a WebSocket, as the npm package @atproto/tap speaks it",
};

/// The files of the newest edition of the dataset.
pub(super) const DATASET_LATEST: Route = Route {
    path: "/dataset/latest.json",
    label: "/dataset/latest.json",
    verb: "GET",
    example: "GET /dataset/latest.json  the time series as files",
};

/// A file of an edition; in metrics all of them are one.
pub(super) const DATASET_FILES: Route = Route {
    path: "/dataset/{day}/{file}",
    label: "/dataset/",
    verb: "GET",
    example: "GET /dataset/{day}/{file}  a file that /dataset/latest.json lists",
};

/// Returns whether a connection may become a socket at a path.
pub(super) fn has_sockets(path: &str) -> bool {
    [MESSAGES.path, SUBSCRIBE_UPDATES.path, CHANNEL.path].contains(&path)
}

fn find(path: &str) -> Option<&'static Route> {
    XRPC.iter()
        .chain(&MEDIATOR)
        .chain([&CHANNEL, &DATASET_LATEST])
        .find(|route| route.path == path)
        .or_else(|| {
            path.starts_with(DATASET_FILES.label)
                .then_some(&DATASET_FILES)
        })
}

/// Returns the NSID of the XRPC method at a path.
pub(super) fn method(path: &str) -> Option<&'static str> {
    let route = XRPC.iter().find(|route| route.path == path)?;
    Some(route.label).filter(|label| *label != HEALTH.label)
}

/// Returns the name of a path in metrics and logs: one of a closed set, never text of a client.
pub(super) fn label(path: &str) -> &'static str {
    find(path).map_or("other", |route| route.label)
}

/// Returns the most bytes of the query of a path.
pub(super) fn max_query_len(path: &str) -> usize {
    if path == RESOLVE_RECIPIENTS.path {
        MAX_ACTORS_QUERY_LEN
    } else {
        MAX_QUERY_LEN
    }
}

/// Answers a request whose verb the path does not have; the router adds the `Allow` header.
pub(super) async fn wrong_verb(method: Method, request: Request) -> XrpcError {
    let verb = find(request.uri().path()).map_or("GET", |route| route.verb);
    // The client chooses the text and its length: only usual verbs are repeated.
    let method = if method.as_str().len() <= 10 {
        method.as_str()
    } else {
        "as sent"
    };
    XrpcError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "InvalidRequest",
        format!("incorrect HTTP method ({method}), expected {verb}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_path_and_shown_with_it() {
        for route in XRPC.iter().chain(&MEDIATOR) {
            assert_eq!(label(route.path), route.label);
            for line in route.example.lines() {
                let shown = line.split([' ', '?']).nth(1);
                assert_eq!(shown, Some(route.path), "{line}");
            }
        }
        // Its caching, looks and proxying are documented.
        let document = include_str!("../../docs/xrpc.md");
        for route in XRPC.iter().chain([&CHANNEL]) {
            let row = format!("\n| `{}` | ", route.label);
            assert_eq!(document.matches(&row).count(), 1, "{}", route.label);
        }
        assert_eq!(label("/"), "other");
        assert_eq!(label("/dataset/latest.json"), "/dataset/latest.json");
        assert_eq!(label("/dataset/2030-01-01/daily.csv"), "/dataset/");
        assert_eq!(label("/xrpc/app.bsky.actor.getProfile"), "other");
    }
}
