//! The attribution of a message to an account: a pure function of the claim in the message, the
//! proof in its envelope, the state of the claimed account, its pin and the clock.
//!
//! An envelope proves the did:peer of its sender, and the message claims an account. The account's
//! key package connects the two, or does not. Only a message that is [`Attribution::Verified`] or
//! [`Attribution::VerifiedPrevious`] may be shown under the account's handle, and a lookup that
//! fails leads to neither.
//!
//! Source: the binding published at didcomm.at, "sender attribution", as narrowed in
//! `docs/client-guide.md`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pin::{Pin, Previous};
use crate::clock::Timestamp;
use crate::syntax::{Did, Handle};

/// Time for which a replaced key still counts as its account's, because a message may have been on
/// its way (the binding).
pub const PREVIOUS_KEY_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest time by which a replacement may lie in the future, since clocks differ.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// The claims of a message about its sender and recipient, and the proof of its envelope.
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
    /// Returns the account to look up; `None` if the attribution depends on no account.
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

/// The state of the account that a message claims, as this client has verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountState {
    /// The account publishes a key package.
    Enrolled {
        /// The did:peer in the key package.
        peer: String,
        /// The handle of the account, verified in both directions.
        handle: Option<Handle>,
        /// Another account that this client knows by this handle.
        known_of: Option<Did>,
        /// The did:peers that were replaced, in any order; each with the time until which a proof
        /// shows it to have been the account's.
        previous: Vec<Previous>,
    },
    /// The account has no key package, which is proven.
    Removed,
    /// The lookup of the account has no verified result.
    Unknown(UnverifiedReason),
}

/// Reasons for which a claim is neither confirmed nor refuted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum UnverifiedReason {
    /// The claim is not the DID of an account.
    #[error("what it claims is not the DID of an account")]
    NotAnAccount,
    /// None of the servers that know the account answers.
    #[error("the account cannot be looked up now")]
    Unreachable,
    /// The account does not exist.
    #[error("there is no such account")]
    NoAccount,
    /// The account is deactivated, suspended, taken down or deleted.
    #[error("the account is not active")]
    Inactive,
    /// The answers about the account are not proven.
    #[error("what its servers or the directory show of it is not proven")]
    Unproven,
    /// The proven state is older than one that this client has seen.
    #[error("only an older state of it is shown than was seen before")]
    RolledBack,
    /// The record is not a valid key package.
    #[error("its key package is not valid")]
    Invalid,
}

impl UnverifiedReason {
    /// Returns whether a later lookup may have a result.
    pub fn may_pass(self) -> bool {
        self != Self::NotAnAccount
    }
}

/// The verified answer to whether a message is from the account that it claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "outcome",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Attribution {
    /// The sender has the key that the account publishes.
    Verified {
        /// The account.
        account: Did,
        /// The handle of the account.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<Handle>,
        /// Whether the key differs from the pinned key and was not accepted. The account publishes
        /// the key, but nothing shows that the person behind the account is the same.
        unaccepted: bool,
        /// Another account that this client knows by this handle and that may be taken for this
        /// one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        known_of: Option<Did>,
    },
    /// The sender has a key that the account replaced at most [`PREVIOUS_KEY_GRACE`] ago.
    VerifiedPrevious {
        /// The account.
        account: Did,
        /// The handle of the account.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<Handle>,
        /// The time at which the key was replaced, or until which a proof shows it to have been the
        /// account's.
        #[serde(with = "crate::clock::serde::rfc3339")]
        replaced_at: Timestamp,
        /// Another account that this client knows by this handle and that may be taken for this
        /// one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        known_of: Option<Did>,
    },
    /// The sender has a key that the account does not publish, so the claim is taken for false: the
    /// message is shown without a handle and with a warning.
    Mismatch {
        /// The claimed account.
        claimed: Did,
        /// The time at which the account replaced this key, if the key was once the account's and
        /// was replaced longer ago than [`PREVIOUS_KEY_GRACE`].
        #[serde(
            default,
            with = "crate::clock::serde::rfc3339_option",
            skip_serializing_if = "Option::is_none"
        )]
        replaced_at: Option<Timestamp>,
    },
    /// The message is for another account, which publishes the recipient's did:peer as its own.
    Misdirected {
        /// The account that the message says it is for, as written.
        meant: String,
    },
    /// The claimed account has no key package, which is proven.
    Revoked {
        /// The claimed account.
        claimed: Did,
    },
    /// The message claims no account; the did:peer of its sender is proven.
    Unattributed,
    /// The claim is neither confirmed nor refuted: the message is shown as from an unknown sender
    /// and attributed again later.
    Unverified {
        /// The claimed account, as written.
        claimed: String,
        /// The reason.
        reason: UnverifiedReason,
        /// Whether the sender has the key that is pinned for the claimed account.
        pinned: bool,
    },
    /// The envelope proves no sender.
    Anonymous,
}

impl Attribution {
    /// Returns the account under whose name the message may be shown.
    pub fn account(&self) -> Option<&Did> {
        match self {
            Self::Verified { account, .. } | Self::VerifiedPrevious { account, .. } => {
                Some(account)
            }
            _ => None,
        }
    }

    /// Returns whether the attribution speaks against the sender. The caller must then look up the
    /// account again, since a key that was just rotated must not look like fraud.
    pub fn is_adverse(&self) -> bool {
        matches!(self, Self::Mismatch { .. } | Self::Revoked { .. })
    }
}

/// Attributes a message. `pin` is the pin of the claimed account, if this client has one.
///
/// The first rule that applies decides: the message is for another account, its envelope proves no
/// sender, it claims no account, its claim is not the DID of an account; else the state of the
/// claimed account.
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
    let Some(peer) = claim.sender_peer.as_deref() else {
        return Attribution::Anonymous;
    };
    let Some(claimed) = claim.sender_did.as_deref() else {
        return Attribution::Unattributed;
    };
    let Ok(account) = Did::parse(claimed) else {
        return Attribution::Unverified {
            claimed: claimed.to_owned(),
            reason: UnverifiedReason::NotAnAccount,
            pinned: false,
        };
    };
    let pin = pin.filter(|pin| pin.account == account);
    by_state(account, peer, state, pin, now)
}

/// Attributes a message of the did:peer `peer` by the state of the claimed account: unknown, without
/// a key package, or enrolled with this did:peer, with one that replaced it, or with another.
fn by_state(
    account: Did,
    peer: &str,
    state: &AccountState,
    pin: Option<&Pin>,
    now: Timestamp,
) -> Attribution {
    let (published, handle, known_of, previous) = match state {
        AccountState::Unknown(reason) => {
            return Attribution::Unverified {
                claimed: account.into(),
                reason: *reason,
                pinned: pin.is_some_and(|pin| pin.peer == peer),
            };
        }
        AccountState::Removed => return Attribution::Revoked { claimed: account },
        AccountState::Enrolled {
            peer,
            handle,
            known_of,
            previous,
        } => (peer, handle, known_of, previous),
    };
    if published == peer {
        return Attribution::Verified {
            account,
            handle: handle.clone(),
            unaccepted: pin.is_some_and(|pin| pin.peer != *published),
            known_of: known_of.clone(),
        };
    }
    match replaced_at(peer, published, previous, pin) {
        Some(replaced_at) if is_within_grace(replaced_at, now) => Attribution::VerifiedPrevious {
            account,
            handle: handle.clone(),
            replaced_at,
            known_of: known_of.clone(),
        },
        replaced_at => Attribution::Mismatch {
            claimed: account,
            replaced_at,
        },
    }
}

/// Returns the time at which the account replaced the did:peer `peer` of the sender; `None` if
/// nothing shows that it ever was the account's. The observations of this client in the pin go
/// before the proofs in `proven`, of which the earliest counts.
fn replaced_at(
    peer: &str,
    published: &str,
    proven: &[Previous],
    pin: Option<&Pin>,
) -> Option<Timestamp> {
    let before = pin.and_then(|pin| pin.previous.as_ref());
    if let Some(before) = before.filter(|previous| previous.peer == peer) {
        return Some(before.replaced_at);
    }
    // If the pinned key itself was replaced by one that was not accepted, only the time at which it
    // was last seen in use is certain, and no proof prolongs that.
    let pinned = pin.filter(|pin| pin.peer == peer && pin.peer != published);
    let last_used = pinned.and_then(|pin| Some(pin.changed.as_ref()?.seen_at));
    last_used.or_else(|| {
        let proven = proven.iter().filter(|previous| previous.peer == peer);
        proven.map(|previous| previous.replaced_at).min()
    })
}

fn is_within_grace(replaced_at: Timestamp, now: Timestamp) -> bool {
    replaced_at <= now.plus(SKEW) && now.since(replaced_at) <= PREVIOUS_KEY_GRACE
}

#[cfg(test)]
mod tests;
