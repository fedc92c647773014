//! Metrics pushed by OTLP, as a receiver with another implementation of protobuf reads them.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver as Lines, channel};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::network::script;

use crate::http::request;
use crate::network::text;
use crate::service::Setup;

/// Timeout of a push, on a machine that is busy with other tests.
const PUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// A receiver of metrics in a process of its own (`tests/network/otlp.mjs`).
struct Receiver {
    child: Child,
    lines: Lines<Value>,
    url: String,
}

impl Receiver {
    #[track_caller]
    fn start() -> Self {
        let mut child = script("node.sh")
            .arg("otlp.mjs")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("JSON");
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        let mut receiver = Self {
            child,
            lines,
            url: String::new(),
        };
        receiver.url = text(&receiver.next(), "/url").to_owned();
        receiver
    }

    #[track_caller]
    fn next(&self) -> Value {
        self.lines.recv_timeout(PUSH_TIMEOUT).expect("a line")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// Returns the attributes of a resource or a value.
fn attribute<'v>(of: &'v Value, key: &str) -> Option<&'v str> {
    let all = of["attributes"].as_array()?;
    let found = all.iter().find(|one| one["key"] == key)?;
    found["value"]["stringValue"].as_str()
}

#[test]
fn metrics_are_pushed_as_they_are_shown() {
    let receiver = Receiver::start();
    let service = Setup::offline()
        .set(
            "metrics.otlp_url",
            json!(format!("{}/v1/metrics", receiver.url)),
        )
        .set("http.public_url", json!("https://dir.example.com"))
        .start();
    // The receiver answers the first push with 503.
    let first = receiver.next();
    assert_eq!(first["path"], "/v1/metrics");
    assert_eq!(first["contentType"], "application/x-protobuf");
    crate::http::eventually("the failure is logged", || {
        service.log().contains("HTTP 503").then_some(())
    });
    request("GET", &service.url("/xrpc/_health"), &[], None);
    let page = service.metrics_page();
    // The last push tells the state at the end.
    drop(service.stop());
    let pushed = receiver.next();
    let of = &pushed["metrics"]["resourceMetrics"][0];
    let resource = &of["resource"];
    assert_eq!(attribute(resource, "service.name"), Some("atcomm"));
    assert_eq!(
        attribute(resource, "service.instance.id"),
        Some("did:web:dir.example.com")
    );
    let metrics = of["scopeMetrics"][0]["metrics"].as_array().expect("a list");
    let named = |name: &str| {
        let found = metrics.iter().find(|metric| metric["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not pushed"))
    };
    let requests = &named("atcomm_http_requests_total")["sum"];
    assert_eq!(requests["isMonotonic"], true);
    assert_eq!(requests["aggregationTemporality"], "CUMULATIVE");
    let points = requests["dataPoints"].as_array().expect("a list");
    let health = points
        .iter()
        .find(|point| attribute(point, "method") == Some("_health"));
    let health = health.expect("the request");
    assert_eq!(
        (attribute(health, "status"), &health["asDouble"]),
        (Some("200"), &json!(1))
    );
    assert!(health["startTimeUnixNano"].as_u64() <= health["timeUnixNano"].as_u64());
    let took = &named("atcomm_http_request_seconds")["histogram"]["dataPoints"];
    let took = took.as_array().expect("a list");
    let took = took
        .iter()
        .find(|point| attribute(point, "method") == Some("_health"));
    let took = took.expect("the time of the request");
    let list = |name: &str| took[name].as_array().expect("a list").clone();
    let counts = list("bucketCounts");
    let sum: u64 = counts.iter().filter_map(Value::as_u64).sum();
    assert_eq!(
        (Some(sum), counts.len()),
        (took["count"].as_u64(), list("explicitBounds").len() + 1)
    );
    assert_eq!(
        named("atcomm_store_healthy")["gauge"]["dataPoints"][0]["asDouble"],
        1
    );
    // Every metric with a value on the page is pushed under the same name.
    let valued =
        |name: &str| page.contains(&format!("\n{name} ")) || page.contains(&format!("\n{name}{{"));
    let lines = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for (name, _) in lines
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| valued(name))
    {
        named(name);
    }
}
