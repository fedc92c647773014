//! The handle of an entry: the DID document claims it, a check of its own confirms that it leads back
//! to the DID, and only what was confirmed lately is shown.
//!
//! | event | handle shown | next check |
//! |---|---|---|
//! | the document claims another handle, or none | none | at once |
//! | the check leads to the account | the claimed one | within [`REPROVE`] |
//! | the check leads elsewhere or nowhere | none | after [`RECHECK`] |
//! | the check has no result | the confirmed one, up to [`STALE`] old | after [`RECHECK`] |

use std::time::Duration;

use super::{REPROVE, STALE};
use crate::store::Entry;
use atcomm_net::backoff::{Backoff, Jitter, Spread};
use atcomm_net::identity::HandleCheck;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Handle;

/// The waits after checks of a claim that did not confirm it.
const RECHECK: Backoff = Backoff {
    first: Duration::from_secs(120),
    longest: REPROVE,
    jitter: Jitter::between(0.5, 1.0),
};

/// Longest wait after a check without a result: often enough for a handle to be confirmed before it
/// is [`STALE`] once its name server is mended.
const LONGEST_UNANSWERED: Duration = Duration::from_secs(6 * 3600);

/// Checks that did not confirm a claim, up to which news make the next check due at once. An
/// account that claims one name after the other and owns none would else be checked without a
/// pause.
const MAX_URGENT_FAILURES: u32 = 3;

/// Wait of a check that news make due, beyond [`MAX_URGENT_FAILURES`].
const NEWS_WAIT: Duration = Duration::from_secs(60);

/// Least time from one check of an unchanged claim to the next.
const LEAST_WAIT: Duration = Duration::from_secs(2);

/// Time by which the clock may have been set back since a check. A later time is not believed.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Returns the times between which a handle must have been confirmed to be shown.
pub(in crate::directory) fn confirmed_between(now: Timestamp) -> (Timestamp, Timestamp) {
    (now.minus(STALE), now.plus(CLOCK_SKEW))
}

/// Returns the handle of an entry, unless it was confirmed too long ago.
pub(in crate::directory) fn shown(entry: &Entry, now: Timestamp) -> Option<&Handle> {
    let (since, until) = confirmed_between(now);
    let at = entry.handle_at?;
    entry.handle.as_ref().filter(|_| since <= at && at <= until)
}

/// Takes over the claim of a DID document: a handle that is claimed no more is not shown.
pub(in crate::directory) fn claim(entry: &mut Entry, claimed: Option<&Handle>, now: Timestamp) {
    entry.claimed = claimed.cloned();
    entry.handle = None;
    entry.handle_at = None;
    entry.handle_checked_at = None;
    entry.handle_next_at = None;
    entry.handle_news = false;
    make_due(entry, now);
}

/// Makes the check of a claim due because of news about the account.
pub(in crate::directory) fn make_due(entry: &mut Entry, now: Timestamp) {
    if entry.claimed.is_none() {
        return;
    }
    let is_urgent = entry.handle_failures < MAX_URGENT_FAILURES;
    let due_at = if !is_urgent {
        now.plus(NEWS_WAIT)
    } else {
        match entry.handle_checked_at {
            Some(at) if at <= now => at.plus(LEAST_WAIT).max(now),
            _ => now,
        }
    };
    // A check that is due may be under way, and have asked before the news.
    let is_news = |next: Timestamp| due_at < next || (is_urgent && next <= now);
    if entry.handle_next_at.is_none_or(is_news) {
        entry.handle_next_at = Some(due_at);
        entry.handle_news = is_urgent;
    }
}

/// Applies the result of a check that asked at `asked_at` to the entry whose claim it checked.
/// Returns whether it was applied: a later check may have had its result before.
pub(in crate::directory) fn check(
    entry: &mut Entry,
    result: &HandleCheck,
    asked_at: Timestamp,
    now: Timestamp,
) -> bool {
    let last = entry.handle_checked_at;
    if last.is_some_and(|last| asked_at < last && last <= now) {
        return false;
    }
    // News after the check began, or about a claim that no check has confirmed yet.
    let is_due_again = entry
        .handle_next_at
        .is_some_and(|next| asked_at < next && next <= now);
    let is_first = last.is_none() && matches!(result, HandleCheck::Verified(_));
    let spread = Spread::of(entry.did.as_str());
    let wait = if let HandleCheck::Verified(handle) = result {
        entry.handle = Some(handle.clone());
        entry.handle_at = Some(asked_at);
        entry.handle_failures = 0;
        let quarter = REPROVE / 4;
        REPROVE - quarter + spread.part(quarter)
    } else {
        if *result == HandleCheck::Invalid || shown(entry, now).is_none() {
            entry.handle = None;
            entry.handle_at = None;
        }
        entry.handle_failures = entry.handle_failures.saturating_add(1);
        let wait = RECHECK.wait(entry.handle_failures, spread);
        if *result == HandleCheck::Inconclusive {
            wait.min(LONGEST_UNANSWERED)
        } else {
            wait
        }
    };
    if *result != HandleCheck::Inconclusive {
        entry.handle_checked_at = Some(asked_at);
    }
    if is_first || !is_due_again {
        entry.handle_next_at = Some(now.plus(wait));
        entry.handle_news = false;
    }
    true
}

#[cfg(test)]
mod tests;
