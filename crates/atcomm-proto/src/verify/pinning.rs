//! What becomes of a pin when an account is seen again: a pure function.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::VerifiedPackage;
use super::pin::{Changed, MAX_KNOWN_AS, Pin, Previous};
use super::succession::{self, Succession};
use crate::clock::Timestamp;
use crate::didcomm::party::KeyAgreement;
use crate::syntax::{Handle, MediatorDid};

/// How the did:peer of an account relates to the one that is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// Nothing was pinned.
    First,
    /// It is the pinned one.
    Same,
    /// It is another one, and the pinned one vouches for it.
    Vouched {
        /// The pinned one.
        before: String,
    },
    /// It is another one, and nothing connects them: nothing is to be sent until it is accepted.
    Changed {
        /// The pinned one.
        before: String,
    },
}

/// What was verified of an account.
pub struct VerifiedAccount<'a> {
    /// Its package.
    pub package: &'a VerifiedPackage,
    /// Its handle, verified in both directions, or as it was pinned where nobody could tell.
    pub handle: Option<Handle>,
    /// Whether the account's own servers were asked.
    pub authoritative: bool,
    /// The keys of its mediators, as this client has read them.
    pub mediators: BTreeMap<MediatorDid, Vec<KeyAgreement>>,
}

/// Whether what is seen now is older than what was seen before under the same signing key. Under
/// another key revisions begin anew.
pub fn is_rolled_back(pin: &Pin, package: &VerifiedPackage) -> bool {
    let newest = pin.newest(&package.signing_key().did_key());
    newest.is_some_and(|newest| package.rev() < newest)
}

/// The change, and the pin to be kept. `older` are superseded packages of the account, whose words
/// for their successors bridge changes that this client has not seen.
pub fn update(
    pin: Option<&Pin>,
    seen: VerifiedAccount<'_>,
    older: &[VerifiedPackage],
    now: Timestamp,
) -> (KeyChange, Pin) {
    let VerifiedAccount {
        package,
        authoritative,
        ..
    } = seen;
    let fresh = Pin {
        account: package.account().clone(),
        known_as: known_as(pin, seen.handle.as_ref()),
        handle: seen.handle,
        peer: package.peer().to_owned(),
        rev: package.rev(),
        signing_key: package.signing_key().did_key(),
        mediators: seen.mediators,
        previous: None,
        changed: None,
        first_seen: pin.map_or(now, |pin| pin.first_seen),
        last_seen: now,
    };
    let Some(pin) = pin else {
        return (KeyChange::First, fresh);
    };
    if pin.peer == fresh.peer {
        let same = Pin {
            previous: pin.previous.clone(),
            // A directory that goes on showing the same must not postpone the next look.
            last_seen: if authoritative { now } else { pin.last_seen },
            ..fresh
        };
        return (KeyChange::Same, same);
    }
    let before = pin.peer.clone();
    if is_vouched(&before, package, older) {
        let previous = Some(replaced(pin, older.iter().chain([package]), now));
        return (KeyChange::Vouched { before }, Pin { previous, ..fresh });
    }
    let changed = match &pin.changed {
        Some(changed) if changed.peer == fresh.peer => Changed {
            rev: fresh.rev,
            signing_key: Some(fresh.signing_key),
            ..changed.clone()
        },
        before => Changed {
            peer: fresh.peer,
            rev: fresh.rev,
            signing_key: Some(fresh.signing_key),
            // Nothing tells when it was replaced: others may have come between.
            seen_at: before
                .as_ref()
                .map_or(pin.last_seen.min(now), |before| before.seen_at),
        },
    };
    // Everything else stays as it was: what is shown beside a key that is not accepted is not
    // accepted either.
    let kept = Pin {
        changed: Some(changed),
        ..pin.clone()
    };
    (KeyChange::Changed { before }, kept)
}

/// The pin after its owner has accepted the change.
pub fn accept(pin: Option<&Pin>, seen: VerifiedAccount<'_>, now: Timestamp) -> Pin {
    let before = pin.filter(|pin| pin.peer != seen.package.peer());
    let previous = match before {
        Some(pin) => Some(match &pin.changed {
            Some(changed) => Previous {
                peer: pin.peer.clone(),
                replaced_at: changed.seen_at,
            },
            None => replaced(pin, [seen.package], now),
        }),
        None => pin.and_then(|pin| pin.previous.clone()),
    };
    let known_as = known_as(pin, seen.handle.as_ref());
    let (_, fresh) = update(None, seen, &[], now);
    Pin {
        previous,
        known_as,
        first_seen: pin.map_or(now, |pin| pin.first_seen),
        ..fresh
    }
}

/// The handles by which the account was known and is no more.
fn known_as(pin: Option<&Pin>, handle: Option<&Handle>) -> Vec<Handle> {
    let Some(pin) = pin else {
        return Vec::new();
    };
    let mut known: Vec<Handle> = Vec::new();
    for one in pin.known_as.iter().chain(&pin.handle) {
        if Some(one) != handle && !known.contains(one) {
            known.push(one.clone());
        }
    }
    known.drain(..known.len().saturating_sub(MAX_KNOWN_AS));
    known
}

/// The pinned key as replaced: when it gave its word for the next one, but neither before it was
/// last seen in use nor after now. Without that word, when it was last seen: the package of today
/// may have come long after.
fn replaced<'p>(
    pin: &Pin,
    packages: impl IntoIterator<Item = &'p VerifiedPackage>,
    now: Timestamp,
) -> Previous {
    let words = packages.into_iter().filter_map(predecessor);
    let said = words.filter_map(|(old, at)| (old == pin.peer).then_some(at)?);
    Previous {
        peer: pin.peer.clone(),
        replaced_at: said
            .max()
            .map_or(pin.last_seen, |said| said.max(pin.last_seen))
            .min(now),
    }
}

/// The did:peer whose word for the package's own stands in its record, and when it was replaced by
/// it: not after its word was given, nor after the record was made or proven, each of which the
/// account's owner alone can date. `None` for the time where the word has none.
pub fn predecessor(package: &VerifiedPackage) -> Option<(String, Option<Timestamp>)> {
    let word = succession::read(package.succession()?)?;
    if word.new != package.peer() || word.account != *package.account() {
        return None;
    }
    // What the key of a host that the account has left has signed, that host may have made lately.
    let given = word
        .created_at
        .filter(|_| !package.signed_by_previous_host());
    let at = given.map(|at| {
        let made = package.created_at().unwrap_or(at);
        at.min(made).min(package.proven_at())
    });
    Some((word.old, at))
}

/// Whether a chain of statements leads from a did:peer to the package's. Each is signed by the key
/// that it comes from, so it counts whoever handed it over.
fn is_vouched(from: &str, package: &VerifiedPackage, older: &[VerifiedPackage]) -> bool {
    let packages = older.iter().chain([package]);
    let words: Vec<Succession> = packages
        .filter_map(|one| {
            let word = succession::read(one.succession()?)?;
            let fits = word.new == one.peer() && word.account == *package.account();
            fits.then_some(word)
        })
        .collect();
    let mut reached = BTreeSet::from([from]);
    // Each round reaches one more did:peer at least, or is the last.
    for _ in 0..=words.len() {
        let before = reached.len();
        let next = words.iter().filter(|word| reached.contains(&*word.old));
        let next: Vec<&str> = next.map(|word| &*word.new).collect();
        reached.extend(next);
        if reached.len() == before {
            break;
        }
    }
    reached.contains(package.peer())
}

#[cfg(test)]
mod tests;
