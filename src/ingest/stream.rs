//! Following one stream: connect, read, sort, write, and connect again.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::events::EventHandler;
use super::{BackfillHandle, Source, SourceKind};
use crate::directory::{Batch, Outcome};
use crate::resolve::Resolver;
use crate::store::SourceCursor;
use atcomm_net::backoff::{Backoff, Jitter, Spread};
use atcomm_net::net::{NetError, Received, StreamReader, Trust, WsOptions};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::COLLECTION;
use atcomm_proto::wire::{Frame, FrameError, JetstreamEvent, MAX_EVENT, MAX_FRAME};

/// Work of one transaction at most; a stream that has more waits for the commit.
const MAX_BATCH: usize = 256;

/// Work waits this long for company before it is written.
const COALESCE_DELAY: Duration = Duration::from_millis(25);

/// A cursor that only passed events without meaning here is written this often.
const CURSOR_INTERVAL: Duration = Duration::from_secs(1);

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

/// Time after which a connection counts as good, so that the waits begin anew.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Times that a stream may break at the same place before that place is skipped and what was
/// skipped is walked for.
const MAX_UNREADABLE: u32 = 3;

/// A Jetstream is asked again for this much before its cursor: hosts reorder a little where they
/// switch from replay to live.
const OVERLAP_US: i64 = 5_000_000;

/// How far back a Jetstream can be asked for, as its users see it.
const JETSTREAM_KEEPS_US: i64 = 24 * 3600 * 1_000_000;

/// A stream that continues this much later than the cursor, and not at the next number, has a
/// hole, whether or not it says so.
const SILENT_GAP: Duration = Duration::from_secs(3600);

/// How a connection ended.
enum End {
    /// Asked to stop.
    Stopped,
    /// The connection broke, or never stood.
    Lost(String),
    /// What came cannot be read; the same would come again.
    Unreadable(String),
    /// The server says that the cursor lies in its future: its numbers began anew.
    FutureCursor,
}

/// Reads one source's stream.
pub(super) struct Reader {
    source: Source,
    resolver: Resolver,
    clock: Clock,
    /// Walks that find what this stream misses: the source's own, or for a Jetstream, which
    /// enumerates nothing, those of all others.
    backfills: Vec<BackfillHandle>,
    /// Place reached and its time, as far as it was read.
    place: Option<(i64, Option<String>)>,
    batch: Batch,
    /// The place moved since it was last written.
    moved: bool,
    /// Nothing was read yet on this connection.
    fresh: bool,
    /// The next connection begins with what is live: what can be replayed cannot be read.
    live: bool,
    /// What comes before the next connection is missed, unless that begins at a place.
    adrift: bool,
}

impl Reader {
    pub(super) fn new(
        source: Source,
        resolver: Resolver,
        clock: Clock,
        backfills: Vec<BackfillHandle>,
    ) -> Self {
        Self {
            source,
            resolver,
            clock,
            backfills,
            place: None,
            batch: Batch::default(),
            moved: false,
            fresh: true,
            live: false,
            adrift: false,
        }
    }

    /// Follows the stream until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0_u32;
        let mut poison = (None, 0_u32);
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
            if began.elapsed() > STABLE_AFTER {
                failures = 0;
            }
            match end {
                End::Stopped => return,
                End::Lost(why) => {
                    tracing::warn!(source = self.source.name, %why, "stream lost, connecting again");
                }
                End::Unreadable(why) => {
                    tracing::warn!(source = self.source.name, %why, "unreadable stream");
                    let at = self.place.as_ref().map(|(position, _)| *position);
                    poison = if poison.0 == at {
                        (at, poison.1 + 1)
                    } else {
                        (at, 1)
                    };
                    if poison.1 >= MAX_UNREADABLE {
                        self.skip_ahead("the stream cannot be read past this place");
                        self.live = true;
                        poison = (None, 0);
                    }
                }
                End::FutureCursor => {
                    self.skip_ahead("the source says that our cursor lies in its future");
                }
            }
            failures = failures.saturating_add(1);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(RECONNECT.wait(failures, Spread::random())) => {}
            }
        }
    }

    async fn load_cursor(&mut self) -> bool {
        let name = self.source.name.clone();
        match self
            .resolver
            .directory()
            .store()
            .query(move |q| q.cursor(&name))
            .await
        {
            Ok(cursor) => {
                self.place = cursor.map(|cursor| (cursor.position, cursor.event_time));
                true
            }
            Err(error) => {
                tracing::error!(%error, "cannot read the cursor");
                false
            }
        }
    }

    /// Gives up a place that cannot be continued from, and says so loudly: what lies between is
    /// walked for.
    fn skip_ahead(&mut self, why: &str) {
        tracing::error!(
            source = self.source.name,
            cursor = self.place.as_ref().map(|(position, _)| *position),
            "{why}: continuing with what is live, and enumerating the accounts again"
        );
        self.place = None;
        self.adrift = true;
        self.gap();
    }

    /// Events were missed: the walk is owed from the next write on.
    fn gap(&mut self) {
        metrics::counter!("atcomm_ingest_gaps_total", "source" => self.source.name.clone())
            .increment(1);
        self.batch.gaps = self
            .backfills
            .iter()
            .map(|backfill| backfill.source.clone())
            .collect();
        self.moved = true;
    }

    fn wake_backfills(&self) {
        for backfill in &self.backfills {
            backfill.wake.notify_one();
        }
    }

    /// One connection, from its opening to its end.
    async fn connection(&mut self, stop: &CancellationToken) -> End {
        let (path, options) = match self.source.kind {
            SourceKind::Pds | SourceKind::Relay => (
                "/xrpc/com.atproto.sync.subscribeRepos",
                WsOptions {
                    max_frame: MAX_FRAME,
                    ..WsOptions::default()
                },
            ),
            SourceKind::Jetstream => (
                "/subscribe",
                WsOptions {
                    max_frame: MAX_EVENT,
                    ..WsOptions::default()
                },
            ),
        };
        let mut url = self.source.url(path, true);
        if self.source.kind == SourceKind::Jetstream {
            url.query_pairs_mut()
                .append_pair("wantedCollections", COLLECTION);
        }
        if let Some(cursor) = self.start_cursor() {
            url.query_pairs_mut()
                .append_pair("cursor", &cursor.to_string());
        }
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
        self.fresh = true;
        // A walk that ended before this moment has not seen what came since.
        if self.start_cursor().is_none() && std::mem::replace(&mut self.adrift, true) {
            self.gap();
        }
        let now_us = self.clock.now().millis().saturating_mul(1000);
        if self.source.kind == SourceKind::Jetstream
            && self
                .place
                .as_ref()
                .is_some_and(|(at, _)| now_us - at > JETSTREAM_KEEPS_US)
        {
            // The host begins with the oldest it has, and does not say so.
            tracing::warn!(
                source = self.source.name,
                "the cursor is older than what is kept"
            );
            self.gap();
        }
        if self.source.kind == SourceKind::Jetstream && self.place.is_none() {
            // A place in time even where nothing happens, so that a restart misses nothing.
            self.place = Some((now_us, None));
            self.moved = true;
        }
        self.wake_backfills();
        let end = self.read(&mut socket, stop).await;
        socket.close().await;
        end
    }

    /// Where to ask the stream to begin. A PDS keeps a day: with no place of our own we take all
    /// of it, and so have a place from then on. A relay's three days of everybody are left to the
    /// walk.
    fn start_cursor(&self) -> Option<i64> {
        match (&self.place, self.source.kind) {
            (Some((position, _)), SourceKind::Jetstream) => Some(position - OVERLAP_US),
            (Some((position, _)), _) => Some(*position),
            (None, SourceKind::Pds) if !self.live => Some(0),
            (None, _) => None,
        }
    }

    async fn read(&mut self, socket: &mut StreamReader, stop: &CancellationToken) -> End {
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        let mut heard = Instant::now();
        let mut written = Instant::now();
        loop {
            let pending = self.work();
            if pending >= MAX_BATCH
                || (pending > 0 && written.elapsed() >= COALESCE_DELAY)
                || (self.moved && written.elapsed() >= CURSOR_INTERVAL)
            {
                self.flush(stop).await;
                written = Instant::now();
            }
            // With work at hand the wait is short, with only a cursor longer.
            let wait = if pending > 0 {
                COALESCE_DELAY
            } else {
                CURSOR_INTERVAL
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
                () = sleep(wait), if pending > 0 || self.moved => continue,
            };
            heard = Instant::now();
            let end = match message {
                None => Some(End::Lost("closed by the server".to_owned())),
                Some(Err(NetError::TooLarge { cap })) => Some(End::Unreadable(format!(
                    "a message of more than {cap} bytes"
                ))),
                Some(Err(error)) => Some(End::Lost(error.to_string())),
                Some(Ok(Received::Binary(bytes))) => self.frame(&bytes),
                Some(Ok(Received::Text(text))) => self.event(&text),
                Some(Ok(Received::Alive)) => None,
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

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

    /// One frame of `subscribeRepos`.
    fn frame(&mut self, bytes: &[u8]) -> Option<End> {
        if self.source.kind == SourceKind::Jetstream {
            return Some(End::Unreadable(
                "a binary message from a Jetstream".to_owned(),
            ));
        }
        let frame = match Frame::parse(bytes) {
            Ok(frame) => frame,
            Err(error @ FrameError::Framing(_)) => {
                metrics::counter!("atcomm_ingest_drops_total", "reason" => error.reason())
                    .increment(1);
                return Some(End::Unreadable(error.to_string()));
            }
            Err(error) => {
                self.handler().malformed(&error);
                if let FrameError::Event { seq, .. } = error {
                    self.advance(seq, None);
                }
                return None;
            }
        };
        match &frame {
            Frame::Commit(commit) => {
                self.handler().commit(commit);
                self.advance(commit.seq, Some(commit.time));
            }
            Frame::Sync(sync) => {
                self.handler().sync(sync.did);
                self.advance(sync.seq, Some(sync.time));
            }
            Frame::Identity(identity) => {
                self.handler().identity(identity.did);
                self.advance(identity.seq, Some(identity.time));
            }
            Frame::Account(account) => {
                self.handler().account(account);
                self.advance(account.seq, Some(account.time));
            }
            Frame::Info { name, message } => {
                tracing::warn!(source = self.source.name, name, message, "the source says");
                if *name == "OutdatedCursor" {
                    self.gap();
                }
            }
            Frame::Error {
                error: "FutureCursor",
                ..
            } => return Some(End::FutureCursor),
            Frame::Error { error, message } => {
                return Some(End::Lost(format!(
                    "{error}: {}",
                    message.unwrap_or_default()
                )));
            }
            Frame::Unknown { seq, .. } => {
                metrics::counter!("atcomm_ingest_drops_total", "reason" => "unknown_kind")
                    .increment(1);
                if let Some(seq) = seq {
                    self.advance(*seq, None);
                }
            }
        }
        None
    }

    /// One message of a Jetstream.
    fn event(&mut self, text: &str) -> Option<End> {
        if self.source.kind != SourceKind::Jetstream {
            return Some(End::Unreadable("a text message from a firehose".to_owned()));
        }
        match JetstreamEvent::parse(text) {
            Ok(event) => {
                self.handler().jetstream(&event);
                let time = i64::try_from(event.time_us).unwrap_or(i64::MAX);
                // Nothing from a clock that runs ahead moves our place past what is still to come.
                let latest = self.clock.now().millis().saturating_mul(1000);
                let (before, _) = self.place.clone().unwrap_or_default();
                if time > before && time <= latest.saturating_add(OVERLAP_US) {
                    self.place = Some((time, None));
                    self.moved = true;
                }
            }
            // One message that is none does not end a stream of hints.
            Err(error) => {
                metrics::counter!("atcomm_ingest_drops_total", "reason" => error.reason())
                    .increment(1);
            }
        }
        None
    }

    /// Moves the place. Events may come again after a reconnect; the place never goes back on
    /// one connection.
    fn advance(&mut self, seq: u64, time: Option<&str>) {
        let seq = i64::try_from(seq).unwrap_or(i64::MAX);
        if std::mem::take(&mut self.fresh) {
            self.compare_with_stored(seq, time);
        }
        if self
            .place
            .as_ref()
            .is_none_or(|(position, _)| seq > *position)
        {
            let time = time.map(str::to_owned);
            self.place = Some((seq, time));
            self.moved = true;
            self.live = false;
        }
    }

    /// The first event of a connection against the stored place: some servers say nothing when
    /// they cannot continue there.
    fn compare_with_stored(&mut self, seq: i64, time: Option<&str>) {
        let Some((position, stored_time)) = self.place.clone() else {
            return;
        };
        let stored = stored_time.as_deref().and_then(Timestamp::parse_rfc3339);
        let later = match (stored, time.and_then(Timestamp::parse_rfc3339)) {
            (Some(stored), Some(now)) => now.since(stored),
            _ => Duration::ZERO,
        };
        if seq > position.saturating_add(1) && later > SILENT_GAP {
            tracing::warn!(
                source = self.source.name,
                "the stream continues with a hole"
            );
            self.gap();
        } else if seq < position && !later.is_zero() {
            self.skip_ahead("the source counts its events anew");
        }
    }

    /// Writes what was read, with the cursor, and tries until it is written or `stop`: a stream is
    /// not read on while its events are in memory only.
    async fn flush(&mut self, stop: &CancellationToken) {
        if self.work() == 0 && !self.moved {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.cursor = self
            .place
            .clone()
            .map(|(position, event_time)| SourceCursor {
                source: self.source.name.clone(),
                position,
                event_time,
            });
        self.moved = false;
        let (pending, gap) = (!batch.pending.is_empty(), !batch.gaps.is_empty());
        let directory = self.resolver.directory();
        let mut failures = 0_u32;
        loop {
            match directory.apply_batch(batch.clone()).await {
                Ok(outcomes) => {
                    if pending || outcomes.contains(&Outcome::Package) {
                        self.resolver.wake();
                    }
                    if gap {
                        self.wake_backfills();
                    }
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
