//! Whose message it is: what the pure function [`attribute`] needs to know is looked up, twice
//! before anything is held against the sender.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::outcome::{Recipient, RecipientError, Unconfirmed};
use super::recipient::{RecipientLookup, known_by};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Actor, Did};
use atcomm_proto::verify::attribution::{
    AccountState, Attribution, Claim, UnverifiedReason, attribute,
};
use atcomm_proto::verify::evidence::{Keys, VerifiedPackage};
use atcomm_proto::verify::pin::{Pin, Previous};
use atcomm_proto::verify::pinning::{KeyChange, predecessor};

/// For how long what was found out serves for further messages of the same account.
const LATELY: Duration = Duration::from_secs(60);

/// Accounts that are remembered so long: strangers can claim any number.
const MAX_LATELY: usize = 256;

/// Looks at one account within [`LATELY`]: somebody who has just replaced a key is not taken for a
/// fraud by what was found out before, and forged messages do not make a reader ask all the time.
const MAX_LOOKS: u32 = 4;

/// Time for all the looks that one message causes: whom they ask is for a stranger to choose. Long
/// enough for a directory or a PDS that hangs and for those who are asked instead.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was found out of an account.
#[derive(Debug, Clone)]
pub(super) struct CachedSender {
    at: Timestamp,
    /// Whether it was the second look.
    anew: bool,
    /// How many looks there were, as long as none was forgotten.
    looks: u32,
    standing: AccountState,
    /// The pin that was known then.
    before: Option<Pin>,
    /// The one that it became, where it became another.
    pin: Option<Pin>,
}

impl CachedSender {
    /// Whether it is about what is known now. Another process may have accepted a key since, or
    /// forgotten the account.
    fn fits(&self, known: Option<&Pin>) -> bool {
        known == self.before.as_ref() || (known.is_some() && known == self.pin.as_ref())
    }
}

/// A message's attribution, and what is to be remembered of the account.
#[derive(Debug, Clone)]
pub struct Attributed {
    /// Whose it is.
    pub attribution: Attribution,
    /// The account's new pin, to be kept: of accounts that were pinned before, and of those that
    /// the message is proven to come from. Only of a look that this message caused.
    pub pin: Option<Pin>,
}

impl RecipientLookup {
    /// Attributes a message; looks up the account that it claims. `pins` is all that is remembered
    /// of whomever.
    pub async fn attribute(&self, claim: &Claim, pins: &[Pin]) -> Attributed {
        let now = self.clock.now();
        let Some(account) = claim.account() else {
            let unknown = AccountState::Unknown(UnverifiedReason::NotAnAccount);
            return Attributed {
                attribution: attribute(claim, &unknown, None, now),
                pin: None,
            };
        };
        let known = pins.iter().find(|pin| pin.account == account);
        let weigh = |found: &CachedSender| {
            let pin = found.pin.as_ref().or(known);
            let mut standing = found.standing.clone();
            if let AccountState::Enrolled {
                handle: Some(handle),
                known_of,
                ..
            } = &mut standing
            {
                *known_of = known_by(handle, &account, pins).cloned();
            }
            attribute(claim, &standing, pin, now)
        };
        let deadline = Instant::now() + PATIENCE;
        let remembered = self.remembered(&account).filter(|found| found.fits(known));
        let mut looked = remembered.is_none();
        let mut found = match remembered {
            Some(found) => found,
            None => self.look_until(deadline, &account, pins, false).await,
        };
        let mut attribution = weigh(&found);
        let again = !found.anew || (!looked && found.looks < MAX_LOOKS);
        if attribution.is_adverse() && again {
            let looks = found.looks + 1;
            found = CachedSender {
                looks,
                ..self.look_until(deadline, &account, pins, true).await
            };
            looked = true;
            attribution = weigh(&found);
        }
        if looked {
            self.remember(account, found.clone());
        }
        let keep = looked && (known.is_some() || attribution.account().is_some());
        Attributed {
            pin: found.pin.filter(|pin| keep && known != Some(pin)),
            attribution,
        }
    }

    /// A look that decides nothing where it takes longer.
    async fn look_until(
        &self,
        deadline: Instant,
        account: &Did,
        pins: &[Pin],
        anew: bool,
    ) -> CachedSender {
        let look = timeout_at(deadline, self.look(account, pins, anew)).await;
        let (standing, pin) =
            look.unwrap_or((AccountState::Unknown(UnverifiedReason::Unreachable), None));
        CachedSender {
            at: self.clock.now(),
            anew,
            looks: 1,
            standing,
            before: pins.iter().find(|pin| pin.account == *account).cloned(),
            pin,
        }
    }

    async fn look(&self, account: &Did, pins: &[Pin], anew: bool) -> (AccountState, Option<Pin>) {
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
        let resolved = match reader.resolve(&actor, pins).await {
            Ok(resolved) => resolved,
            Err(error) => return (standing_of(&error), None),
        };
        if let Some(doubt) = doubt(&resolved) {
            return (AccountState::Unknown(doubt), resolved.pin);
        }
        let previous = match anew {
            true => self.previous(&resolved).await,
            false => Vec::new(),
        };
        let standing = AccountState::Enrolled {
            peer: resolved.package.peer().to_owned(),
            handle: resolved.handle.clone(),
            known_of: None,
            previous,
        };
        (standing, resolved.pin)
    }

    /// The did:peers that the account had before, as proofs under its present signing key show.
    async fn previous(&self, resolved: &Recipient) -> Vec<Previous> {
        let current = match &resolved.log {
            Some(log) => log.current().and_then(|state| state.signing_key.clone()),
            None => Some(resolved.package.signing_key().clone()),
        };
        let Some(current) = current else {
            return Vec::new();
        };
        let keys = Keys {
            current,
            pre_migration_key: None,
        };
        let mut packages = self.superseded(&resolved.account, &keys).await;
        packages.push(resolved.package.clone());
        shown_until(&packages)
    }

    fn remembered(&self, account: &Did) -> Option<CachedSender> {
        let found = self.lately().get(account).cloned()?;
        (self.clock.now().since(found.at) < LATELY).then_some(found)
    }

    fn remember(&self, account: Did, found: CachedSender) {
        let now = self.clock.now();
        let mut lately = self.lately();
        if lately.len() >= MAX_LATELY {
            lately.retain(|_, known| now.since(known.at) < LATELY);
        }
        if lately.len() < MAX_LATELY || lately.contains_key(&account) {
            lately.insert(account, found);
        }
    }

    fn lately(&self) -> MutexGuard<'_, HashMap<Did, CachedSender>> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until when each did:peer is shown to have been the account's: by the latest revision that names
/// it, or when it gave its word for the one that follows it. A directory may leave out packages, so
/// the one after it in what it shows need not be the one that replaced it.
pub(super) fn shown_until(packages: &[VerifiedPackage]) -> Vec<Previous> {
    let mut found: HashMap<String, Timestamp> = HashMap::new();
    let mut until = |peer: String, at: Timestamp| {
        let known = found.entry(peer).or_insert(at);
        *known = at.max(*known);
    };
    for package in packages
        .iter()
        .filter(|package| !package.signed_by_previous_host())
    {
        until(package.peer().to_owned(), package.proven_at());
        if let Some((old, Some(at))) = predecessor(package) {
            until(old, at);
        }
    }
    let previous = found.into_iter().map(|(peer, at)| Previous {
        peer,
        replaced_at: at,
    });
    previous.collect()
}

/// Why a package that can be sent to says nothing of whose a message is: where the account's own
/// PDS does not confirm it, nothing counts but that the pinned key is still there.
fn doubt(resolved: &Recipient) -> Option<UnverifiedReason> {
    let why = resolved.unconfirmed?;
    let is_known = resolved.change == KeyChange::Same && !resolved.needs_confirmation();
    (!is_known).then_some(match why {
        Unconfirmed::HostSilent => UnverifiedReason::Unreachable,
        Unconfirmed::HostUseless => UnverifiedReason::Unproven,
    })
}

/// What it says of a message's claim that its account cannot be sent to.
fn standing_of(error: &RecipientError) -> AccountState {
    AccountState::Unknown(match error {
        RecipientError::NotEnrolled { .. } => return AccountState::Removed,
        RecipientError::NoAccount => UnverifiedReason::NoAccount,
        RecipientError::Inactive(_) => UnverifiedReason::Inactive,
        RecipientError::Invalid(_) => UnverifiedReason::Invalid,
        RecipientError::RolledBack { .. } => UnverifiedReason::RolledBack,
        RecipientError::NotEnrolledUnproven | RecipientError::Unproven { .. } => {
            UnverifiedReason::Unproven
        }
        RecipientError::Unreachable(_)
        | RecipientError::Handle { .. }
        | RecipientError::HandleNotClaimed { .. } => UnverifiedReason::Unreachable,
    })
}

#[cfg(test)]
mod tests;
