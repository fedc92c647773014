//! The end of a pending refresh: a pure function of its row, the result and the time.

use std::time::Duration;

use super::refresh::{RefreshError, RefreshOutcome};
use crate::directory::{BACKOFF, Outcome, PendingUpdate};
use crate::store::PendingRefresh;
use atcomm_net::backoff::Spread;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Did;

/// Attempts without success after which a pending refresh is given up, about ten days. An account
/// with an entry is still rechecked by age.
const MAX_ATTEMPTS: u32 = 250;

/// Attempts for an account without an entry that proves nothing, over about four hours.
const MAX_UNPROVEN: u32 = 8;

/// Least and most time added to the wait of every refresh that was turned away.
const BUSY_SPREAD: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(4595));

/// Longest wait of a refresh that was turned away beyond what it was told.
const MAX_BUSY_WAIT: Duration = Duration::from_secs(30);

/// Longest wait that a server can ask for.
const MAX_TOLD_WAIT: Duration = Duration::from_secs(3600);

/// Wait before a refresh that the store could not write is made again.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// Wait before a refresh that was overtaken is made again.
const OVERTAKEN_WAIT: Duration = Duration::from_millis(500);

/// How a pending refresh ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PendingVerdict {
    /// It is complete, and no longer pending.
    Done,
    /// Something newer was applied meanwhile, without regard to status and handle.
    Overtaken,
    /// Nothing could be proven, and the account has no entry that leads to another refresh.
    Unproven,
    /// Nothing could be proven, too often.
    GivenUp,
    /// A limit was reached.
    Busy,
    /// It failed.
    Failed,
}

impl PendingVerdict {
    pub(super) fn of(
        row: &PendingRefresh,
        result: &Result<RefreshOutcome, RefreshError>,
        is_tracked: bool,
    ) -> Self {
        match result {
            Ok(refreshed) => match refreshed.outcome {
                Outcome::Ignored => Self::Overtaken,
                Outcome::Unverifiable if is_tracked => Self::Done,
                Outcome::Unverifiable if row.attempts < MAX_UNPROVEN => Self::Unproven,
                Outcome::Unverifiable => Self::GivenUp,
                _ => Self::Done,
            },
            Err(RefreshError::Busy { .. }) => Self::Busy,
            Err(RefreshError::Unreachable { .. } | RefreshError::Store(_)) => Self::Failed,
        }
    }

    /// Returns the code in metrics.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Overtaken => "again",
            Self::Unproven => "unproven",
            Self::GivenUp => "given_up",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }

    /// Returns what is to be written of the pending refresh, if the refresh itself has not.
    pub(super) fn update(
        self,
        row: &PendingRefresh,
        result: &Result<RefreshOutcome, RefreshError>,
        now: Timestamp,
    ) -> Option<PendingUpdate> {
        let attempts = row.attempts + 1;
        let wait = match result {
            Ok(_) if self == Self::Overtaken => OVERTAKEN_WAIT,
            Ok(_) => BACKOFF.wait(attempts, Spread::of(row.did.as_str())),
            Err(error) => wait_after(error, row, now),
        };
        match self {
            Self::Done => None,
            Self::GivenUp => Some(PendingUpdate::Complete(row.generation)),
            Self::Busy | Self::Failed if attempts > MAX_ATTEMPTS => {
                Some(PendingUpdate::Complete(row.generation))
            }
            Self::Overtaken | Self::Unproven | Self::Busy | Self::Failed => {
                Some(PendingUpdate::RetryAt {
                    generation: row.generation,
                    not_before: now.plus(wait),
                    failed: matches!(self, Self::Unproven | Self::Failed),
                    failure: match result {
                        Ok(_) if self == Self::Overtaken => None,
                        Ok(_) => Some("unverifiable"),
                        Err(error) => Some(error.class()),
                    },
                })
            }
        }
    }
}

/// Returns the wait before a refresh that failed is made again.
fn wait_after(error: &RefreshError, row: &PendingRefresh, now: Timestamp) -> Duration {
    match error {
        RefreshError::Busy { retry_after } => {
            // The longer a refresh waits already, the less a moment more matters.
            let age = now.since(row.since);
            spread_out(*retry_after, &row.did) + (age / 8).min(MAX_BUSY_WAIT)
        }
        RefreshError::Unreachable { retry_after, .. } => {
            let told = retry_after.unwrap_or_default().min(MAX_TOLD_WAIT);
            BACKOFF
                .wait(row.attempts + 1, Spread::of(row.did.as_str()))
                .max(told)
        }
        RefreshError::Store(_) => STORE_RETRY,
    }
}

/// Returns the wait of a refresh that was turned away, spread so that such refreshes do not return
/// together.
pub(super) fn spread_out(retry_after: Duration, did: &Did) -> Duration {
    let (least, most) = BUSY_SPREAD;
    retry_after + least + Spread::of(did.as_str()).part(most - least)
}

#[cfg(test)]
mod tests {
    use super::super::refresh::NoAnswer;
    use super::*;
    use crate::store::{StoreError, Trigger};
    use atcomm_net::net::NetError;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn row(attempts: u32, age: Duration) -> PendingRefresh {
        PendingRefresh {
            did: Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap(),
            trigger: Trigger::Listing(None),
            announced: None,
            not_before: NOW,
            attempts,
            failure: None,
            generation: 7,
            since: NOW.minus(age),
        }
    }

    fn refreshed(outcome: Outcome) -> Result<RefreshOutcome, RefreshError> {
        Ok(RefreshOutcome {
            outcome,
            refusal: None,
            car: None,
            rev: None,
            prefiltered: false,
            background: true,
        })
    }

    fn unreachable(retry_after: Option<Duration>) -> Result<RefreshOutcome, RefreshError> {
        Err(RefreshError::Unreachable {
            what: "the PDS",
            why: NoAnswer::Net(NetError::Timeout),
            retry_after,
        })
    }

    /// What is written of a pending refresh.
    #[derive(Debug, PartialEq)]
    enum Written {
        GivenUp,
        Retry(Duration, bool),
    }
    use Written::{GivenUp, Retry};

    /// The verdict's code, and what is written.
    fn end(
        attempts: u32,
        result: &Result<RefreshOutcome, RefreshError>,
        is_tracked: bool,
    ) -> (&'static str, Option<Written>) {
        let row = row(attempts, Duration::ZERO);
        let verdict = PendingVerdict::of(&row, result, is_tracked);
        let update = verdict
            .update(&row, result, NOW)
            .map(|update| match update {
                PendingUpdate::Complete(generation) => {
                    assert_eq!(generation, 7);
                    GivenUp
                }
                PendingUpdate::RetryAt {
                    generation,
                    not_before,
                    failed,
                    failure,
                } => {
                    assert_eq!(generation, 7);
                    assert_eq!(failure.is_none(), verdict == PendingVerdict::Overtaken);
                    Retry(not_before.since(NOW), failed)
                }
                PendingUpdate::Unchanged => panic!("nothing to write"),
            });
        (verdict.code(), update)
    }

    #[test]
    fn a_pending_refresh_ends_by_its_result() {
        let unverifiable = refreshed(Outcome::Unverifiable);
        for outcome in [Outcome::Package, Outcome::NotEnrolled, Outcome::Regressed] {
            assert_eq!(end(0, &refreshed(outcome), true), ("done", None));
        }
        assert_eq!(end(0, &unverifiable, true), ("done", None));
        let (code, update) = end(MAX_UNPROVEN - 1, &unverifiable, false);
        assert_eq!(code, "unproven");
        assert!(matches!(update, Some(Retry(_, true))));
        let (code, update) = end(MAX_UNPROVEN, &unverifiable, false);
        assert_eq!((code, update), ("given_up", Some(GivenUp)));
        let overtaken = Some(Retry(OVERTAKEN_WAIT, false));
        let ignored = refreshed(Outcome::Ignored);
        assert_eq!(end(0, &ignored, true), ("again", overtaken));
        let store = Err(RefreshError::Store(StoreError::Full));
        let retried = Some(Retry(STORE_RETRY, true));
        assert_eq!(end(0, &store, true), ("failed", retried));
        assert_eq!(end(MAX_ATTEMPTS, &store, true), ("failed", Some(GivenUp)));
    }

    #[test]
    fn a_refresh_that_was_turned_away_counts_no_failure_and_waits_as_told() {
        let busy = |retry_after| Err(RefreshError::Busy { retry_after });
        let (code, update) = end(3, &busy(10 * SECOND), true);
        assert_eq!(code, "busy");
        let Some(Retry(wait, false)) = update else {
            panic!("{update:?}")
        };
        assert!(wait >= 10 * SECOND + BUSY_SPREAD.0 && wait <= 10 * SECOND + BUSY_SPREAD.1);
        // An old one lets others go first, up to a limit.
        let wait = |age| {
            let error = RefreshError::Busy {
                retry_after: SECOND,
            };
            wait_after(&error, &row(0, age), NOW)
        };
        assert_eq!(wait(80 * SECOND), wait(Duration::ZERO) + 10 * SECOND);
        assert_eq!(
            wait(1_000_000 * SECOND),
            wait(Duration::ZERO) + MAX_BUSY_WAIT
        );
    }

    #[test]
    fn a_failure_waits_longer_each_time_and_at_least_as_told_within_a_limit() {
        let wait = |attempts, told| match end(attempts, &unreachable(told), true) {
            ("failed", Some(Retry(wait, true))) => wait,
            other => panic!("{other:?}"),
        };
        assert!(wait(1, None) > wait(0, None));
        assert_eq!(wait(0, Some(1000 * SECOND)), 1000 * SECOND);
        assert_eq!(wait(0, Some(1_000_000 * SECOND)), MAX_TOLD_WAIT);
        assert!(wait(100, Some(SECOND)) > 1000 * SECOND);
    }
}
