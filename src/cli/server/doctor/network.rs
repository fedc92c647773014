//! Checks of the servers that the service depends on: its PDS, the PLC directory, and the clock.

use std::time::Duration;

use chrono::DateTime;
use serde_json::Value;
use tokio::runtime::Builder;
use url::Url;

use super::super::super::CliError;
use super::Finding;
use crate::config::Config;
use crate::ingest::{SourceKind, SourceSettings};
use atcomm_net::net::{Net, NetError, Request, Response, Trust};
use atcomm_proto::clock::{Clock, Timestamp};

/// Time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 << 10;

/// How far the clock may be wrong: tokens and expiry times are in seconds, and other servers allow
/// about this much.
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(60);

/// Most PDSes that are asked.
const MAX_PDSES: usize = 20;

/// Adds all findings of other servers.
pub(super) fn check(
    config: &Config,
    add: &mut dyn FnMut(Finding) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let hint = "the limits of this user or container may be too low";
            return add(Finding::failed("network", error.to_string(), hint));
        }
    };
    runtime.block_on(async {
        let net = match Net::bind(config.net.clone(), Clock::system()) {
            Ok(net) => net,
            Err(error) => {
                let hint = "see [net] in the configuration";
                return add(Finding::failed("network", error.to_string(), hint));
            }
        };
        let mut time = None;
        let sources = config.all_sources().unwrap_or_default();
        let own = sources.iter().filter(|one| one.kind == SourceKind::Pds);
        for pds in own.take(MAX_PDSES) {
            add(of_pds(&net, pds, &mut time).await)?;
            add(of_list(&net, pds).await)?;
        }
        add(of_plc(&net, config, &mut time).await)?;
        add(of_clock(time.as_ref(), Clock::system().now()))
    })
}

/// The time that a server told.
struct Time {
    host: String,
    at: Timestamp,
}

async fn get(net: &Net, base: &str, path: &str) -> Result<Response, NetError> {
    let url = format!("{}{path}", base.trim_end_matches('/'));
    let url = Url::parse(&url).map_err(|_| NetError::Protocol("not a URL"))?;
    let mut request = Request::new(url, Trust::Configured, MAX_ANSWER);
    request.timeout = Some(REQUEST_TIMEOUT);
    net.get(&request).await
}

/// Notes the time that an answer tells.
fn note_time(response: &Response, host: &str, time: &mut Option<Time>) {
    let date = response
        .headers
        .get("date")
        .and_then(|date| date.to_str().ok());
    if let Some(date) = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()) {
        *time = Some(Time {
            host: host.to_owned(),
            at: Timestamp::from_millis(date.timestamp_millis()),
        });
    }
}

async fn of_pds(net: &Net, pds: &SourceSettings, time: &mut Option<Time>) -> Finding {
    const CHECK: &str = "pds";
    let connect = pds.connect.as_deref().unwrap_or(&pds.url);
    let answer = get(net, connect, "/xrpc/com.atproto.server.describeServer").await;
    let failed = |detail: String| {
        let hint = "check pds.url and pds.connect, and that the PDS runs";
        Finding::failed(CHECK, format!("{} at {connect}: {detail}", pds.url), hint)
    };
    match answer {
        Ok(response) if response.status.as_u16() == 200 => {
            note_time(&response, connect, time);
            Finding::ok(CHECK, format!("{} answers at {connect}", pds.url))
        }
        Ok(response) => failed(format!("answers {}", response.status.as_u16())),
        Err(error) => failed(error.to_string()),
    }
}

async fn of_list(net: &Net, pds: &SourceSettings) -> Finding {
    const CHECK: &str = "listRepos";
    let base = pds.list.as_deref().or(pds.connect.as_deref());
    let base = base.unwrap_or(&pds.url);
    let answer = get(net, base, "/xrpc/com.atproto.sync.listRepos?limit=1").await;
    let failed = |detail: String| {
        let hint = "without it accounts are found only when they write; see the PDS";
        Finding::failed(CHECK, format!("{base}: {detail}"), hint)
    };
    match answer {
        Ok(response) if response.status.as_u16() == 200 => {
            let list: Option<Value> = serde_json::from_slice(&response.body).ok();
            if list.is_some_and(|list| list["repos"].is_array()) {
                Finding::ok(CHECK, format!("{base} lists its accounts"))
            } else {
                failed("the answer is no list of accounts".to_owned())
            }
        }
        Ok(response) => failed(format!("answers {}", response.status.as_u16())),
        Err(error) => failed(error.to_string()),
    }
}

async fn of_plc(net: &Net, config: &Config, time: &mut Option<Time>) -> Finding {
    const CHECK: &str = "plc";
    let url = config.identity.plc_url.as_str();
    let failed = |detail: String| {
        let hint = "without it no account can be verified: check identity.plc_url and the firewall";
        Finding::failed(CHECK, format!("{url}: {detail}"), hint)
    };
    match get(net, url, "/_health").await {
        Ok(response) if response.status.as_u16() == 200 => {
            note_time(&response, url, time);
            Finding::ok(CHECK, format!("{url} answers"))
        }
        Ok(response) => failed(format!("answers {}", response.status.as_u16())),
        Err(error) => failed(error.to_string()),
    }
}

/// Compares the clock with that of another server: the PLC directory, and else a PDS, whose clock may
/// be that of this machine.
fn of_clock(time: Option<&Time>, now: Timestamp) -> Finding {
    const CHECK: &str = "clock";
    let hint = "keep it right by NTP: tokens and expiry times depend on it";
    let Some(Time { host, at }) = time else {
        return Finding::note(CHECK, "no server told the time", hint);
    };
    let error = at.since(now).max(now.since(*at));
    if error > MAX_CLOCK_ERROR {
        let detail = format!("differs by {} s from {host}", error.as_secs());
        return Finding::failed(CHECK, detail, hint);
    }
    Finding::ok(CHECK, format!("agrees with {host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_a_minute_wrong() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let judge = |seconds: i64| {
            let time = Time {
                host: "a.example".to_owned(),
                at: Timestamp::from_millis(1_800_000_000_000 + seconds * 1000),
            };
            of_clock(Some(&time), now)
        };
        assert!(judge(60).ok && judge(-60).ok);
        for wrong in [61, -61, 86_400] {
            let finding = judge(wrong);
            assert!(!finding.ok, "{finding:?}");
            assert!(finding.detail.contains(&wrong.abs().to_string()));
        }
        let none = of_clock(None, now);
        assert!(none.ok && none.hint.is_some());
    }
}
