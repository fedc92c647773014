//! Pins: the keys of contacts as this client has verified them, so that a directory or a host
//! cannot swap the keys unnoticed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, serde::millis};
use crate::didcomm::party::KeyAgreement;
use crate::syntax::{Did, Handle, MediatorDid, Rev};

/// Most earlier handles in a pin.
pub const MAX_KNOWN_AS: usize = 16;

/// The verified key of one account, and the changes since it was pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// The account.
    pub account: Did,
    /// The handle of the account, as verified by this client.
    pub handle: Option<Handle>,
    /// Earlier handles of the account, the newest last, at most [`MAX_KNOWN_AS`]. An account that
    /// has one of them now must be accepted first, so that it is not taken for this account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_as: Vec<Handle>,
    /// The did:peer that mail is encrypted to.
    pub peer: String,
    /// The revision of the newest proof that was seen under `signing_key`.
    pub rev: Rev,
    /// The did:key that signed the proof.
    pub signing_key: String,
    /// The keys of the account's mediators, as read by this client.
    pub mediators: BTreeMap<MediatorDid, Vec<KeyAgreement>>,
    /// The previous did:peer. Its messages count for
    /// [`PREVIOUS_KEY_GRACE`](super::attribution::PREVIOUS_KEY_GRACE) after it was replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// Another did:peer that the account publishes now and that the pinned key does not vouch for:
    /// nothing is sent until it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
    /// The time at which the account was first seen.
    #[serde(with = "millis")]
    pub first_seen: Timestamp,
    /// The time at which the pinned key was last verified.
    #[serde(with = "millis")]
    pub last_seen: Timestamp,
}

impl Pin {
    /// Returns whether the account has or had a handle.
    pub fn is_known_by(&self, handle: &Handle) -> bool {
        self.handle
            .iter()
            .chain(&self.known_as)
            .any(|known| known == handle)
    }

    /// Removes a handle, whether current or earlier.
    #[must_use]
    pub fn without_handle(mut self, handle: &Handle) -> Self {
        self.handle = self.handle.filter(|known| known != handle);
        self.known_as.retain(|known| known != handle);
        self
    }

    /// Returns the newest revision that was seen under a signing key, which is a did:key.
    pub fn newest(&self, signing_key: &str) -> Option<Rev> {
        let pinned = (self.signing_key == signing_key).then_some(self.rev);
        let changed = self.changed.as_ref().filter(|changed| {
            changed.signing_key.as_ref().unwrap_or(&self.signing_key) == signing_key
        });
        pinned.max(changed.map(|changed| changed.rev))
    }
}

/// A did:peer that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// The did:peer.
    pub peer: String,
    /// The time at which it was replaced.
    #[serde(with = "millis")]
    pub replaced_at: Timestamp,
}

/// A did:peer that waits to be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// The did:peer.
    pub peer: String,
    /// The revision of the proof that shows the did:peer.
    pub rev: Rev,
    /// The did:key that signed the proof; `None` for the pinned signing key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
    /// The time at which the pinned did:peer was last seen to be the account's.
    #[serde(with = "millis")]
    pub seen_at: Timestamp,
}
