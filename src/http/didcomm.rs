//! The routes of the mediator: messages, its DID document and its invitation.
//!
//! Source: DIDComm Messaging 2.1, "Transports"; deviations of clients in use are accepted too.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::extract::{Extension, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::client_address::ClientAddress;
use super::connection::Activity;
use super::error::XrpcError;
use super::params::Params;
use super::per_address::{AddressPermit, PerAddressLimit};
use super::routes::{DID_DOCUMENT, INVITATION, MESSAGES};
use super::socket::{self, Sockets};
use crate::mediator::{Answer, Form, Mediator, PublicAddress, Refused};

const ENCRYPTED: HeaderValue = HeaderValue::from_static("application/didcomm-encrypted+json");
const SIGNED: HeaderValue = HeaderValue::from_static("application/didcomm-signed+json");
const DID_JSON: HeaderValue = HeaderValue::from_static("application/did+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Documents change only with the keys, and previous keys stay valid for weeks.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Unit in which memory for messages is counted.
const CHUNK_BYTES: usize = 16 * 1024;

/// Maximum time for a message to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time to drain a body that is too long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum time that a message waits for memory.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(2);

/// `Retry-After` for a sender whose message gets no memory.
const MEMORY_RETRY_AFTER: Duration = Duration::from_secs(2);

/// State of the handlers.
struct Shared {
    mediator: Mediator,
    sockets: Sockets,
    /// Chunks of memory for messages that are being received.
    memory: Arc<Semaphore>,
    /// Limit of one address, so that a client that sends slowly delays only its own messages.
    per_address: PerAddressLimit,
}

/// Returns the routes of the mediator.
pub(super) fn routes(mediator: Mediator, sockets: Sockets) -> Router {
    let settings = mediator.settings();
    // At least one message of the maximum length.
    let memory = settings.receive_memory.max(settings.max_message);
    let chunks = memory
        .div_ceil(CHUNK_BYTES)
        .clamp(1, Semaphore::MAX_PERMITS);
    let of_one_address = chunks / 4 + settings.max_message.div_ceil(CHUNK_BYTES);
    Router::new()
        .route(MESSAGES.path, get(open_socket).post(receive))
        .route(DID_DOCUMENT.path, get(document))
        .route(INVITATION.path, get(invitation))
        .with_state(Arc::new(Shared {
            mediator,
            sockets,
            memory: Arc::new(Semaphore::new(chunks)),
            per_address: PerAddressLimit::new(of_one_address),
        }))
}

/// Returns the route of the DID document of a directory that is no mediator.
pub(super) fn document_of_directory(address: &PublicAddress) -> Router {
    let document = Bytes::from(address.directory_document().to_string());
    Router::new().route(
        DID_DOCUMENT.path,
        get(async move || cacheable(DID_JSON, document)),
    )
}

async fn document(State(shared): State<Arc<Shared>>) -> Response {
    cacheable(DID_JSON, shared.mediator.did_document())
}

/// Returns the invitation as JSON, also for its URL form, which carries it in `_oob`.
async fn invitation(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, XrpcError> {
    let carried = Params::of(&uri).one("_oob")?;
    let body = match carried {
        None => shared.mediator.invitation(),
        Some(text) => shared
            .mediator
            .read_invitation(&text)
            .ok_or_else(|| XrpcError::invalid("_oob is not an invitation of this mediator"))?,
    };
    Ok(cacheable(JSON, body))
}

fn cacheable(media_type: HeaderValue, body: Bytes) -> Response {
    ([(CONTENT_TYPE, media_type), (CACHE_CONTROL, CACHE)], body).into_response()
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
    request: Request,
) -> Result<Response, XrpcError> {
    shared.mediator.charge(client)?;
    let is_usual = has_usual_type(request.headers());
    let max = shared.mediator.settings().max_message;
    let body = request.into_body();
    if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > max {
        drain_body(body.into_data_stream(), max).await;
        return Err(too_large(max));
    }
    let (message, _memory) = shared.read_body(body, max, client).await?;
    if !is_usual && !looks_encrypted(&message) {
        return Err(XrpcError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            "only encrypted messages are received here, as application/didcomm-encrypted+json",
        ));
    }
    let answer = shared.mediator.receive(&message, client).await?;
    Ok(match answer {
        Answer::Accepted => (StatusCode::ACCEPTED, [(CACHE_CONTROL, NO_STORE)]).into_response(),
        Answer::Reply(form, message) => {
            let media_type = match form {
                Form::Encrypted => ENCRYPTED,
                Form::Signed => SIGNED,
            };
            let headers = [(CONTENT_TYPE, media_type), (CACHE_CONTROL, NO_STORE)];
            (headers, message).into_response()
        }
    })
}

/// A chunk of memory, released when it is dropped.
struct MemoryPermit {
    _address: AddressPermit,
    _memory: OwnedSemaphorePermit,
}

impl Shared {
    /// Reads a message. Memory is taken as its parts arrive, so a message that is announced and not
    /// sent holds none.
    async fn read_body(
        &self,
        body: Body,
        max: usize,
        client: IpAddr,
    ) -> Result<(Vec<u8>, Vec<MemoryPermit>), XrpcError> {
        let (mut message, mut memory) = (Vec::new(), Vec::new());
        let mut parts = body.into_data_stream();
        let deadline = Instant::now() + BODY_TIMEOUT;
        let slow = |_| XrpcError::timeout();
        while let Some(part) = timeout_at(deadline, parts.next()).await.map_err(slow)? {
            let part =
                part.map_err(|_| XrpcError::invalid("the body ended before it was complete"))?;
            if part.len() > max - message.len() {
                drain_body(parts, max).await;
                return Err(too_large(max));
            }
            let held = memory.len() * CHUNK_BYTES;
            if message.len() + part.len() > held {
                let missing = message.len() + part.len() - held;
                for _ in 0..missing.div_ceil(CHUNK_BYTES) {
                    memory.push(self.acquire_memory(client).await?);
                }
            }
            message.extend_from_slice(&part);
        }
        Ok((message, memory))
    }

    async fn acquire_memory(&self, client: IpAddr) -> Result<MemoryPermit, XrpcError> {
        let address = self
            .per_address
            .acquire(client)
            .ok_or(Refused::RateLimited(MEMORY_RETRY_AFTER))?;
        let memory = Arc::clone(&self.memory).acquire_owned();
        match tokio::time::timeout(MEMORY_TIMEOUT, memory).await {
            Ok(Ok(permit)) => Ok(MemoryPermit {
                _address: address,
                _memory: permit,
            }),
            _ => Err(Refused::Busy(MEMORY_RETRY_AFTER).into()),
        }
    }
}

/// Reads and discards up to `max` further bytes of a body that is too long. A client that is still
/// writing when the connection closes would not see the response.
async fn drain_body(mut parts: BodyDataStream, max: usize) {
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    let mut len = 0;
    while let Ok(Some(Ok(part))) = timeout_at(deadline, parts.next()).await {
        len += part.len();
        if len > max {
            return;
        }
    }
}

fn too_large(max: usize) -> XrpcError {
    XrpcError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "MessageTooLarge",
        format!("the message is longer than {max} bytes"),
    )
}

/// Returns whether the media type is one that encrypted messages usually come with; clients in use
/// also send none, or a generic one.
fn has_usual_type(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let essence = value.to_str().unwrap_or("?").split(';').next();
    let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
    matches!(
        essence.as_str(),
        "application/didcomm-encrypted+json"
            | "application/json"
            | "application/octet-stream"
            | "application/x-www-form-urlencoded"
            | "text/plain"
            | ""
    )
}

/// Returns whether a body with an unusual media type is an encrypted message. Agents have many names
/// for its type, so the body decides. One pass over a body whose length is bounded.
fn looks_encrypted(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Members {
        ciphertext: Option<IgnoredAny>,
    }
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let members = is_object.then(|| serde_json::from_slice::<Members>(body));
    matches!(members, Some(Ok(members)) if members.ciphertext.is_some())
}

async fn open_socket(
    State(shared): State<Arc<Shared>>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
    Extension(activity): Extension<Arc<Activity>>,
    request: Request,
) -> Result<Response, XrpcError> {
    let hint = "POST an encrypted DIDComm message here, or open a WebSocket";
    let handshake = match socket::handshake(&request, hint) {
        Ok(handshake) => handshake,
        Err(refused) => return Ok(*refused),
    };
    shared.mediator.charge(client)?;
    let permit = shared.sockets.acquire(client)?;
    let session = shared.mediator.socket(client);
    let max = shared.mediator.settings().max_message;
    let serve = move |connection, stop| socket::serve(connection, max, session, stop);
    let sockets = &shared.sockets;
    Ok(sockets.open(handshake, request, &activity, permit, serve))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_media_types_are_known_in_every_spelling() {
        let usual = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            has_usual_type(&headers)
        };
        for value in [
            "application/didcomm-encrypted+json",
            "Application/DIDComm-Encrypted+JSON; charset=utf-8",
            "application/octet-stream",
            "text/plain; charset=utf-8",
            "application/json",
        ] {
            assert!(usual(Some(value)), "{value}");
        }
        assert!(usual(None));
        for value in ["application/didcomm-plain+json", "text/html", "image/png"] {
            assert!(!usual(Some(value)), "{value}");
        }
    }

    #[test]
    fn an_encrypted_message_is_known_by_its_ciphertext() {
        for (body, encrypted) in [
            (r#" {"protected": "", "ciphertext": "x"}"#, true),
            (r#"{"payload": "x"}"#, false),
            (r#"{"body": {"ciphertext": "x"}}"#, false),
            (r#"[{"ciphertext": "x"}]"#, false),
            (r#"["x"]"#, false),
            (r#"{"ciphertext": "x""#, false),
            (r#"{"ciphertext": null}"#, false),
            ("x", false),
            ("", false),
        ] {
            assert_eq!(looks_encrypted(body.as_bytes()), encrypted, "{body}");
        }
    }
}
