//! Changes of pins: pure functions of a pin and the verified state of its account.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::VerifiedPackage;
use super::pin::{Changed, MAX_KNOWN_AS, Pin, Previous};
use super::succession::{self, Succession};
use crate::clock::Timestamp;
use crate::didcomm::party::KeyAgreement;
use crate::syntax::{Did, Handle, MediatorDid};

/// The relation of the did:peer that an account publishes to the pinned one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// The account has no pin.
    First,
    /// The did:peer is the pinned one.
    Same,
    /// The did:peer is another one, and the pinned one vouches for it.
    Vouched {
        /// The pinned did:peer.
        before: String,
    },
    /// The did:peer is another one, and the pinned one does not vouch for it: nothing may be sent
    /// until it is accepted.
    Changed {
        /// The pinned did:peer.
        before: String,
    },
}

/// The verified state of an account.
pub struct VerifiedAccount<'a> {
    /// The key package of the account.
    pub package: &'a VerifiedPackage,
    /// The handle of the account: verified in both directions, or the pinned one if the lookup of
    /// the handle failed.
    pub handle: Option<Handle>,
    /// Whether the account's own servers were asked, not the directory alone.
    pub authoritative: bool,
    /// The keys of the account's mediators, as read by this client.
    pub mediators: BTreeMap<MediatorDid, Vec<KeyAgreement>>,
}

/// Returns whether a package is older than the newest one seen under the same signing key. Under
/// another key revisions begin anew.
pub fn is_rolled_back(pin: &Pin, package: &VerifiedPackage) -> bool {
    let newest = pin.newest(&package.signing_key().did_key());
    newest.is_some_and(|newest| package.rev() < newest)
}

/// Returns the change of the key and the pin to save. `older` are superseded packages of the
/// account, whose statements bridge changes that this client has not seen.
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
            // A directory that repeats the same package must not postpone the next authoritative
            // lookup.
            last_seen: if authoritative { now } else { pin.last_seen },
            ..fresh
        };
        return (KeyChange::Same, same);
    }
    let before = pin.peer.clone();
    if is_vouched(&before, package, older) {
        let previous = Some(previous_key(pin, older.iter().chain([package]), now));
        return (KeyChange::Vouched { before }, Pin { previous, ..fresh });
    }
    // The rest of the pin stays unchanged: handle and mediators beside a key that is not accepted
    // are not accepted either.
    let kept = Pin {
        changed: Some(waiting(pin, fresh)),
        ..pin.clone()
    };
    (KeyChange::Changed { before }, kept)
}

/// Returns the key of `published` as one that waits to be accepted in place of the pinned key.
fn waiting(pin: &Pin, published: Pin) -> Changed {
    Changed {
        peer: published.peer,
        rev: published.rev,
        signing_key: Some(published.signing_key),
        // The time of the replacement is unknown, since other keys may have come between.
        seen_at: match &pin.changed {
            Some(changed) => changed.seen_at,
            None => pin.last_seen.min(published.last_seen),
        },
    }
}

/// Returns the pin after the user has accepted the published key.
pub fn accept(pin: Option<&Pin>, seen: VerifiedAccount<'_>, now: Timestamp) -> Pin {
    let before = pin.filter(|pin| pin.peer != seen.package.peer());
    let previous = match before {
        Some(pin) => Some(match &pin.changed {
            Some(changed) => Previous {
                peer: pin.peer.clone(),
                replaced_at: changed.seen_at,
            },
            None => previous_key(pin, [seen.package], now),
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

/// Returns the earlier handles of the account, without its present `handle`.
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

/// Returns the pinned key as a previous key. The time of its replacement is that of its statement
/// in one of the `packages`, but not before the key was last seen in use, nor after now. Without a
/// statement it is the time when the key was last seen, since the present package may have come
/// long after.
fn previous_key<'p>(
    pin: &Pin,
    packages: impl IntoIterator<Item = &'p VerifiedPackage>,
    now: Timestamp,
) -> Previous {
    let latest = packages
        .into_iter()
        .filter_map(predecessor)
        .filter_map(|(old, at)| at.filter(|_| old == pin.peer))
        .max();
    Previous {
        peer: pin.peer.clone(),
        replaced_at: latest
            .map_or(pin.last_seen, |at| at.max(pin.last_seen))
            .min(now),
    }
}

/// Returns the did:peer that vouches for the package's own in its record, and the time at which it
/// was replaced: the earliest of the times of statement, record and proof, which only the owner of
/// the account can set. The time is `None` if the statement has none, or if the package is signed
/// by the PDS that the account left, which may have done so lately.
pub fn predecessor(package: &VerifiedPackage) -> Option<(String, Option<Timestamp>)> {
    let statement = statement_in(package, package.account())?;
    let stated_at = statement
        .created_at
        .filter(|_| !package.signed_by_previous_host());
    let replaced_at = stated_at.map(|at| {
        let created_at = package.created_at().unwrap_or(at);
        at.min(created_at).min(package.proven_at())
    });
    Some((statement.old, replaced_at))
}

/// Returns whether a chain of statements leads from the did:peer `from` to the package's. The key
/// that each statement starts from has signed it, so any source of the statement will do.
fn is_vouched(from: &str, package: &VerifiedPackage, older: &[VerifiedPackage]) -> bool {
    let statements: Vec<Succession> = older
        .iter()
        .chain([package])
        .filter_map(|one| statement_in(one, package.account()))
        .collect();
    let mut reached = BTreeSet::from([from]);
    // Each round but the last reaches at least one more did:peer.
    for _ in 0..=statements.len() {
        let before = reached.len();
        let next: Vec<&str> = statements
            .iter()
            .filter(|statement| reached.contains(&*statement.old))
            .map(|statement| &*statement.new)
            .collect();
        reached.extend(next);
        if reached.len() == before {
            break;
        }
    }
    reached.contains(package.peer())
}

/// Returns the statement in the record of a package, if it names the package's did:peer and
/// `account`.
fn statement_in(package: &VerifiedPackage, account: &Did) -> Option<Succession> {
    succession::read(package.succession()?)
        .filter(|statement| statement.new == package.peer() && statement.account == *account)
}

#[cfg(test)]
mod tests;
