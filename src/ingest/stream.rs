//! Follows one stream: connects, reads, handles, writes, and connects again.
//!
//! The loop here owns the socket, the retries and the clock; [`state`] decides.

mod detour;
mod gap;
mod messages;
mod outage;
mod poison;
mod position;
mod state;

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::coverage::{Coverages, CoveredAccounts};
use super::events::EventHandler;
use super::notice::Notices;
use super::{BackfillHandle, Source, SourceKind};
use crate::directory::{Batch, Outcome};
use crate::resolve::Resolver;
use crate::store::{self, Coverage, SourceCursor};
use atcomm_net::backoff::{Backoff, Jitter, Spread};
use atcomm_net::net::{NetError, Received, StreamReader, Trust, WsOptions};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::COLLECTION;
use atcomm_proto::wire::{MAX_EVENT, MAX_FRAME};

use gap::{Covered, Gap, GapReason};
use poison::Poison;
use position::Position;
use state::{Action, End, Next, Progress, Step, StreamState};

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

/// Duration of a connection after which the same warnings are news.
const WELL_AFTER: Duration = Duration::from_secs(60);

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
    coverages: Coverages,
    /// Since when this connection is proven, as the others were told.
    told: Option<Timestamp>,
    /// All backfills: each of them may find what this stream misses.
    backfills: Vec<BackfillHandle>,
    state: StreamState,
    poison: Poison,
    batch: Batch,
    notices: Notices,
    /// The pause that the host has asked for.
    pause: Duration,
    last_event: metrics::Gauge,
}

impl Reader {
    pub(super) fn new(
        source: Source,
        resolver: Resolver,
        clock: Clock,
        coverages: Coverages,
        backfills: Vec<BackfillHandle>,
    ) -> Self {
        let last_event = metrics::gauge!(
            "atcomm_ingest_last_event_timestamp_seconds",
            "source" => source.name.clone()
        );
        Self {
            state: StreamState::new(source.kind, None, None, now()),
            poison: Poison::new(now()),
            coverages,
            told: None,
            source,
            resolver,
            clock,
            backfills,
            batch: Batch::default(),
            notices: Notices::default(),
            pause: Duration::ZERO,
            last_event,
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
            if began.elapsed() > WELL_AFTER {
                self.notices.clear();
            }
            self.log_end(&end);
            let next = self.state.on_end(&end, began.elapsed(), self.clock.now());
            self.tell();
            let failures = match next {
                Next::Stop => return,
                Next::Reconnect { failures, gap } => {
                    if let Some(gap) = gap {
                        self.report(gap);
                        // The host may stay away for long.
                        self.flush(&stop).await;
                    }
                    failures
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(self.wait(failures)) => {}
            }
        }
    }

    /// Returns the wait before the next connection: as long as the host asks for, at least.
    fn wait(&mut self, failures: u32) -> Duration {
        let asked = std::mem::take(&mut self.pause);
        RECONNECT.wait(failures, Spread::random()).max(asked)
    }

    /// Logs the end of a connection. What repeats is logged at growing intervals.
    fn log_end(&mut self, end: &End) {
        let (why, what) = match end {
            End::Stopped | End::NotContinued(_) => return,
            End::Lost(why) => (why, "stream lost, connecting again"),
            End::Poisoned(why) => (
                why,
                "a message cannot be read: connecting again, and passing over it if it comes again",
            ),
            End::TooLarge(why) => (
                why,
                "a message cannot be received: connecting again, and asking for what is behind it",
            ),
            End::Unreadable(why) => (why, "unreadable stream"),
        };
        let Some(repeated) = self.notices.occurred(why, now()) else {
            return;
        };
        let source = self.source.name.as_str();
        if self.pause.is_zero() {
            tracing::warn!(source, %why, repeated, "{what}");
        } else {
            let pause = self.pause;
            tracing::warn!(source, %why, ?pause, repeated, "connecting again after a pause");
        }
    }

    /// Returns the end of an attempt to connect.
    fn refused(&mut self, error: &NetError) -> End {
        self.pause = error.retry_after().unwrap_or_default();
        End::Lost(match error {
            NetError::HostBusy { .. } => "the host asks for a pause".to_owned(),
            NetError::Handshake {
                status: status @ (404 | 405 | 501),
                ..
            } => {
                let kind = self.source.kind.as_str();
                let other = match self.source.kind {
                    SourceKind::Jetstream => "relay, or a pds",
                    SourceKind::Pds | SourceKind::Relay => "jetstream",
                };
                format!("the host answered {status} to a stream of kind {kind}: is it a {other}?")
            }
            error => error.to_string(),
        })
    }

    /// Reads the stored cursor. Returns whether the store answered.
    async fn load_cursor(&mut self) -> bool {
        let name = self.source.name.clone();
        let store = self.resolver.directory().store();
        let read = store
            .query(move |q| Ok((q.cursor(&name)?, q.coverage(&name)?)))
            .await;
        match read {
            Ok((cursor, coverage)) => {
                let position = cursor.map(|cursor| Position {
                    seq: cursor.position,
                    mark: cursor.event_time,
                });
                let covered = coverage.map(|coverage| Covered {
                    since: coverage.since,
                    until: coverage.until,
                });
                self.state = StreamState::new(self.source.kind, position, covered, now());
                true
            }
            Err(error) => {
                tracing::error!(source = self.source.name, %error, "cannot read the cursor");
                false
            }
        }
    }

    /// Counts and logs missed events.
    fn report(&self, gap: Gap) {
        let (source, cursor) = (self.source.name.as_str(), gap.position);
        metrics::counter!(
            "atcomm_ingest_gaps_total",
            "source" => source.to_owned(),
            "reason" => gap.reason.code(),
        )
        .increment(1);
        match gap.reason {
            // Of an outdated cursor the host's own words are logged.
            GapReason::NoCursor | GapReason::Outdated => {}
            GapReason::Hole => {
                tracing::warn!(source, cursor, "the stream continues with a hole");
            }
            GapReason::NotRepeated => tracing::error!(
                source,
                cursor,
                "the source no longer has the event at our cursor: it is read from its oldest event"
            ),
            GapReason::Renumbered => tracing::error!(
                source,
                cursor,
                "the source counts its events anew: it is read from its oldest event"
            ),
            GapReason::FutureCursor => tracing::error!(
                source,
                cursor,
                "our cursor lies in the source's future: it is read from its oldest event"
            ),
            GapReason::TooLarge => tracing::error!(
                source,
                cursor,
                "the stream continues behind a message that could not be received"
            ),
            GapReason::Unreachable => tracing::warn!(
                source,
                cursor,
                "the source cannot be reached: its accounts are looked at without it"
            ),
            GapReason::Unreadable => tracing::error!(
                source,
                cursor,
                "the stream cannot be read past this place: it is continued with what is live"
            ),
        }
    }

    /// Tells the other sources since when this connection is proven to continue.
    fn tell(&mut self) {
        let since = self.state.proven_since();
        if self.told != since {
            self.told = since;
            self.coverages.set(&self.source, since);
            let directory = self.resolver.directory();
            directory.set_connection(&self.source.name, since.is_some());
        }
    }

    fn wake_backfills(&self, which: impl Fn(&BackfillHandle) -> bool) {
        for backfill in self.backfills.iter().filter(|backfill| which(backfill)) {
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
        let url = self.url(self.state.start_cursor(self.clock.now()));
        let connecting = self
            .resolver
            .net()
            .read_stream(&url, Trust::Configured, &options);
        let mut socket = tokio::select! {
            () = stop.cancelled() => return End::Stopped,
            socket = connecting => match socket {
                Ok(socket) => socket,
                Err(error) => return self.refused(&error),
            },
        };
        tracing::info!(source = self.source.name, "following");
        metrics::gauge!("atcomm_ingest_connected", "source" => self.source.name.clone()).set(1.0);
        if let Some(gap) = self.state.on_connect(now(), self.clock.now()) {
            self.report(gap);
        }
        self.tell();
        // A backfill that ended before this moment has not seen what came since.
        self.wake_backfills(|backfill| {
            // Another source's accounts are listed once that source's own stream is connected.
            self.source.kind == SourceKind::Jetstream || backfill.source == self.source.name
        });
        self.poison.on_readable();
        let end = self.read(&mut socket, stop).await;
        socket.close().await;
        end
    }

    /// Returns the address of the stream, from a cursor on.
    fn url(&self, cursor: Option<i64>) -> Url {
        let mut url = self.source.stream_url();
        if self.source.kind == SourceKind::Jetstream {
            // A larger event costs its own account, and not the place in the stream.
            url.query_pairs_mut()
                .append_pair("wantedCollections", COLLECTION)
                .append_pair("maxMessageSizeBytes", &MAX_EVENT.to_string());
        }
        if let Some(cursor) = cursor {
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
            match self.state.on_time(now(), self.clock.now()) {
                Some(Action::Report(gap)) => self.report(gap),
                Some(Action::Disconnect(end)) => return end,
                Some(Action::Continue | Action::PassOver) | None => {}
            }
            self.tell();
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
            match &message {
                None => {
                    let code = socket.close_code();
                    let code = code.map_or_else(String::new, |code| format!(" with code {code}"));
                    return End::Lost(format!("closed by the server{code}"));
                }
                Some(Ok(Received::Binary(_) | Received::Text(_))) => {
                    self.last_event
                        .set(self.clock.now().millis() as f64 / 1000.0);
                }
                Some(_) => {}
            }
            match self.message(message) {
                Action::Continue | Action::PassOver => {}
                Action::Report(gap) => self.report(gap),
                Action::Disconnect(end) => return end,
            }
        }
    }

    /// Returns the number of items read and not written.
    fn work(&self) -> usize {
        self.batch.observations.len() + self.batch.pending.len() + self.batch.chain.len()
    }

    fn handler(&mut self) -> EventHandler<'_> {
        EventHandler {
            source: &self.source,
            resolver: &self.resolver,
            clock: &self.clock,
            batch: &mut self.batch,
        }
    }

    /// Returns the missed events as they are stored, or `None` where other sources have them all.
    fn stored_gap(&self, gap: Gap) -> Option<store::Gap> {
        let covered = match self.coverages.beside(&self.source, gap.since) {
            CoveredAccounts::All => return None,
            CoveredAccounts::OfPdses(covered) => covered,
        };
        let pds = (self.source.kind == SourceKind::Pds).then(|| self.source.origin.clone());
        Some(store::Gap {
            source: self.source.name.clone(),
            reason: gap.reason.code(),
            since: gap.since,
            pds,
            covered,
        })
    }

    /// Returns the batch that was read, with the progress of the stream.
    fn take_batch(&mut self, progress: Progress) -> Batch {
        let mut batch = std::mem::take(&mut self.batch);
        batch.cursor = progress.position.map(|position| SourceCursor {
            source: self.source.name.clone(),
            position: position.seq,
            event_time: position.mark,
        });
        batch.coverage = progress.covered.map(|covered| {
            let source = self.source.name.clone();
            metrics::gauge!("atcomm_ingest_covered_until_seconds", "source" => source.clone())
                .set(covered.until.millis() as f64 / 1000.0);
            Coverage {
                source,
                since: covered.since,
                until: covered.until,
            }
        });
        if let Some(gap) = progress.gap {
            batch.gap = self.stored_gap(gap);
            // Accounts that are not in the directory yet are found by those who can list.
            let sources = self.backfills.iter().map(|one| one.source.clone());
            batch.gaps = sources.collect();
        }
        batch
    }

    /// Writes what was read, with the cursor, and tries until it is written or `stop`: a stream is
    /// not read on while its events are in memory only.
    async fn flush(&mut self, stop: &CancellationToken) {
        let now_is = self.clock.now();
        let Some(progress) = self.state.take_progress(self.work(), now_is) else {
            return;
        };
        let has_gap = progress.gap.is_some();
        let batch = self.take_batch(progress);
        let directory = self.resolver.directory();
        let mut failures = 0_u32;
        loop {
            match directory.apply_batch(batch.clone()).await {
                Ok(outcomes) => {
                    if !batch.pending.is_empty() || outcomes.contains(&Outcome::Package) {
                        self.resolver.wake();
                    }
                    if has_gap {
                        self.coverages.wake();
                        self.wake_backfills(|_| true);
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
