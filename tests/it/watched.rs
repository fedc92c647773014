//! A real Prometheus watches a real service: the alert rules of `deploy/prometheus`, and the panels
//! of `deploy/grafana`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{MediatorService, Person};
use crate::http::{request, try_request, within};
use crate::mail::free_port;
use crate::mediator::Mediator;
use crate::network::{Network, root, text};
use crate::service::Setup;

/// Timeout of an alert or a value. The rules here are evaluated each second, and some rates need
/// several scrapes.
const ALERT_TIMEOUT: Duration = Duration::from_secs(60);

/// A Prometheus that scrapes one service each second.
struct Prometheus {
    child: Child,
    url: String,
    _dir: TempDir,
}

/// Returns a file below `deploy/`.
fn deploy(name: &str) -> String {
    std::fs::read_to_string(root().join("deploy").join(name)).expect("a file of deploy/")
}

/// Returns the rules with conditions that hold at once: no waiting, and `changes` made.
fn impatient_rules(changes: &[(&str, &str)]) -> String {
    let mut rules = String::new();
    for line in deploy("prometheus/alerts.yml").lines() {
        match line.split_once("        for: ") {
            Some(_) => rules.push_str("        for: 0s"),
            None => rules.push_str(line),
        }
        rules.push('\n');
    }
    for (from, to) in changes {
        assert!(rules.contains(from), "no rule has {from}");
        rules = rules.replace(from, to);
    }
    rules
}

impl Prometheus {
    /// Starts it with the scrape job that is shipped, for a service whose metrics are on a port.
    #[track_caller]
    fn start(metrics_port: u16, rules: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let job = deploy("prometheus/scrape.yml");
        let target = "127.0.0.1:2591";
        assert!(job.contains(target), "{job}");
        let job = job.replace(target, &format!("127.0.0.1:{metrics_port}"));
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [alerts.yml]\n{job}"
        );
        std::fs::write(dir.path().join("alerts.yml"), rules).expect("a file");
        std::fs::write(dir.path().join("prometheus.yml"), config).expect("a file");
        let port = free_port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path(&dir, "prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", path(&dir, "data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus (Debian: apt-get install prometheus)");
        let prometheus = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            _dir: dir,
        };
        within(ALERT_TIMEOUT, "Prometheus is ready", || {
            let ready = format!("{}/-/ready", prometheus.url);
            let answer = try_request("GET", &ready, &[], None).ok()?;
            (answer.status == 200).then_some(())
        });
        prometheus
    }

    /// Returns what a query finds now.
    #[track_caller]
    fn query(&self, query: &str) -> Vec<Value> {
        let mut url = url::Url::parse(&format!("{}/api/v1/query", self.url)).expect("a URL");
        url.query_pairs_mut().append_pair("query", query);
        let answer = request("GET", url.as_str(), &[], None).json();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().expect("a list").clone()
    }

    /// Returns the alert of this name that fires, if one does.
    fn firing(&self, alert: &str) -> Option<Value> {
        let url = format!("{}/api/v1/alerts", self.url);
        let answer = request("GET", &url, &[], None).json();
        let alerts = answer["data"]["alerts"].as_array().expect("a list");
        let mut named = alerts
            .iter()
            .filter(|one| one["labels"]["alertname"] == alert);
        named.find(|one| one["state"] == "firing").cloned()
    }

    /// Waits until an alert fires, while `meanwhile` goes on. Returns its annotations.
    #[track_caller]
    fn until_firing(&self, alert: &str, mut meanwhile: impl FnMut()) -> Value {
        let found = within(ALERT_TIMEOUT, &format!("{alert} fires"), || {
            meanwhile();
            self.firing(alert)
        });
        let annotations = found["annotations"].clone();
        // Templates that fail leave a note in the text.
        let told = annotations.to_string();
        assert!(!told.contains("error expanding"), "{annotations}");
        annotations
    }

    #[track_caller]
    fn until_resolved(&self, alert: &str) {
        within(ALERT_TIMEOUT, &format!("{alert} ends"), || {
            self.firing(alert).is_none().then_some(())
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

/// Runs promtool in `deploy/prometheus`.
#[track_caller]
fn promtool(args: &[&str], folder: &Path) {
    let output = Command::new("promtool")
        .args(args)
        .current_dir(folder)
        .output()
        .expect("promtool (Debian: apt-get install prometheus)");
    let told =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "promtool {args:?}: {told:?}");
}

#[test]
fn the_rules_pass_their_tests_and_lead_to_the_guide() {
    let folder = root().join("deploy/prometheus");
    promtool(&["check", "rules", "alerts.yml"], &folder);
    promtool(&["check", "config", "scrape.yml"], &folder);
    promtool(&["test", "rules", "alerts_test.yml"], &folder);
    let (rules, tests) = (
        deploy("prometheus/alerts.yml"),
        deploy("prometheus/alerts_test.yml"),
    );
    let guide = std::fs::read_to_string(root().join("docs/operating.md")).expect("the guide");
    let names = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut count = 0;
    for name in names {
        count += 1;
        let fires = format!("alertname=\"{name}\"");
        assert!(tests.contains(&fires), "no test has {name} fire");
        assert!(
            guide.contains(&format!("\n### {name}\n")),
            "the guide has no heading {name}"
        );
        let url = format!("runbook_url: \"docs/operating.md#{}\"", name.to_lowercase());
        assert_eq!(rules.matches(&url).count(), 1, "{url}");
    }
    assert_eq!(rules.matches("runbook_url: ").count(), count);
}

#[test]
fn alerts_fire_when_sources_fail() {
    let network = Network::own(&["--multikey"]);
    let relay = network.op("relay.start", json!({}));
    let jetstream = network.op("jetstream.start", json!({"pds": [1]}));
    let metrics_port = free_port();
    let service = Setup::new(network)
        .pds(network, 0)
        .source(json!({"url": text(&relay, "/url"), "kind": "relay"}))
        .source(json!({"url": text(&jetstream, "/url"), "kind": "jetstream", "walk": false}))
        .set("metrics.listen", json!(format!("127.0.0.1:{metrics_port}")))
        .start();
    service.until_following(3);
    let silence = (
        "(jetstream|relay) .*\"} > 600",
        "(jetstream|relay) .*\"} > 1",
    );
    let prometheus = Prometheus::start(metrics_port, &impatient_rules(&[silence]));
    // The relay lists no accounts, and nothing happens on it. The silence of a stream is told at
    // each keep-alive.
    let told = prometheus.until_firing("AtcommListingFailed", || {});
    assert!(
        text(&told, "/summary").contains(text(&relay, "/url")),
        "{told}"
    );
    assert_eq!(prometheus.firing("AtcommSourceGone"), None);
    network.op("pds.stop", json!({"pds": 0}));
    let told = prometheus.until_firing("AtcommSourceGone", || {});
    assert!(
        text(&told, "/summary").contains(&network.pds_url(0)),
        "{told}"
    );
    network.op("pds.start", json!({"pds": 0}));
    prometheus.until_resolved("AtcommSourceGone");
    prometheus.until_firing("AtcommSourceSilent", || {});
    assert_eq!(prometheus.firing("AtcommDown"), None);
    let stopped = service.stop();
    prometheus.until_firing("AtcommDown", || {});
    // Starts that follow each other, each of which is scraped.
    let mut stopped = Some(stopped);
    let told = prometheus.until_firing("AtcommRestarting", || {
        let service = stopped.take().expect("it is stopped").start();
        let started = service.metric("process_start_time_seconds", &[]);
        within(ALERT_TIMEOUT, "the start is scraped", || {
            let seen = prometheus.query("process_start_time_seconds{job=\"atcomm\"}");
            let seen = seen.first()?["value"][1].as_str()?.parse::<f64>().ok()?;
            ((seen - started).abs() < 0.01).then_some(())
        });
        stopped = Some(service.stop());
    });
    assert!(text(&told, "/summary").contains("started"), "{told}");
}

#[test]
fn alerts_fire_when_the_mailbox_fills() {
    let metrics_port = free_port();
    let mediator = Mediator::start(
        Mediator::setup()
            .set("metrics.listen", json!(format!("127.0.0.1:{metrics_port}")))
            .set("mediator.total_bytes", json!(4000)),
    );
    let client = mediator.member();
    let prometheus = Prometheus::start(metrics_port, &impatient_rules(&[]));
    assert_eq!(prometheus.firing("AtcommMailboxNearlyFull"), None);
    // Forwards are refused once the limit is reached, which is a failure to their senders.
    let fill = || {
        let packed = client.pack_for(&client.did).envelope;
        client.try_forward(json!({"next": client.did, "packed": packed}));
    };
    let told = prometheus.until_firing("AtcommErrors", fill);
    assert!(
        text(&told, "/summary").contains("one request in twenty"),
        "{told}"
    );
    let told = prometheus.until_firing("AtcommMailboxNearlyFull", fill);
    assert!(text(&told, "/summary").contains("four fifths"), "{told}");
}

/// Returns the panels of the dashboard that show data, each with its queries.
fn panels() -> Vec<(String, Vec<String>)> {
    let dashboard: Value = serde_json::from_str(&deploy("grafana/atcomm.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("a list");
    let queries = |panel: &Value| {
        let targets = panel["targets"].as_array().expect("a list");
        let expr = |target: &Value| text(target, "/expr").to_owned();
        targets.iter().map(expr).collect()
    };
    let shown = panels.iter().filter(|panel| panel["type"] != "row");
    shown
        .map(|panel| (text(panel, "/title").to_owned(), queries(panel)))
        .collect()
}

#[test]
fn every_panel_of_the_dashboard_shows_data() {
    let network = Network::own(&["--multikey"]);
    let metrics_port = free_port();
    let address = format!("127.0.0.1:{metrics_port}");
    let near = MediatorService::start_as(network, |setup| {
        let setup = setup
            .set("metrics.listen", json!(address))
            .set("http.check_public_url", json!(true));
        setup.without_sources().pds(network, 0).pds(network, 1)
    });
    let prometheus = Prometheus::start(metrics_port, &impatient_rules(&[]));
    let far = MediatorService::start(network);
    let alice = Person::enrolled(network, "alice", 0, &near);
    let bob = Person::enrolled(network, "bob", 1, &far);
    // What counts is the rate while it is scraped: twice, so that it rises.
    for words in ["one", "two"] {
        for (from, to) in [(&alice, &bob), (&bob, &alice)] {
            from.cli.run(&["send", &to.account.handle, words]).success();
        }
        within(ALERT_TIMEOUT, "the message comes", || {
            let output = alice.cli.run(&["receive"]);
            output.stdout.contains(words).then_some(())
        });
    }
    let panels = panels();
    assert!(panels.len() > 20, "{} panels", panels.len());
    for (title, queries) in panels {
        for query in queries {
            let query = query.replace("$__rate_interval", "1m");
            within(ALERT_TIMEOUT, &format!("{title}: {query}"), || {
                let found = prometheus.query(&query);
                let values = found.iter().map(|one| text(one, "/value/1"));
                let shown = values.filter(|value| *value != "NaN").count();
                (shown > 0).then_some(())
            });
        }
    }
}
