//! Replaying the segments of a continuous copy.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::error::BackupError;
use super::seal::Identities;
use super::segment::{self, Link, Segment};
use super::sets;
use crate::mediator::KEYS_FILE;
use crate::store::MAILBOX_FILE;
use atcomm_net::durable::{self, Mode};
use atcomm_proto::clock::Timestamp;

/// Most files of a folder of segments: a year of two a second.
const MAX_SEGMENTS: usize = 70_000_000;

/// What was replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replayed {
    /// Number of segments.
    pub(super) segments: u64,
    /// When the last one was taken.
    pub(super) until: Timestamp,
}

/// Brings the files of a base in `staging` to the state of its last segment, or of the segment
/// `until`. Returns `None` for a set without segments.
///
/// # Errors
///
/// [`BackupError::Damaged`] where a segment is missing or was changed, with its name. Those before it
/// can be replayed with `until`.
pub(super) fn replay(
    set: &Path,
    identities: &Identities,
    staging: &Path,
    until: Option<u64>,
) -> Result<Option<Replayed>, BackupError> {
    let folder = sets::segments_of(set);
    let last = last_segment(&folder)?.min(until.unwrap_or(u64::MAX));
    if last == 0 {
        return Ok(None);
    }
    let path = staging.join(MAILBOX_FILE);
    let mailbox = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(BackupError::file(&path))?;
    let name = set.file_name().unwrap_or_default();
    let mut previous = segment::link(name.as_encoded_bytes());
    let mut until = Timestamp::from_millis(0);
    for sequence in 1..=last {
        let (segment, link) = read(&folder, identities, sequence, previous)?;
        segment
            .changes
            .apply(&mailbox)
            .map_err(BackupError::file(&path))?;
        if let Some(keys) = &segment.keys {
            let path = staging.join(KEYS_FILE);
            durable::replace(&path, keys, Mode::Private).map_err(BackupError::file(&path))?;
        }
        (previous, until) = (link, segment.at);
    }
    mailbox.sync_all().map_err(BackupError::file(&path))?;
    Ok(Some(Replayed {
        segments: last,
        until,
    }))
}

/// Returns the greatest number of a segment in a folder; 0 where there is none.
fn last_segment(folder: &Path) -> Result<u64, BackupError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(BackupError::file(folder)(error)),
    };
    let mut last = 0;
    for entry in entries.take(MAX_SEGMENTS) {
        let name = entry.map_err(BackupError::file(folder))?.file_name();
        last = last.max(number(&name).unwrap_or(0));
    }
    Ok(last)
}

/// Returns the number of a segment by the name of its file.
fn number(name: &OsStr) -> Option<u64> {
    let number = name.to_str()?.strip_suffix(".age")?.parse().ok()?;
    (segment::file_name(number).as_str() == name).then_some(number)
}

/// Reads a segment that follows `previous`. Returns what its successor names it by, too.
fn read(
    folder: &Path,
    identities: &Identities,
    sequence: u64,
    previous: Link,
) -> Result<(Segment, Link), BackupError> {
    let name = segment::file_name(sequence);
    let path = folder.join(&name);
    let damaged = |reason: &str| BackupError::Damaged {
        file: path.display().to_string(),
        reason: reason.to_owned(),
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("it is missing, and others follow it"));
        }
        Err(error) => return Err(BackupError::file(&path)(error)),
    };
    let length = file.metadata().map_err(BackupError::file(&path))?.len();
    if length > segment::MAX_LEN {
        return Err(damaged("it is too long"));
    }
    let mut plain = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0)));
    identities.open(file.take(segment::MAX_LEN), &mut *plain, &name)?;
    let segment = Segment::parse(&plain).map_err(|error| damaged(&error.to_string()))?;
    if segment.sequence != sequence || segment.previous != previous {
        return Err(damaged("it does not follow the one before it"));
    }
    let link = segment::link(&plain);
    Ok((segment, link))
}
