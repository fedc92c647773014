//! Errors of the store.

/// Errors of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk is full or the file cannot grow: nothing was written.
    #[error("no space left for the store")]
    Full,
    /// The file is damaged, or holds what this version never writes. A retry does not help.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The file was written by a newer version.
    #[error("the store has schema version {found}, this version knows up to {known}")]
    Newer {
        /// Version in the file.
        found: i64,
        /// Newest version that this program knows.
        known: i64,
    },
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// Any other failure of the engine or the file system.
    #[error("the store failed: {0}")]
    Engine(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(error.to_string())
            }
            _ => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..) => Self::Corrupt(error.to_string()),
                other => Self::Engine(other.to_string()),
            },
        }
    }
}

/// The end of a transaction that wrote nothing: [`MailboxStore::attempt`](super::MailboxStore::attempt).
#[derive(Debug, Clone)]
pub enum Abort<R> {
    /// The work gave up, for this reason.
    Refused(R),
    /// The store failed.
    Store(StoreError),
}

impl<R> From<StoreError> for Abort<R> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
