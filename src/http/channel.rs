//! The channel: changes with acknowledged delivery, in the protocol of the npm package `@atproto/tap`.
//!
//! A consumer has a name (`?consumer=`), under which the store keeps how far it has acknowledged
//! everything; it goes on there after a crash of either side. An event is sent until it is
//! acknowledged, and the next one of its account after that ([`Window`]). A consumer that connects
//! again takes the place of its connection of before.

mod conversation;
mod window;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use data_encoding::BASE64;
use tokio_util::sync::CancellationToken;

use super::client_address::ClientAddress;
use super::connection::Activity;
use super::error::XrpcError;
use super::params::Params;
use super::routes::CHANNEL;
use super::socket::{self, Sockets};
use super::updates::{ChannelPassword, UpdatesSettings};
use crate::directory::{Consumer, Directory};
use conversation::Conversation;

/// Most connections, each of a consumer.
const MAX_CONNECTIONS: usize = 32;

/// Longest name of a consumer.
const MAX_NAME_LEN: usize = 64;

/// Name of a consumer that gives none.
const DEFAULT_NAME: &str = "default";

/// Length of a header with a password that is read.
const MAX_HEADER_LEN: usize = 1024;

/// `Retry-After` for a consumer that finds no place.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The connected consumers.
#[derive(Clone)]
pub(super) struct Channel {
    directory: Arc<Directory>,
    password: Option<ChannelPassword>,
    sockets: Sockets,
    connected: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

impl Channel {
    pub(super) fn new(directory: Arc<Directory>, settings: &UpdatesSettings) -> Self {
        Self {
            directory,
            password: settings.channel_password.clone(),
            sockets: Sockets::new(
                MAX_CONNECTIONS,
                MAX_CONNECTIONS,
                "atcomm_channel_connections",
            ),
            connected: Arc::default(),
        }
    }

    /// Waits for the end of all connections, which `stop` brings about.
    pub(super) async fn run(&self, stop: CancellationToken) {
        stop.cancelled().await;
        self.sockets.shutdown().await;
    }

    /// Returns a token that ends the connection of a consumer, and ends the one that the consumer
    /// had before.
    fn replace(&self, name: &str) -> CancellationToken {
        let token = CancellationToken::new();
        let mut connected = self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connected.retain(|_, token| !token.is_cancelled());
        if let Some(before) = connected.insert(name.to_owned(), token.clone()) {
            before.cancel();
        }
        token
    }

    /// Refuses a request without the password.
    fn check(&self, headers: &HeaderMap) -> Result<(), Box<Response>> {
        let Some(password) = &self.password else {
            let message = "the channel is off: http.updates.channel_password is not set";
            let error = XrpcError::new(StatusCode::FORBIDDEN, "ChannelDisabled", message);
            return Err(Box::new(error.into_response()));
        };
        if said(headers).is_some_and(|said| password.is(&said)) {
            return Ok(());
        }
        metrics::counter!("atcomm_channel_refused_total").increment(1);
        let message = "the channel takes the user admin with the password of the configuration";
        let error = XrpcError::new(StatusCode::UNAUTHORIZED, "AuthenticationRequired", message);
        let basic = HeaderValue::from_static("Basic realm=\"channel\"");
        Err(Box::new(
            ([(WWW_AUTHENTICATE, basic)], error).into_response(),
        ))
    }
}

/// Returns the password in a request, as HTTP's basic authentication has it (RFC 7617).
fn said(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = header.split_at_checked("Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") || header.len() > MAX_HEADER_LEN {
        return None;
    }
    let text = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
    Some(text.strip_prefix("admin:")?.to_owned())
}

/// Returns the route of the channel.
pub(super) fn routes(channel: Channel) -> Router {
    Router::new()
        .route(CHANNEL.path, get(connect))
        .with_state(channel)
}

async fn connect(
    State(channel): State<Channel>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
    activity: Option<Extension<Arc<Activity>>>,
    request: Request,
) -> Result<Response, XrpcError> {
    if let Err(refused) = channel.check(request.headers()) {
        return Ok(*refused);
    }
    let name = name(&Params::of(request.uri()))?;
    let hint = "open a WebSocket here; see the npm package @atproto/tap";
    let handshake = match socket::handshake(&request, hint) {
        Ok(handshake) => handshake,
        Err(refused) => return Ok(*refused),
    };
    let Some(Extension(activity)) = activity else {
        return Err(XrpcError::internal());
    };
    channel
        .open(name, client, handshake, request, &activity)
        .await
}

impl Channel {
    async fn open(
        self,
        name: String,
        client: IpAddr,
        handshake: Response,
        request: Request,
        activity: &Arc<Activity>,
    ) -> Result<Response, XrpcError> {
        let permit = self.sockets.acquire(client)?;
        let (position, newest) = match self.directory.connect_consumer(&name).await? {
            Consumer::At { position, newest } => (position, newest),
            Consumer::Full => {
                let (status, message) = (StatusCode::CONFLICT, "there are too many consumers");
                let error = XrpcError::new(status, "TooManyConsumers", message);
                return Err(error.retry_after(RETRY_AFTER));
            }
            Consumer::TooOld => {
                let message = "the consumer was away for so long that it may have missed the end of \
                               an account; begin anew under another name";
                return Err(XrpcError::new(StatusCode::GONE, "CursorTooOld", message));
            }
        };
        let replaced = self.replace(&name);
        let conversation = Conversation::new(self.directory, name, position, newest);
        let serve = async move |connection, stop: CancellationToken| {
            conversation.serve(connection, stop, replaced.clone()).await;
            // Its place in the list of the connected is free.
            replaced.cancel();
        };
        Ok(self
            .sockets
            .open(handshake, request, activity, permit, serve))
    }
}

/// Returns the name of the consumer.
fn name(params: &Params<'_>) -> Result<String, XrpcError> {
    let Some(name) = params.one("consumer")? else {
        return Ok(DEFAULT_NAME.to_owned());
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(is_plain) {
        return Err(XrpcError::invalid(format!(
            "parameter consumer is not a name of 1 to {MAX_NAME_LEN} letters, digits, -, _ and ."
        )));
    }
    Ok(name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_read_as_the_client_sends_it() {
        let read = |header: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
            said(&headers)
        };
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
        assert_eq!(read(&basic("admin:a:b")).as_deref(), Some("a:b"));
        assert_eq!(read(&basic("admin:")).as_deref(), Some(""));
        for header in [
            &basic("root:secret"),
            &basic("admin"),
            "Basic",
            "Basic ???",
            "Bearer YWRtaW46YQ==",
            &format!("Basic {}", "A".repeat(2000)),
        ] {
            assert_eq!(read(header), None, "{header}");
        }
        assert_eq!(said(&HeaderMap::new()), None);
    }

    #[test]
    fn a_consumer_has_a_plain_name() {
        let read = |query: &str| name(&Params::of_query(query)).ok();
        assert_eq!(read("").as_deref(), Some("default"));
        assert_eq!(read("consumer=a.B-_9").as_deref(), Some("a.B-_9"));
        for query in [
            "consumer=",
            "consumer=a%20b",
            "consumer=a&consumer=b",
            "consumer=%C3%BC",
            &format!("consumer={}", "a".repeat(65)),
        ] {
            assert_eq!(read(query), None, "{query}");
        }
    }
}
