//! Segments of the continuous copy: what the commits of about a second have changed in `mailbox.db`.
//!
//! A segment holds the changed pages of the file as the last commit left them, so replaying a segment
//! gives the exact file of that moment with its indexes and counters. In plain, all numbers big-endian:
//!
//! ```text
//! "atcomm segment/1\n"
//! u64  sequence, from 1 on
//! [32] SHA-256 of the segment before; of the first, the digest of its beginning
//! i64  milliseconds since 1970 at which it was taken
//! u32  bytes of a page
//! u32  pages of the file
//! u32  changed pages, each: u32 its number, then its bytes
//! u32  length of the keys that changed with it, and the keys; 0: they did not
//! ```
//!
//! It is encrypted to the recipients of the backup.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::store::Changes;
use atcomm_proto::clock::Timestamp;

const MAGIC: &[u8] = b"atcomm segment/1\n";

/// Longest segment that is read, in bytes.
pub(super) const MAX_LEN: u64 = 256 << 20;

/// SHA-256 of a segment.
pub(super) type Link = [u8; 32];

/// A segment.
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) previous: Link,
    pub(super) at: Timestamp,
    pub(super) changes: Changes,
    /// The file of the mediator's keys, where it changed.
    pub(super) keys: Option<Zeroizing<Vec<u8>>>,
}

/// Shows neither pages nor keys.
impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("sequence", &self.sequence)
            .field("pages", &self.changes.pages.len())
            .finish_non_exhaustive()
    }
}

/// Why a segment cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no segment of this version")]
pub(super) struct Malformed;

/// Returns the name of a segment's file.
pub(super) fn file_name(sequence: u64) -> String {
    format!("{sequence:010}.age")
}

/// Returns what a segment's successor names it by.
pub(super) fn link(plain: &[u8]) -> Link {
    Sha256::digest(plain).into()
}

impl Segment {
    /// Returns the segment in plain.
    pub(super) fn to_vec(&self) -> Zeroizing<Vec<u8>> {
        let keys: &[u8] = self.keys.as_ref().map_or(&[], |keys| keys);
        let page_bytes = 4 + self.changes.page_size as usize;
        let length = 128 + self.changes.pages.len() * page_bytes + keys.len();
        // With its final size from the start, so that no part of the keys stays behind unwiped.
        let mut plain = Zeroizing::new(Vec::with_capacity(length));
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        plain.extend_from_slice(MAGIC);
        plain.extend_from_slice(&self.sequence.to_be_bytes());
        plain.extend_from_slice(&self.previous);
        plain.extend_from_slice(&self.at.millis().to_be_bytes());
        plain.extend_from_slice(&self.changes.page_size.to_be_bytes());
        plain.extend_from_slice(&self.changes.size.to_be_bytes());
        plain.extend_from_slice(&count(self.changes.pages.len()));
        for (number, page) in &self.changes.pages {
            plain.extend_from_slice(&number.to_be_bytes());
            plain.extend_from_slice(page);
        }
        plain.extend_from_slice(&count(keys.len()));
        plain.extend_from_slice(keys);
        plain
    }

    /// Reads a segment in plain. Random bytes give an error.
    pub(super) fn parse(plain: &[u8]) -> Result<Self, Malformed> {
        let mut rest = plain.strip_prefix(MAGIC).ok_or(Malformed)?;
        let sequence = u64::from_be_bytes(array(&mut rest)?);
        let previous = array(&mut rest)?;
        let at = Timestamp::from_millis(i64::from_be_bytes(array(&mut rest)?));
        let page_size = u32::from_be_bytes(array(&mut rest)?);
        let size = u32::from_be_bytes(array(&mut rest)?);
        let count = u32::from_be_bytes(array(&mut rest)?);
        let is_page_size = page_size.is_power_of_two() && (512..=65_536).contains(&page_size);
        if count > 0 && !is_page_size {
            return Err(Malformed);
        }
        let mut changes = Changes {
            page_size,
            size,
            ..Changes::default()
        };
        for _ in 0..count {
            let number = u32::from_be_bytes(array(&mut rest)?);
            let page = rest.split_off(..page_size as usize).ok_or(Malformed)?;
            // Each page once, in order.
            let is_next = changes
                .pages
                .last_key_value()
                .is_none_or(|(last, _)| number > *last);
            if number == 0 || !is_next {
                return Err(Malformed);
            }
            changes.pages.insert(number, page.to_vec());
        }
        let length = u32::from_be_bytes(array(&mut rest)?) as usize;
        if rest.len() != length {
            return Err(Malformed);
        }
        Ok(Self {
            sequence,
            previous,
            at,
            changes,
            keys: (length > 0).then(|| Zeroizing::new(rest.to_vec())),
        })
    }
}

/// Takes an array from the beginning of bytes.
fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (array, left) = rest.split_first_chunk().ok_or(Malformed)?;
    *rest = left;
    Ok(*array)
}
