//! Settings of the mediator.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use atcomm_proto::syntax::{Did, MediatorDid};

/// Whom the mediator keeps mail for, how much of it, and what it carries on to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MediatorSettings {
    /// Where the world reaches this service, such as `https://mail.example.com`; the mediator's
    /// `did:web` follows from it, so it cannot be changed without every account naming the new
    /// one. Absent: no mediator.
    pub public_url: Option<String>,
    /// Whose mail is kept. Absent: `enrolled`.
    pub admission: AdmissionMode,
    /// Accounts that are admitted whatever their host, where `admission` is `local`. Absent: none.
    pub allow: BTreeSet<Did>,
    /// Accounts whose mail is never kept. Absent: none.
    pub deny: BTreeSet<Did>,
    /// Whether who sends to somebody unknown is told so, by a signed problem report. That lets
    /// anybody find out who has registered here. Absent: false.
    pub report_unknown: bool,
    /// Longest message that is received, in bytes. Absent: 1 MiB.
    pub max_message: usize,
    /// Messages that are being received at once may take up this much memory, in bytes.
    /// Absent: 64 MiB.
    pub receive_memory: usize,
    /// How long a message waits to be picked up. Absent: 30 days.
    #[serde(with = "humantime_serde")]
    pub time_to_live: Duration,
    /// Messages that may wait for one did:peer. Absent: 5000.
    pub queue_messages: u64,
    /// Bytes that may wait for one did:peer. Absent: 64 MiB.
    pub queue_bytes: u64,
    /// Bytes that may wait for all together. Absent: 8 GiB.
    pub total_bytes: u64,
    /// Messages a minute that are taken for one did:peer. Absent: 600.
    pub queue_rate: u32,
    /// Messages a minute that are taken from one address (a /64 of IPv6). Mediators that relay
    /// for many are one address each. Absent: 6000.
    pub address_rate: u32,
    /// WebSockets at the same time; each may hold one message in memory. Absent: 1024.
    pub max_sockets: usize,
    /// WebSockets of one address at the same time. Absent: 64.
    pub address_sockets: usize,
    /// What is carried on to other mediators.
    pub relay: RelaySettings,
}

impl Default for MediatorSettings {
    fn default() -> Self {
        Self {
            public_url: None,
            admission: AdmissionMode::default(),
            allow: BTreeSet::new(),
            deny: BTreeSet::new(),
            report_unknown: false,
            max_message: 1 << 20,
            receive_memory: 64 << 20,
            time_to_live: Duration::from_secs(30 * 24 * 3600),
            queue_messages: 5000,
            queue_bytes: 64 << 20,
            total_bytes: 8 << 30,
            queue_rate: 600,
            address_rate: 6000,
            max_sockets: 1024,
            address_sockets: 64,
            relay: RelaySettings::default(),
        }
    }
}

/// Whose mail is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdmissionMode {
    /// Of every account whose key package names this mediator.
    #[default]
    Enrolled,
    /// Of those among them whose PDS is one of the sources of kind `pds`, or that are allowed by
    /// name.
    Local,
    /// Of whoever asks, record or not.
    Open,
}

impl AdmissionMode {
    /// The word of the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Local => "local",
            Self::Open => "open",
        }
    }
}

/// What is carried on to other mediators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaySettings {
    /// Mediators that mail is carried to although no key package names them. Absent: none.
    pub allow: BTreeSet<MediatorDid>,
    /// Messages an hour to mediators that neither a key package nor `allow` names, all of them
    /// together; 0: none. Absent: 60.
    pub strangers_per_hour: u32,
    /// How long delivery is tried. Absent: 24 h.
    #[serde(with = "humantime_serde")]
    pub give_up: Duration,
    /// Longest pause between two attempts; the first is a second, and each doubles. Absent: 30 min.
    #[serde(with = "humantime_serde")]
    pub longest_pause: Duration,
    /// Messages that may wait for one mediator. Absent: 2000.
    pub destination_messages: u64,
    /// Bytes that may wait for one mediator. Absent: 64 MiB.
    pub destination_bytes: u64,
    /// Bytes that may wait for all mediators together. Absent: 1 GiB.
    pub total_bytes: u64,
    /// Deliveries under way at once. Absent: 32.
    pub concurrency: usize,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            allow: BTreeSet::new(),
            strangers_per_hour: 60,
            give_up: Duration::from_secs(24 * 3600),
            longest_pause: Duration::from_secs(30 * 60),
            destination_messages: 2000,
            destination_bytes: 64 << 20,
            total_bytes: 1 << 30,
            concurrency: 32,
        }
    }
}
