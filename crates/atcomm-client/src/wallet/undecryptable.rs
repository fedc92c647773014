//! Envelopes that cannot be unpacked, stored as they came.
//!
//! Any sender can send such envelopes, and no message of them reaches the user. So this is the one
//! part of the wallet with a bound: the oldest envelopes are deleted first.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::AccountStore;
use super::error::WalletError;
use super::file::{self, Saved};
use super::mark::{self, ShowMark};
use atcomm_proto::clock::Timestamp;

/// Most envelopes: more than come by mishap, as after a key was lost.
const MAX_COUNT: usize = 500;

/// Most bytes of all files together: a small part of any disk, and several times the longest file.
const MAX_TOTAL: u64 = 64 << 20;

/// Longest file, in bytes: an answer of a mediator, of at most 16 MiB, in base64.
const MAX_FILE: usize = 24 << 20;

/// Longest reason that is stored, in bytes.
const MAX_REASON: usize = 512;

/// An envelope that cannot be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Undecryptable {
    /// SHA-256 of the envelope, in hexadecimal; it is the same whatever id a mediator gives it.
    pub id: String,
    /// The own did:peer in whose queue it was.
    #[serde(rename = "reader")]
    pub recipient: String,
    /// When it came.
    #[serde(with = "atcomm_proto::clock::serde::millis")]
    pub received_at: Timestamp,
    /// Why it cannot be unpacked.
    pub reason: String,
    /// Its bytes in base64.
    envelope: String,
}

impl Undecryptable {
    /// Returns the envelope that came in the queue of `recipient`.
    pub fn new(envelope: &[u8], recipient: &str, received_at: Timestamp, reason: &str) -> Self {
        let end = reason.floor_char_boundary(MAX_REASON);
        Self {
            id: file::hash(envelope),
            recipient: recipient.to_owned(),
            received_at,
            reason: reason.get(..end).unwrap_or_default().to_owned(),
            envelope: BASE64.encode(envelope),
        }
    }

    /// Returns the bytes of the envelope; `None` where they are damaged.
    pub fn envelope(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.envelope.as_bytes()).ok()
    }
}

impl AccountStore {
    /// Saves an envelope that cannot be unpacked and was shown; see
    /// [`AccountStore::save_undecryptable_unshown`].
    pub fn save_undecryptable(&self, undecryptable: &Undecryptable) -> Result<Saved, WalletError> {
        let (saved, mark) = self.save_undecryptable_unshown(undecryptable)?;
        if let Some(mark) = mark {
            mark.shown();
        }
        Ok(saved)
    }

    /// Saves an envelope that cannot be unpacked, with the mark that it is to be shown, and deletes
    /// the oldest where there are too many. On disk when this returns; only then may it be
    /// acknowledged. Safe concurrently.
    pub fn save_undecryptable_unshown(
        &self,
        undecryptable: &Undecryptable,
    ) -> Result<(Saved, Option<ShowMark>), WalletError> {
        let folder = self.undecryptable();
        let path = folder.join(format!("{}.json", undecryptable.id));
        let _lock = file::lock(&folder, "lock")?;
        if path.exists() {
            return Ok((Saved::Duplicate, None));
        }
        let mark = ShowMark::make(&path)?;
        if let Err(error) = file::write(&self.home, &path, undecryptable, MAX_FILE) {
            mark::remove(&path);
            return Err(error);
        }
        let mut files = file::list(&folder)?;
        files.sort_by_key(|one| one.modified);
        let (mut count, mut total) = (0, 0);
        for one in files.iter().rev() {
            count += 1;
            total += one.len;
            if (count > MAX_COUNT || total > MAX_TOTAL) && one.path != path {
                file::remove(&one.path)?;
                mark::remove(&one.path);
            }
        }
        Ok((Saved::New, mark))
    }

    pub(super) fn undecryptable(&self) -> PathBuf {
        self.folder().join("unopened")
    }
}

/// Reads an envelope; `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<Undecryptable>, WalletError> {
    file::read(path, MAX_FILE)
}
