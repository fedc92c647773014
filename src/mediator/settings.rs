//! Settings of the mediator.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use atcomm_proto::syntax::{Did, MediatorDid};

/// Settings of the mediator: whose mail it keeps, its limits, and what it relays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MediatorSettings {
    /// Public address of this service, such as `https://mail.example.com`. It determines the
    /// mediator's `did:web`, so after a change every account has to name the new one. Absent: no
    /// mediator.
    pub public_url: Option<String>,
    /// Whose mail is kept. Absent: `enrolled`.
    pub admission: AdmissionMode,
    /// Accounts that are admitted on any PDS where `admission` is `local`. Absent: none.
    pub allow: BTreeSet<Did>,
    /// Accounts whose mail is never kept, and deleted where it waits. Absent: none.
    pub deny: BTreeSet<Did>,
    /// Whether a sender to an unknown recipient receives a signed problem report. It lets any
    /// sender find out who has registered here. Absent: false.
    pub report_unknown: bool,
    /// Longest message that is accepted, in bytes. Absent: 1 MiB.
    pub max_message: usize,
    /// Memory for messages that are being received at the same time, in bytes. Absent: 64 MiB.
    pub receive_memory: usize,
    /// Memory for answers and pushes with mail until they are written, in bytes. Absent: 256 MiB.
    pub response_memory: usize,
    /// How long a message waits to be picked up. Absent: 30 days.
    #[serde(with = "humantime_serde")]
    pub time_to_live: Duration,
    /// Messages that may wait for one did:peer; senders have shares. Absent: 5000.
    pub queue_messages: u64,
    /// Bytes that may wait for one did:peer. Absent: 64 MiB.
    pub queue_bytes: u64,
    /// Bytes that may wait for all together. Absent: 8 GiB.
    pub total_bytes: u64,
    /// Messages a minute that are accepted for one did:peer. Absent: 600.
    pub queue_rate: u32,
    /// Messages a minute that are accepted from one address (a /64 of IPv6). A mediator that relays
    /// for many senders is one address. Absent: 6000.
    pub address_rate: u32,
    /// WebSockets at the same time. Absent: 1024.
    pub max_sockets: usize,
    /// WebSockets of one address at the same time. Absent: 64.
    pub address_sockets: usize,
    /// Relaying to other mediators.
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
            response_memory: 256 << 20,
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

/// Accounts whose mail is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdmissionMode {
    /// Every account whose key package names this mediator.
    #[default]
    Enrolled,
    /// The accounts among them whose PDS is one of the sources of kind `pds`, or that `allow`
    /// names.
    Local,
    /// Every did:peer that registers, with or without a key package.
    Open,
}

impl AdmissionMode {
    /// Returns the value as the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Local => "local",
            Self::Open => "open",
        }
    }
}

/// Settings of relaying to other mediators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaySettings {
    /// Mediators that messages are relayed to although no key package names them. Absent: none.
    pub allow: BTreeSet<MediatorDid>,
    /// Messages an hour to all mediators together that neither a key package nor `allow` names; 0:
    /// none. Absent: 60.
    #[serde(rename = "strangers_per_hour")]
    pub unlisted_per_hour: u32,
    /// How long the delivery of a message is tried. Absent: 24 h.
    #[serde(with = "humantime_serde")]
    pub give_up: Duration,
    /// Longest pause between two attempts, and of a mediator that fails. The first is a second, and
    /// each doubles. Absent: 30 min.
    #[serde(with = "humantime_serde")]
    pub longest_pause: Duration,
    /// Messages that may wait for one mediator. Absent: 2000.
    pub destination_messages: u64,
    /// Bytes that may wait for one mediator. Absent: 64 MiB.
    pub destination_bytes: u64,
    /// Messages that may wait for all mediators together. Absent: 100,000.
    pub total_messages: u64,
    /// Bytes that may wait for all mediators together. Absent: 1 GiB.
    pub total_bytes: u64,
    /// Mediators that messages may wait for at the same time. Absent: 10,000.
    pub total_destinations: u64,
    /// Deliveries in flight at the same time. Absent: 32.
    pub concurrency: usize,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            allow: BTreeSet::new(),
            unlisted_per_hour: 60,
            give_up: Duration::from_secs(24 * 3600),
            longest_pause: Duration::from_secs(30 * 60),
            destination_messages: 2000,
            destination_bytes: 64 << 20,
            total_messages: 100_000,
            total_bytes: 1 << 30,
            total_destinations: 10_000,
            concurrency: 32,
        }
    }
}
