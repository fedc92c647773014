//! Metrics: the recorder of this process, and the gauges that are sampled.

mod names;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use super::ServerError;
use super::files::{disk_space, resident_memory};
use super::otlp::Push;
use crate::config::{Config, MetricsSettings};
use crate::directory::Directory;
use crate::http::MetricsServer;
use crate::mediator::Mediator;
use crate::store::StoreError;
use crate::store::directory::{AccountState, Tally};
use atcomm_net::net::Net;
use atcomm_proto::clock::Clock;
use names::Kind;

/// Time between two samples of the gauges, and between two rounds of the recorder's upkeep, which
/// sorts recorded durations into their buckets.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Bounds of the latency histograms in seconds: from a cached view to the longest request.
const BUCKETS: [f64; 14] = [
    0.000_01, 0.000_05, 0.000_2, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0,
];

/// Returns the recorder of this process, installed by the first call. Returns `None` if another
/// library has installed a recorder before.
fn recorder() -> Option<PrometheusHandle> {
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

/// The metrics of this process, and how they reach the operator.
pub(super) struct Metering {
    recorder: PrometheusHandle,
    settings: MetricsSettings,
    data_dir: PathBuf,
}

impl Metering {
    /// Starts to record, if the settings want metrics at all. Called before any module takes a
    /// handle of its metrics.
    pub(super) fn open(config: &Config) -> Result<Option<Self>, ServerError> {
        let settings = config.metrics.clone();
        if settings.listen.is_none() && settings.otlp_url.is_none() {
            return Ok(None);
        }
        let recorder = recorder().ok_or(ServerError::Recorder)?;
        Ok(Some(Self {
            recorder,
            settings,
            data_dir: config.data_dir.clone(),
        }))
    }

    /// Binds the listener, if the settings have one.
    pub(super) fn listener(&self) -> Result<Option<MetricsServer>, ServerError> {
        let Some(address) = self.settings.listen else {
            return Ok(None);
        };
        let recorder = self.recorder.clone();
        let server = MetricsServer::bind(address, move || page(&recorder))?;
        Ok(Some(server))
    }

    /// Prepares the push, if the settings have one.
    pub(super) fn push(&self, net: &Net, instance: String) -> Result<Option<Push>, ServerError> {
        let Some(url) = &self.settings.otlp_url else {
            return Ok(None);
        };
        let recorder = self.recorder.clone();
        let render = Box::new(move || page(&recorder));
        Push::new(url, net.clone(), instance, render).map(Some)
    }

    /// Samples the gauges and does the recorder's upkeep until `stop`.
    pub(super) async fn run(
        self,
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
            if let Err(error) = count_accounts(&directory).await {
                tracing::warn!(%error, "the accounts of the directory cannot be counted");
            }
            metrics::gauge!("atcomm_store_healthy")
                .set(f64::from(u8::from(directory.is_healthy())));
            log_bytes("directory").set(directory.store().log_bytes() as f64);
            if let Some(mediator) = &mediator {
                log_bytes("mailbox").set(mediator.log_bytes() as f64);
                let healthy = f64::from(u8::from(mediator.is_healthy()));
                metrics::gauge!("atcomm_mediator_healthy").set(healthy);
            }
            if let Ok(space) = disk_space(&self.data_dir) {
                metrics::gauge!("atcomm_disk_free_bytes").set(space.free as f64);
            }
            // Without /proc the gauge is missing.
            if let Ok(bytes) = resident_memory() {
                metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
            }
            self.recorder.run_upkeep();
        }
    }
}

/// Publishes how many accounts the directory holds, and how many refreshes are to be done.
async fn count_accounts(directory: &Directory) -> Result<(), StoreError> {
    metrics::gauge!("atcomm_directory_entries").set(directory.len() as f64);
    let read = directory.store().query(|q| {
        let mut states = Vec::new();
        for state in AccountState::ALL {
            states.push((state.as_str(), q.tally(Tally::State, state.as_str())?));
        }
        Ok((q.pending_count()?, q.doubtful_count()?, states))
    });
    let (pending, doubtful, states) = read.await?;
    metrics::gauge!("atcomm_directory_pending").set(pending as f64);
    metrics::gauge!("atcomm_directory_doubtful").set(doubtful as f64);
    for (state, accounts) in states {
        metrics::gauge!("atcomm_directory_accounts", "state" => state).set(accounts as f64);
    }
    Ok(())
}

/// Returns the page of all metrics. One that nothing was recorded of has its description alone, so
/// that the page always lists what there is.
fn page(recorder: &PrometheusHandle) -> String {
    let mut page = recorder.render();
    for metric in names::metrics() {
        let kind = metric.kind.as_str();
        let line = format!("# TYPE {} {kind}\n", metric.name);
        if !page.contains(&line) {
            // Writing to a text cannot fail.
            let _ = write!(page, "# HELP {} {}\n{line}\n", metric.name, metric.help);
        }
    }
    page
}

/// Returns the gauge of the log beside a file.
fn log_bytes(file: &'static str) -> metrics::Gauge {
    metrics::gauge!("atcomm_store_log_bytes", "file" => file)
}

fn describe() {
    metrics::gauge!("atcomm_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let started = Clock::system().now().millis() as f64 / 1000.0;
    metrics::gauge!("process_start_time_seconds").set(started);
    for metric in names::metrics() {
        match metric.kind {
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}
