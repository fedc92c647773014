//! Errors of backups.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::{CopyError, StoreError};

/// Errors of making and restoring a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The data directory has no store.
    #[error("there is no store in {}", .0.display())]
    NoStore(PathBuf),
    /// The mailbox has no keys beside it.
    #[error("there is no {} beside the mailbox", .0.display())]
    NoKeys(PathBuf),
    /// Another process makes a backup in the same folder.
    #[error("another process makes a backup in {}", .0.display())]
    Busy(PathBuf),
    /// A file cannot be copied.
    #[error("cannot copy {}: {error}", path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: CopyError,
    },
    /// A file or folder cannot be used.
    #[error("cannot use {}: {error}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
    /// A recipient is not one of age.
    #[error("{0:?} is no recipient of age: one begins with age1")]
    Recipient(String),
    /// A continuous copy has no recipients.
    #[error("a continuous copy is encrypted, and backup.recipients names no recipient")]
    NoRecipients,
    /// A file has no identities of age.
    #[error("there is no identity of age in it: {0}")]
    Identity(String),
    /// The folder is no set.
    #[error("{} is no backup: {reason}", path.display())]
    NotASet {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The set was damaged.
    #[error("the backup is damaged: {file}: {reason}")]
    Damaged {
        /// The file in the set.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The set is encrypted and no identity was given.
    #[error("the backup is encrypted")]
    Encrypted,
    /// No identity opens the set.
    #[error("none of the identities opens the backup")]
    WrongIdentity,
    /// The set was made by a newer version.
    #[error(
        "the backup is of atcomm {version}, whose {file} has schema version {found}; this version \
         knows up to {known}"
    )]
    Newer {
        /// The version that made it.
        version: String,
        /// The file.
        file: &'static str,
        /// Schema version of the file.
        found: i64,
        /// Newest version that is known.
        known: i64,
    },
    /// A process uses the data directory.
    #[error("the data directory {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The data directory has files of a store.
    #[error("{} is there already", .0.display())]
    Occupied(PathBuf),
    /// The caller ended it.
    #[error("it was stopped")]
    Stopped,
}

impl BackupError {
    /// Returns the error of the system about a file.
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::File { path, error }
    }

    /// Returns the error of copying a file.
    pub(super) fn copy(path: &Path, error: CopyError) -> Self {
        match error {
            CopyError::Stopped => Self::Stopped,
            error => Self::Copy {
                path: path.to_owned(),
                error,
            },
        }
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Copy { error, .. } => matches!(error, CopyError::Store(StoreError::Full)),
            Self::File { error, .. } => matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::FileTooLarge
                    | io::ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
    }
}
