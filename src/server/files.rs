//! Resources of the machine: the data directory, file descriptors and memory.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::ServerError;
use crate::backup::{LOCK_FILE, RESTORE_MARK};
use crate::mediator::MAX_DEFAULT_TOTAL;
use atcomm_net::durable::{self, Lock};

/// File descriptors reserved for the stores, outbound connections and the log.
const RESERVED_FILES: usize = 256;

/// A data directory that this process has locked.
pub(super) struct DataDir {
    _lock: Lock,
}

impl DataDir {
    /// Creates the directory, accessible to this user only, and locks it.
    pub(super) fn claim(path: &Path) -> Result<Self, ServerError> {
        let unusable = |error| ServerError::DataDir {
            path: path.to_owned(),
            error,
        };
        durable::create_dir_all(path).map_err(|failed| unusable(failed.error))?;
        let lock = durable::try_lock(&path.join(LOCK_FILE)).map_err(unusable)?;
        let lock = lock.ok_or_else(|| ServerError::Locked(path.to_owned()))?;
        // Some of its files may be of before the restore.
        if path.join(RESTORE_MARK).try_exists().map_err(unusable)? {
            return Err(ServerError::HalfRestored(path.to_owned()));
        }
        Ok(Self { _lock: lock })
    }
}

/// Reduces the wanted number of connections to one that leaves descriptors for the stores and for
/// outbound connections, which would fail too without any.
pub(super) fn affordable_connections(wanted: usize) -> usize {
    let possible = possible_connections(wanted);
    if possible < wanted {
        tracing::warn!(
            limit = open_files(),
            wanted,
            connections = possible,
            "the limit of open files is too low for all connections (ulimit -n, LimitNOFILE)"
        );
    }
    possible
}

/// Returns how many of the wanted connections the limit of open files leaves possible.
pub(super) fn possible_connections(wanted: usize) -> usize {
    let possible = |limit: usize| limit.saturating_sub(RESERVED_FILES).max(limit / 2).max(1);
    open_files().map_or(wanted, |limit| wanted.min(possible(limit)))
}

/// Returns the limit of open files, or `None` if it is unknown or unlimited.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Room in a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpace {
    /// What this user may still take.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// Returns the room in the file system of a path.
pub fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(DiskSpace {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// Returns the bytes that may wait for all recipients together on a disk with `free` bytes, of which
/// the mailbox has taken `held` more already: a quarter of both, and 8 GiB at most. What it holds
/// counts, so that a restart with a full mailbox does not make the limit smaller.
pub(super) fn mailbox_room(free: u64, held: u64) -> u64 {
    (free.saturating_add(held) / 4).min(MAX_DEFAULT_TOTAL)
}

/// Returns the resident memory of the process in bytes.
pub(super) fn resident_memory() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep").join("down");
        let claimed = DataDir::claim(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let second = DataDir::claim(&path).err().unwrap().to_string();
        assert!(second.ends_with("is in use by another process"), "{second}");
        drop(claimed);
        DataDir::claim(&path).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(
            DataDir::claim(&file),
            Err(ServerError::DataDir { .. })
        ));
    }

    #[test]
    fn the_machine_can_be_read() {
        assert!(resident_memory().unwrap() > 1_000_000);
        assert_eq!(affordable_connections(1), 1);
        assert!(open_files().is_none_or(|limit| affordable_connections(usize::MAX) < limit));
    }

    #[test]
    fn a_mailbox_takes_a_quarter_of_the_disk_at_most() {
        const GIB: u64 = 1 << 30;
        assert_eq!(mailbox_room(100 * GIB, 0), 8 * GIB);
        assert_eq!(mailbox_room(12 * GIB, 0), 3 * GIB);
        // The same disk with half of that taken.
        assert_eq!(mailbox_room(10 * GIB + GIB / 2, 3 * GIB / 2), 3 * GIB);
        assert_eq!(mailbox_room(0, 0), 0);
        assert_eq!(mailbox_room(u64::MAX, u64::MAX), 8 * GIB);
        let dir = tempfile::tempdir().unwrap();
        let space = disk_space(dir.path()).unwrap();
        assert!(space.free > 0 && space.free <= space.total, "{space:?}");
        assert!(disk_space(&dir.path().join("missing")).is_err());
    }
}
