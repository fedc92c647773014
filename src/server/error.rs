//! Errors of the service.

use std::io;
use std::path::PathBuf;

use crate::http::HttpError;
use crate::ingest::IngestError;
use crate::mediator::MediatorError;
use crate::store::StoreError;
use atcomm_net::net::NetError;
use atcomm_proto::syntax::SyntaxError;

/// Errors of starting and running the service.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {}: {error}", path.display())]
    DataDir {
        /// Path of the directory.
        path: PathBuf,
        /// Error of the system.
        #[source]
        error: io::Error,
    },
    /// Another process has locked the data directory.
    #[error("the data directory {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// A store cannot be opened.
    #[error("cannot open {}: {error}", path.display())]
    Store {
        /// File of the store.
        path: PathBuf,
        /// Error of the store.
        #[source]
        error: StoreError,
    },
    /// The folder of the datasets cannot be used.
    #[error("cannot use {}: {error}", path.display())]
    Datasets {
        /// Path of the folder.
        path: PathBuf,
        /// Error of the system.
        #[source]
        error: io::Error,
    },
    /// The settings of outbound connections cannot be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The settings of the sources cannot be used.
    #[error(transparent)]
    Sources(#[from] IngestError),
    /// A listener cannot be bound.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The public address of the server is malformed.
    #[error("http.public_url: {0}")]
    PublicUrl(#[source] SyntaxError),
    /// Directory and mediator are given different addresses.
    #[error(
        "http.public_url and mediator.public_url differ: one server has one address and one DID; \
         leave one of them out"
    )]
    TwoAddresses,
    /// The mediator cannot be opened.
    #[error(transparent)]
    Mediator(#[from] MediatorError),
    /// The admin socket cannot be bound.
    #[error("cannot listen on admin.sock in the data directory: {0}")]
    Admin(#[source] io::Error),
    /// Another recorder of metrics is installed in this process.
    #[error("metrics are recorded elsewhere in this process")]
    Recorder,
    /// A task ended before the service was told to stop: a defect, described in the log.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

impl ServerError {
    /// Returns whether the configuration has to be changed.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Net(_)
                | Self::Sources(_)
                | Self::PublicUrl(_)
                | Self::TwoAddresses
                | Self::Mediator(MediatorError::Address(_))
        )
    }
}
