//! The examples of `docs/xrpc.md` are made by the program: each call is sent to a real service, and
//! what varies from run to run is replaced by stable names.
//!
//! A block begins with the line ```` ```http ````, and its next line is the call: `GET` with a path,
//! or `POST` with a path and a body in one line. The rest of the block is the answer. A new example
//! is such a block with the call alone: with `WRITE_XRPC_DOCS=1` in the environment the test
//! writes the answers.

use serde_json::{Map, Value, json};

use crate::http::request;
use crate::network::{Account, Network, root, text};
use crate::service::{Service, Setup};

const DOCUMENT: &str = "docs/xrpc.md";
const BEGIN: &str = "```http\n";
const END: &str = "```\n";

/// Headers that are shown with an answer. Those of limits depend on what is in memory.
const SHOWN: [&str; 4] = [
    "content-type",
    "cache-control",
    "retry-after",
    "atproto-repo-rev",
];

/// A service that has looked at Alice and Bob, and the names that stand for what varies.
struct Stage {
    service: Service,
    /// What varies, and the name for it; what is part of another comes later.
    names: Vec<(String, String)>,
}

impl Stage {
    fn set() -> Self {
        let network = Network::multikey();
        let mediator = network.mediator();
        let package = json!({"label": "phone", "mediators": [mediator]});
        let alice = network.enrolled("alice", 0, package.clone());
        let bob = network.enrolled("bob", 1, package);
        let carol = network.account("carol", 0);
        let service = Setup::new(network).start();
        let mut names = Vec::new();
        for (account, name) in [(&alice, "alice"), (&bob, "bob"), (&carol, "carol")] {
            names.extend(names_of(account, name));
        }
        for account in [&alice, &bob] {
            service.until(&account.did, "the mediator", |view| {
                view["mediators"][0]["state"] == "reachable" && view["handle"] == *account.handle
            });
        }
        names.push((
            format!("{mediator}#key-1"),
            "did:web:mail.example.com#key-1".to_owned(),
        ));
        names.push((mediator.clone(), "did:web:mail.example.com".to_owned()));
        let host = mediator.trim_start_matches("did:web:").replace("%3A", ":");
        names.push((
            format!("http://{host}"),
            "https://mail.example.com".to_owned(),
        ));
        for pds in [0, 1] {
            names.push((
                network.pds_url(pds),
                format!("https://pds{pds}.example.com"),
            ));
        }
        Self { service, names }
    }

    /// Sends a call of the document. Returns the block that shows call and answer.
    fn play(&self, call: &str) -> String {
        let mut parts = call.splitn(3, ' ');
        let verb = parts.next().expect("a verb");
        let path = self.real(parts.next().expect("a path"));
        let body = parts.next().map(|body| self.real(body).into_bytes());
        let headers: &[_] = match body {
            Some(_) => &[("content-type", "application/json")],
            None => &[],
        };
        let answer = request(verb, &self.service.url(&path), headers, body);
        let mut block = format!("{BEGIN}{call}\n\n{}\n", answer.status);
        for name in SHOWN {
            let value = answer.header(name);
            if !value.is_empty() {
                block.push_str(&format!("{name}: {}\n", self.shown_token(name, value)));
            }
        }
        block.push('\n');
        if answer.header("content-type") == "application/json" {
            let shown = self.shown("", &answer.json());
            block.push_str(&serde_json::to_string_pretty(&shown).expect("JSON"));
        } else {
            block.push_str("(binary)");
        }
        block.push('\n');
        block.push_str(END);
        block
    }

    /// Replaces names by what they stand for.
    fn real(&self, text: &str) -> String {
        let replace = |text: String, (real, name): &(String, String)| {
            let escaped: String = url::form_urlencoded::byte_serialize(real.as_bytes()).collect();
            text.replace(
                name,
                if text.starts_with('/') {
                    &escaped
                } else {
                    real
                },
            )
        };
        self.names.iter().fold(text.to_owned(), replace)
    }

    /// Replaces what varies in an answer. `key` is the member that the value is of.
    fn shown(&self, key: &str, value: &Value) -> Value {
        match value {
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, value)| (key.clone(), self.shown(key, value)))
                    .collect::<Map<_, _>>(),
            ),
            Value::Array(values) => {
                let mut values: Vec<_> = values.iter().map(|one| self.shown(key, one)).collect();
                // Their order is that of DIDs and addresses, which vary.
                if matches!(key, "repos" | "largest") {
                    values.sort_by_key(Value::to_string);
                }
                Value::Array(values)
            }
            Value::String(text) => json!(self.shown_token(key, text)),
            Value::Number(_) if matches!(key, "age" | "seq") => json!(7),
            other => other.clone(),
        }
    }

    fn shown_token(&self, key: &str, text: &str) -> String {
        let text = self
            .names
            .iter()
            .fold(text.to_owned(), |text, (real, name)| {
                text.replace(real, name)
            });
        let is_time = chrono::DateTime::parse_from_rfc3339(&text).is_ok();
        let is_day = chrono::NaiveDate::parse_from_str(&text, "%Y-%m-%d").is_ok();
        match key {
            _ if is_day => "2026-06-14".to_owned(),
            _ if is_time => "2026-06-14T12:00:00.000Z".to_owned(),
            "rev" | "atproto-repo-rev" => "3lrev…".to_owned(),
            "$bytes" | "sig" => "OqJl…".to_owned(),
            "version" => "0.0.0".to_owned(),
            _ => shortened(&text),
        }
    }
}

/// Returns what stands for an account: its DID, its handle and its did:peer, whole and as far as
/// its keys.
fn names_of(account: &Account, name: &str) -> Vec<(String, String)> {
    let mut names = vec![
        (account.did.clone(), format!("did:plc:{name}…")),
        (account.handle.clone(), format!("{name}.example.com")),
    ];
    if account.made["peer"].is_object() {
        let peer = text(&account.made, "/peer/did").to_owned();
        names.push((peer, format!("did:peer:2.{name}…")));
    }
    names
}

/// Cuts CIDs and keys, which are words of many letters and digits.
fn shortened(text: &str) -> String {
    let mut shown = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let is_long = word.len() > 40;
        let kinds = ["bafyrei", "zQ3sh", "z6Mk", "z6LS", "zDna", "did"];
        match kinds
            .iter()
            .find(|kind| is_long && word.starts_with(**kind))
        {
            Some(kind) => shown.push_str(&format!("{kind}…")),
            None => shown.push_str(&word),
        }
        word.clear();
        shown.push(c);
    }
    shown.pop();
    shown
}

/// Returns the document with the answers of the service, and the calls in it.
fn played(document: &str) -> (String, Vec<String>) {
    let stage = Stage::set();
    let (mut made, mut calls) = (String::new(), Vec::new());
    let mut rest = document;
    while let Some((before, block)) = rest.split_once(BEGIN) {
        let (block, after) = block.split_once(END).expect("the end of a block");
        let call = block.lines().next().expect("a call");
        made.push_str(before);
        made.push_str(&stage.play(call));
        calls.push(call.to_owned());
        rest = after;
    }
    made.push_str(rest);
    (made, calls)
}

#[test]
fn the_examples_of_the_document_are_calls_and_answers_of_the_program() {
    let path = root().join(DOCUMENT);
    let document = std::fs::read_to_string(&path).expect(DOCUMENT);
    let (made, calls) = played(&document);
    if std::env::var_os("WRITE_XRPC_DOCS").is_some() {
        std::fs::write(&path, &made).expect(DOCUMENT);
        return;
    }
    for (theirs, ours) in document.lines().zip(made.lines()) {
        assert_eq!(
            theirs, ours,
            "{DOCUMENT} differs: run with WRITE_XRPC_DOCS=1"
        );
    }
    assert_eq!(document.len(), made.len(), "{DOCUMENT} differs");
    assert!(calls.len() >= 10, "{calls:?}");
}

/// Every method that the page at `/` tells of is on the page of the documentation.
#[test]
fn every_method_is_documented() {
    let document = std::fs::read_to_string(root().join(DOCUMENT)).expect(DOCUMENT);
    let service = Setup::offline().start();
    let page = request("GET", &service.url("/"), &[("accept", "text/plain")], None).text();
    let paths: Vec<&str> = page
        .split_whitespace()
        .filter(|word| word.starts_with("/xrpc/"))
        .map(|word| word.split('?').next().unwrap_or(word))
        .collect();
    assert!(paths.len() > 10, "{page}");
    for path in paths {
        let heading = path.trim_start_matches("/xrpc/");
        assert!(document.contains(heading), "{heading} is not in {DOCUMENT}");
    }
}
