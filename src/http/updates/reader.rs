//! One reader of the stream.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::super::socket::{self, Ended, PING_INTERVAL, SILENCE_TIMEOUT, write, write_frames};
use super::frames::{self, Info, StreamError, push_info, push_update};
use super::hub::{Hub, Live, doubt_frame};
use super::replays::Pace;
use crate::directory::Directory;
use crate::store::{LogPosition, StoreError};

/// Longest message of a reader, which has nothing to say.
const MAX_MESSAGE: usize = 1024;

/// The reason why a reader's stream ends.
enum Stop {
    Socket(Ended),
    Stream(StreamError),
}

impl From<Ended> for Stop {
    fn from(ended: Ended) -> Self {
        Self::Socket(ended)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed under a reader of the change log");
        Self::Stream(StreamError::Unavailable)
    }
}

/// A reader before its connection.
pub(super) struct Reader {
    directory: Arc<Directory>,
    hub: Arc<Hub>,
    pace: Pace,
    cursor: Option<i64>,
    stream: Option<String>,
}

/// A reader and its connection.
struct Conversation<'r, S> {
    reader: &'r Reader,
    socket: WebSocketStream<S>,
    pings: Interval,
    last_frame_at: Instant,
    /// Position in the log up to which everything was written.
    position: i64,
}

impl Reader {
    pub(super) fn new(
        directory: Arc<Directory>,
        hub: Arc<Hub>,
        pace: Pace,
        cursor: Option<i64>,
        stream: Option<String>,
    ) -> Self {
        Self {
            directory,
            hub,
            pace,
            cursor,
            stream,
        }
    }

    /// Writes the log to a connection until either side ends it.
    pub(super) async fn serve<S>(self, connection: S, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut pings = tokio::time::interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut conversation = Conversation {
            reader: &self,
            socket: socket::speak(connection, MAX_MESSAGE).await,
            pings,
            last_frame_at: Instant::now(),
            position: 0,
        };
        let stopped = tokio::select! {
            Err(stopped) = conversation.follow() => stopped,
            () = stop.cancelled() => {
                Stop::Socket(Ended::Close(CloseCode::Away, "the service ends"))
            }
        };
        conversation.end(stopped).await;
    }

    /// Returns the log, once the reader's cursor is one of it.
    async fn log(&self) -> Result<LogPosition, Stop> {
        // Without a cursor the log begins now; its name is checked all the same.
        let cursor = self.cursor.unwrap_or(0);
        let checked = self.directory.check_cursor(cursor, self.stream.clone());
        let refused = |refusal| Stop::Stream(StreamError::Cursor(refusal));
        checked.await?.map_err(refused)
    }
}

impl<S> Conversation<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    async fn follow(&mut self) -> Result<std::convert::Infallible, Stop> {
        // Before the log is looked at, so that nothing comes in between.
        let mut live = self.reader.hub.subscribe();
        let log = self.reader.log().await?;
        self.position = self.reader.cursor.unwrap_or(log.newest);
        self.greet(&log).await?;
        if self.position < log.newest {
            // Live frames do not wait for one that reads for long.
            drop(live);
            self.replay(None).await?;
            live = self.reader.hub.subscribe();
            if self.position < self.reader.hub.reached() {
                self.replay(None).await?;
            }
        }
        loop {
            let news = tokio::select! {
                news = live.recv() => news,
                frame = self.socket.next() => {
                    self.hear(frame)?;
                    continue;
                }
                _ = self.pings.tick() => {
                    self.ping().await?;
                    continue;
                }
            };
            let begun = Instant::now();
            match news {
                Ok(live) => self.take(live).await?,
                Err(RecvError::Lagged(_)) => return Err(Stop::Stream(StreamError::TooSlow)),
                Err(RecvError::Closed) => {
                    return Err(Ended::Close(CloseCode::Away, "the service ends").into());
                }
            }
            // A peer is not heard while frames are written to it.
            self.last_frame_at += begun.elapsed();
        }
    }

    /// Writes what a reader has to know of the log before its first update.
    async fn greet(&mut self, log: &LogPosition) -> Result<(), Stop> {
        let mut greeting = Vec::new();
        let info = Info {
            name: "Stream",
            message: "keep the name of the log with the cursor, and give both when you come back",
            stream: Some(&log.stream),
            newest: Some(log.newest),
            known_good_until: None,
        };
        push_info(&mut greeting, &info);
        let until = self.reader.directory.known_good_until().await?;
        if let Some(until) = until {
            greeting.extend(doubt_frame(Some(until.to_string())));
        }
        Ok(write_frames(&mut self.socket, &greeting).await?)
    }

    async fn take(&mut self, live: Live) -> Result<(), Stop> {
        let (after, last, frames, starts) = match live {
            Live::Info(frame) => return Ok(write_frames(&mut self.socket, &frame).await?),
            Live::Updates {
                after,
                last,
                frames,
                starts,
            } => (after, last, frames, starts),
        };
        if last <= self.position {
            return Ok(());
        }
        if self.position < after {
            return self.replay(Some(last)).await;
        }
        let frames = Live::after(&frames, &starts, self.position);
        self.write(&frames).await?;
        self.position = last;
        Ok(())
    }

    /// Writes updates from the store until a position, or until there are no more.
    async fn replay(&mut self, until: Option<i64>) -> Result<(), Stop> {
        loop {
            self.turn().await?;
            let page = self.reader.directory.updates_after(self.position).await?;
            let mut frames = Vec::new();
            for update in &page.updates {
                push_update(&mut frames, update);
            }
            let count = page.updates.len() as u64;
            metrics::counter!("atcomm_updates_replayed_total").increment(count);
            let begun = Instant::now();
            self.write(&frames).await?;
            self.last_frame_at += begun.elapsed();
            self.position = page.reached;
            if page.is_last || until.is_some_and(|until| self.position >= until) {
                return Ok(());
            }
        }
    }

    /// Waits until a page may be read from the store, and hears the peer meanwhile.
    async fn turn(&mut self) -> Result<(), Stop> {
        let reader = self.reader;
        let turn = reader.pace.turn();
        tokio::pin!(turn);
        loop {
            tokio::select! {
                biased;
                () = &mut turn => return Ok(()),
                frame = self.socket.next() => self.hear(frame)?,
                _ = self.pings.tick() => self.ping().await?,
            }
        }
    }

    async fn write(&mut self, frames: &[u8]) -> Result<(), Ended> {
        if frames.is_empty() {
            return Ok(());
        }
        write_frames(&mut self.socket, frames).await
    }

    /// Takes a frame of the peer. tungstenite answers pings.
    fn hear(&mut self, frame: Option<Result<Message, Error>>) -> Result<(), Stop> {
        self.last_frame_at = Instant::now();
        Err(match frame {
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(()),
            Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                Ended::Close(CloseCode::Policy, "a reader has nothing to say")
            }
            Some(Ok(Message::Close(_))) | None => Ended::Gone,
            Some(Err(error)) => socket::broken(&error),
        }
        .into())
    }

    async fn ping(&mut self) -> Result<(), Ended> {
        if self.last_frame_at.elapsed() > SILENCE_TIMEOUT {
            return Err(Ended::Close(
                CloseCode::Normal,
                "nothing was heard for too long",
            ));
        }
        write(&mut self.socket, Message::Ping(Bytes::new())).await
    }

    async fn end(mut self, stopped: Stop) {
        let ended = match stopped {
            Stop::Socket(ended) => ended,
            Stop::Stream(error) => {
                metrics::counter!("atcomm_updates_ended_total", "error" => error.name())
                    .increment(1);
                // A peer that is gone already needs no reason.
                let _ = write_frames(&mut self.socket, &frames::error(error)).await;
                Ended::Close(CloseCode::Policy, error.name())
            }
        };
        socket::close(&mut self.socket, ended).await;
    }
}
