//! The messages of a stream: their places, and what they say of accounts.

use atcomm_net::net::{NetError, Received};
use atcomm_proto::wire::{Frame, FrameError, JetstreamEvent, JetstreamKind};

use super::super::SourceKind;
use super::poison::Verdict;
use super::position::Mark;
use super::state::{Action, End, StreamEvent};
use super::{Reader, now};

impl Reader {
    /// Handles one message.
    pub(super) fn message(&mut self, message: Option<Result<Received, NetError>>) -> Action {
        match message {
            None => Action::Disconnect(End::Lost("closed by the server".to_owned())),
            Some(Err(NetError::TooLarge { cap })) => {
                Action::Disconnect(End::TooLarge(format!("a message of more than {cap} bytes")))
            }
            Some(Err(error)) => Action::Disconnect(End::Lost(error.to_string())),
            Some(Ok(Received::Binary(bytes))) => self.frame(&bytes),
            Some(Ok(Received::Text(text))) => self.event(&text),
            Some(Ok(Received::Alive)) => Action::Continue,
        }
    }

    /// Handles one frame of `subscribeRepos`.
    fn frame(&mut self, bytes: &[u8]) -> Action {
        if self.source.kind == SourceKind::Jetstream {
            return self.poisoned(bytes, "a binary message from a Jetstream");
        }
        let parsed = Frame::parse(bytes);
        let event = match &parsed {
            Ok(frame) => match self.place(frame, bytes) {
                Ok(event) => event,
                Err(end) => return Action::Disconnect(end),
            },
            Err(FrameError::Event { seq, .. }) => Some(StreamEvent::At {
                seq: *seq,
                mark: Mark::of_frame(None, bytes),
            }),
            Err(error @ FrameError::Framing(_)) => {
                self.handler().malformed(error);
                return self.poisoned(bytes, &error.to_string());
            }
        };
        self.poison.on_readable();
        let action = event.map_or(Action::Continue, |event| {
            self.state.on_event(event, self.clock.now())
        });
        // What was handled before costs nothing.
        if matches!(action, Action::Continue | Action::Report(_)) {
            match &parsed {
                Ok(frame) => self.handle(frame),
                Err(error) => self.handler().malformed(error),
            }
        }
        action
    }

    /// Handles a message that cannot be read.
    fn poisoned(&mut self, message: &[u8], why: &str) -> Action {
        match self.poison.on_unreadable(message, now()) {
            Verdict::Disconnect => Action::Disconnect(End::Poisoned(why.to_owned())),
            Verdict::Unreadable => Action::Disconnect(End::Unreadable(why.to_owned())),
            Verdict::PassOver => {
                self.handler().passed_over(message);
                Action::Continue
            }
        }
    }

    /// Returns what a frame says of the course of the stream.
    fn place<'f>(
        &self,
        frame: &Frame<'f>,
        bytes: &'f [u8],
    ) -> Result<Option<StreamEvent<'f>>, End> {
        let at = |seq, time| {
            let mark = Mark::of_frame(time, bytes);
            Ok(Some(StreamEvent::At { seq, mark }))
        };
        match frame {
            Frame::Commit(commit) => at(commit.seq, Some(commit.time)),
            Frame::Sync(sync) => at(sync.seq, Some(sync.time)),
            Frame::Identity(identity) => at(identity.seq, Some(identity.time)),
            Frame::Account(account) => at(account.seq, Some(account.time)),
            Frame::Info { name, message } => {
                tracing::warn!(source = self.source.name, name, message, "the source says");
                Ok((*name == "OutdatedCursor").then_some(StreamEvent::OutdatedCursor))
            }
            Frame::Error {
                error: "FutureCursor",
                ..
            } => Ok(Some(StreamEvent::FutureCursor)),
            Frame::Error { error, message } => Err(End::Lost(format!(
                "{error}: {}",
                message.unwrap_or_default()
            ))),
            Frame::Unknown { seq: Some(seq), .. } => at(*seq, None),
            Frame::Unknown { seq: None, .. } => Ok(None),
        }
    }

    /// Handles what a frame says of an account.
    fn handle(&mut self, frame: &Frame<'_>) {
        match frame {
            Frame::Commit(commit) => self.handler().commit(commit),
            Frame::Sync(sync) => self.handler().sync(sync.did),
            Frame::Identity(identity) => self.handler().identity(identity.did),
            Frame::Account(account) => self.handler().account(account),
            Frame::Info { .. } | Frame::Error { .. } => {}
            Frame::Unknown { .. } => count_drop("unknown_kind"),
        }
    }

    /// Handles one message of a Jetstream.
    fn event(&mut self, text: &str) -> Action {
        if self.source.kind != SourceKind::Jetstream {
            return self.poisoned(text.as_bytes(), "a text message from a firehose");
        }
        self.poison.on_readable();
        match JetstreamEvent::parse(text) {
            Ok(event) => {
                let place = jetstream_place(&event);
                let action = self.state.on_event(place, self.clock.now());
                if matches!(action, Action::Continue | Action::Report(_)) {
                    self.handler().jetstream(&event);
                }
                action
            }
            // A message that is not an event does not end a stream of hints.
            Err(error) => {
                count_drop(error.reason());
                Action::Continue
            }
        }
    }
}

/// Returns what an event of a Jetstream says of the course of the stream.
fn jetstream_place<'e>(event: &JetstreamEvent<'_>) -> StreamEvent<'e> {
    let parts: [&[u8]; 3] = match &event.kind {
        JetstreamKind::Commit { rev, operation, .. } => [
            b"commit",
            rev.as_deref().unwrap_or_default().as_bytes(),
            operation.as_bytes(),
        ],
        JetstreamKind::Identity => [b"identity", b"", b""],
        JetstreamKind::Account { .. } => [b"account", b"", b""],
        JetstreamKind::Other => [b"", b"", b""],
    };
    let [kind, rev, operation] = parts;
    let parts = [event.did.as_bytes(), kind, rev, operation];
    StreamEvent::Jetstream {
        time_us: event.time_us,
        number: event.number,
        mark: Mark::of_jetstream(event.time_us, &parts),
    }
}

fn count_drop(reason: &'static str) {
    metrics::counter!("atcomm_ingest_drops_total", "reason" => reason).increment(1);
}
