//! Errors of datasets.

use std::io;

use crate::store::StoreError;
use crate::store::directory::Day;

/// Why a dataset was not made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The directory's file cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be written.
    #[error("a file cannot be written: {0}")]
    File(#[from] io::Error),
    /// A table cannot be written as Parquet.
    #[error("a table cannot be written as Parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// A description cannot be written as JSON.
    #[error("a description cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// Its place is taken.
    #[error("it exists")]
    Exists,
    /// The series has no closed day yet.
    #[error("no day of the time series is closed yet")]
    NoClosedDay,
    /// No closed day of the series is among those that were asked for.
    #[error("the closed days are {first} to {last}")]
    NoSuchDays {
        /// The first day of the series.
        first: Day,
        /// The last day that is closed.
        last: Day,
    },
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}
