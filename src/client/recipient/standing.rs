//! Whose message it is: what the pure function [`attribute`] needs to know is looked up, twice
//! before anything is held against the sender.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::{RecipientError, Recipients, Resolved};
use crate::client::evidence::{Keys, VerifiedPackage};
use crate::client::{Attribution, Claim, Doubt, Pin, Previous, Standing, attribute};
use crate::clock::Timestamp;
use crate::syntax::{Actor, Did};

/// For how long what was found out serves for further messages of the same account.
const LATELY: Duration = Duration::from_secs(60);

/// Accounts that are remembered so long: strangers can claim any number.
const MAX_LATELY: usize = 256;

/// What was found out of an account.
#[derive(Debug, Clone)]
pub(super) struct Lately {
    at: Timestamp,
    /// Whether it was the second look.
    anew: bool,
    standing: Standing,
    pin: Option<Pin>,
}

/// A message's attribution, and what is to be remembered of the account.
#[derive(Debug, Clone)]
pub struct Attributed {
    /// Whose it is.
    pub attribution: Attribution,
    /// The account's new pin, to be kept: of accounts that were pinned before, and of those that
    /// the message is proven to come from.
    pub pin: Option<Pin>,
}

impl Recipients {
    /// Attributes a message; looks up the account that it claims. `pins` is all that is remembered
    /// of whomever.
    pub async fn attribute(&self, claim: &Claim, pins: &[Pin]) -> Attributed {
        let now = self.clock.now();
        let Some(account) = claim.account() else {
            let unknown = Standing::Unknown(Doubt::NotAnAccount);
            return Attributed {
                attribution: attribute(claim, &unknown, None, now),
                pin: None,
            };
        };
        let known = pins.iter().find(|pin| pin.account == account);
        let weigh = |found: &Lately| {
            let pin = found.pin.as_ref().or(known);
            attribute(claim, &found.standing, pin, now)
        };
        let mut found = match self.remembered(&account) {
            Some(found) => found,
            None => self.look(&account, pins, false).await,
        };
        let mut attribution = weigh(&found);
        if attribution.is_adverse() && !found.anew {
            found = self.look(&account, pins, true).await;
            attribution = weigh(&found);
        }
        self.remember(account, found.clone());
        let keep = known.is_some() || attribution.account().is_some();
        Attributed {
            pin: found.pin.filter(|pin| keep && known != Some(pin)),
            attribution,
        }
    }

    async fn look(&self, account: &Did, pins: &[Pin], anew: bool) -> Lately {
        let actor = Actor::Did(account.clone());
        let reader = Self {
            thorough: anew,
            to_send: false,
            ..self.clone()
        };
        if anew && let Some(directory) = &self.directory {
            // Only its history depends on it; the account's own servers are asked as well.
            let _ = directory.refresh(account).await;
        }
        let found = reader.resolve(&actor, pins).await;
        let at = self.clock.now();
        let (standing, pin) = match found {
            Ok(resolved) => {
                let previous = match anew {
                    true => self.previous(&resolved).await,
                    false => Vec::new(),
                };
                let standing = Standing::Enrolled {
                    peer: resolved.package.peer().to_owned(),
                    handle: resolved.handle.clone(),
                    previous,
                };
                (standing, Some(resolved.pin))
            }
            Err(error) => (standing_of(&error), None),
        };
        Lately {
            at,
            anew,
            standing,
            pin,
        }
    }

    /// The did:peers that the account had before, as superseded proofs show them.
    async fn previous(&self, resolved: &Resolved) -> Vec<Previous> {
        let before_move = resolved.log.as_ref().and_then(|log| log.key_before_move());
        let keys = match &resolved.log {
            Some(log) => match Keys::of_log(log) {
                Ok(keys) => keys,
                Err(_) => return Vec::new(),
            },
            None => Keys {
                current: resolved.package.signing_key().clone(),
                before_move: before_move.map(|(key, at)| (key.clone(), at)),
            },
        };
        let mut superseded = self.superseded(&resolved.account, &keys).await;
        let current = resolved.package.rev();
        superseded.retain(|(package, _)| package.rev() <= current || package.before_move());
        superseded.push((resolved.package.clone(), self.clock.now()));
        replacements(&superseded)
    }

    fn remembered(&self, account: &Did) -> Option<Lately> {
        let found = self.lately().get(account).cloned()?;
        (self.clock.now().since(found.at) < LATELY).then_some(found)
    }

    fn remember(&self, account: Did, found: Lately) {
        let now = self.clock.now();
        let mut lately = self.lately();
        if lately.len() >= MAX_LATELY {
            lately.retain(|_, known| now.since(known.at) < LATELY);
        }
        if lately.len() < MAX_LATELY {
            lately.insert(account, found);
        }
    }

    fn lately(&self) -> MutexGuard<'_, HashMap<Did, Lately>> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When each did:peer was replaced for the last time, of packages in the account's order: at the
/// time that the newer record gives, where it gives a later one than the older, and not after the
/// directory saw it.
pub(super) fn replacements(packages: &[(VerifiedPackage, Timestamp)]) -> Vec<Previous> {
    let mut found: HashMap<&str, Timestamp> = HashMap::new();
    for pair in packages.windows(2) {
        let [(older, _), (newer, seen_at)] = pair else {
            continue;
        };
        if older.peer() == newer.peer() {
            continue;
        }
        let said = newer
            .created_at()
            .filter(|at| Some(*at) > older.created_at());
        let at = said.map_or(*seen_at, |said| said.min(*seen_at));
        found.insert(older.peer(), at);
    }
    let previous = found.into_iter().map(|(peer, replaced_at)| Previous {
        peer: peer.to_owned(),
        replaced_at,
    });
    previous.collect()
}

/// What it says of a message's claim that its account cannot be sent to.
fn standing_of(error: &RecipientError) -> Standing {
    Standing::Unknown(match error {
        RecipientError::NotEnrolled { .. } => return Standing::Removed,
        RecipientError::NoAccount => Doubt::NoAccount,
        RecipientError::Inactive(_) => Doubt::Inactive,
        RecipientError::Invalid(_) => Doubt::Invalid,
        RecipientError::RolledBack { .. } => Doubt::RolledBack,
        RecipientError::NotEnrolledUnproven | RecipientError::Unproven { .. } => Doubt::Unproven,
        RecipientError::Unreachable(_)
        | RecipientError::Handle { .. }
        | RecipientError::HandleNotClaimed { .. } => Doubt::Unreachable,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::client::evidence::testing::TestAccount;
    use crate::proof::testing::peer;

    fn time(text: &str) -> Timestamp {
        crate::client::datetime::parse(text).unwrap()
    }

    #[test]
    fn a_key_is_replaced_when_its_owner_says_so_or_it_was_seen_earlier() {
        let mut alice = TestAccount::new(7);
        let mut put = |key, created_at: &str, seen_at: &str| {
            let package = alice.put(key, &json!({"createdAt": created_at}));
            (package, time(seen_at))
        };
        let packages = [
            put(3, "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"),
            // The same key again replaces nothing.
            put(3, "2026-01-02T00:00:00Z", "2026-01-02T00:00:05Z"),
            // As its owner says.
            put(4, "2026-01-03T00:00:00Z", "2026-01-03T00:00:05Z"),
            // Not later than it was seen.
            put(5, "2026-02-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            // A time that is not after the one before says nothing.
            put(3, "2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z"),
            // Back and replaced once more: the last time counts.
            put(6, "2026-01-06T00:00:00Z", "2026-01-06T00:00:05Z"),
        ];
        let mut found = replacements(&packages);
        found.sort_by_key(|previous| previous.replaced_at);
        let expected = [
            (4, "2026-01-04T00:00:00Z"),
            (5, "2026-01-05T00:00:00Z"),
            (3, "2026-01-06T00:00:00Z"),
        ];
        let expected = expected.map(|(key, at)| Previous {
            peer: peer(key),
            replaced_at: time(at),
        });
        assert_eq!(found, expected);
        assert_eq!(replacements(&packages[..1]), []);
        assert_eq!(replacements(&[]), []);
    }
}
