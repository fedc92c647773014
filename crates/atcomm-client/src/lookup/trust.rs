//! Trust in a recipient's key, and the reasons not to send to it.

use atcomm_proto::syntax::{Did, Handle};
use atcomm_proto::verify::evidence::VerifiedPackage;
use atcomm_proto::verify::pin::Pin;
use atcomm_proto::verify::pinning::KeyChange;

/// The comparison of a recipient's key with what is pinned, and what confirms the key.
#[derive(Debug, Clone)]
pub struct Trust {
    /// How the key relates to the pinned one.
    pub change: KeyChange,
    /// Whether several accounts publish the same did:peer, as the directory says; `None` where no
    /// directory was asked.
    pub ambiguous: Option<bool>,
    /// Why the account's own PDS did not confirm the key.
    pub unconfirmed: Option<Unconfirmed>,
    /// The pin to be saved; `None` where the contact stays as it is.
    pub pin: Option<Pin>,
    /// The pin to be saved once the user has accepted what changed.
    pub(super) accepted: Pin,
    /// Whether the key counts only where the account's own PDS confirms it.
    pub(super) needs_confirmation: bool,
    /// The contact that is known by the recipient's handle, with the handle.
    pub(super) moved_from: Option<(Handle, Did)>,
    pub(super) asked_by_handle: bool,
    /// The pinned handle.
    pub(super) known_as: Option<Handle>,
}

/// Reasons for which the account's own PDS did not confirm the directory's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unconfirmed {
    /// The PDS gave no answer.
    HostSilent,
    /// The answer of the PDS proves nothing.
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

/// Reasons not to send until the user accepts what changed, or consents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendBlocker {
    /// The key is another one, and the pinned one does not vouch for it.
    #[error(
        "the messaging key of {} has changed, and the key before it does not vouch for the new one",
        named(.handle.as_ref(), .account)
    )]
    KeyChanged {
        /// The account.
        account: Did,
        /// The pinned handle.
        handle: Option<Handle>,
    },
    /// The key is not known yet, or a previous PDS has signed it, and only the directory shows it:
    /// it may have been replaced, or never have been the account's.
    #[error("nobody but the directory shows the messaging key of {account}: {why}")]
    Unconfirmed {
        /// The account.
        account: Did,
        /// Why the PDS does not confirm the key.
        why: Unconfirmed,
    },
    /// The handle leads to another account than the one that is known by it.
    #[error("{handle} now names the account {now}, and {before} before")]
    HandleMoved {
        /// The handle.
        handle: Handle,
        /// The account that is known by the handle.
        before: Did,
        /// The account that the handle leads to now.
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

impl Trust {
    /// Whether the directory's answer and a proof do not suffice without the account's own PDS: at
    /// first contact an old package proves as much as the newest, and a host that the account has
    /// left can prove any key; only a key that is pinned already counts all the same.
    pub(super) fn needs_confirmation(change: &KeyChange, package: &VerifiedPackage) -> bool {
        let is_known = *change == KeyChange::Same;
        *change == KeyChange::First || (package.signed_by_previous_host() && !is_known)
    }

    /// The pin to be saved once the user has accepted what changed.
    pub fn accepted(&self) -> &Pin {
        &self.accepted
    }

    /// The contact that is known by the recipient's handle, and is no longer once the user has
    /// accepted that.
    pub fn moved_from(&self) -> Option<&Did> {
        self.moved_from.as_ref().map(|(_, before)| before)
    }
}
