//! Parameters of every method: what its lexicon forbids, and what no client should send.
//!
//! The lexicons say which methods there are and what each takes, and the validator of the reference
//! implementation judges every call. What it forbids is answered by 400 and a message that names a
//! parameter at fault; what it permits is answered by what the lexicon says.

mod values;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestError, TestRunner};
use serde_json::{Map, Value, json};
use testkit::load::Connection;
use url::form_urlencoded;

use crate::http::{RUNTIME, request};
use crate::lexicon::validate;
use crate::network::{Account, Network, root, text};
use crate::service::{REFRESH, Service, Setup};
use values::{Change, Text, body, change};

/// Calls of each method. `TEST_PARAMETER_CALLS` sets another number.
const CALLS: u32 = 120;

/// Longest query that is sent: with a longer one the head of a request is longer than any is read.
const MAX_QUERY: usize = 30_000;

/// Longest message of an error, in bytes: what a client sent is not repeated at length.
const MAX_MESSAGE: usize = 500;

/// A query or subscription, as its lexicon has it.
struct Method {
    nsid: String,
    is_subscription: bool,
    has_json: bool,
    /// The parameters in the order of the lexicon.
    properties: Map<String, Value>,
    required: Vec<String>,
}

impl Method {
    /// Returns the method of a lexicon, if it takes parameters in the query.
    fn of(lexicon: &Value) -> Option<Self> {
        let main = &lexicon["defs"]["main"];
        let kind = main["type"].as_str()?;
        if !matches!(kind, "query" | "subscription") {
            return None;
        }
        let parameters = &main["parameters"];
        let required = parameters["required"].as_array();
        Some(Self {
            nsid: text(lexicon, "/id").to_owned(),
            is_subscription: kind == "subscription",
            has_json: main["output"]["encoding"] == "application/json",
            properties: parameters["properties"]
                .as_object()
                .cloned()
                .unwrap_or_default(),
            required: required
                .into_iter()
                .flatten()
                .map(|name| name.as_str().expect("a name").to_owned())
                .collect(),
        })
    }

    /// Returns the methods of all lexicons below a directory.
    fn below(dir: &Path) -> Vec<Self> {
        let mut methods = Vec::new();
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                methods.extend(Self::below(&path));
            } else {
                let lexicon = std::fs::read(&path).expect("a file");
                let lexicon = serde_json::from_slice(&lexicon).expect("JSON");
                methods.extend(Self::of(&lexicon));
            }
        }
        methods
    }

    /// Returns the parameters of a query as a client of the lexicon has them: a text that is no
    /// integer stays a text where an integer is asked for, and several values stay several.
    fn read(&self, query: &str) -> Value {
        let mut values: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(property) = self.properties.get(&*name) else {
                continue;
            };
            let item = property.get("items").unwrap_or(property);
            let value = typed(item, &value);
            values.entry(name.into_owned()).or_default().push(value);
        }
        let read = values.into_iter().map(|(name, values)| {
            let value = match &*values {
                [value] if self.properties[&name]["type"] != "array" => value.clone(),
                _ => Value::Array(values),
            };
            (name, value)
        });
        Value::Object(read.collect())
    }
}

/// Returns a text of a query as a value of a property's type, or as it is.
fn typed(property: &Value, value: &str) -> Value {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match (property["type"].as_str(), property["format"].as_str()) {
        (Some("integer"), _) if is_integer => value
            .parse::<i64>()
            .map_or_else(|_| json!(f64::MAX), |integer| json!(integer)),
        (Some("boolean"), _) if matches!(value, "true" | "false") => json!(value == "true"),
        // A handle is also taken as people write it.
        (_, Some("at-identifier")) if !value.starts_with("@did:") => {
            json!(value.strip_prefix('@').unwrap_or(value))
        }
        _ => json!(value),
    }
}

/// A service that knows accounts, and values for every parameter.
struct World {
    service: Service,
    address: SocketAddr,
    alice: Account,
    bob: Account,
    peer: String,
}

impl World {
    fn new() -> Self {
        let network = Network::multikey();
        let service = Setup::new(network).start();
        let [alice, bob] = ["one", "two"].map(|mediator| {
            let mediator = format!("did:web:{mediator}.mediator.test");
            network.enrolled("params", 0, json!({"mediators": [mediator]}))
        });
        for account in [&alice, &bob] {
            service.until(&account.did, "the handle", |view| {
                view["handle"] == *account.handle
            });
        }
        let put = alice.put(json!({"mediators": ["did:web:one.mediator.test"]}));
        service.refresh(&alice.did).expect("an outcome");
        let address = service.url("");
        let address = address.trim_start_matches("http://").parse();
        Self {
            address: address.expect("an address"),
            peer: text(&put, "/record/did").to_owned(),
            service,
            alice,
            bob,
        }
    }

    /// Returns a value that a method takes beside the others, if it is sent at all where it need
    /// not be.
    fn good(&self, method: &Method, name: &str) -> (String, bool) {
        let value: &str = match name {
            "actor" | "actors" | "did" | "identifier" => &self.alice.did,
            "handle" => &self.alice.handle,
            "peer" => &self.peer,
            "proof" => "true",
            "limit" => "1",
            "collection" => "at.didcomm.keyPackage",
            "host" => &self.alice.network.pds_url(0),
            "mediator" => "did:web:one.mediator.test",
            "state" => "enrolled",
            "interval" => "week",
            "since" => "2026-03-02",
            "until" => "2026-06-01",
            "group" => "host",
            "name" => "pds.example.com",
            "stream" => return ("0123456789abcdef0123456789abcdef".to_owned(), false),
            // That of one list is refused by another.
            "cursor" if method.is_subscription => "0",
            "cursor" => return (self.cursor(method), false),
            other => panic!("{other} of {} has no value here: add one", method.nsid),
        };
        (value.to_owned(), true)
    }

    /// Returns the cursor of a second page.
    fn cursor(&self, method: &Method) -> String {
        let params: Vec<(&str, &str)> = [
            ("limit", "1"),
            ("did", &self.alice.did),
            ("collection", "at.didcomm.keyPackage"),
        ]
        .into_iter()
        .filter(|(name, _)| method.properties.contains_key(*name))
        .collect();
        let page = self.service.query(&method.nsid, &params).json();
        text(&page, "/cursor").to_owned()
    }

    /// Sends a query as it is. Returns the status and the body.
    fn ask(&self, method: &Method, query: &str) -> (u16, Vec<u8>) {
        let path = format!("/xrpc/{}?{query}", method.nsid);
        RUNTIME.block_on(async {
            let mut connection = Connection::connect(self.address).await;
            let answer = connection.get(&path).await;
            (answer.status, answer.body.to_vec())
        })
    }

    /// Sends a body to the procedure as it is. Returns the status and the body.
    fn post(&self, body: &str) -> (u16, Value) {
        let path = format!("/xrpc/{REFRESH}");
        RUNTIME.block_on(async {
            let mut connection = Connection::connect(self.address).await;
            let answer = connection.post(&path, "application/json", body.as_bytes());
            let answer = answer.await;
            let body = serde_json::from_slice(answer.body).expect("JSON");
            (answer.status, body)
        })
    }
}

/// A query, and the parameters that differ from a good one.
struct Call {
    pairs: Vec<(String, String)>,
    changed: BTreeSet<String>,
}

impl Call {
    /// Returns a good query: with everything, or with what is required.
    fn good(world: &World, method: &Method, is_full: bool) -> Self {
        let names = method.properties.keys();
        let pairs = names.filter_map(|name| {
            let (value, is_sent) = world.good(method, name);
            let is_sent = method.required.contains(name) || is_full && is_sent;
            is_sent.then(|| (name.clone(), Text::Plain(value).in_query("")))
        });
        Self {
            pairs: pairs.collect(),
            changed: BTreeSet::new(),
        }
    }

    fn change(&mut self, method: &Method, good: &BTreeMap<&str, String>, change: &Change) {
        let name = |which: &Index| which.get(&Vec::from_iter(good.keys())).to_string();
        match change {
            Change::Add(name, value) => {
                let escaped = Text::Escaped(name.clone()).in_query("");
                self.pairs.push((escaped, value.in_query("x")));
                self.changed.insert(name.clone());
            }
            Change::EscapeNames => {
                for (name, _) in &mut self.pairs {
                    *name = name.replace('i', "%69").replace('o', "%6F");
                }
            }
            _ if method.properties.is_empty() => {}
            Change::Leave(which) => {
                let name = name(which);
                self.pairs.retain(|(other, _)| *other != name);
                self.changed.insert(name);
            }
            Change::Set(which, value) | Change::Repeat(which, value) => {
                let name = name(which);
                if matches!(change, Change::Set(..)) {
                    self.pairs.retain(|(other, _)| *other != name);
                }
                let value = value.in_query(&good[&*name]);
                self.pairs.push((name.clone(), value));
                self.changed.insert(name);
            }
        }
    }

    fn query(&self) -> String {
        let pairs = self.pairs.iter();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join("&")
    }

    /// Returns whether a message names one of the changed parameters. One that the method does not
    /// have is a fault only by its length, and its name may be none that is repeated.
    fn is_named_in(&self, method: &Method, message: &str) -> bool {
        let is_changed = |word: &str| !word.is_empty() && self.changed.contains(word);
        let mut changed = self.changed.iter();
        words_of(message).any(is_changed)
            || message.starts_with("the query is longer")
                && changed.any(|name| !method.properties.contains_key(name))
    }
}

fn words_of(message: &str) -> impl Iterator<Item = &str> {
    message.split(|c: char| !c.is_ascii_alphanumeric())
}

/// What came of the calls of one method.
#[derive(Default)]
struct Outcomes {
    forbidden: u32,
    answered: u32,
    refused: u32,
}

/// Sends a call and judges the answer.
fn judge(
    world: &World,
    method: &Method,
    call: &Call,
    outcomes: &mut Outcomes,
) -> Result<(), TestCaseError> {
    let query = call.query();
    prop_assume!(query.len() <= MAX_QUERY);
    let permitted = validate(&method.nsid, "params", &method.read(&query));
    let (status, body) = world.ask(method, &query);
    let shown = format!("{} ?{query:.300} -> {status}", method.nsid);
    if status == 200 {
        prop_assert_eq!(permitted, Ok(()), "{}", shown);
        if method.has_json {
            let body = serde_json::from_slice(&body).expect("JSON");
            prop_assert_eq!(validate(&method.nsid, "output", &body), Ok(()), "{}", shown);
        }
        outcomes.answered += 1;
        return Ok(());
    }
    let body: Value = serde_json::from_slice(&body)
        .map_err(|error| TestCaseError::fail(format!("{shown} without JSON: {error}")))?;
    let shown = format!("{shown} {body}");
    let error = json!({"status": status, "body": body});
    prop_assert_eq!(validate(&method.nsid, "error", &error), Ok(()), "{}", shown);
    let message = text(&body, "/message");
    prop_assert!(message.len() <= MAX_MESSAGE, "{}", shown);
    prop_assert!(!message.contains(char::is_control), "{}", shown);
    let is_invalid = status == 400 && body["error"] == "InvalidRequest";
    if permitted.is_err() {
        let is_named = call.is_named_in(method, message);
        prop_assert!(is_invalid && is_named, "{}", shown);
        outcomes.forbidden += 1;
        return Ok(());
    }
    // The server of an account, or its name, may be out of reach; nothing else is a fault here.
    prop_assert!(
        (400..500).contains(&status) || body["error"] == "UpstreamFailure",
        "{}",
        shown
    );
    if is_invalid {
        prop_assert!(call.is_named_in(method, message), "{}", shown);
    }
    outcomes.refused += 1;
    Ok(())
}

/// Calls one method many times.
fn examine(world: &World, method: &Method) -> Outcomes {
    let names = method.properties.keys();
    let good: BTreeMap<&str, String> = names
        .map(|name| (&**name, world.good(method, name).0))
        .collect();
    let outcomes = Outcomes::default();
    for is_full in [false, true] {
        let call = Call::good(world, method, is_full);
        let (status, body) = world.ask(method, &call.query());
        let expected = if method.is_subscription { 426 } else { 200 };
        let body = String::from_utf8_lossy(&body);
        assert_eq!(status, expected, "{} {body}", method.nsid);
    }
    let outcomes = RefCell::new(outcomes);
    let calls = std::env::var("TEST_PARAMETER_CALLS").ok();
    let calls = calls.map_or(CALLS, |text| text.parse().expect("a number"));
    let changes = prop::collection::vec(change(), 1..4);
    let result =
        TestRunner::new(config(calls)).run(&(any::<bool>(), changes), |(is_full, changes)| {
            let mut call = Call::good(world, method, is_full);
            for change in &changes {
                call.change(method, &good, change);
            }
            judge(world, method, &call, &mut outcomes.borrow_mut())
        });
    match result {
        Ok(()) => outcomes.into_inner(),
        Err(TestError::Fail(why, _)) => panic!("{why}"),
        Err(other) => panic!("{other}"),
    }
}

fn config(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

#[test]
fn inv8_wrong_parameters_of_every_method_are_refused_by_name() {
    let world = World::new();
    let methods = Method::below(&root().join("lexicons"));
    let page = request(
        "GET",
        &world.service.url("/"),
        &[("accept", "text/plain")],
        None,
    )
    .text();
    let served = page.matches("GET /xrpc/").count();
    // The health check has no lexicon.
    assert_eq!(methods.len() + 1, served, "{page}");
    for method in &methods {
        let outcomes = examine(&world, method);
        println!(
            "{}: {} forbidden, {} refused, {} answered",
            method.nsid, outcomes.forbidden, outcomes.refused, outcomes.answered
        );
        // The calls are not all of one kind.
        assert!(outcomes.answered + outcomes.refused > 0);
        assert_eq!(outcomes.forbidden == 0, method.properties.is_empty());
    }
    assert!(!world.service.log().contains("panicked"));
    assert!(world.service.recipient(&world.bob.did).is_ok());
}

#[test]
fn inv8_wrong_bodies_of_a_procedure_are_refused_by_name() {
    let world = World::new();
    let good = json!({"did": world.bob.did});
    assert_eq!(world.post(&good.to_string()).0, 200);
    proptest!(config(4 * CALLS), |(sent in body())| {
        let input: Option<Value> = serde_json::from_str(&sent).ok();
        let permitted = input.is_some_and(|input| validate(REFRESH, "input", &input).is_ok());
        let (status, body) = world.post(&sent);
        let shown = format!("{sent:.300} -> {status} {body}");
        if status == 200 {
            prop_assert!(permitted, "{}", shown);
            return Ok(());
        }
        let error = json!({"status": status, "body": body});
        prop_assert_eq!(validate(REFRESH, "error", &error), Ok(()), "{}", shown);
        let message = text(&body, "/message");
        prop_assert!(message.len() <= MAX_MESSAGE, "{}", shown);
        if permitted {
            prop_assert!(status < 500 || body["error"] == "UpstreamFailure", "{}", shown);
        } else {
            prop_assert!(matches!(status, 400 | 413), "{}", shown);
            prop_assert!(words_of(message).any(|word| word == "did"), "{}", shown);
        }
    });
}
