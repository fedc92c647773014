//! Operation logs made and signed in memory.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use ipld_core::cid::Cid;
use ipld_core::cid::multihash::Multihash;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shrike::crypto::{K256SigningKey, P256SigningKey, SigningKey as Secret};

use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::SigningKey;
use atcomm_proto::syntax::Did;

/// A secret key for signing.
pub struct TestKey(Box<dyn Secret>);

/// Returns the K-256 key of this seed.
pub fn k256(seed: u8) -> TestKey {
    TestKey(Box::new(K256SigningKey::from_bytes(&[seed; 32]).unwrap()))
}

/// Returns the P-256 key of this seed.
pub fn p256(seed: u8) -> TestKey {
    TestKey(Box::new(P256SigningKey::from_bytes(&[seed; 32]).unwrap()))
}

impl TestKey {
    /// Returns the public key as a did:key.
    pub fn text(&self) -> String {
        self.0.public_key().did_key()
    }

    /// Returns the public key.
    pub fn public(&self) -> SigningKey {
        SigningKey::from_did_key(&self.text()).unwrap()
    }

    /// Returns the token of inter-service authentication with this header and these claims.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.0.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_bytes()))
    }

    /// Returns the operation with a signature by this key.
    pub fn sign(&self, operation: &Value) -> Value {
        let mut operation = operation.clone();
        operation.as_object_mut().unwrap().remove("sig");
        let signature = self.0.sign(&encode(&operation)).unwrap();
        operation["sig"] = json!(BASE64URL_NOPAD.encode(signature.as_bytes()));
        operation
    }
}

/// Encodes an operation as DAG-CBOR; the library chooses the canonical order and the shortest
/// forms.
fn encode(value: &Value) -> Vec<u8> {
    let map: BTreeMap<String, Value> = serde_json::from_value(value.clone()).unwrap();
    serde_ipld_dagcbor::to_vec(&map).unwrap()
}

/// Returns the CID of an operation.
pub fn cid(operation: &Value) -> String {
    let hash = Multihash::wrap(0x12, &Sha256::digest(encode(operation))).unwrap();
    Cid::new_v1(0x71, hash).to_string()
}

/// Returns the DID of the account whose log begins with this operation.
pub fn did(genesis: &Value) -> Did {
    let hash = data_encoding::BASE32_NOPAD.encode(&Sha256::digest(encode(genesis)));
    Did::parse(&format!("did:plc:{}", hash[..24].to_lowercase())).unwrap()
}

/// Returns an unsigned operation that follows `prev`.
pub fn operation(rotation: &[&TestKey], key: &TestKey, pds: &str, prev: Option<&Value>) -> Value {
    json!({
        "type": "plc_operation",
        "rotationKeys": rotation.iter().map(|key| key.text()).collect::<Vec<_>>(),
        "verificationMethods": {"atproto": key.text()},
        "alsoKnownAs": ["at://alice.example.com"],
        "services": {"atproto_pds": {"type": "AtprotoPersonalDataServer", "endpoint": pds}},
        "prev": prev.map(cid),
    })
}

/// Returns an unsigned tombstone that follows `prev`.
pub fn tombstone(prev: &Value) -> Value {
    json!({"type": "plc_tombstone", "prev": cid(prev)})
}

/// A log as the PLC directory serves it, one JSON object per operation.
#[derive(Clone, Default)]
pub struct TestLog(pub Vec<Value>);

impl TestLog {
    /// Appends a valid operation, accepted `minute` minutes after the beginning of the log.
    pub fn push(&mut self, minute: u32, operation: &Value) -> &mut Self {
        self.0.push(json!({
            "did": self.0.first().map_or_else(|| did(operation).to_string(), |first| {
                first["did"].as_str().unwrap().to_owned()
            }),
            "cid": cid(operation),
            "createdAt": at(minute).to_string(),
            "nullified": false,
            "operation": operation,
        }));
        self
    }

    /// Marks an entry as nullified.
    pub fn nullify(&mut self, index: usize) -> &mut Self {
        self.0[index]["nullified"] = json!(true);
        self
    }

    /// Returns the account of the log.
    pub fn did(&self) -> Did {
        Did::parse(self.0[0]["did"].as_str().unwrap()).unwrap()
    }

    /// Returns the log as JSON.
    pub fn to_vec(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).unwrap()
    }
}

/// Returns the time `minute` minutes after the beginning of every log.
pub fn at(minute: u32) -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000 + i64::from(minute) * 60_000)
}
