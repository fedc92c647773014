//! Stored mail: messages that were received, and messages that were sent and may have to be sent
//! again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AccountStore;
use super::error::WalletError;
use super::file::{self, Saved};
use super::mark::{self, ShowMark};
use super::undecryptable::{self, Undecryptable};
use super::unproven;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::verify::attribution::Attribution;

/// Time within which another message of the same sender under the same id counts as a duplicate.
/// The same plaintext is a duplicate at any time.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest file of a message, in bytes. A plaintext of the longest envelope has 3 MiB, and twice
/// that where every character is escaped.
const MAX_MESSAGE: usize = 8 << 20;

/// Longest plaintext of a message that is no readable direct message, in bytes: the beginning of a
/// longer one is kept. A direct message has 10,000 bytes of text.
pub const MAX_UNREADABLE: usize = 256 * 1024;

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
    /// Set where `message` is only the beginning of the plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// The attribution, as it was shown.
    pub attribution: Value,
}

/// The whole of a plaintext that is stored cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Its length in bytes.
    pub len: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, sha256 } = self;
        write!(
            f,
            "its beginning is kept; it has {len} bytes, SHA-256 {sha256}"
        )
    }
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
        let parts = [from.as_bytes(), self.id.as_bytes(), self.message.as_bytes()];
        match &self.cut {
            None => file::name(&parts),
            Some(cut) => file::name(&[&parts[..], &[cut.sha256.as_bytes()]].concat()),
        }
    }

    /// Whether another one has the same plaintext.
    fn is_same(&self, other: &Self) -> bool {
        self.message == other.message && self.cut == other.cut
    }

    /// Cuts a plaintext that is longer than [`MAX_UNREADABLE`].
    pub(crate) fn cut(&mut self) {
        if self.message.len() <= MAX_UNREADABLE {
            return;
        }
        self.cut = Some(Cut {
            len: self.message.len() as u64,
            sha256: file::hash(self.message.as_bytes()),
        });
        let end = self.message.floor_char_boundary(MAX_UNREADABLE);
        self.message.truncate(end);
    }

    /// Whether nothing proves which account the message is from: neither is that verified, nor was it
    /// written with the key of a contact.
    fn is_unproven(&self) -> bool {
        let attribution = serde_json::from_value::<Attribution>(self.attribution.clone());
        !attribution.is_ok_and(|attribution| {
            attribution.account().is_some()
                || matches!(attribution, Attribution::Unverified { pinned: true, .. })
        })
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

/// A file of received mail, read.
type ReceivedFile = (Result<StoredItem, WalletError>, PathBuf);

impl AccountStore {
    /// Saves a message that was received and shown; see [`AccountStore::save_unshown`].
    pub fn save_message(&self, message: &StoredMessage) -> Result<Saved, WalletError> {
        let (saved, mark) = self.save_unshown(message)?;
        if let Some(mark) = mark {
            mark.shown();
        }
        Ok(saved)
    }

    /// Saves a message that was received, with the mark that it is to be shown. A duplicate, which
    /// has no mark, is a message with sender, id and plaintext of a stored one, or with sender and
    /// id of one that came within [`DUPLICATE_WINDOW`] before. On disk when this returns; only then
    /// may it be acknowledged. Safe concurrently.
    pub fn save_unshown(
        &self,
        message: &StoredMessage,
    ) -> Result<(Saved, Option<ShowMark>), WalletError> {
        let folder = self.mail();
        let place = |name: &str| folder.join(format!("{name}.json"));
        let (path, aside) = (place(&message.name()), place(&message.full_name()));
        let _lock = file::lock(&folder, "lock")?;
        if aside != path && aside.exists() {
            return Ok((Saved::Duplicate, None));
        }
        let placed = match file::read::<StoredMessage>(&path, MAX_MESSAGE) {
            Ok(None) => Saved::New,
            Ok(Some(before))
                if before.is_same(message)
                    || message.received_at.since(before.received_at) < DUPLICATE_WINDOW =>
            {
                return Ok((Saved::Duplicate, None));
            }
            Ok(Some(before)) => {
                let aside = place(&before.full_name());
                file::rename(&path, &aside)?;
                mark::rename(&path, &aside);
                unproven::rename(&path, &aside, before.from.as_deref());
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
        let mark = ShowMark::make(&path)?;
        let from = message.from.as_deref();
        let marked = if message.is_unproven() {
            unproven::mark(&path, from)
        } else {
            Ok(())
        };
        match marked.and_then(|()| file::write(&self.home, &path, message, MAX_MESSAGE)) {
            Ok(()) => Ok((placed, mark)),
            Err(error) => {
                mark::remove(&path);
                unproven::unmark(&path, from);
                Err(error)
            }
        }
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
            if before.is_same(message) {
                let meta = std::fs::metadata(&path).and_then(|meta| meta.modified());
                let modified = meta.map_err(|error| WalletError::Unreadable {
                    path: path.clone(),
                    error,
                })?;
                before.attribution = message.attribution.clone();
                file::write_as_of(&self.home, &path, &before, MAX_MESSAGE, modified)?;
                if !before.is_unproven() {
                    unproven::unmark(&path, before.from.as_deref());
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns what [`AccountStore::received`] does, each with its file.
    pub(crate) fn received_files(
        &self,
        newest: Option<usize>,
    ) -> Result<impl Iterator<Item = ReceivedFile> + use<>, WalletError> {
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
        let store = self.clone();
        let read = move |(_, _, path): (SystemTime, bool, PathBuf)| {
            // Another process may have deleted the file in the meantime.
            let item = store.read_item(&path).transpose()?;
            Some((item, path))
        };
        Ok(files.into_iter().filter_map(read))
    }

    /// Returns what was received, or the `newest` of it, in the order in which it came. Files are
    /// read one at a time as the iterator goes on; one that cannot be read is an error of its own.
    pub fn received(
        &self,
        newest: Option<usize>,
    ) -> Result<impl Iterator<Item = Result<StoredItem, WalletError>> + use<>, WalletError> {
        Ok(self.received_files(newest)?.map(|(item, _)| item))
    }

    /// Reads a file of received mail, of whichever kind; `None` where there is none.
    pub(super) fn read_item(&self, path: &Path) -> Result<Option<StoredItem>, WalletError> {
        if path.starts_with(self.mail()) {
            let stored = file::read(path, MAX_MESSAGE)?;
            Ok(stored.map(|stored| StoredItem::Message(Box::new(stored))))
        } else {
            Ok(undecryptable::read(path)?.map(StoredItem::Undecryptable))
        }
    }

    /// Saves a sent message under its id, whatever is saved of it. On disk when this returns. A
    /// change of a former state is made by [`AccountStore::change_sent`].
    pub fn save_sent<T: Serialize>(&self, id: &str, sent: &T) -> Result<(), WalletError> {
        file::write(&self.home, &self.sent_path(id), sent, MAX_MESSAGE)
    }

    /// Changes a sent message: `change` gets its present state, `None` where it is not saved or cannot
    /// be read, and returns the next one, `None` for deleting it. No other process changes sent
    /// messages in between. On disk when this returns.
    pub fn change_sent<T, R>(
        &self,
        id: &str,
        change: impl FnOnce(Option<T>) -> (Option<T>, R),
    ) -> Result<R, WalletError>
    where
        T: Serialize + DeserializeOwned + Clone + PartialEq,
    {
        let _lock = file::lock(&self.folder(), "sent.lock")?;
        let before = match file::read::<T>(&self.sent_path(id), MAX_MESSAGE) {
            Ok(before) => before,
            Err(WalletError::Damaged { .. } | WalletError::Newer { .. }) => None,
            Err(error) => return Err(error),
        };
        let (next, result) = change(before.clone());
        match next {
            Some(next) if before.as_ref() == Some(&next) => {}
            Some(next) => self.save_sent(id, &next)?,
            None => {
                self.delete_sent(id)?;
            }
        }
        Ok(result)
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

    /// Records that the message of a file was shown.
    pub(crate) fn mark_shown(&self, file: &Path) {
        mark::remove(file);
    }

    pub(super) fn mail(&self) -> PathBuf {
        self.folder().join("mail")
    }

    fn sent_path(&self, id: &str) -> PathBuf {
        let name = file::name(&[id.as_bytes()]);
        self.folder().join("sent").join(format!("{name}.json"))
    }
}
