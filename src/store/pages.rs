//! The pages of a file: how many there are, and those that are given back.

use rusqlite::Connection;

use super::columns::{signed, unsigned};
use super::error::StoreError;
use super::stamp;

/// The mode of a file that gives pages back on demand.
const INCREMENTAL: u64 = 2;

/// Returns the bytes of the file, and how many of them are in free pages.
pub(super) fn file_bytes(conn: &Connection) -> Result<(u64, u64), StoreError> {
    let page = pragma(conn, "page_size")?;
    Ok((
        pragma(conn, "page_count")? * page,
        pragma(conn, "freelist_count")? * page,
    ))
}

/// Gives free pages back to the file system, at most `pages`, while more than `spare` are free:
/// under load free pages are soon used again, and moving pages costs writes. Returns how many pages
/// were given back: none of a file that was made without this.
pub(super) fn shrink(conn: &Connection, spare: u64, pages: u64) -> Result<u64, StoreError> {
    let before = pragma(conn, "freelist_count")?;
    let slice = before.saturating_sub(spare).min(pages);
    if slice == 0 {
        return Ok(0);
    }
    // Each step of the statement frees one page.
    let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({})", signed(slice)))?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    drop(rows);
    Ok(before.saturating_sub(pragma(conn, "freelist_count")?))
}

/// Rewrites a file that was made without the map of pages that [`shrink`] needs. A copy is made
/// meanwhile, in a temporary file and in the log. Where the disk has no room for that, the file stays
/// as it is: its free pages are used again, and not given back.
pub(super) fn make_reclaimable(conn: &Connection) {
    if pragma(conn, "auto_vacuum").is_ok_and(|mode| mode == INCREMENTAL) {
        return;
    }
    tracing::info!("a database is rewritten once, so that it can shrink from now on");
    // A commit that changes no table comes first in the log, which tells whose log it is.
    let rewritten = stamp::count(conn)
        .and_then(|()| Ok(conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")?));
    if let Err(error) = rewritten {
        tracing::warn!(%error, "a database could not be rewritten; the next start tries again");
    }
}

fn pragma(conn: &Connection, name: &str) -> Result<u64, StoreError> {
    let value = conn.pragma_query_value(None, name, |row| row.get(0))?;
    Ok(unsigned(value))
}
