//! Mail that was saved and not shown.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::AccountStore;
use super::error::WalletError;
use super::file;
use super::mark::{ShowMark, is_mark};
use super::messages::StoredItem;

/// A message that was not shown yet, with its mark.
pub type Unshown = (Result<StoredItem, WalletError>, ShowMark);

impl AccountStore {
    /// Returns the mail that was saved and not shown, in the order in which it came, without that
    /// which another process is about to show. Files are read one at a time as the iterator goes on.
    pub fn unshown(
        &self,
    ) -> Result<impl Iterator<Item = Result<Unshown, WalletError>> + use<>, WalletError> {
        let mut marks: Vec<(SystemTime, PathBuf)> = Vec::new();
        for folder in [self.mail(), self.undecryptable()] {
            marks.extend(marks_in(&folder)?);
        }
        marks.sort();
        let store = self.clone();
        let claim = move |(_, mark): (SystemTime, PathBuf)| store.claim(mark).transpose();
        Ok(marks.into_iter().filter_map(claim))
    }

    fn claim(&self, path: PathBuf) -> Result<Option<Unshown>, WalletError> {
        let Some(mark) = ShowMark::claim(path)? else {
            return Ok(None);
        };
        match self.read_item(&mark.message()).transpose() {
            Some(item) => Ok(Some((item, mark))),
            // The message was not saved after its mark, or was deleted.
            None => {
                mark.shown();
                Ok(None)
            }
        }
    }
}

/// Returns the marks in a folder, each with the time at which its message came.
fn marks_in(folder: &Path) -> Result<Vec<(SystemTime, PathBuf)>, WalletError> {
    let mut found = Vec::new();
    for entry in file::entries(folder)? {
        let path = entry?.path();
        if is_mark(&path) {
            let message = std::fs::metadata(path.with_extension("json"));
            let modified = message.and_then(|meta| meta.modified());
            found.push((modified.unwrap_or(SystemTime::UNIX_EPOCH), path));
        }
    }
    Ok(found)
}
