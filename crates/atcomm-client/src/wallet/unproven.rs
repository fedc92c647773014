//! The room of mail that nothing proves to be of an account that is known.
//!
//! Any sender can write such mail, under as many keys as it likes. All of it together has one bound,
//! and within that each sending key has a share; anonymous mail shares one. Mail of verified accounts
//! and mail written with the key of a contact is not counted and not deleted.
//!
//! An empty file beside the file of a message, whose name has the group of its sender, says that the
//! message counts. Like the [show mark](super::mark), it costs no further sync, and the room can be
//! measured without reading messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::AccountStore;
use super::error::WalletError;
use super::file;
use super::mark;
use atcomm_net::durable;

/// Room for mail that is neither verified nor from a contact, in bytes on the disk: a small part of
/// any disk, and more than 10,000 letters.
pub const MAX_UNPROVEN: u64 = 64 << 20;

/// Share of one group of senders, in bytes. Only where no group has more are the groups treated
/// alike: else many keys with one message each would push out a sender with two.
pub const UNPROVEN_SHARE: u64 = MAX_UNPROVEN / 16;

/// What stays when room is made, so that it is not made again for each message.
const UNPROVEN_LEFT: u64 = MAX_UNPROVEN / 8 * 7;

/// Unit in which disks give room to files, in bytes.
const BLOCK: u64 = 4096;

/// Ending of the name of a mark.
const ENDING: &str = "unproven";

/// Length of a group in the name of a mark.
const GROUP_LEN: usize = 16;

/// A message that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counted {
    path: PathBuf,
    group: String,
    modified: SystemTime,
    /// Bytes on the disk.
    size: u64,
    /// Whether it was not shown yet: such a message stays.
    is_unshown: bool,
}

/// Returns the mark of a message from `from`; anonymous messages are one group.
fn mark_of(message: &Path, from: Option<&str>) -> PathBuf {
    let group = match from {
        Some(from) => file::name(&[from.as_bytes()]),
        None => "0".repeat(GROUP_LEN),
    };
    let group = group.get(..GROUP_LEN).unwrap_or_default();
    message.with_extension(format!("{group}.{ENDING}"))
}

/// Marks a message that is about to be saved.
pub(super) fn mark(message: &Path, from: Option<&str>) -> Result<(), WalletError> {
    let path = mark_of(message, from);
    // Creates it where it is missing, for its owner only; the lock itself is not needed.
    match durable::try_lock(&path) {
        Ok(_) => Ok(()),
        Err(error) => Err(WalletError::Unwritable { path, error }),
    }
}

/// Removes the mark of a message, if it has one.
pub(super) fn unmark(message: &Path, from: Option<&str>) {
    drop(std::fs::remove_file(mark_of(message, from)));
}

/// Renames the mark of a message along with the message.
pub(super) fn rename(before: &Path, after: &Path, from: Option<&str>) {
    drop(std::fs::rename(mark_of(before, from), mark_of(after, from)));
}

impl AccountStore {
    /// Deletes the oldest mail of senders that nothing proves, where it takes more than
    /// [`MAX_UNPROVEN`], and returns the number of messages that were deleted. Mail that was not shown
    /// yet is not among them. Safe concurrently.
    pub fn make_room(&self) -> Result<u64, WalletError> {
        let folder = self.mail();
        let _lock = file::lock(&folder, "lock")?;
        let mut deleted = 0;
        for one in surplus(
            counted(&folder)?,
            MAX_UNPROVEN,
            UNPROVEN_LEFT,
            UNPROVEN_SHARE,
        ) {
            if file::remove(&one.path)? {
                deleted += 1;
            }
            drop(std::fs::remove_file(
                one.path.with_extension(format!("{}.{ENDING}", one.group)),
            ));
        }
        Ok(deleted)
    }
}

/// Returns the messages of a folder that count.
fn counted(folder: &Path) -> Result<Vec<Counted>, WalletError> {
    let mut found = Vec::new();
    for entry in file::entries(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != ENDING) {
            continue;
        }
        let rest = path.with_extension("");
        let Some(group) = rest.extension().and_then(|group| group.to_str()) else {
            continue;
        };
        let message = rest.with_extension("json");
        match std::fs::metadata(&message).and_then(|meta| Ok((meta.modified()?, meta.len()))) {
            Ok((modified, len)) => found.push(Counted {
                group: group.to_owned(),
                modified,
                size: len.next_multiple_of(BLOCK),
                is_unshown: mark::is_marked(&message),
                path: message,
            }),
            // The message was not saved after its mark.
            Err(_) => drop(std::fs::remove_file(&path)),
        }
    }
    Ok(found)
}

/// Returns the messages to delete so that not more than `left` bytes stay, where all have more than
/// `max`: the oldest of the largest group first, as long as it has more than its share, and then the
/// oldest of all.
fn surplus(mut all: Vec<Counted>, max: u64, left: u64, share: u64) -> Vec<Counted> {
    let mut total: u64 = all.iter().map(|one| one.size).sum();
    let mut gone = Vec::new();
    if total <= max {
        return gone;
    }
    all.sort_by_key(|one| one.modified);
    let mut groups: BTreeMap<String, (u64, VecDeque<Counted>)> = BTreeMap::new();
    for one in all {
        let (size, queue) = groups.entry(one.group.clone()).or_default();
        *size += one.size;
        if !one.is_unshown {
            queue.push_back(one);
        }
    }
    let sizes = groups
        .iter()
        .map(|(group, (size, _))| (*size, group.clone()));
    let mut sizes: BTreeSet<(u64, String)> = sizes.collect();
    while total > left
        && let Some((size, group)) = sizes.pop_last()
        && size > share
    {
        // A group whose messages were not shown yet has nothing to give.
        let oldest = groups
            .get_mut(&group)
            .and_then(|(_, queue)| queue.pop_front());
        if let Some(one) = oldest {
            total -= one.size;
            sizes.insert((size - one.size, group));
            gone.push(one);
        }
    }
    let mut rest: Vec<Counted> = groups.into_values().flat_map(|(_, queue)| queue).collect();
    rest.sort_by_key(|one| one.modified);
    for one in rest {
        if total <= left {
            break;
        }
        total -= one.size;
        gone.push(one);
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KIB: u64 = 1024;

    fn message(group: &str, at: u64, size: u64) -> Counted {
        Counted {
            path: PathBuf::from(format!("{group}-{at}")),
            group: group.to_owned(),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(at),
            size,
            is_unshown: false,
        }
    }

    fn named(gone: &[Counted]) -> Vec<String> {
        let names = gone.iter().map(|one| one.path.display().to_string());
        names.collect()
    }

    fn surplus_of(all: Vec<Counted>) -> Vec<String> {
        named(&surplus(all, 100 * KIB, 80 * KIB, 20 * KIB))
    }

    #[test]
    fn inv7_a_flood_of_one_key_takes_the_room_of_no_other() {
        let mut all: Vec<_> = (0..10)
            .map(|n| message("flood", 100 + n, 10 * KIB))
            .collect();
        all.extend((0..3).map(|n| message("friend", n, KIB)));
        // The oldest of the flood go, although the others are older.
        assert_eq!(
            surplus_of(all.clone()),
            ["flood-100", "flood-101", "flood-102"]
        );
        all.truncate(9);
        assert_eq!(surplus_of(all), Vec::<String>::new());
    }

    #[test]
    fn inv7_many_keys_with_one_message_each_push_out_the_oldest_and_not_the_larger_sender() {
        let mut all: Vec<_> = (0..26)
            .map(|n| message(&format!("key{n}"), n, 4 * KIB))
            .collect();
        all.extend((50..53).map(|n| message("friend", n, 4 * KIB)));
        let gone = surplus_of(all);
        assert_eq!(gone.len(), 9);
        assert!(gone.iter().all(|name| name.starts_with("key")), "{gone:?}");
    }

    #[test]
    fn what_was_not_shown_yet_stays() {
        let mut all: Vec<_> = (0..11).map(|n| message("flood", n, 10 * KIB)).collect();
        for one in &mut all[..9] {
            one.is_unshown = true;
        }
        assert_eq!(surplus_of(all.clone()), ["flood-9", "flood-10"]);
        for one in &mut all {
            one.is_unshown = true;
        }
        assert_eq!(surplus_of(all), Vec::<String>::new());
    }
}
