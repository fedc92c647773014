//! Writing a `did:peer:2`.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

use super::PeerDid;
use super::error::PeerDidError;
use super::key::{KeyType, Purpose};

impl PeerDid {
    /// Writes a DID with these keys and services, each in the order given.
    ///
    /// A service is given as in a DID document; its member names are abbreviated as the method
    /// prescribes. The written text is parsed again, so that the rules of reading hold: an X25519
    /// key for key agreement, the limits, the key lengths.
    pub fn build(
        keys: &[(Purpose, KeyType, &[u8])],
        services: &[Value],
    ) -> Result<Self, PeerDidError> {
        if keys.is_empty() {
            return Err(PeerDidError::NoX25519);
        }
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

/// Replaces member names by the abbreviations of the method.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X25519: &[u8] = &[9; 32];
    const ED25519: &[u8] = &[8; 32];

    #[test]
    fn what_is_written_is_read_back() {
        let keys = [
            (Purpose::KeyAgreement, KeyType::X25519, X25519),
            (Purpose::Authentication, KeyType::Ed25519, ED25519),
        ];
        let service = json!({
            "type": "DIDCommMessaging",
            "serviceEndpoint": {
                "uri": "https://m.example/didcomm",
                "accept": ["didcomm/v2"],
                "routingKeys": ["did:example:m#key-1"],
            },
        });
        let other =
            json!({"id": "#mine", "type": "Other", "serviceEndpoint": ["did:web:m.example"]});
        let did = PeerDid::build(&keys, &[service, other]).unwrap();
        assert_eq!(did.key_agreement()[0].as_bytes(), X25519);
        assert_eq!(did.authentication()[0].as_bytes(), ED25519);
        assert_eq!(
            serde_json::to_value(did.services()).unwrap(),
            json!([
                {"id": "#service", "type": "DIDCommMessaging", "serviceEndpoint": [{
                    "uri": "https://m.example/didcomm",
                    "accept": ["didcomm/v2"],
                    "routingKeys": ["did:example:m#key-1"],
                }]},
                {"id": "#mine", "type": "Other", "serviceEndpoint": [{
                    "uri": "did:web:m.example", "accept": [], "routingKeys": [],
                }]},
            ])
        );
    }

    #[test]
    fn names_are_abbreviated_at_every_level() {
        let keys = [(Purpose::KeyAgreement, KeyType::X25519, X25519)];
        let service = json!({
            "type": "DIDCommMessaging",
            "serviceEndpoint": [{"uri": "wss://m.example", "accept": [], "routingKeys": []}],
        });
        let did = PeerDid::build(&keys, &[service]).unwrap();
        let (_, element) = did.as_str().rsplit_once(".S").unwrap();
        let json = BASE64URL_NOPAD.decode(element.as_bytes()).unwrap();
        let expected = json!({"t": "dm", "s": [{"uri": "wss://m.example", "a": [], "r": []}]});
        assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), expected);
    }

    #[test]
    fn a_did_written_by_a_foreign_library_is_written_alike() {
        let vectors = include_str!("../../../../fixtures/did-peer/valid.json");
        let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
        let mut alike = 0;
        for vector in &vectors {
            let text = vector["did"].as_str().unwrap();
            let did = PeerDid::parse(text).unwrap();
            if !did.services().is_empty() {
                continue;
            }
            let keys: Vec<_> = did
                .keys()
                .iter()
                .map(|key| (key.purpose, key.key_type, key.as_bytes()))
                .collect();
            assert_eq!(PeerDid::build(&keys, &[]).unwrap().as_str(), text);
            alike += 1;
        }
        assert!(alike > 0);
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let x = (Purpose::KeyAgreement, KeyType::X25519, X25519);
        let zeros = (Purpose::KeyAgreement, KeyType::X25519, &[0; 32][..]);
        let short = (Purpose::KeyAgreement, KeyType::X25519, &[9; 31][..]);
        let build = |keys: &[_], services: &[Value]| PeerDid::build(keys, services).unwrap_err();
        assert_eq!(build(&[], &[]), PeerDidError::NoX25519);
        assert_eq!(build(&[zeros], &[]), PeerDidError::WeakKey);
        assert_eq!(build(&[short], &[]), PeerDidError::KeyLength);
        assert_eq!(build(&[x; 9], &[]), PeerDidError::TooManyElements);
        assert_eq!(build(&[x], &[json!([])]), PeerDidError::Service);
        let long = json!({"type": "x".repeat(2000)});
        assert_eq!(build(&[x], &[long]), PeerDidError::TooLong);
    }
}
