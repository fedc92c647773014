//! Schemas and their migrations. Times are milliseconds since 1970, identifiers are text, so that
//! a snapshot can be read with any SQLite tool.

use rusqlite::Connection;

use super::StoreError;

mod directory;
mod mailbox;

pub(super) use directory::DIRECTORY;
pub(super) use mailbox::MAILBOX;

/// One step of a schema: run in order, once, in a transaction.
pub(super) type Migration = &'static str;

/// What a file is made of.
pub(super) struct Schema {
    /// Whether pages that fall free can be given back to the file system, in slices and on
    /// demand. Takes effect only when the file is created.
    pub(super) reclaims: bool,
    /// How the tables came to be, from the first version on.
    pub(super) migrations: &'static [Migration],
}

/// Brings the file from its version to the newest, each step in its own transaction.
pub(super) fn migrate(conn: &Connection, migrations: &[Migration]) -> Result<(), StoreError> {
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    let done = usize::try_from(found)
        .map_err(|_| StoreError::Corrupt("negative schema version".to_owned()))?;
    for (step, migration) in (1_i64..).zip(migrations).skip(done) {
        conn.execute_batch(&format!(
            "BEGIN IMMEDIATE; {migration}; PRAGMA user_version = {step}; COMMIT;"
        ))?;
    }
    Ok(())
}
