//! WebSockets of the mediator: one message a frame in both directions.
//!
//! A socket does one thing at a time, so a peer that does not read is not read from either. Nothing
//! is lost with a socket: what it was sent stays queued until it is acknowledged.

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

use super::GRACE;
use super::shares::{Share, Shares};
use crate::mediator::{MediatorSettings, Refused, SocketSession};

/// How often a silent peer is asked whether it is still there. Proxies in between close what is
/// silent for a minute.
const PING: Duration = Duration::from_secs(20);

/// A peer that has sent nothing for so long, not even pongs, is gone.
const SILENCE: Duration = Duration::from_secs(65);

/// A peer that does not take a frame for so long is gone.
const WRITE: Duration = Duration::from_secs(30);

/// All open sockets.
#[derive(Clone)]
pub(super) struct Sockets {
    stop: CancellationToken,
    tracker: TaskTracker,
    places: Arc<Semaphore>,
    shares: Shares,
}

/// A socket's place, until it is dropped.
pub(super) struct Place {
    _all: OwnedSemaphorePermit,
    _share: Share,
}

impl Sockets {
    pub(super) fn new(settings: &MediatorSettings) -> Self {
        let places = settings.max_sockets.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            stop: CancellationToken::new(),
            tracker: TaskTracker::new(),
            places: Arc::new(Semaphore::new(places)),
            shares: Shares::new(settings.address_sockets),
        }
    }

    /// A place for one more socket of this address.
    pub(super) fn enter(&self, asker: IpAddr) -> Result<Place, Refused> {
        let all = Arc::clone(&self.places);
        let all = all.try_acquire_owned().map_err(|_| Refused::Busy(PING))?;
        let share = self.shares.take(asker);
        let share = share.ok_or(Refused::RateLimited(PING))?;
        metrics::gauge!("atcomm_mediator_sockets").increment(1.0);
        Ok(Place {
            _all: all,
            _share: share,
        })
    }

    /// Tells sockets to end.
    pub(super) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs one socket so that the end waits for it.
    pub(super) async fn run(&self, socket: impl Future<Output = ()>) {
        self.tracker.track_future(socket).await;
    }

    /// Lets every socket end: each is told so, and has a while to take what is being written.
    pub(super) async fn end(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(GRACE, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("some sockets did not end in time");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("atcomm_mediator_sockets").decrement(1.0);
    }
}

/// Serves one socket until either side ends it.
pub(super) async fn serve(
    mut stream: WebSocket,
    mut session: SocketSession,
    stop: CancellationToken,
) {
    let ended = tokio::select! {
        Err(ended) = converse(&mut stream, &mut session) => ended,
        () = stop.cancelled() => Ended::Say(close_code::AWAY, "the service ends"),
    };
    if let Ended::Say(code, reason) = ended {
        let frame = CloseFrame {
            code,
            reason: Utf8Bytes::from_static(reason),
        };
        // The peer may be gone already.
        drop(tokio::time::timeout(WRITE, stream.send(Message::Close(Some(frame)))).await);
    }
}

/// How a socket ended.
enum Ended {
    /// The peer has closed it or is gone.
    Gone,
    /// It is still to be told why.
    Say(u16, &'static str),
}

async fn converse(
    stream: &mut WebSocket,
    session: &mut SocketSession,
) -> Result<Infallible, Ended> {
    let mut pings = tokio::time::interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let messages = tokio::select! {
            frame = stream.next() => {
                heard = Instant::now();
                match frame {
                    Some(Ok(Message::Text(text))) => session.receive(text.as_bytes()).await,
                    Some(Ok(Message::Binary(bytes))) => session.receive(&bytes).await,
                    // The library answers pings by itself.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_))) | None => return Err(Ended::Gone),
                    Some(Err(error)) => return Err(broken(&error)),
                }
            }
            live = session.live() => live,
            _ = pings.tick() => {
                if heard.elapsed() > SILENCE {
                    return Err(Ended::Say(close_code::NORMAL, "nothing was heard for too long"));
                }
                write(stream, Message::Ping(Bytes::new())).await?;
                // For what nobody rings for, such as mail whose time has come.
                session.look();
                continue;
            }
        };
        for message in messages {
            // JSON is text; what a queue holds was looked at when it came.
            let frame = match Utf8Bytes::try_from(message.clone()) {
                Ok(text) => Message::Text(text),
                Err(_) => Message::Binary(message),
            };
            write(stream, frame).await?;
        }
    }
}

async fn write(stream: &mut WebSocket, frame: Message) -> Result<(), Ended> {
    match tokio::time::timeout(WRITE, stream.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Ended::Gone),
    }
}

/// A frame that cannot be read ends the socket; one that is too long is told so.
fn broken(error: &axum::Error) -> Ended {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if matches!(cause.downcast_ref(), Some(WsError::Capacity(_))) {
            return Ended::Say(close_code::SIZE, "the message is too long");
        }
        source = cause.source();
    }
    Ended::Gone
}
