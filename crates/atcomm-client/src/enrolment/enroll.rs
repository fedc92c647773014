//! Enrolling an account, rotating its key, and unenrolling it.
//!
//! Each verb is a sequence of steps, and all that a step needs is on disk before the step begins: a
//! key is saved before it is published, and published before it is registered with mediators. A run
//! that was interrupted anywhere is finished by the next one, which reads the record at the PDS
//! first.
//!
//! ```text
//! locate -> sign in -> mint and save -> putRecord -> refresh at the directory -> register
//! ```
//!
//! [`Enroller::needs_password`] tells whether [`Enroller::sign_in`] has to come before a verb.

mod error;
mod plan;
mod published;
mod record;
mod steps;

use std::collections::BTreeSet;

use super::account::{AccountClient, AccountError, Published};
use crate::account::{Account, Client, OpenError};
use crate::lookup::authoritative::proven_document;
use crate::mediator::client::{MailError, document};
use crate::wallet::enrolment::{Enrolment, KeyState, MAX_DROPPED, MessagingKey, replace_all};
use crate::wallet::stored::MAX_KEYS;
use crate::wallet::{AccountStore, Wallet};
use atcomm_net::identity::{Freshness, HandleCheck};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::keypackage::distinct;
use atcomm_proto::syntax::{Actor, Did, Handle, MediatorDid, Origin};

pub use error::EnrolError;
pub use plan::{Plan, mediator_did};
pub use published::PublishedState;

use published::has;

/// An account, looked up at its own servers just now.
#[derive(Debug, Clone)]
pub struct Located {
    /// The account.
    pub account: Did,
    /// Its handle, verified in both directions.
    pub handle: Option<Handle>,
    /// The PDS that its DID document names.
    pub pds: Origin,
}

/// A verb of [`Enroller`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`Enroller::enroll`].
    Enroll,
    /// [`Enroller::rotate`].
    Rotate,
    /// [`Enroller::unenroll`].
    Unenroll,
}

/// A step that was just done, for the user.
#[derive(Debug, Clone)]
pub enum Step {
    /// Another process changes how the account is enrolled; this one waits.
    Waiting,
    /// A new key is in the wallet.
    Minted,
    /// A key of an earlier run is used.
    Resumed,
    /// The record names the key.
    Published,
    /// The record was as it should be.
    Unchanged,
    /// The record is deleted.
    Deleted,
    /// The directory has the new state of the record.
    DirectoryUpdated(Origin),
    /// The directory does not have the new state yet, for this reason. The event stream will bring
    /// it.
    DirectoryPending(Origin, String),
    /// A mediator accepts mail for the key.
    Registered(MediatorDid),
    /// A mediator does not accept mail for the key yet.
    RegisterFailed(MediatorDid, MailError),
    /// So many messages were fetched before the account leaves. They are not shown yet.
    Fetched(u64),
    /// A mediator could not be asked for mail before the account leaves. It is asked later.
    FetchFailed(MediatorDid, MailError),
    /// The record does not name a mediator any more. It is asked for mail for another
    /// [`DROPPED_MEDIATOR_RETENTION`](crate::wallet::enrolment::DROPPED_MEDIATOR_RETENTION).
    Dropped(MediatorDid),
}

/// The end of [`Enroller::enroll`] or [`Enroller::rotate`].
#[derive(Debug)]
pub struct Outcome {
    /// The account as it is in the wallet now.
    pub enrolment: Enrolment,
    /// Mediators that have not accepted the key yet, with their errors.
    pub missing: Vec<(MediatorDid, MailError)>,
    /// Whether the account was not in the wallet before.
    pub is_first: bool,
}

/// The end of [`Enroller::unenroll`].
#[derive(Debug)]
pub struct Unenrolled {
    /// The account as it is in the wallet now.
    pub enrolment: Enrolment,
    /// The did:peer of a record that names a key of another wallet. That record was left as it is.
    pub foreign_peer: Option<String>,
}

/// Changes how accounts of a wallet are enrolled.
pub struct Enroller {
    client: Client,
    wallet: Wallet,
}

impl Enroller {
    /// Returns an enroller over a network and a wallet. Dials nothing.
    pub fn new(client: &Client, wallet: &Wallet) -> Self {
        Self {
            client: client.clone(),
            wallet: wallet.clone(),
        }
    }

    /// Finds the account, its PDS and its handle at the servers that atproto names for them. A
    /// server of DID documents cannot lead a password astray: of a `did:plc` the operations are
    /// verified.
    pub async fn locate(&self, actor: &Actor) -> Result<Located, EnrolError> {
        let Client {
            net,
            identity,
            clock,
            ..
        } = &self.client;
        let account = match actor {
            Actor::Did(did) => did.clone(),
            Actor::Handle(handle) => {
                let found = identity.resolve_handle(handle).await;
                found.map_err(|error| EnrolError::Handle {
                    handle: handle.to_string(),
                    error,
                })?
            }
        };
        let document = proven_document(net, identity, clock, &account)
            .await
            .map_err(|error| EnrolError::Identity {
                account: account.clone(),
                error,
            })?;
        // A handle that the account does not claim could make the user type the password of another
        // account.
        if let Actor::Handle(handle) = actor
            && document.claimed_handle.as_ref() != Some(handle)
        {
            return Err(EnrolError::NotItsHandle {
                handle: handle.to_string(),
                account,
            });
        }
        let handle = match (actor, identity.verify_handle(&document).await) {
            (_, HandleCheck::Verified(handle)) => Some(handle),
            (Actor::Handle(handle), HandleCheck::Inconclusive) => Some(handle.clone()),
            (_, HandleCheck::Inconclusive) => self.known_handle(&account)?,
            (_, HandleCheck::Invalid) => None,
        };
        match &document.pds {
            Ok(pds) => Ok(Located {
                pds: pds.clone(),
                account,
                handle,
            }),
            Err(_) => Err(EnrolError::NoPds(account)),
        }
    }

    fn known_handle(&self, account: &Did) -> Result<Option<Handle>, EnrolError> {
        let known = self.wallet.account_store(account).enrolment()?;
        Ok(known.and_then(|known| known.handle))
    }

    /// Finds an account of the wallet, by handle or DID or without either the only one, and looks
    /// it up like [`Enroller::locate`].
    pub async fn locate_own(&self, actor: Option<&str>) -> Result<Located, EnrolError> {
        let store = self.wallet.find(actor)?;
        let account = store.account().clone();
        if store.enrolment()?.is_none() {
            return Err(EnrolError::NotEnrolled(account));
        }
        self.locate(&Actor::Did(account)).await
    }

    fn store(&self, located: &Located) -> AccountStore {
        self.wallet.account_store(&located.account)
    }

    /// Returns the account at its PDS.
    pub fn client(&self, located: &Located) -> AccountClient {
        AccountClient::new(&self.client.net, &located.pds, &self.store(located))
    }

    /// Whether a password is needed before an operation: where no session is kept, or it has ended.
    /// [`Operation::Unenroll`] needs none where the record names no key of the wallet.
    pub async fn needs_password(
        &self,
        located: &Located,
        operation: Operation,
    ) -> Result<bool, EnrolError> {
        if operation == Operation::Unenroll && !self.published_state(located).await?.is_ours() {
            return Ok(false);
        }
        Ok(!self.client(located).is_signed_in().await?)
    }

    /// Exchanges a password for a session, and saves that. An app password suffices; `code` is the
    /// code that the PDS has sent by mail where it asks for a second factor.
    pub async fn sign_in(
        &self,
        located: &Located,
        password: &str,
        code: Option<&str>,
    ) -> Result<(), EnrolError> {
        let identifier = match &located.handle {
            Some(handle) => handle.as_str(),
            None => located.account.as_str(),
        };
        let client = self.client(located);
        Ok(client.sign_in(identifier, password, code).await?)
    }

    /// Compares the record at the PDS with the keys of the wallet. Needs no session.
    pub async fn published_state(&self, located: &Located) -> Result<PublishedState, EnrolError> {
        let record = self.client(located).record().await?;
        let known = self.store(located).enrolment()?;
        Ok(PublishedState::of(record.as_ref(), known.as_ref()))
    }

    /// Checks all of a plan that can be checked without a session, as [`Enroller::enroll`] does
    /// again: its bounds, that there is a mediator, that new mediators can be used, and that the
    /// record may be replaced.
    pub async fn check_plan(&self, located: &Located, plan: &Plan) -> Result<(), EnrolError> {
        plan.check()?;
        let known = self.store(located).enrolment()?;
        self.mediators(plan, known.as_ref()).await?;
        let there = match self.client(located).record().await {
            Ok(there) => there,
            // Of an account that is not active the PDS says why only to its owner.
            Err(AccountError::Refused { .. } | AccountError::Inactive(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        check_foreign(plan, known.as_ref(), there.as_ref())
    }

    /// Enrols the account, or changes how it is enrolled: saves a key, publishes it, and registers
    /// it with the mediators. Needs a session. Run again it finishes the rest.
    pub async fn enroll(
        &self,
        located: &Located,
        plan: &Plan,
        observe: &mut dyn FnMut(Step),
    ) -> Result<Outcome, EnrolError> {
        plan.check()?;
        let _lock = self.begin(located, observe).await?;
        let known = self.store(located).enrolment()?;
        let mediators = self.mediators(plan, known.as_ref()).await?;
        check_dropped(known.as_ref(), &mediators)?;
        let directory = match known.as_ref().and_then(|known| known.directory.as_ref()) {
            _ if plan.directory.is_some() => plan.directory.clone(),
            Some(directory) => Some(directory.clone()),
            None => self.directory_of(&mediators).await,
        };
        // The record is read before a key is saved: it may name a key of another device.
        let there = self.client(located).record().await?;
        check_foreign(plan, known.as_ref(), there.as_ref())?;
        let is_resumed = known.as_ref().and_then(next_key).is_some();
        let unresumed = known.as_ref().filter(|_| !is_resumed);
        self.fetch_if_full(located, unresumed, observe).await?;
        observe(if is_resumed {
            Step::Resumed
        } else {
            Step::Minted
        });
        let now = self.client.clock.now();
        self.change(located, |before| {
            let mut enrolment = before.unwrap_or_else(|| new_enrolment(located));
            // The record may name the mediators of before for any of these keys, also where that
            // run was interrupted.
            for key in enrolment.keys.iter_mut().filter(|key| !key.is_replaced()) {
                key.note_changed(&enrolment.mediators, &mediators);
            }
            if next_key(&enrolment).is_none() {
                mint(&mut enrolment.keys, there.as_ref(), now);
            }
            enrolment.mediators.clone_from(&mediators);
            enrolment.directory.clone_from(&directory);
            match plan.label.as_deref() {
                Some("") => enrolment.label = None,
                Some(label) => enrolment.label = Some(label.to_owned()),
                None => {}
            }
            enrolment
        })?;
        self.publish(located, plan.replace, observe).await?;
        let is_named = plan.directory.is_some();
        let (enrolment, missing) = self.finish(located, is_named, observe).await?;
        Ok(Outcome {
            enrolment,
            missing,
            is_first: known.is_none(),
        })
    }

    /// Returns the mediators of a plan, else the present ones. A new one has to have a document
    /// that can be used; one that was published before stays published.
    async fn mediators(
        &self,
        plan: &Plan,
        known: Option<&Enrolment>,
    ) -> Result<Vec<MediatorDid>, EnrolError> {
        let present = known.map_or(&[][..], |known| &known.mediators);
        let mediators = match known {
            _ if !plan.mediators.is_empty() => distinct(&plan.mediators),
            Some(_) => present.to_vec(),
            None => return Err(EnrolError::NoMediator),
        };
        for did in &mediators {
            let found = document(&self.client.identity, did, Freshness::Cached).await;
            if let Err(error) = found
                && !present.contains(did)
            {
                let did = did.clone();
                return Err(EnrolError::Mediator { did, error });
            }
        }
        Ok(mediators)
    }

    /// Replaces the key by a new one, for which the old one vouches. Needs a session. Finishes a
    /// run that was interrupted first, which makes no further key.
    pub async fn rotate(
        &self,
        located: &Located,
        observe: &mut dyn FnMut(Step),
    ) -> Result<Outcome, EnrolError> {
        let _lock = self.begin(located, observe).await?;
        let not_enrolled = || EnrolError::NotEnrolled(located.account.clone());
        let known = self.store(located).enrolment()?.ok_or_else(not_enrolled)?;
        let is_published = |key: &MessagingKey| matches!(key.state, KeyState::Published { .. });
        if !known.keys.iter().any(is_published) {
            return Err(not_enrolled());
        }
        let Some(there) = self.client(located).record().await? else {
            return Err(EnrolError::Unpublished(located.account.clone()));
        };
        if !has(&known, there.peer()) {
            return Err(foreign(&there));
        }
        let unresumed = Some(&known).filter(|known| known.minted().is_none());
        self.fetch_if_full(located, unresumed, observe).await?;
        let now = self.client.clock.now();
        observe(if known.minted().is_some() {
            Step::Resumed
        } else {
            Step::Minted
        });
        self.change(located, |before| {
            let mut enrolment = before.unwrap_or_else(|| known.clone());
            if enrolment.minted().is_none() {
                mint(&mut enrolment.keys, Some(&there), now);
            }
            enrolment
        })?;
        self.publish(located, false, observe).await?;
        let (enrolment, missing) = self.finish(located, false, observe).await?;
        Ok(Outcome {
            enrolment,
            missing,
            is_first: false,
        })
    }

    /// Fetches the mail that waits, deletes the record, and ends the session. The keys and the
    /// registrations stay: mail that is on its way is fetched by [`Inbox`](crate::Inbox) until the
    /// keys expire. Needs a session where the record names a key of the wallet. Run again it
    /// finishes the rest.
    pub async fn unenroll(
        &self,
        located: &Located,
        observe: &mut dyn FnMut(Step),
    ) -> Result<Unenrolled, EnrolError> {
        let lock = self.begin(located, observe).await?;
        let known = self
            .store(located)
            .enrolment()?
            .ok_or_else(|| EnrolError::NotEnrolled(located.account.clone()))?;
        self.fetch(located, observe).await?;
        let foreign_peer = self.withdraw(located, &known, observe).await?;
        let now = self.client.clock.now();
        let enrolment = self.change(located, |before| {
            let mut enrolment = before.unwrap_or_else(|| known.clone());
            let Enrolment {
                keys, mediators, ..
            } = &mut enrolment;
            replace_all(keys, None, mediators, now);
            enrolment
        })?;
        self.update_directory(&enrolment, None, false, observe)
            .await;
        let left = KeyState::Replaced { at: now };
        let left = enrolment.keys.iter().filter(|key| key.state == left);
        let holders: BTreeSet<_> = left.flat_map(|key| enrolment.holders(key)).collect();
        for did in holders {
            observe(Step::Dropped(did.clone()));
        }
        drop(lock);
        self.client(located).sign_out().await?;
        Ok(Unenrolled {
            enrolment,
            foreign_peer,
        })
    }

    /// Fetches the mail that waits where a new key takes the place of one that reads mail still.
    async fn fetch_if_full(
        &self,
        located: &Located,
        known: Option<&Enrolment>,
        observe: &mut dyn FnMut(Step),
    ) -> Result<(), EnrolError> {
        let now = self.client.clock.now();
        let keys = known.map_or(&[][..], |known| &known.keys);
        if keys.len() >= MAX_KEYS && keys.iter().all(|key| key.reads(now)) {
            self.fetch(located, observe).await?;
        }
        Ok(())
    }

    /// Fetches the mail that waits into the wallet, where the next reader of the inbox shows it. A
    /// mediator that does not hand its mail over is asked later.
    async fn fetch(
        &self,
        located: &Located,
        observe: &mut dyn FnMut(Step),
    ) -> Result<(), EnrolError> {
        let account = located.account.as_str();
        let opened = Account::of_wallet(self.client.clone(), self.wallet.home(), Some(account));
        let account = match opened {
            Ok(account) => account,
            Err(OpenError::Wallet(error)) => return Err(error.into()),
            // Without keys there is no mail.
            Err(OpenError::NotEnrolled(_) | OpenError::Net(_)) => return Ok(()),
        };
        let fetched = account.inbox().keep().await?;
        if fetched.messages > 0 {
            observe(Step::Fetched(fetched.messages));
        }
        for (did, error) in fetched.failed {
            observe(Step::FetchFailed(did, error));
        }
        Ok(())
    }
}

/// Checks that there is room to go on asking the mediators that a plan does not name.
fn check_dropped(known: Option<&Enrolment>, named: &[MediatorDid]) -> Result<(), EnrolError> {
    let Some((known, key)) = known.and_then(|known| Some((known, known.current()?))) else {
        return Ok(());
    };
    let mut holders = known.holders(key);
    holders.retain(|did| !named.contains(did));
    if holders.len() > MAX_DROPPED {
        return Err(EnrolError::TooManyDropped(holders.len()));
    }
    Ok(())
}

fn new_enrolment(located: &Located) -> Enrolment {
    Enrolment {
        account: located.account.clone(),
        handle: None,
        pds: located.pds.clone(),
        directory: None,
        mediators: Vec::new(),
        label: None,
        keys: Vec::new(),
    }
}

/// Refuses a plan under which a key of another device would be replaced unasked.
fn check_foreign(
    plan: &Plan,
    known: Option<&Enrolment>,
    there: Option<&Published>,
) -> Result<(), EnrolError> {
    match there {
        Some(there) if !plan.replace && !known.is_some_and(|known| has(known, there.peer())) => {
            Err(foreign(there))
        }
        _ => Ok(()),
    }
}

fn foreign(there: &Published) -> EnrolError {
    let label = there.value.get("label").and_then(serde_json::Value::as_str);
    EnrolError::Foreign {
        peer: there.peer().map(str::to_owned),
        label: label.map(str::to_owned),
    }
}

/// Returns the key that the record is to name.
fn next_key(enrolment: &Enrolment) -> Option<&MessagingKey> {
    enrolment.minted().or_else(|| enrolment.current())
}

/// Inserts a new key as the first. Where there is no room, the key that was replaced first is
/// deleted, but never the one that the record names.
fn mint(keys: &mut Vec<MessagingKey>, there: Option<&Published>, now: Timestamp) {
    let named = there.and_then(Published::peer);
    if keys.len() >= MAX_KEYS {
        let oldest = keys
            .iter()
            .enumerate()
            .filter_map(|(place, key)| match key.state {
                KeyState::Replaced { at } if named != Some(key.peer.as_str()) => Some((at, place)),
                _ => None,
            })
            .min();
        if let Some((_, place)) = oldest {
            keys.remove(place);
        }
    }
    keys.insert(0, MessagingKey::mint(now));
}
