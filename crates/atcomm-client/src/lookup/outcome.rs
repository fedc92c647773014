//! What a look-up comes to: an account to send to, with what the user should know, or why not.

use serde::Serialize;

use super::trust::Trust;
use atcomm_net::identity::{HandleError, MediatorDocument};
use atcomm_proto::key::SigningKey;
use atcomm_proto::plc::VerifiedLog;
use atcomm_proto::syntax::{Did, Handle, LexiconError, MediatorDid, Origin, RemoteText, Rev};
use atcomm_proto::verify::evidence::{Evidence, VerifiedPackage};

/// Who showed something.
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
    #[error("the answer of {by} failed verification: {why}")]
    Unproven {
        /// Who showed it.
        by: Source,
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
        name: LexiconError,
        /// In which words.
        message: RemoteText,
    },
    /// The directory gave no answer.
    #[error("{0}; the account's own servers were asked instead")]
    DirectorySilent(String),
    /// The directory's operation log is not the PLC directory's.
    #[error("the operation log that the directory shows is not the account's: {0}")]
    DirectoryLog(String),
    /// The directory names another handle than the account.
    #[error("the directory shows the handle {0}, which the account does not claim")]
    DirectoryHandle(RemoteText),
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

/// Why the account's own PDS did not confirm what the directory shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unconfirmed {
    /// It gave no answer.
    HostSilent,
    /// What it shows proves nothing.
    HostUseless,
}

impl std::fmt::Display for Unconfirmed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::HostSilent => "its own host cannot be asked now",
            Self::HostUseless => "what its own host shows proves nothing",
        })
    }
}

/// An account that can be sent to, everything of it verified.
#[derive(Debug, Clone)]
pub struct Recipient {
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
    /// Whether the account's own servers were asked, or all is as it was pinned.
    pub authoritative: bool,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// What shows it, to be handed on.
    pub evidence: Evidence,
    /// How far its key is trusted.
    pub trust: Trust,
}
