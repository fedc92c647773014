//! The course of one stream as a pure state machine: where to continue, which events were missed,
//! when to write what was read, and when to connect again.
//!
//! That nothing was missed is proven on each connection, never assumed: the host is asked for the
//! event before the stored place, and the stored event has to come again first. Where it does not,
//! there is a gap, whatever the host says.
//!
//! The state machine knows no socket, no runtime and no clock. The loop in [`super`] reports what
//! happens and at which time, and does what is returned.

use std::time::{Duration, Instant};

use super::detour::Detour;
use super::gap::{Covered, Gap, GapReason};
use super::outage::Outage;
use super::position::{Mark, Position, is_number};
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

/// Time before its place that a Jetstream is asked to replay, in microseconds: hosts reorder a
/// little where they switch from replay to live.
const OVERLAP_US: i64 = 5_000_000;

/// Longest time from the beginning of a connection to the repetition of the stored event. A host
/// whose numbers have not come to our place says nothing at all.
const REPEAT_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest time from a gap to the connection that reads all that the host has. After a longer one
/// the host may have lost more, which is a gap of its own.
const REREAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What a stream tells about its course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEvent<'a> {
    /// An event of a firehose.
    At {
        /// Sequence number.
        seq: u64,
        /// What tells this event from another one with the same number.
        mark: Mark<'a>,
    },
    /// An event of a Jetstream.
    Jetstream {
        /// The host's time in microseconds.
        time_us: u64,
        /// The host's own number of the event; hosts of the first version have none.
        number: Option<u64>,
        /// What tells this event from another one of the same time.
        mark: Mark<'a>,
    },
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
    /// A message is larger than any event, so it could not be received.
    TooLarge(String),
    /// The stream cannot be read. The host would send the same again.
    Unreadable(String),
    /// The host does not continue at our place, and has to be read from its oldest event on.
    NotContinued(GapReason),
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Handle the event, and read on.
    Continue,
    /// Read on: the event was handled before.
    PassOver,
    /// Report the gap, handle the event, and read on.
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
    /// Read the next message, for at most this time where something is to be done then.
    Read(Option<Duration>),
}

/// What to write together with the work that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// The new cursor, if the stream has a position.
    pub(super) position: Option<Position>,
    /// The events that were missed since the last write.
    pub(super) gap: Option<Gap>,
    /// What is proven by now.
    pub(super) covered: Option<Covered>,
}

/// The beginning of the next connection of a stream without a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// As the kind of the host demands.
    Normal,
    /// With the oldest event that the host has. What is older has been reported as a gap.
    Oldest,
    /// With what is live, because the replay cannot be read.
    Live,
}

/// The stored event, while this connection has not repeated it.
#[derive(Debug)]
struct Expected {
    position: Position,
    /// The cursor that was asked for.
    asked: i64,
    /// When the event counts as lost.
    deadline: Instant,
}

/// The state of one stream.
#[derive(Debug)]
pub(super) struct StreamState {
    kind: SourceKind,
    /// As far as the stream was read without a gap.
    position: Option<Position>,
    /// Stands until this connection has proven that it continues at the position. The position
    /// does not move before.
    expected: Option<Expected>,
    /// `None` until the first connection.
    covered: Option<Covered>,
    /// Whether a connection stands.
    connected: bool,
    /// Whether the position moved, or events were missed, since the last write.
    moved: bool,
    gap: Option<Gap>,
    last_write: Instant,
    start: Start,
    /// Whether the next connection is the first after a gap, and reads all that the host has.
    rereads: bool,
    failures: u32,
    /// The last position at which the stream was unreadable, and how often in a row.
    unreadable: (Option<i64>, u32),
    detour: Detour,
    outage: Outage,
}

impl StreamState {
    /// Returns the state of a stream that continues after a stored position.
    pub(super) fn new(
        kind: SourceKind,
        position: Option<Position>,
        covered: Option<Covered>,
        now: Instant,
    ) -> Self {
        Self {
            kind,
            position,
            expected: None,
            covered,
            connected: false,
            moved: false,
            gap: None,
            last_write: now,
            start: Start::Normal,
            rereads: false,
            failures: 0,
            unreadable: (None, 0),
            detour: Detour::default(),
            outage: Outage::default(),
        }
    }

    /// Returns the cursor of the next connection, so that the stored event comes again. A PDS keeps
    /// the events of about a day: without a position all of these are read, which gives a position.
    /// A relay keeps days of events of all its accounts; these are left to the backfill. `now` is
    /// the time of day.
    pub(super) fn start_cursor(&self, now: Timestamp) -> Option<i64> {
        let Some(position) = &self.position else {
            let oldest = self.start == Start::Oldest
                || (self.kind == SourceKind::Pds && self.start == Start::Normal);
            return oldest.then_some(0);
        };
        if self.kind != SourceKind::Jetstream || is_number(position.seq) {
            if let Some(cursor) = self.detour.cursor(position.seq) {
                return Some(cursor);
            }
            return Some(position.seq.saturating_sub(1).max(0));
        }
        // A host would go live without a word.
        let in_future = position.seq > micros(now).saturating_add(OVERLAP_US);
        (!in_future).then(|| position.seq - OVERLAP_US)
    }

    /// Returns the beginning of the interval that the present connection is proven to continue.
    pub(super) fn proven_since(&self) -> Option<Timestamp> {
        let proven = self.connected && self.expected.is_none() && !self.detour.is_made();
        self.covered.filter(|_| proven).map(|covered| covered.since)
    }

    /// A connection stands, which was asked to begin at [`Self::start_cursor`]. `now` is the time
    /// of day.
    pub(super) fn on_connect(&mut self, at: Instant, now: Timestamp) -> Option<Gap> {
        self.connected = true;
        self.last_write = at;
        self.expected = None;
        let asked = self.start_cursor(now);
        match (&self.position, asked) {
            // The stored event is behind the cursor.
            (Some(_), Some(_)) if self.detour.is_made() => {
                self.detour.on_connect(at);
                None
            }
            (Some(position), Some(asked)) => {
                self.expected = Some(Expected {
                    position: position.clone(),
                    asked,
                    deadline: at + REPEAT_TIMEOUT,
                });
                None
            }
            (Some(_), None) => Some(self.miss(GapReason::FutureCursor, now)),
            // Reported when the position was given up.
            (None, _) if self.rereads && self.was_just_missed(now) => {
                self.rereads = false;
                None
            }
            (None, _) if self.covered.is_some() => Some(self.miss(GapReason::NoCursor, now)),
            (None, _) => {
                self.covered = Some(Covered::at(now));
                self.moved = true;
                None
            }
        }
    }

    /// Returns whether a gap was reported a moment ago.
    fn was_just_missed(&self, now: Timestamp) -> bool {
        self.covered
            .is_some_and(|covered| now.since(covered.since) <= REREAD_TIMEOUT)
    }

    /// The connection brought an event. `now` is the time of day.
    pub(super) fn on_event(&mut self, event: StreamEvent<'_>, now: Timestamp) -> Action {
        match event {
            StreamEvent::At { seq, mark } => {
                let seq = i64::try_from(seq).unwrap_or(i64::MAX);
                let action = self.compare(seq, mark, now);
                if matches!(action, Action::Continue | Action::Report(_)) {
                    self.advance(seq, mark);
                }
                action
            }
            StreamEvent::Jetstream {
                time_us,
                number,
                mark,
            } => {
                let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
                self.on_jetstream(signed(time_us), number.map(signed), mark, now)
            }
            // Where nothing is expected, a host is asked for all that it has.
            StreamEvent::OutdatedCursor if self.expected.is_none() => Action::PassOver,
            StreamEvent::OutdatedCursor => Action::Report(self.miss(GapReason::Outdated, now)),
            StreamEvent::FutureCursor => {
                Action::Disconnect(End::NotContinued(GapReason::FutureCursor))
            }
        }
    }

    /// Some time has passed. Returns what follows from a stored event that did not come again, or
    /// from silence behind a message that was too large.
    pub(super) fn on_time(&mut self, at: Instant, now: Timestamp) -> Option<Action> {
        if self
            .detour
            .deadline()
            .is_some_and(|deadline| at >= deadline)
        {
            return Some(Action::Report(self.go_live(GapReason::TooLarge, now)));
        }
        let expected = self.expected.as_ref().filter(|e| at >= e.deadline)?;
        let reason = GapReason::NotRepeated;
        if self.kind == SourceKind::Jetstream && !is_number(expected.position.seq) {
            // A place in time was asked for: what the host has behind it has come.
            return Some(Action::Report(self.miss(reason, now)));
        }
        Some(Action::Disconnect(End::NotContinued(reason)))
    }

    /// A connection, or the attempt to make one, ended after `lasted`.
    pub(super) fn on_end(&mut self, end: &End, lasted: Duration, now: Timestamp) -> Next {
        if std::mem::take(&mut self.connected) && self.expected.is_none() {
            self.outage = Outage::default();
        }
        let gap = match end {
            End::Stopped => return Next::Stop,
            End::Lost(_) => self.count_outage(now),
            // One message is no failure of the host.
            End::Poisoned(_) => {
                return Next::Reconnect {
                    failures: 1,
                    gap: None,
                };
            }
            End::TooLarge(_) if self.is_numbered() && self.detour.again() => None,
            End::NotContinued(_) if self.detour.is_made() => {
                Some(self.go_live(GapReason::TooLarge, now))
            }
            End::TooLarge(_) | End::Unreadable(_) => self.count_unreadable(now),
            End::NotContinued(reason) => {
                let gap = self.miss(*reason, now);
                self.start = Start::Oldest;
                self.rereads = true;
                Some(gap)
            }
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
        if work >= MAX_BATCH || self.gap.is_some() || (unwritten && since_write >= delay) {
            return Step::Write;
        }
        let expected = self.expected.as_ref().map(|expected| expected.deadline);
        let judged_in = expected
            .or(self.detour.deadline())
            .map(|deadline| deadline.saturating_duration_since(at));
        let delays = [unwritten.then_some(delay), judged_in];
        Step::Read(delays.into_iter().flatten().min())
    }

    /// Returns what to write with `work` items, and counts it as written. `None` where there is
    /// nothing.
    pub(super) fn take_progress(&mut self, work: usize, now: Timestamp) -> Option<Progress> {
        let moved = std::mem::take(&mut self.moved);
        let gap = std::mem::take(&mut self.gap);
        if moved && let (Some(covered), Some(position)) = (&mut self.covered, &self.position) {
            // What stands behind the newest event of a long replay is still to come.
            let read_until = position.time().map_or(now, |time| time.min(now));
            covered.until = covered.until.max(read_until);
        }
        (work > 0 || moved).then(|| Progress {
            position: self.position.clone(),
            gap,
            covered: self.covered,
        })
    }

    /// What was taken has been written.
    pub(super) fn on_written(&mut self, at: Instant) {
        self.last_write = at;
    }

    /// Compares a numbered event with the stored one.
    fn compare(&mut self, seq: i64, mark: Mark<'_>, now: Timestamp) -> Action {
        if let Some(gap) = self.end_detour(seq, now) {
            return Action::Report(gap);
        }
        let Some(expected) = &self.expected else {
            return Action::Continue;
        };
        let stored = &expected.position;
        if seq > stored.seq {
            return Action::Report(self.miss(GapReason::Hole, now));
        }
        if seq == stored.seq && stored.is_marked(mark) {
            self.expected = None;
            return Action::PassOver;
        }
        let later = match (stored.time(), mark.time()) {
            (Some(stored), Some(time)) => time > stored,
            _ => false,
        };
        if seq == stored.seq || later {
            return Action::Disconnect(End::NotContinued(GapReason::Renumbered));
        }
        // Some hosts begin earlier than asked.
        Action::PassOver
    }

    fn on_jetstream(
        &mut self,
        time_us: i64,
        number: Option<i64>,
        mark: Mark<'_>,
        now: Timestamp,
    ) -> Action {
        let by_number = match &self.expected {
            Some(expected) => is_number(expected.position.seq),
            None => number.is_some(),
        };
        let action = match (by_number, number) {
            (true, Some(number)) => self.compare(number, mark, now),
            // A host of the first version in the place of a later one.
            (true, None) => Action::Report(self.miss(GapReason::Renumbered, now)),
            (false, _) => self.compare_in_time(time_us, mark, now),
        };
        // The place stays until the stored event has come.
        if matches!(action, Action::Continue | Action::Report(_)) && self.expected.is_none() {
            match number {
                Some(number) => self.advance_number(number, mark),
                None => self.advance_in_time(time_us, mark, now),
            }
        }
        action
    }

    /// Compares an event with the stored one by time. Hosts reorder a little, so an event shortly
    /// behind the place does not show yet that the stored one is lost.
    fn compare_in_time(&mut self, time_us: i64, mark: Mark<'_>, now: Timestamp) -> Action {
        let Some(expected) = &self.expected else {
            return Action::Continue;
        };
        let stored = &expected.position;
        if time_us == stored.seq && stored.is_marked(mark) {
            self.expected = None;
            return Action::PassOver;
        }
        if time_us > stored.seq.saturating_add(OVERLAP_US) {
            return Action::Report(self.miss(GapReason::Hole, now));
        }
        if time_us <= expected.asked {
            return Action::PassOver;
        }
        Action::Continue
    }

    /// Moves the position forward. Events may come again after a reconnect; the position never goes
    /// back on one connection.
    fn advance(&mut self, seq: i64, mark: Mark<'_>) {
        if self.position.as_ref().is_none_or(|at| seq > at.seq) {
            self.detour = Detour::default();
            self.move_to(seq, mark);
        }
    }

    /// Moves the position of a Jetstream forward by its own numbers, from a place in time as well.
    fn advance_number(&mut self, number: i64, mark: Mark<'_>) {
        let in_time = |at: &Position| !is_number(at.seq);
        if self.position.as_ref().is_some_and(in_time) {
            self.position = None;
        }
        self.advance(number, mark);
    }

    /// Moves the position of a Jetstream forward in time. An event from a clock that runs ahead
    /// does not move it past what is still to come.
    fn advance_in_time(&mut self, time_us: i64, mark: Mark<'_>, now: Timestamp) {
        let numbered = self.position.as_ref().is_some_and(|at| is_number(at.seq));
        if !numbered && time_us <= micros(now).saturating_add(OVERLAP_US) {
            self.advance(time_us, mark);
        }
    }

    fn move_to(&mut self, seq: i64, mark: Mark<'_>) {
        self.position = Some(Position {
            seq,
            mark: Some(mark.to_string()),
        });
        self.start = Start::Normal;
        self.moved = true;
    }

    /// Gives up the position, because events were missed behind it. What was proven ends there, and
    /// begins anew now.
    fn miss(&mut self, reason: GapReason, now: Timestamp) -> Gap {
        let position = self.position.take();
        self.expected = None;
        self.detour = Detour::default();
        self.rereads = false;
        self.moved = true;
        let covered = self.covered.replace(Covered::at(now));
        let since = covered.map_or(now, |covered| covered.until);
        self.note(Gap {
            reason,
            position: position.map(|at| at.seq),
            since,
        })
    }

    /// Takes note of a gap. Of two gaps between two writes the earlier beginning stands.
    fn note(&mut self, gap: Gap) -> Gap {
        let unwritten = self.gap.map_or(gap.since, |unwritten| unwritten.since);
        let since = unwritten.min(gap.since);
        self.gap = Some(Gap { since, ..gap });
        gap
    }

    /// Counts that the host could not be reached, or went away. Where it stays away for long, the
    /// entries are looked at without it. The position stays: the host may continue there.
    fn count_outage(&mut self, now: Timestamp) -> Option<Gap> {
        let covered = self.covered.filter(|_| self.outage.is_due(now))?;
        self.covered = Some(Covered::at(now));
        self.moved = true;
        Some(self.note(Gap {
            reason: GapReason::Unreachable,
            position: self.position.as_ref().map(|at| at.seq),
            since: covered.until,
        }))
    }

    /// Counts that the stream was unreadable, and gives up a position where it is so again and
    /// again.
    fn count_unreadable(&mut self, now: Timestamp) -> Option<Gap> {
        let at = self.position.as_ref().map(|at| at.seq);
        let (last, count) = self.unreadable;
        let count = if last == at { count + 1 } else { 1 };
        self.unreadable = (at, count);
        (count >= MAX_UNREADABLE).then(|| self.go_live(GapReason::Unreadable, now))
    }

    /// Gives up what lies between the position and what is live.
    fn go_live(&mut self, reason: GapReason, now: Timestamp) -> Gap {
        self.unreadable = (None, 0);
        self.start = Start::Live;
        self.miss(reason, now)
    }

    /// Returns whether there is a position that later numbers can be asked for from.
    fn is_numbered(&self) -> bool {
        let numbered = |at: &Position| self.kind != SourceKind::Jetstream || is_number(at.seq);
        self.position.as_ref().is_some_and(numbered)
    }

    /// Returns the gap that an event shows to be behind: what a message held that could not be
    /// received.
    fn end_detour(&mut self, seq: i64, now: Timestamp) -> Option<Gap> {
        let is_behind = self.position.as_ref().is_some_and(|at| seq > at.seq);
        (self.detour.is_made() && is_behind).then(|| self.miss(GapReason::TooLarge, now))
    }
}

/// Returns a time in microseconds, as the places of a Jetstream are.
fn micros(time: Timestamp) -> i64 {
    time.millis().saturating_mul(1000)
}

#[cfg(test)]
mod continuity;
#[cfg(test)]
mod tests;
