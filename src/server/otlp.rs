//! Metrics pushed by OTLP over HTTP, for a Prometheus or a collector that receives them so.
//!
//! What is pushed is the page of `/metrics`, read again: names, labels and values are the same,
//! however they reach the operator.

mod message;
mod page;

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::ServerError;
use atcomm_net::net::{Net, Request, Trust};
use atcomm_proto::clock::{Clock, Timestamp};

/// Time between two pushes, as the metrics of PDSes are pushed.
const PUSH_INTERVAL: Duration = Duration::from_secs(15);

/// Longest time of one push, so that one that hangs delays the next and no other.
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer that is read, in bytes. It says what was refused.
const MAX_ANSWER_LEN: usize = 16 * 1024;

/// Most bytes of an answer that are logged.
const MAX_LOGGED_LEN: usize = 200;

/// Pushes the metrics of this process.
pub(super) struct Push {
    url: Url,
    net: Net,
    clock: Clock,
    instance: String,
    started: Timestamp,
    render: Box<dyn Fn() -> String + Send + Sync>,
}

impl Push {
    /// Reads the address. `instance` tells this process from others of the same operator; `render`
    /// writes the page of metrics.
    pub(super) fn new(
        url: &str,
        net: Net,
        instance: String,
        render: Box<dyn Fn() -> String + Send + Sync>,
    ) -> Result<Self, ServerError> {
        let url = Url::parse(url).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        // Receivers judge samples by the time of day, which a clock of a test does not tell.
        let clock = Clock::system();
        Ok(Self {
            url: url.ok_or(ServerError::OtlpUrl)?,
            net,
            started: clock.now(),
            clock,
            instance,
            render,
        })
    }

    /// Pushes the metrics at intervals until `stop`, and once more then.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut pushes = interval(PUSH_INTERVAL);
        pushes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_failed = false;
        loop {
            let is_last = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                _ = pushes.tick() => false,
            };
            let result = self.push().await;
            // What repeats is not news.
            match &result {
                Err(reason) if !has_failed => {
                    tracing::warn!(%reason, "metrics cannot be pushed to metrics.otlp_url");
                }
                Ok(()) if has_failed => tracing::info!("metrics are pushed again"),
                _ => {}
            }
            has_failed = result.is_err();
            if is_last {
                return;
            }
        }
    }

    async fn push(&self) -> Result<(), String> {
        let families = page::families(&(self.render)());
        let moment = message::Moment {
            started: self.started,
            now: self.clock.now(),
        };
        let request = message::request(&self.instance, &families, moment);
        let mut post = Request::new(self.url.clone(), Trust::Configured, MAX_ANSWER_LEN);
        post.timeout = Some(PUSH_TIMEOUT);
        let body = Bytes::from(request.encode_to_vec());
        let answer = self.net.post(&post, "application/x-protobuf", body).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status.is_success() {
            return Ok(());
        }
        let told = &answer.body[..answer.body.len().min(MAX_LOGGED_LEN)];
        let told = String::from_utf8_lossy(told).escape_debug().to_string();
        Err(format!("HTTP {}: {told}", answer.status.as_u16()))
    }
}
