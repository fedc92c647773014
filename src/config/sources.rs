//! The sources that `serve` follows: the operator's PDS, further ones of theirs, and public ones.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Config, ConfigError};
use crate::ingest::{SourceKind, SourceSettings};
use crate::mediator::AdmissionMode;
use atcomm_proto::syntax::Origin;

/// The PDS beside which the service runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PdsSettings {
    /// Its address in DID documents, such as `https://pds.example.com`. It becomes a source, and the
    /// mediator keeps mail for its accounts. Absent: no PDS is the operator's.
    pub url: Option<String>,
    /// Where to connect instead, such as `http://127.0.0.1:3000`. Absent: `url`.
    pub connect: Option<String>,
}

impl Config {
    /// Returns all sources: the PDS of `[pds]`, those of `[[sources]]`, and the public ones unless
    /// they are turned off. A public source that is configured, too, counts once, as configured.
    ///
    /// # Errors
    ///
    /// [`ConfigError::PublicSourcesUnsaid`] and [`ConfigError::NoPdsUrl`].
    pub fn all_sources(&self) -> Result<Vec<SourceSettings>, ConfigError> {
        let public = match (self.public_sources, &self.sources) {
            (Some(public), _) => public,
            (None, None) => true,
            (None, Some(_)) => return Err(ConfigError::PublicSourcesUnsaid),
        };
        let mut all = Vec::new();
        match (&self.pds.url, &self.pds.connect) {
            (Some(url), connect) => {
                let mut own = source(url, SourceKind::Pds);
                own.connect.clone_from(connect);
                all.push(own);
            }
            (None, Some(_)) => return Err(ConfigError::NoPdsUrl),
            (None, None) => {}
        }
        all.extend(self.sources.iter().flatten().cloned());
        if public {
            let configured: BTreeSet<String> =
                all.iter().filter_map(SourceSettings::name).collect();
            let is_new =
                |one: &SourceSettings| one.name().is_none_or(|name| !configured.contains(&name));
            all.extend(public_sources().into_iter().filter(is_new));
        }
        Ok(all)
    }

    /// Returns the operator's own PDSes.
    ///
    /// # Errors
    ///
    /// Those of [`Config::all_sources`].
    pub fn own_pdses(&self) -> Result<BTreeSet<Origin>, ConfigError> {
        let sources = self.all_sources()?;
        let own = sources
            .iter()
            .filter(|source| source.kind == SourceKind::Pds);
        Ok(own
            .filter_map(|source| Origin::parse(&source.url).ok())
            .collect())
    }

    /// Checks what no key by itself shows: settings that need each other, as `serve` needs them.
    ///
    /// # Errors
    ///
    /// Those of [`Config::all_sources`], and [`ConfigError::NoneAdmitted`] where a mediator is
    /// configured that would keep mail for no account.
    pub fn check(&self) -> Result<(), ConfigError> {
        let own = self.own_pdses()?;
        let mediator = &self.mediator;
        let admits_none = mediator.admission == AdmissionMode::Local
            && own.is_empty()
            && mediator.allow.is_empty();
        if mediator.public_url.is_some() && admits_none {
            return Err(ConfigError::NoneAdmitted);
        }
        Ok(())
    }
}

/// Returns a source with the defaults of its kind.
fn source(url: &str, kind: SourceKind) -> SourceSettings {
    SourceSettings {
        url: url.to_owned(),
        connect: None,
        kind,
        list: None,
        stream: true,
        backfill: true,
        takedowns: false,
    }
}

/// Returns the public sources. A Jetstream reports changes only, so a relay is enumerated for the
/// accounts that exist already.
pub fn public_sources() -> Vec<SourceSettings> {
    let jetstream = |url| SourceSettings {
        backfill: false,
        ..source(url, SourceKind::Jetstream)
    };
    vec![
        jetstream("wss://jetstream1.us-east.bsky.network"),
        jetstream("wss://jetstream2.us-east.bsky.network"),
        SourceSettings {
            stream: false,
            ..source("https://relay1.us-east.bsky.network", SourceKind::Relay)
        },
    ]
}
