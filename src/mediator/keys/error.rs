//! Errors of the mediator's keys.

use std::io;
use std::path::PathBuf;

use atcomm_net::durable::ReadError;
use atcomm_proto::did_peer::PeerDidError;
use atcomm_proto::didcomm::envelope::KeyError;
use atcomm_proto::didcomm::party::PartyError;

/// Errors of the keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error("cannot use the mediator's keys in {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        error: io::Error,
    },
    /// The file does not hold keys.
    #[error("{} does not hold the mediator's keys: {fault}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault of its contents.
        #[source]
        fault: KeyFileFault,
    },
    /// Other users may read the file.
    #[error("{} may be read by others than its owner", .0.display())]
    Exposed(PathBuf),
    /// The keys are missing, but mail that was received under them is not.
    #[error("the mediator's keys in {} are gone, but its store is not", .0.display())]
    Vanished(PathBuf),
    /// Keys could not be made.
    #[error("cannot make keys: {0}")]
    Making(#[from] KeyMakingError),
}

/// The fault of a file that does not hold keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileFault {
    /// The file is too long.
    #[error(transparent)]
    Length(ReadError),
    /// The file is not JSON with the fields of keys.
    #[error(transparent)]
    Json(serde_json::Error),
    /// The format is of another version.
    #[error("version {0} is not known")]
    Version(u32),
    /// A generation has the number 0.
    #[error("generations are counted from 1")]
    Number,
    /// A key is not encoded as it must be, or has another length.
    #[error("a key is not 32 bytes of base64url")]
    Key,
    /// The last generation is retired, or another one is not.
    #[error("there is no present generation")]
    NoPresent,
}

/// Errors of making keys and the identities that they belong to.
#[derive(Debug, thiserror::Error)]
pub enum KeyMakingError {
    /// No generation can be used now.
    #[error("every generation is retired")]
    Retired,
    /// The bytes of a key are not a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The keys and services do not make a `did:peer:2`.
    #[error(transparent)]
    Did(#[from] PeerDidError),
    /// The DID that was made does not resolve.
    #[error(transparent)]
    Party(#[from] PartyError),
    /// The keys cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}
