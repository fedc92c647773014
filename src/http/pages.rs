//! Plain pages for people who open the server's address.

use axum::http::HeaderName;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;

use super::didcomm::{DOCUMENT, INVITATION};
use super::xrpc::ENDPOINTS;
use crate::mediator::ENDPOINT;
use crate::syntax::MediatorDid;

/// Crawlers would make us look up whatever handle they come across, and the mediator's paths have
/// nothing for them.
const ROBOTS: &str = "User-agent: *\nDisallow: /xrpc/\nDisallow: /didcomm\nDisallow: /invitation\n";

/// What this is, and how to ask it.
pub(super) fn index(mediator: Option<&MediatorDid>) -> ([(HeaderName, &'static str); 1], String) {
    let mut page = format!(
        "atcomm {}\n\n\
         A directory of at.didcomm.keyPackage records: it says how to send an encrypted DIDComm\n\
         message to an atproto account, with the proof that the account itself said so.\n\n",
        env!("CARGO_PKG_VERSION"),
    );
    for endpoint in &ENDPOINTS {
        page.push_str(endpoint.example);
        page.push('\n');
    }
    page.push_str("\nThe methods at.didcomm.directory.* are experimental.\n");
    if let Some(did) = mediator {
        page.push_str(&format!(
            "\nA mediator, too: it keeps encrypted DIDComm messages for who names it in a key\n\
             package, until they are picked up, and cannot read them.\n\n\
             {did}\n\
             POST {ENDPOINT}  an encrypted message\n\
             GET {ENDPOINT}  a WebSocket, one message a frame\n\
             GET {DOCUMENT}  its DID document\n\
             GET {INVITATION}  its invitation, for clients that know no did:web\n",
        ));
    }
    ([(CACHE_CONTROL, "public, max-age=300")], page)
}

/// What crawlers may do.
pub(super) async fn robots() -> impl IntoResponse {
    ([(CACHE_CONTROL, "public, max-age=3600")], ROBOTS)
}
