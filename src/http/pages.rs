//! Plain pages for people who open the server's address.

use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;

use super::xrpc::ENDPOINTS;

/// Crawlers would make us look up whatever handle they come across.
const ROBOTS: &str = "User-agent: *\nDisallow: /xrpc/\n";

/// What this is, and how to ask it.
pub(super) async fn index() -> impl IntoResponse {
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
    ([(CACHE_CONTROL, "public, max-age=300")], page)
}

/// What crawlers may do.
pub(super) async fn robots() -> impl IntoResponse {
    ([(CACHE_CONTROL, "public, max-age=3600")], ROBOTS)
}
