//! Settings of backups (`[backup]`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::copier::Copier;
use super::error::BackupError;
use super::schedule::Schedule;
use super::seal::Recipients;
use crate::store::MailboxStore;
use atcomm_proto::clock::Clock;

/// Shortest interval between two backups.
const MIN_EVERY: Duration = Duration::from_secs(60);

/// Most sets that are kept.
const MAX_KEEP: u32 = 10_000;

/// Settings of backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupSettings {
    /// Folder in which `serve` makes backups, on another disk than the data directory. Absent: it
    /// makes none.
    pub dir: Option<PathBuf>,
    /// Interval between two backups, at least a minute. Absent: 24 hours.
    #[serde(deserialize_with = "every")]
    #[serde(serialize_with = "humantime_serde::serialize")]
    pub every: Duration,
    /// Backups that are kept, at least 1; older ones are deleted once a new one is whole. Absent: 7.
    #[serde(deserialize_with = "keep")]
    pub keep: u32,
    /// Recipients of age to whom backups are encrypted. Empty or absent: they are not encrypted.
    #[serde(deserialize_with = "recipients")]
    pub recipients: Vec<String>,
    /// A continuous copy of the mailbox.
    pub copy: CopySettings,
}

/// Settings of the continuous copy (`[backup.copy]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CopySettings {
    /// Folder to which what changes in the mailbox is copied every half second, encrypted to the
    /// recipients of backups; on another machine if possible. Absent: nowhere.
    pub dir: Option<PathBuf>,
    /// Interval at which the copy begins anew with a whole mailbox, at least a minute. Absent: 24 hours.
    #[serde(deserialize_with = "every")]
    #[serde(serialize_with = "humantime_serde::serialize")]
    pub base_every: Duration,
    /// Whole mailboxes that are kept there, each with what changed since, at least 1. Absent: 2.
    #[serde(deserialize_with = "keep")]
    pub keep: u32,
}

impl Default for CopySettings {
    fn default() -> Self {
        Self {
            dir: None,
            base_every: Duration::from_secs(24 * 3600),
            keep: 2,
        }
    }
}

impl Default for BackupSettings {
    fn default() -> Self {
        Self {
            dir: None,
            every: Duration::from_secs(24 * 3600),
            keep: 7,
            recipients: Vec::new(),
            copy: CopySettings::default(),
        }
    }
}

impl BackupSettings {
    /// Returns the backups of a data directory, or `None` where no folder is set.
    pub fn schedule(&self, data_dir: &Path, clock: Clock) -> Result<Option<Schedule>, BackupError> {
        let Some(dir) = &self.dir else {
            return Ok(None);
        };
        Ok(Some(Schedule {
            data_dir: data_dir.to_owned(),
            dir: dir.clone(),
            recipients: Recipients::parse(&self.recipients)?,
            every: self.every,
            keep: Some(self.keep),
            clock,
        }))
    }
}

impl BackupSettings {
    /// Returns the continuous copy of a mailbox, or `None` where no folder is set.
    pub fn copier(
        &self,
        store: Arc<MailboxStore>,
        data_dir: &Path,
        clock: Clock,
    ) -> Result<Option<Copier>, BackupError> {
        let Some(dir) = &self.copy.dir else {
            return Ok(None);
        };
        let recipients = Recipients::parse(&self.recipients)?;
        if recipients.is_empty() {
            return Err(BackupError::NoRecipients);
        }
        Ok(Some(Copier {
            store,
            data_dir: data_dir.to_owned(),
            dir: dir.clone(),
            recipients,
            base_every: self.copy.base_every,
            keep: self.copy.keep,
            clock,
        }))
    }
}

fn every<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let every: Duration = humantime_serde::deserialize(deserializer)?;
    if every < MIN_EVERY {
        return Err(de::Error::custom("it is shorter than a minute"));
    }
    Ok(every)
}

fn keep<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let keep = u32::deserialize(deserializer)?;
    if (1..=MAX_KEEP).contains(&keep) {
        return Ok(keep);
    }
    Err(de::Error::custom(format!(
        "{keep} is not from 1 to {MAX_KEEP}"
    )))
}

fn recipients<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    Recipients::parse(&names).map_err(de::Error::custom)?;
    Ok(names)
}
