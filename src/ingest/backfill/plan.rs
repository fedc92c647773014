//! The course of a backfill as pure functions of its stored state and the time: when to begin, when
//! to ask for a page, what a page or a failure means.
//!
//! A backfill never ends for good. A source that refuses is asked again with growing pauses, and
//! each loop over pages ends within bounds that are ours.

use std::time::Duration;

use super::page::Page;
use crate::store::BackfillRow;
use atcomm_net::backoff::{Backoff, Jitter, Spread};
use atcomm_proto::clock::Timestamp;

/// Interval between two backfills of a source that lists by collection, since it lists only what
/// it knows.
const DAILY: Duration = Duration::from_secs(24 * 3600);

/// Shortest time between two backfills that begin because events were missed during the one before.
const RESTART_INTERVAL: Duration = Duration::from_secs(3600);

/// Shortest time between two returns to the first page because the source refused its own cursor.
const RESET_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// The waits after failures in a row.
const RETRY: Backoff = Backoff {
    first: Duration::from_secs(5),
    longest: Duration::from_secs(3600),
    jitter: Jitter::between(0.5, 1.0),
};

/// Shortest time between two attempts where the stream's connection shows that the host is there.
const WAKE_INTERVAL: Duration = Duration::from_secs(60);

/// Pages of one backfill: 50 million accounts at 500 to a page, more than the network has.
const MAX_PAGES: i64 = 100_000;

/// Pages in a row without an account.
const MAX_EMPTY_PAGES: u32 = 100;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Begin a backfill.
    Begin,
    /// Ask for the next page.
    Page,
    /// Nothing for this time.
    Wait(Duration),
    /// Nothing until events are missed.
    Idle,
}

/// What makes a source be asked before its pause has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Nothing.
    None,
    /// Its stream was connected, or events were missed.
    Awake,
    /// The service has just been started.
    Start,
}

/// Why a page is no part of the enumeration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PageError {
    /// The source refuses the first page.
    #[error("the source answers HTTP {0} to a request for its accounts")]
    NotOffered(u16),
    /// The source refuses a page behind a cursor of its own.
    #[error("the source answers HTTP {0} to its own cursor")]
    CursorRefused(u16),
    /// The source answers with another status.
    #[error("the source answers HTTP {0}")]
    Status(u16),
    /// The body is no page.
    #[error("the source answers with something else than a list of accounts")]
    Malformed,
    /// The cursors run in a circle.
    #[error("the source's cursors run in a circle")]
    Circle,
    /// The list has more pages than any list of accounts has.
    #[error("the source's list does not end")]
    Endless,
    /// The source has asked not to be asked for now.
    #[error("the source asks for a pause")]
    Busy,
    /// No answer.
    #[error("{0}")]
    Unreachable(String),
}

impl PageError {
    /// Returns the failure that a status means. `behind_cursor`: the request had a cursor.
    pub(super) fn of_status(status: u16, behind_cursor: bool) -> Self {
        match status {
            // The request may succeed at another time.
            408 | 425 | 429 => Self::Status(status),
            400..=499 if behind_cursor => Self::CursorRefused(status),
            400..=499 | 501 => Self::NotOffered(status),
            _ => Self::Status(status),
        }
    }

    /// Returns the name of the result in metrics.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NotOffered(_) => "refused",
            _ => "failed",
        }
    }
}

/// Returns what to do about a backfill in this state.
pub(super) fn next(
    row: Option<&BackfillRow>,
    daily: bool,
    urgency: Urgency,
    now: Timestamp,
) -> Next {
    let Some(row) = row else {
        return Next::Begin;
    };
    let Some(done_at) = row.done_at else {
        return match pause(row, urgency, now) {
            Duration::ZERO => Next::Page,
            wait => Next::Wait(wait),
        };
    };
    let again = row.again.then(|| {
        row.restarted_at
            .map_or(Duration::ZERO, |at| left(at, RESTART_INTERVAL, now))
    });
    let daily = daily.then(|| left(done_at, DAILY, now));
    match again.into_iter().chain(daily).min() {
        None => Next::Idle,
        Some(Duration::ZERO) => Next::Begin,
        Some(wait) => Next::Wait(wait),
    }
}

/// Returns the time until the next page may be asked for.
fn pause(row: &BackfillRow, urgency: Urgency, now: Timestamp) -> Duration {
    // A clock that was put back makes no pause longer than the longest one.
    let pause = row
        .next_at
        .map_or(Duration::ZERO, |at| at.since(now).min(RETRY.longest));
    match urgency {
        Urgency::None => pause,
        Urgency::Start => Duration::ZERO,
        Urgency::Awake => {
            let since_try = row
                .tried_at
                .map_or(Duration::ZERO, |at| left(at, WAKE_INTERVAL, now));
            pause.min(since_try)
        }
    }
}

/// Returns what is left of an interval that began at `since`. An interval that begins in the future,
/// since the clock was put back, is over.
fn left(since: Timestamp, interval: Duration, now: Timestamp) -> Duration {
    if since > now {
        return Duration::ZERO;
    }
    interval.saturating_sub(now.since(since))
}

/// Adds a page to a backfill. The accounts of the page count also where it is a failure.
pub(super) fn on_page(
    row: &mut BackfillRow,
    page: &Page,
    course: &mut Course,
    now: Timestamp,
) -> Option<PageError> {
    if row.position.is_none() {
        // A gap begins another backfill by itself, and its pages are those of the one before.
        *course = Course::default();
    }
    row.seen = row
        .seen
        .saturating_add(i64::try_from(page.repos.len()).unwrap_or(0));
    row.pages = row.pages.saturating_add(1);
    row.tried_at = Some(now);
    let is_empty = page.repos.is_empty() && page.bad_entries == 0;
    let stands = page.cursor == row.position;
    let Some(cursor) = page.cursor.as_ref().filter(|_| !(is_empty && stands)) else {
        row.position = None;
        row.done_at = Some(now);
        row.complete_at = Some(now);
        (row.failures, row.failure, row.next_at) = (0, None, None);
        return None;
    };
    let failure = if stands || course.is_circle(cursor) {
        Some(PageError::Circle)
    } else if row.pages >= MAX_PAGES || course.is_empty_run(is_empty) {
        Some(PageError::Endless)
    } else {
        None
    };
    if failure.is_none() {
        row.position = Some(cursor.clone());
        (row.failures, row.failure, row.next_at) = (0, None, None);
    }
    failure
}

/// Adds a failure to a backfill. `asked`: the pause that the source asks for.
pub(super) fn on_failure(
    row: &mut BackfillRow,
    failure: &PageError,
    asked: Option<Duration>,
    now: Timestamp,
) {
    if *failure != PageError::Busy {
        row.failures = row.failures.saturating_add(1);
    }
    row.failure = Some(failure.to_string());
    row.tried_at = Some(now);
    let mut wait = RETRY.wait(row.failures, Spread::of(&row.source));
    let from_the_start = match failure {
        PageError::CursorRefused(_) => {
            let is_due = row
                .reset_at
                .is_none_or(|at| left(at, RESET_INTERVAL, now).is_zero());
            if is_due {
                row.reset_at = Some(now);
            }
            is_due
        }
        PageError::Circle | PageError::Endless => {
            wait = RETRY.longest;
            true
        }
        _ => false,
    };
    if from_the_start {
        row.position = None;
        (row.seen, row.pages) = (0, 0);
        row.unknown = None;
    }
    let asked = asked.unwrap_or_default().min(RETRY.longest);
    row.next_at = Some(now.plus(wait.max(asked)));
}

/// The course of one backfill through the pages since the start of the service; begins anew with
/// each first page. Finds a circle of cursors in constant memory (Brent's algorithm).
#[derive(Debug, Default)]
pub(super) struct Course {
    /// The cursor that later ones are compared with. It moves on at each power of two.
    anchor: Option<String>,
    steps: u64,
    until_move: u64,
    empty: u32,
}

impl Course {
    fn is_circle(&mut self, cursor: &str) -> bool {
        if self.anchor.as_deref() == Some(cursor) {
            return true;
        }
        self.steps += 1;
        if self.steps > self.until_move {
            self.anchor = Some(cursor.to_owned());
            self.until_move = self.steps.saturating_mul(2);
            self.steps = 0;
        }
        false
    }

    fn is_empty_run(&mut self, is_empty: bool) -> bool {
        self.empty = if is_empty { self.empty + 1 } else { 0 };
        self.empty > MAX_EMPTY_PAGES
    }
}

#[cfg(test)]
mod tests;
