//! The chain of an account's commits. Each commit names the one before it, so that a commit that
//! never came shows at the next one, whatever that one is about.
//!
//! Commits are not verified here. They can only lead to a refresh, which asks the account's PDS.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::time::Duration;

use crate::store::directory::Tx;
use crate::store::{
    AnnouncedChange, EventKind, Head, NewPending, SourceKind, StoreError, Tracked, Trigger,
};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, Origin, Rev};
use atcomm_proto::wire::cbor::CID_LEN;

/// Shortest time between two refreshes that commits of one account lead to.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// Longest time by which a revision may lie in the future (sync specification).
const MAX_FUTURE: Duration = Duration::from_secs(5 * 60);

/// One event in the chain of an account's commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEvent {
    /// The account.
    pub did: Did,
    /// The kind of the source.
    pub source: SourceKind,
    /// The PDS that sent the event, where the source is one.
    pub pds: Option<Origin>,
    /// The commit; `None` where the event says that the repository changed as a whole.
    pub commit: Option<ChainCommit>,
}

/// A commit as its event describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainCommit {
    /// Its revision.
    pub rev: Rev,
    /// CID of its tree's root, in binary form, where its block is there.
    pub data: Option<[u8; CID_LEN]>,
    /// The revision before it, where the server says so.
    pub since: Option<Rev>,
    /// CID of the root of the tree before it, where the server says so.
    pub prev_data: Option<[u8; CID_LEN]>,
}

/// How a commit stands to the newest one known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// It is that one, or an earlier one.
    Replay,
    /// It follows that one, or nothing says otherwise.
    Next,
    /// A commit is missing between the two.
    Broken,
}

impl Head {
    /// Returns how a commit stands to this one.
    fn link(&self, commit: &ChainCommit) -> Link {
        let Some(rev) = self.rev else {
            return Link::Next;
        };
        if commit.rev <= rev {
            return Link::Replay;
        }
        let follows = match (commit.prev_data, self.data, commit.since) {
            // The same tree holds the same records, whatever was written and taken back meanwhile.
            (Some(before), Some(data), _) => before == data,
            (_, _, Some(since)) => since == rev,
            _ => true,
        };
        if follows { Link::Next } else { Link::Broken }
    }
}

/// Applies events in the order of their stream. Returns the number of broken chains.
pub(super) fn apply(tx: &Tx<'_>, events: &[ChainEvent], now: Timestamp) -> Result<u64, StoreError> {
    let mut broken = 0;
    let mut known: HashMap<&Did, (Option<Tracked>, bool)> = HashMap::new();
    for event in events {
        let (tracked, changed) = match known.entry(&event.did) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => slot.insert((tx.tracked(&event.did)?, false)),
        };
        let Some(tracked) = tracked else { continue };
        // An account that has left a PDS is no longer described by it.
        if event.pds.is_some() && event.pds != tracked.pds {
            continue;
        }
        let Some(trigger) = follow(tracked, event, now, changed, &mut broken) else {
            continue;
        };
        let mut not_before = next_refresh(&tracked.head, now);
        if trigger == EventKind::Account {
            // What the PDS said a moment ago may be younger than the commit.
            not_before = not_before.max(tracked.checked_at.plus(REFRESH_INTERVAL));
        }
        tracked.head.refresh_at = Some(not_before);
        let pending = NewPending {
            did: event.did.clone(),
            trigger: Trigger::Event {
                source: event.source,
                event: trigger,
            },
            announced: AnnouncedChange::Keep,
            not_before,
        };
        tx.enqueue_pending(&pending, now)?;
    }
    for (did, (tracked, changed)) in known {
        if let Some(tracked) = tracked.filter(|_| changed) {
            tx.put_head(did, &tracked.head)?;
        }
    }
    Ok(broken)
}

/// Moves the newest commit of an account on. Returns the kind of the refresh that the event leads
/// to.
fn follow(
    tracked: &mut Tracked,
    event: &ChainEvent,
    now: Timestamp,
    changed: &mut bool,
    broken: &mut u64,
) -> Option<EventKind> {
    let Some(commit) = &event.commit else {
        // The refresh that this event leads to finds the commit from which the chain goes on.
        *changed |= tracked.head.rev.is_some();
        (tracked.head.rev, tracked.head.data) = (None, None);
        return None;
    };
    // Of a revision from the future every later one would be a replay.
    let latest = now.plus(MAX_FUTURE).millis().saturating_mul(1000);
    if commit.rev.micros() > u64::try_from(latest).unwrap_or(0) {
        return None;
    }
    let link = tracked.head.link(commit);
    if link == Link::Replay {
        return None;
    }
    *changed = true;
    tracked.head.rev = Some(commit.rev);
    tracked.head.data = commit.data;
    if !tracked.status.is_active() {
        return Some(EventKind::Account);
    }
    (link == Link::Broken).then(|| {
        *broken += 1;
        EventKind::Commit
    })
}

/// Returns when the next refresh that a commit leads to may be made: the first at once, later ones
/// in bounded number.
fn next_refresh(head: &Head, now: Timestamp) -> Timestamp {
    match head.refresh_at {
        None => now,
        // It is pending. A clock that was put back makes no wait longer than the interval.
        Some(at) if at > now => at.min(now.plus(REFRESH_INTERVAL)),
        Some(at) => now.max(at.plus(REFRESH_INTERVAL)),
    }
}

#[cfg(test)]
mod tests;
