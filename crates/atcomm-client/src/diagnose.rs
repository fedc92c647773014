//! Checks of an enrolled account: whether the messages of others reach it.
//!
//! ```text
//! key -> DID document and handle -> session -> record -> proof -> directory -> each mediator
//! ```
//!
//! Each mediator is sent a message to the account itself, which is then taken from the queue. All
//! other state stays as it is.

use std::time::Duration;

use serde_json::json;

use crate::account::{Account, Client};
use crate::enrolment::account::{AccountClient, AccountError, Published};
use crate::lookup::authoritative::{AccountIdentityError, proven_document};
use crate::lookup::directory::DirectoryError;
use crate::lookup::outcome::{RecipientError, Warning};
use crate::mediator::client::{MailError, MediatorClient};
use crate::messaging::self_test::{SelfTestError, self_test};
use crate::wallet::enrolment::{KeyState, MessagingKey};
use atcomm_net::identity::{DidDocument, Freshness, HandleCheck, Unusable};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::did_peer::PeerDid;
use atcomm_proto::syntax::{Actor, Did, Handle, MediatorDid, Origin};

/// The result of one check.
#[derive(Debug)]
pub enum Finding {
    /// The wallet has no key that the account publishes or is going to. Nothing else is checked.
    NoKey,
    /// The messaging key of the wallet.
    Key {
        /// Its did:peer.
        peer: PeerDid,
        /// When it was published; `None` where the wallet has not recorded that it was.
        published_at: Option<Timestamp>,
    },
    /// The DID document and the handle.
    Account {
        /// The account.
        account: Did,
        /// The confirmed account, or what is wrong with it.
        result: Result<ConfirmedAccount, AccountProblem>,
    },
    /// The session that the wallet keeps.
    SignIn {
        /// The PDS of the account.
        pds: Origin,
        /// Whether the PDS accepts it.
        result: Result<(), SignInProblem>,
    },
    /// The record, as the PDS returns it.
    Record(Result<(), RecordProblem>),
    /// The record, verified as by a client without a directory; with the mediators of which the
    /// directory shows other keys than they have. Theirs count, so that mail is not affected.
    Proof(Result<Vec<MediatorDid>, ProofProblem>),
    /// The view of the directory.
    Directory {
        /// The directory; `None` where none is known.
        directory: Option<Origin>,
        /// Whether the directory has the wallet's key.
        result: Result<(), DirectoryProblem>,
    },
    /// The document of a mediator.
    Mediator {
        /// The mediator.
        did: MediatorDid,
        /// Whether the document can be used.
        result: Result<(), MailError>,
    },
    /// A trust ping to a mediator.
    Ping {
        /// The mediator.
        did: MediatorDid,
        /// Whether the mediator answers.
        result: Result<(), MailError>,
    },
    /// The registration of the key with a mediator.
    Registration {
        /// The mediator.
        did: MediatorDid,
        /// Whether the mediator accepts mail for the key.
        result: Result<(), RegistrationProblem>,
    },
    /// A message to the account itself by way of a mediator.
    Delivery {
        /// The mediator.
        did: MediatorDid,
        /// How long the message took.
        result: Result<Duration, SelfTestError>,
    },
}

/// An account with a PDS and a handle that leads back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfirmedAccount {
    /// The handle, verified in both directions.
    pub handle: Handle,
    /// The PDS that the DID document names.
    pub pds: Origin,
}

/// Problems of a DID document and a handle.
#[derive(Debug, PartialEq, Eq)]
pub enum AccountProblem {
    /// The DID document cannot be resolved, or is not proven.
    Identity(AccountIdentityError),
    /// The DID document names no PDS that can be used.
    NoPds(Unusable),
    /// The account has no handle that leads back to it.
    HandleInvalid {
        /// The PDS that the DID document names.
        pds: Origin,
    },
    /// The handle cannot be looked up now.
    HandleUnknown,
}

/// Problems of a session.
#[derive(Debug)]
pub enum SignInProblem {
    /// There is no session, or it has ended.
    SignedOut,
    /// The PDS cannot tell whether the session is valid.
    Pds(AccountError),
}

/// Problems of a record.
#[derive(Debug)]
pub enum RecordProblem {
    /// There is no record.
    Missing,
    /// The record names another key than the wallet's.
    OtherKey,
    /// The record names other mediators than the wallet.
    OtherMediators,
    /// The PDS does not return the record.
    Pds(AccountError),
}

/// Problems of the proof of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum ProofProblem {
    /// Senders cannot resolve the account.
    Lookup(RecipientError),
    /// The proven record names another key than the one of the wallet.
    OtherKey,
    /// Other accounts publish the same key.
    Ambiguous,
    /// Senders are warned of this.
    Warnings(Vec<Warning>),
}

/// Problems of the view of a directory.
#[derive(Debug)]
pub enum DirectoryProblem {
    /// The directory has another key than the wallet.
    OtherKey,
    /// The directory does not give a view.
    Lookup(DirectoryError),
}

/// Problems of a registration.
#[derive(Debug, PartialEq, Eq)]
pub enum RegistrationProblem {
    /// The mediator accepts no mail for the key.
    NotRegistered,
    /// The mediator gives no answer.
    Mail(MailError),
}

impl Finding {
    /// Whether the check passed.
    pub fn is_ok(&self) -> bool {
        match self {
            Self::NoKey => false,
            Self::Key { published_at, .. } => published_at.is_some(),
            Self::Account { result, .. } => result.is_ok(),
            Self::SignIn { result, .. } => result.is_ok(),
            Self::Record(result) => result.is_ok(),
            Self::Proof(result) => result.is_ok(),
            Self::Directory { result, .. } => result.is_ok(),
            Self::Mediator { result, .. } | Self::Ping { result, .. } => result.is_ok(),
            Self::Registration { result, .. } => result.is_ok(),
            Self::Delivery { result, .. } => result.is_ok(),
        }
    }

    /// The mediator that the check is about, if it is about one.
    pub fn mediator(&self) -> Option<&MediatorDid> {
        match self {
            Self::Mediator { did, .. }
            | Self::Ping { did, .. }
            | Self::Registration { did, .. }
            | Self::Delivery { did, .. } => Some(did),
            _ => None,
        }
    }
}

/// Runs all checks of an account in order, and passes each finding to `sink` at once. A check that
/// needs the success of an earlier one is left out where that failed. Ends early only with an error
/// of the sink.
pub async fn diagnose<E>(
    account: &Account,
    mut sink: impl FnMut(Finding) -> Result<(), E>,
) -> Result<(), E> {
    let Some(key) = account.key() else {
        return sink(Finding::NoKey);
    };
    sink(about_key(key))?;
    let identified = identify(account).await;
    let own = identified.as_ref().ok();
    let pds = own
        .and_then(|own| own.document.pds.clone().ok())
        .unwrap_or_else(|| account.enrolment().pds.clone());
    sink(Finding::Account {
        account: account.enrolment().account.clone(),
        result: identified
            .map_err(AccountProblem::Identity)
            .and_then(Identified::check),
    })?;
    let client = AccountClient::new(&account.client().net, &pds, account.store());
    sink(about_session(&client).await)?;
    sink(about_record(account, key, &client).await)?;
    sink(about_proof(account, key).await)?;
    sink(about_directory(account, key).await)?;
    for did in &account.enrolment().mediators {
        about_mediator(account.client(), key, did, &mut sink).await?;
    }
    Ok(())
}

/// The DID document of an account, and the check of its handle.
struct Identified {
    document: DidDocument,
    handle: HandleCheck,
}

impl Identified {
    fn check(self) -> Result<ConfirmedAccount, AccountProblem> {
        let pds = self.document.pds.map_err(AccountProblem::NoPds)?;
        match self.handle {
            HandleCheck::Verified(handle) => Ok(ConfirmedAccount { handle, pds }),
            HandleCheck::Invalid => Err(AccountProblem::HandleInvalid { pds }),
            HandleCheck::Inconclusive => Err(AccountProblem::HandleUnknown),
        }
    }
}

fn about_key(key: &MessagingKey) -> Finding {
    Finding::Key {
        peer: key.peer.clone(),
        published_at: match key.state {
            KeyState::Published { at } => Some(at),
            KeyState::Minted | KeyState::Replaced { .. } => None,
        },
    }
}

async fn identify(account: &Account) -> Result<Identified, AccountIdentityError> {
    let Client {
        net,
        identity,
        clock,
        ..
    } = account.client();
    let identity = identity.interactive();
    let document = proven_document(net, &identity, clock, &account.enrolment().account).await?;
    Ok(Identified {
        handle: identity.verify_handle(&document).await,
        document,
    })
}

async fn about_session(client: &AccountClient) -> Finding {
    Finding::SignIn {
        pds: client.pds().clone(),
        result: match client.is_signed_in().await {
            Ok(true) => Ok(()),
            Ok(false) | Err(AccountError::SignedOut) => Err(SignInProblem::SignedOut),
            Err(error) => Err(SignInProblem::Pds(error)),
        },
    }
}

async fn about_record(account: &Account, key: &MessagingKey, client: &AccountClient) -> Finding {
    let peer = key.peer.as_str();
    let record = client.record().await.map_err(RecordProblem::Pds);
    Finding::Record(record.and_then(|published| {
        compare_record(published.as_ref(), peer, &account.enrolment().mediators)
    }))
}

/// Compares the record at the PDS with the key and the mediators of the wallet.
fn compare_record(
    published: Option<&Published>,
    peer: &str,
    mediators: &[MediatorDid],
) -> Result<(), RecordProblem> {
    let published = published.ok_or(RecordProblem::Missing)?;
    if published.peer() != Some(peer) {
        return Err(RecordProblem::OtherKey);
    }
    if published.value.get("mediators") != Some(&json!(mediators)) {
        return Err(RecordProblem::OtherMediators);
    }
    Ok(())
}

async fn about_proof(account: &Account, key: &MessagingKey) -> Finding {
    let own = Actor::Did(account.enrolment().account.clone());
    let peer = key.peer.as_str();
    let recipient = account.lookup().clone().thorough().resolve(&own, &[]).await;
    Finding::Proof(
        recipient
            .map_err(ProofProblem::Lookup)
            .and_then(|recipient| {
                let is_ambiguous = recipient.trust.ambiguous == Some(true);
                compare_proof(
                    recipient.package.peer() == peer,
                    is_ambiguous,
                    recipient.warnings,
                )
            }),
    )
}

/// Decides on a proven record: another key is graver than other accounts with the same one, and
/// that graver than a warning. Returns the mediators whose keys the directory does not know.
fn compare_proof(
    is_own_key: bool,
    is_ambiguous: bool,
    warnings: Vec<Warning>,
) -> Result<Vec<MediatorDid>, ProofProblem> {
    if !is_own_key {
        return Err(ProofProblem::OtherKey);
    }
    if is_ambiguous {
        return Err(ProofProblem::Ambiguous);
    }
    let (mut outdated, mut others) = (Vec::new(), Vec::new());
    for warning in warnings {
        match warning {
            Warning::DirectoryMediator(did) => outdated.push(did),
            other => others.push(other),
        }
    }
    if others.is_empty() {
        Ok(outdated)
    } else {
        Err(ProofProblem::Warnings(others))
    }
}

async fn about_directory(account: &Account, key: &MessagingKey) -> Finding {
    let Some(directory) = account.lookup().directory() else {
        return Finding::Directory {
            directory: None,
            result: Ok(()),
        };
    };
    let view = directory.resolve(&account.enrolment().account).await;
    Finding::Directory {
        directory: Some(directory.origin().clone()),
        result: match view {
            Ok(view) if view.peer == key.peer.as_str() => Ok(()),
            Ok(_) => Err(DirectoryProblem::OtherKey),
            Err(error) => Err(DirectoryProblem::Lookup(error)),
        },
    }
}

/// Checks a mediator up to the first check that fails.
async fn about_mediator<E>(
    client: &Client,
    key: &MessagingKey,
    did: &MediatorDid,
    sink: &mut impl FnMut(Finding) -> Result<(), E>,
) -> Result<(), E> {
    let Client {
        net,
        identity,
        clock,
        ..
    } = client;
    let did = did.clone();
    let opened = MediatorClient::open(net, identity, clock, &did, key, Freshness::Refresh).await;
    let mediator = match opened {
        Ok(mediator) => mediator,
        Err(error) => {
            let result = Err(error);
            return sink(Finding::Mediator { did, result });
        }
    };
    sink(Finding::Mediator {
        did: did.clone(),
        result: Ok(()),
    })?;
    let ping = Finding::Ping {
        did: did.clone(),
        result: mediator.ping().await,
    };
    let answers = ping.is_ok();
    sink(ping)?;
    if !answers {
        return Ok(());
    }
    let registration = Finding::Registration {
        did: did.clone(),
        result: match mediator.is_registered().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(RegistrationProblem::NotRegistered),
            Err(error) => Err(RegistrationProblem::Mail(error)),
        },
    };
    let is_registered = registration.is_ok();
    sink(registration)?;
    if !is_registered {
        return Ok(());
    }
    let result = self_test(net, clock, &mediator).await;
    sink(Finding::Delivery { did, result })
}

#[cfg(test)]
mod tests;
