//! WebSockets read message by message: event streams, and mail in live mode.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use url::Url;

use super::client::Net;
use super::error::NetError;
use super::policy::Trust;
use super::socket::{Wire, WsOptions};

/// Time limit of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A binary message.
    Binary(Bytes),
    /// A text message.
    Text(Utf8Bytes),
    /// A ping or a pong, which shows that the peer is alive.
    Alive,
}

/// An open stream.
pub struct StreamReader {
    socket: WebSocketStream<Box<dyn Wire>>,
    max_frame: usize,
    close_code: Option<u16>,
}

impl Net {
    /// Opens a WebSocket to read from, under the policy of [`Net::connect_ws`].
    pub async fn read_stream(
        &self,
        url: &Url,
        trust: Trust,
        options: &WsOptions,
    ) -> Result<StreamReader, NetError> {
        let socket = self.connect_ws(url, trust, options).await?;
        Ok(StreamReader {
            socket,
            max_frame: options.max_frame,
            close_code: None,
        })
    }
}

impl StreamReader {
    /// Returns the next message, or `None` once the server has closed the stream. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Received, NetError>> {
        let message = match self.socket.next().await? {
            Ok(message) => message,
            Err(error) => return Some(Err(self.net_error(&error))),
        };
        Some(Ok(match message {
            Message::Binary(bytes) => Received::Binary(bytes),
            Message::Text(text) => Received::Text(text),
            Message::Close(frame) => {
                self.close_code = frame.map(|frame| frame.code.into());
                return None;
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Received::Alive,
        }))
    }

    /// Returns the code with which the server has closed the stream, if it gave one.
    pub fn close_code(&self) -> Option<u16> {
        self.close_code
    }

    /// Sends a binary message.
    pub async fn send(&mut self, message: Bytes) -> Result<(), NetError> {
        let sent = self.socket.send(Message::Binary(message)).await;
        sent.map_err(|error| self.net_error(&error))
    }

    /// Sends a ping.
    pub async fn ping(&mut self) -> Result<(), NetError> {
        let sent = self.socket.send(Message::Ping(Bytes::new())).await;
        sent.map_err(|error| self.net_error(&error))
    }

    /// Closes the stream, whether or not the server answers.
    pub async fn close(mut self) {
        tokio::time::timeout(CLOSE_TIMEOUT, self.socket.close(None))
            .await
            .ok();
    }

    fn net_error(&self, error: &WsError) -> NetError {
        match error {
            WsError::Capacity(_) => NetError::TooLarge {
                cap: self.max_frame,
            },
            WsError::Io(_) | WsError::ConnectionClosed | WsError::AlreadyClosed => {
                NetError::Connect
            }
            WsError::Utf8(_) => NetError::Protocol("a text message is not UTF-8"),
            _ => NetError::Protocol("the WebSocket broke"),
        }
    }
}
