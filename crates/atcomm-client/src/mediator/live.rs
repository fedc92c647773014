//! Live mode: mail is pushed over a WebSocket.
//!
//! Source: message-pickup 4.0: pushed mail comes as deliveries and stays in the queue until it is
//! acknowledged, so that a connection that breaks loses nothing.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::client::{
    MAX_ANSWER, Mail, MailError, MediatorClient, MediatorDefect, mail, unexpected,
};
use super::route;
use atcomm_net::net::{NetError, Received, StreamReader, Trust, WsOptions};
use atcomm_proto::didcomm::message::{Message, fresh_id};
use atcomm_proto::didcomm::protocol::pickup::{Reply, Request, Version};

/// Timeout for the mediator to confirm live mode.
const LIVE_MODE_TIMEOUT: Duration = Duration::from_secs(15);

/// Time without a frame after which a ping is sent; after as long again the connection counts as
/// broken.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Most bytes of mail that are buffered before live mode is confirmed. Mail beyond it stays in the
/// queue and is fetched with the mail from before.
const MAX_EARLY: usize = MAX_ANSWER;

/// Most messages that are buffered before live mode is confirmed.
const MAX_EARLY_COUNT: usize = 1000;

/// A connection in live mode. Mail from before the connection has to be fetched.
pub struct Live {
    client: MediatorClient,
    reader: StreamReader,
    /// Mail that came before live mode was confirmed.
    early: Vec<Mail>,
    /// When a ping is sent, or the connection counts as broken.
    deadline: Instant,
    is_pinged: bool,
}

impl MediatorClient {
    /// Connects and turns live mode on.
    pub async fn live(&self) -> Result<Live, MailError> {
        let mut services = self.0.document.services.iter();
        let endpoint = services
            .find_map(|service| route::address(service, "wss", "ws"))
            .ok_or(MailError::Unusable(MediatorDefect::NoLiveEndpoint))?;
        let options = WsOptions {
            max_frame: MAX_ANSWER,
            ..WsOptions::default()
        };
        let reader = self
            .0
            .net
            .read_stream(&endpoint, Trust::Untrusted, &options);
        let mut live = Live {
            client: self.clone(),
            reader: reader.await?,
            early: Vec::new(),
            deadline: Instant::now() + PING_INTERVAL,
            is_pinged: false,
        };
        match timeout(LIVE_MODE_TIMEOUT, live.turn_on()).await {
            Ok(Ok(())) => Ok(live),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(MailError::Silent),
        }
    }
}

impl Live {
    async fn turn_on(&mut self) -> Result<(), MailError> {
        let request = Request::Live(true).write(Version::V4, fresh_id());
        let thread = request.id.clone();
        self.reader.send(self.client.seal(request)?).await?;
        loop {
            let message = self.message().await?;
            if message.thid.as_deref() != Some(&thread) && is_delivery(&message) {
                buffer(&mut self.early, delivered(&message)?);
                continue;
            }
            let answer = self.client.in_thread(message, &thread)?;
            return match Reply::of(&answer) {
                Ok(Some((Version::V4, Reply::Status(status)))) if status.live_delivery => Ok(()),
                _ => Err(unexpected()),
            };
        }
    }

    /// Waits for mail. An error ends the connection. Cancel safe.
    pub async fn next(&mut self) -> Result<Vec<Mail>, MailError> {
        if !self.early.is_empty() {
            return Ok(std::mem::take(&mut self.early));
        }
        loop {
            let message = self.message().await?;
            if is_delivery(&message) {
                let mail = delivered(&message)?;
                if !mail.is_empty() {
                    return Ok(mail);
                }
            }
            // Other messages of the mediator are passed over, such as a status after a push that it
            // could not write.
        }
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.reader.close().await;
    }

    /// Returns the next message of the mediator. Frames that are none are passed over.
    async fn message(&mut self) -> Result<Message, MailError> {
        loop {
            let bytes = match timeout_at(self.deadline, self.reader.next()).await {
                Err(_) if self.is_pinged => return Err(NetError::Timeout.into()),
                Err(_) => {
                    self.is_pinged = true;
                    self.deadline = Instant::now() + PING_INTERVAL;
                    self.reader.ping().await?;
                    continue;
                }
                Ok(None) => return Err(NetError::Connect.into()),
                Ok(Some(received)) => received?,
            };
            self.is_pinged = false;
            self.deadline = Instant::now() + PING_INTERVAL;
            let opened = match &bytes {
                Received::Binary(bytes) => self.client.open_answer(bytes),
                Received::Text(text) => self.client.open_answer(text.as_bytes()),
                Received::Alive => continue,
            };
            if let Ok(message) = opened {
                return Ok(message);
            }
        }
    }
}

/// Buffers mail as far as there is room.
fn buffer(early: &mut Vec<Mail>, more: Vec<Mail>) {
    let mut len: usize = early.iter().map(|mail| mail.envelope.len()).sum();
    for mail in more {
        len += mail.envelope.len();
        if len > MAX_EARLY || early.len() >= MAX_EARLY_COUNT {
            break;
        }
        early.push(mail);
    }
}

fn is_delivery(message: &Message) -> bool {
    matches!(
        Reply::of(message),
        Ok(Some((Version::V4, Reply::Delivery { .. })))
    )
}

fn delivered(message: &Message) -> Result<Vec<Mail>, MailError> {
    match Reply::of(message) {
        Ok(Some((_, reply))) => Ok(mail(reply)),
        Ok(None) => Err(unexpected()),
        Err(error) => Err(MailError::NotOurs(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_live_mode_is_on_is_held_up_to_a_limit() {
        let mail = |len: usize| Mail {
            id: "1".to_owned(),
            envelope: vec![0; len],
        };
        let mut early = Vec::new();
        for _ in 0..10 {
            buffer(&mut early, vec![mail(MAX_EARLY / 4); 3]);
        }
        assert_eq!(early.len(), 4);
        let mut early = Vec::new();
        for _ in 0..10 {
            buffer(&mut early, vec![mail(0); 300]);
        }
        assert_eq!(early.len(), MAX_EARLY_COUNT);
    }
}
