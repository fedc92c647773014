//! What is remembered of the people one writes with, so that a directory or a host cannot swap
//! their keys unnoticed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, serde::millis};
use crate::didcomm::party::KeyAgreement;
use crate::syntax::{Did, Handle, MediatorDid, Rev};

/// Most handles that are remembered of one account besides its present one.
pub const MAX_KNOWN_AS: usize = 16;

/// What is remembered of one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// The account.
    pub account: Did,
    /// Its handle as this client has verified it itself.
    pub handle: Option<Handle>,
    /// Handles that led to it and do not any more, the newest last, at most [`MAX_KNOWN_AS`]:
    /// whoever has one of them now is not taken for this account, nor the other way round, until
    /// that is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_as: Vec<Handle>,
    /// The did:peer that mail is encrypted to.
    pub peer: String,
    /// Revision of the newest proof seen under `signing_key`.
    pub rev: Rev,
    /// did:key that signed it.
    pub signing_key: String,
    /// The mediators' keys as this client has read them itself.
    pub mediators: BTreeMap<MediatorDid, Vec<KeyAgreement>>,
    /// The did:peer before, and when it was replaced: mail from it counts for
    /// [`PREVIOUS_KEY_GRACE`](super::attribution::PREVIOUS_KEY_GRACE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// Another did:peer that the account publishes now, without the word of the pinned key: nothing
    /// is sent until it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
    /// When the account was first met.
    #[serde(with = "millis")]
    pub first_seen: Timestamp,
    /// When what is pinned was last verified.
    #[serde(with = "millis")]
    pub last_seen: Timestamp,
}

impl Pin {
    /// Whether the account is, or was, known by a handle.
    pub fn is_known_by(&self, handle: &Handle) -> bool {
        self.handle
            .iter()
            .chain(&self.known_as)
            .any(|known| known == handle)
    }

    /// Without a handle, in whatever way it was known by it.
    #[must_use]
    pub fn without_handle(mut self, handle: &Handle) -> Self {
        self.handle = self.handle.filter(|known| known != handle);
        self.known_as.retain(|known| known != handle);
        self
    }

    /// The newest revision that was seen under a signing key, which is a did:key.
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
    /// When it was replaced.
    #[serde(with = "millis")]
    pub replaced_at: Timestamp,
}

/// A did:peer that waits to be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// The did:peer.
    pub peer: String,
    /// Revision of the proof that shows it.
    pub rev: Rev,
    /// did:key that signed it; absent: the pinned one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
    /// Since when the pinned one is not known to be the account's: when it was last seen.
    #[serde(with = "millis")]
    pub seen_at: Timestamp,
}
