//! Stored mail: messages that were received, and messages that were sent and may have to be sent
//! again.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AccountStore;
use super::error::WalletError;
use super::file::{self, Saved};
use super::undecryptable::{self, Undecryptable};
use atcomm_proto::clock::Timestamp;

/// Time within which another message of the same sender under the same id counts as a duplicate.
/// The same plaintext is a duplicate at any time.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest file of a message, in bytes. A plaintext of the longest envelope has 3 MiB, and twice
/// that where every character is escaped.
const MAX_MESSAGE: usize = 8 << 20;

/// Most files of sent messages that are read, the newest.
pub const MAX_SENT: usize = 10_000;

/// A message that was received.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredMessage {
    /// Id of the message, chosen by its sender.
    pub id: String,
    /// The did:peer that the envelope proves to be the sender; `None` for an anonymous message.
    pub from: Option<String>,
    /// The own did:peer that the message was encrypted to.
    #[serde(rename = "reader")]
    pub recipient: String,
    /// Whether that did:peer had been replaced when the message came.
    #[serde(default, rename = "readerReplaced")]
    pub recipient_replaced: bool,
    /// When the message was unpacked.
    #[serde(with = "atcomm_proto::clock::serde::millis")]
    pub received_at: Timestamp,
    /// The plaintext as it was decrypted. It stays a text: as nested values it could grow a
    /// hundredfold, or become JSON that cannot be read again.
    pub message: String,
    /// The attribution, as it was shown.
    pub attribution: Value,
}

impl fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredMessage")
            .field("id", &self.id)
            .field("received_at", &self.received_at)
            .finish_non_exhaustive()
    }
}

impl StoredMessage {
    /// Sender and id identify a message. The id of an anonymous message proves nothing, so its
    /// plaintext identifies it.
    fn name(&self) -> String {
        match &self.from {
            Some(from) => file::name(&[from.as_bytes(), self.id.as_bytes()]),
            None => self.full_name(),
        }
    }

    /// The name with the plaintext, for a message whose place a later one of the same name has
    /// taken.
    fn full_name(&self) -> String {
        let from = self.from.as_deref().unwrap_or_default();
        file::name(&[from.as_bytes(), self.id.as_bytes(), self.message.as_bytes()])
    }
}

/// Stored mail.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredItem {
    /// A message.
    Message(Box<StoredMessage>),
    /// An envelope that cannot be unpacked.
    Undecryptable(Undecryptable),
}

impl AccountStore {
    /// Saves a message that was received. A duplicate is a message with sender, id and plaintext of
    /// a stored one, or with sender and id of one that came within [`DUPLICATE_WINDOW`] before. On disk
    /// when this returns; only then may it be acknowledged. Safe concurrently.
    pub fn save_message(&self, message: &StoredMessage) -> Result<Saved, WalletError> {
        let folder = self.mail();
        let place = |name: &str| folder.join(format!("{name}.json"));
        let (path, aside) = (place(&message.name()), place(&message.full_name()));
        let _lock = file::lock(&folder, "lock")?;
        if aside != path && aside.exists() {
            return Ok(Saved::Duplicate);
        }
        let placed = match file::read::<StoredMessage>(&path, MAX_MESSAGE) {
            Ok(None) => Saved::New,
            Ok(Some(before))
                if before.message == message.message
                    || message.received_at.since(before.received_at) < DUPLICATE_WINDOW =>
            {
                return Ok(Saved::Duplicate);
            }
            Ok(Some(before)) => {
                file::rename(&path, &place(&before.full_name()))?;
                Saved::New
            }
            Err(WalletError::Damaged { .. } | WalletError::Newer { .. }) => {
                let at = message.received_at.millis().max(0);
                let aside = folder.join(format!("{}.{at}.aside", message.name()));
                file::rename(&path, &aside)?;
                Saved::DamagedSetAside(aside)
            }
            Err(error) => return Err(error),
        };
        file::write(&self.home, &path, message, MAX_MESSAGE)?;
        Ok(placed)
    }

    /// Saves a later attribution of a stored message. Nothing is written where the message is not
    /// stored.
    pub fn reattribute(&self, message: &StoredMessage) -> Result<(), WalletError> {
        let folder = self.mail();
        let _lock = file::lock(&folder, "lock")?;
        for name in [message.name(), message.full_name()] {
            let path = folder.join(format!("{name}.json"));
            let Some(mut before) = file::read::<StoredMessage>(&path, MAX_MESSAGE)? else {
                continue;
            };
            if before.message == message.message {
                let meta = std::fs::metadata(&path).and_then(|meta| meta.modified());
                let modified = meta.map_err(|error| WalletError::Unreadable {
                    path: path.clone(),
                    error,
                })?;
                before.attribution = message.attribution.clone();
                return file::write_as_of(&self.home, &path, &before, MAX_MESSAGE, modified);
            }
        }
        Ok(())
    }

    /// Returns what was received, or the `newest` of it, in the order in which it came. Files are
    /// read one at a time as the iterator goes on; one that cannot be read is an error of its own.
    pub fn received(
        &self,
        newest: Option<usize>,
    ) -> Result<impl Iterator<Item = Result<StoredItem, WalletError>> + use<>, WalletError> {
        let opened = file::list(&self.mail())?.into_iter();
        let undecryptable = file::list(&self.undecryptable())?.into_iter();
        let mut files: Vec<(SystemTime, bool, PathBuf)> = opened
            .map(|one| (one.modified, true, one.path))
            .chain(undecryptable.map(|one| (one.modified, false, one.path)))
            .collect();
        files.sort();
        if let Some(newest) = newest {
            files.drain(..files.len().saturating_sub(newest));
        }
        let read = |(_, opened, path): (SystemTime, bool, PathBuf)| {
            let stored = if opened {
                file::read(&path, MAX_MESSAGE)
                    .map(|stored| stored.map(|stored| StoredItem::Message(Box::new(stored))))
            } else {
                undecryptable::read(&path).map(|stored| stored.map(StoredItem::Undecryptable))
            };
            // Another process has deleted the file in the meantime.
            stored.transpose()
        };
        Ok(files.into_iter().filter_map(read))
    }

    /// Saves a sent message under its id, in place of a former state. On disk when this returns.
    pub fn save_sent<T: Serialize>(&self, id: &str, sent: &T) -> Result<(), WalletError> {
        file::write(&self.home, &self.sent_path(id), sent, MAX_MESSAGE)
    }

    /// Returns all sent messages, the latest written last. Files that cannot be read are left out,
    /// so that they do not block the others.
    pub fn sent<T: DeserializeOwned>(&self) -> Result<Vec<T>, WalletError> {
        let mut files = file::list(&self.folder().join("sent"))?;
        files.sort_by_key(|one| one.modified);
        files.drain(..files.len().saturating_sub(MAX_SENT));
        let mut all = Vec::new();
        for one in files {
            match file::read::<T>(&one.path, MAX_MESSAGE) {
                // Another process has deleted the file in the meantime.
                Ok(sent) => all.extend(sent),
                Err(WalletError::Damaged { .. } | WalletError::Newer { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Deletes a sent message by its id, and returns whether there was one.
    pub fn delete_sent(&self, id: &str) -> Result<bool, WalletError> {
        file::remove(&self.sent_path(id))
    }

    fn mail(&self) -> PathBuf {
        self.folder().join("mail")
    }

    fn sent_path(&self, id: &str) -> PathBuf {
        let name = file::name(&[id.as_bytes()]);
        self.folder().join("sent").join(format!("{name}.json"))
    }
}
