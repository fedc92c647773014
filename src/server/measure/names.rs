//! All metrics, with their help texts. `docs/metrics.md` has what is normal and what to do.

/// The kind of a metric.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    /// Returns the word of the text format.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    let kind = Kind::Gauge;
    Metric { name, kind, help }
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    let kind = Kind::Counter;
    Metric { name, kind, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    let kind = Kind::Histogram;
    Metric { name, kind, help }
}

/// The process and its machine.
const PROCESS: [Metric; 4] = [
    gauge(
        "atcomm_disk_free_bytes",
        "Free space of the disk with the data directory",
    ),
    gauge("atcomm_info", "Version of the running program"),
    gauge(
        "process_resident_memory_bytes",
        "Resident memory of the process",
    ),
    gauge(
        "process_start_time_seconds",
        "When the process was started, in seconds since 1970",
    ),
];

/// Sources.
const SOURCES: [Metric; 10] = [
    gauge(
        "atcomm_ingest_backfill_complete_timestamp_seconds",
        "When the accounts of a source were last listed to the end, in seconds since 1970; 0: never",
    ),
    gauge(
        "atcomm_ingest_backfill_state",
        "1 for the state that the backfill of a source is in",
    ),
    gauge(
        "atcomm_ingest_connected",
        "1 while the stream of a source is connected",
    ),
    gauge(
        "atcomm_ingest_covered_until_seconds",
        "Time until which a source is proven to have missed nothing, in seconds since 1970",
    ),
    counter(
        "atcomm_ingest_drops_total",
        "Events of which something was dropped, by reason",
    ),
    counter(
        "atcomm_ingest_events_total",
        "Events that concern this directory",
    ),
    counter(
        "atcomm_ingest_gaps_total",
        "Times that a source has missed events, by reason",
    ),
    gauge(
        "atcomm_ingest_lag_seconds",
        "Age of the newest event of a source when it was read",
    ),
    gauge(
        "atcomm_ingest_last_event_timestamp_seconds",
        "When a source last sent anything, in seconds since 1970; 0: not since the start",
    ),
    counter(
        "atcomm_ingest_passed_over_total",
        "Messages that could not be read and came again",
    ),
];

/// Sources that say nothing, and what is asked of other servers.
const NETWORK: [Metric; 4] = [
    gauge(
        "atcomm_ingest_silent_seconds",
        "Time for which a connected source has sent nothing; 0 while it is not connected",
    ),
    counter(
        "atcomm_identity_documents_total",
        "Look-ups of DID documents, by outcome",
    ),
    counter(
        "atcomm_identity_plc_logs_total",
        "Look-ups of operation logs, by outcome",
    ),
    counter(
        "atcomm_net_requests_total",
        "Requests to other servers, by kind and outcome",
    ),
];

/// The directory and its file.
const DIRECTORY: [Metric; 14] = [
    gauge(
        "atcomm_directory_accounts",
        "Accounts in the directory, by state",
    ),
    gauge(
        "atcomm_directory_asked_entries",
        "Accounts in the directory that no source names",
    ),
    counter(
        "atcomm_directory_broken_chains_total",
        "Commits that showed that one before them never came",
    ),
    gauge(
        "atcomm_directory_bytes",
        "Bytes of directory.db that count towards directory.max_bytes",
    ),
    gauge(
        "atcomm_directory_doubtful",
        "Accounts whose later events may have been missed, until they are refreshed",
    ),
    gauge("atcomm_directory_entries", "Accounts in the directory"),
    gauge("atcomm_directory_file_bytes", "Size of directory.db"),
    gauge(
        "atcomm_directory_largest_share_bytes",
        "Bytes of the domain that takes the most of directory.db",
    ),
    gauge(
        "atcomm_directory_largest_share_entries",
        "Accounts of the domain that takes the most of directory.db",
    ),
    gauge(
        "atcomm_directory_limit_bytes",
        "The setting directory.max_bytes",
    ),
    counter(
        "atcomm_directory_outcomes_total",
        "What applying a finding changed",
    ),
    gauge("atcomm_directory_pending", "Refreshes still to be done"),
    counter(
        "atcomm_directory_refused_total",
        "New accounts that a limit of the directory refused",
    ),
    counter(
        "atcomm_dataset_failures_total",
        "Datasets that could not be made",
    ),
];

/// Refreshes and the stores.
const REFRESHES: [Metric; 20] = [
    gauge(
        "atcomm_backup_timestamp_seconds",
        "When the newest backup began, in seconds since 1970",
    ),
    gauge(
        "atcomm_backup_seconds",
        "Time that the newest backup took to make",
    ),
    gauge("atcomm_backup_bytes", "Size of the newest backup"),
    counter(
        "atcomm_backup_failures_total",
        "Backups that could not be made",
    ),
    gauge(
        "atcomm_copy_timestamp_seconds",
        "Everything acknowledged before this time is in the continuous copy, in seconds since 1970",
    ),
    counter(
        "atcomm_copy_segments_total",
        "Segments of the continuous copy that were written",
    ),
    counter(
        "atcomm_copy_failures_total",
        "Attempts to write the continuous copy that failed",
    ),
    gauge(
        "atcomm_dataset_seconds",
        "Time that the newest dataset took to make",
    ),
    counter(
        "atcomm_resolve_address_limited_total",
        "Refreshes refused since the client's address caused too many",
    ),
    counter(
        "atcomm_resolve_changed_documents_missed_total",
        "Changed documents of mediators that were not passed on in time",
    ),
    counter(
        "atcomm_resolve_handles_total",
        "Checks of handles, by result",
    ),
    gauge(
        "atcomm_resolve_handles_under_way",
        "Checks of handles under way",
    ),
    gauge(
        "atcomm_resolve_looks_under_way",
        "Refreshes of the background worker under way",
    ),
    counter(
        "atcomm_resolve_over_budget_total",
        "Refreshes refused since too many were under way",
    ),
    counter(
        "atcomm_resolve_owed_total",
        "Pending refreshes that ended, by result",
    ),
    counter(
        "atcomm_resolve_unverifiable_total",
        "Refreshes that proved nothing, by reason",
    ),
    counter(
        "atcomm_store_commits_total",
        "Transactions that were committed",
    ),
    gauge(
        "atcomm_store_healthy",
        "1 while directory.db can be written",
    ),
    gauge(
        "atcomm_store_log_bytes",
        "Size of the write-ahead log beside a database",
    ),
    counter(
        "atcomm_http_address_limited_total",
        "Requests refused by http.rate_limit",
    ),
];

/// Requests of clients and readers of the change log.
const CLIENTS: [Metric; 13] = [
    gauge(
        "atcomm_public_url_ok",
        "1 while others get through by the public address, as the service itself sees it",
    ),
    histogram(
        "atcomm_http_request_seconds",
        "Time from a request's head to its answer",
    ),
    counter(
        "atcomm_http_requests_total",
        "Requests answered, by method and status",
    ),
    counter(
        "atcomm_channel_acknowledged_total",
        "Changes that consumers of /channel acknowledged",
    ),
    gauge("atcomm_channel_connections", "Connections of /channel"),
    counter(
        "atcomm_channel_refused_total",
        "Consumers of /channel refused for a wrong password",
    ),
    counter(
        "atcomm_channel_repeated_total",
        "Changes sent again on /channel",
    ),
    counter("atcomm_channel_sent_total", "Changes sent on /channel"),
    counter(
        "atcomm_updates_ended_total",
        "Readers of subscribeUpdates that were ended, by error",
    ),
    counter(
        "atcomm_updates_live_total",
        "Changes made into live frames for readers of subscribeUpdates",
    ),
    counter(
        "atcomm_updates_replayed_total",
        "Changes replayed to readers of subscribeUpdates",
    ),
    gauge("atcomm_updates_subscribers", "Readers of subscribeUpdates"),
    gauge("atcomm_mediator_sockets", "WebSockets of the mediator"),
];

/// Mail.
const MEDIATOR: [Metric; 23] = [
    gauge("atcomm_mediator_accounts", "Accounts registered for mail"),
    counter(
        "atcomm_mediator_acknowledged_total",
        "Messages that their recipients acknowledged",
    ),
    counter(
        "atcomm_mediator_expired_total",
        "Messages that nobody picked up in time",
    ),
    gauge("atcomm_mediator_file_bytes", "Size of mailbox.db"),
    counter("atcomm_mediator_forwards_total", "What became of forwards"),
    counter(
        "atcomm_mediator_handed_out_total",
        "Messages handed out, whether or not acknowledged",
    ),
    gauge(
        "atcomm_mediator_healthy",
        "1 while mailbox.db can be written",
    ),
    gauge("atcomm_mediator_live_accounts", "Accounts in live mode"),
    counter(
        "atcomm_mediator_messages_total",
        "Messages received, by protocol and outcome",
    ),
    gauge(
        "atcomm_mediator_oldest_message_seconds",
        "Age of the oldest message that waits to be picked up; 0: none waits",
    ),
    gauge(
        "atcomm_mediator_outbox_bytes",
        "Bytes that wait for other mediators",
    ),
    gauge(
        "atcomm_mediator_outbox_messages",
        "Messages that wait for other mediators",
    ),
    counter(
        "atcomm_mediator_purged_total",
        "Messages that the operator had deleted, by reason",
    ),
    gauge(
        "atcomm_mediator_queued_bytes",
        "Bytes that wait to be picked up",
    ),
    gauge(
        "atcomm_mediator_queued_messages",
        "Messages that wait to be picked up",
    ),
    counter(
        "atcomm_mediator_refused_total",
        "Messages refused, by reason",
    ),
    gauge(
        "atcomm_mediator_relay_oldest_seconds",
        "Age of the oldest message that waits for another mediator; 0: none waits",
    ),
    gauge(
        "atcomm_mediator_relay_paused",
        "Other mediators that are paused after failures while messages wait for them",
    ),
    gauge(
        "atcomm_mediator_relay_slow",
        "Domains of other mediators that get one message at a time",
    ),
    counter(
        "atcomm_mediator_relay_total",
        "What became of messages for other mediators",
    ),
    gauge(
        "atcomm_mediator_total_limit_bytes",
        "Most bytes that may wait to be picked up",
    ),
    counter(
        "atcomm_mediator_unreadable_total",
        "Messages that could not be opened, by reason",
    ),
    gauge(
        "atcomm_mediator_outbox_limit_bytes",
        "The setting mediator.relay.total_bytes",
    ),
];

/// Returns all metrics.
pub(super) fn metrics() -> impl Iterator<Item = &'static Metric> {
    let parts: [&'static [Metric]; 7] = [
        &PROCESS, &SOURCES, &NETWORK, &DIRECTORY, &REFRESHES, &CLIENTS, &MEDIATOR,
    ];
    parts.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Returns the files of Rust below a folder.
    fn sources(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(sources(&path));
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
        found
    }

    /// Texts of the same form that name other things: a service in DID documents, and a header of
    /// forwards.
    const OTHERS: [&str; 2] = ["atcomm_directory", "atcomm_relayed"];

    /// Returns the texts in code that have the form of a metric's name.
    fn names_in(code: &str) -> impl Iterator<Item = &str> {
        code.split('"').skip(1).step_by(2).filter(|text| {
            let parts = ["atcomm_", "process_"];
            let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
            parts.iter().any(|part| text.starts_with(part))
                && text.chars().all(is_name)
                && !OTHERS.contains(text)
        })
    }

    #[test]
    fn what_the_code_measures_is_what_is_described() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut measured = BTreeSet::new();
        let net = root.join("crates/atcomm-net/src");
        for path in [sources(&root.join("src")), sources(&net)].concat() {
            // The list itself, and names of modules in the filters of logs and in tests.
            if path.ends_with("measure/names.rs") || path.ends_with("tests.rs") {
                continue;
            }
            let code = std::fs::read_to_string(&path).unwrap();
            let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
            measured.extend(names_in(code).map(str::to_owned));
        }
        let described: BTreeSet<String> = metrics().map(|metric| metric.name.to_owned()).collect();
        assert_eq!(
            described.len(),
            metrics().count(),
            "a metric is described twice"
        );
        assert_eq!(measured, described);
    }
}
