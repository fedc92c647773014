//! Fetching the DID documents of accounts.
//!
//! Source: did:plc and did:web method specifications; atproto DID specification.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use url::Url;

use super::document::{DidDocument, DocumentError, MAX_DOCUMENT_LEN};
use super::lookups::{ByteSize, Fetched};
use super::settings::IdentitySettings;
use crate::net::{Net, NetError, Priority, Refusal, Request, Response, Trust};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::{Did, Origin, WebDid};

/// Errors of looking up an account's DID document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The directory or the host answered that there is none.
    #[error("there is no such DID")]
    NotFound,
    /// The DID was ended for good.
    #[error("the DID is tombstoned")]
    Tombstoned,
    /// The answer is not the DID's document.
    #[error("malformed DID document: {0}")]
    Malformed(#[from] DocumentError),
    /// No answer about the DID came. A later look-up may succeed.
    #[error("the DID cannot be looked up now")]
    Unreachable {
        /// The time until a new attempt makes sense, where it is known.
        retry_after: Option<Duration>,
    },
    /// The network policy forbids dialling the host of the `did:web`.
    #[error("the DID names a host that is not dialled: {0}")]
    Refused(#[source] Refusal),
}

/// Fetches the DID document of an account: from the PLC directory, or from the host of a `did:web`.
pub(super) async fn fetch(
    net: &Net,
    plc_url: &Origin,
    clock: &Clock,
    did: &Did,
    priority: Priority,
) -> Result<DidDocument, IdentityError> {
    let fetched = fetch_bytes(net, plc_url, clock, did, priority).await;
    let result = fetched.and_then(|(body, asked_at)| Ok(DidDocument::parse(&body, did, asked_at)?));
    count(result.as_ref().err());
    result
}

/// Counts the outcome of fetching a document.
pub(super) fn count(error: Option<&IdentityError>) {
    let outcome = match error {
        None => "ok",
        Some(IdentityError::NotFound) => "not_found",
        Some(IdentityError::Tombstoned) => "tombstoned",
        Some(IdentityError::Malformed(_)) => "malformed",
        Some(IdentityError::Unreachable { .. }) => "unreachable",
        Some(IdentityError::Refused(_)) => "refused",
    };
    metrics::counter!("atcomm_identity_documents_total", "outcome" => outcome).increment(1);
}

/// Fetches the document likewise, and returns it as it was served, with the time at which it was
/// asked for.
pub(super) async fn fetch_bytes(
    net: &Net,
    plc_url: &Origin,
    clock: &Clock,
    did: &Did,
    priority: Priority,
) -> Result<(Bytes, Timestamp), IdentityError> {
    let (url, trust) = match did.web() {
        Some(web) => (account_web_url(net, &web)?, Trust::Untrusted),
        None => (
            Url::parse(&format!("{plc_url}/{did}")).ok(),
            Trust::Configured,
        ),
    };
    let url = url.ok_or(IdentityError::NotFound)?;
    let request = Request {
        priority,
        accept: Some("application/did+ld+json, application/json"),
        ..Request::new(url, trust, MAX_DOCUMENT_LEN)
    };
    let asked_at = clock.now();
    match net.get(&request).await {
        Ok(answer) => read_answer(answer, did).map(|body| (body, asked_at)),
        Err(NetError::Refused(refusal)) => Err(IdentityError::Refused(refusal)),
        Err(NetError::TooLarge { .. }) => Err(DocumentError::TooLong.into()),
        Err(e) => Err(IdentityError::Unreachable {
            retry_after: e.retry_after(),
        }),
    }
}

fn read_answer(answer: Response, did: &Did) -> Result<Bytes, IdentityError> {
    match answer.status.as_u16() {
        200 => Ok(answer.body),
        // The PLC directory distinguishes the two only by its message.
        404 if did.web().is_none() && says_tombstoned(&answer.body, did) => {
            Err(IdentityError::Tombstoned)
        }
        404 => Err(IdentityError::NotFound),
        410 => Err(IdentityError::Tombstoned),
        _ => Err(IdentityError::Unreachable {
            retry_after: answer.retry_after,
        }),
    }
}

/// Whether `body` is the answer of the PLC directory's server (`@did-plc/server`) for this
/// tombstoned DID. Nothing less will do, since everything known of the account is deleted then.
fn says_tombstoned(body: &[u8], did: &Did) -> bool {
    let answer = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = answer
        .as_ref()
        .and_then(|answer| answer.get("message")?.as_str());
    message.and_then(|message| message.strip_prefix("DID not available: ")) == Some(did.as_str())
}

/// Returns the address of an account's `did:web` document. A port is allowed in development only
/// (atproto DID specification).
fn account_web_url(net: &Net, web: &WebDid) -> Result<Option<Url>, IdentityError> {
    if web.port.is_some() && !net.development() {
        return Err(IdentityError::Refused(Refusal::Port));
    }
    Ok(web_url(net, web))
}

/// Returns the address of a `did:web` document (did:web method specification): under
/// `/.well-known` unless the DID has a path. In development `localhost` has plain HTTP, since its
/// test servers have.
pub(super) fn web_url(net: &Net, web: &WebDid) -> Option<Url> {
    let (scheme, default_port) = if net.development() && web.host == "localhost" {
        ("http", 80)
    } else {
        ("https", net.https_port())
    };
    let port = web.port.unwrap_or(default_port);
    let path = if web.path.is_empty() {
        ".well-known".to_owned()
    } else {
        web.path.join("/")
    };
    Url::parse(&format!("{scheme}://{}:{port}/{path}/did.json", web.host)).ok()
}

impl IdentitySettings {
    /// Returns how long the result of fetching a document is fresh and usable, and whether it is
    /// transient.
    pub(super) fn age_of(&self, error: Option<&IdentityError>) -> (Duration, Duration, bool) {
        match error {
            None => (self.document_fresh, self.hard_limit, false),
            // No longer than the time that it names: our own limits pass within seconds.
            Some(IdentityError::Unreachable { retry_after }) => {
                let ttl = retry_after.map_or(self.error_ttl, |wait| wait.min(self.error_ttl));
                (ttl, ttl, true)
            }
            Some(_) => (self.error_ttl, self.error_ttl, false),
        }
    }

    /// Adds the limits of age to the result of fetching a document, whole or as far as it is used.
    pub(super) fn documents_age<T>(
        &self,
        value: Result<Arc<T>, IdentityError>,
    ) -> Fetched<Result<Arc<T>, IdentityError>> {
        let (fresh, usable, transient) = self.age_of(value.as_ref().err());
        Fetched {
            value,
            fresh,
            usable,
            transient,
        }
    }
}

impl ByteSize for Result<Arc<DidDocument>, IdentityError> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, |document| {
            let pds = document.pds.as_ref().map_or(0, |pds| pds.as_str().len());
            let handle = document.claimed_handle.as_ref();
            size_of::<DidDocument>()
                + document.did.as_str().len()
                + pds
                + handle.map_or(0, |handle| handle.as_str().len())
        })
    }
}
