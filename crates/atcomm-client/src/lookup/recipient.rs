//! Whom a message is encrypted to: an account's key package, with nobody taken at
//! his word.
//!
//! A directory saves look-ups; it is not trusted. What it shows counts with its proof only, and at
//! first contact, or when anything differs from what is pinned, the account's own servers are
//! asked too: the PLC directory for the operations that lead to its signing key, its PDS for
//! something newer, its handle for the way back, its mediators for their keys.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::authoritative::{AccountIdentity, AccountIdentityError, Authoritative, HostAnswer};
use super::choose::{Choice, choose};
use super::directory::{DirectoryClient, DirectoryError, View};
use super::outcome::{Recipient, RecipientError, Source, Unconfirmed, Warning};
use super::sender::CachedSender;
use atcomm_net::identity::{HandleCheck, Identity, MediatorDocument};
use atcomm_net::net::Net;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::key::SigningKey;
use atcomm_proto::syntax::{Actor, Did, Handle, Rev};
use atcomm_proto::verify::evidence::{Evidence, Keys, ProofResult, VerifiedPackage};
use atcomm_proto::verify::pin::Pin;
use atcomm_proto::verify::pinning::{self, VerifiedAccount, is_rolled_back};
use atcomm_proto::verify::succession;

/// How old a look at the account's own servers may be for the directory alone to be asked: for so
/// long it could hide that something has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// Looks up recipients, and accounts that messages claim. Cloning is cheap.
#[derive(Clone)]
pub struct RecipientLookup {
    pub(super) own: Authoritative,
    pub(super) directory: Option<DirectoryClient>,
    pub(super) clock: Clock,
    pub(super) thorough: bool,
    /// Whether mediators are looked at. To find out whose a message is they are not: whoever sends
    /// one must not make its reader dial what he names without need.
    pub(super) to_send: bool,
    /// Accounts that messages claimed lately; see `sender`.
    pub(super) lately: Arc<Mutex<HashMap<Did, CachedSender>>>,
}

/// What is known of an account before its pin is compared.
struct Found {
    package: VerifiedPackage,
    identity: Option<AccountIdentity>,
    view: Option<View>,
    warnings: Vec<Warning>,
    unconfirmed: Option<Unconfirmed>,
}

impl RecipientLookup {
    /// Asks `directory`, if there is one, and accounts' own servers.
    pub fn new(
        net: Net,
        identity: Identity,
        clock: Clock,
        directory: Option<DirectoryClient>,
    ) -> Self {
        Self {
            own: Authoritative::new(net, identity, clock.clone()),
            directory,
            clock,
            thorough: false,
            to_send: true,
            lately: Arc::default(),
        }
    }

    /// From now on the account's own servers are asked in any case.
    #[must_use]
    pub fn thorough(self) -> Self {
        Self {
            thorough: true,
            ..self
        }
    }

    /// The directory that is asked.
    pub fn directory(&self) -> Option<&DirectoryClient> {
        self.directory.as_ref()
    }

    /// The account that is meant: the directory has no say in it.
    pub async fn account(&self, actor: &Actor) -> Result<Did, RecipientError> {
        match actor {
            Actor::Did(did) => Ok(did.clone()),
            Actor::Handle(handle) => {
                let found = self.own.identity().resolve_handle(handle).await;
                found.map_err(|why| RecipientError::Handle {
                    handle: handle.clone(),
                    why,
                })
            }
        }
    }

    /// Finds out how to send to an account. `pins` is all that is remembered of whomever.
    pub async fn resolve(&self, actor: &Actor, pins: &[Pin]) -> Result<Recipient, RecipientError> {
        let did = self.account(actor).await?;
        let pin = pins.iter().find(|pin| pin.account == did);
        let found = match self.find(&did, actor, pin).await {
            Err(RecipientError::NotEnrolled { rev, key }) if is_before(pin, rev, &key) => {
                return Err(RecipientError::RolledBack {
                    seen: pin.map_or(rev, |pin| pin.rev),
                    shown: rev,
                });
            }
            found => found?,
        };
        self.conclude(actor, pins, pin, found).await
    }

    /// The package: as pinned where nothing differs, else with a look at the account's own servers.
    async fn find(
        &self,
        did: &Did,
        actor: &Actor,
        pin: Option<&Pin>,
    ) -> Result<Found, RecipientError> {
        let Some(pin) = pin.filter(|_| !self.thorough) else {
            let (view, own) = tokio::join!(self.view(did), self.own_word(did));
            return self.chosen(did, view, own);
        };
        let view = self.view(did).await;
        if let Some(Ok(view)) = &view
            && let Some(package) = as_pinned(view, actor, pin, self.clock.now())
        {
            return Ok(Found {
                package,
                identity: None,
                view: Some(view.clone()),
                warnings: Vec::new(),
                unconfirmed: None,
            });
        }
        let own = self.own_word(did).await;
        self.chosen(did, view, own)
    }

    async fn view(&self, did: &Did) -> Option<Result<View, DirectoryError>> {
        match &self.directory {
            Some(directory) => Some(directory.resolve(did).await),
            None => None,
        }
    }

    async fn own_word(&self, did: &Did) -> Result<(AccountIdentity, HostAnswer), RecipientError> {
        let identity = self.own.identify(did).await.map_err(|error| match error {
            AccountIdentityError::NoAccount => RecipientError::NoAccount,
            AccountIdentityError::Unproven(why) => RecipientError::Unproven {
                by: Source::Identity,
                why: why.to_string(),
            },
            AccountIdentityError::Useless(why) => RecipientError::Unproven {
                by: Source::Identity,
                why,
            },
            AccountIdentityError::Unreachable(why) => RecipientError::Unreachable(why),
        })?;
        let answer = self.own.answer(&identity).await;
        Ok((identity, answer))
    }

    fn chosen(
        &self,
        did: &Did,
        view: Option<Result<View, DirectoryError>>,
        own: Result<(AccountIdentity, HostAnswer), RecipientError>,
    ) -> Result<Found, RecipientError> {
        let (identity, answer) = own?;
        let now = self.clock.now();
        let Choice {
            package,
            warnings,
            unconfirmed,
        } = choose(did, view.as_ref(), &identity, answer, now)?;
        Ok(Found {
            package,
            identity: Some(identity),
            view: view.and_then(Result::ok),
            warnings,
            unconfirmed,
        })
    }

    async fn conclude(
        &self,
        actor: &Actor,
        pins: &[Pin],
        pin: Option<&Pin>,
        found: Found,
    ) -> Result<Recipient, RecipientError> {
        let Found {
            package,
            identity,
            view,
            mut warnings,
            unconfirmed,
        } = found;
        if let Some(pin) = pin
            && is_rolled_back(pin, &package)
        {
            return Err(RecipientError::RolledBack {
                seen: pin.rev,
                shown: package.rev(),
            });
        }
        let handle = match &identity {
            None => pin.and_then(|pin| pin.handle.clone()),
            Some(identity) => match self.own.identity().verify_handle(&identity.document).await {
                HandleCheck::Verified(handle) => Some(handle),
                HandleCheck::Invalid => {
                    warnings.push(Warning::HandleInvalid);
                    None
                }
                HandleCheck::Inconclusive => {
                    warnings.push(Warning::HandleUnknown);
                    // What was known stays known, as long as the account claims it.
                    let claimed = identity.document.claimed_handle.as_ref();
                    let known = pin.and_then(|pin| pin.handle.as_ref());
                    known.filter(|known| claimed == Some(known)).cloned()
                }
            },
        };
        if let Actor::Handle(asked) = actor
            && handle.as_ref() != Some(asked)
        {
            return Err(RecipientError::HandleNotClaimed {
                handle: asked.clone(),
                account: package.account().clone(),
            });
        }
        let (mediators, keys) = self
            .mediators(&package, pin, view.as_ref(), &mut warnings)
            .await;
        warnings.extend(about(&package, pin, view.as_ref()));
        let usable =
            |one: &MediatorDocument| !one.key_agreement.is_empty() && !one.services.is_empty();
        if self.to_send && !mediators.iter().any(usable) {
            warnings.push(Warning::NoMediator);
        }
        let moved_from = handle.as_ref().and_then(|handle| {
            let before = known_by(handle, package.account(), pins)?;
            Some((handle.clone(), before.clone()))
        });
        warnings.extend(
            moved_from
                .clone()
                .map(|(handle, before)| Warning::HandleMoved { handle, before }),
        );
        let older = self.bridges(&package, pin, identity.as_ref()).await;
        let now = self.clock.now();
        let seen = || VerifiedAccount {
            package: &package,
            handle: handle.clone(),
            authoritative: identity.is_some(),
            mediators: keys.clone(),
        };
        let (change, mut new_pin) = pinning::update(pin, seen(), &older, now);
        if moved_from.is_some() {
            // The handle stays with whom it was known of until that is accepted.
            new_pin.handle = None;
        }
        let accepted = pinning::accept(pin, seen(), now);
        let log = identity.as_ref().and_then(|identity| identity.log.clone());
        let evidence = Evidence {
            did: package.account().clone(),
            handle: handle.clone(),
            directory: self.directory.as_ref().map(|asked| asked.origin().clone()),
            asked_at: now,
            car: package.car().to_vec(),
            plc_log: log.as_ref().map(|(_, raw)| raw.clone()),
            answer: view.as_ref().map(|view| view.answer.clone()),
        };
        let mut resolved = Recipient {
            account: package.account().clone(),
            handle,
            pds: identity
                .as_ref()
                .and_then(|identity| identity.document.pds.clone().ok()),
            log: log.map(|(log, _)| log),
            mediators,
            change,
            ambiguous: view.as_ref().map(|view| view.ambiguous),
            authoritative: identity.is_some(),
            warnings,
            evidence,
            unconfirmed,
            pin: Some(new_pin),
            accepted,
            moved_from,
            asked_by_handle: matches!(actor, Actor::Handle(_)),
            known_as: pin.and_then(|pin| pin.handle.clone()),
            package,
        };
        if resolved.unconfirmed.is_some() && resolved.needs_confirmation() {
            // What the user decides for once is not known from then on.
            resolved.pin = None;
        }
        Ok(resolved)
    }

    /// Superseded packages that may bridge a change of keys: asked for only where the new package
    /// has no word of the pinned key itself.
    async fn bridges(
        &self,
        package: &VerifiedPackage,
        pin: Option<&Pin>,
        identity: Option<&AccountIdentity>,
    ) -> Vec<VerifiedPackage> {
        let (Some(pin), Some(identity)) = (pin, identity) else {
            return Vec::new();
        };
        let vouched = package.succession().is_some_and(|answer| {
            succession::vouches(answer, &pin.peer, package.peer(), package.account())
        });
        // A package without a word of any key ends every chain.
        if pin.peer == package.peer() || vouched || package.succession().is_none() {
            return Vec::new();
        }
        self.superseded(package.account(), &identity.keys).await
    }

    /// Packages of the account that the directory has seen, each proven under `keys`. None without
    /// a directory, which may leave out any.
    pub(super) async fn superseded(&self, did: &Did, keys: &Keys) -> Vec<VerifiedPackage> {
        let Some(directory) = &self.directory else {
            return Vec::new();
        };
        let changes = directory.history(did).await.unwrap_or_default();
        let now = self.clock.now();
        let proven =
            changes
                .into_iter()
                .filter_map(|change| match keys.prove(did, &change.car?, now) {
                    Ok(ProofResult::Package(package)) => Some(*package),
                    _ => None,
                });
        proven.collect()
    }
}

/// The package, where the directory's answer differs in nothing from what is pinned.
fn as_pinned(view: &View, actor: &Actor, pin: &Pin, now: Timestamp) -> Option<VerifiedPackage> {
    let asked_handle = match actor {
        Actor::Handle(handle) => Some(handle),
        Actor::Did(_) => pin.handle.as_ref(),
    };
    let shown_handle = match &pin.handle {
        Some(handle) => handle.as_str(),
        None => "handle.invalid",
    };
    if view.did != pin.account
        || view.status != "active"
        || view.stale
        || view.ambiguous
        || view.handle != shown_handle
        || asked_handle != pin.handle.as_ref()
        || pin.changed.is_some()
        || pin.last_seen > now
        || now.since(pin.last_seen) > LOOK_AGAIN
    {
        return None;
    }
    let keys = Keys {
        current: SigningKey::from_did_key(&pin.signing_key).ok()?,
        pre_migration_key: None,
    };
    let Ok(ProofResult::Package(package)) = keys.prove(&pin.account, view.car.as_ref()?, now)
    else {
        return None;
    };
    let same = package.peer() == pin.peer
        && package.rev() >= pin.rev
        && view.peer == package.peer()
        && view.cid == package.cid()
        && view.value == *package.value();
    same.then_some(*package)
}

/// Whether a proof of absence is older than what is pinned.
fn is_before(pin: Option<&Pin>, rev: Rev, key: &SigningKey) -> bool {
    let newest = pin.and_then(|pin| pin.newest(&key.did_key()));
    newest.is_some_and(|newest| rev < newest)
}

/// The account that is known by a handle, where that is another one.
pub(super) fn known_by<'p>(handle: &Handle, account: &Did, pins: &'p [Pin]) -> Option<&'p Did> {
    let mut others = pins.iter().filter(|pin| pin.account != *account);
    let other = others.find(|pin| pin.is_known_by(handle))?;
    Some(&other.account)
}

fn about(package: &VerifiedPackage, pin: Option<&Pin>, view: Option<&View>) -> Vec<Warning> {
    let signed_by = package.signing_key().did_key();
    let other_key = pin.is_some_and(|pin| pin.signing_key != signed_by);
    [
        (package.signed_by_previous_host(), Warning::BeforeMove),
        (other_key, Warning::SigningKeyChanged),
        (view.is_some_and(|view| view.ambiguous), Warning::Ambiguous),
    ]
    .into_iter()
    .filter_map(|(is_so, warning)| is_so.then_some(warning))
    .collect()
}
