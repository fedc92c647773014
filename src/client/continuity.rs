//! What becomes of a pin when an account is seen again: a pure function.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::VerifiedPackage;
use super::succession::{self, Succession};
use super::{Changed, Pin, Previous};
use crate::clock::Timestamp;
use crate::identity::KeyAgreement;
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
pub(super) struct Seen<'a> {
    /// Its package.
    pub(super) package: &'a VerifiedPackage,
    /// Its handle, verified in both directions.
    pub(super) handle: Option<Handle>,
    /// Whether the account's own servers were asked.
    pub(super) firsthand: bool,
    /// The keys of its mediators, as this client has read them.
    pub(super) mediators: BTreeMap<MediatorDid, Vec<KeyAgreement>>,
}

/// Whether what is seen now is older than what was seen before under the same signing key. Under
/// another key revisions begin anew.
pub(super) fn is_rolled_back(pin: &Pin, package: &VerifiedPackage) -> bool {
    let newest = pin.changed.as_ref().map_or(pin.rev, |changed| changed.rev);
    pin.signing_key == package.signing_key().did_key() && package.rev() < newest.max(pin.rev)
}

/// The change, and the pin to be kept. `older` are superseded packages of the account, whose words
/// for their successors bridge changes that this client has not seen.
pub(super) fn follow(
    pin: Option<&Pin>,
    seen: Seen<'_>,
    older: &[VerifiedPackage],
    now: Timestamp,
) -> (KeyChange, Pin) {
    let Seen {
        package, firsthand, ..
    } = seen;
    let fresh = Pin {
        account: package.account().clone(),
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
            last_seen: if firsthand { now } else { pin.last_seen },
            ..fresh
        };
        return (KeyChange::Same, same);
    }
    let before = pin.peer.clone();
    if is_vouched(&before, package, older) {
        let previous = Some(replaced(pin, package, now));
        return (KeyChange::Vouched { before }, Pin { previous, ..fresh });
    }
    let changed = match &pin.changed {
        Some(changed) if changed.peer == fresh.peer => Changed {
            rev: fresh.rev,
            ..changed.clone()
        },
        _ => Changed {
            peer: fresh.peer,
            rev: fresh.rev,
            seen_at: replaced(pin, package, now).replaced_at,
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
pub(super) fn accept(pin: Option<&Pin>, seen: Seen<'_>, now: Timestamp) -> Pin {
    let before = pin.filter(|pin| pin.peer != seen.package.peer());
    let previous = match before {
        Some(pin) => Some(match &pin.changed {
            Some(changed) => Previous {
                peer: pin.peer.clone(),
                replaced_at: changed.seen_at,
            },
            None => replaced(pin, seen.package, now),
        }),
        None => pin.and_then(|pin| pin.previous.clone()),
    };
    let (_, fresh) = follow(None, seen, &[], now);
    Pin {
        previous,
        first_seen: pin.map_or(now, |pin| pin.first_seen),
        ..fresh
    }
}

/// The pinned key as replaced: at the time that the new package gives, which its owner signed,
/// but neither before it was last seen in use nor after now.
fn replaced(pin: &Pin, package: &VerifiedPackage, now: Timestamp) -> Previous {
    let said = package.created_at().unwrap_or(pin.last_seen);
    Previous {
        peer: pin.peer.clone(),
        replaced_at: said.max(pin.last_seen).min(now),
    }
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
