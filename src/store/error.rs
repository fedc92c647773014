//! Errors of the store.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::types::FromSqlError;

use atcomm_proto::syntax::Did;

/// Errors of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk is full or the file cannot grow: nothing was written.
    #[error("no space left for the store")]
    Full,
    /// The file is damaged, or holds what this version never writes. A retry does not help.
    #[error("the store is damaged: {0}")]
    Corrupt(#[source] Damage),
    /// The file was written by a newer version.
    #[error("the store has schema version {found}, this version knows up to {known}")]
    Newer {
        /// Version in the file.
        found: i64,
        /// Newest version that this program knows.
        known: i64,
    },
    /// The write-ahead log beside the file is the log of another file, and would be replayed into
    /// this one. Nothing was changed.
    #[error("{} belongs to another state of the file: a copy was put in its place", .0.display())]
    ForeignLog(PathBuf),
    /// The system refuses an access to the file or its log.
    #[error("the store failed: {0}")]
    File(#[source] Arc<io::Error>),
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// Any other failure of the engine or the file system.
    #[error("the store failed: {0}")]
    Engine(#[source] EngineError),
    /// The writer's thread cannot be started.
    #[error("the store failed: {0}")]
    Thread(#[source] Arc<io::Error>),
    /// A value cannot be written as JSON.
    #[error("the store failed: {0}")]
    Json(#[source] Arc<serde_json::Error>),
}

/// The damage of a store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Damage {
    /// The engine finds the file damaged, or a column holds a value of the wrong form.
    #[error(transparent)]
    Engine(EngineError),
    /// An entry lacks a part that its state requires.
    #[error("the entry of {0} is incomplete")]
    Incomplete(Did),
    /// Stored values cannot be written as JSON.
    #[error(transparent)]
    Json(Arc<serde_json::Error>),
    /// The contents break a rule of this program.
    #[error("{0}")]
    Contents(&'static str),
}

/// An error of the engine, whose own types do not leave the store.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct EngineError(Arc<EngineCause>);

#[derive(Debug, thiserror::Error)]
enum EngineCause {
    #[error(transparent)]
    Statement(rusqlite::Error),
    #[error(transparent)]
    Column(FromSqlError),
}

impl From<rusqlite::Error> for EngineError {
    fn from(error: rusqlite::Error) -> Self {
        Self(Arc::new(EngineCause::Statement(error)))
    }
}

impl From<FromSqlError> for EngineError {
    fn from(error: FromSqlError) -> Self {
        Self(Arc::new(EngineCause::Column(error)))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(Damage::Engine(error.into()))
            }
            _ => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..) => {
                    Self::Corrupt(Damage::Engine(error.into()))
                }
                other => Self::Engine(other.into()),
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

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_error_keeps_its_cause() {
        let value = Did::parse("nonsense").unwrap_err();
        let conversion = rusqlite::Error::FromSqlConversionFailure(
            0,
            rusqlite::types::Type::Text,
            Box::new(value.clone()),
        );
        let text = conversion.to_string();
        let error = StoreError::from(conversion);
        assert_eq!(error.to_string(), format!("the store is damaged: {text}"));
        let damage = error.source().unwrap();
        assert_eq!(damage.to_string(), text);
        assert_eq!(
            damage.source().unwrap().to_string(),
            value.to_string(),
            "the parser's error"
        );
        let other = StoreError::from(rusqlite::Error::InvalidQuery);
        let engine = rusqlite::Error::InvalidQuery.to_string();
        assert_eq!(other.to_string(), format!("the store failed: {engine}"));
        assert_eq!(other.source().unwrap().to_string(), engine);
    }
}
