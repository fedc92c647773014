//! The configuration: defaults, overridden by one TOML file, the environment and flags.
//!
//! Later layers win: defaults, file, environment (`ATCOMM_HTTP__LISTEN` is `listen` under `[http]`),
//! flags. Every module defines its own settings; this module collects them, and its errors name the
//! origin of a wrong one. `deploy/config.example.toml` shows every key with its default.

mod error;
mod source;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use serde::{Deserialize, Serialize};

use crate::dataset::{DatasetRequest, DatasetSettings};
use crate::directory::Limits;
use crate::http::{HttpSettings, optional_listen};
use crate::ingest::{SourceKind, SourceSettings};
use crate::mediator::MediatorSettings;
use crate::resolve::ResolveSettings;
use atcomm_client::ClientSettings;
use atcomm_net::identity::IdentitySettings;
use atcomm_net::net::NetSettings;
use atcomm_proto::syntax::Origin;

pub use error::ConfigError;

use source::Layer;

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of the stores. Absent: `$XDG_DATA_HOME/atcomm`, else `~/.local/share/atcomm`, else
    /// `atcomm-data` in the working directory.
    pub data_dir: PathBuf,
    /// The public listener.
    pub http: HttpSettings,
    /// The listener for metrics.
    pub metrics: MetricsSettings,
    /// The log of `serve`.
    pub log: LogSettings,
    /// Outbound connections.
    pub net: NetSettings,
    /// Look-ups of identities.
    pub identity: IdentitySettings,
    /// Refreshes of accounts.
    pub resolve: ResolveSettings,
    /// The directory.
    pub directory: DirectorySettings,
    /// Datasets of the time series.
    pub dataset: DatasetSettings,
    /// The mediator.
    pub mediator: MediatorSettings,
    /// The client. Not read by `serve`.
    pub client: ClientSettings,
    /// Sources of records: streams to follow and hosts to enumerate. Absent: two public Jetstream
    /// hosts to follow and a public relay to enumerate. Empty: none, and an account is refreshed
    /// when a client asks for it.
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
            dataset: DatasetSettings::default(),
            mediator: MediatorSettings::default(),
            client: ClientSettings::default(),
            sources: public_sources(),
        }
    }
}

/// The listener for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Address that serves `/metrics`, for the operator's network only. Absent: no metrics are
    /// recorded or served.
    #[serde(deserialize_with = "optional_listen")]
    pub listen: Option<SocketAddr>,
}

/// Filter and format of the log, which is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Filter in the syntax of the `tracing` crates, such as `info` or `atcomm=debug,warn`. Absent: `info`.
    pub filter: String,
    /// Format of the lines. Absent: `text`.
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

/// Format of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectorySettings {
    /// Memory for cached recipient views, in bytes; a view takes about 4 KiB. Absent: 64 MiB.
    pub answers_cache: u64,
    /// Bytes that accounts may take in `directory.db` together: above it no new ones are kept. One
    /// domain takes at most half, and what only clients ask for a quarter. A usual account takes
    /// about 6 KiB. Absent: 8 GiB, which is room for a million accounts.
    pub max_bytes: u64,
    /// Accounts of one registrable domain that are kept because clients ask for them. Accounts that
    /// a source names do not count. Absent: 1000.
    pub asked_per_domain: u64,
    /// Age at which changes of an account are deleted, but for the newest. Absent: 365 days.
    #[serde(with = "humantime_serde")]
    pub history: Duration,
}

impl DirectorySettings {
    /// Returns the limits of the file of a service whose own PDSes are `own`.
    pub fn limits(&self, own: BTreeSet<Origin>) -> Limits {
        Limits {
            asked_per_domain: self.asked_per_domain,
            max_bytes: self.max_bytes,
            history: self.history,
            own,
        }
    }
}

impl Default for DirectorySettings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            answers_cache: 64 << 20,
            max_bytes: limits.max_bytes,
            asked_per_domain: limits.asked_per_domain,
            history: limits.history,
        }
    }
}

/// Settings that flags override.
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

impl Config {
    /// Returns the directory of the wallet.
    pub fn home(&self) -> PathBuf {
        let default = || default_data_dir(|name| std::env::var_os(name)).join("wallet");
        self.client.home.clone().unwrap_or_else(default)
    }

    /// Returns what a dataset is made of: the closed days, as the service publishes them.
    pub fn dataset_request(&self) -> DatasetRequest {
        let url = self.http.public_url.as_ref();
        let url = url.or(self.mediator.public_url.as_ref());
        let origin = url.and_then(|url| Origin::parse(url).ok());
        DatasetRequest {
            since: None,
            until: None,
            settings: self.dataset.clone(),
            origin: origin.map(|origin| origin.to_string()),
        }
    }

    /// Loads the file, if one is named, and the environment of the process.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            // A variable that is not UTF-8 cannot be a setting.
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::read(file, environment, overrides)
    }

    /// Loads the file with the given environment.
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

/// Returns the data directory that applies without a setting; `environment` reads a variable.
fn default_data_dir(environment: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let folder = |name| {
        environment(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    // The XDG base directory specification says to ignore relative paths.
    let share = folder("XDG_DATA_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local").join("share")));
    share.map_or_else(
        || PathBuf::from("atcomm-data"),
        |share| share.join("atcomm"),
    )
}

/// Returns the public sources. A Jetstream reports changes only, so a relay is enumerated once for
/// the accounts that exist already.
fn public_sources() -> Vec<SourceSettings> {
    let source = |url: &str, kind| SourceSettings {
        url: url.to_owned(),
        connect: None,
        kind,
        list: None,
        stream: kind == SourceKind::Jetstream,
        backfill: kind == SourceKind::Relay,
        takedowns: false,
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
