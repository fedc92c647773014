//! Plain text pages for people who open the address of the server.

use axum::Router;
use axum::http::header::CACHE_CONTROL;
use axum::routing::get;

use super::routes;
use atcomm_proto::syntax::MediatorDid;

/// Keeps crawlers away from XRPC methods, which would look up every handle that a crawler finds,
/// and from the mediator's paths, which have nothing for them.
const ROBOTS: &str = "User-agent: *\nDisallow: /xrpc/\nDisallow: /didcomm\nDisallow: /invitation\n";

/// Returns the routes of all pages.
pub(super) fn routes(mediator: Option<&MediatorDid>) -> Router {
    let index = (
        [(CACHE_CONTROL, "public, max-age=300")],
        index_text(mediator),
    );
    let robots = ([(CACHE_CONTROL, "public, max-age=3600")], ROBOTS);
    Router::new()
        .route("/", get(async || index))
        .route("/robots.txt", get(async move || robots))
}

/// Writes the page at `/`: what the server is, and its routes with examples.
fn index_text(mediator: Option<&MediatorDid>) -> String {
    let mut page = format!(
        "atcomm {}\n\n\
         A directory of at.didcomm.keyPackage records: it says how to send an encrypted DIDComm\n\
         message to an atproto account, with the proof that the account itself said so.\n\n",
        env!("CARGO_PKG_VERSION"),
    );
    for route in routes::XRPC {
        page.push_str(route.example);
        page.push('\n');
    }
    page.push_str("\nThe methods at.didcomm.directory.* are experimental.\n");
    if let Some(did) = mediator {
        page.push_str(&format!(
            "\nA mediator, too: it keeps encrypted DIDComm messages for who names it in a key\n\
             package, until they are picked up, and cannot read them.\n\n\
             {did}\n",
        ));
        for route in &routes::MEDIATOR {
            page.push_str(route.example);
            page.push('\n');
        }
    }
    page
}
