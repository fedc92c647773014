//! Hostile parameters of every method in the table of routes: a client is told which parameter is
//! wrong, and no query is a fault of the server.

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Handle;
use url::form_urlencoded;

use super::harness::Answer;
use super::*;
use crate::http::routes::{Route, XRPC};

/// A method with the parameters that its lexicon declares.
struct Method {
    route: &'static Route,
    /// `query`, `procedure` or `subscription`.
    kind: String,
    params: Vec<Param>,
}

struct Param {
    name: String,
    /// Its definition: an array's is that of its items.
    definition: Value,
    is_array: bool,
    is_required: bool,
}

/// Returns all methods of the table that have a lexicon: all but the health check.
fn methods() -> Vec<Method> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("lexicons");
    XRPC.iter()
        .filter(|route| route.label != "_health")
        .map(|route| {
            let file = root.join(format!("{}.json", route.label.replace('.', "/")));
            let text = std::fs::read(&file).unwrap_or_else(|_| panic!("no {}", file.display()));
            let lexicon: Value = serde_json::from_slice(&text).unwrap();
            Method::new(route, &lexicon["defs"]["main"])
        })
        .collect()
}

impl Method {
    fn new(route: &'static Route, main: &Value) -> Self {
        let params = &main["parameters"];
        let required: Vec<_> = params["required"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        let declared = params["properties"].as_object().into_iter().flatten();
        Self {
            route,
            kind: main["type"].as_str().unwrap().to_owned(),
            params: declared
                .map(|(name, definition)| {
                    let is_array = definition["type"] == "array";
                    let definition = if is_array {
                        &definition["items"]
                    } else {
                        definition
                    };
                    Param {
                        name: name.clone(),
                        definition: definition.clone(),
                        is_array,
                        is_required: required.iter().any(|one| *one == name),
                    }
                })
                .collect(),
        }
    }

    /// Returns the query that the table of routes shows, which is right.
    fn example(&self) -> Vec<(String, String)> {
        let query = self
            .route
            .example
            .split_once('?')
            .map_or("", |(_, query)| query);
        let query = query.split_whitespace().next().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect()
    }

    fn target(&self, pairs: &[(String, String)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs);
        format!("{}?{}", self.route.path, query.finish())
    }
}

impl Param {
    /// Returns values that the definition does not allow.
    fn wrong(&self) -> Vec<String> {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let definition = &self.definition;
        match definition["type"].as_str() {
            Some("boolean") => owned(&["", "1", "yes", "TRUE", "null", " true"]),
            Some("integer") => {
                let mut wrong: Vec<String> =
                    owned(&["", "x", "1.5", "NaN", "99999999999999999999"]);
                let beyond = |bound: &str, by: i64| Some(definition[bound].as_i64()? + by);
                wrong.extend(beyond("maximum", 1).map(|n| n.to_string()));
                wrong.extend(beyond("minimum", -1).map(|n| n.to_string()));
                wrong
            }
            _ => match definition["format"].as_str() {
                Some("did") => {
                    owned(&["", "did:", "alice.example.com", "did:plc:../x", "\0", "💥"])
                }
                Some("at-identifier" | "handle") => {
                    owned(&["", "no handle", "-.example.com", "a..b", "\0", "did:", "💥"])
                }
                Some("datetime") => owned(&["", "yesterday", "2026-13-01T00:00:00Z", "💥"]),
                _ => Vec::new(),
            },
        }
    }
}

/// A server without an allowance of looks: what could be looked up is refused for that.
async fn server() -> TestServer {
    let resolve = ResolveSettings {
        misses_per_minute: 1,
        ..ResolveSettings::default()
    };
    let http = HttpSettings {
        rate_limit: 0,
        ..HttpSettings::default()
    };
    let setup = Setup {
        resolve,
        http,
        ..Setup::default()
    };
    let server = setup.start().await;
    let spent = server.get(&format!("{RESOLVE}?actor=printer.local")).await;
    assert_eq!(spent.error(), (400, "HandleNotFound".to_owned()));
    server
}

/// Fails unless the answer names the parameter as the wrong one.
#[track_caller]
fn assert_named(answer: &Answer, name: &str, target: &str) {
    assert_eq!(
        answer.error(),
        (400, "InvalidRequest".to_owned()),
        "{target}"
    );
    let body = answer.json();
    let message = body["message"].as_str().unwrap();
    let rest = message
        .split_once("parameter ")
        .map_or("", |(_, rest)| rest);
    assert!(rest.starts_with(name), "{target}: {message}");
}

#[tokio::test]
async fn inv8_a_wrong_parameter_of_any_method_is_named() {
    let server = server().await;
    for method in methods().iter().filter(|method| method.kind == "query") {
        let right = method.example();
        for param in &method.params {
            let others = || {
                right
                    .iter()
                    .filter(|(name, _)| *name != param.name)
                    .cloned()
            };
            if param.is_required {
                let target = method.target(&others().collect::<Vec<_>>());
                assert_named(&server.get(&target).await, &param.name, &target);
            }
            for value in param.wrong() {
                let pairs: Vec<_> = others().chain([(param.name.clone(), value)]).collect();
                let target = method.target(&pairs);
                assert_named(&server.get(&target).await, &param.name, &target);
            }
            let long: Vec<_> = others()
                .chain([(param.name.clone(), "a".repeat(30_000))])
                .collect();
            let target = method.target(&long);
            assert_named(&server.get(&target).await, &param.name, &param.name);
            let shown = right.iter().find(|(name, _)| *name == param.name);
            if let Some(shown) = shown.filter(|_| !param.is_array) {
                let twice: Vec<_> = right.iter().chain([shown]).cloned().collect();
                let target = method.target(&twice);
                assert_named(&server.get(&target).await, &param.name, &target);
            }
        }
    }
}

/// Returns values that a client could try.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("did:plc:ewvi7nxzyoun6zhxrhs64oiz".to_owned()),
        Just("did:web:localhost%3A1".to_owned()),
        Just("alice.example.com".to_owned()),
        Just("did:peer:2.Ez6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc".to_owned()),
        Just("https://pds.example.com".to_owned()),
        Just("' OR 1=1 --".to_owned()),
        Just("%00%ff%".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        (0_u64..600).prop_map(|n| n.to_string()),
        "(true|false)",
        "[0-9a-zA-Z:._=,|-]{1,80}",
        ".{0,40}",
        "[a-z]{100,3000}",
    ]
}

proptest::prop_compose! {
    /// Returns pairs of names that are taken by index, and values.
    fn pairs()(
        pairs in prop::collection::vec((any::<prop::sample::Index>(), "[a-z]{1,8}", value()), 0..5),
    ) -> Vec<(prop::sample::Index, String, String)> {
        pairs
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv8_no_parameters_are_a_fault_of_the_server() {
    let server = server().await;
    let methods = methods();
    let runtime = Handle::current();
    let mut runner = TestRunner::new(Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    });
    let input = (any::<prop::sample::Index>(), pairs(), ".{0,60}");
    let ran = tokio::task::block_in_place(|| {
        runner.run(&input, |(which, pairs, body)| {
            let method = which.get(&methods);
            let pairs: Vec<_> = pairs
                .into_iter()
                .map(|(index, odd, value)| match &*method.params {
                    [] => (odd, value),
                    params => (index.get(params).name.clone(), value),
                })
                .collect();
            let target = method.target(&pairs);
            let answer = runtime.block_on(async {
                if method.kind == "procedure" {
                    let headers = [("content-type", "application/json")];
                    let line = format!("POST {}", method.route.path);
                    ask(server.address, &line, &headers, &body).await
                } else {
                    server.get(&target).await
                }
            });
            prop_assert!(answer.status < 500, "{target}: {answer:?}");
            if method.kind == "query" && answer.status == 400 {
                let body = answer.json();
                let message = body["message"].as_str().unwrap_or_default();
                let is_named = method
                    .params
                    .iter()
                    .any(|param| message.contains(&format!("parameter {}", param.name)));
                let is_refusal = body["error"] != "InvalidRequest";
                prop_assert!(is_named || is_refusal, "{target}: {message}");
            }
            Ok(())
        })
    });
    ran.unwrap();
}
