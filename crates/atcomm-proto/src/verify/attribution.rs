//! Whose message it is: a pure function of what the envelope proves, what the message claims, what
//! is known of the account that it claims, and the clock.
//!
//! A message proves which did:peer wrote it and claims an account; the account's key package
//! connects the two, or does not. Only [`Attribution::Verified`] and
//! [`Attribution::VerifiedPrevious`] may be shown under the account's handle, and no lack of an
//! answer leads to either.
//!
//! Source: the binding published at didcomm.at, "sender attribution", as narrowed in
//! `docs/client-guide.md`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pin::{Pin, Previous};
use crate::clock::Timestamp;
use crate::syntax::{Did, Handle};

/// For how long a key that was replaced still counts as its account's, from the binding: a message
/// may have been on its way.
pub const PREVIOUS_KEY_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How far a time may lie in the future and still be one: clocks differ.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// What a message says and its envelope proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The did:peer of the sender (authcrypt) or the signer, as the envelope proves; `None` if it
    /// proves neither.
    pub sender_peer: Option<String>,
    /// The account that the message claims to come from, `senderDid`, as written.
    pub sender_did: Option<String>,
    /// The account that the message says it is for, `recipientDid`, as written.
    pub recipient_did: Option<String>,
    /// The account whose key opened the envelope.
    pub recipient: Did,
}

impl Claim {
    /// The account to be looked up, where the outcome depends on one at all.
    pub fn account(&self) -> Option<Did> {
        if self.is_misdirected() || self.sender_peer.is_none() {
            return None;
        }
        Did::parse(self.sender_did.as_deref()?).ok()
    }

    fn is_misdirected(&self) -> bool {
        let meant = self.recipient_did.as_deref();
        meant.is_some_and(|meant| meant != self.recipient.as_str())
    }
}

/// What is known of the account that a message claims. Everything in it was verified by this
/// client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountState {
    /// Its record holds a key package.
    Enrolled {
        /// The did:peer in it.
        peer: String,
        /// Its handle, verified in both directions.
        handle: Option<Handle>,
        /// Another account that this client knows by that handle.
        known_of: Option<Did>,
        /// The did:peers that were replaced, each shown by a proof, and until when it is shown to
        /// have been the account's. The order does not matter.
        previous: Vec<Previous>,
    },
    /// Proven: its record is gone.
    Removed,
    /// It could not be found out.
    Unknown(UnverifiedReason),
}

/// Why a claim could be neither confirmed nor refuted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum UnverifiedReason {
    /// What it claims is not the DID of an account.
    #[error("what it claims is not the DID of an account")]
    NotAnAccount,
    /// Nobody who could tell can be reached now.
    #[error("the account cannot be looked up now")]
    Unreachable,
    /// There is no such account.
    #[error("there is no such account")]
    NoAccount,
    /// The account is deactivated, suspended, taken down or deleted.
    #[error("the account is not active")]
    Inactive,
    /// What was shown of it is not proven.
    #[error("what its servers or the directory show of it is not proven")]
    Unproven,
    /// What was shown of it is older than what this client has seen.
    #[error("only an older state of it is shown than was seen before")]
    RolledBack,
    /// Its record is not a valid key package.
    #[error("its key package is not valid")]
    Invalid,
}

impl UnverifiedReason {
    /// Whether looking again later may settle it.
    pub fn may_pass(self) -> bool {
        self != Self::NotAnAccount
    }
}

/// What a message is shown as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "outcome",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Attribution {
    /// Written with the key that the account publishes.
    Verified {
        /// The account.
        account: Did,
        /// Its handle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<Handle>,
        /// Whether the key differs from the pinned one and its owner has not accepted it: the
        /// account publishes it, and whether the person behind it is the same is not shown.
        unaccepted: bool,
        /// Another account that is known by that handle, and that the reader may take for this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        known_of: Option<Did>,
    },
    /// Written with the key that the account published before, at most seven days ago.
    VerifiedPrevious {
        /// The account.
        account: Did,
        /// Its handle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<Handle>,
        /// When the key was replaced, or until when it is shown to have been the account's.
        #[serde(with = "crate::clock::serde::rfc3339")]
        replaced_at: Timestamp,
        /// Another account that is known by that handle, and that the reader may take for this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        known_of: Option<Did>,
    },
    /// Written with a key that the account does not publish: somebody else's word. Shown without
    /// a handle, with a warning.
    Mismatch {
        /// The account that it claims.
        claimed: Did,
        /// When the account replaced that very key, where it was its own longer ago than counts.
        #[serde(
            default,
            with = "crate::clock::serde::rfc3339_option",
            skip_serializing_if = "Option::is_none"
        )]
        replaced_at: Option<Timestamp>,
    },
    /// Meant for another account: somebody publishes the reader's did:peer as his own.
    Misdirected {
        /// The account that the message says it is for, as it was written.
        meant: String,
    },
    /// The account that it claims has no key package, which is proven.
    Revoked {
        /// The account that it claims.
        claimed: Did,
    },
    /// It claims no account; which did:peer wrote it is proven.
    Unattributed,
    /// Neither confirmed nor refuted: shown as from an unknown sender, to be looked at again.
    Unverified {
        /// The account that it claims, as it was written.
        claimed: String,
        /// Why.
        reason: UnverifiedReason,
        /// Whether it was written with the key that is pinned for that account.
        pinned: bool,
    },
    /// Nothing proves who wrote it.
    Anonymous,
}

impl Attribution {
    /// The account under whose name it may be shown.
    pub fn account(&self) -> Option<&Did> {
        match self {
            Self::Verified { account, .. } | Self::VerifiedPrevious { account, .. } => {
                Some(account)
            }
            _ => None,
        }
    }

    /// Whether it speaks against the sender, so that what it rests on must be looked at anew: a
    /// key that was just rotated must not look like fraud.
    pub fn is_adverse(&self) -> bool {
        matches!(self, Self::Mismatch { .. } | Self::Revoked { .. })
    }
}

/// Attributes a message. `pin` is what this client remembers of the claimed account, if anything.
pub fn attribute(
    claim: &Claim,
    state: &AccountState,
    pin: Option<&Pin>,
    now: Timestamp,
) -> Attribution {
    if claim.is_misdirected() {
        let meant = claim.recipient_did.clone().unwrap_or_default();
        return Attribution::Misdirected { meant };
    }
    let Some(writer) = claim.sender_peer.as_deref() else {
        return Attribution::Anonymous;
    };
    let Some(sender) = claim.sender_did.as_deref() else {
        return Attribution::Unattributed;
    };
    let Ok(account) = Did::parse(sender) else {
        return Attribution::Unverified {
            claimed: sender.to_owned(),
            reason: UnverifiedReason::NotAnAccount,
            pinned: false,
        };
    };
    let pin = pin.filter(|pin| pin.account == account);
    match state {
        AccountState::Unknown(reason) => Attribution::Unverified {
            claimed: account.into(),
            reason: *reason,
            pinned: pin.is_some_and(|pin| pin.peer == writer),
        },
        AccountState::Removed => Attribution::Revoked { claimed: account },
        AccountState::Enrolled {
            peer,
            handle,
            known_of,
            ..
        } if peer == writer => Attribution::Verified {
            account,
            handle: handle.clone(),
            unaccepted: pin.is_some_and(|pin| pin.peer != *peer),
            known_of: known_of.clone(),
        },
        AccountState::Enrolled {
            peer,
            handle,
            known_of,
            previous,
        } => {
            let replaced_at = replaced(writer, peer, previous, pin);
            match replaced_at {
                Some(replaced_at) if within_grace(replaced_at, now) => {
                    Attribution::VerifiedPrevious {
                        account,
                        handle: handle.clone(),
                        replaced_at,
                        known_of: known_of.clone(),
                    }
                }
                _ => Attribution::Mismatch {
                    claimed: account,
                    replaced_at,
                },
            }
        }
    }
}

/// When the account replaced the key that wrote: as this client has seen it, else by the earliest
/// of what is shown; `None` when the key never was the account's as far as is known.
fn replaced(
    writer: &str,
    current: &str,
    shown: &[Previous],
    pin: Option<&Pin>,
) -> Option<Timestamp> {
    let before = pin.and_then(|pin| pin.previous.as_ref());
    if let Some(before) = before.filter(|previous| previous.peer == writer) {
        return Some(before.replaced_at);
    }
    // The pinned key itself, where another has taken its place without being accepted: of that no
    // more is known than when it was last in use, and nothing that is shown prolongs that.
    let pinned = pin.filter(|pin| pin.peer == writer && pin.peer != current);
    let last_used = pinned.and_then(|pin| Some(pin.changed.as_ref()?.seen_at));
    last_used.or_else(|| {
        let shown = shown.iter().filter(|previous| previous.peer == writer);
        shown.map(|previous| previous.replaced_at).min()
    })
}

fn within_grace(replaced_at: Timestamp, now: Timestamp) -> bool {
    replaced_at <= now.plus(SKEW) && now.since(replaced_at) <= PREVIOUS_KEY_GRACE
}

#[cfg(test)]
mod tests;
