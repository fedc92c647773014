//! Mail that is kept: what was received, and what was sent and may have to be sent again.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Drawer, WalletError, file};
use crate::clock::Timestamp;

/// For how long the same message by the same writer is taken for a copy (attribution rules of the
/// binding's implementation here).
pub const DUPLICATE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest message kept, in bytes of its file; a mediator takes none that comes near.
const MAX_MESSAGE: usize = 8 << 20;

/// Most messages that are read at once, the newest.
pub const MAX_LISTED: usize = 10_000;

/// A message that was received.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Its id, as its writer chose it.
    pub id: String,
    /// The did:peer that proved to have written it; none where it was anonymous.
    pub from: Option<String>,
    /// The did:peer of ours that it was encrypted to.
    pub reader: String,
    /// When it was opened here.
    #[serde(with = "crate::client::pin::millis")]
    pub received_at: Timestamp,
    /// The message as it was decrypted.
    pub message: Value,
    /// What was found out about its writer, as it was shown.
    pub attribution: Value,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("id", &self.id)
            .field("received_at", &self.received_at)
            .finish_non_exhaustive()
    }
}

impl Kept {
    /// Writer and id say which message it is. Nobody stands for the id of an anonymous one, so it
    /// is its words that do.
    fn name(&self) -> String {
        match &self.from {
            Some(from) => file::name(&[from.as_bytes(), self.id.as_bytes()]),
            None => {
                let message = self.message.to_string();
                file::name(&[b"", self.id.as_bytes(), message.as_bytes()])
            }
        }
    }
}

impl Drawer {
    /// Keeps a message that was received. `false`: the same writer's message of that id came within
    /// [`DUPLICATE`] before this one, and stays as it is. On disk when it returns; only then may a
    /// mediator be told. Safe concurrently.
    pub fn keep_message(&self, message: &Kept) -> Result<bool, WalletError> {
        let path = self.mail().join(format!("{}.json", message.name()));
        let _lock = file::lock(&self.mail(), "lock")?;
        if let Some(known) = file::read::<Kept>(&path, MAX_MESSAGE)? {
            if message.received_at.since(known.received_at) < DUPLICATE {
                return Ok(false);
            }
            let since = known.received_at.millis().max(0);
            let aside = format!("{}.{since}.json", message.name());
            file::rename(&path, &self.mail().join(aside))?;
        }
        file::write(&self.home, &path, message, MAX_MESSAGE)?;
        Ok(true)
    }

    /// The newest [`MAX_LISTED`] messages, the newest last.
    pub fn messages(&self) -> Result<Vec<Kept>, WalletError> {
        self.newest(MAX_LISTED)
    }

    /// The newest messages, so many, the newest last.
    pub fn newest(&self, count: usize) -> Result<Vec<Kept>, WalletError> {
        let mut messages: Vec<Kept> = self.read_all(self.mail(), count)?;
        messages.sort_by_key(|message| message.received_at);
        Ok(messages)
    }

    /// Keeps what was sent under its id, in place of what was kept under it. On disk when it
    /// returns.
    pub fn keep_sent<T: Serialize>(&self, id: &str, sent: &T) -> Result<(), WalletError> {
        file::write(&self.home, &self.sent_path(id), sent, MAX_MESSAGE)
    }

    /// Everything that was sent and not forgotten, the latest written last.
    pub fn sent<T: DeserializeOwned>(&self) -> Result<Vec<T>, WalletError> {
        self.read_all(self.folder().join("sent"), MAX_LISTED)
    }

    /// Forgets what was sent under an id; whether it was known.
    pub fn forget_sent(&self, id: &str) -> Result<bool, WalletError> {
        file::remove(&self.sent_path(id))
    }

    fn mail(&self) -> PathBuf {
        self.folder().join("mail")
    }

    fn sent_path(&self, id: &str) -> PathBuf {
        let name = file::name(&[id.as_bytes()]);
        self.folder().join("sent").join(format!("{name}.json"))
    }

    /// The newest `count` files of a directory in the order of their writing.
    fn read_all<T: DeserializeOwned>(
        &self,
        folder: PathBuf,
        count: usize,
    ) -> Result<Vec<T>, WalletError> {
        let mut files = file::list(&folder)?;
        files.sort_by_key(|(_, modified)| *modified);
        files.drain(..files.len().saturating_sub(count));
        let mut all = Vec::with_capacity(files.len());
        for (path, _) in files {
            // Forgotten by another process since: not there.
            all.extend(file::read::<T>(&path, MAX_MESSAGE)?);
        }
        Ok(all)
    }
}
