//! WebSockets of the mediator: one message per frame in both directions.
//!
//! The loop of a socket waits for three events: a frame of the peer, messages that live mode
//! delivers, and the ping timer. It handles one event at a time, so frames of a peer that does not
//! read are not read either. A closed socket loses nothing: delivered messages stay queued until
//! the recipient acknowledges them.

use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::listener::SHUTDOWN_TIMEOUT;
use super::per_address::{AddressPermit, PerAddressLimit};
use crate::mediator::{MediatorSettings, Refused, SocketSession};

/// Time between two pings. Proxies on the way usually close a connection that is silent for a
/// minute.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Maximum time without any frame of the peer, pongs included; then the peer counts as gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(65);

/// Maximum time to write a frame; then the peer counts as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// `Retry-After` for a client that finds no free slot for a socket.
const RETRY_AFTER: Duration = Duration::from_secs(20);

/// The open sockets, with their limits.
#[derive(Clone)]
pub(super) struct Sockets {
    stop: CancellationToken,
    tracker: TaskTracker,
    slots: Arc<Semaphore>,
    per_address: PerAddressLimit,
}

/// A permit for one socket, released when it is dropped.
pub(super) struct SocketPermit {
    _slot: OwnedSemaphorePermit,
    _address: AddressPermit,
}

impl Sockets {
    pub(super) fn new(settings: &MediatorSettings) -> Self {
        let slots = settings.max_sockets.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            stop: CancellationToken::new(),
            tracker: TaskTracker::new(),
            slots: Arc::new(Semaphore::new(slots)),
            per_address: PerAddressLimit::new(settings.address_sockets),
        }
    }

    /// Takes a permit for a socket of the address.
    pub(super) fn acquire(&self, client: IpAddr) -> Result<SocketPermit, Refused> {
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| Refused::Busy(RETRY_AFTER))?;
        let address = self
            .per_address
            .acquire(client)
            .ok_or(Refused::RateLimited(RETRY_AFTER))?;
        metrics::gauge!("atcomm_mediator_sockets").increment(1.0);
        Ok(SocketPermit {
            _slot: slot,
            _address: address,
        })
    }

    /// Returns the token that tells every socket to close.
    pub(super) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs one socket; [`Sockets::shutdown`] waits for its end.
    pub(super) async fn run(&self, socket: impl Future<Output = ()>) {
        self.tracker.track_future(socket).await;
    }

    /// Tells every socket to close, and waits at most [`SHUTDOWN_TIMEOUT`] for pending writes.
    pub(super) async fn shutdown(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("some sockets did not end in time");
        }
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        metrics::gauge!("atcomm_mediator_sockets").decrement(1.0);
    }
}

/// Serves one socket until either side closes it.
pub(super) async fn serve(
    mut stream: WebSocket,
    mut session: SocketSession,
    stop: CancellationToken,
) {
    let ended = tokio::select! {
        Err(ended) = converse(&mut stream, &mut session) => ended,
        () = stop.cancelled() => Ended::Close(close_code::AWAY, "the service ends"),
    };
    if let Ended::Close(code, reason) = ended {
        let frame = CloseFrame {
            code,
            reason: Utf8Bytes::from_static(reason),
        };
        // A peer that is gone already needs no reason.
        let _ = tokio::time::timeout(WRITE_TIMEOUT, stream.send(Message::Close(Some(frame)))).await;
    }
}

/// The end of a conversation.
enum Ended {
    /// The peer has closed the socket or is gone.
    Gone,
    /// The socket is to be closed with this code and reason.
    Close(u16, &'static str),
}

async fn converse(
    stream: &mut WebSocket,
    session: &mut SocketSession,
) -> Result<Infallible, Ended> {
    let mut ping_timer = tokio::time::interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    ping_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_frame_at = Instant::now();
    loop {
        let messages = tokio::select! {
            frame = stream.next() => {
                last_frame_at = Instant::now();
                match frame {
                    Some(Ok(Message::Text(text))) => session.receive(text.as_bytes()).await,
                    Some(Ok(Message::Binary(bytes))) => session.receive(&bytes).await,
                    // tungstenite answers pings.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_))) | None => return Err(Ended::Gone),
                    Some(Err(error)) => return Err(broken(&error)),
                }
            }
            live = session.live() => live,
            _ = ping_timer.tick() => {
                if last_frame_at.elapsed() > SILENCE_TIMEOUT {
                    return Err(Ended::Close(close_code::NORMAL, "nothing was heard for too long"));
                }
                write(stream, Message::Ping(Bytes::new())).await?;
                // Finds messages that no wake announces, such as those whose delay has passed.
                session.check_store();
                continue;
            }
        };
        for message in messages {
            // Messages are JSON, hence UTF-8: the queue checked them on arrival.
            let frame = match Utf8Bytes::try_from(message.clone()) {
                Ok(text) => Message::Text(text),
                Err(_) => Message::Binary(message),
            };
            write(stream, frame).await?;
        }
    }
}

async fn write(stream: &mut WebSocket, frame: Message) -> Result<(), Ended> {
    match tokio::time::timeout(WRITE_TIMEOUT, stream.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Ended::Gone),
    }
}

/// Maps a read error to the end of the conversation. Only a peer whose message is too long is told
/// the reason.
fn broken(error: &axum::Error) -> Ended {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if matches!(cause.downcast_ref(), Some(WsError::Capacity(_))) {
            return Ended::Close(close_code::SIZE, "the message is too long");
        }
        source = cause.source();
    }
    Ended::Gone
}
