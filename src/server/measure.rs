//! Metrics: the recorder of this process, and the gauges that are sampled.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use super::files::resident_memory;
use crate::directory::Directory;
use crate::mediator::Mediator;

/// Time between two samples of the gauges, and between two rounds of the recorder's upkeep, which
/// sorts recorded durations into their buckets.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Bounds of the latency histograms in seconds: from a cached view to the longest request.
const BUCKETS: [f64; 14] = [
    0.000_01, 0.000_05, 0.000_2, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0,
];

/// Returns the recorder of this process, installed by the first call. Returns `None` if another
/// library has installed a recorder before.
pub(super) fn recorder() -> Option<PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let seconds = Matcher::Suffix("_seconds".to_owned());
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(seconds, &BUCKETS)
                .ok()?;
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).ok()?;
            describe();
            Some(handle)
        })
        .clone()
}

/// Samples the gauges and does the recorder's upkeep until `stop`.
pub(super) async fn run(
    recorder: PrometheusHandle,
    directory: Arc<Directory>,
    mediator: Option<Mediator>,
    stop: CancellationToken,
) {
    let mut samples = tokio::time::interval(SAMPLE_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = samples.tick() => {}
        }
        metrics::gauge!("atcomm_directory_entries").set(directory.len() as f64);
        match directory.store().query(|q| q.pending_count()).await {
            Ok(pending) => metrics::gauge!("atcomm_directory_pending").set(pending as f64),
            Err(error) => tracing::warn!(%error, "cannot count what is owed"),
        }
        match directory.store().query(|q| q.doubtful_count()).await {
            Ok(doubtful) => metrics::gauge!("atcomm_directory_doubtful").set(doubtful as f64),
            Err(error) => tracing::warn!(%error, "cannot count the entries in doubt"),
        }
        metrics::gauge!("atcomm_store_healthy").set(f64::from(u8::from(directory.is_healthy())));
        log_bytes("directory").set(directory.store().log_bytes() as f64);
        if let Some(mediator) = &mediator {
            log_bytes("mailbox").set(mediator.log_bytes() as f64);
            let healthy = f64::from(u8::from(mediator.is_healthy()));
            metrics::gauge!("atcomm_mediator_healthy").set(healthy);
        }
        // Without /proc the gauge is missing.
        if let Ok(bytes) = resident_memory() {
            metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
        }
        recorder.run_upkeep();
    }
}

/// Returns the gauge of the log beside a file.
fn log_bytes(file: &'static str) -> metrics::Gauge {
    metrics::gauge!("atcomm_store_log_bytes", "file" => file)
}

/// All gauges, with their help texts.
const GAUGES: [(&str, &str); 30] = [
    ("atcomm_info", "Version of the running program"),
    (
        "atcomm_directory_doubtful",
        "Accounts whose later events may have been missed, until they are looked at again",
    ),
    (
        "atcomm_directory_asked_entries",
        "Accounts in the directory that no source names",
    ),
    (
        "atcomm_directory_bytes",
        "Bytes of directory.db that count towards directory.max_bytes",
    ),
    ("atcomm_directory_entries", "Accounts in the directory"),
    ("atcomm_directory_file_bytes", "Bytes of directory.db"),
    (
        "atcomm_directory_largest_share_bytes",
        "Bytes of the domain that takes the most of directory.db",
    ),
    (
        "atcomm_directory_largest_share_entries",
        "Accounts of the domain that takes the most of directory.db",
    ),
    ("atcomm_directory_pending", "Looks that are owed"),
    (
        "atcomm_ingest_backfill_complete_timestamp_seconds",
        "When the accounts of a source were last listed to the end; 0: never",
    ),
    (
        "atcomm_ingest_backfill_state",
        "1 for the state that the enumeration of a source is in",
    ),
    (
        "atcomm_ingest_connected",
        "Sources that are followed at the moment",
    ),
    (
        "atcomm_ingest_covered_until_seconds",
        "Time until which a source is proven to have missed nothing, since 1970",
    ),
    (
        "atcomm_ingest_last_event_timestamp_seconds",
        "When a source's stream last brought anything",
    ),
    (
        "atcomm_resolve_looks_under_way",
        "Looks of the background worker under way",
    ),
    (
        "atcomm_resolve_handles_under_way",
        "Checks of handles under way",
    ),
    ("atcomm_mediator_accounts", "Accounts registered for mail"),
    ("atcomm_mediator_file_bytes", "Bytes of mailbox.db"),
    (
        "atcomm_mediator_healthy",
        "Whether the last commit of mail succeeded",
    ),
    ("atcomm_mediator_live_accounts", "Accounts in live mode"),
    (
        "atcomm_mediator_outbox_bytes",
        "Bytes that wait for other mediators",
    ),
    (
        "atcomm_mediator_outbox_messages",
        "Messages that wait for other mediators",
    ),
    (
        "atcomm_mediator_queued_bytes",
        "Bytes that wait to be picked up",
    ),
    (
        "atcomm_mediator_queued_messages",
        "Messages that wait to be picked up",
    ),
    (
        "atcomm_mediator_relay_paused",
        "Other mediators that are paused after failures while messages wait for them",
    ),
    (
        "atcomm_mediator_relay_slow",
        "Domains of other mediators that get one message at a time",
    ),
    ("atcomm_mediator_sockets", "WebSockets that are open"),
    ("atcomm_store_healthy", "Whether the last commit succeeded"),
    (
        "atcomm_store_log_bytes",
        "Bytes of the write-ahead log beside a database",
    ),
    ("process_resident_memory_bytes", "Memory of the process"),
];

/// All counters, with their help texts.
const COUNTERS: [(&str, &str); 22] = [
    (
        "atcomm_directory_broken_chains_total",
        "Commits that showed that one before them never came",
    ),
    ("atcomm_directory_outcomes_total", "What became of findings"),
    (
        "atcomm_directory_refused_total",
        "New accounts that a limit of the directory refused",
    ),
    ("atcomm_http_requests_total", "Requests answered"),
    (
        "atcomm_identity_documents_total",
        "Look-ups of DID documents",
    ),
    (
        "atcomm_identity_plc_logs_total",
        "Look-ups of operation logs",
    ),
    (
        "atcomm_ingest_drops_total",
        "Events of which something was dropped",
    ),
    ("atcomm_ingest_events_total", "Events that concern us"),
    (
        "atcomm_ingest_gaps_total",
        "Times that a source has missed events, by reason",
    ),
    (
        "atcomm_ingest_passed_over_total",
        "Messages that could not be read and came again",
    ),
    (
        "atcomm_mediator_acknowledged_total",
        "Messages that their recipients acknowledged",
    ),
    ("atcomm_mediator_expired_total", "Messages whose time ended"),
    ("atcomm_mediator_forwards_total", "What became of forwards"),
    (
        "atcomm_mediator_handed_out_total",
        "Messages handed out, whether or not acknowledged",
    ),
    (
        "atcomm_mediator_messages_total",
        "Messages received, by protocol",
    ),
    (
        "atcomm_mediator_refused_total",
        "Messages that were not taken",
    ),
    (
        "atcomm_mediator_relay_total",
        "What became of messages for other mediators",
    ),
    (
        "atcomm_mediator_unreadable_total",
        "Messages that could not be opened",
    ),
    ("atcomm_net_requests_total", "Requests that went out"),
    (
        "atcomm_resolve_handles_total",
        "Checks of handles, by result",
    ),
    ("atcomm_resolve_owed_total", "Owed looks that ended"),
    ("atcomm_store_commits_total", "Commits of the store"),
];

fn describe() {
    metrics::gauge!("atcomm_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for (name, text) in GAUGES {
        metrics::describe_gauge!(name, text);
    }
    for (name, text) in COUNTERS {
        metrics::describe_counter!(name, text);
    }
    metrics::describe_histogram!(
        "atcomm_http_request_seconds",
        metrics::Unit::Seconds,
        "Time from a request's head to its answer"
    );
}
