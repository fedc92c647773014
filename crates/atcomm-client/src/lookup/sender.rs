//! Look-ups of senders: the state of the account that a message claims, for the pure function
//! [`attribute`]. A second look-up precedes every attribution that speaks against the sender.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::candidate::known_by;
use super::outcome::{Recipient, RecipientError};
use super::recipient::{Mode, RecipientLookup};
use super::trust::Unconfirmed;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Actor, Did};
use atcomm_proto::verify::attribution::{
    AccountState, Attribution, Claim, UnverifiedReason, attribute,
};
use atcomm_proto::verify::evidence::{Keys, VerifiedPackage};
use atcomm_proto::verify::pin::{Pin, Previous};
use atcomm_proto::verify::pinning::{KeyChange, predecessor};

/// Time for which a result is used for further messages of the same account.
const SENDER_CACHE_TTL: Duration = Duration::from_secs(60);

/// Most accounts whose results are cached: senders can claim any number.
const MAX_CACHED_SENDERS: usize = 256;

/// Most look-ups per account while a cached result is fresh. More than one, so that a key replaced
/// a moment ago is not reported as a mismatch; few, so that forged messages cannot make this client
/// ask endlessly.
const MAX_LOOKUPS: u32 = 4;

/// Timeout for all look-ups that one message causes: the sender chooses which servers they ask.
/// Long enough for a directory or a PDS that hangs and for the servers that are asked instead.
const SENDER_LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);

/// Looks up accounts that messages claim. Cloning is cheap.
#[derive(Clone)]
pub struct SenderLookup {
    lookup: RecipientLookup,
    cache: Arc<Mutex<HashMap<Did, CachedSender>>>,
}

/// The result of a look-up.
#[derive(Debug, Clone)]
struct CachedSender {
    at: Timestamp,
    /// Whether the account's own servers were asked in any case.
    again: bool,
    /// Number of look-ups while results were cached.
    lookups: u32,
    state: AccountState,
    /// The pin at the time of the look-up.
    before: Option<Pin>,
    /// The pin that resulted from the look-up.
    pin: Option<Pin>,
}

impl CachedSender {
    /// Whether the result is about the present pin. Another process may have accepted a key since,
    /// or deleted the contact.
    fn fits(&self, known: Option<&Pin>) -> bool {
        known == self.before.as_ref() || (known.is_some() && known == self.pin.as_ref())
    }
}

/// A message's attribution, and the resulting pin.
#[derive(Debug, Clone)]
pub struct Attributed {
    /// The attribution.
    pub attribution: Attribution,
    /// The account's new pin, to be saved. `None` unless this message caused a look-up of an
    /// account that was pinned before, or that is proven to have sent the message.
    pub pin: Option<Pin>,
}

impl SenderLookup {
    /// Returns a look-up of senders with an empty cache.
    pub fn new(lookup: RecipientLookup) -> Self {
        Self {
            lookup,
            cache: Arc::default(),
        }
    }

    /// Attributes a message, and looks up the account that it claims. `pins` are all contacts.
    pub async fn attribute(&self, claim: &Claim, pins: &[Pin]) -> Attributed {
        let now = self.lookup.clock.now();
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
            let mut state = found.state.clone();
            if let AccountState::Enrolled {
                handle: Some(handle),
                known_of,
                ..
            } = &mut state
            {
                *known_of = known_by(handle, &account, pins).cloned();
            }
            attribute(claim, &state, pin, now)
        };
        let deadline = Instant::now() + SENDER_LOOKUP_TIMEOUT;
        let cached = self.cached(&account).filter(|found| found.fits(known));
        let mut is_new = cached.is_none();
        let mut found = match cached {
            Some(found) => found,
            None => self.find_until(deadline, &account, pins, false).await,
        };
        let mut attribution = weigh(&found);
        let may_ask_again = !found.again || (!is_new && found.lookups < MAX_LOOKUPS);
        if attribution.is_adverse() && may_ask_again {
            let lookups = found.lookups + 1;
            found = CachedSender {
                lookups,
                ..self.find_until(deadline, &account, pins, true).await
            };
            is_new = true;
            attribution = weigh(&found);
        }
        if is_new {
            self.cache(account, found.clone());
        }
        let is_kept = is_new && (known.is_some() || attribution.account().is_some());
        Attributed {
            pin: found.pin.filter(|pin| is_kept && known != Some(pin)),
            attribution,
        }
    }

    /// Looks an account up; the state is unknown where that lasts beyond the deadline.
    async fn find_until(
        &self,
        deadline: Instant,
        account: &Did,
        pins: &[Pin],
        again: bool,
    ) -> CachedSender {
        let found = timeout_at(deadline, self.find(account, pins, again)).await;
        let unreachable = AccountState::Unknown(UnverifiedReason::Unreachable);
        let (state, pin) = found.unwrap_or((unreachable, None));
        CachedSender {
            at: self.lookup.clock.now(),
            again,
            lookups: 1,
            state,
            before: pins.iter().find(|pin| pin.account == *account).cloned(),
            pin,
        }
    }

    async fn find(&self, account: &Did, pins: &[Pin], again: bool) -> (AccountState, Option<Pin>) {
        let mode = if again {
            Mode::AttributeAgain
        } else {
            Mode::Attribute
        };
        if again && let Some(directory) = self.lookup.directory() {
            // An error matters only to the history: the account's own servers are asked as well.
            let _ = directory.refresh(account).await;
        }
        let lookup = self.lookup.clone().with_mode(mode);
        let found = match lookup.resolve(&Actor::Did(account.clone()), pins).await {
            Ok(found) => found,
            Err(error) => return (state_of(&error), None),
        };
        if let Some(reason) = unverified_reason(&found) {
            return (AccountState::Unknown(reason), found.trust.pin);
        }
        let previous = if again {
            self.previous(&found).await
        } else {
            Vec::new()
        };
        let state = AccountState::Enrolled {
            peer: found.package.peer().to_owned(),
            handle: found.handle,
            known_of: None,
            previous,
        };
        (state, found.trust.pin)
    }

    /// Returns the did:peers that the account had before, as proofs under its present signing key
    /// show.
    async fn previous(&self, found: &Recipient) -> Vec<Previous> {
        let current = match &found.log {
            Some(log) => log.current().and_then(|state| state.signing_key.clone()),
            None => Some(found.package.signing_key().clone()),
        };
        let Some(current) = current else {
            return Vec::new();
        };
        let keys = Keys {
            current,
            pre_migration_key: None,
        };
        let mut packages = self.lookup.superseded(&found.account, &keys).await;
        packages.push(found.package.clone());
        shown_until(&packages)
    }

    fn cached(&self, account: &Did) -> Option<CachedSender> {
        let found = self.lock().get(account).cloned()?;
        (self.lookup.clock.now().since(found.at) < SENDER_CACHE_TTL).then_some(found)
    }

    fn cache(&self, account: Did, found: CachedSender) {
        let now = self.lookup.clock.now();
        let mut cache = self.lock();
        if cache.len() >= MAX_CACHED_SENDERS {
            cache.retain(|_, known| now.since(known.at) < SENDER_CACHE_TTL);
        }
        if cache.len() < MAX_CACHED_SENDERS || cache.contains_key(&account) {
            cache.insert(account, found);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Did, CachedSender>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns until when each did:peer is proven to have been the account's: the latest revision that
/// names it, or the time of its statement for the next one. A directory can leave out packages, so
/// the next one that it shows need not be the one that replaced it.
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

/// Returns why a key that can be sent to does not attribute a message: where the account's own PDS
/// does not confirm it, only the pinned key counts.
fn unverified_reason(found: &Recipient) -> Option<UnverifiedReason> {
    let trust = &found.trust;
    let why = trust.unconfirmed?;
    let is_known = trust.change == KeyChange::Same && !trust.needs_confirmation;
    (!is_known).then_some(match why {
        Unconfirmed::HostSilent => UnverifiedReason::Unreachable,
        Unconfirmed::HostUseless => UnverifiedReason::Unproven,
    })
}

/// Returns the state of an account that cannot be sent to.
fn state_of(error: &RecipientError) -> AccountState {
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
