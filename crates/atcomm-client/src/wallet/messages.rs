//! Mail that is kept: what was received, and what was sent and may have to be sent again.

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

/// For how long other words by the same writer under the same id are taken for a copy; the same
/// words are one for ever.
pub const DUPLICATE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest message kept, in bytes of its file. A plaintext of the longest envelope that is opened
/// has 3 MiB, and twice that where every character of it is escaped.
const MAX_MESSAGE: usize = 8 << 20;

/// Most files of what was sent that are read, the newest.
pub const MAX_SENT: usize = 10_000;

/// A message that was received.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredMessage {
    /// Its id, as its writer chose it.
    pub id: String,
    /// The did:peer that proved to have written it; none where it was anonymous.
    pub from: Option<String>,
    /// The did:peer of ours that it was encrypted to.
    #[serde(rename = "reader")]
    pub recipient: String,
    /// Whether that one had been replaced when it came.
    #[serde(default, rename = "readerReplaced")]
    pub recipient_replaced: bool,
    /// When it was opened here.
    #[serde(with = "atcomm_proto::clock::serde::millis")]
    pub received_at: Timestamp,
    /// The plaintext as it was decrypted. It stays a text: as nested values it could grow a
    /// hundredfold, or become something that cannot be read again.
    pub message: String,
    /// What was found out about its writer, as it was shown.
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
    /// Writer and id say which message it is. Nobody stands for the id of an anonymous one, so it
    /// is its words that do.
    fn name(&self) -> String {
        match &self.from {
            Some(from) => file::name(&[from.as_bytes(), self.id.as_bytes()]),
            None => self.full_name(),
        }
    }

    /// With its words: of a message whose place a later one of the same name has taken.
    fn full_name(&self) -> String {
        let from = self.from.as_deref().unwrap_or_default();
        file::name(&[from.as_bytes(), self.id.as_bytes(), self.message.as_bytes()])
    }
}

/// Something that was received.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredItem {
    /// A message.
    Message(Box<StoredMessage>),
    /// An envelope that could not be opened.
    Undecryptable(Undecryptable),
}

impl AccountStore {
    /// Keeps a message that was received. A copy is what has writer, id and words of one that is
    /// kept, or writer and id of one that came within [`DUPLICATE`] before it. On disk when it
    /// returns; only then may a mediator be told. Safe concurrently.
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
            Ok(Some(known))
                if known.message == message.message
                    || message.received_at.since(known.received_at) < DUPLICATE =>
            {
                return Ok(Saved::Duplicate);
            }
            Ok(Some(known)) => {
                file::rename(&path, &place(&known.full_name()))?;
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

    /// Keeps what a later look has found out about the writer of a message that is kept. Nothing is
    /// written where it is not there.
    pub fn reattribute(&self, message: &StoredMessage) -> Result<(), WalletError> {
        let folder = self.mail();
        let _lock = file::lock(&folder, "lock")?;
        for name in [message.name(), message.full_name()] {
            let path = folder.join(format!("{name}.json"));
            let Some(mut known) = file::read::<StoredMessage>(&path, MAX_MESSAGE)? else {
                continue;
            };
            if known.message == message.message {
                let meta = std::fs::metadata(&path).and_then(|meta| meta.modified());
                let modified = meta.map_err(|error| WalletError::Unreadable {
                    path: path.clone(),
                    error,
                })?;
                known.attribution = message.attribution.clone();
                return file::write_as_of(&self.home, &path, &known, MAX_MESSAGE, modified);
            }
        }
        Ok(())
    }

    /// What was received, in the order in which it came, or so many of the newest of it. Files are
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
                    .map(|kept| kept.map(|kept| StoredItem::Message(Box::new(kept))))
            } else {
                undecryptable::read(&path).map(|kept| kept.map(StoredItem::Undecryptable))
            };
            // Forgotten by another process since: not there.
            stored.transpose()
        };
        Ok(files.into_iter().filter_map(read))
    }

    /// Keeps what was sent under its id, in place of what was kept under it. On disk when it
    /// returns.
    pub fn save_sent<T: Serialize>(&self, id: &str, sent: &T) -> Result<(), WalletError> {
        file::write(&self.home, &self.sent_path(id), sent, MAX_MESSAGE)
    }

    /// Everything that was sent and not forgotten, the latest written last. What cannot be read is
    /// left out: it stops nothing else.
    pub fn sent<T: DeserializeOwned>(&self) -> Result<Vec<T>, WalletError> {
        let mut files = file::list(&self.folder().join("sent"))?;
        files.sort_by_key(|one| one.modified);
        files.drain(..files.len().saturating_sub(MAX_SENT));
        let mut all = Vec::new();
        for one in files {
            match file::read::<T>(&one.path, MAX_MESSAGE) {
                // Forgotten by another process since: not there.
                Ok(sent) => all.extend(sent),
                Err(WalletError::Damaged { .. } | WalletError::Newer { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Forgets what was sent under an id; whether it was known.
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
