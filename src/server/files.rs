//! Resources of the machine: the data directory, file descriptors and memory.

use std::io;
use std::path::Path;

use super::error::ServerError;
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
        let lock = durable::try_lock(&path.join("lock")).map_err(unusable)?;
        lock.map(|lock| Self { _lock: lock })
            .ok_or_else(|| ServerError::Locked(path.to_owned()))
    }
}

/// Reduces the wanted number of connections to one that leaves descriptors for the stores and for
/// outbound connections, which would fail too without any.
pub(super) fn affordable_connections(wanted: usize) -> usize {
    let Some(limit) = open_files() else {
        return wanted;
    };
    let possible = limit.saturating_sub(RESERVED_FILES).max(limit / 2).max(1);
    if possible < wanted {
        tracing::warn!(
            limit,
            wanted,
            connections = possible,
            "the limit of open files is too low for all connections (ulimit -n, LimitNOFILE)"
        );
    }
    wanted.min(possible)
}

/// Returns the limit of open files, or `None` if it is unknown or unlimited.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
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
}
