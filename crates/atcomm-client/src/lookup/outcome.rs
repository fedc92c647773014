//! What a look-up comes to: an account to send to, with what the user should know, or why not.

use serde::Serialize;

use atcomm_net::identity::{HandleError, MediatorDocument};
use atcomm_proto::key::SigningKey;
use atcomm_proto::plc::VerifiedLog;
use atcomm_proto::syntax::{Did, Handle, LexiconError, MediatorDid, Origin, RemoteText, Rev};
use atcomm_proto::verify::evidence::{Evidence, VerifiedPackage};
use atcomm_proto::verify::pin::Pin;
use atcomm_proto::verify::pinning::KeyChange;

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

/// Why nothing may be sent until the user accepts what changed, or decides otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendBlocker {
    /// Another key, and the pinned one does not vouch for it.
    #[error(
        "the messaging key of {} has changed, and the key before it does not vouch for the new one",
        named(.handle.as_ref(), .account)
    )]
    KeyChanged {
        /// The account.
        account: Did,
        /// The handle by which it is known.
        handle: Option<Handle>,
    },
    /// A key that is not known yet, or that an old host has signed, and nobody but the directory
    /// shows it: it may have been replaced, or never have been the account's.
    #[error("nobody but the directory shows the messaging key of {account}: {why}")]
    Unconfirmed {
        /// The account.
        account: Did,
        /// What its own host did instead.
        why: Unconfirmed,
    },
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
    /// Other accounts publish the same messaging key, as the directory says.
    #[error(
        "other accounts publish the same messaging key as {name}: one of them may read what is sent"
    )]
    Ambiguous {
        /// The account's handle after an @, or its DID.
        name: String,
    },
}

impl SendBlocker {
    /// Whether the user can consent to sending all the same. A key that changed and a handle that
    /// moved have to be accepted as contacts instead.
    pub fn is_left_to_consent(&self) -> bool {
        matches!(self, Self::Unconfirmed { .. } | Self::Ambiguous { .. })
    }
}

/// What the user consents to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Consent {
    /// Send also to a key that only the directory shows, and to one that other accounts publish,
    /// too.
    pub anyway: bool,
}

fn named(handle: Option<&Handle>, account: &Did) -> String {
    match handle {
        Some(handle) => format!("@{handle} ({account})"),
        None => account.to_string(),
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
    /// How its key relates to the pinned one.
    pub change: KeyChange,
    /// Whether several accounts publish the same did:peer, as the directory says; `None` where
    /// none was asked.
    pub ambiguous: Option<bool>,
    /// Whether the account's own servers were asked, or all is as it was pinned.
    pub authoritative: bool,
    /// What the user should know.
    pub warnings: Vec<Warning>,
    /// What shows it, to be handed on.
    pub evidence: Evidence,
    /// Why its own PDS did not confirm it.
    pub unconfirmed: Option<Unconfirmed>,
    /// What is to be remembered of it; `None` where what was known stays as it is.
    pub pin: Option<Pin>,
    pub(super) accepted: Pin,
    pub(super) moved_from: Option<(Handle, Did)>,
    pub(super) asked_by_handle: bool,
    pub(super) known_as: Option<Handle>,
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
        let key_changed = matches!(self.change, KeyChange::Changed { .. });
        let key_changed = key_changed.then(|| SendBlocker::KeyChanged {
            account: self.account.clone(),
            handle: self.known_as.clone(),
        });
        let moved_from = self.moved_from.as_ref().filter(|_| self.asked_by_handle);
        let handle_moved = moved_from.map(|(handle, before)| SendBlocker::HandleMoved {
            handle: handle.clone(),
            before: before.clone(),
            now: self.account.clone(),
        });
        let ambiguous = (self.ambiguous == Some(true)).then(|| SendBlocker::Ambiguous {
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

    /// The same where it is for no other reason than that the directory alone shows the key.
    pub fn unconfirmed_blocker(&self) -> Option<SendBlocker> {
        let why = self.unconfirmed.filter(|_| self.needs_confirmation())?;
        Some(SendBlocker::Unconfirmed {
            account: self.account.clone(),
            why,
        })
    }

    /// Whether the directory's word and a proof are not enough without the account's own PDS: at
    /// first contact an old package proves as much as the newest, and a host that the account has
    /// left proves anything but the key that is known already.
    pub(super) fn needs_confirmation(&self) -> bool {
        let is_known = self.change == KeyChange::Same;
        self.change == KeyChange::First || (self.package.signed_by_previous_host() && !is_known)
    }

    /// What is to be remembered once the user has accepted what changed.
    pub fn accepted(&self) -> &Pin {
        &self.accepted
    }

    /// The contact that is known by this account's handle, and is no more once the user has
    /// accepted that.
    pub fn moved_from(&self) -> Option<&Did> {
        self.moved_from.as_ref().map(|(_, before)| before)
    }
}
