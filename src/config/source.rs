//! Layers of settings with their origin, which errors name.

use std::path::Path;

use figment::error::Kind;
use figment::providers::{Format as _, Toml};
use figment::util::nest;
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};

use super::error::ConfigError;

/// Prefix of the variables that are settings.
const PREFIX: &str = "ATCOMM_";

/// Settings with one origin.
pub(super) struct Layer {
    /// File, variable or flag, as an error names it.
    origin: String,
    settings: Dict,
}

impl Layer {
    /// Reads a TOML file.
    pub(super) fn file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.to_owned(),
            error,
        })?;
        let settings = Toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: one_line(&error.to_string()),
            error: Box::new(error),
        })?;
        Ok(Self {
            origin: path.display().to_string(),
            settings,
        })
    }

    /// Reads a variable of the environment. Returns `None` if the variable is not a setting. The
    /// value is parsed as TOML where possible, which allows lists, and taken as text otherwise.
    pub(super) fn variable(name: &str, value: &str) -> Option<Self> {
        let key = name.strip_prefix(PREFIX)?;
        if is_foreign(key) {
            return None;
        }
        let path = key.to_ascii_lowercase().replace("__", ".");
        let Ok(value) = value.parse::<Value>();
        Some(Self::one(format!("the environment ({name})"), &path, value))
    }

    /// Reads a flag.
    pub(super) fn flag(flag: &str, key: &str, value: String) -> Self {
        Self::one(flag.to_owned(), key, Value::from(value))
    }

    fn one(origin: String, path: &str, value: Value) -> Self {
        let settings = nest(path, value).into_dict().unwrap_or_default();
        Self { origin, settings }
    }
}

/// Variables that give a flag its value and are not settings, without the prefix.
const FLAG_VARIABLES: [&str; 6] = [
    "CONFIG",
    "HOME",
    "ACCOUNT",
    "DIRECTORY",
    "PASSWORD",
    "PASSPHRASE",
];

/// Returns whether a variable has the prefix but is not a setting: variables of flags, and those
/// that Kubernetes and Docker set in every container beside a service called atcomm.
fn is_foreign(key: &str) -> bool {
    FLAG_VARIABLES.contains(&key)
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

/// Converts an error of figment to one that names the key and its origin.
pub(super) fn explain(figment: &Figment, error: Error) -> ConfigError {
    let mut path = error.path.clone();
    if let Kind::UnknownField(name, _) = &error.kind
        && path.last() != Some(name)
    {
        path.push(name.clone());
    }
    let key = path.join(".");
    // A section may combine several layers, so only the value itself has the right origin.
    let origin = figment
        .find_metadata(&key)
        .or(error.metadata.as_ref())
        .map_or_else(|| "the configuration".to_owned(), |m| m.name.to_string());
    let reason = match &error.kind {
        Kind::UnknownField(_, known) => return ConfigError::UnknownKey { key, origin, known },
        Kind::MissingField(name) => format!("{name} is missing"),
        Kind::UnknownVariant(found, known) => {
            format!("{found} is not one of {}", known.join(", "))
        }
        kind => one_line(&kind.to_string()),
    };
    ConfigError::Value {
        key,
        origin,
        reason,
        error: Box::new(error),
    }
}

/// Reduces a message to one line: figment draws the line with the error below it.
fn one_line(text: &str) -> String {
    let drawn = |line: &&str| !line.contains('|') && !line.trim().is_empty();
    text.lines().filter(drawn).collect::<Vec<_>>().join(": ")
}
