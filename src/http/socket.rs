//! WebSockets: what those of the mediator and of the change log have in common, and those of the
//! mediator: one message per frame in both directions.
//!
//! The loop of a socket waits for three events: a frame of the peer, messages that live mode
//! delivers, and the ping timer. It handles one event at a time, so frames of a peer that does not
//! read are not read either. A closed socket loses nothing: delivered messages stay queued until
//! the recipient acknowledges them.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::UPGRADE;
use axum::response::{IntoResponse as _, Response};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, FrameHeader, Utf8Bytes};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Activity, read_timeout};
use super::error::XrpcError;
use super::listener::SHUTDOWN_TIMEOUT;
use super::per_address::{AddressPermit, PerAddressLimit};
use crate::mediator::{MediatorSettings, SocketSession};

/// Time between two pings. Proxies on the way usually close a connection that is silent for a
/// minute.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Maximum time without any frame of the peer, pongs included; then the peer counts as gone.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(65);

/// Bytes of the buffers of a socket. Larger messages are read into memory of their own, and are
/// written from where they are.
pub(super) const BUFFER_LEN: usize = 16 * 1024;

/// `Retry-After` for a client that finds no free slot for a socket.
const RETRY_AFTER: Duration = Duration::from_secs(20);

/// The open sockets of one kind, with their limits.
#[derive(Clone)]
pub(super) struct Sockets {
    stop: CancellationToken,
    tracker: TaskTracker,
    slots: Arc<Semaphore>,
    per_address: PerAddressLimit,
    /// The metric that shows how many are open.
    gauge: &'static str,
}

/// A permit for one socket, released when it is dropped.
pub(super) struct SocketPermit {
    gauge: &'static str,
    _slot: OwnedSemaphorePermit,
    _address: AddressPermit,
}

impl Sockets {
    /// Creates limits of `max` sockets in all, and of `address_max` for each address.
    pub(super) fn new(max: usize, address_max: usize, gauge: &'static str) -> Self {
        Self {
            stop: CancellationToken::new(),
            tracker: TaskTracker::new(),
            slots: Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS))),
            per_address: PerAddressLimit::new(address_max),
            gauge,
        }
    }

    /// Returns the limits of the mediator's sockets.
    pub(super) fn of_mediator(settings: &MediatorSettings) -> Self {
        let (max, address_max) = (settings.max_sockets, settings.address_sockets);
        Self::new(max, address_max, "atcomm_mediator_sockets")
    }

    /// Takes a permit for a socket of the address.
    pub(super) fn acquire(&self, client: IpAddr) -> Result<SocketPermit, XrpcError> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            let (status, error) = (StatusCode::SERVICE_UNAVAILABLE, "Overloaded");
            XrpcError::new(status, error, "too many sockets are open").retry_after(RETRY_AFTER)
        })?;
        let address = self.per_address.acquire(client).ok_or_else(|| {
            let (status, error) = (StatusCode::TOO_MANY_REQUESTS, "RateLimitExceeded");
            let message = "too many sockets of this address are open";
            XrpcError::new(status, error, message).retry_after(RETRY_AFTER)
        })?;
        metrics::gauge!(self.gauge).increment(1.0);
        Ok(SocketPermit {
            gauge: self.gauge,
            _slot: slot,
            _address: address,
        })
    }

    /// Answers a handshake, and runs `serve` on the connection that it leads to. The permit is
    /// released at its end, which [`Sockets::shutdown`] waits for.
    pub(super) fn open<F>(
        &self,
        handshake: Response,
        mut request: Request,
        activity: &Arc<Activity>,
        permit: SocketPermit,
        serve: impl FnOnce(TokioIo<Upgraded>, CancellationToken) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send,
    {
        let upgrade = hyper::upgrade::on(&mut request);
        // Without the guard the connection would count the socket's bytes as a request head.
        let guard = activity.busy_guard();
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            // The client may be gone before it has the response.
            if let Ok(connection) = upgrade.await {
                serve(TokioIo::new(connection), stop).await;
            }
            drop((guard, permit));
        });
        handshake
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
        metrics::gauge!(self.gauge).decrement(1.0);
    }
}

/// Returns the response to a WebSocket handshake, or the error for a request that is none. `hint`
/// says what to do here.
pub(super) fn handshake(request: &Request, hint: &'static str) -> Result<Response, Box<Response>> {
    create_response_with_body(request, Body::empty).map_err(|_| {
        let error = XrpcError::new(StatusCode::UPGRADE_REQUIRED, "UpgradeRequired", hint);
        // RFC 9110, section 15.5.22: the response must name the protocol.
        Box::new(([(UPGRADE, "websocket")], error).into_response())
    })
}

/// Speaks WebSocket on a connection. A message of the peer has at most `max_message` bytes.
pub(super) async fn speak<S>(connection: S, max_message: usize) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_LEN)
        .write_buffer_size(BUFFER_LEN)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message));
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// Tells the peer the end of a conversation, unless the peer has left.
pub(super) async fn close<S>(stream: &mut WebSocketStream<S>, ended: Ended)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Ended::Close(code, reason) = ended {
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        // A peer that is gone already needs no reason.
        let _ = write(stream, Message::Close(Some(frame))).await;
    }
}

/// Serves one socket until either side closes it. A message of the peer has at most `max_message`
/// bytes.
pub(super) async fn serve<S>(
    connection: S,
    max_message: usize,
    mut session: SocketSession,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = speak(connection, max_message).await;
    let ended = tokio::select! {
        Err(ended) = converse(&mut stream, &mut session) => ended,
        () = stop.cancelled() => Ended::Close(CloseCode::Away, "the service ends"),
    };
    close(&mut stream, ended).await;
}

/// The end of a conversation.
pub(super) enum Ended {
    /// The peer has closed the socket or is gone.
    Gone,
    /// The socket is to be closed with this code and reason.
    Close(CloseCode, &'static str),
}

async fn converse<S>(
    stream: &mut WebSocketStream<S>,
    session: &mut SocketSession,
) -> Result<Infallible, Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
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
                    // tungstenite answers pings, and reads no bare frames.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Close(_))) | None => return Err(Ended::Gone),
                    Some(Err(error)) => return Err(broken(&error)),
                }
            }
            live = session.live() => live,
            _ = ping_timer.tick() => {
                if last_frame_at.elapsed() > SILENCE_TIMEOUT {
                    let reason = "nothing was heard for too long";
                    return Err(Ended::Close(CloseCode::Normal, reason));
                }
                write(stream, Message::Ping(Bytes::new())).await?;
                // Finds messages that no wake announces, such as those whose delay has passed.
                session.check_store();
                continue;
            }
        };
        let begun = Instant::now();
        for message in messages {
            push(stream, message).await?;
        }
        // A peer is not heard while a message is written to it.
        last_frame_at += begun.elapsed();
    }
}

/// Writes one message of the mediator.
async fn push<S>(stream: &mut WebSocketStream<S>, message: Bytes) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Messages are JSON, hence UTF-8: the queue checked them on arrival.
    let is_text = std::str::from_utf8(&message).is_ok();
    if message.len() > BUFFER_LEN {
        let data = if is_text { Data::Text } else { Data::Binary };
        let writing = write_directly(stream, data, &message);
        return match tokio::time::timeout(read_timeout(message.len()), writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Ended::Gone),
        };
    }
    let frame = match Utf8Bytes::try_from(message.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(message),
    };
    write(stream, frame).await
}

/// Writes a frame, within the time that a peer has to take it.
pub(super) async fn write<S>(stream: &mut WebSocketStream<S>, frame: Message) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match tokio::time::timeout(read_timeout(frame.len()), stream.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Ended::Gone),
    }
}

/// Writes a frame from where its bytes are. tungstenite copies a frame into a buffer of the socket,
/// which stays as large as the largest frame was.
async fn write_directly<S>(
    stream: &mut WebSocketStream<S>,
    data: Data,
    message: &[u8],
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    write_head(&mut head, data, message.len())?;
    // The frames before are out, and none comes between: this task alone writes.
    stream.flush().await?;
    let connection = stream.get_mut();
    connection.write_all(&head).await?;
    connection.write_all(message).await?;
    Ok(connection.flush().await?)
}

/// Appends the head of a frame of the server with this many bytes.
pub(super) fn write_head(to: &mut Vec<u8>, data: Data, len: usize) -> Result<(), Error> {
    let header = FrameHeader {
        opcode: OpCode::Data(data),
        ..FrameHeader::default()
    };
    header.format(len as u64, to)
}

/// Writes frames that are made already, heads included, within the time that a peer has to take
/// them.
pub(super) async fn write_frames<S>(
    stream: &mut WebSocketStream<S>,
    frames: &[u8],
) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let writing = async {
        stream.flush().await.ok()?;
        let connection = stream.get_mut();
        connection.write_all(frames).await.ok()?;
        connection.flush().await.ok()
    };
    match tokio::time::timeout(read_timeout(frames.len()), writing).await {
        Ok(Some(())) => Ok(()),
        Ok(None) | Err(_) => Err(Ended::Gone),
    }
}

/// Maps a read error to the end of the conversation. Only a peer whose message is too long is told
/// the reason.
pub(super) fn broken(error: &Error) -> Ended {
    match error {
        Error::Capacity(_) => Ended::Close(CloseCode::Size, "the message is too long"),
        _ => Ended::Gone,
    }
}
