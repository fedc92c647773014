//! The time series: the day on which a change counts, and what it counts as (`docs/research.md`).
//!
//! A change of a package counts at the time of its commit, which is the account's own word, but no
//! earlier than the account's last change and no later than it was seen here. Everything else counts
//! when it is seen. What a closed day would have had to say counts on the first open day.

mod keep;
mod timeline;

#[cfg(test)]
mod killed;
#[cfg(test)]
mod queries;
#[cfg(test)]
pub(super) mod simulation;

use std::time::Duration;

use super::observation::{Authority, Finding, Observation};
use crate::store::directory::{Day, DayDelta, Membership, Tx};
use crate::store::{Entry, EventKind, StoreError, Trigger};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::keypackage::record_json;
use atcomm_proto::syntax::Did;
use atcomm_proto::verify::succession;

pub(super) use keep::SourceStates;
pub use timeline::{Interval, MAX_BUCKETS, Timeline};

/// 2022-01-01: no commit of atproto is older. A revision from before is a count, not a time.
const FIRST_COMMIT: Timestamp = Timestamp::from_millis(1_640_995_200_000);

/// Changes without a time of their own that are seen so soon after midnight count on the new day.
const MIDNIGHT: Duration = Duration::from_secs(60);

/// What a change of an entry is known by.
#[derive(Clone, Copy)]
pub(super) enum Basis<'o> {
    /// What was seen of the account.
    Seen(&'o Observation),
    /// A relay, about the status of the account.
    Relay,
    /// A limit of the directory.
    Limit,
}

/// A change of an entry, as it counts, or a refresh that shows none.
pub(super) struct Shift {
    did: Did,
    delta: DayDelta,
    day: Day,
    newest: Day,
    /// When it took effect; `None`: nothing changed.
    counted_at: Option<Timestamp>,
    /// Earlier days on which the account may have changed.
    earlier: EarlierDays,
}

/// Days on which an account may have changed, although the change counts later or does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EarlierDays {
    None,
    /// Those from this one on.
    Since(Day),
    /// Those up to `last` whose end the sources had not come past at `since`.
    Uncovered {
        last: Day,
        since: Timestamp,
    },
}

/// When a change took effect.
struct Effect {
    at: Timestamp,
    /// Whether that is known for sure, but for gaps.
    exact: bool,
}

/// Returns how a change of an entry counts, or `None` where there is nothing to write. To be called
/// before the change log has the change.
pub(super) fn shift(
    tx: &Tx<'_>,
    basis: Basis<'_>,
    at: Timestamp,
    old: Option<&Entry>,
    new: Option<&Entry>,
) -> Result<Option<Shift>, StoreError> {
    let Some(entry) = new.or(old) else {
        return Ok(None);
    };
    let is_same = matches!((old, new), (Some(old), Some(new)) if Membership::is_same(old, new));
    let cid = |entry: Option<&Entry>| entry.and_then(|entry| entry.cid);
    if is_same && cid(old) == cid(new) {
        return Ok(None);
    }
    let newest = tx.reach_day(at)?;
    let first = tx.first_open_day()?.unwrap_or(newest);
    let hidden_since = match old {
        Some(old) => earliest(old.doubt_since, tx.unmarked_doubt(&old.did)?).map(Day::of),
        // The account may have come in a gap.
        None => tx.open_days_have_gaps()?.then_some(first),
    };
    let effect = effect(tx, basis, at, (old, new))?;
    let counted_at = match tx.counted_at(&entry.did)? {
        Some(last) => effect.at.max(last),
        None => effect.at,
    };
    let earlier = match hidden_since {
        Some(since) => EarlierDays::Since(since),
        None if effect.exact => EarlierDays::None,
        None => uncovered(tx, &entry.did, at)?,
    };
    Ok(Some(Shift {
        did: entry.did.clone(),
        delta: delta(tx, basis, at, (old, new), (first, effect.at))?,
        day: Day::of(counted_at).clamp(first, newest),
        newest,
        counted_at: Some(counted_at),
        earlier,
    }))
}

/// Returns what an event means that led to a refresh without a result: what it told of may have come
/// and gone again before the refresh, and midnight in between.
pub(super) fn without_result(
    tx: &Tx<'_>,
    seen: &Observation,
    is_known: bool,
) -> Result<Option<Shift>, StoreError> {
    let Trigger::Event { event, .. } = seen.trigger else {
        return Ok(None);
    };
    // Nearly always only the present day is open.
    let newest = Day::of(seen.at);
    let is_late = tx.first_open_day()?.is_some_and(|first| first < newest);
    if seen.authority == Authority::Stream || !is_late {
        return Ok(None);
    }
    let pending = tx.pending_times(&seen.did)?;
    let was_shown = pending.is_some_and(|(_, written_at)| written_at.is_some());
    if !(is_known || was_shown || event == EventKind::Commit) {
        return Ok(None);
    }
    Ok(Some(Shift {
        did: seen.did.clone(),
        delta: DayDelta::default(),
        day: newest,
        newest,
        counted_at: None,
        earlier: uncovered(tx, &seen.did, seen.at)?,
    }))
}

/// Writes how a change counts. To be called once the entry is written.
pub(super) fn write(tx: &Tx<'_>, shift: &Shift) -> Result<(), StoreError> {
    match shift.earlier {
        EarlierDays::None => {}
        EarlierDays::Since(since) => tx.doubt_days(since, shift.day)?,
        EarlierDays::Uncovered { last, since } => {
            tx.doubt_uncovered_days(last, shift.day, since)?
        }
    }
    if let Some(counted_at) = shift.counted_at {
        tx.add_to_day(shift.day, shift.newest, &shift.delta)?;
        tx.set_counted_at(&shift.did, counted_at)?;
    }
    Ok(())
}

/// Returns the days on which an account may have changed of which a source told before it came past
/// their end.
fn uncovered(tx: &Tx<'_>, did: &Did, at: Timestamp) -> Result<EarlierDays, StoreError> {
    let since = tx.pending_times(did)?.map_or(at, |(since, _)| since);
    let last = Day::of(at.minus(MIDNIGHT)).plus(-1);
    Ok(EarlierDays::Uncovered { last, since })
}

/// Takes note of when the commit was made that a stream has shown of an account without an entry:
/// its PDS, which is asked next, shows a later one.
pub(super) fn note_written(
    tx: &Tx<'_>,
    seen: &Observation,
    old: Option<&Entry>,
) -> Result<(), StoreError> {
    let is_first = old.is_none() && seen.authority == Authority::Stream;
    match (&seen.finding, own_time(seen, seen.at)) {
        (Finding::Present(_), Some(at)) if is_first => tx.note_written(&seen.did, at),
        _ => Ok(()),
    }
}

/// Returns the time of the commit that an observation proves, where it is one, and no later than
/// `at`.
fn own_time(seen: &Observation, at: Timestamp) -> Option<Timestamp> {
    let micros = seen.finding.commitment()?.rev().micros();
    let own = Timestamp::from_millis(i64::try_from(micros / 1000).ok()?);
    (own >= FIRST_COMMIT).then_some(own.min(at))
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    [one, other].into_iter().flatten().min()
}

fn is_event(basis: Basis<'_>) -> bool {
    matches!(basis, Basis::Seen(seen) if matches!(seen.trigger, Trigger::Event { .. }))
}

/// Returns when a change took effect.
fn effect(
    tx: &Tx<'_>,
    basis: Basis<'_>,
    at: Timestamp,
    (old, new): (Option<&Entry>, Option<&Entry>),
) -> Result<Effect, StoreError> {
    let seen = match basis {
        Basis::Seen(seen) => seen,
        Basis::Relay => return Ok(Effect { at, exact: false }),
        Basis::Limit => return Ok(Effect { at, exact: true }),
    };
    if old.is_none()
        && let Some((_, Some(written_at))) = tx.pending_times(&seen.did)?
    {
        let at = written_at.min(at);
        return Ok(Effect { at, exact: true });
    }
    // A commit says nothing of when an account was hidden, or active again.
    let is_active = |entry: Option<&Entry>| entry.is_none_or(|entry| entry.status.is_active());
    let is_of_package = old.and_then(|old| old.cid) != new.and_then(|new| new.cid)
        && is_active(old)
        && is_active(new);
    let own = own_time(seen, at).filter(|_| is_of_package);
    Ok(Effect {
        at: own.unwrap_or(at),
        // The PDS shows the newest commit, which may be later than that of the change.
        exact: own.is_some() && seen.authority == Authority::Stream,
    })
}

/// Returns what a change counts as. `first` is the first open day.
fn delta(
    tx: &Tx<'_>,
    basis: Basis<'_>,
    at: Timestamp,
    (old, new): (Option<&Entry>, Option<&Entry>),
    (first, effect_at): (Day, Timestamp),
) -> Result<DayDelta, StoreError> {
    let (was, is) = (Membership::of(old), Membership::of(new));
    let ([e0, a0, i0], [e1, a1, i1]) = (was.stock(), is.stock());
    let mut delta = DayDelta {
        stock: [e1 - e0, a1 - a0, i1 - i0],
        groups: was.moves(&is),
        ..DayDelta::default()
    };
    match (was.is_enrolled(), is.is_enrolled()) {
        (false, true) => {
            let did = new.map(|entry| &entry.did);
            let counted = match did {
                Some(did) if tx.had_package(did)? => &mut delta.returned,
                _ if is_found(basis, at, first) => &mut delta.found,
                _ => &mut delta.new,
            };
            *counted = 1;
        }
        (true, false) => delta.departed = 1,
        (true, true) => {
            if let Some(is_vouched) = replaced(basis, old, new) {
                delta.vouched = i64::from(is_vouched);
                delta.unvouched = i64::from(!is_vouched);
            }
        }
        (false, false) => {}
    }
    let cid = |entry: Option<&Entry>| entry.and_then(|entry| entry.cid);
    if is.is_enrolled() && is_event(basis) && cid(old) != cid(new) && delta.found == 0 {
        let delay = at.since(effect_at).as_millis();
        delta.delay = Some(i64::try_from(delay).unwrap_or(i64::MAX));
    }
    Ok(delta)
}

/// Returns whether an account that is new here had enrolled before the first open day.
fn is_found(basis: Basis<'_>, at: Timestamp, first: Day) -> bool {
    let own = match basis {
        Basis::Seen(seen) => own_time(seen, at),
        Basis::Relay | Basis::Limit => None,
    };
    match own {
        Some(own) => own < first.start(),
        None => !is_event(basis),
    }
}

/// Returns whether the did:peer before vouches for the one that replaces it; `None` where it is not
/// replaced.
fn replaced(basis: Basis<'_>, old: Option<&Entry>, new: Option<&Entry>) -> Option<bool> {
    let (before, after) = (old?.peer.as_deref()?, new?.peer.as_deref()?);
    if before == after {
        return None;
    }
    let Basis::Seen(seen) = basis else {
        return Some(false);
    };
    let Finding::Present(record) = &seen.finding else {
        return Some(false);
    };
    let record = record_json(record.record()).ok();
    let statement = record
        .as_ref()
        .and_then(|record| record.get(succession::FIELD)?.as_str());
    Some(statement.is_some_and(|text| succession::vouches(text, before, after, &seen.did)))
}
