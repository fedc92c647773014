//! Where settings come from, so that an error can say it.

use std::path::Path;

use figment::error::Kind;
use figment::providers::{Format as _, Toml};
use figment::util::nest;
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};

use super::ConfigError;

/// How the names of our variables begin.
const PREFIX: &str = "ATCOMM_";

/// Settings from one place.
pub(super) struct Layer {
    /// The place, as an error names it.
    origin: String,
    settings: Dict,
}

impl Layer {
    /// A TOML file.
    pub(super) fn file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.to_owned(),
            error,
        })?;
        let settings = Toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: one_line(&error.to_string()),
        })?;
        Ok(Self {
            origin: path.display().to_string(),
            settings,
        })
    }

    /// A variable of the environment, if it is a setting. The value is read as TOML where it can
    /// be, so that lists can be given, and as text else.
    pub(super) fn variable(name: &str, value: &str) -> Option<Self> {
        let key = name.strip_prefix(PREFIX)?;
        if is_foreign(key) {
            return None;
        }
        let path = key.to_ascii_lowercase().replace("__", ".");
        let Ok(value) = value.parse::<Value>();
        Some(Self::one(format!("the environment ({name})"), &path, value))
    }

    /// A flag.
    pub(super) fn flag(flag: &str, key: &str, value: String) -> Self {
        Self::one(flag.to_owned(), key, Value::from(value))
    }

    fn one(origin: String, path: &str, value: Value) -> Self {
        let settings = nest(path, value).into_dict().unwrap_or_default();
        Self { origin, settings }
    }
}

/// Variables of flags, which are no settings.
const OF_FLAGS: [&str; 6] = [
    "CONFIG",
    "HOME",
    "ACCOUNT",
    "DIRECTORY",
    "PASSWORD",
    "PASSPHRASE",
];

/// Variables that begin like ours and are no settings: those of flags, and those that Kubernetes
/// and Docker set for every container beside a service called atcomm.
fn is_foreign(key: &str) -> bool {
    OF_FLAGS.contains(&key)
        || key == "PORT"
        || key == "NAME"
        || key.starts_with("PORT_")
        || key.starts_with("SERVICE_HOST")
        || key.starts_with("SERVICE_PORT")
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.settings.clone()))
    }
}

/// Says which key of which place is wrong.
pub(super) fn explain(figment: &Figment, error: Error) -> ConfigError {
    let mut path = error.path.clone();
    if let Kind::UnknownField(name, _) = &error.kind
        && path.last() != Some(name)
    {
        path.push(name.clone());
    }
    let key = path.join(".");
    // A section may be made of several layers; only the value itself tells which it was.
    let origin = figment.find_metadata(&key).or(error.metadata.as_ref());
    let origin = origin.map_or_else(|| "the configuration".to_owned(), |m| m.name.to_string());
    match error.kind {
        Kind::UnknownField(_, known) => ConfigError::UnknownKey { key, origin, known },
        Kind::MissingField(name) => ConfigError::Value {
            key,
            origin,
            reason: format!("{name} is missing"),
        },
        Kind::UnknownVariant(found, known) => ConfigError::Value {
            key,
            origin,
            reason: format!("{found} is not one of {}", known.join(", ")),
        },
        kind => ConfigError::Value {
            key,
            origin,
            reason: one_line(&kind.to_string()),
        },
    }
}

/// The library draws the faulty line below its message; one line is enough.
fn one_line(text: &str) -> String {
    let drawn = |line: &&str| !line.contains('|') && !line.trim().is_empty();
    text.lines().filter(drawn).collect::<Vec<_>>().join(": ")
}
