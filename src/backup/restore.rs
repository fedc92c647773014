//! Putting a set into a data directory.
//!
//! Everything is checked before the first file of the data directory is touched: the hashes of the set,
//! the encryption, the pages of the stores and their schema versions. The checked files wait in a
//! folder in the data directory. Then what was there is moved aside with its journals, and the files
//! get their names. From before the first of these steps until after the last a mark stands in the
//! data directory, and a service does not start beside it: an interrupted restore is never taken for
//! a whole one, and can be run again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::BackupError;
use super::manifest::{Manifest, Part, SetFile};
use super::replay::{self, Replayed};
use super::seal::{self, Identities};
use super::sets;
use crate::store::{self, JOURNALS, StoreError, StoreFile};
use atcomm_net::durable::{self, Mode};
use atcomm_proto::clock::Timestamp;

/// File in the data directory whose lock the process has that uses it.
pub const LOCK_FILE: &str = "lock";

/// File in the data directory that stands there while a restore is not finished.
pub const RESTORE_MARK: &str = "restore-unfinished";

/// Folder in the data directory of files that are checked, and not in their places yet.
const STAGING: &str = ".restore";

/// Beginning of the name of a folder with the files that a restore has moved aside.
const REPLACED: &str = "replaced-";

/// What is put where.
pub struct RestorePlan<'a> {
    /// The folder of the set.
    pub set: &'a Path,
    /// The data directory, which is created where it is missing. No service may run on it.
    pub data_dir: &'a Path,
    /// What opens the set, where it is encrypted.
    pub identities: &'a Identities,
    /// Whether files that are in the data directory are moved aside. Otherwise they are left alone
    /// and the restore is refused.
    pub replace: bool,
    /// The last segment of a continuous copy that is replayed; none: all.
    pub until: Option<u64>,
    /// The time.
    pub now: Timestamp,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Version of the program that made the set.
    pub version: String,
    /// When the set began (RFC 3339): it holds all that was acknowledged before.
    pub began_at: String,
    /// Segments of a continuous copy that were replayed.
    pub segments: u64,
    /// When the last segment was taken (RFC 3339); without segments, when the set began.
    pub until: String,
    /// Names of the files.
    pub files: Vec<String>,
    /// Folder into which the files were moved that were there before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<PathBuf>,
}

/// Puts a set into a data directory. On disk when this returns.
pub fn restore(plan: &RestorePlan<'_>) -> Result<Restored, BackupError> {
    let manifest = read_manifest(plan.set)?;
    check_versions(&manifest)?;
    if manifest.encrypted && plan.identities.is_empty() {
        return Err(BackupError::Encrypted);
    }
    check_hashes(plan.set, &manifest)?;

    let data_dir = plan.data_dir;
    durable::create_dir_all(data_dir).map_err(|failed| BackupError::File {
        path: failed.path,
        error: failed.error,
    })?;
    let lock = data_dir.join(LOCK_FILE);
    let lock = durable::try_lock(&lock).map_err(BackupError::file(&lock))?;
    let _lock = lock.ok_or_else(|| BackupError::Locked(data_dir.to_owned()))?;
    let mark = data_dir.join(RESTORE_MARK);
    let is_second_try = mark.try_exists().map_err(BackupError::file(&mark))?;
    let occupied = occupied(data_dir)?;
    if let Some(first) = occupied.first()
        && !plan.replace
        && !is_second_try
    {
        return Err(BackupError::Occupied(first.clone()));
    }

    let staging = data_dir.join(STAGING);
    remove_folder(&staging)?;
    let staged = stage(plan, &manifest, &staging);
    if staged.is_err() {
        remove_folder(&staging)?;
    }
    let replayed = staged?;
    durable::replace(&mark, b"", Mode::Private).map_err(BackupError::file(&mark))?;
    let replaced = move_aside(data_dir, &occupied, plan.now)?;
    for file in &manifest.files {
        let to = data_dir.join(&file.name);
        durable::rename(&staging.join(&file.name), &to).map_err(BackupError::file(&to))?;
    }
    remove_folder(&staging)?;
    durable::remove(&mark).map_err(BackupError::file(&mark))?;
    Ok(Restored {
        version: manifest.version,
        segments: replayed.map_or(0, |replayed| replayed.segments),
        until: replayed.map_or_else(
            || manifest.began_at.clone(),
            |replayed| replayed.until.to_string(),
        ),
        began_at: manifest.began_at,
        files: manifest.files.into_iter().map(|file| file.name).collect(),
        replaced,
    })
}

/// Reads the manifest of a set. Where the folder is one of sets, the error names the newest.
fn read_manifest(set: &Path) -> Result<Manifest, BackupError> {
    Manifest::read(set).map_err(|error| match (error, sets::newest(set)) {
        (BackupError::NotASet { path, .. }, Ok(Some(newest))) => BackupError::NotASet {
            path,
            reason: format!("it holds some, the newest is {}", newest.path.display()),
        },
        (error, _) => error,
    })
}

/// Refuses stores that this version cannot read.
fn check_versions(manifest: &Manifest) -> Result<(), BackupError> {
    for file in [StoreFile::Mailbox, StoreFile::Directory] {
        let found = manifest
            .file(Part::Store(file))
            .and_then(|file| file.schema);
        let known = file.newest_version();
        if let Some(found) = found.filter(|found| *found > known) {
            return Err(BackupError::Newer {
                version: manifest.version.clone(),
                file: file.name(),
                found,
                known,
            });
        }
    }
    Ok(())
}

/// Checks that each file is as the manifest says.
fn check_hashes(set: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    for file in &manifest.files {
        let stored = manifest.stored_name(&file.name);
        let damaged = |reason: &str| BackupError::Damaged {
            file: stored.clone(),
            reason: reason.to_owned(),
        };
        let path = set.join(&stored);
        let mut opened = match File::open(&path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("it is missing"));
            }
            Err(error) => return Err(BackupError::File { path, error }),
        };
        let (bytes, sha256) = seal::digest(&mut opened, file.bytes, &mut || true)
            .map_err(BackupError::file(&path))?;
        match bytes.cmp(&file.bytes) {
            std::cmp::Ordering::Less => return Err(damaged("it was cut")),
            std::cmp::Ordering::Greater => return Err(damaged("it is too long")),
            std::cmp::Ordering::Equal if sha256 != file.sha256 => {
                return Err(damaged("it was changed"));
            }
            std::cmp::Ordering::Equal => {}
        }
    }
    Ok(())
}

/// Returns the files of a store, and what the engine keeps beside them, that are in a data directory.
fn occupied(data_dir: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let mut found = Vec::new();
    for part in Part::ALL {
        let file = data_dir.join(part.name());
        let ends = match part {
            Part::Store(_) => &JOURNALS[..],
            Part::Keys => &[],
        };
        let beside = ends.iter().map(|end| store::journal(&file, end));
        for path in std::iter::once(file.clone()).chain(beside) {
            // A link counts, wherever it leads.
            if path.symlink_metadata().is_ok() {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Decrypts the files of a set into a folder, replays its segments and checks the files there.
fn stage(
    plan: &RestorePlan<'_>,
    manifest: &Manifest,
    staging: &Path,
) -> Result<Option<Replayed>, BackupError> {
    DirBuilder::new()
        .mode(0o700)
        .create(staging)
        .map_err(BackupError::file(staging))?;
    for part in Part::ALL {
        if let Some(file) = manifest.file(part) {
            stage_file(plan, manifest, file, &staging.join(part.name()))?;
        }
    }
    let replayed = if manifest.encrypted {
        replay::replay(plan.set, plan.identities, staging, plan.until)?
    } else {
        None
    };
    for part in Part::ALL {
        if let (Part::Store(store), Some(file)) = (part, manifest.file(part)) {
            check_store(&staging.join(part.name()), store, file)?;
        }
    }
    Ok(replayed)
}

fn stage_file(
    plan: &RestorePlan<'_>,
    manifest: &Manifest,
    file: &SetFile,
    to: &Path,
) -> Result<(), BackupError> {
    let stored = manifest.stored_name(&file.name);
    let path = plan.set.join(&stored);
    let mut from = File::open(&path).map_err(BackupError::file(&path))?;
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(BackupError::file(to))?;
    if manifest.encrypted {
        plan.identities.open(from, &mut out, &stored)?;
    } else {
        io::copy(&mut from, &mut out).map_err(BackupError::file(to))?;
    }
    out.flush()
        .and_then(|()| out.sync_all())
        .map_err(BackupError::file(to))
}

/// Checks a store that was staged.
fn check_store(path: &Path, store: StoreFile, file: &SetFile) -> Result<(), BackupError> {
    let damaged = |reason: String| BackupError::Damaged {
        file: file.name.clone(),
        reason,
    };
    match store::check_copy(path, store) {
        Ok(version) if Some(version) == file.schema => Ok(()),
        Ok(_) => Err(damaged(
            "it has another version than its manifest".to_owned(),
        )),
        Err(error @ StoreError::File(_)) => Err(BackupError::copy(path, error.into())),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// Moves files of a data directory into a folder there. Returns the folder, where there were any.
fn move_aside(
    data_dir: &Path,
    files: &[PathBuf],
    now: Timestamp,
) -> Result<Option<PathBuf>, BackupError> {
    if files.is_empty() {
        return Ok(None);
    }
    let name = now.to_string().replace(['-', ':'], "");
    let folder = data_dir.join(format!("{REPLACED}{name}"));
    durable::create_dir_all(&folder).map_err(|failed| BackupError::File {
        path: failed.path,
        error: failed.error,
    })?;
    for file in files {
        let to = folder.join(file.file_name().unwrap_or_default());
        durable::rename(file, &to).map_err(BackupError::file(&to))?;
    }
    Ok(Some(folder))
}

fn remove_folder(path: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BackupError::File {
            path: path.to_owned(),
            error,
        }),
        _ => Ok(()),
    }
}
