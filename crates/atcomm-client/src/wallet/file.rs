//! Files of the wallet: JSON with a version, private, read up to a limit, written by `durable`.
//!
//! A new text is staged below `tmp`, where `sweep` finds what killed processes left.

use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::error::{Damage, WalletError};
use atcomm_net::durable::{self, Lock, Mode, ReadError, Staged};

/// Version of all files.
const VERSION: u64 = 1;

/// Directory of files that are being written.
const TMP: &str = "tmp";

/// Timeout for a lock of another process, which reads and writes a few files under it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval of asking for a lock.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Most entries of one directory that are read.
pub(super) const MAX_ENTRIES: usize = 1_000_000;

/// The content of every file.
#[derive(Serialize)]
struct Written<'a, T> {
    version: u64,
    content: &'a T,
}

#[derive(Deserialize)]
struct Read<T> {
    content: T,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

/// Results of saving received mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// The mail was saved.
    New,
    /// The mail was saved. The file in its place cannot be read, and was renamed to this path.
    DamagedSetAside(PathBuf),
    /// The mail is stored already, and stays as it is.
    Duplicate,
}

/// A data file of a directory.
pub(super) struct Listed {
    pub(super) path: PathBuf,
    /// When the file was written.
    pub(super) modified: SystemTime,
    /// Length in bytes.
    pub(super) len: u64,
}

/// Returns the SHA-256 of some bytes, in hexadecimal.
pub(super) fn hash(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Returns the name of the file that these texts identify. Any texts make a name, and no two make
/// the same.
pub(super) fn name(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

/// Whether a file name is one of the wallet's: 64 hexadecimal digits, perhaps a number, and
/// `.json`.
fn is_data(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".json") else {
        return false;
    };
    let (hash, number) = stem.split_once('.').unwrap_or((stem, "0"));
    let is_hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    hash.len() == 64
        && hash.bytes().all(is_hex)
        && !number.is_empty()
        && number.bytes().all(|c| c.is_ascii_digit())
}

/// Reads a file of at most `cap` bytes; `None` where there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path, cap: usize) -> Result<Option<T>, WalletError> {
    let unreadable = |error| WalletError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let damaged = |reason| WalletError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let text = durable::read_private(path, cap).map_err(|error| match error {
        ReadError::Exposed => WalletError::Exposed {
            path: path.to_owned(),
        },
        ReadError::TooLong(_) => damaged(Damage::TooLong(error)),
        ReadError::Io(error) => unreadable(error),
    })?;
    let Some(text) = text else {
        return Ok(None);
    };
    // The content is not repeated in the error: it may be a secret.
    let at = |error: serde_json::Error| {
        damaged(Damage::Json {
            line: error.line(),
            column: error.column(),
        })
    };
    let Version { version } = serde_json::from_slice(&text).map_err(at)?;
    if version != VERSION {
        return Err(WalletError::Newer {
            path: path.to_owned(),
            version,
        });
    }
    let Read { content } = serde_json::from_slice(&text).map_err(at)?;
    Ok(Some(content))
}

/// Writes a file in one step; it is on disk when this returns. Safe concurrently: the content of
/// one writer is there, whole.
pub(super) fn write<T: Serialize>(
    home: &Path,
    path: &Path,
    content: &T,
    cap: usize,
) -> Result<(), WalletError> {
    // The time is set here: files are ordered by it, and the system's own stamp is coarse.
    write_as_of(home, path, content, cap, SystemTime::now())
}

/// Writes a file with another time of writing, so that a file that was changed keeps its place.
pub(super) fn write_as_of<T: Serialize>(
    home: &Path,
    path: &Path,
    content: &T,
    cap: usize,
    modified: SystemTime,
) -> Result<(), WalletError> {
    let unwritable = |error| WalletError::Unwritable {
        path: path.to_owned(),
        error,
    };
    let mut text = Zeroizing::new(Vec::with_capacity(16 * 1024));
    let written = Written {
        version: VERSION,
        content,
    };
    serde_json::to_writer_pretty(&mut *text, &written)
        .map_err(io::Error::from)
        .map_err(unwritable)?;
    text.push(b'\n');
    if text.len() > cap {
        return Err(WalletError::TooLong {
            path: path.to_owned(),
            cap,
        });
    }
    make_folder(path.parent().unwrap_or(home))?;
    let tmp = home.join(TMP);
    make_folder(&tmp)?;
    Staged::new(&tmp, &text, Mode::Private)
        .and_then(|staged| staged.with_modified(modified))
        .and_then(|staged| staged.replace(path))
        .map_err(unwritable)
}

/// Removes a file, and returns whether there was one. On disk when this returns.
pub(super) fn remove(path: &Path) -> Result<bool, WalletError> {
    durable::remove(path).map_err(|error| WalletError::Unwritable {
        path: path.to_owned(),
        error,
    })
}

/// Renames a file. On disk when this returns.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), WalletError> {
    durable::rename(from, to).map_err(|error| WalletError::Unwritable {
        path: to.to_owned(),
        error,
    })
}

/// Creates a directory and those above it, for this user only, each on disk before anything is put
/// into it.
pub(super) fn make_folder(path: &Path) -> Result<(), WalletError> {
    durable::create_dir_all(path).map_err(|failed| WalletError::Unwritable {
        path: failed.path,
        error: failed.error,
    })
}

/// Returns the entries of a directory, at most [`MAX_ENTRIES`], unordered; none where there is no
/// directory.
pub(super) fn entries(
    folder: &Path,
) -> Result<impl Iterator<Item = Result<DirEntry, WalletError>>, WalletError> {
    let unreadable = |error| WalletError::Unreadable {
        path: folder.to_owned(),
        error,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(unreadable(error)),
    };
    let entries = entries.into_iter().flatten().take(MAX_ENTRIES);
    Ok(entries.map(move |entry| entry.map_err(unreadable)))
}

/// Lists the data files of a directory, unordered; none where there is no directory.
pub(super) fn list(folder: &Path) -> Result<Vec<Listed>, WalletError> {
    let mut found = Vec::new();
    for entry in entries(folder)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(is_data) {
            continue;
        }
        let meta = entry
            .metadata()
            .and_then(|meta| Ok((meta.modified()?, meta.len())));
        // Another process has removed the file in the meantime.
        if let Ok((modified, len)) = meta {
            found.push(Listed {
                path: entry.path(),
                modified,
                len,
            });
        }
    }
    Ok(found)
}

/// Removes what killed processes left below `tmp`.
pub(super) fn sweep(home: &Path) {
    durable::remove_abandoned(&home.join(TMP));
}

/// Takes the lock of a directory, and waits for a process that holds it.
pub(super) fn lock(folder: &Path, name: &str) -> Result<Lock, WalletError> {
    let start = Instant::now();
    loop {
        if let Some(lock) = try_lock(folder, name)? {
            return Ok(lock);
        }
        if start.elapsed() >= LOCK_TIMEOUT {
            return Err(WalletError::Busy {
                path: folder.to_owned(),
            });
        }
        std::thread::sleep(LOCK_POLL_INTERVAL);
    }
}

/// Takes the lock of a directory; `None` where another process holds it.
pub(super) fn try_lock(folder: &Path, name: &str) -> Result<Option<Lock>, WalletError> {
    let path = folder.join(name);
    make_folder(folder)?;
    durable::try_lock(&path).map_err(|error| WalletError::Unwritable { path, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_data() {
        let ours = name(&[b"did:peer:2.Ez", b"id"]);
        assert!(is_data(&format!("{ours}.json")));
        assert!(is_data(&format!("{ours}.1700000000000.json")));
        for not in [
            ours.clone(),
            format!("{ours}.json.new"),
            format!("{ours}..json"),
            format!("{ours}.x.json"),
            format!(".{ours}.json"),
            "enrolment.json".to_owned(),
            "17-3".to_owned(),
        ] {
            assert!(!is_data(&not), "{not}");
        }
        // Parts do not run into each other.
        assert_ne!(name(&[b"ab", b"c"]), name(&[b"a", b"bc"]));
        assert_ne!(name(&[b"ab"]), name(&[b"ab", b""]));
    }
}
