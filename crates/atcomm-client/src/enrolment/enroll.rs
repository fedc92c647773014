//! Enrolling an account, replacing its key, and leaving again.
//!
//! Each is a row of steps, and what a step is going to need is in the wallet, on disk, before it is
//! begun: a key is saved before it is published, and published before mediators hear of it. A run
//! that was interrupted anywhere is finished by the next one, which asks the PDS what is there.
//!
//! ```text
//! locate -> sign in -> mint and save -> putRecord -> refresh at the directory -> register
//! ```

mod error;
mod record;
mod steps;

use serde::Serialize;
use unicode_segmentation::UnicodeSegmentation as _;
use url::Url;

use super::account::{AccountClient, Published};
use crate::lookup::authoritative::proven_document;
use crate::mediator::client::{MailError, document};
use crate::wallet::enrolment::{Enrolment, KeyState, MessagingKey, replace_all};
use crate::wallet::stored::MAX_KEYS;
use crate::wallet::{AccountStore, Wallet};
use atcomm_net::identity::{Freshness, HandleCheck, Identity};
use atcomm_net::net::Net;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::keypackage::{MAX_LABEL_GRAPHEMES, MAX_LABEL_LEN, MAX_MEDIATORS, distinct};
use atcomm_proto::syntax::{Actor, Did, Handle, MediatorDid, Origin};

pub use error::EnrolError;

/// An account as it was found just now, without asking any directory of keys.
#[derive(Debug, Clone)]
pub struct Located {
    /// The account.
    pub account: Did,
    /// Its handle, verified in both directions.
    pub handle: Option<Handle>,
    /// The PDS that its DID document names.
    pub pds: Origin,
}

/// What an enrolment is to be. What is left out stays as it is, or is decided for.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Who is to keep the mail, in the order in which senders try them. Empty: as before.
    pub mediators: Vec<MediatorDid>,
    /// Name of this device; empty for none. Absent: as before.
    pub label: Option<String>,
    /// The directory that the user names. Absent: as before, else the one that a mediator names.
    pub directory: Option<Origin>,
    /// Whether a key of another wallet is replaced.
    pub replace: bool,
}

/// What was just done, for people who watch.
#[derive(Debug, Clone)]
pub enum Step {
    /// Another process changes how the account is enrolled, and is waited for.
    Waiting,
    /// A new key is in the wallet.
    Minted,
    /// A key of an earlier run is used.
    Resumed,
    /// The record names the key.
    Published,
    /// The record was as it should be.
    Unchanged,
    /// The record is gone.
    Deleted,
    /// The directory shows what was published.
    DirectoryUpdated(Origin),
    /// The directory will find out by itself.
    DirectoryPending(Origin, String),
    /// A mediator keeps the mail.
    Registered(MediatorDid),
    /// A mediator does not yet.
    RegisterFailed(MediatorDid, MailError),
    /// A mediator keeps the mail no longer.
    Unregistered(MediatorDid),
    /// A mediator could not be told that it should not.
    UnregisterFailed(MediatorDid, MailError),
}

/// How it ended.
#[derive(Debug)]
pub struct Outcome {
    /// The account as it is in the wallet now.
    pub enrolment: Enrolment,
    /// Mediators that have not taken the key yet, and why.
    pub missing: Vec<(MediatorDid, MailError)>,
}

/// How a command that changes an enrolment works.
pub struct Enroller {
    net: Net,
    identity: Identity,
    clock: Clock,
    wallet: Wallet,
}

/// How the account stands at its PDS.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AtHost {
    /// Whether there is a record.
    pub has_record: bool,
    /// Whether it names a key of the wallet, the present one or one that was replaced.
    pub is_published: bool,
    /// The did:peer in the record, where there is one.
    pub peer: Option<String>,
}

/// Reads what somebody calls a mediator: `did:web:...`, a host, or an origin.
pub fn mediator_did(text: &str, development: bool) -> Option<MediatorDid> {
    let text = text.trim();
    if text.starts_with("did:") {
        let did = MediatorDid::parse(text).ok()?;
        return did.web().is_some().then_some(did);
    }
    let origin = match text.contains("://") {
        true => text.to_owned(),
        false => format!("https://{text}"),
    };
    let url = Url::parse(&origin).ok()?;
    let is_plain = development && url.scheme() == "http" && url.host_str() == Some("localhost");
    if !is_plain && url.scheme() != "https" {
        return None;
    }
    let origin = Origin::parse(origin.trim_end_matches('/')).ok()?;
    let did = format!("did:web:{}", origin.host().replace(':', "%3A"));
    let did = MediatorDid::parse(&did).ok()?;
    did.web().is_some().then_some(did)
}

impl Plan {
    fn check(&self) -> Result<(), EnrolError> {
        if self.mediators.len() > MAX_MEDIATORS {
            return Err(EnrolError::TooManyMediators(self.mediators.len()));
        }
        let is_long = |label: &str| {
            label.len() > MAX_LABEL_LEN || label.graphemes(true).count() > MAX_LABEL_GRAPHEMES
        };
        match &self.label {
            Some(label) if is_long(label) || label.chars().any(char::is_control) => {
                Err(EnrolError::Label)
            }
            _ => Ok(()),
        }
    }
}

impl Enroller {
    /// Over a network and a wallet. Asks nobody.
    pub fn new(net: &Net, identity: &Identity, clock: &Clock, wallet: &Wallet) -> Self {
        Self {
            net: net.clone(),
            identity: identity.clone(),
            clock: clock.clone(),
            wallet: wallet.clone(),
        }
    }

    /// Finds the account, its PDS and its handle, asking nobody but those whom atproto names. Where
    /// a password goes is not for whoever serves the DID document to say: of a `did:plc` the
    /// operations are verified.
    pub async fn locate(&self, actor: &Actor) -> Result<Located, EnrolError> {
        let account = match actor {
            Actor::Did(did) => did.clone(),
            Actor::Handle(handle) => {
                let found = self.identity.resolve_handle(handle).await;
                found.map_err(|error| EnrolError::Handle {
                    handle: handle.to_string(),
                    error,
                })?
            }
        };
        let document = proven_document(&self.net, &self.identity, &self.clock, &account).await;
        let document = document.map_err(|error| EnrolError::Identity {
            account: account.clone(),
            error,
        })?;
        // Whoever calls an account by a name that it does not call itself may be led astray, and
        // is about to type a password.
        if let Actor::Handle(handle) = actor
            && document.claimed_handle.as_ref() != Some(handle)
        {
            return Err(EnrolError::NotItsHandle {
                handle: handle.to_string(),
                account,
            });
        }
        let handle = match (actor, self.identity.verify_handle(&document).await) {
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

    /// What belongs to the account.
    pub fn store(&self, located: &Located) -> AccountStore {
        self.wallet.account_store(&located.account)
    }

    /// The account at its PDS.
    pub fn client(&self, located: &Located) -> AccountClient {
        AccountClient::new(&self.net, &located.pds, &self.store(located))
    }

    /// Enrols the account, or changes how it is enrolled: saves a key, publishes it, and has the
    /// mediators keep its mail. Needs a session. Run again it does what is left to do.
    pub async fn enroll(
        &self,
        located: &Located,
        plan: &Plan,
        observe: &mut dyn FnMut(Step),
    ) -> Result<Outcome, EnrolError> {
        plan.check()?;
        let _lock = self.begin(located, observe).await?;
        let known = self.store(located).enrolment()?;
        let mediators = match plan.mediators.is_empty() {
            true => known.as_ref().map(|known| known.mediators.clone()),
            false => Some(distinct(&plan.mediators)),
        };
        let mediators = mediators.ok_or(EnrolError::NoMediator)?;
        for did in &mediators {
            let is_known = known
                .as_ref()
                .is_some_and(|known| known.mediators.contains(did));
            let found = document(&self.identity, did, Freshness::Cached).await;
            // What was published stays published; a new one has to be there.
            match found {
                Err(error) if !is_known => {
                    return Err(EnrolError::Mediator {
                        did: did.clone(),
                        error,
                    });
                }
                _ => {}
            }
        }
        let directory = match (
            &plan.directory,
            known.as_ref().and_then(|known| known.directory.clone()),
        ) {
            (Some(directory), _) => Some(directory.clone()),
            (None, Some(directory)) => Some(directory),
            (None, None) => self.directory_of(&mediators).await,
        };
        // So that nothing is saved where another device's key stands in the way.
        let key = known.as_ref().and_then(next_key).cloned();
        let there = self.client(located).record().await?;
        if !plan.replace
            && let Some(there) = &there
            && !known.as_ref().is_some_and(|known| has(known, there.peer()))
        {
            return Err(foreign(there));
        }
        observe(match key {
            Some(_) => Step::Resumed,
            None => Step::Minted,
        });
        let now = self.clock.now();
        self.change(located, |before| {
            let mut enrolment = before.unwrap_or_else(|| Enrolment {
                account: located.account.clone(),
                handle: None,
                pds: located.pds.clone(),
                directory: None,
                mediators: Vec::new(),
                label: None,
                keys: Vec::new(),
            });
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
        self.finish(located, plan.directory.is_some(), observe)
            .await
    }

    /// Replaces the key by a new one, for which the old one vouches. Needs a session. A run that was
    /// interrupted is finished first, and no further key is made by that.
    pub async fn rotate(
        &self,
        located: &Located,
        observe: &mut dyn FnMut(Step),
    ) -> Result<Outcome, EnrolError> {
        let _lock = self.begin(located, observe).await?;
        let known = self.store(located).enrolment()?;
        let not_enrolled = || EnrolError::NotEnrolled(located.account.clone());
        let known = known.ok_or_else(not_enrolled)?;
        let published = |key: &&MessagingKey| matches!(key.state, KeyState::Published { .. });
        if !known.keys.iter().any(|key| published(&key)) {
            return Err(not_enrolled());
        }
        let Some(there) = self.client(located).record().await? else {
            return Err(EnrolError::Unpublished(located.account.clone()));
        };
        if !has(&known, there.peer()) {
            return Err(foreign(&there));
        }
        let now = self.clock.now();
        observe(match known.minted() {
            Some(_) => Step::Resumed,
            None => Step::Minted,
        });
        self.change(located, |before| {
            let mut enrolment = before.unwrap_or_else(|| known.clone());
            if enrolment.minted().is_none() {
                mint(&mut enrolment.keys, Some(&there), now);
            }
            enrolment
        })?;
        self.publish(located, false, observe).await?;
        self.finish(located, false, observe).await
    }

    /// Deletes the record and tells the mediators. The keys stay for what is under way. Needs a
    /// session where there is a record of ours. Run again it does what is left to do.
    pub async fn unenroll(
        &self,
        located: &Located,
        observe: &mut dyn FnMut(Step),
    ) -> Result<Outcome, EnrolError> {
        let _lock = self.begin(located, observe).await?;
        let known = self.store(located).enrolment()?;
        let known = known.ok_or_else(|| EnrolError::NotEnrolled(located.account.clone()))?;
        self.withdraw(located, &known, observe).await?;
        let enrolment = self.change(located, |before| {
            let mut enrolment = before.unwrap_or_else(|| known.clone());
            replace_all(&mut enrolment.keys, None, self.clock.now());
            enrolment
        })?;
        self.notice(&enrolment, None, false, observe).await;
        let mut missing = Vec::new();
        for key in &enrolment.keys {
            for did in &key.registered {
                match self.leave(did, key).await {
                    Ok(()) => observe(Step::Unregistered(did.clone())),
                    Err(error) => {
                        observe(Step::UnregisterFailed(did.clone(), error.clone()));
                        missing.push((did.clone(), error));
                    }
                }
            }
        }
        Ok(Outcome { enrolment, missing })
    }

    /// Whether anything of ours is still in the record: then [`Enroller::unenroll`] needs a session.
    pub async fn standing(&self, located: &Located) -> Result<AtHost, EnrolError> {
        let there = self.client(located).record().await?;
        let peer = there
            .as_ref()
            .and_then(|there| there.peer())
            .map(str::to_owned);
        let known = self.store(located).enrolment()?;
        Ok(AtHost {
            has_record: there.is_some(),
            is_published: known
                .as_ref()
                .is_some_and(|known| has(known, peer.as_deref())),
            peer,
        })
    }
}

/// Whether a did:peer is one of the account's keys in the wallet.
fn has(enrolment: &Enrolment, peer: Option<&str>) -> bool {
    let mut keys = enrolment.keys.iter();
    keys.any(|key| Some(key.peer.as_str()) == peer)
}

fn foreign(there: &Published) -> EnrolError {
    let label = there.value.get("label").and_then(serde_json::Value::as_str);
    EnrolError::Foreign {
        peer: there.peer().map(str::to_owned),
        label: label.map(str::to_owned),
    }
}

/// The key that is to stand in the record.
fn next_key(enrolment: &Enrolment) -> Option<&MessagingKey> {
    enrolment.minted().or_else(|| enrolment.current())
}

/// Puts a new key first. Where there is no room for it, the one that was replaced first goes, though
/// not the one that the record names.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mediators_are_named_as_people_do() {
        for (text, did) in [
            ("did:web:mail.example.com", "did:web:mail.example.com"),
            ("mail.example.com", "did:web:mail.example.com"),
            (" Mail.Example.com ", "did:web:mail.example.com"),
            ("https://mail.example.com/", "did:web:mail.example.com"),
            ("mail.example.com:8443", "did:web:mail.example.com%3A8443"),
        ] {
            let read = mediator_did(text, false).map(|did| did.to_string());
            assert_eq!(read.as_deref(), Some(did), "{text}");
        }
        for text in [
            "",
            "did:key:z6Mk",
            "did:web:",
            "http://mail.example.com",
            "http://localhost:2590",
            "https://mail.example.com/path",
            "user@mail.example.com",
            "alice at example",
            "10.0.0.1",
        ] {
            assert_eq!(mediator_did(text, false), None, "{text}");
        }
        let local = mediator_did("http://localhost:2590", true).map(|did| did.to_string());
        assert_eq!(local.as_deref(), Some("did:web:localhost%3A2590"));
    }

    #[test]
    fn plans_are_checked() {
        let label = |label: &str| Plan {
            label: Some(label.to_owned()),
            ..Plan::default()
        };
        assert!(label("").check().is_ok() && label(&"é".repeat(64)).check().is_ok());
        for bad in ["x".repeat(65), "a\nb".to_owned(), "👩‍👩‍👧‍👦".repeat(30)] {
            assert!(
                matches!(label(&bad).check(), Err(EnrolError::Label)),
                "{bad}"
            );
        }
        let did = MediatorDid::parse("did:web:mail.example.com").unwrap();
        let many = Plan {
            mediators: vec![did; MAX_MEDIATORS + 1],
            ..Plan::default()
        };
        assert!(matches!(
            many.check(),
            Err(EnrolError::TooManyMediators(33))
        ));
    }
}
