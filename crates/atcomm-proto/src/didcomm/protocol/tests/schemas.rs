//! The schemas in `schemas/didcomm` agree with the code: their examples are read and written, and
//! every message that they forbid is refused with the name of the field.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{every_message, write_again};
use crate::didcomm::message::{FieldError, Message, MessageError};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/didcomm");

fn schema(name: &str) -> Value {
    let text = std::fs::read(Path::new(FOLDER).join(name)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Returns every schema by its file name.
fn schemas() -> BTreeMap<String, Value> {
    let names = std::fs::read_dir(FOLDER).unwrap().map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        (name.clone(), schema(&name))
    });
    names.collect()
}

/// Returns the schemas of message types, by type.
fn by_type() -> BTreeMap<String, Value> {
    let typed = schemas().into_values().filter_map(|schema| {
        let kind = schema["properties"]["type"]["const"].as_str()?.to_owned();
        Some((kind, schema))
    });
    typed.collect()
}

fn check_manners(schema: &Value, place: &str) {
    if schema.get("$ref").is_some() {
        return;
    }
    let description = schema["description"].as_str().unwrap_or_default();
    assert!(description.ends_with('.'), "{place} has no description");
    for (name, property) in schema["properties"].as_object().unwrap_or(&Map::new()) {
        check_manners(property, &format!("{place}.{name}"));
    }
    for required in schema["required"].as_array().unwrap_or(&Vec::new()) {
        let name = required.as_str().unwrap();
        let known = schema["properties"].get(name).is_some();
        assert!(known || place.ends_with(".json"), "{place} requires {name}");
    }
    if let Some(items) = schema.get("items") {
        check_manners(items, &format!("{place}[]"));
        assert!(schema["maxItems"].is_u64(), "{place} is not bounded");
    }
}

#[test]
fn manners() {
    for (name, schema) in schemas() {
        let draft = "https://json-schema.org/draft/2020-12/schema";
        assert_eq!(schema["$schema"], draft, "{name}");
        assert_eq!(schema["$id"], name);
        assert!(schema["title"].is_string(), "{name}");
        assert!(!schema["examples"].as_array().unwrap().is_empty(), "{name}");
        check_manners(&schema, &name);
        if let Some(kind) = schema["properties"]["type"]["const"].as_str() {
            let of_type = kind
                .trim_start_matches("https://didcomm.org/")
                .replace('/', ".");
            assert_eq!(name, format!("{of_type}.json"));
            assert_eq!(schema["allOf"], json!([{"$ref": "message.json"}]), "{name}");
        }
    }
}

#[test]
fn every_type_has_one() {
    let written: BTreeSet<String> = every_message().into_iter().map(|m| m.kind).collect();
    let described: BTreeSet<String> = by_type().into_keys().collect();
    assert_eq!(written, described);
}

/// Reads and writes a message; returns its text or the wrong field.
fn through(message: &Value) -> Result<Value, FieldError> {
    let read = |message: &Value| match Message::parse(message.to_string().as_bytes()) {
        Ok(message) => Ok(message),
        Err(MessageError::Field(err)) => Err(err),
        Err(other) => panic!("{other}: {message}"),
    };
    let message = read(message)?;
    let again = write_again(&message)?.unwrap_or_else(|| panic!("{} is unknown", message.kind));
    Ok(serde_json::from_slice(&again.to_vec()).unwrap())
}

#[test]
fn examples_are_read_and_written_as_they_are() {
    for (kind, schema) in by_type() {
        for example in schema["examples"].as_array().unwrap() {
            assert_eq!(example["type"], *kind);
            assert_eq!(through(example).unwrap(), *example);
        }
    }
    for example in schema("message.json")["examples"].as_array().unwrap() {
        assert_eq!(through(example).unwrap(), *example);
    }
    for example in schema("attachment.json")["examples"].as_array().unwrap() {
        let delivery = "https://didcomm.org/messagepickup/3.0/delivery";
        let message = json!({"id": "1", "type": delivery, "attachments": [example]});
        assert_eq!(through(&message).unwrap()["attachments"][0], *example);
    }
}

/// Messages that a schema forbids, each with the field to be named.
struct Forbidden<'a> {
    message: &'a Value,
    found: Vec<(Value, String)>,
}

impl Forbidden<'_> {
    /// Returns the message with another value at `pointer`, or without a value.
    fn change(&mut self, pointer: &str, field: &str, value: Option<Value>) {
        let mut message = self.message.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = message.pointer_mut(parent).unwrap();
        match (parent, value) {
            (Value::Object(fields), Some(value)) => drop(fields.insert(name.to_owned(), value)),
            (Value::Object(fields), None) => drop(fields.remove(name)),
            (Value::Array(items), Some(value)) => items[name.parse::<usize>().unwrap()] = value,
            (parent, value) => panic!("{parent} takes no {value:?}"),
        }
        self.found.push((message, field.to_owned()));
    }

    /// Breaks every rule of a schema, one after another.
    fn of(&mut self, schema: &Value, pointer: &str, field: &str) {
        if let Some(name) = schema["$ref"].as_str() {
            return self.of(&super::schemas::schema(name), pointer, field);
        }
        let mut change = |value| self.change(pointer, field, Some(value));
        match schema["type"].as_str() {
            Some("string") => change(json!({"a": 1})),
            Some("integer") => change(json!("x")),
            Some("boolean") => change(json!(7)),
            Some("array" | "object") => change(json!(7)),
            _ => {}
        }
        if let Some(most) = schema["maxLength"].as_u64() {
            change(json!("a".repeat(most as usize + 1)));
        }
        if schema["minLength"] == 1 {
            change(json!(""));
        }
        if schema["minimum"] == 0 {
            change(json!(-1));
        }
        if schema["minItems"] == 1 {
            change(json!([]));
        }
        if schema.get("enum").is_some() {
            change(json!("sideways"));
        }
        let Some(value) = self.message.pointer(pointer).cloned() else {
            return;
        };
        for (name, property) in schema["properties"].as_object().unwrap_or(&Map::new()) {
            let inner = match field {
                "" => name.clone(),
                field => format!("{field}.{name}"),
            };
            let pointer = format!("{pointer}/{name}");
            let required = schema["required"].as_array();
            if required.is_some_and(|names| names.contains(&json!(name))) {
                self.change(&pointer, &inner, None);
            }
            self.of(property, &pointer, &inner);
        }
        if let (Some(items), Some(first)) = (schema.get("items"), value.get(0)) {
            let most = schema["maxItems"].as_u64().unwrap() as usize;
            self.change(pointer, field, Some(json!(vec![first; most + 1])));
            self.of(items, &format!("{pointer}/0"), &format!("{field}[0]"));
        }
    }
}

#[test]
fn what_a_schema_forbids_is_refused_by_name() {
    let mut cases = 0;
    for (kind, schema) in by_type() {
        for example in schema["examples"].as_array().unwrap() {
            let mut forbidden = Forbidden {
                message: example,
                found: Vec::new(),
            };
            for (name, rules) in schema["properties"]["body"]["properties"]
                .as_object()
                .unwrap()
            {
                let body = &schema["properties"]["body"];
                let pointer = format!("/body/{name}");
                let required = body["required"].as_array();
                if required.is_some_and(|names| names.contains(&json!(name))) {
                    forbidden.change(&pointer, name, None);
                }
                forbidden.of(rules, &pointer, name);
            }
            if let Some(rules) = schema["properties"].get("attachments") {
                forbidden.of(rules, "/attachments", "attachments");
            }
            for (message, field) in forbidden.found {
                match through(&message) {
                    Err(err) => assert_eq!(err.field, field, "{kind}: {err}"),
                    Ok(read) => panic!("{kind}: {field} may be anything: {read}"),
                }
                cases += 1;
            }
        }
    }
    assert!(cases > 300, "{cases}");
}

#[test]
fn headers_that_the_schema_forbids_are_refused_by_name() {
    let schema = schema("message.json");
    let mut forbidden = Forbidden {
        message: &schema["examples"][0],
        found: Vec::new(),
    };
    let properties = schema["properties"].as_object().unwrap();
    // The media type has its own error, and any text is a return route.
    for (name, rules) in properties.iter().filter(|(name, _)| *name != "typ") {
        match rules["oneOf"].as_array() {
            Some(forms) => forbidden.of(&forms[0], &format!("/{name}"), name),
            None => forbidden.of(rules, &format!("/{name}"), name),
        }
    }
    for required in ["id", "type"] {
        forbidden.change(&format!("/{required}"), required, None);
    }
    for (message, field) in forbidden.found {
        let err = through(&message).expect_err(&field);
        assert_eq!(err.field, field, "{err}");
    }
}

#[test]
fn the_most_that_a_schema_allows_is_read() {
    for (kind, schema) in by_type() {
        let example = &schema["examples"][0];
        let body = schema["properties"]["body"]["properties"]
            .as_object()
            .unwrap();
        for (name, rules) in body {
            let mut message = example.clone();
            if let (Some(most), Some(first)) =
                (rules["maxItems"].as_u64(), example["body"][name].get(0))
            {
                message["body"][name] = json!(vec![first; most as usize]);
                assert!(through(&message).is_ok(), "{kind}: {name}");
            }
            // An atproto DID has a form besides its length.
            if let Some(most) = rules["maxLength"].as_u64().filter(|_| name != "account") {
                message["body"][name] = json!("a".repeat(most as usize));
                assert!(through(&message).is_ok(), "{kind}: {name}");
            }
        }
    }
}

#[test]
fn what_a_schema_does_not_name_is_passed_over() {
    for schema in by_type().into_values() {
        for example in schema["examples"].as_array().unwrap() {
            let mut message = example.clone();
            message["x-new"] = json!({"deep": [1]});
            message["body"]["x-new"] = json!([{"deep": 1}]);
            assert_eq!(through(&message).unwrap(), *example);
        }
    }
}
