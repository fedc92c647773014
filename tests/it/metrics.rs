//! `/metrics`, its documentation, and the ids of requests.

mod pushed;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::http::{eventually, request};
use crate::mediator::Mediator;
use crate::network::{Network, root};
use crate::service::{Service, Setup};

/// Returns the metrics that `docs/metrics.md` describes, each with its labels.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the page");
    let mut found = BTreeMap::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| `")) {
        let row = row.trim_end_matches('|');
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[0].trim_end_matches('`').to_owned();
        let labels = cells[1].split('`').skip(1).step_by(2);
        let labels = labels.map(str::to_owned).collect();
        assert_eq!(cells.len(), 5, "five cells: {row}");
        assert!(found.insert(name, labels).is_none(), "twice: {row}");
    }
    found
}

/// Returns the metrics of a page, each with its kind.
fn kinds(page: &str) -> BTreeMap<&str, &str> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines.filter_map(|line| line.split_once(' ')).collect()
}

/// Returns the labels that the values of a page have, by metric.
fn labels(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let values = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in values {
        let (name, rest) = line.split_once(['{', ' ']).expect("a value");
        let parts = ["_bucket", "_sum", "_count"];
        let of = parts.iter().find_map(|part| name.strip_suffix(part));
        let of = of.filter(|of| kinds(page).get(of) == Some(&"histogram"));
        let labels = found.entry(of.unwrap_or(name).to_owned()).or_default();
        let named = rest.split("=\"").map(|part| {
            let from = part.rfind([',', '"']).map_or(0, |at| at + 1);
            part[from..].to_owned()
        });
        labels.extend(named.filter(|label| label.chars().all(|c| c.is_ascii_lowercase())));
        labels.remove("le");
    }
    found
}

/// Returns a service beside both PDSes that is a mediator, too.
fn busy_service(network: &'static Network) -> Service {
    let port = crate::mail::free_port();
    Setup::beside(network)
        .set("http.listen", json!(format!("127.0.0.1:{port}")))
        .set(
            "mediator.public_url",
            json!(format!("http://localhost:{port}")),
        )
        .start()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let network = Network::multikey();
    let service = busy_service(network);
    service.until_following(2);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    request("POST", &service.url("/didcomm"), &[], Some(b"{}".to_vec()));
    service.until_counted("atcomm_mediator_unreadable_total", &[], 1.0);
    let (page, documented) = (service.metrics_page(), documented());
    let there: BTreeSet<&str> = kinds(&page).into_keys().collect();
    let described: BTreeSet<&str> = documented.keys().map(String::as_str).collect();
    assert_eq!(there, described);
    for (name, labels) in labels(&page) {
        assert_eq!(Some(&labels), documented.get(&name), "the labels of {name}");
    }
    // Each is described to Prometheus, too, and counters are told from gauges by their names.
    for (name, kind) in kinds(&page) {
        assert!(page.contains(&format!("# HELP {name} ")), "{name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
    }
}

#[test]
fn the_state_of_sources_and_accounts_is_shown() {
    let network = Network::multikey();
    let service = busy_service(network);
    service.until_following(2);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    let pds = format!("pds {}", network.pds_url(0));
    let source = [("source", pds.as_str())];
    // The network was started for these tests, so no event is older than they are.
    let lag = service.metric("atcomm_ingest_lag_seconds", &source);
    assert!((0.0..3600.0).contains(&lag), "{lag}");
    let now = service.metric("process_start_time_seconds", &[]);
    let last = service.metric("atcomm_ingest_last_event_timestamp_seconds", &source);
    assert!(last >= now - 1.0, "{last} since the start at {now}");
    assert_eq!(service.metric("atcomm_ingest_silent_seconds", &source), 0.0);
    eventually("all accounts are in one state each", || {
        let page = service.metrics_page();
        let value = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(name))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        let enrolled = value("atcomm_directory_accounts{state=\"enrolled\"}")?;
        let all = service.metric("atcomm_directory_accounts", &[]);
        (enrolled >= 1.0 && all >= enrolled).then_some(())
    });
    service.until_counted("atcomm_directory_limit_bytes", &[], 1.0);
}

#[test]
fn the_age_of_waiting_messages_is_shown() {
    let mediator = Mediator::start(Mediator::setup());
    let client = mediator.member();
    let service = mediator.service();
    service.until_counted("atcomm_mediator_total_limit_bytes", &[], 1.0);
    assert_eq!(
        service.metric("atcomm_mediator_oldest_message_seconds", &[]),
        0.0
    );
    client.forward(&client.did, &client.pack_for(&client.did));
    service.until_counted("atcomm_mediator_queued_messages", &[], 1.0);
    service.until_counted("atcomm_mediator_oldest_message_seconds", &[], 1.0);
    client.fetch(json!({}));
}

/// Returns the first line of a JSON log that `wanted` accepts.
fn line_of_log(service: &Service, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually("the line is in the log", || {
        let log = service.log();
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.find(|line| wanted(line))
    })
}

#[test]
fn a_request_is_known_by_an_id_of_our_own() {
    let service = Setup::offline()
        .set("log.filter", json!("warn,atcomm=debug"))
        .set("log.format", json!("json"))
        .start();
    let ask = |headers: &[(&str, &str)]| {
        let answer = request("GET", &service.url("/nothing"), headers, None);
        assert_eq!(answer.status, 404);
        answer.header("x-request-id").to_owned()
    };
    let ids = [ask(&[]), ask(&[("x-request-id", "chosen-by-the-client")])];
    assert_ne!(ids[0], ids[1]);
    for id in ids {
        assert!(
            id.len() == 16 && id.chars().all(|c| c.is_ascii_hexdigit()),
            "{id}"
        );
        let line = line_of_log(&service, |line| line["span"]["id"] == *id);
        assert_eq!(
            (&line["message"], &line["status"]),
            (&json!("request"), &json!(404))
        );
    }
    assert!(!service.log().contains("chosen-by-the-client"));
}
