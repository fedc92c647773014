//! Follows one stream: connects, reads, handles, writes, and connects again.
//!
//! The loop here owns the socket, the retries and the clock; [`state`] decides.

mod poison;
mod state;

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::events::EventHandler;
use super::{BackfillHandle, Source, SourceKind};
use crate::directory::{Batch, Outcome};
use crate::resolve::Resolver;
use crate::store::SourceCursor;
use atcomm_net::backoff::{Backoff, Jitter, Spread};
use atcomm_net::net::{NetError, Received, StreamReader, Trust, WsOptions};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::COLLECTION;
use atcomm_proto::wire::{Frame, FrameError, JetstreamEvent, MAX_EVENT, MAX_FRAME};

use poison::{Poison, Verdict};
use state::{Action, End, Gap, GapReason, Next, Position, Step, StreamEvent, StreamState};

/// Keep-alive. Silence is normal beside a quiet PDS: only an unanswered ping ends a connection.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PONG_TIMEOUT: Duration = Duration::from_secs(90);

/// The waits before connecting again, spread so that the followers of a host do not return
/// together.
const RECONNECT: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
    jitter: Jitter::between(0.5, 1.0),
};

/// The waits before a failed write is repeated.
const REWRITE: Backoff = Backoff {
    first: Duration::from_millis(100),
    longest: RECONNECT.longest,
    jitter: Jitter::NONE,
};

/// The reader of one source's stream.
pub(super) struct Reader {
    source: Source,
    resolver: Resolver,
    clock: Clock,
    /// Backfills that find what this stream misses: the source's own, or for a Jetstream, which
    /// enumerates nothing, those of all others.
    backfills: Vec<BackfillHandle>,
    state: StreamState,
    poison: Poison,
    batch: Batch,
}

impl Reader {
    pub(super) fn new(
        source: Source,
        resolver: Resolver,
        clock: Clock,
        backfills: Vec<BackfillHandle>,
    ) -> Self {
        Self {
            state: StreamState::new(source.kind, None, now()),
            poison: Poison::new(now()),
            source,
            resolver,
            clock,
            backfills,
            batch: Batch::default(),
        }
    }

    /// Follows the stream until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !self.load_cursor().await {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(RECONNECT.first) => {}
            }
        }
        loop {
            let began = Instant::now();
            let end = self.connection(&stop).await;
            self.flush(&stop).await;
            metrics::gauge!("atcomm_ingest_connected", "source" => self.source.name.clone())
                .set(0.0);
            match &end {
                End::Stopped | End::FutureCursor => {}
                End::Lost(why) => {
                    tracing::warn!(source = self.source.name, %why, "stream lost, connecting again");
                }
                End::Poisoned(why) => {
                    tracing::warn!(
                        source = self.source.name,
                        %why,
                        "a message cannot be read: connecting again, and passing over it if it \
                         comes again"
                    );
                }
                End::Unreadable(why) => {
                    tracing::warn!(source = self.source.name, %why, "unreadable stream");
                }
            }
            let failures = match self.state.on_end(&end, began.elapsed()) {
                Next::Stop => return,
                Next::Reconnect { failures, gap } => {
                    if let Some(gap) = gap {
                        self.report(gap);
                    }
                    failures
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(RECONNECT.wait(failures, Spread::random())) => {}
            }
        }
    }

    /// Reads the stored cursor. Returns whether the store answered.
    async fn load_cursor(&mut self) -> bool {
        let name = self.source.name.clone();
        let store = self.resolver.directory().store();
        match store.query(move |q| q.cursor(&name)).await {
            Ok(cursor) => {
                let position = cursor.map(|cursor| Position {
                    seq: cursor.position,
                    time: cursor.event_time,
                });
                self.state = StreamState::new(self.source.kind, position, now());
                true
            }
            Err(error) => {
                tracing::error!(%error, "cannot read the cursor");
                false
            }
        }
    }

    /// Counts and logs missed events.
    fn report(&self, gap: Gap) {
        let source = self.source.name.as_str();
        metrics::counter!("atcomm_ingest_gaps_total", "source" => source.to_owned()).increment(1);
        let given_up = |why: &str| {
            tracing::error!(
                source,
                cursor = gap.position,
                "{why}: continuing with what is live, and enumerating the accounts again"
            );
        };
        match gap.reason {
            // Of an outdated cursor the host's own words are logged.
            GapReason::NoCursor | GapReason::Outdated => {}
            GapReason::Expired => {
                tracing::warn!(source, "the cursor is older than what is kept");
            }
            GapReason::Hole => tracing::warn!(source, "the stream continues with a hole"),
            GapReason::Renumbered => given_up("the source counts its events anew"),
            GapReason::FutureCursor => {
                given_up("the source says that our cursor lies in its future");
            }
            GapReason::Unreadable => given_up("the stream cannot be read past this place"),
        }
    }

    fn wake_backfills(&self) {
        for backfill in &self.backfills {
            backfill.wake.notify_one();
        }
    }

    /// Makes one connection and reads it to its end.
    async fn connection(&mut self, stop: &CancellationToken) -> End {
        let max_frame = match self.source.kind {
            SourceKind::Pds | SourceKind::Relay => MAX_FRAME,
            SourceKind::Jetstream => MAX_EVENT,
        };
        let options = WsOptions {
            max_frame,
            ..WsOptions::default()
        };
        let url = self.url();
        let connecting = self
            .resolver
            .net()
            .read_stream(&url, Trust::Configured, &options);
        let mut socket = tokio::select! {
            () = stop.cancelled() => return End::Stopped,
            socket = connecting => match socket {
                Ok(socket) => socket,
                Err(error) => return End::Lost(error.to_string()),
            },
        };
        tracing::info!(source = self.source.name, "following");
        metrics::gauge!("atcomm_ingest_connected", "source" => self.source.name.clone()).set(1.0);
        if let Some(gap) = self.state.on_connect(now(), self.clock.now()) {
            self.report(gap);
        }
        // A backfill that ended before this moment has not seen what came since.
        self.wake_backfills();
        self.poison.on_readable();
        let end = self.read(&mut socket, stop).await;
        socket.close().await;
        end
    }

    /// Returns the address of the stream, from the cursor on.
    fn url(&self) -> Url {
        let path = match self.source.kind {
            SourceKind::Pds | SourceKind::Relay => "/xrpc/com.atproto.sync.subscribeRepos",
            SourceKind::Jetstream => "/subscribe",
        };
        let mut url = self.source.url(path, true);
        if self.source.kind == SourceKind::Jetstream {
            url.query_pairs_mut()
                .append_pair("wantedCollections", COLLECTION);
        }
        if let Some(cursor) = self.state.start_cursor() {
            url.query_pairs_mut()
                .append_pair("cursor", &cursor.to_string());
        }
        url
    }

    /// Reads until the connection ends. Waits for the next message, for the time to write what was
    /// read, for the time to ping, and for `stop`.
    async fn read(&mut self, socket: &mut StreamReader, stop: &CancellationToken) -> End {
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        let mut heard = Instant::now();
        loop {
            let at_most = match self.state.step(self.work(), now()) {
                Step::Read(at_most) => at_most,
                Step::Write => {
                    self.flush(stop).await;
                    continue;
                }
            };
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stopped,
                message = socket.next() => message,
                _ = ping.tick() => {
                    if heard.elapsed() > PONG_TIMEOUT {
                        return End::Lost("no answer to a ping".to_owned());
                    }
                    if let Err(error) = socket.ping().await {
                        return End::Lost(error.to_string());
                    }
                    continue;
                }
                () = sleep(at_most.unwrap_or_default()), if at_most.is_some() => continue,
            };
            heard = Instant::now();
            match self.message(message) {
                Action::Continue => {}
                Action::Report(gap) => self.report(gap),
                Action::Disconnect(end) => return end,
            }
        }
    }

    fn message(&mut self, message: Option<Result<Received, NetError>>) -> Action {
        match message {
            None => Action::Disconnect(End::Lost("closed by the server".to_owned())),
            Some(Err(NetError::TooLarge { cap })) => Action::Disconnect(End::Unreadable(format!(
                "a message of more than {cap} bytes"
            ))),
            Some(Err(error)) => Action::Disconnect(End::Lost(error.to_string())),
            Some(Ok(Received::Binary(bytes))) => self.frame(&bytes),
            Some(Ok(Received::Text(text))) => self.event(&text),
            Some(Ok(Received::Alive)) => Action::Continue,
        }
    }

    /// Returns the number of items read and not written.
    fn work(&self) -> usize {
        self.batch.observations.len() + self.batch.pending.len()
    }

    fn handler(&mut self) -> EventHandler<'_> {
        EventHandler {
            source: &self.source,
            resolver: &self.resolver,
            clock: &self.clock,
            batch: &mut self.batch,
        }
    }

    /// Handles one frame of `subscribeRepos`.
    fn frame(&mut self, bytes: &[u8]) -> Action {
        if self.source.kind == SourceKind::Jetstream {
            return self.poisoned(bytes, "a binary message from a Jetstream");
        }
        let event = match Frame::parse(bytes) {
            Ok(frame) => match self.handle(&frame) {
                Ok(event) => event,
                Err(end) => return Action::Disconnect(end),
            },
            Err(error) => {
                self.handler().malformed(&error);
                match error {
                    FrameError::Framing(_) => return self.poisoned(bytes, &error.to_string()),
                    FrameError::Event { seq, .. } => Some(StreamEvent::At { seq, time: None }),
                }
            }
        };
        self.poison.on_readable();
        match event {
            Some(event) => self.state.on_event(event, self.clock.now()),
            None => Action::Continue,
        }
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

    /// Handles what a frame says of an account. Returns what it says of the stream.
    fn handle<'f>(&mut self, frame: &Frame<'f>) -> Result<Option<StreamEvent<'f>>, End> {
        let at = |seq, time| Ok(Some(StreamEvent::At { seq, time }));
        match frame {
            Frame::Commit(commit) => {
                self.handler().commit(commit);
                at(commit.seq, Some(commit.time))
            }
            Frame::Sync(sync) => {
                self.handler().sync(sync.did);
                at(sync.seq, Some(sync.time))
            }
            Frame::Identity(identity) => {
                self.handler().identity(identity.did);
                at(identity.seq, Some(identity.time))
            }
            Frame::Account(account) => {
                self.handler().account(account);
                at(account.seq, Some(account.time))
            }
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
            Frame::Unknown { seq, .. } => {
                count_drop("unknown_kind");
                Ok(seq.map(|seq| StreamEvent::At { seq, time: None }))
            }
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
                self.handler().jetstream(&event);
                let event = StreamEvent::AtTime(event.time_us);
                self.state.on_event(event, self.clock.now())
            }
            // A message that is not an event does not end a stream of hints.
            Err(error) => {
                count_drop(error.reason());
                Action::Continue
            }
        }
    }

    /// Writes what was read, with the cursor, and tries until it is written or `stop`: a stream is
    /// not read on while its events are in memory only.
    async fn flush(&mut self, stop: &CancellationToken) {
        let Some(progress) = self.state.take_progress(self.work()) else {
            return;
        };
        let mut batch = std::mem::take(&mut self.batch);
        batch.cursor = progress.position.map(|position| SourceCursor {
            source: self.source.name.clone(),
            position: position.seq,
            event_time: position.time,
        });
        if progress.gap {
            let sources = self.backfills.iter().map(|one| one.source.clone());
            batch.gaps = sources.collect();
        }
        let directory = self.resolver.directory();
        let mut failures = 0_u32;
        loop {
            match directory.apply_batch(batch.clone()).await {
                Ok(outcomes) => {
                    if !batch.pending.is_empty() || outcomes.contains(&Outcome::Package) {
                        self.resolver.wake();
                    }
                    if progress.gap {
                        self.wake_backfills();
                    }
                    self.state.on_written(now());
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, source = self.source.name, "cannot write events");
                    failures = failures.saturating_add(1);
                    tokio::select! {
                        // What is not written comes again from the stored cursor.
                        () = stop.cancelled() => return,
                        () = sleep(REWRITE.step(failures)) => {}
                    }
                }
            }
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn count_drop(reason: &'static str) {
    metrics::counter!("atcomm_ingest_drops_total", "reason" => reason).increment(1);
}
