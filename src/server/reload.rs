//! A changed configuration, applied to the running service as far as that is possible.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::mailbox_limit;
use crate::config::{Config, ConfigError};
use crate::http::HttpLimits;
use crate::mediator::Mediator;

const TOTAL_BYTES: &str = "mediator.total_bytes";

/// Keys that are applied without a restart.
const APPLIED: [&str; 13] = [
    "http.rate_limit",
    "mediator.allow",
    "mediator.deny",
    "mediator.queue_messages",
    "mediator.queue_bytes",
    TOTAL_BYTES,
    "mediator.queue_rate",
    "mediator.address_rate",
    "mediator.relay.destination_messages",
    "mediator.relay.destination_bytes",
    "mediator.relay.total_messages",
    "mediator.relay.total_bytes",
    "mediator.relay.total_destinations",
];

/// What a reload changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys that apply from now on.
    pub applied: Vec<String>,
    /// Keys that apply after a restart.
    pub restart: Vec<String>,
}

/// Applies a changed configuration. One reload runs at a time.
pub struct Reloader {
    http: HttpLimits,
    mediator: Option<Mediator>,
    /// What applies now: the configuration of the start, with what later ones changed.
    config: Mutex<Config>,
}

impl Reloader {
    pub(super) fn new(config: Config, http: HttpLimits, mediator: Option<Mediator>) -> Self {
        Self {
            http,
            mediator,
            config: Mutex::new(config),
        }
    }

    /// Applies the accounts that are allowed and denied, and the limits. Other changes are only told.
    ///
    /// # Errors
    ///
    /// Those of [`Config::check`]; then nothing is changed.
    pub fn apply(&self, new: &Config) -> Result<Reloaded, ConfigError> {
        new.check()?;
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let (applied, restart): (Vec<_>, Vec<_>) = changed(&config, new)
            .into_iter()
            .partition(|key| APPLIED.contains(&key.as_str()));
        if applied.is_empty() {
            return Ok(Reloaded { applied, restart });
        }
        let limits = &new.mediator;
        config.http.rate_limit = new.http.rate_limit;
        let mediator = &mut config.mediator;
        mediator.allow.clone_from(&limits.allow);
        mediator.deny.clone_from(&limits.deny);
        mediator.queue_messages = limits.queue_messages;
        mediator.queue_bytes = limits.queue_bytes;
        mediator.total_bytes = limits.total_bytes;
        mediator.queue_rate = limits.queue_rate;
        mediator.address_rate = limits.address_rate;
        mediator.relay.destination_messages = limits.relay.destination_messages;
        mediator.relay.destination_bytes = limits.relay.destination_bytes;
        mediator.relay.total_messages = limits.relay.total_messages;
        mediator.relay.total_bytes = limits.relay.total_bytes;
        mediator.relay.total_destinations = limits.relay.total_destinations;
        let is_applied = |prefix: &str| applied.iter().any(|key| key.starts_with(prefix));
        if is_applied("http.") {
            self.http.set_rate_limit(config.http.rate_limit);
        }
        if let Some(running) = self.mediator.as_ref().filter(|_| is_applied("mediator.")) {
            let mut settings = config.mediator.clone();
            // Where the number is taken away, the disk decides anew.
            let is_anew = applied.iter().any(|key| key == TOTAL_BYTES);
            if settings.total_bytes.is_none() && is_anew {
                settings.total_bytes = Some(mailbox_limit(&config));
            }
            running.apply(&settings);
        }
        Ok(Reloaded { applied, restart })
    }
}

/// Returns the keys whose values differ. Lists count as one value.
fn changed(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (values(old), values(new));
    let keys = old
        .keys()
        .chain(new.keys().filter(|key| !old.contains_key(*key)));
    let differs = |key: &&String| old.get(*key) != new.get(*key);
    let mut changed: Vec<String> = keys.filter(differs).cloned().collect();
    changed.sort();
    changed
}

fn values(config: &Config) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    // A configuration came from text, so it can be written as such.
    let whole = serde_json::to_value(config).unwrap_or_default();
    flatten(whole, String::new(), &mut values);
    values
}

fn flatten(value: Value, path: String, values: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() {
                    key
                } else {
                    format!("{path}.{key}")
                };
                flatten(value, path, values);
            }
        }
        value => {
            values.insert(path, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_is_applied_exists() {
        let mut all = Config::default();
        all.mediator.total_bytes = Some(1);
        let values = values(&all);
        for key in APPLIED {
            assert!(values.contains_key(key), "{key}");
        }
    }

    #[test]
    fn what_differs_is_named() {
        let (old, mut new) = (Config::default(), Config::default());
        assert_eq!(changed(&old, &new), [""; 0]);
        new.mediator.total_bytes = Some(7);
        new.pds.url = Some("https://pds.example.com".to_owned());
        new.http.timeout *= 2;
        assert_eq!(
            changed(&old, &new),
            ["http.timeout", "mediator.total_bytes", "pds.url"]
        );
    }
}
