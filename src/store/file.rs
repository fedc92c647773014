//! `directory.db`, read beside the service that writes it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::database::in_snapshot;
use super::directory::Queries;
use super::error::StoreError;
use super::schema;

/// Longest wait for a lock of the service.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The directory's file, open for reading. A service may write it meanwhile.
pub struct DirectoryFile {
    pub(super) conn: Connection,
}

impl DirectoryFile {
    /// Opens a file of the newest version. Changes nothing in it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(LOCK_TIMEOUT)?;
        schema::check(&conn, &schema::DIRECTORY)?;
        schema::add_functions(&conn)?;
        Ok(Self { conn })
    }

    /// Runs `work` on one state of the file. The log of a service that writes grows until `work`
    /// returns, so it waits for nothing but the disk.
    pub fn query<T>(
        &self,
        work: impl FnOnce(&Queries<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        in_snapshot(&self.conn, |conn| work(&Queries::new(conn)))
    }
}
