//! `docs/config.md`: every key with its default and its meaning, made of the schema.

use std::fmt::Write as _;

use serde_json::Value;

use super::SCHEMA;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md");

/// Makes the file anew where this variable is set.
const WRITE: &str = "ATCOMM_WRITE_REFERENCE";

const HEAD: &str = "# Configuration

Every setting of the TOML file that `atcomm serve --config FILE` reads. All are optional. [The
example](../deploy/config.example.toml) has the same keys with the reasons; `atcomm server config example` prints it,
`config check` checks a file, and `config show` prints what applies.

Each key can be set in the environment, too: `ATCOMM_HTTP__LISTEN` is `listen` under `[http]`; lists and tables are written
as in TOML. Flags win over the environment, the environment over the file. An unknown key is an error.

Times are written as `500ms`, `30s` or `24h`, sizes in bytes. A key without a default says what its absence means.
SIGHUP has the running service read the file again: `mediator.allow`, `mediator.deny` and the limits apply at once, the log
names what needs a restart, and a file with an error changes nothing.

This page is made from [the schema](../schemas/config.schema.json) by a test.
";

fn reference(schema: &Value) -> String {
    let mut page = HEAD.to_owned();
    section(schema, "", &mut page);
    page
}

/// Adds a table of the keys of a section, then the sections below it.
fn section(schema: &Value, path: &str, page: &mut String) {
    let of_items = schema
        .get("items")
        .filter(|items| items.get("properties").is_some());
    let properties = of_items.unwrap_or(schema)["properties"]
        .as_object()
        .unwrap();
    let is_section = |one: &Value| {
        one.get("properties").is_some()
            || one
                .get("items")
                .is_some_and(|it| it.get("properties").is_some())
    };
    let title = match (path, of_items) {
        ("", _) => "The top of the file".to_owned(),
        (path, Some(_)) => format!("`[[{path}]]`"),
        (path, None) => format!("`[{path}]`"),
    };
    writeln!(page, "\n## {title}\n").unwrap();
    if !path.is_empty() {
        writeln!(page, "{}\n", text(schema)).unwrap();
    }
    writeln!(page, "| key | default | meaning |\n|---|---|---|").unwrap();
    for (key, one) in properties.iter().filter(|(_, one)| !is_section(one)) {
        let default = one
            .get("default")
            .map_or(String::new(), |value| format!("`{value}`"));
        writeln!(page, "| `{key}` | {default} | {} |", text(one)).unwrap();
    }
    for (key, one) in properties.iter().filter(|(_, one)| is_section(one)) {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        section(one, &path, page);
    }
}

/// Returns a description, with the values that there are.
fn text(schema: &Value) -> String {
    let description = schema["description"].as_str().unwrap().replace('|', "\\|");
    match schema.get("enum").and_then(Value::as_array) {
        Some(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("{description} One of {}.", values.join(", "))
        }
        None => description,
    }
}

#[test]
fn the_reference_is_the_schema() {
    let schema: Value = serde_json::from_slice(&std::fs::read(SCHEMA).unwrap()).unwrap();
    let made = reference(&schema);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(REFERENCE, &made).unwrap();
    }
    let there = std::fs::read_to_string(REFERENCE).unwrap_or_default();
    assert!(
        there == made,
        "docs/config.md is not what the schema says; make it by {WRITE}=1 cargo test the_reference"
    );
}
