//! Results of a look-up: a recipient with warnings, or the reason why there is none.

use serde::Serialize;

use super::authoritative::IdentityOutage;
use super::trust::{Consent, SendBlocker, Trust};
use atcomm_net::identity::{HandleError, IdentityError, MediatorDocument};
use atcomm_proto::key::SigningKey;
use atcomm_proto::plc::VerifiedLog;
use atcomm_proto::syntax::{Did, Handle, LexiconError, MediatorDid, Origin, RemoteText, Rev};
use atcomm_proto::verify::evidence::{Evidence, EvidenceError, VerifiedPackage};
use atcomm_proto::verify::pinning::KeyChange;

/// Sources of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The directory.
    Directory,
    /// The account's PDS.
    Host,
    /// The PLC directory, or the host of a `did:web`.
    Identity,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Directory => "the directory",
            Self::Host => "the account's host",
            Self::Identity => "the directory of DIDs",
        })
    }
}

/// Errors of looking up a recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// The handle leads to no account.
    #[error("{handle}: {why}")]
    Handle {
        /// The handle.
        handle: Handle,
        /// The error of the resolution.
        why: HandleError,
    },
    /// The handle leads to an account that does not claim the handle.
    #[error("{handle} names the account {account}, which does not call itself so")]
    HandleNotClaimed {
        /// The handle.
        handle: Handle,
        /// The account.
        account: Did,
    },
    /// There is no such account, or it has ended.
    #[error("there is no such account")]
    NoAccount,
    /// The account has no key package, which is proven.
    #[error("the account has no key package, so it takes no encrypted messages (proven)")]
    NotEnrolled {
        /// Revision of the proof.
        rev: Rev,
        /// The key that signed the proof.
        key: SigningKey,
    },
    /// The PDS says that the account has no key package, without a proof.
    #[error("the account's host says that it has no key package, and gives no proof of that")]
    NotEnrolledUnproven,
    /// The account is not active.
    #[error("the account is not active: {0}")]
    Inactive(String),
    /// The key package breaks a rule.
    #[error("the account's key package is not valid: {0}")]
    Invalid(String),
    /// An answer failed verification.
    #[error("the answer of {by} failed verification: {why}")]
    Unproven {
        /// The source of the answer.
        by: Source,
        /// The fault of the answer.
        #[source]
        why: AnswerFault,
    },
    /// The answers are older than what was seen before.
    #[error(
        "what is shown of the account is older than what was seen before: revision {shown}, not {seen}"
    )]
    RolledBack {
        /// The revision seen before.
        seen: Rev,
        /// The revision of the answers.
        shown: Rev,
    },
    /// No server that could tell can be reached.
    #[error(transparent)]
    Unreachable(#[from] NoAnswer),
}

/// Causes of [`RecipientError::Unproven`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// The proof or the operation log failed verification.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The DID document of a `did:web` cannot be used.
    #[error(transparent)]
    Document(#[from] IdentityError),
    /// The answer is about another account than the one asked for.
    #[error("it is about another account, {0}")]
    OtherAccount(Did),
    /// The answer has no proof.
    #[error("it has no proof")]
    NoProof,
    /// A field of the answer contradicts the proof.
    #[error("its field {0} is not what it proves")]
    Field(&'static str),
}

/// Causes of [`RecipientError::Unreachable`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The account's identity cannot be looked up.
    #[error(transparent)]
    Identity(#[from] IdentityOutage),
    /// The PDS cannot be asked: what it and the directory answered, in one text for people.
    #[error("{0}")]
    Host(String),
}

/// Warnings about a recipient, for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The PDS gave no answer.
    #[error("the account's own host could not be asked whether anything newer exists ({0})")]
    HostSilent(String),
    /// The answer of the PDS proves nothing.
    #[error("what the account's own host shows proves nothing ({0})")]
    HostUseless(String),
    /// The PDS has an older state than the directory.
    #[error("the account's own host shows an older state than the directory has proof of")]
    HostBehind,
    /// The directory has an older package than the PDS.
    #[error(
        "the directory shows an older package than the account's own host; its newer one counts"
    )]
    DirectoryOutdated,
    /// The directory denies that there is a package.
    #[error("the directory denies what the account's own host proves: {message} ({name})")]
    DirectoryDenies {
        /// The error of the lexicon.
        name: LexiconError,
        /// The directory's reason.
        message: RemoteText,
    },
    /// The directory gave no answer.
    #[error("{0}; the account's own servers were asked instead")]
    DirectorySilent(String),
    /// The directory's operation log is not the PLC directory's.
    #[error("the operation log that the directory shows is not the account's: {0}")]
    DirectoryLog(String),
    /// The directory names a handle that the account does not claim.
    #[error("the directory shows the handle {0}, which the account does not claim")]
    DirectoryHandle(RemoteText),
    /// The directory names other keys of a mediator than the mediator itself.
    #[error("the directory shows other keys of the mediator {0} than it has; its own count")]
    DirectoryMediator(MediatorDid),
    /// The account has no handle that leads back to it.
    #[error("the account has no handle that leads back to it")]
    HandleInvalid,
    /// The account's handle could not be looked up.
    #[error("the account's handle could not be looked up now")]
    HandleUnknown,
    /// The signing key is not the one of the last time.
    #[error("the account's signing key is another than when it was seen last")]
    SigningKeyChanged,
    /// The package is signed by the key of the PDS that the account left.
    #[error(
        "the account has moved and has not written since: its package is signed by its old host's key"
    )]
    BeforeMove,
    /// No mediator has a document with a key and an endpoint.
    #[error("none of its mediators can be used now")]
    NoMediator,
    /// Other accounts publish the same key.
    #[error("other accounts publish the same messaging key: one of them may read what is sent")]
    Ambiguous,
    /// The handle is known as another account's.
    #[error("{handle} was the handle of another account that you know, {before}")]
    HandleMoved {
        /// The handle.
        handle: Handle,
        /// The account that is known by the handle.
        before: Did,
    },
}

impl Warning {
    /// Stable code for programs.
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

/// An account that can be sent to. Everything in it is verified.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// The account.
    pub account: Did,
    /// The handle, verified in both directions.
    pub handle: Option<Handle>,
    /// The PDS that the account itself names; `None` where the account's own servers were not
    /// asked.
    pub pds: Option<Origin>,
    /// The key package.
    pub package: VerifiedPackage,
    /// The operations that lead to the signing key; `None` for a `did:web`, and where the pinned
    /// signing key was enough.
    pub log: Option<VerifiedLog>,
    /// The mediators in the record's order. The documents of the first eight were read.
    pub mediators: Vec<MediatorDocument>,
    /// Whether the account's own servers were asked; if not, everything is as it was pinned.
    pub authoritative: bool,
    /// Warnings for the user.
    pub warnings: Vec<Warning>,
    /// The evidence, to be handed on.
    pub evidence: Evidence,
    /// How far the key is trusted.
    pub trust: Trust,
}

impl Recipient {
    /// Returns the first reason not to send that `consent` does not cover.
    pub fn blocker(&self, consent: Consent) -> Option<SendBlocker> {
        let is_covered = |one: &SendBlocker| consent.anyway && one.is_left_to_consent();
        self.blockers().into_iter().find(|one| !is_covered(one))
    }

    /// Returns the first reason to doubt that the key is the account's. Another account that
    /// publishes the same key is none.
    pub fn key_blocker(&self) -> Option<SendBlocker> {
        let is_about_key = |one: &SendBlocker| !matches!(one, SendBlocker::Ambiguous { .. });
        self.blockers().into_iter().find(is_about_key)
    }

    /// Returns all reasons not to send, the gravest first.
    pub fn blockers(&self) -> Vec<SendBlocker> {
        let key_changed = matches!(self.trust.change, KeyChange::Changed { .. }).then(|| {
            SendBlocker::KeyChanged {
                account: self.account.clone(),
                handle: self.trust.known_as.clone(),
            }
        });
        let moved_from = self
            .trust
            .moved_from
            .as_ref()
            .filter(|_| self.trust.asked_by_handle);
        let handle_moved = moved_from.map(|(handle, before)| SendBlocker::HandleMoved {
            handle: handle.clone(),
            before: before.clone(),
            now: self.account.clone(),
        });
        let ambiguous = (self.trust.ambiguous == Some(true)).then(|| SendBlocker::Ambiguous {
            name: match &self.handle {
                Some(handle) => format!("@{handle}"),
                None => self.account.to_string(),
            },
        });
        let unconfirmed = self.unconfirmed_blocker();
        [key_changed, handle_moved, unconfirmed, ambiguous]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Returns the blocker of a key that only the directory shows.
    pub fn unconfirmed_blocker(&self) -> Option<SendBlocker> {
        let why = self
            .trust
            .unconfirmed
            .filter(|_| self.trust.needs_confirmation)?;
        Some(SendBlocker::Unconfirmed {
            account: self.account.clone(),
            why,
        })
    }
}
