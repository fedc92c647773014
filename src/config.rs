//! The configuration: one TOML file, the environment and flags over the defaults.
//!
//! Later ones win: defaults, file, environment (`ATCOMM_HTTP__LISTEN` is `listen` under `[http]`),
//! flags. Every module owns the settings it understands; this one collects them and says where a
//! wrong one came from. `deploy/config.example.toml` shows every key with its default.

mod source;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use serde::{Deserialize, Serialize};

use crate::http::HttpSettings;
use crate::ingest::{SourceKind, SourceSettings};
use crate::mediator::MediatorSettings;
use crate::resolve::ResolveSettings;
use atcomm_client::ClientSettings;
use atcomm_net::identity::IdentitySettings;
use atcomm_net::net::NetSettings;

use source::Layer;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the store lies. Absent: `$XDG_DATA_HOME/atcomm`, else `~/.local/share/atcomm`, else
    /// `atcomm-data` in the working directory.
    pub data_dir: PathBuf,
    /// The public listener.
    pub http: HttpSettings,
    /// The listener for metrics.
    pub metrics: MetricsSettings,
    /// The log.
    pub log: LogSettings,
    /// Everything that dials out.
    pub net: NetSettings,
    /// Look-ups of identities.
    pub identity: IdentitySettings,
    /// Looks at accounts.
    pub resolve: ResolveSettings,
    /// The directory.
    pub directory: DirectorySettings,
    /// The mediator.
    pub mediator: MediatorSettings,
    /// The client; nothing that `serve` reads.
    pub client: ClientSettings,
    /// What is followed and walked. Absent: two public Jetstream hosts to follow and a public
    /// relay to walk. Empty: nothing, and accounts are looked at when somebody asks for them.
    pub sources: Vec<SourceSettings>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: default_data_dir(|name| std::env::var_os(name)),
            http: HttpSettings::default(),
            metrics: MetricsSettings::default(),
            log: LogSettings::default(),
            net: NetSettings::default(),
            identity: IdentitySettings::default(),
            resolve: ResolveSettings::default(),
            directory: DirectorySettings::default(),
            mediator: MediatorSettings::default(),
            client: ClientSettings::default(),
            sources: public_sources(),
        }
    }
}

/// Where metrics are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Address of `/metrics`, for the operator's network only. Absent: nothing is measured or
    /// shown.
    pub listen: Option<SocketAddr>,
}

/// What is logged, and how. The log goes to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Filter as of the `tracing` crates, such as `info` or `atcomm=debug,warn`. Absent: `info`.
    pub filter: String,
    /// Form of the lines. Absent: `text`.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// Form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectorySettings {
    /// Memory for rendered answers, in bytes; one takes about 4 KiB. Absent: 64 MiB.
    pub answers_cache: u64,
}

impl Default for DirectorySettings {
    fn default() -> Self {
        Self {
            answers_cache: 64 << 20,
        }
    }
}

/// What flags set.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `http.listen`.
    pub listen: Option<SocketAddr>,
    /// `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// `metrics.listen`.
    pub metrics: Option<SocketAddr>,
    /// `log.filter`.
    pub log: Option<String>,
    /// `client.home`.
    pub home: Option<PathBuf>,
    /// `client.directory`.
    pub directory: Option<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// A key that does not exist.
    #[error("unknown key {key} in {origin}")]
    UnknownKey {
        /// The key with its sections.
        key: String,
        /// The file, variable or flag.
        origin: String,
        /// Keys that exist in that place.
        known: &'static [&'static str],
    },
    /// A value that does not fit.
    #[error("{key} in {origin}: {reason}")]
    Value {
        /// The key with its sections.
        key: String,
        /// The file, variable or flag.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ConfigError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownKey { known, .. } => format!("keys known there: {}", known.join(", ")),
            _ => "deploy/config.example.toml shows every key with its default".to_owned(),
        }
    }
}

impl Config {
    /// The directory of the wallet.
    pub fn home(&self) -> PathBuf {
        let default = || default_data_dir(|name| std::env::var_os(name)).join("wallet");
        self.client.home.clone().unwrap_or_else(default)
    }

    /// Reads the file, if one is named, and the process's environment.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            // What is not text cannot be one of ours.
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::read(file, environment, overrides)
    }

    /// The same with another environment.
    fn read(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            figment = figment.merge(Layer::file(path)?);
        }
        for (name, value) in environment {
            if let Some(layer) = Layer::variable(&name, &value) {
                figment = figment.merge(layer);
            }
        }
        for layer in overrides.layers() {
            figment = figment.merge(layer);
        }
        figment
            .extract()
            .map_err(|error| source::explain(&figment, error))
    }
}

impl Overrides {
    fn layers(&self) -> impl Iterator<Item = Layer> {
        let address = |address: SocketAddr| address.to_string();
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        [
            ("--listen", "http.listen", self.listen.map(address)),
            ("--data-dir", "data_dir", self.data_dir.as_ref().map(path)),
            ("--metrics", "metrics.listen", self.metrics.map(address)),
            ("--log", "log.filter", self.log.clone()),
            ("--home", "client.home", self.home.as_ref().map(path)),
            ("--directory", "client.directory", self.directory.clone()),
        ]
        .into_iter()
        .filter_map(|(flag, key, value)| Some(Layer::flag(flag, key, value?)))
    }
}

/// Where data lies unless it is said; `environment` reads a variable.
fn default_data_dir(environment: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let folder = |name| {
        environment(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    // A relative path in the variable is to be ignored (XDG base directory specification).
    let share = folder("XDG_DATA_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local").join("share")));
    share.map_or_else(
        || PathBuf::from("atcomm-data"),
        |share| share.join("atcomm"),
    )
}

/// Jetstream tells of changes and has nothing to enumerate, so the first walk goes to a relay.
fn public_sources() -> Vec<SourceSettings> {
    let source = |url: &str, kind| SourceSettings {
        url: url.to_owned(),
        connect: None,
        kind,
        stream: kind == SourceKind::Jetstream,
        walk: kind == SourceKind::Relay,
    };
    vec![
        source(
            "wss://jetstream1.us-east.bsky.network",
            SourceKind::Jetstream,
        ),
        source(
            "wss://jetstream2.us-east.bsky.network",
            SourceKind::Jetstream,
        ),
        source("https://relay1.us-east.bsky.network", SourceKind::Relay),
    ]
}
