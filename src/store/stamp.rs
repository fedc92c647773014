//! The stamp of a file, which tells whether the log beside the file is its own.
//!
//! A crash leaves a file and its log, which the engine replays at the next start. It would replay
//! any log beside any file: where a copy was put in the place of the file, the log of the file that
//! was there before makes the copy vanish, or mixes the pages of two states.
//!
//! So every commit adds one to a number in the first page of the file, in the field that the format
//! leaves to programs (`application_id`). A file stands before the first commit of its log, and then
//! lacks one of the number that this commit left; or a checkpoint has put a later state of the first
//! page into it, which is in the log, too. A file of which neither holds is not the file of that
//! log. Commits of other programs do not count, so that a file may also have the same number.
//!
//! A copy made by the engine's tools has another schema cookie than its original, which tells it
//! from the file where the numbers do not.
//!
//! The formats are those of <https://sqlite.org/fileformat2.html>, sections 1.3 and 4.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::ops::RangeInclusive;
use std::path::Path;

use rusqlite::Connection;

use super::error::StoreError;

/// Bytes of the header at the start of the first page.
const HEADER: usize = 100;

/// Places in the header: the number of changes of the schema, the version of the schema, the stamp.
const COOKIE_AT: usize = 40;
const VERSION_AT: usize = 60;
const STAMP_AT: usize = 68;

/// Bytes before the frames of a log, and before the page of a frame.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Sizes of the engine's pages.
const PAGE_SIZES: RangeInclusive<u32> = 512..=65_536;

type Header = [u8; HEADER];

/// Counts the stamp in the open transaction of the writer.
pub(super) fn count(conn: &Connection) -> Result<(), StoreError> {
    let stamp: i32 = conn
        .prepare_cached("PRAGMA application_id")?
        .query_row([], |row| row.get(0))?;
    set(conn, stamp.wrapping_add(1))
}

/// Gives a file that has no page yet its first stamp, so that the files of two stores differ.
pub(super) fn begin(conn: &Connection) -> Result<(), StoreError> {
    let stamp: i64 = conn.query_row("SELECT random() >> 34", [], |row| row.get(0))?;
    set(conn, i32::try_from(stamp).unwrap_or_default())
}

fn set(conn: &Connection, stamp: i32) -> Result<(), StoreError> {
    Ok(conn.execute_batch(&format!("PRAGMA application_id = {stamp}"))?)
}

/// Returns whether the log beside a file that no process has open is the file's own. A log without
/// a commit is anybody's.
pub(super) fn is_own_log(file: &Path, log: &Path) -> io::Result<bool> {
    let Some(log) = opened(log)? else {
        return Ok(true);
    };
    let Some(mut file) = opened(file)? else {
        // The engine deletes a log without a file.
        return Ok(true);
    };
    let Some(mut log) = Frames::of(BufReader::with_capacity(1 << 18, log))? else {
        return Ok(true);
    };
    let mut header = [0; HEADER];
    if !fills(&mut file, &mut header)? {
        return Ok(log.next_commit()?.is_none());
    }
    let mut first = true;
    while let Some(page) = log.next_commit()? {
        let Some(state) = page else { continue };
        // The header fits one sector, so the disk holds it whole even after a loss of power.
        if header == state || first && comes_before(&header, &state) {
            return Ok(true);
        }
        first = false;
    }
    Ok(first)
}

/// Returns whether the first commit of a log, which left `state`, can have been made on a file.
fn comes_before(file: &Header, state: &Header) -> bool {
    let field = |header, at| word(header, at, true);
    let counted = field(state, STAMP_AT).wrapping_sub(field(file, STAMP_AT));
    let same_version = field(file, VERSION_AT) == field(state, VERSION_AT);
    let same_schema = field(file, COOKIE_AT) == field(state, COOKIE_AT);
    counted <= 1 && (same_schema || !same_version)
}

fn opened(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a word of four bytes.
fn word(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let mut word = [0; 4];
    for (to, from) in word.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    if big_endian {
        u32::from_be_bytes(word)
    } else {
        u32::from_le_bytes(word)
    }
}

/// Fills a buffer. Returns `false` where the file ends before.
fn fills(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The frames of a log that the engine would replay.
struct Frames<R> {
    log: R,
    salt: [u8; 8],
    big_endian: bool,
    sum: (u32, u32),
    page: Vec<u8>,
}

impl<R: Read> Frames<R> {
    /// Reads the header of a log. Returns `None` where the engine would replay nothing.
    fn of(mut log: R) -> io::Result<Option<Self>> {
        let mut header = [0; LOG_HEADER];
        if !fills(&mut log, &mut header)? {
            return Ok(None);
        }
        let magic = word(&header, 0, true);
        let page = word(&header, 8, true);
        if magic & !1 != 0x377f_0682 || !page.is_power_of_two() || !PAGE_SIZES.contains(&page) {
            return Ok(None);
        }
        let mut salt = [0; 8];
        salt.copy_from_slice(&header[16..24]);
        let mut frames = Self {
            log,
            salt,
            big_endian: magic & 1 == 1,
            sum: (0, 0),
            page: vec![0; page as usize],
        };
        frames.sum = frames.summed((0, 0), &header[..24]);
        let told = (word(&header, 24, true), word(&header, 28, true));
        Ok((frames.sum == told).then_some(frames))
    }

    /// Reads up to the end of the next commit. Returns the header that the commit leaves in the
    /// first page of the file, if it changes that page, or `None` after the last commit.
    fn next_commit(&mut self) -> io::Result<Option<Option<Header>>> {
        let mut state = None;
        loop {
            let mut frame = [0; FRAME_HEADER];
            if !fills(&mut self.log, &mut frame)? || frame[8..16] != self.salt {
                return Ok(None);
            }
            let mut page = std::mem::take(&mut self.page);
            let whole = fills(&mut self.log, &mut page)?;
            self.sum = self.summed(self.summed(self.sum, &frame[..8]), &page);
            if word(&frame, 0, true) == 1 {
                let mut header = [0; HEADER];
                header.copy_from_slice(&page[..HEADER]);
                state = Some(header);
            }
            self.page = page;
            if !whole || self.sum != (word(&frame, 16, true), word(&frame, 20, true)) {
                return Ok(None);
            }
            if word(&frame, 4, true) != 0 {
                return Ok(Some(state));
            }
        }
    }

    /// Adds bytes, an even number of words, to a checksum of the log.
    fn summed(&self, (mut a, mut b): (u32, u32), bytes: &[u8]) -> (u32, u32) {
        for pair in bytes.chunks_exact(8) {
            a = a
                .wrapping_add(word(pair, 0, self.big_endian))
                .wrapping_add(b);
            b = b
                .wrapping_add(word(pair, 4, self.big_endian))
                .wrapping_add(a);
        }
        (a, b)
    }
}
