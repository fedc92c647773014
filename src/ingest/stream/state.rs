//! The course of one stream as a pure state machine: where to continue, which events were missed,
//! when to write what was read, and when to connect again.
//!
//! The state machine knows no socket, no runtime and no clock. The loop in [`super`] reports what
//! happens and at which time, and does what is returned.

use std::time::{Duration, Instant};

use crate::store::SourceKind;
use atcomm_proto::clock::Timestamp;

/// Largest batch of one transaction; a stream that has more waits for the commit.
const MAX_BATCH: usize = 256;

/// Time that work waits for more of it before it is written.
const COALESCE_DELAY: Duration = Duration::from_millis(25);

/// Interval in which a cursor is written that passed only events without work.
const CURSOR_INTERVAL: Duration = Duration::from_secs(1);

/// Duration of a connection after which the count of failures in a row begins anew.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Times that a stream may be unreadable at one position before the position is skipped.
const MAX_UNREADABLE: u32 = 3;

/// Time before its cursor that a Jetstream is asked to replay, in microseconds: hosts reorder a
/// little where they switch from replay to live.
const OVERLAP_US: i64 = 5_000_000;

/// Age of a cursor, in microseconds, up to which a Jetstream host keeps the events after it.
const JETSTREAM_RETENTION_US: i64 = 24 * 3600 * 1_000_000;

/// A stream that continues later than this after the cursor, and not at the next number, has a
/// hole, whether or not the host says so.
const SILENT_GAP: Duration = Duration::from_secs(3600);

/// A position in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// Sequence number, or microseconds for a Jetstream.
    pub(super) seq: i64,
    /// The host's own time of the event there.
    pub(super) time: Option<String>,
}

/// What a stream tells about its course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEvent<'a> {
    /// An event of a firehose.
    At {
        /// Sequence number.
        seq: u64,
        /// The host's own time of the event, where it can be read.
        time: Option<&'a str>,
    },
    /// An event of a Jetstream, at a time in microseconds.
    AtTime(u64),
    /// The host no longer keeps the events after our cursor.
    OutdatedCursor,
    /// The host has no event as late as our cursor.
    FutureCursor,
}

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The service stops.
    Stopped,
    /// The connection broke, or never stood.
    Lost(String),
    /// One message cannot be read. It is passed over if it comes again.
    Poisoned(String),
    /// The stream cannot be read. The host would send the same again.
    Unreadable(String),
    /// The host says that the cursor lies in its future: it counts its events anew.
    FutureCursor,
}

/// Why events were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GapReason {
    /// The stream was interrupted before it had a position.
    NoCursor,
    /// The cursor is older than what a Jetstream host keeps, which does not say so.
    Expired,
    /// The host says that the cursor is older than what it keeps.
    Outdated,
    /// The stream continues with a hole.
    Hole,
    /// The host counts its events anew.
    Renumbered,
    /// The host says that the cursor lies in its future.
    FutureCursor,
    /// The stream cannot be read past its position.
    Unreadable,
}

/// Missed events, which only a backfill finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) reason: GapReason,
    /// The position of the stream before the gap.
    pub(super) position: Option<i64>,
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Read on.
    Continue,
    /// Report the gap, and read on.
    Report(Gap),
    /// End the connection.
    Disconnect(End),
}

/// What follows from the end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing more.
    Stop,
    /// Report the gap, if there is one, and connect again after a pause.
    Reconnect {
        /// Failures in a row, this end included.
        failures: u32,
        gap: Option<Gap>,
    },
}

/// What to do between two messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Write what was read.
    Write,
    /// Read the next message, for at most this time where something is to be written.
    Read(Option<Duration>),
}

/// What to write together with the work that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// The new cursor, if the stream has a position.
    pub(super) position: Option<Position>,
    /// Whether events were missed since the last write: the backfills begin anew.
    pub(super) gap: bool,
}

/// The state of one stream.
#[derive(Debug)]
pub(super) struct StreamState {
    kind: SourceKind,
    /// As far as the stream was read.
    position: Option<Position>,
    /// Whether the position moved, or events were missed, since the last write.
    moved: bool,
    gap: bool,
    last_write: Instant,
    /// Whether an earlier connection stood: one without a cursor then misses what came in between.
    followed: bool,
    /// Whether this connection has brought no event yet.
    fresh: bool,
    /// Whether the next connection begins with what is live, because the replay cannot be read.
    live: bool,
    failures: u32,
    /// The last position at which the stream was unreadable, and how often in a row.
    unreadable: (Option<i64>, u32),
}

impl StreamState {
    /// Returns the state of a stream that continues after a stored position.
    pub(super) fn new(kind: SourceKind, position: Option<Position>, now: Instant) -> Self {
        Self {
            kind,
            position,
            moved: false,
            gap: false,
            last_write: now,
            followed: false,
            fresh: true,
            live: false,
            failures: 0,
            unreadable: (None, 0),
        }
    }

    /// Returns the cursor of the next connection. A PDS keeps the events of about a day: without a
    /// position all of these are read, which gives a position. A relay keeps days of events of all
    /// its accounts; these are left to the backfill.
    pub(super) fn start_cursor(&self) -> Option<i64> {
        match (&self.position, self.kind) {
            (Some(position), SourceKind::Jetstream) => Some(position.seq - OVERLAP_US),
            (Some(position), SourceKind::Pds | SourceKind::Relay) => Some(position.seq),
            (None, SourceKind::Pds) if !self.live => Some(0),
            (None, _) => None,
        }
    }

    /// A connection stands, which was asked to begin at [`Self::start_cursor`]. `now` is the time
    /// of day.
    pub(super) fn on_connect(&mut self, at: Instant, now: Timestamp) -> Option<Gap> {
        self.fresh = true;
        self.last_write = at;
        let followed = std::mem::replace(&mut self.followed, true);
        let has_cursor = self.start_cursor().is_some();
        let mut gap = (followed && !has_cursor).then(|| self.miss(GapReason::NoCursor));
        if self.kind == SourceKind::Jetstream {
            let now_us = now.millis().saturating_mul(1000);
            match &self.position {
                Some(position) if now_us - position.seq > JETSTREAM_RETENTION_US => {
                    gap = Some(self.miss(GapReason::Expired));
                }
                Some(_) => {}
                // A position even where nothing happens, so that a restart misses nothing.
                None => self.move_to(now_us, None),
            }
        }
        gap
    }

    /// The connection brought an event. `now` is the time of day.
    pub(super) fn on_event(&mut self, event: StreamEvent<'_>, now: Timestamp) -> Action {
        let gap = match event {
            StreamEvent::At { seq, time } => {
                let seq = i64::try_from(seq).unwrap_or(i64::MAX);
                let first = std::mem::take(&mut self.fresh);
                let gap = first.then(|| self.compare_with_cursor(seq, time)).flatten();
                self.advance(seq, time);
                gap
            }
            StreamEvent::AtTime(time_us) => {
                self.advance_in_time(time_us, now);
                None
            }
            StreamEvent::OutdatedCursor => Some(self.miss(GapReason::Outdated)),
            StreamEvent::FutureCursor => return Action::Disconnect(End::FutureCursor),
        };
        gap.map_or(Action::Continue, Action::Report)
    }

    /// A connection, or the attempt to make one, ended after `lasted`.
    pub(super) fn on_end(&mut self, end: &End, lasted: Duration) -> Next {
        let gap = match end {
            End::Stopped => return Next::Stop,
            End::Lost(_) => None,
            // One message is no failure of the host.
            End::Poisoned(_) => {
                return Next::Reconnect {
                    failures: 1,
                    gap: None,
                };
            }
            End::Unreadable(_) => self.count_unreadable(),
            End::FutureCursor => Some(self.skip_ahead(GapReason::FutureCursor)),
        };
        if lasted > STABLE_AFTER {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        Next::Reconnect {
            failures: self.failures,
            gap,
        }
    }

    /// Returns what to do with `work` items read and not written.
    pub(super) fn step(&self, work: usize, at: Instant) -> Step {
        let since_write = at.saturating_duration_since(self.last_write);
        let delay = if work > 0 {
            COALESCE_DELAY
        } else {
            CURSOR_INTERVAL
        };
        let unwritten = work > 0 || self.moved;
        if work >= MAX_BATCH || (unwritten && since_write >= delay) {
            return Step::Write;
        }
        Step::Read(unwritten.then_some(delay))
    }

    /// Returns what to write with `work` items, and counts it as written. `None` where there is
    /// nothing.
    pub(super) fn take_progress(&mut self, work: usize) -> Option<Progress> {
        let moved = std::mem::take(&mut self.moved);
        let gap = std::mem::take(&mut self.gap);
        (work > 0 || moved).then(|| Progress {
            position: self.position.clone(),
            gap,
        })
    }

    /// What was taken has been written.
    pub(super) fn on_written(&mut self, at: Instant) {
        self.last_write = at;
    }

    /// Compares the first event of a connection with the cursor: some hosts say nothing when they
    /// cannot continue there.
    fn compare_with_cursor(&mut self, seq: i64, time: Option<&str>) -> Option<Gap> {
        let position = self.position.as_ref()?;
        let before = position.time.as_deref().and_then(Timestamp::parse_rfc3339);
        let later = match (before, time.and_then(Timestamp::parse_rfc3339)) {
            (Some(before), Some(time)) => time.since(before),
            _ => Duration::ZERO,
        };
        if seq > position.seq.saturating_add(1) && later > SILENT_GAP {
            return Some(self.miss(GapReason::Hole));
        }
        (seq < position.seq && !later.is_zero()).then(|| self.skip_ahead(GapReason::Renumbered))
    }

    /// Moves the position forward. Events may come again after a reconnect; the position never goes
    /// back on one connection.
    fn advance(&mut self, seq: i64, time: Option<&str>) {
        if self.position.as_ref().is_none_or(|at| seq > at.seq) {
            self.move_to(seq, time.map(str::to_owned));
            self.live = false;
        }
    }

    /// Moves the position forward in time. An event from a clock that runs ahead does not move it
    /// past what is still to come.
    fn advance_in_time(&mut self, time_us: u64, now: Timestamp) {
        let time_us = i64::try_from(time_us).unwrap_or(i64::MAX);
        let now_us = now.millis().saturating_mul(1000);
        let before = self.position.as_ref().map_or(0, |at| at.seq);
        if time_us > before && time_us <= now_us.saturating_add(OVERLAP_US) {
            self.move_to(time_us, None);
        }
    }

    fn move_to(&mut self, seq: i64, time: Option<String>) {
        self.position = Some(Position { seq, time });
        self.moved = true;
    }

    /// Gives up a position that cannot be continued from. The backfill finds what lies between.
    fn skip_ahead(&mut self, reason: GapReason) -> Gap {
        let gap = self.miss(reason);
        self.position = None;
        gap
    }

    fn miss(&mut self, reason: GapReason) -> Gap {
        self.gap = true;
        self.moved = true;
        Gap {
            reason,
            position: self.position.as_ref().map(|at| at.seq),
        }
    }

    /// Counts that the stream was unreadable, and gives up a position where it is so again and
    /// again.
    fn count_unreadable(&mut self) -> Option<Gap> {
        let at = self.position.as_ref().map(|at| at.seq);
        let (last, count) = self.unreadable;
        let count = if last == at { count + 1 } else { 1 };
        self.unreadable = (at, count);
        (count >= MAX_UNREADABLE).then(|| {
            self.unreadable = (None, 0);
            self.live = true;
            self.skip_ahead(GapReason::Unreadable)
        })
    }
}

#[cfg(test)]
mod tests;
