//! The DID document of a mediator: keys to encrypt to, endpoints to send to.
//!
//! Source: DIDComm Messaging 2.1, "Service endpoint"; the shapes of keys in existing documents.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::identity::document::{DocumentError, entries, is_of_type, parse_object};
use atcomm_proto::didcomm::party::KeyAgreement;
use atcomm_proto::key::{Curve, SigningKey};
use atcomm_proto::syntax::{MediatorDid, trimmed};

/// Keys and services read from one document. These limits and those below are the limits of
/// `at.didcomm.directory.defs`, which promises them to readers of the view.
const MAX_KEYS: usize = 8;
const MAX_SERVICES: usize = 8;

/// Limits of one service, lengths in bytes: its address, its profiles, its routing keys (a did:peer
/// is long).
const MAX_URI_LEN: usize = 2048;
const MAX_PROFILES: usize = 16;
const MAX_PROFILE_LEN: usize = 64;
const MAX_ROUTING_KEYS: usize = 8;
const MAX_ROUTING_KEY_LEN: usize = 4096;

const X25519_CODEC: [u8; 2] = [0xec, 0x01];

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// An `http(s)` or `ws(s)` address, or the DID of a further mediator, which the sender resolves.
    pub uri: String,
    /// Profiles, such as `didcomm/v2`; empty when the document names none.
    #[serde(default)]
    pub accept: Vec<String>,
    /// Keys to wrap messages for, the outermost last.
    #[serde(default)]
    pub routing_keys: Vec<String>,
}

impl Service {
    /// Whether DIDComm v2 can be sent to the endpoint: its profiles include DIDComm v2 or are not
    /// named, and it does not lead back to the mediator itself.
    pub(super) fn is_usable(&self, did: &MediatorDid) -> bool {
        let v2 = |profile: &String| profile == "didcomm/v2" || profile.starts_with("didcomm/v2;");
        self.uri != did.as_str() && (self.accept.is_empty() || self.accept.iter().any(v2))
    }
}

/// Reads keys and services of the document of `did`, in the order of the document. Leaves out those
/// that cannot be used.
pub(super) fn read(
    bytes: &[u8],
    did: &str,
    development: bool,
) -> Result<(Vec<KeyAgreement>, Vec<Service>), DocumentError> {
    let document = parse_object(bytes)?;
    if document.get("id").and_then(Value::as_str) != Some(did) {
        return Err(DocumentError::WrongId);
    }
    Ok((keys(&document, did), services(&document, development)))
}

fn keys(document: &Value, did: &str) -> Vec<KeyAgreement> {
    let mut keys: Vec<KeyAgreement> = Vec::new();
    let mut ambiguous: Vec<String> = Vec::new();
    for entry in entries(document, "keyAgreement").take(MAX_KEYS) {
        let Some(key) = key(document, entry, did) else {
            continue;
        };
        match keys.iter().find(|known| known.id == key.id) {
            None => keys.push(key),
            Some(same) if *same == key => {}
            Some(_) => ambiguous.push(key.id),
        }
    }
    // With two keys under one id the `kid` of an envelope would be ambiguous.
    keys.retain(|key| !ambiguous.contains(&key.id));
    keys
}

/// Returns the key of one `keyAgreement` entry: a method, or the id of a method.
fn key(document: &Value, entry: &Value, did: &str) -> Option<KeyAgreement> {
    let method = match entry {
        Value::String(wanted) => {
            let wanted = absolute(wanted, did)?;
            let mut found = entries(document, "verificationMethod")
                .filter(|m| method_id(m, did).as_ref() == Some(&wanted));
            let method = found.next()?;
            found.next().is_none().then_some(method)?
        }
        embedded => embedded,
    };
    Some(KeyAgreement {
        id: method_id(method, did)?,
        kind: "Multikey".to_owned(),
        public_key_multibase: multikey(method)?,
    })
}

fn method_id(method: &Value, did: &str) -> Option<String> {
    absolute(method.get("id")?.as_str()?, did)
}

/// Returns an id of this document in full; `None` for an id of another document.
fn absolute(id: &str, did: &str) -> Option<String> {
    let fragment = id.strip_prefix(did).unwrap_or(id).strip_prefix('#')?;
    (!fragment.is_empty() && fragment.len() <= 256).then(|| format!("{did}#{fragment}"))
}

/// Returns the key of a method as a Multikey, if the key is X25519 or P-256 in a known shape.
fn multikey(method: &Value) -> Option<String> {
    let text = |name: &str| method.get(name)?.as_str().filter(|s| s.len() <= 256);
    match method.get("type")?.as_str()? {
        "Multikey" => multibase(text("publicKeyMultibase")?),
        "X25519KeyAgreementKey2020" => {
            let key = multibase(text("publicKeyMultibase")?)?;
            key.starts_with("z6LS").then_some(key)
        }
        "X25519KeyAgreementKey2019" => {
            let bytes = bs58::decode(text("publicKeyBase58")?).into_vec().ok()?;
            x25519(&bytes)
        }
        "JsonWebKey2020" | "JsonWebKey" => jwk(method.get("publicKeyJwk")?),
        _ => None,
    }
}

fn multibase(text: &str) -> Option<String> {
    let bytes = bs58::decode(text.strip_prefix('z')?).into_vec().ok()?;
    match bytes.split_at_checked(2)? {
        (codec, key) if codec == X25519_CODEC => x25519(key),
        _ => p256(SigningKey::from_multikey(text).ok()?),
    }
}

fn jwk(jwk: &Value) -> Option<String> {
    let text = |name: &str| jwk.get(name)?.as_str();
    let bytes = |name: &str| -> Option<[u8; 32]> {
        let bytes = data_encoding::BASE64URL_NOPAD
            .decode(text(name)?.as_bytes())
            .ok()?;
        bytes.try_into().ok()
    };
    match (text("kty")?, text("crv")?) {
        ("OKP", "X25519") => x25519(&bytes("x")?),
        ("EC", "P-256") => {
            let point = [&[4][..], &bytes("x")?, &bytes("y")?].concat();
            let point = format!("z{}", bs58::encode(point).into_string());
            p256(SigningKey::from_legacy(Curve::P256, &point).ok()?)
        }
        _ => None,
    }
}

fn x25519(key: &[u8]) -> Option<String> {
    // The zero point agrees on the same secret with every key.
    if key.len() != 32 || key.iter().all(|b| *b == 0) {
        return None;
    }
    let bytes = [&X25519_CODEC[..], key].concat();
    Some(format!("z{}", bs58::encode(bytes).into_string()))
}

/// Returns the Multikey of a P-256 key, which is the same for signing and for key agreement. Parsing
/// the signing key has checked that the point is on the curve.
fn p256(key: SigningKey) -> Option<String> {
    (key.curve() == Curve::P256).then(|| key.multikey())
}

fn services(document: &Value, development: bool) -> Vec<Service> {
    entries(document, "service")
        .filter(|service| is_of_type(service, "DIDCommMessaging"))
        .flat_map(|service| {
            let endpoint = service.get("serviceEndpoint");
            let many = endpoint.and_then(Value::as_array);
            let one = endpoint.filter(|e| !e.is_array());
            many.into_iter()
                .flatten()
                .chain(one)
                .map(move |endpoint| (service, endpoint))
        })
        .filter_map(|(service, endpoint)| endpoint_of(service, endpoint, development))
        .take(MAX_SERVICES)
        .collect()
}

fn endpoint_of(service: &Value, endpoint: &Value, development: bool) -> Option<Service> {
    // The old shape: an address as text, and its properties in the service.
    let (uri, properties) = match endpoint {
        Value::String(uri) => (uri.as_str(), service),
        Value::Object(_) => (endpoint.get("uri")?.as_str()?, endpoint),
        _ => return None,
    };
    let uri = normalised(uri, development).filter(|uri| uri.len() <= MAX_URI_LEN)?;
    Some(Service {
        uri,
        accept: accept(properties)?,
        routing_keys: routing_keys(properties)?,
    })
}

/// Returns the address as all readers read it, if mail could be sent there: an address for encrypted
/// connections (in development also for plain ones) without a user, or a DID, which the sender
/// resolves.
fn normalised(uri: &str, development: bool) -> Option<String> {
    let uri = trimmed(uri);
    if uri.starts_with("did:") {
        return MediatorDid::parse(uri).is_ok().then(|| uri.to_owned());
    }
    // The rules of browsers repair white space within and backslashes: other readers of the document
    // would read another host, or none.
    let is_repaired = |b: u8| b.is_ascii_whitespace() || b.is_ascii_control() || b == b'\\';
    if uri.len() > MAX_URI_LEN || uri.bytes().any(is_repaired) {
        return None;
    }
    let url = Url::parse(uri).ok()?;
    let is_encrypted = match url.scheme() {
        "https" | "wss" => true,
        "http" | "ws" => development,
        _ => false,
    };
    if !is_encrypted
        || url.host().is_none()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return None;
    }
    // Senders look at the first letters. An address in its usual spelling stays as it is.
    let is_usual = uri.is_ascii() && uri.starts_with(&format!("{}://", url.scheme()));
    Some(if is_usual { uri.to_owned() } else { url.into() })
}

/// Returns the profiles within the limits. `None` where no profile of a non-empty list is left: an
/// empty list would mean that anything is accepted.
fn accept(properties: &Value) -> Option<Vec<String>> {
    let mut named = entries(properties, "accept").peekable();
    let names_any = named.peek().is_some();
    let profiles: Vec<String> = named
        .filter_map(Value::as_str)
        .map(trimmed)
        .filter(|profile| profile.len() <= MAX_PROFILE_LEN)
        .take(MAX_PROFILES)
        .map(str::to_owned)
        .collect();
    (!names_any || !profiles.is_empty()).then_some(profiles)
}

/// Returns the routing keys. `None` beyond the limits: without one of the keys, mail would be
/// misrouted.
fn routing_keys(properties: &Value) -> Option<Vec<String>> {
    let keys: Vec<String> = entries(properties, "routingKeys")
        .map(|key| {
            key.as_str()
                .map(trimmed)
                .filter(|key| key.len() <= MAX_ROUTING_KEY_LEN)
                .map(str::to_owned)
        })
        .collect::<Option<_>>()?;
    (keys.len() <= MAX_ROUTING_KEYS).then_some(keys)
}

#[cfg(test)]
mod tests;
