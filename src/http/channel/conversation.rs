//! The conversation with one consumer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::super::socket::{
    self, Ended, PING_INTERVAL, SILENCE_TIMEOUT, write, write_frames, write_head,
};
use super::window::Window;
use crate::directory::Directory;
use crate::store::StoreError;

/// Longest message of a consumer: an acknowledgement is far shorter.
const MAX_MESSAGE: usize = 1024;

/// Time between two looks at the log for a consumer that has everything, and between two times at
/// which what it acknowledged is written down.
const INTERVAL: Duration = Duration::from_millis(200);

/// Bytes of events that are written at once.
const WRITE_LEN: usize = 32 * 1024;

/// An acknowledgement.
#[derive(Deserialize)]
struct Acknowledgement {
    r#type: String,
    id: i64,
}

/// A consumer before its connection.
pub(super) struct Conversation {
    directory: Arc<Directory>,
    name: String,
    window: Window,
    /// Position up to which the log was read.
    reached: i64,
    /// Position up to which everything is acknowledged, as it is stored.
    stored: i64,
    /// The newest position when the consumer connected: what comes after it is live.
    newest: i64,
    /// Whether there was more in the log than there was room for.
    is_behind: bool,
    last_frame_at: Instant,
}

impl Conversation {
    pub(super) fn new(directory: Arc<Directory>, name: String, position: i64, newest: i64) -> Self {
        Self {
            directory,
            name,
            window: Window::default(),
            reached: position,
            stored: position,
            newest,
            is_behind: false,
            last_frame_at: Instant::now(),
        }
    }

    /// Delivers changes until either side ends it, the service stops, or the consumer connects again.
    ///
    /// The client comes back only after a connection that breaks off: one that is closed properly
    /// ends it for good. So only a consumer that is replaced, or that breaks the protocol, is told.
    pub(super) async fn serve<S>(
        mut self,
        connection: S,
        stop: CancellationToken,
        replaced: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = socket::speak(connection, MAX_MESSAGE).await;
        let ended = tokio::select! {
            Err(ended) = self.deliver(&mut stream) => ended,
            () = stop.cancelled() => Ended::Gone,
            () = replaced.cancelled() => {
                Ended::Close(CloseCode::Policy, "the consumer has connected again")
            }
        };
        // What is lost here is delivered again.
        if let Err(error) = self.store().await {
            tracing::error!(%error, "the position of a consumer could not be written");
        }
        socket::close(&mut stream, ended).await;
    }

    async fn deliver<S>(&mut self, stream: &mut WebSocketStream<S>) -> Result<Infallible, Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut looks = interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                frame = stream.next() => {
                    self.hear(frame)?;
                    if self.window.has_room() && self.is_behind {
                        self.fill().await?;
                    }
                }
                _ = looks.tick() => {
                    self.store().await.map_err(failed)?;
                    self.fill().await?;
                }
                _ = pings.tick() => {
                    if self.last_frame_at.elapsed() > SILENCE_TIMEOUT {
                        return Err(Ended::Gone);
                    }
                    let repeated = self.window.repeat(Instant::now());
                    metrics::counter!("atcomm_channel_repeated_total").increment(repeated);
                    write(stream, Message::Ping(Bytes::new())).await?;
                }
            }
            self.send(stream).await?;
        }
    }

    /// Reads the log as far as there is room.
    async fn fill(&mut self) -> Result<(), Ended> {
        self.is_behind = true;
        while self.window.has_room() {
            let read = self.directory.channel_after(self.reached, self.newest);
            let page = read.await.map_err(failed)?;
            page.events
                .into_iter()
                .for_each(|event| self.window.push(event));
            self.reached = page.reached;
            if page.is_last {
                // What comes from now on is looked for at intervals.
                self.is_behind = false;
                break;
            }
        }
        Ok(())
    }

    /// Sends what is ready.
    async fn send<S>(&mut self, stream: &mut WebSocketStream<S>) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = Instant::now();
        let (mut frames, mut sent) = (Vec::new(), 0);
        while let Some(body) = self.window.next(begun) {
            // A vector takes everything.
            write_head(&mut frames, Data::Text, body.len()).map_err(|_| Ended::Gone)?;
            frames.extend_from_slice(&body);
            sent += 1;
            if frames.len() >= WRITE_LEN {
                write_frames(stream, &frames).await?;
                frames.clear();
            }
        }
        if !frames.is_empty() {
            write_frames(stream, &frames).await?;
        }
        metrics::counter!("atcomm_channel_sent_total").increment(sent);
        // A peer is not heard while events are written to it.
        self.last_frame_at += begun.elapsed();
        Ok(())
    }

    /// Writes down how far everything is acknowledged.
    async fn store(&mut self) -> Result<(), StoreError> {
        let position = self.window.position(self.reached);
        if position > self.stored {
            self.directory.acknowledge(&self.name, position).await?;
            self.stored = position;
        }
        Ok(())
    }

    /// Takes a frame of the consumer. tungstenite answers pings.
    fn hear(&mut self, frame: Option<Result<Message, Error>>) -> Result<(), Ended> {
        self.last_frame_at = Instant::now();
        let text = match frame {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(()),
            Some(Ok(Message::Close(_))) | None => return Err(Ended::Gone),
            Some(Ok(Message::Binary(_))) => return Err(not_understood()),
            Some(Err(error)) => return Err(socket::broken(&error)),
        };
        match serde_json::from_str::<Acknowledgement>(&text) {
            Ok(acknowledgement) if acknowledgement.r#type == "ack" => {
                metrics::counter!("atcomm_channel_acknowledged_total").increment(1);
                self.window.acknowledge(acknowledgement.id);
                Ok(())
            }
            _ => Err(not_understood()),
        }
    }
}

fn not_understood() -> Ended {
    Ended::Close(CloseCode::Policy, "only acknowledgements are understood")
}

fn failed(error: StoreError) -> Ended {
    tracing::error!(%error, "the store failed under a consumer of the channel");
    Ended::Close(
        CloseCode::Error,
        "the directory cannot answer at the moment",
    )
}
