//! Making a set.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::error::BackupError;
use super::manifest::{MANIFEST, Manifest, Part, SetFile};
use super::restore::LOCK_FILE;
use super::seal::{self, Recipients};
use super::sets;
use crate::mediator::KEYS_FILE;
use crate::store::{self, CopyError, StoreError, StoreFile};
use atcomm_net::durable::{self, Lock, Mode};
use atcomm_proto::clock::{Clock, Timestamp};

/// File in the data directory whose lock the maker of a backup has.
const MAKER_LOCK: &str = "backup.lock";

/// The same in the folder of the sets, which services may share.
const FOLDER_LOCK: &str = ".backup.lock";

/// Longest wait for another backup, and interval of asking for its lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(600);
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Folder in the data directory for copies that are not encrypted yet.
const PLAIN: &str = ".backup";

/// Longest file of keys, in bytes.
pub(super) const MAX_KEYS: usize = 64 * 1024;

/// What is copied, and whither.
pub struct Plan<'a> {
    /// The data directory. A service may run on it.
    pub data_dir: &'a Path,
    /// The folder of the sets, which is created where it is missing.
    pub dir: &'a Path,
    /// To whom the set is encrypted.
    pub recipients: &'a Recipients,
    /// Sets that are left afterwards, at least one; none: all.
    pub keep: Option<u32>,
    /// The time.
    pub clock: &'a Clock,
}

/// A set that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    /// The folder of the set.
    pub path: PathBuf,
    /// When it began (RFC 3339): it holds all that was acknowledged before.
    pub began_at: String,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Bytes of its files.
    pub bytes: u64,
    /// Names of the files that it holds, as in the data directory.
    pub files: Vec<String>,
    /// Older sets that were deleted.
    pub deleted: usize,
}

/// The parts of the base of a continuous copy: what the network cannot give back.
pub(super) const BASE_PARTS: [Part; 2] = [Part::Store(StoreFile::Mailbox), Part::Keys];

/// Makes a set. It is on disk when this returns, and what fails leaves nothing behind. The service may
/// run meanwhile, in this process or another. `go_on` is asked again and again, and ends the work by
/// `false`.
pub fn make(plan: &Plan<'_>, go_on: &mut dyn FnMut() -> bool) -> Result<Made, BackupError> {
    make_at(plan, &Part::ALL, plan.clock.now(), go_on)
}

/// Makes a set of some parts, named after a moment that is not later than now.
pub(super) fn make_at(
    plan: &Plan<'_>,
    parts: &[Part],
    began_at: Timestamp,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Made, BackupError> {
    let mailbox = plan.data_dir.join(StoreFile::Mailbox.name());
    let directory = plan.data_dir.join(StoreFile::Directory.name());
    if !mailbox.is_file() && !directory.is_file() {
        return Err(BackupError::NoStore(plan.data_dir.to_owned()));
    }
    durable::create_dir_all(plan.dir).map_err(|failed| BackupError::File {
        path: failed.path,
        error: failed.error,
    })?;
    let _one_maker = locked(plan.data_dir, MAKER_LOCK, go_on)?;
    let _one_in_folder = locked(plan.dir, FOLDER_LOCK, go_on)?;
    let name = sets::name(began_at);
    sets::remove_remains(plan.dir, &name).map_err(BackupError::file(plan.dir))?;
    check_logs(plan.data_dir)?;
    let staging = Folder::create(sets::staging(plan.dir, &name))?;
    let mut files = Vec::new();
    for part in parts {
        files.extend(copy_part(plan, *part, &staging.0, go_on)?);
    }
    let is_mailbox = |file: &SetFile| file.name == StoreFile::Mailbox.name();
    if files.iter().any(is_mailbox) && !files.iter().any(|file| file.name == KEYS_FILE) {
        return Err(BackupError::NoKeys(plan.data_dir.join(KEYS_FILE)));
    }
    let encrypted = !plan.recipients.is_empty();
    let manifest = Manifest::of(files, encrypted, began_at, plan.clock.now())
        .and_then(|manifest| {
            let path = staging.0.join(MANIFEST);
            durable::create_new(&path, &manifest.to_vec()?, Mode::Private)?;
            Ok(manifest)
        })
        .map_err(BackupError::file(&staging.0))?;
    let path = plan.dir.join(name);
    durable::rename(&staging.0, &path).map_err(BackupError::file(&path))?;
    drop(staging);
    let deleted = match plan.keep {
        Some(keep) => sets::prune(plan.dir, usize::try_from(keep).unwrap_or(usize::MAX))?,
        None => 0,
    };
    Ok(Made {
        path,
        began_at: manifest.began_at,
        encrypted,
        bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        files: manifest.files.into_iter().map(|file| file.name).collect(),
        deleted,
    })
}

/// Takes a lock, and waits while another backup has it.
fn locked(folder: &Path, name: &str, go_on: &mut dyn FnMut() -> bool) -> Result<Lock, BackupError> {
    let path = folder.join(name);
    let began = Instant::now();
    loop {
        let lock = durable::try_lock(&path).map_err(BackupError::file(&path))?;
        if let Some(lock) = lock {
            return Ok(lock);
        }
        if began.elapsed() > LOCK_TIMEOUT {
            return Err(BackupError::Busy(folder.to_owned()));
        }
        if !go_on() {
            return Err(BackupError::Stopped);
        }
        std::thread::sleep(LOCK_POLL_INTERVAL);
    }
}

/// Refuses files with the logs of others beside them, where no service runs: a service has refused
/// them at its start.
fn check_logs(data_dir: &Path) -> Result<(), BackupError> {
    let path = data_dir.join(LOCK_FILE);
    let idle = durable::try_lock(&path).map_err(BackupError::file(&path))?;
    if idle.is_none() {
        return Ok(());
    }
    for file in [StoreFile::Mailbox, StoreFile::Directory] {
        let path = data_dir.join(file.name());
        store::check_log(&path).map_err(|error| BackupError::copy(&path, error.into()))?;
    }
    Ok(())
}

/// Copies one file of the data directory into a set, if it is there.
fn copy_part(
    plan: &Plan<'_>,
    part: Part,
    set: &Path,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<SetFile>, BackupError> {
    let from = plan.data_dir.join(part.name());
    if !from.try_exists().map_err(BackupError::file(&from))? {
        return Ok(None);
    }
    let (schema, (bytes, sha256)) = match part {
        Part::Store(file) => {
            let (schema, written) = copy_store(plan, file, &from, set, go_on)?;
            (Some(schema), written)
        }
        Part::Keys => {
            let keys = durable::read_private(&from, MAX_KEYS)
                .map_err(|error| BackupError::file(&from)(io::Error::other(error)))?
                .ok_or_else(|| BackupError::NoKeys(from.clone()))?;
            let to = set.join(stored_name(plan, part.name()));
            (None, write(plan.recipients, &mut &keys[..], &to, go_on)?)
        }
    };
    Ok(Some(SetFile {
        name: part.name().to_owned(),
        bytes,
        sha256,
        schema,
    }))
}

fn stored_name(plan: &Plan<'_>, name: &str) -> String {
    let end = if plan.recipients.is_empty() {
        ""
    } else {
        seal::SEALED
    };
    format!("{name}{end}")
}

/// Copies a store and checks the copy. Returns its schema version, length and hash.
fn copy_store(
    plan: &Plan<'_>,
    file: StoreFile,
    from: &Path,
    set: &Path,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(i64, (u64, String)), BackupError> {
    let failed = |error: CopyError| BackupError::copy(from, error);
    let of_store = |error: StoreError| failed(error.into());
    if plan.recipients.is_empty() {
        let to = set.join(file.name());
        store::copy(from, file, &to, go_on).map_err(failed)?;
        let schema = store::check_copy(&to, file).map_err(of_store)?;
        let mut copy = File::open(&to).map_err(BackupError::file(&to))?;
        let written = seal::digest(&mut copy, u64::MAX - 1, go_on).map_err(read_error(&to))?;
        return Ok((schema, written));
    }
    // Where the set goes may be less private than the data directory.
    let plain = Folder::create(plan.data_dir.join(PLAIN))?;
    let copy = plain.0.join(file.name());
    store::copy(from, file, &copy, go_on).map_err(failed)?;
    let schema = store::check_copy(&copy, file).map_err(of_store)?;
    let mut opened = File::open(&copy).map_err(BackupError::file(&copy))?;
    let to = set.join(stored_name(plan, file.name()));
    Ok((schema, write(plan.recipients, &mut opened, &to, go_on)?))
}

/// Writes a file of a set and syncs it. Returns its length and hash.
fn write(
    recipients: &Recipients,
    from: &mut dyn io::Read,
    to: &Path,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<(u64, String), BackupError> {
    let mut write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        let written = recipients.write(from, &mut file, go_on)?;
        file.sync_all()?;
        Ok(written)
    };
    write().map_err(read_error(to))
}

/// Returns the error about a file, unless the caller ended the work.
fn read_error(path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::Interrupted => BackupError::Stopped,
        _ => BackupError::File { path, error },
    }
}

/// A folder of this run, deleted when it is dropped, unless it was renamed.
struct Folder(PathBuf);

impl Folder {
    /// Creates it empty and for its owner only.
    fn create(path: PathBuf) -> Result<Self, BackupError> {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BackupError::File { path, error });
            }
            _ => {}
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(BackupError::file(&path))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Where it was renamed there is nothing; what cannot be deleted now is deleted by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}
