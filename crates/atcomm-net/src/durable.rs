//! Files that survive: written whole or not at all, on disk when the call returns.
//!
//! # The promise
//!
//! [`replace`], [`create_new`], [`rename`], [`remove`] and [`create_dir_all`] return `Ok` only when
//! their effect is on disk: a power cut, a kernel crash or `kill -9` right after the return takes
//! nothing of it back. Callers act on that. A key is published, and a message acknowledged, only
//! after the file that holds it is written.
//!
//! Interrupted anywhere, [`replace`] leaves the old file or the new one under the name, each whole
//! and with its own mode, never a mixture, a beginning or an empty file. [`create_new`] leaves the
//! new file or none; on file systems without hard links and without a rename that refuses to
//! replace (some USB sticks), it may leave an empty file. After an error the old file is there,
//! but for one case: where only the last step, the sync of the folder, failed, the new file is in
//! its place and a power cut may still take it away.
//!
//! A reader that opens the name at any time reads the old content or the new, whole. A reader that
//! opened it before goes on reading the old. Concurrent writers are safe: the content of one of
//! them stands, whole.
//!
//! # How it is kept
//!
//! The system calls of `replace("keys.json", ..)`, as `strace` shows them:
//!
//! ```text
//! openat(AT_FDCWD, "/data/.keys.json.kYJSYJ.new", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 3
//! write(3, "{\n  \"version\": 1, ...", 512) = 512
//! fsync(3) = 0
//! renameat(AT_FDCWD, "/data/.keys.json.kYJSYJ.new", AT_FDCWD, "/data/keys.json") = 0
//! openat(AT_FDCWD, "/data", O_RDONLY|O_CLOEXEC) = 3
//! fsync(3) = 0
//! ```
//!
//! 1. The content goes to a staging file of its own. `O_EXCL` opens no file that exists and follows
//!    no link, so no other process has it open. Its mode is set before the first byte is in it.
//! 2. The staging file is synced before it gets its name. File systems may write a rename to disk
//!    before the content of the file, and a power cut in between would leave an empty file.
//! 3. `rename` gives it the name in one step. A link under the name is replaced and not followed.
//! 4. The folder is synced, because the name is an entry of the folder: fsync(2) of a file "does not
//!    necessarily ensure that the entry in the directory containing the file has also reached disk".
//!    Without this step the old file could return after the caller acted on the new one.
//!
//! # What killed runs leave
//!
//! A killed run leaves its staging file, with the mode that the file was to have. A staging file that
//! was left behind blocks no later writer, since names are random and a taken name is passed over,
//! and no reader takes it for the file. Once it is older than an hour it is removed: beside a file by
//! the next write of that file, in a staging folder by [`remove_abandoned`].

mod secret;

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::{Builder, NamedTempFile};
use zeroize::Zeroizing;

pub use secret::SecretText;

/// Mode of private files: only their owner reads and writes them.
const PRIVATE_FILE: u32 = 0o600;

/// Mode of private folders.
const PRIVATE_FOLDER: u32 = 0o700;

/// Mode of other files, of which the process's umask is taken away.
const SHARED_FILE: u32 = 0o666;

/// Bits of a mode that let others than the owner in.
const OTHERS: u32 = 0o077;

/// End of a staging file's name.
const STAGED: &str = ".new";

/// Time without a write after which the writer of a staging file is surely gone: most write for
/// milliseconds, and those of long files without a pause.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Most entries of one folder that are searched for abandoned files.
const MAX_ENTRIES: usize = 1_000_000;

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Its owner alone: 0600 whatever the umask is, where the file system knows modes.
    Private,
    /// Everyone whom the umask allows, for content without secrets: 0666 less the umask.
    Umask,
}

/// Errors of [`create_dir_all`].
#[derive(Debug, thiserror::Error)]
#[error("cannot create {}: {error}", path.display())]
pub struct FolderError {
    /// The folder that failed: the one asked for, or one above it.
    pub path: PathBuf,
    /// What the system says.
    pub error: io::Error,
}

/// Errors of [`read_private`].
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Others than the owner may read the file.
    #[error("it may be read by others than its owner")]
    Exposed,
    /// The file is longer than the cap.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes a file, in the place of one that has its name. Durable when it returns.
pub fn replace(path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    Staged::beside(path, bytes, mode)?.replace(path)
}

/// Writes a file under a name that nothing has, not even a dangling link;
/// [`io::ErrorKind::AlreadyExists`] otherwise. Durable when it returns. Of several that write the
/// same name at the same time one succeeds.
pub fn create_new(path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    Staged::beside(path, bytes, mode)?.create_new(path)
}

/// Renames a file, in the place of one that has the new name. Durable when it returns.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    if from.parent() != to.parent() {
        sync_folder_of(from)?;
    }
    sync_folder_of(to)
}

/// Removes a file and returns whether there was one. Durable when it returns.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder_of(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Creates a folder and those above it that are missing, for their owner only. Durable when it
/// returns, each before anything is put into it.
pub fn create_dir_all(path: &Path) -> Result<(), FolderError> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        create_dir_all(above)?;
    }
    let created = match DirBuilder::new().mode(PRIVATE_FOLDER).create(path) {
        Ok(()) => sync_folder_of(path),
        // Another process created it in the meantime.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    };
    created.map_err(|error| FolderError {
        path: path.to_owned(),
        error,
    })
}

/// Whether only the owner may use a file or folder.
pub fn is_private(meta: &Metadata) -> bool {
    meta.permissions().mode() & OTHERS == 0
}

/// Reads a private file of at most `cap` bytes; `None` where there is none. A file that others may
/// read is refused before its content is. The content is wiped when it is dropped.
pub fn read_private(path: &Path, cap: usize) -> Result<Option<Zeroizing<Vec<u8>>>, ReadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let meta = file.metadata()?;
    if !is_private(&meta) {
        return Err(ReadError::Exposed);
    }
    let size = usize::try_from(meta.len())
        .ok()
        .filter(|size| *size <= cap)
        .ok_or(ReadError::TooLong(cap))?;
    // With its final size from the start, so that no part of it stays behind unwiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(cap as u64).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Removes what killed runs left in a staging folder, which holds nothing but staging files. Files
/// that cannot be removed stay, and do no harm.
pub fn remove_abandoned(staging: &Path) {
    remove_abandoned_if(staging, |_| true);
}

fn remove_abandoned_if(folder: &Path, is_staged: impl Fn(&OsStr) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.take(MAX_ENTRIES).flatten() {
        if !is_staged(&entry.file_name()) {
            continue;
        }
        let modified = entry.metadata().and_then(|meta| meta.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        if age.is_some_and(|age| age > ABANDONED) {
            // Removed by another process in the meantime, or not ours to remove.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file with its content and mode, but without its name; removed when it is dropped.
#[derive(Debug)]
pub struct Staged {
    file: NamedTempFile<File>,
}

impl Staged {
    /// Stages a file in the folder that it is to be in, and removes what killed writers of the same
    /// file left there.
    pub fn beside(path: &Path, bytes: &[u8], mode: Mode) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let folder = folder_of(path);
        remove_abandoned_if(folder, |name| is_staging_name(name, &prefix));
        Self::with_prefix(folder, &prefix, bytes, mode)
    }

    /// Stages a file in a folder of the file system that it is to be on.
    pub fn new(staging: &Path, bytes: &[u8], mode: Mode) -> io::Result<Self> {
        Self::with_prefix(staging, OsStr::new(""), bytes, mode)
    }

    fn with_prefix(folder: &Path, prefix: &OsStr, bytes: &[u8], mode: Mode) -> io::Result<Self> {
        let permissions = match mode {
            Mode::Private => PRIVATE_FILE,
            Mode::Umask => SHARED_FILE,
        };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(permissions);
        // Its own way of opening adds the name to the error, which would hide the system's code.
        let created = Builder::new()
            .prefix(prefix)
            .suffix(STAGED)
            .make_in(folder, |path| options.open(path));
        let file = created.map_err(|error| match error.kind() {
            // All names are taken, which says nothing of the name that was asked for.
            io::ErrorKind::AlreadyExists => io::Error::other(error),
            _ => error,
        })?;
        let staged = Self { file };
        if mode == Mode::Private {
            staged.give_back_owner_bits()?;
        }
        staged.file.as_file().write_all(bytes)?;
        Ok(staged)
    }

    /// Undoes a umask that took bits from the owner. Without need the mode is not set: file systems
    /// without modes refuse that.
    fn give_back_owner_bits(&self) -> io::Result<()> {
        let file = self.file.as_file();
        if file.metadata()?.permissions().mode() & PRIVATE_FILE == PRIVATE_FILE {
            return Ok(());
        }
        file.set_permissions(Permissions::from_mode(PRIVATE_FILE))
    }

    /// Sets the time of modification that the file will have.
    pub fn with_modified(self, modified: SystemTime) -> io::Result<Self> {
        self.file.as_file().set_modified(modified)?;
        Ok(self)
    }

    /// Gives the file its name, in the place of one that has it. Durable when it returns.
    pub fn replace(self, path: &Path) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(path)?;
        sync_folder_of(path)
    }

    /// Gives the file a name that nothing has; [`io::ErrorKind::AlreadyExists`] otherwise. Durable
    /// when it returns.
    pub fn create_new(self, path: &Path) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        match self.file.persist_noclobber(path) {
            Ok(_) => {}
            Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(failed.error);
            }
            Err(failed) => Self { file: failed.file }.claim(path)?,
        }
        sync_folder_of(path)
    }

    /// Takes the name by an empty file first, and replaces that: for file systems with neither hard
    /// links nor a rename that refuses to replace.
    fn claim(self, path: &Path) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE_FILE)
            .open(path)?;
        self.file.persist(path).map_err(|failed| {
            let _ = fs::remove_file(path);
            failed.error
        })?;
        Ok(())
    }
}

/// Writes on at the end of the content.
impl io::Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_file_mut().flush()
    }
}

/// Whether a file was staged by [`Staged::beside`] with this beginning of its name.
fn is_staging_name(name: &OsStr, prefix: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes
        .strip_prefix(prefix.as_encoded_bytes())
        .and_then(|rest| rest.strip_suffix(STAGED.as_bytes()))
        .is_some_and(|random| random.len() == 6 && random.iter().all(u8::is_ascii_alphanumeric))
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// A lock between processes, given back when it is dropped or its process ends, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock that a file stands for, which is created where it is missing; `None` where
/// another has it. The file stays: removing it would let two have the lock.
pub fn try_lock(path: &Path) -> io::Result<Option<Lock>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(PRIVATE_FILE)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Takes the lock that an existing file stands for; `None` where there is no such file, another has
/// the lock, or another removed the file while it had it. So a file that is removed by the owner of
/// its lock is locked by one at most.
pub fn try_lock_existing(path: &Path) -> io::Result<Option<Lock>> {
    let file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let (locked, named) = (file.metadata()?, fs::metadata(path));
    let is_same = |named: Metadata| named.dev() == locked.dev() && named.ino() == locked.ino();
    Ok(named.is_ok_and(is_same).then_some(Lock { _file: file }))
}

#[cfg(test)]
mod tests;
