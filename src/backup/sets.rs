//! The sets in a folder: their names, the newest one, and those that are too old.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::BackupError;
use super::manifest::Manifest;
use atcomm_net::durable;
use atcomm_proto::clock::Timestamp;

/// Beginning of the name of a set.
const PREFIX: &str = "atcomm-";

/// End of the hidden name of a set that is being made, and of one that is being deleted.
const STAGED: &str = ".new";
const CONDEMNED: &str = ".old";

/// End of the name of the folder of a set's segments.
const SEGMENTS: &str = ".segments";

/// Most entries of a folder that are looked at.
const MAX_ENTRIES: usize = 100_000;

/// A set in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSummary {
    /// The folder of the set.
    pub path: PathBuf,
    /// When it began.
    pub began_at: Timestamp,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Returns the name of a set that begins at `at`, such as `atcomm-20261201T133000.000Z`: names are in
/// the order of times.
pub(super) fn name(at: Timestamp) -> String {
    let time = at.to_string().replace(['-', ':'], "");
    format!("{PREFIX}{time}")
}

/// Returns whether a folder's name is that of a set.
fn is_name(name: &OsStr) -> bool {
    let Some(time) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
        return false;
    };
    let pattern = b"dddddddd.dddddd.ddd.";
    let fits = |(place, byte): (&u8, u8)| match place {
        b'd' => byte.is_ascii_digit(),
        _ => b"T.Z".contains(&byte),
    };
    time.len() == pattern.len() && pattern.iter().zip(time.bytes()).all(fits)
}

/// Returns the hidden place of a set that is being made.
pub(super) fn staging(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}{STAGED}"))
}

/// Removes what killed runs left in the folder before the set `present` is made. The caller holds the
/// folder's lock.
pub(super) fn remove_remains(dir: &Path, present: &str) -> io::Result<()> {
    for name in names(dir)? {
        // Segments of a base that never became whole.
        let of_base = name.to_str().and_then(|name| name.strip_suffix(SEGMENTS));
        let is_orphan = of_base.is_some_and(|base| {
            is_name(OsStr::new(base)) && base < present && !dir.join(base).exists()
        });
        if is_orphan {
            fs::remove_dir_all(dir.join(&name))?;
            continue;
        }
        let hidden = name.to_str().and_then(|name| name.strip_prefix('.'));
        let of_set = hidden
            .and_then(|name| name.strip_suffix(STAGED).or(name.strip_suffix(CONDEMNED)))
            .is_some_and(|name| is_name(OsStr::new(name)));
        if of_set {
            fs::remove_dir_all(dir.join(name))?;
        }
    }
    Ok(())
}

/// Returns the sets in a folder, the oldest first. A folder that is no whole set is passed over.
pub(super) fn list(dir: &Path) -> Result<Vec<SetSummary>, BackupError> {
    let mut found: Vec<_> = names(dir)
        .map_err(BackupError::file(dir))?
        .into_iter()
        .filter(|name| is_name(name))
        .collect();
    found.sort();
    let summary = |name| {
        let path = dir.join(name);
        let manifest = Manifest::read(&path).ok()?;
        Some(SetSummary {
            began_at: Timestamp::parse_rfc3339(&manifest.began_at)?,
            bytes: manifest.files.iter().map(|file| file.bytes).sum(),
            path,
        })
    };
    Ok(found.into_iter().filter_map(summary).collect())
}

/// Returns the newest set in a folder, or `None` where there is none.
pub fn newest(dir: &Path) -> Result<Option<SetSummary>, BackupError> {
    if !dir.try_exists().map_err(BackupError::file(dir))? {
        return Ok(None);
    }
    Ok(list(dir)?.pop())
}

/// Deletes the oldest sets, so that `keep` are left, and returns how many. A set is first renamed, so
/// that a half of it is never taken for a whole.
pub(super) fn prune(dir: &Path, keep: usize) -> Result<usize, BackupError> {
    let mut sets = list(dir)?;
    sets.truncate(sets.len().saturating_sub(keep.max(1)));
    for set in &sets {
        let name = set.path.file_name().unwrap_or_default();
        let mut hidden = OsStr::new(".").to_owned();
        hidden.push(name);
        hidden.push(CONDEMNED);
        let hidden = dir.join(hidden);
        durable::rename(&set.path, &hidden).map_err(BackupError::file(&set.path))?;
        fs::remove_dir_all(&hidden).map_err(BackupError::file(&hidden))?;
        remove_segments(&set.path)?;
    }
    Ok(sets.len())
}

/// Returns the folder of the segments of a set.
pub(super) fn segments_of(set: &Path) -> PathBuf {
    let mut name = set.file_name().unwrap_or_default().to_owned();
    name.push(SEGMENTS);
    set.with_file_name(name)
}

fn remove_segments(set: &Path) -> Result<(), BackupError> {
    let segments = segments_of(set);
    match fs::remove_dir_all(&segments) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BackupError::file(&segments)(error))
        }
        _ => Ok(()),
    }
}

fn names(dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let entries = fs::read_dir(dir)?.take(MAX_ENTRIES);
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sets_are_told_from_others() {
        let name = name(Timestamp::from_millis(1_800_000_000_123));
        assert_eq!(name, "atcomm-20270115T080000.123Z");
        assert!(is_name(OsStr::new(&name)));
        for other in [
            "atcomm-20270115T080000.123",
            "atcomm-20270115T080000.123Z.new",
            ".atcomm-20270115T080000.123Z.new",
            "atcomm-backup.age",
            "atcomm-2027011xT080000.123Z",
            "",
        ] {
            assert!(!is_name(OsStr::new(other)), "{other}");
        }
    }
}
