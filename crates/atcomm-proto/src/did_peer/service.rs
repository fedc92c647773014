//! Services inside a `did:peer:2`, in every spelling in use.
//!
//! In a key package the mediators of the record decide where mail goes, so a service is shown and
//! never obeyed: whatever is an object is let through, and unknown parts of it are left out.

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::PeerDidError;

/// One service of a DID, abbreviations expanded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerService {
    /// Its own id where it brings one, else `#service`, `#service-1`, ... in order of appearance.
    pub id: String,
    /// Type such as `DIDCommMessaging`; empty where it names none.
    #[serde(rename = "type")]
    pub service_type: String,
    /// The addresses that it names; one without an address is left out.
    #[serde(rename = "serviceEndpoint")]
    pub endpoints: Vec<Endpoint>,
}

/// Where a service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// An URL, or the DID of a mediator.
    pub uri: String,
    /// Message profiles such as `didcomm/v2`; empty where none is named.
    pub accept: Vec<String>,
    /// Keys to wrap for on the way, in the order given.
    pub routing_keys: Vec<String>,
}

/// The services of one DID while its elements are read.
#[derive(Default)]
pub(super) struct Services {
    pub(super) list: Vec<PeerService>,
    /// Services without an id of their own so far; the others do not use up a number.
    numbered: usize,
}

/// Reads the value of one `.S` element and appends its services.
pub(super) fn parse(text: &str, services: &mut Services) -> Result<(), PeerDidError> {
    // This decoder refuses padding, white space and stray bits in the last character.
    let json = BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| PeerDidError::Base64Url)?;
    // The parser gives up at 128 levels, so that nothing below recurses deeper.
    let value: Value = serde_json::from_slice(&json).map_err(|_| PeerDidError::Service)?;
    let objects = match value {
        Value::Object(object) => vec![object],
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::Object(object) => Ok(object),
                _ => Err(PeerDidError::Service),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(PeerDidError::Service),
    };
    for object in objects {
        services.push(expand(object));
    }
    Ok(())
}

impl Services {
    /// Appends a service whose names are written out.
    pub(super) fn push(&mut self, object: Map<String, Value>) {
        let id = match object.get("id") {
            Some(Value::String(own)) => own.clone(),
            _ => {
                self.numbered += 1;
                match self.numbered - 1 {
                    0 => "#service".to_owned(),
                    n => format!("#service-{n}"),
                }
            }
        };
        self.list.push(read(id, &object));
    }
}

/// Replaces the method's abbreviations by the names that they stand for.
fn expand(object: Map<String, Value>) -> Map<String, Value> {
    object
        .into_iter()
        .map(|(name, value)| {
            let name = match name.as_str() {
                "t" => "type".to_owned(),
                "s" => "serviceEndpoint".to_owned(),
                "r" => "routingKeys".to_owned(),
                "a" => "accept".to_owned(),
                _ => name,
            };
            let value = match value {
                Value::String(kind) if name == "type" && kind == "dm" => {
                    Value::String("DIDCommMessaging".to_owned())
                }
                Value::Object(inner) => Value::Object(expand(inner)),
                Value::Array(items) => Value::Array(
                    items
                        .into_iter()
                        .map(|item| match item {
                            Value::Object(inner) => Value::Object(expand(inner)),
                            other => other,
                        })
                        .collect(),
                ),
                other => other,
            };
            (name, value)
        })
        .collect()
}

fn read(id: String, object: &Map<String, Value>) -> PeerService {
    let endpoints = match object.get("serviceEndpoint") {
        Some(Value::Array(items)) => items.iter().filter_map(|e| endpoint(e, object)).collect(),
        Some(one) => endpoint(one, object).into_iter().collect(),
        None => Vec::new(),
    };
    let service_type = match object.get("type") {
        Some(Value::String(name)) => name.clone(),
        _ => String::new(),
    };
    PeerService {
        id,
        service_type,
        endpoints,
    }
}

/// An endpoint is an object, or a bare address with its properties beside it in the service.
fn endpoint(value: &Value, service: &Map<String, Value>) -> Option<Endpoint> {
    let (uri, inner) = match value {
        Value::String(uri) => (uri, None),
        Value::Object(inner) => (
            match inner.get("uri") {
                Some(Value::String(uri)) => uri,
                _ => return None,
            },
            Some(inner),
        ),
        _ => return None,
    };
    let texts = |name: &str| -> Vec<String> {
        let found = inner
            .and_then(|inner| inner.get(name))
            .or(service.get(name));
        let Some(Value::Array(items)) = found else {
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    Some(Endpoint {
        uri: uri.clone(),
        accept: texts("accept"),
        routing_keys: texts("routingKeys"),
    })
}
