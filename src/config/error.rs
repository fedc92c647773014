//! Errors of loading the configuration.

use std::io;
use std::path::PathBuf;

use figment::providers::{Format, Toml};

/// Error of the TOML parser.
pub(super) type TomlError = <Toml as Format>::Error;

/// Errors while loading the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        error: io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// Path of the file.
        path: PathBuf,
        /// Message of the parser, with the line.
        reason: String,
        /// Error of the parser.
        #[source]
        error: Box<TomlError>,
    },
    /// A key does not exist.
    #[error("unknown key {key} in {origin}")]
    UnknownKey {
        /// Key with its sections.
        key: String,
        /// File, variable or flag that sets the key.
        origin: String,
        /// Keys that exist in the section.
        known: &'static [&'static str],
    },
    /// A value has the wrong type or is out of range.
    #[error("{key} in {origin}: {reason}")]
    Value {
        /// Key with its sections.
        key: String,
        /// File, variable or flag that sets the value.
        origin: String,
        /// Reason of the refusal.
        reason: String,
        /// Error of the reader.
        #[source]
        error: Box<figment::Error>,
    },
}
