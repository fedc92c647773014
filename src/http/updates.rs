//! The stream of changes: `at.didcomm.directory.subscribeUpdates`, in the framing of atproto's event
//! streams.
//!
//! A live frame is made once, by the [`Hub`], and its bytes are written to all readers. A reader that
//! is behind is brought up to date from the store, a page at a time, at the pace that [`Replays`]
//! allows. A reader holds one page at most; one that falls behind the live frames is ended, and
//! comes back with its cursor.

mod frames;
mod hub;
mod reader;
mod replays;
mod settings;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::client_address::ClientAddress;
use super::connection::Activity;
use super::error::XrpcError;
use super::params::{Params, integer};
use super::routes::SUBSCRIBE_UPDATES;
use super::socket::{self, Sockets};
use crate::directory::Directory;
use hub::Hub;
use reader::Reader;
use replays::Replays;

pub use settings::{ChannelPassword, UpdatesSettings};

/// Longest name of a log that is read from a request.
const MAX_STREAM_LEN: usize = 64;

/// The readers of the change log and what they share.
#[derive(Clone)]
pub(super) struct Updates {
    directory: Arc<Directory>,
    hub: Arc<Hub>,
    replays: Replays,
    sockets: Sockets,
}

impl Updates {
    pub(super) fn new(directory: Arc<Directory>, settings: &UpdatesSettings) -> Self {
        Self {
            hub: Arc::new(Hub::new(Arc::clone(&directory))),
            directory,
            replays: Replays::default(),
            sockets: Sockets::new(
                settings.subscribers,
                settings.address_subscribers,
                "atcomm_updates_subscribers",
            ),
        }
    }

    /// Makes live frames until `stop`, and then waits for the end of all sockets.
    pub(super) async fn run(&self, stop: CancellationToken) {
        self.hub.run(stop).await;
        self.sockets.shutdown().await;
    }

    fn reader(&self, client: IpAddr, cursor: Option<i64>, stream: Option<String>) -> Reader {
        Reader::new(
            Arc::clone(&self.directory),
            Arc::clone(&self.hub),
            self.replays.pace_of(client),
            cursor,
            stream,
        )
    }
}

/// Returns the route of the stream.
pub(super) fn routes(updates: Updates) -> Router {
    Router::new()
        .route(SUBSCRIBE_UPDATES.path, get(subscribe))
        .with_state(updates)
}

async fn subscribe(
    State(updates): State<Updates>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
    activity: Option<Extension<Arc<Activity>>>,
    request: Request,
) -> Result<Response, XrpcError> {
    let params = Params::of(request.uri());
    let cursor = cursor(&params)?;
    let stream = params.one("stream")?;
    if stream
        .as_ref()
        .is_some_and(|name| name.len() > MAX_STREAM_LEN)
    {
        return Err(XrpcError::invalid(
            "parameter stream is none that this server gave",
        ));
    }
    let stream = stream.map(|name| name.into_owned());
    let hint = "open a WebSocket here; see the specification of event streams";
    let handshake = match socket::handshake(&request, hint) {
        Ok(handshake) => handshake,
        Err(refused) => return Ok(*refused),
    };
    let Some(Extension(activity)) = activity else {
        return Err(XrpcError::internal());
    };
    let permit = updates.sockets.acquire(client)?;
    let reader = updates.reader(client, cursor, stream);
    let serve = move |connection, stop| reader.serve(connection, stop);
    let sockets = &updates.sockets;
    Ok(sockets.open(handshake, request, &activity, permit, serve))
}

/// Returns the position after which the reader goes on; 0 is the beginning of the log.
fn cursor(params: &Params<'_>) -> Result<Option<i64>, XrpcError> {
    let Some(text) = params.one("cursor")? else {
        return Ok(None);
    };
    let cursor = integer(&text).filter(|cursor| *cursor >= 0);
    cursor
        .map(Some)
        .ok_or_else(|| XrpcError::invalid("parameter cursor is not a number from 0 on"))
}
