//! How fresh a stream is: what the operator sees of it while nothing fails.

use std::time::{Duration, Instant};

use atcomm_proto::clock::Timestamp;

/// Shortest time between two readings of an event's own time: a stream may bring thousands of events
/// a second.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// The gauges of one source's stream.
pub(super) struct Freshness {
    connected: metrics::Gauge,
    last_event: metrics::Gauge,
    lag: metrics::Gauge,
    silent: metrics::Gauge,
    /// When the stream last brought anything, or was connected.
    heard: Instant,
    lag_read: Option<Instant>,
}

impl Freshness {
    pub(super) fn new(source: &str, now: Instant) -> Self {
        let gauge = |name: &'static str| metrics::gauge!(name, "source" => source.to_owned());
        let freshness = Self {
            connected: gauge("atcomm_ingest_connected"),
            last_event: gauge("atcomm_ingest_last_event_timestamp_seconds"),
            lag: gauge("atcomm_ingest_lag_seconds"),
            silent: gauge("atcomm_ingest_silent_seconds"),
            heard: now,
            lag_read: None,
        };
        // A source that was never reached is one that is not connected.
        freshness.on_end();
        freshness
    }

    /// Notes that the stream is connected.
    pub(super) fn on_connect(&mut self, now: Instant) {
        self.heard = now;
        self.connected.set(1.0);
        self.silent.set(0.0);
    }

    /// Notes that the stream has brought a message.
    pub(super) fn on_message(&mut self, now: Instant, time: Timestamp) {
        self.heard = now;
        self.silent.set(0.0);
        self.last_event.set(time.millis() as f64 / 1000.0);
    }

    /// Notes how old an event is that is read at `time`. `of_event` reads the event's own time, or
    /// returns `None` where that is no time; it is not called for each event.
    pub(super) fn on_event(
        &mut self,
        time: Timestamp,
        of_event: impl FnOnce() -> Option<Timestamp>,
    ) {
        let is_recent = |read: Instant| self.heard.saturating_duration_since(read) < LAG_INTERVAL;
        if self.lag_read.is_some_and(is_recent) {
            return;
        }
        if let Some(at) = of_event() {
            self.lag_read = Some(self.heard);
            // A source whose clock is ahead of ours is not behind.
            self.lag.set(time.since(at).as_secs_f64());
        }
    }

    /// Notes that time has passed.
    pub(super) fn on_time(&self, now: Instant) {
        let silent = now.saturating_duration_since(self.heard);
        self.silent.set(silent.as_secs_f64());
    }

    /// Notes that the stream is not connected.
    pub(super) fn on_end(&self) {
        self.connected.set(0.0);
        self.silent.set(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn a_stream_tells_its_lag_and_its_silence() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let value = |name: &str| {
            let page = handle.render();
            let line = page.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        metrics::with_local_recorder(&recorder, || {
            let (start, at) = (Instant::now(), Timestamp::from_millis);
            let after = |seconds| start + Duration::from_secs(seconds);
            let mut freshness = Freshness::new("pds https://pds.example.com", start);
            assert_eq!(value("atcomm_ingest_connected"), 0.0);
            freshness.on_time(after(100));
            freshness.on_end();
            freshness.on_connect(after(100));
            freshness.on_time(after(130));
            assert_eq!(value("atcomm_ingest_connected"), 1.0);
            assert_eq!(value("atcomm_ingest_silent_seconds"), 30.0);
            assert_eq!(value("atcomm_ingest_last_event"), 0.0);

            freshness.on_message(after(131), at(1_000_000));
            freshness.on_event(at(1_000_000), || None);
            freshness.on_event(at(1_000_000), || Some(at(940_000)));
            assert_eq!(value("atcomm_ingest_lag_seconds"), 60.0);
            assert_eq!(value("atcomm_ingest_silent_seconds"), 0.0);
            assert_eq!(value("atcomm_ingest_last_event"), 1000.0);

            // The next one is not read, and one after a second is.
            freshness.on_event(at(1_000_000), || panic!("read twice in a second"));
            freshness.on_message(after(132), at(1_001_000));
            freshness.on_event(at(1_001_000), || Some(at(1_002_000)));
            assert_eq!(value("atcomm_ingest_lag_seconds"), 0.0);
            freshness.on_end();
            assert_eq!(value("atcomm_ingest_connected"), 0.0);
        });
    }
}
