//! Writing a `did:peer:2`.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

use super::{KeyType, PeerDid, PeerDidError, Purpose};

impl PeerDid {
    /// Writes a DID with these keys and services, each in the order given.
    ///
    /// A service is the object of a DID document; its names are abbreviated as the method has it.
    /// What is written is read again, so that its rules hold: an X25519 key for key agreement, the
    /// limits, keys of the length of their type.
    pub fn build(
        keys: &[(Purpose, KeyType, &[u8])],
        services: &[Value],
    ) -> Result<Self, PeerDidError> {
        let mut text = "did:peer:2".to_owned();
        for (purpose, key_type, bytes) in keys {
            text.push('.');
            text.push(purpose.code());
            text.push_str(&key_type.multibase(bytes));
        }
        for service in services {
            let Value::Object(service) = service else {
                return Err(PeerDidError::Service);
            };
            let json = Value::Object(abbreviated(service)).to_string();
            text.push_str(".S");
            text.push_str(&BASE64URL_NOPAD.encode(json.as_bytes()));
        }
        Self::parse(&text)
    }
}

/// Replaces names by the method's abbreviations of them.
fn abbreviated(object: &Map<String, Value>) -> Map<String, Value> {
    let short = |value: &Value| match value {
        Value::Object(inner) => Value::Object(abbreviated(inner)),
        other => other.clone(),
    };
    let members = object.iter().map(|(name, value)| {
        let (name, value) = match (name.as_str(), value) {
            ("type", Value::String(kind)) if kind == "DIDCommMessaging" => ("t", "dm".into()),
            ("type", other) => ("t", other.clone()),
            ("serviceEndpoint", other) => ("s", inner(other, short)),
            ("routingKeys", other) => ("r", inner(other, short)),
            ("accept", other) => ("a", inner(other, short)),
            (name, other) => (name, inner(other, short)),
        };
        (name.to_owned(), value)
    });
    members.collect()
}

fn inner(value: &Value, short: impl Fn(&Value) -> Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(short).collect()),
        one => short(one),
    }
}
