//! Whom a message is encrypted to: an account's key package, believed to nobody.
//!
//! A directory saves look-ups; it is not trusted. What it shows counts with its proof only, and at
//! first contact, or when anything differs from what is pinned, the account's own servers are
//! asked too: the PLC directory for the operations that lead to its signing key, its PDS for
//! something newer, its handle for the way back, its mediators for their keys.

mod choice;
mod standing;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;

use super::continuity::{self, KeyChange, Seen, follow, is_rolled_back};
use super::directory::{Denial, DirectoryClient, DirectoryError, View};
use super::evidence::{Evidence, Keys, Shown, VerifiedPackage};
use super::firsthand::{Firsthand, Whois, WhoisError};
use super::{Pin, succession};
use crate::clock::{Clock, Timestamp};
use crate::identity::{
    Freshness, HandleCheck, HandleError, Identity, KeyAgreement, MediatorDocument,
};
use crate::key::SigningKey;
use crate::net::Net;
use crate::plc::VerifiedLog;
use crate::syntax::{Actor, Did, Handle, MediatorDid, Origin, Rev};

use choice::{Choice, choose};

pub use standing::Attributed;

/// Most mediators of one package that are looked up; a sender takes the first that answers.
const MAX_MEDIATORS: usize = 8;

/// How old a look at the account's own servers may be for the directory alone to be asked: for so
/// long it could hide that something has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// Who showed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shower {
    /// The directory.
    Directory,
    /// The account's PDS.
    Host,
    /// The PLC directory, or the host of a `did:web`.
    Identity,
}

impl std::fmt::Display for Shower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Directory => "the directory",
            Self::Host => "the account's host",
            Self::Identity => "the directory of DIDs",
        })
    }
}

/// Why there is nobody to send to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// The handle leads to no account.
    #[error("{handle}: {why}")]
    Handle {
        /// The handle.
        handle: Handle,
        /// Why not.
        why: HandleError,
    },
    /// The handle leads to an account that does not call itself so.
    #[error("{handle} names the account {account}, which does not call itself so")]
    HandleNotClaimed {
        /// The handle.
        handle: Handle,
        /// Where it leads.
        account: Did,
    },
    /// There is no such account, or it has ended.
    #[error("there is no such account")]
    NoAccount,
    /// Proven: it has no key package.
    #[error("the account has no key package, so it takes no encrypted messages (proven)")]
    NotEnrolled {
        /// Revision of the proof.
        rev: Rev,
        /// Key that signed it.
        key: SigningKey,
    },
    /// Its host says that it has no key package, without a proof.
    #[error("the account's host says that it has no key package, and gives no proof of that")]
    NotEnrolledUnproven,
    /// The account is not active.
    #[error("the account is not active: {0}")]
    Inactive(String),
    /// Its key package breaks a rule.
    #[error("the account's key package is not valid: {0}")]
    Invalid(String),
    /// What was shown is not proven.
    #[error("{by} shows something that is not true: {why}")]
    Unproven {
        /// Who showed it.
        by: Shower,
        /// What is wrong with it.
        why: String,
    },
    /// What is shown is older than what was seen before.
    #[error(
        "what is shown of the account is older than what was seen before: revision {shown}, not {seen}"
    )]
    RolledBack {
        /// The revision seen before.
        seen: Rev,
        /// The one shown now.
        shown: Rev,
    },
    /// Nobody who could tell can be reached.
    #[error("{0}")]
    Unreachable(String),
}

/// What a user should know about what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The PDS gave no answer.
    #[error("the account's own host could not be asked whether anything newer exists ({0})")]
    HostSilent(String),
    /// The PDS shows something that proves nothing.
    #[error("what the account's own host shows proves nothing ({0})")]
    HostUseless(String),
    /// The PDS shows something older.
    #[error("the account's own host shows an older state than the directory has proof of")]
    HostBehind,
    /// The directory shows something older.
    #[error(
        "the directory shows an older package than the account's own host; its newer one counts"
    )]
    DirectoryOutdated,
    /// The directory says that there is nothing.
    #[error("the directory denies what the account's own host proves: {message} ({name})")]
    DirectoryDenies {
        /// By which name.
        name: Denial,
        /// In which words.
        message: String,
    },
    /// The directory gave no answer.
    #[error("{0}; the account's own servers were asked instead")]
    DirectorySilent(String),
    /// The directory's operation log is not the PLC directory's.
    #[error("the operation log that the directory shows is not the account's: {0}")]
    DirectoryLog(String),
    /// The directory names another handle than the account.
    #[error("the directory shows the handle {0}, which the account does not claim")]
    DirectoryHandle(String),
    /// The directory shows other keys of a mediator than the mediator.
    #[error("the directory shows other keys of the mediator {0} than it has; its own count")]
    DirectoryMediator(MediatorDid),
    /// The account's handle is not its own.
    #[error("the account has no handle that leads back to it")]
    HandleInvalid,
    /// The account's handle could not be looked up.
    #[error("the account's handle could not be looked up now")]
    HandleUnknown,
    /// The signing key is another than before.
    #[error("the account's signing key is another than when it was seen last")]
    SigningKeyChanged,
    /// The package is signed by the key of the host that the account left.
    #[error(
        "the account has moved and has not written since: its package is signed by its old host's key"
    )]
    BeforeMove,
    /// No mediator has a document with a key.
    #[error("none of its mediators can be used now")]
    NoMediator,
    /// Other accounts publish the same key.
    #[error("other accounts publish the same messaging key: one of them may read what is sent")]
    Ambiguous,
    /// The handle named another account before.
    #[error("{handle} was the handle of another account that you know, {before}")]
    HandleMoved {
        /// The handle.
        handle: Handle,
        /// The account that it named.
        before: Did,
    },
}

impl Warning {
    /// Stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::HostSilent(_) => "hostSilent",
            Self::HostUseless(_) => "hostUseless",
            Self::HostBehind => "hostBehind",
            Self::DirectoryOutdated => "directoryOutdated",
            Self::DirectoryDenies { .. } => "directoryDenies",
            Self::DirectorySilent(_) => "directorySilent",
            Self::DirectoryLog(_) => "directoryLog",
            Self::DirectoryHandle(_) => "directoryHandle",
            Self::DirectoryMediator(_) => "directoryMediator",
            Self::HandleInvalid => "handleInvalid",
            Self::HandleUnknown => "handleUnknown",
            Self::SigningKeyChanged => "signingKeyChanged",
            Self::BeforeMove => "beforeMove",
            Self::NoMediator => "noMediator",
            Self::Ambiguous => "ambiguous",
            Self::HandleMoved { .. } => "handleMoved",
        }
    }
}

impl Serialize for Warning {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = out.serialize_map(Some(2))?;
        map.serialize_entry("code", self.code())?;
        map.serialize_entry("message", &self.to_string())?;
        map.end()
    }
}

/// Why nothing may be sent until the user accepts what changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Hold {
    /// Another key, and the pinned one does not vouch for it.
    #[error(
        "the messaging key of {0} has changed, and the key before it does not vouch for the new one"
    )]
    KeyChanged(Did),
    /// The handle names another account than the one that is known by it.
    #[error("{handle} now names the account {now}, and {before} before")]
    HandleMoved {
        /// The handle.
        handle: Handle,
        /// The account that was known by it.
        before: Did,
        /// The account that it names now.
        now: Did,
    },
}

/// An account that can be sent to, everything of it verified.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The account.
    pub account: Did,
    /// Its handle, verified in both directions.
    pub handle: Option<Handle>,
    /// Its PDS, by its own word; `None` where it was not asked for.
    pub pds: Option<Origin>,
    /// Its key package.
    pub package: VerifiedPackage,
    /// The operations that lead to its signing key; `None` of a `did:web`, or where the pinned
    /// signing key was enough.
    pub log: Option<VerifiedLog>,
    /// Its mediators in the record's order, at most eight of them looked at.
    pub mediators: Vec<MediatorDocument>,
    /// How its key relates to the pinned one.
    pub change: KeyChange,
    /// Whether several accounts publish the same did:peer, as the directory says; `None` where
    /// none was asked.
    pub ambiguous: Option<bool>,
    /// Whether the account's own servers were asked, or all is as it was pinned.
    pub firsthand: bool,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// What shows it, to be handed on.
    pub evidence: Evidence,
    /// What is to be remembered of it.
    pub pin: Pin,
    accepted: Pin,
    moved_from: Option<(Handle, Did)>,
}

impl Resolved {
    /// Why nothing may be sent now, if so.
    pub fn hold(&self) -> Option<Hold> {
        if let KeyChange::Changed { .. } = self.change {
            return Some(Hold::KeyChanged(self.account.clone()));
        }
        let (handle, before) = self.moved_from.clone()?;
        Some(Hold::HandleMoved {
            handle,
            before,
            now: self.account.clone(),
        })
    }

    /// What is to be remembered once the user has accepted what changed.
    pub fn accepted(&self) -> &Pin {
        &self.accepted
    }

    /// The contact that loses its handle to this account once the user has accepted that.
    pub fn moved_from(&self) -> Option<&Did> {
        self.moved_from.as_ref().map(|(_, before)| before)
    }
}

/// Looks up recipients, and accounts that messages claim. Cloning is cheap.
#[derive(Clone)]
pub struct Recipients {
    own: Firsthand,
    directory: Option<DirectoryClient>,
    clock: Clock,
    thorough: bool,
    /// Accounts that messages claimed lately; see `standing`.
    lately: Arc<Mutex<HashMap<Did, standing::Lately>>>,
}

/// What is known of an account before its pin is compared.
struct Found {
    package: VerifiedPackage,
    whois: Option<Whois>,
    view: Option<View>,
    warnings: Vec<Warning>,
}

impl Recipients {
    /// Asks `directory`, if there is one, and accounts' own servers.
    pub fn new(
        net: Net,
        identity: Identity,
        clock: Clock,
        directory: Option<DirectoryClient>,
    ) -> Self {
        Self {
            own: Firsthand::new(net, identity, clock.clone()),
            directory,
            clock,
            thorough: false,
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
    pub async fn resolve(&self, actor: &Actor, pins: &[Pin]) -> Result<Resolved, RecipientError> {
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
                whois: None,
                view: Some(view.clone()),
                warnings: Vec::new(),
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

    async fn own_word(&self, did: &Did) -> Result<(Whois, super::firsthand::Word), RecipientError> {
        let whois = self.own.whois(did).await.map_err(|error| match error {
            WhoisError::NoAccount => RecipientError::NoAccount,
            WhoisError::Unproven(why) => RecipientError::Unproven {
                by: Shower::Identity,
                why: why.to_string(),
            },
            WhoisError::Useless(why) => RecipientError::Unproven {
                by: Shower::Identity,
                why,
            },
            WhoisError::Unreachable(why) => RecipientError::Unreachable(why),
        })?;
        let word = self.own.word(&whois).await;
        Ok((whois, word))
    }

    fn chosen(
        &self,
        did: &Did,
        view: Option<Result<View, DirectoryError>>,
        own: Result<(Whois, super::firsthand::Word), RecipientError>,
    ) -> Result<Found, RecipientError> {
        let (whois, word) = own?;
        let now = self.clock.now();
        let Choice { package, warnings } = choose(did, view.as_ref(), &whois, word, now)?;
        Ok(Found {
            package,
            whois: Some(whois),
            view: view.and_then(Result::ok),
            warnings,
        })
    }

    async fn conclude(
        &self,
        actor: &Actor,
        pins: &[Pin],
        pin: Option<&Pin>,
        found: Found,
    ) -> Result<Resolved, RecipientError> {
        let Found {
            package,
            whois,
            view,
            mut warnings,
        } = found;
        if let Some(pin) = pin
            && is_rolled_back(pin, &package)
        {
            return Err(RecipientError::RolledBack {
                seen: pin.rev,
                shown: package.rev(),
            });
        }
        let handle = match &whois {
            None => pin.and_then(|pin| pin.handle.clone()),
            Some(whois) => match self.own.identity().verify_handle(&whois.document).await {
                HandleCheck::Verified(handle) => Some(handle),
                HandleCheck::Invalid => {
                    warnings.push(Warning::HandleInvalid);
                    None
                }
                HandleCheck::Inconclusive => {
                    warnings.push(Warning::HandleUnknown);
                    None
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
        warnings.extend(about(&package, pin, view.as_ref(), &mediators));
        let moved_from = moved_from(actor, &package, pins);
        warnings.extend(
            moved_from
                .clone()
                .map(|(handle, before)| Warning::HandleMoved { handle, before }),
        );
        let older = self.bridges(&package, pin, whois.as_ref()).await;
        let now = self.clock.now();
        let seen = || Seen {
            package: &package,
            handle: handle.clone(),
            firsthand: whois.is_some(),
            mediators: keys.clone(),
        };
        let (change, mut new_pin) = follow(pin, seen(), &older, now);
        if moved_from.is_some() {
            // The handle stays with whom it was known of until that is accepted.
            new_pin.handle = None;
        }
        let accepted = continuity::accept(pin, seen(), now);
        let log = whois.as_ref().and_then(|whois| whois.log.clone());
        let evidence = Evidence {
            did: package.account().clone(),
            handle: handle.clone(),
            directory: self.directory.as_ref().map(|asked| asked.origin().clone()),
            asked_at: now,
            car: package.car().to_vec(),
            plc_log: log.as_ref().map(|(_, raw)| raw.clone()),
            answer: view.as_ref().map(|view| view.answer.clone()),
        };
        Ok(Resolved {
            account: package.account().clone(),
            handle,
            pds: whois
                .as_ref()
                .and_then(|whois| whois.document.pds.clone().ok()),
            log: log.map(|(log, _)| log),
            mediators,
            change,
            ambiguous: view.as_ref().map(|view| view.ambiguous),
            firsthand: whois.is_some(),
            warnings,
            evidence,
            pin: new_pin,
            accepted,
            moved_from,
            package,
        })
    }

    /// The mediators' documents: the directory's where their keys are the pinned ones, else as the
    /// mediators themselves give them. With the keys that are to be pinned.
    async fn mediators(
        &self,
        package: &VerifiedPackage,
        pin: Option<&Pin>,
        view: Option<&View>,
        warnings: &mut Vec<Warning>,
    ) -> (
        Vec<MediatorDocument>,
        BTreeMap<MediatorDid, Vec<KeyAgreement>>,
    ) {
        let named = &package.package().mediators;
        let shown = |did: &MediatorDid| view?.mediators.iter().find(|one| one.did == *did);
        let pinned = |did: &MediatorDid| pin?.mediators.get(did);
        let looks = named.iter().take(MAX_MEDIATORS).map(async |did| {
            if let (Some(shown), Some(pinned), false) = (shown(did), pinned(did), self.thorough)
                && shown.key_agreement == *pinned
                && is_at_home(shown)
            {
                return shown.clone();
            }
            let freshness = match self.thorough {
                true => Freshness::Fresh,
                false => Freshness::Cached,
            };
            match self.own.identity().mediator(did, freshness, None).await {
                Ok(own) => (*own).clone(),
                Err(_) => MediatorDocument::unchecked(did.clone()),
            }
        });
        let mut documents = join_all(looks).await;
        let mut keys = BTreeMap::new();
        for own in &documents {
            if own.key_agreement.is_empty() {
                // It may be down today; its keys are still what they were.
                if let Some(pinned) = pinned(&own.did) {
                    keys.insert(own.did.clone(), pinned.clone());
                }
                continue;
            }
            keys.insert(own.did.clone(), own.key_agreement.clone());
            let other = shown(&own.did).filter(|shown| {
                !shown.key_agreement.is_empty() && shown.key_agreement != own.key_agreement
            });
            if other.is_some() {
                warnings.push(Warning::DirectoryMediator(own.did.clone()));
            }
        }
        let rest = named.iter().skip(MAX_MEDIATORS);
        documents.extend(rest.cloned().map(MediatorDocument::unchecked));
        (documents, keys)
    }

    /// Superseded packages that may bridge a change of keys: asked for only where the new package
    /// has no word of the pinned key itself.
    async fn bridges(
        &self,
        package: &VerifiedPackage,
        pin: Option<&Pin>,
        whois: Option<&Whois>,
    ) -> Vec<VerifiedPackage> {
        let (Some(pin), Some(whois)) = (pin, whois) else {
            return Vec::new();
        };
        let vouched = package.succession().is_some_and(|word| {
            succession::vouches(word, &pin.peer, package.peer(), package.account())
        });
        // A package without a word of any key ends every chain.
        if pin.peer == package.peer() || vouched || package.succession().is_none() {
            return Vec::new();
        }
        let superseded = self.superseded(package.account(), &whois.keys).await;
        superseded.into_iter().map(|(older, _)| older).collect()
    }

    /// Packages of the account that the directory has seen, each proven under the account's
    /// present keys, with the time at which it says that it saw them; the oldest first. None
    /// without a directory.
    async fn superseded(&self, did: &Did, keys: &Keys) -> Vec<(VerifiedPackage, Timestamp)> {
        let Some(directory) = &self.directory else {
            return Vec::new();
        };
        let changes = directory.history(did).await.unwrap_or_default();
        let now = self.clock.now();
        let mut proven: Vec<_> = changes
            .into_iter()
            .filter_map(|change| match keys.prove(did, &change.car?, now) {
                Ok(Shown::Package(package)) => Some((*package, change.seen_at)),
                _ => None,
            })
            .collect();
        // The account's own order, not the directory's.
        proven.sort_by_key(|(package, _)| (!package.before_move(), package.rev()));
        proven
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
        before_move: None,
    };
    let Ok(Shown::Package(package)) = keys.prove(&pin.account, view.car.as_ref()?, now) else {
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
    pin.is_some_and(|pin| pin.signing_key == key.did_key() && rev < pin.rev)
}

/// Whether a mediator is reached at the host that its DID names: a directory that shows its keys
/// and another address would learn who writes to whom.
fn is_at_home(document: &MediatorDocument) -> bool {
    let Some(web) = document.did.web() else {
        return false;
    };
    let at_home = |uri: &str| {
        let url = url::Url::parse(uri).ok();
        url.is_some_and(|url| url.host_str() == Some(&web.host) && is_port(&url, web.port))
    };
    document
        .services
        .iter()
        .all(|service| at_home(&service.uri))
}

fn is_port(url: &url::Url, named: Option<u16>) -> bool {
    named.is_none_or(|port| url.port_or_known_default() == Some(port))
}

/// The account that is known by the asked handle, where that is another one.
fn moved_from(actor: &Actor, package: &VerifiedPackage, pins: &[Pin]) -> Option<(Handle, Did)> {
    let Actor::Handle(asked) = actor else {
        return None;
    };
    let other = pins
        .iter()
        .find(|pin| pin.handle.as_ref() == Some(asked) && pin.account != *package.account())?;
    Some((asked.clone(), other.account.clone()))
}

fn about(
    package: &VerifiedPackage,
    pin: Option<&Pin>,
    view: Option<&View>,
    mediators: &[MediatorDocument],
) -> Vec<Warning> {
    let signed_by = package.signing_key().did_key();
    let other_key = pin.is_some_and(|pin| pin.signing_key != signed_by);
    let usable = mediators
        .iter()
        .any(|one| !one.key_agreement.is_empty() && !one.services.is_empty());
    [
        (package.before_move(), Warning::BeforeMove),
        (other_key, Warning::SigningKeyChanged),
        (!usable, Warning::NoMediator),
        (view.is_some_and(|view| view.ambiguous), Warning::Ambiguous),
    ]
    .into_iter()
    .filter_map(|(is_so, warning)| is_so.then_some(warning))
    .collect()
}
