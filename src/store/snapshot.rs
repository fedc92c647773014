//! A consistent copy of `directory.db`, taken while a service may be writing it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};

use super::error::StoreError;
use super::file::DirectoryFile;

/// A copy that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Length of the copy in bytes.
    pub bytes: u64,
    /// Accounts in it.
    pub entries: u64,
}

/// Copies the directory's file at `from` to a new file at `to`, in one transaction: the copy holds
/// what was committed when it began, without free pages. The source is not changed. Fails where `to`
/// exists; what fails leaves nothing there.
pub fn snapshot(from: &Path, to: &Path) -> Result<Snapshot, StoreError> {
    if to.try_exists().map_err(file_error)? {
        return Err(file_error(io::ErrorKind::AlreadyExists.into()));
    }
    let source = DirectoryFile::open(from)?;
    let part = Part::create(to)?;
    source.conn.execute("VACUUM INTO ?1", [part.path()?])?;
    drop(source);
    part.complete(to)
}

/// The unfinished copy, deleted when it is dropped.
struct Part(PathBuf);

impl Part {
    /// Creates it beside the place of the copy, so that it can be moved there.
    fn create(to: &Path) -> Result<Self, StoreError> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let path = to.with_file_name(name);
        // The remains of an attempt that was interrupted.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file_error(error)),
            _ => {}
        }
        let created = OpenOptions::new().write(true).create_new(true).open(&path);
        created.map_err(file_error)?;
        Ok(Self(path))
    }

    fn path(&self) -> Result<&str, StoreError> {
        self.0
            .to_str()
            .ok_or_else(|| file_error(io::Error::other("the path is not UTF-8")))
    }

    fn complete(self, to: &Path) -> Result<Snapshot, StoreError> {
        let copy = Connection::open_with_flags(&self.0, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let entries: i64 = copy.query_row("SELECT count(*) FROM entry", [], |row| row.get(0))?;
        drop(copy);
        let file = File::open(&self.0).map_err(file_error)?;
        file.sync_all().map_err(file_error)?;
        let bytes = file.metadata().map_err(file_error)?.len();
        fs::rename(&self.0, to).map_err(file_error)?;
        Ok(Snapshot {
            bytes,
            entries: u64::try_from(entries).unwrap_or(0),
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Where it was moved there is nothing.
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns the rows of a question to a file, as any tool without this program's functions reads them.
/// A number that is not whole has one digit after the point.
#[cfg(test)]
pub(crate) fn read_rows(path: &Path, sql: &str) -> Vec<Vec<String>> {
    use rusqlite::types::ValueRef;

    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut query = conn.prepare(sql).unwrap();
    let columns = query.column_count();
    let rows = query.query_map([], |row| {
        let cells = (0..columns).map(|at| {
            Ok(match row.get_ref(at)? {
                ValueRef::Null => String::new(),
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Real(number) => format!("{number:.1}"),
                text => text.as_str()?.to_owned(),
            })
        });
        cells.collect::<Result<_, rusqlite::Error>>()
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn file_error(error: io::Error) -> StoreError {
    StoreError::File(Arc::new(error))
}

#[cfg(test)]
mod tests {
    use super::super::DirectoryStore;
    use super::*;

    #[tokio::test]
    async fn a_copy_is_taken_beside_the_writer_and_never_over_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("directory.db");
        let store = DirectoryStore::open(&from).unwrap();
        let to = dir.path().join("copy.db");
        // The remains of an attempt before.
        fs::write(dir.path().join("copy.db.part"), b"half").unwrap();
        let taken = snapshot(&from, &to).unwrap();
        assert_eq!(
            (taken.entries, taken.bytes),
            (0, fs::metadata(&to).unwrap().len())
        );
        assert!(!dir.path().join("copy.db.part").exists());
        assert!(matches!(snapshot(&from, &to), Err(StoreError::File(_))));
        assert!(store.is_healthy());
        // It is a directory like the one that it was taken of.
        DirectoryStore::open(&to).unwrap();
        for wrong in ["missing.db", "text.db"] {
            let wrong = dir.path().join(wrong);
            if wrong.ends_with("text.db") {
                fs::write(&wrong, "text").unwrap();
            }
            let never = dir.path().join("never.db");
            assert!(snapshot(&wrong, &never).is_err());
            assert!(!never.exists());
        }
    }
}
