//! Services in a `did:peer:2`, in every spelling in use.
//!
//! The mediators of the key package decide where mail goes, so services are displayed and never
//! acted on: every object is accepted, and unknown members are left out.

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::PeerDidError;

/// A service of a DID, with abbreviations expanded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerService {
    /// The id of the service if it has one, else `#service`, `#service-1`, ... in order of
    /// appearance.
    pub id: String,
    /// Type such as `DIDCommMessaging`; empty if the service names none.
    #[serde(rename = "type")]
    pub service_type: String,
    /// The endpoints of the service; those without an address are left out.
    #[serde(rename = "serviceEndpoint")]
    pub endpoints: Vec<Endpoint>,
}

/// An address of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// A URL, or the DID of a mediator.
    pub uri: String,
    /// Message profiles such as `didcomm/v2`; may be empty.
    pub accept: Vec<String>,
    /// Keys to wrap a message for on its way, in the order given.
    pub routing_keys: Vec<String>,
}

/// The services of one DID, collected while its elements are read.
#[derive(Default)]
pub(super) struct Services {
    pub(super) list: Vec<PeerService>,
    /// Number of services so far without an id of their own; services with an id use up no number.
    numbered: usize,
}

/// Reads the value of one `.S` element and appends its services.
pub(super) fn parse(text: &str, services: &mut Services) -> Result<(), PeerDidError> {
    // The decoder refuses padding, white space and stray bits in the last character.
    let json = BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| PeerDidError::Base64Url)?;
    // The parser stops at 128 levels, so nothing below recurses deeper.
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
    /// Appends a service with unabbreviated member names.
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

/// Replaces the abbreviations of the method by full member names.
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

/// Reads an endpoint: an object, or a bare address whose properties are members of the service.
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
