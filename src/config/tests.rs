use std::collections::BTreeSet;
use std::time::Duration;

use figment::providers::{Format as _, Toml};
use serde_json::Value;

use super::*;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/config.example.toml");
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/config.schema.json");

/// Loads `text` as a file, with an environment.
fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    read_with(text, environment, &Overrides::default())
}

fn read_with(
    text: &str,
    environment: &[(&str, &str)],
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("atcomm.toml");
    std::fs::write(&path, text).unwrap();
    let environment = environment
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    Config::read(Some(&path), environment, overrides)
}

/// Returns the message of an error, with `FILE` for the name of the temporary file.
fn error(text: &str, environment: &[(&str, &str)]) -> String {
    let error = read(text, environment).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    match (
        error.find(&*std::env::temp_dir().to_string_lossy()),
        error.find("atcomm.toml"),
    ) {
        (Some(begin), Some(end)) => error.replace(&error[begin..end + "atcomm.toml".len()], "FILE"),
        _ => error,
    }
}

#[test]
fn nothing_given_is_the_default() {
    let config = Config::read(None, std::iter::empty(), &Overrides::default()).unwrap();
    assert_eq!(config, Config::default());
    assert!(config.http.listen.ip().is_loopback());
    assert_eq!(config.sources.len(), 3);
    assert_eq!(read("sources = []", &[]).unwrap().sources, []);
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let file = "
        data_dir = '/file'
        [http]
        listen = '127.0.0.1:1'
        max_requests = 7
        [metrics]
        listen = '127.0.0.1:4'
        [log]
        filter = 'warn'
    ";
    let environment = [
        ("ATCOMM_DATA_DIR", "/environment"),
        ("ATCOMM_HTTP__LISTEN", "127.0.0.1:2"),
        ("ATCOMM_RESOLVE__PATIENCE", "1min 5s"),
        ("HTTP__LISTEN", "nonsense"),
    ];
    let overrides = Overrides {
        listen: Some("[::1]:3".parse().unwrap()),
        metrics: Some("127.0.0.1:5".parse().unwrap()),
        ..Overrides::default()
    };
    let config = read_with(file, &environment, &overrides).unwrap();
    assert_eq!(config.http.listen.to_string(), "[::1]:3");
    assert_eq!(config.data_dir, Path::new("/environment"));
    assert_eq!(config.http.max_requests, 7);
    assert_eq!(config.metrics.listen.unwrap().port(), 5);
    assert_eq!(config.log.filter, "warn");
    assert_eq!(config.resolve.timeout, Duration::from_secs(65));
    let flags = Overrides {
        data_dir: Some("/flag".into()),
        log: Some("debug".into()),
        ..Overrides::default()
    };
    let config = read_with(file, &environment, &flags).unwrap();
    assert_eq!(
        (config.data_dir, config.log.filter.as_str()),
        ("/flag".into(), "debug")
    );
}

#[test]
fn the_environment_takes_addresses_lists_and_tables() {
    let config = read(
        "",
        &[
            ("ATCOMM_HTTP__LISTEN", "[::1]:2590"),
            ("ATCOMM_HTTP__TRUSTED_PROXIES", r#"["10.0.0.0/8", "::1"]"#),
            ("ATCOMM_NET__DEVELOPMENT", "true"),
            (
                "ATCOMM_SOURCES",
                r#"[{url = "https://pds.example.com", kind = "pds"}]"#,
            ),
        ],
    )
    .unwrap();
    assert_eq!(config.http.listen.to_string(), "[::1]:2590");
    assert_eq!(config.http.trusted_proxies.len(), 2);
    assert!(config.net.development);
    assert_eq!(config.sources[0].kind, SourceKind::Pds);
    assert!(config.sources[0].stream && config.sources[0].backfill);
}

#[test]
fn variables_of_kubernetes_are_not_settings() {
    let environment = [
        ("ATCOMM_PORT", "tcp://10.0.0.1:2590"),
        ("ATCOMM_PORT_2590_TCP_ADDR", "10.0.0.1"),
        ("ATCOMM_SERVICE_HOST", "10.0.0.1"),
        ("ATCOMM_SERVICE_PORT_HTTP", "2590"),
        ("ATCOMM_CONFIG", "/etc/atcomm.toml"),
    ];
    assert_eq!(read("", &environment).unwrap(), Config::default());
}

#[test]
fn errors_name_the_key_and_its_origin() {
    for (text, environment, expected) in [
        ("lisen = 1", &[][..], "unknown key lisen in FILE"),
        ("[http]\nlisen = 1", &[], "unknown key http.lisen in FILE"),
        (
            "[http]\nlisen = 1",
            &[("ATCOMM_HTTP__TIMEOUT", "1s")],
            "unknown key http.lisen in FILE",
        ),
        (
            "[http]\ntimeout = '1s'",
            &[("ATCOMM_HTTP__LISEN", "1")],
            "unknown key http.lisen in the environment (ATCOMM_HTTP__LISEN)",
        ),
        (
            "",
            &[("ATCOMM_LISTEN", "1")],
            "unknown key listen in the environment (ATCOMM_LISTEN)",
        ),
        (
            "[http]\nlisten = 'here'",
            &[],
            "http.listen in FILE: not an address and a port, such as 127.0.0.1:2590 for this machine or \
             0.0.0.0:2590 for every interface",
        ),
        (
            "[http]\nmax_requests = 'many'",
            &[],
            "http.max_requests in FILE: invalid type: found string \"many\", expected usize",
        ),
        (
            "[http]\ntrusted_proxies = ['10.0.0.0/33']",
            &[],
            "http.trusted_proxies.0 in FILE: not a valid network: the length after / is not one \
             of its addresses",
        ),
        (
            "[identity]\nplc_url = 'plc.directory'",
            &[],
            "identity.plc_url in FILE: not a valid origin: not an URL",
        ),
        (
            "[[sources]]\nurl = 'https://a.example'",
            &[],
            "sources.0 in FILE: kind is missing",
        ),
        (
            "[[sources]]\nurl = 'https://a.example'\nkind = 'appview'",
            &[],
            "sources.0.kind in FILE: appview is not one of pds, relay, jetstream",
        ),
        (
            "[[sources]]\nurl = 'https://a.example'\nkind = 'pds'\nhost = 1",
            &[],
            "unknown key sources.0.host in FILE",
        ),
    ] {
        assert_eq!(error(text, environment), expected);
    }
    let syntax = error("[http]\nlisten = \n", &[]);
    assert!(
        syntax.starts_with("FILE: TOML parse error at line 2"),
        "{syntax}"
    );
    let unknown = read("[log]\nlevel = 'info'", &[]).unwrap_err();
    assert!(
        matches!(unknown, ConfigError::UnknownKey { known, .. } if known == ["filter", "format"]),
        "{unknown}"
    );
    let missing = Path::new("/nonexistent/atcomm.toml");
    let missing = Config::load(Some(missing), &Overrides::default())
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("cannot read /nonexistent/atcomm.toml: "),
        "{missing}"
    );
}

#[test]
fn the_data_directory_follows_the_xdg_specification() {
    let place = |xdg: Option<&str>, home: Option<&str>| {
        default_data_dir(|name| if name == "HOME" { home } else { xdg }.map(OsString::from))
    };
    assert_eq!(place(Some("/x"), Some("/h")), Path::new("/x/atcomm"));
    assert_eq!(
        place(Some("x"), Some("/h")),
        Path::new("/h/.local/share/atcomm")
    );
    assert_eq!(place(None, Some("")), Path::new("atcomm-data"));
    assert_eq!(place(None, None), Path::new("atcomm-data"));
}

/// Returns the example with its optional keys switched on: lines with a `#` that no space follows.
fn whole_example() -> String {
    let example = std::fs::read_to_string(EXAMPLE).unwrap();
    let switched_on = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    example
        .lines()
        .map(|line| switched_on(line) + "\n")
        .collect()
}

/// Collects the keys with their sections. Items of a list share their keys.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                keys(value, &path, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().for_each(|item| keys(item, path, found));
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

fn keys_of(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    keys(value, "", &mut found);
    found
}

/// Returns the object that a schema allows, with `leaf` as each value. Fails the test where the
/// schema lacks a description or allows further properties.
fn allowed(schema: &Value, leaf: &dyn Fn(&Value) -> Option<Value>) -> Option<Value> {
    assert!(
        schema["description"].is_string(),
        "{schema} has no description"
    );
    if let Some(properties) = schema.get("properties") {
        assert_eq!(schema["additionalProperties"], false);
        let fields = properties.as_object().unwrap().iter();
        return Some(Value::Object(
            fields
                .filter_map(|(name, schema)| Some((name.clone(), allowed(schema, leaf)?)))
                .collect(),
        ));
    }
    leaf(schema)
}

#[test]
fn the_example_is_the_default_and_shows_every_key() {
    let example = Config::read(
        Some(Path::new(EXAMPLE)),
        std::iter::empty(),
        &Overrides::default(),
    );
    assert_eq!(example.unwrap(), Config::default());
    let whole = whole_example();
    let config = read(&whole, &[]).unwrap();
    assert_eq!(config.sources.len(), 4);
    let shown: Value = Toml::from_str(&whole).unwrap();
    assert_eq!(
        keys_of(&shown),
        keys_of(&serde_json::to_value(&config).unwrap())
    );
}

#[test]
fn the_schema_knows_every_key_and_default() {
    let schema: Value = serde_json::from_slice(&std::fs::read(SCHEMA).unwrap()).unwrap();
    let shown: Value = Toml::from_str(&whole_example()).unwrap();
    let every = allowed(&schema, &|schema| {
        // A list of sources stands for one source, a list of addresses for one value.
        let items = schema
            .get("items")
            .filter(|items| items.get("properties").is_some());
        Some(items.map_or(Value::Null, |items| {
            let one = allowed(items, &|_| Some(Value::Null));
            Value::Array(one.into_iter().collect())
        }))
    });
    assert_eq!(keys_of(&every.unwrap()), keys_of(&shown));
    let defaults = allowed(&schema, &|schema| schema.get("default").cloned()).unwrap();
    let defaults: Config = serde_json::from_value(defaults).unwrap();
    assert_eq!(defaults, Config::default());
}
