//! Files of the wallet: written in one step, for their owner only, and read up to a limit.
//!
//! A new text goes to a file of its own below `tmp`, to the disk, and takes the old one's place by
//! a rename, after which the directory goes to the disk too. Killed anywhere, a process leaves the
//! old text or the new one, and at worst a file below `tmp` that nobody reads.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::error::WalletError;

/// Version of all files.
const VERSION: u64 = 1;

/// Directory of what is being written.
const TMP: &str = "tmp";

/// Age of a file below `tmp` from which its writer is surely gone: it takes milliseconds.
const ABANDONED: Duration = Duration::from_secs(3600);

/// How long another process is waited for: whoever holds a lock reads and writes a few files.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Names tried for a temporary file: another process may use ours, of the same number in another
/// container.
const MAX_NAMES: u32 = 100;

/// Most entries of one directory that are looked at.
pub(super) const MAX_ENTRIES: usize = 1_000_000;

/// What stands in every file.
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

/// A lock, given back when it is dropped or its process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// What became of something that was to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// It is on disk.
    New,
    /// It is on disk. What stood in its place cannot be read, and is set aside under this name.
    DamagedSetAside(PathBuf),
    /// It is kept already, and stays as it is.
    Duplicate,
}

/// A data file of a directory.
pub(super) struct Listed {
    pub(super) path: PathBuf,
    /// When it was written.
    pub(super) modified: SystemTime,
    /// Bytes.
    pub(super) len: u64,
}

/// SHA-256 of some bytes, in hexadecimal.
pub(super) fn hash(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// The file that holds what is known by these texts. Any text makes a name, and no two the same.
pub(super) fn name(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

/// Whether a file name is one of ours: 64 hexadecimal digits, perhaps a number, and `.json`.
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

/// Refuses what others than the owner may read.
pub(super) fn check_private(path: &Path, mode: u32) -> Result<(), WalletError> {
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(WalletError::Exposed {
            path: path.to_owned(),
        }),
    }
}

/// Reads a file of at most `cap` bytes; `None` where there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path, cap: usize) -> Result<Option<T>, WalletError> {
    let unreadable = |error| WalletError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let damaged = |reason: String| WalletError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let meta = file.metadata().map_err(unreadable)?;
    check_private(path, meta.mode())?;
    if meta.len() > cap as u64 {
        return Err(damaged(format!("it is longer than {cap} bytes")));
    }
    // With its final size from the start, so that no part of it stays behind unwiped.
    let size = usize::try_from(meta.len()).unwrap_or(cap);
    let mut text = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(cap as u64)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    // What stood there is not repeated: it may be a secret.
    let at = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        damaged(format!(
            "not what is expected at line {line} column {column}"
        ))
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

/// Writes a file in one step; it is on disk when this returns. Concurrent writers are safe: one of
/// their texts is there, whole.
pub(super) fn write<T: Serialize>(
    home: &Path,
    path: &Path,
    content: &T,
    cap: usize,
) -> Result<(), WalletError> {
    // The system's own stamp is only so fine, and files are put in order by it.
    write_as_of(home, path, content, cap, SystemTime::now())
}

/// The same with another time of writing, so that a file that was changed keeps its place.
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
    let folder = path.parent().unwrap_or(home);
    make_folder(folder)?;
    let tmp = home.join(TMP);
    make_folder(&tmp)?;
    let replace = || {
        let (mut file, fresh) = create(&tmp)?;
        let placed = file
            .write_all(&text)
            .and_then(|()| file.set_modified(modified))
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&fresh, path));
        if placed.is_err() {
            drop(std::fs::remove_file(&fresh));
        }
        placed.and_then(|()| sync(folder))
    };
    replace().map_err(unwritable)
}

/// A new temporary file.
fn create(tmp: &Path) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut tried = 0;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = tmp.join(format!("{}-{number}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match file {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tried < MAX_NAMES => {
                tried += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Removes a file; whether there was one. On disk when it returns.
pub(super) fn remove(path: &Path) -> Result<bool, WalletError> {
    let unwritable = |error| WalletError::Unwritable {
        path: path.to_owned(),
        error,
    };
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unwritable(error)),
    }
    if let Some(folder) = path.parent() {
        sync(folder).map_err(unwritable)?;
    }
    Ok(true)
}

/// Gives a file another name in its directory. On disk when it returns.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), WalletError> {
    std::fs::rename(from, to)
        .and_then(|()| to.parent().map_or(Ok(()), sync))
        .map_err(|error| WalletError::Unwritable {
            path: to.to_owned(),
            error,
        })
}

/// Makes a directory and those above it, for this user only, each on disk before anything is put
/// into it.
pub(super) fn make_folder(path: &Path) -> Result<(), WalletError> {
    let unwritable = |error| WalletError::Unwritable {
        path: path.to_owned(),
        error,
    };
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let above = path.parent();
    if let Some(above) = above {
        make_folder(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => above.map_or(Ok(()), sync).map_err(unwritable),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(unwritable(error)),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    File::open(folder)?.sync_all()
}

/// The data files of a directory, in no order; none where there is no directory.
pub(super) fn list(folder: &Path) -> Result<Vec<Listed>, WalletError> {
    let unreadable = |error| WalletError::Unreadable {
        path: folder.to_owned(),
        error,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut found = Vec::new();
    for entry in entries.take(MAX_ENTRIES) {
        let entry = entry.map_err(unreadable)?;
        if !entry.file_name().to_str().is_some_and(is_data) {
            continue;
        }
        let meta = entry.metadata();
        let meta = meta.and_then(|meta| Ok((meta.modified()?, meta.len())));
        // Removed by another process in the meantime: not there.
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

/// Removes what killed processes left below `tmp`. What cannot be removed does no harm.
pub(super) fn sweep(home: &Path) {
    let Ok(entries) = std::fs::read_dir(home.join(TMP)) else {
        return;
    };
    for entry in entries.take(MAX_ENTRIES).flatten() {
        let age = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|modified| modified.elapsed().ok());
        if age.is_some_and(|age| age > ABANDONED) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// Takes the lock of a directory, waiting a while for whoever has it.
pub(super) fn lock(folder: &Path, name: &str) -> Result<Lock, WalletError> {
    let start = Instant::now();
    loop {
        if let Some(lock) = try_lock(folder, name)? {
            return Ok(lock);
        }
        if start.elapsed() >= PATIENCE {
            return Err(WalletError::Busy {
                path: folder.to_owned(),
            });
        }
        std::thread::sleep(POLL);
    }
}

/// Takes the lock of a directory; `None` where somebody has it. The system gives it back when its
/// process ends, however that ends.
pub(super) fn try_lock(folder: &Path, name: &str) -> Result<Option<Lock>, WalletError> {
    let path = folder.join(name);
    let unwritable = |error| WalletError::Unwritable {
        path: path.clone(),
        error,
    };
    make_folder(folder)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(unwritable(error)),
    }
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
