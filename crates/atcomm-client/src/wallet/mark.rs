//! Marks of mail that is saved and was not shown yet.
//!
//! A mark is an empty file beside the file of the message. It is made before that file and in the
//! same folder, whose sync puts both on disk, so it costs no further one. A mark is locked by the
//! process that saved the message, until that process has shown it and removes the mark or ends: what
//! one process is about to show is not shown by another, and what a process saved without showing it
//! is shown by the next.

use std::path::{Path, PathBuf};

use super::error::WalletError;
use atcomm_net::durable::{self, Lock};

/// Ending of the name of a mark, in the place of `json`.
const ENDING: &str = "unshown";

/// A saved message that was not shown yet. Dropped, it stays so.
#[derive(Debug)]
pub struct ShowMark {
    path: PathBuf,
    _lock: Lock,
}

impl ShowMark {
    /// Makes the mark of the message that is about to be saved in `message`; `None` where another
    /// process has it.
    pub(super) fn make(message: &Path) -> Result<Option<Self>, WalletError> {
        let path = message.with_extension(ENDING);
        let lock = durable::try_lock(&path).map_err(|error| WalletError::Unwritable {
            path: path.clone(),
            error,
        })?;
        Ok(lock.map(|lock| Self { path, _lock: lock }))
    }

    /// Claims an existing mark; `None` where another process is about to show its message, or has.
    pub(super) fn claim(path: PathBuf) -> Result<Option<Self>, WalletError> {
        match durable::try_lock_existing(&path) {
            Ok(lock) => Ok(lock.map(|lock| Self { path, _lock: lock })),
            Err(error) => Err(WalletError::Unreadable { path, error }),
        }
    }

    /// Returns the file of the message.
    pub(super) fn message(&self) -> PathBuf {
        self.path.with_extension("json")
    }

    /// Records that the message was shown. Where that fails, it is shown once more.
    pub fn shown(self) {
        drop(std::fs::remove_file(&self.path));
    }
}

/// Whether a file is a mark.
pub(super) fn is_mark(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == ENDING)
}

/// Whether a message has a mark.
pub(super) fn is_marked(message: &Path) -> bool {
    message.with_extension(ENDING).exists()
}

/// Removes the mark of a message, if it has one.
pub(super) fn remove(message: &Path) {
    drop(std::fs::remove_file(message.with_extension(ENDING)));
}

/// Renames the mark of a message along with the message.
pub(super) fn rename(from: &Path, to: &Path) {
    drop(std::fs::rename(
        from.with_extension(ENDING),
        to.with_extension(ENDING),
    ));
}
