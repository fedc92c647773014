//! One operation: its forms, its hash, its signature.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use ipld_core::ipld::Ipld;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::error::Fault;
use crate::key::{SIGNATURE_LEN, SigningKey};
use crate::syntax::{Handle, Origin};

/// Most rotation keys (specification, "Operation signing and validation").
const MAX_ROTATION_KEYS: usize = 5;

/// Deepest nesting of members that are unknown to us; the operation itself has three levels.
const MAX_DEPTH: usize = 16;

/// The largest integer that every JSON reader keeps exact.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// The first bytes of a CIDv1 of DAG-CBOR with SHA-256.
const CID_PREFIX: [u8; 4] = [0x01, 0x71, 0x12, 0x20];

/// Length of an identifier in characters: the beginning of the first operation's hash.
const IDENTIFIER_LEN: usize = 24;

/// An operation of a valid form; its hash and signature are not verified yet.
pub(super) struct Operation {
    pub(super) effect: Effect,
    /// CID of the operation that this one follows; `None` only for the first one.
    pub(super) prev: Option<String>,
    /// Hash of the signed operation.
    hash: [u8; 32],
    /// The signed bytes: the operation without its signature.
    signed: Vec<u8>,
    signature: [u8; SIGNATURE_LEN],
}

/// The effect of an operation.
pub(super) enum Effect {
    State(OperationData),
    Tombstone,
}

/// The members of an operation that matter to atproto.
pub(super) struct OperationData {
    /// The rotation keys, highest authority first.
    pub(super) rotation_keys: Vec<SigningKey>,
    pub(super) signing_key: Option<SigningKey>,
    pub(super) pds: Option<Origin>,
    pub(super) handle: Option<Handle>,
}

impl Operation {
    pub(super) fn read(json: &Map<String, Value>) -> Result<Self, Fault> {
        let kind = json.get("type").and_then(Value::as_str);
        let prev = match json.get("prev").ok_or(Fault::Shape)? {
            Value::Null => None,
            Value::String(cid) => Some(cid.clone()),
            _ => return Err(Fault::Shape),
        };
        let effect = match kind {
            Some("plc_operation") => Effect::State(OperationData::read(json)?),
            // The form of first operations before all operations had the same form.
            Some("create") if prev.is_none() => Effect::State(OperationData::read_legacy(json)?),
            Some("plc_tombstone") if prev.is_some() => Effect::Tombstone,
            _ => return Err(Fault::Shape),
        };
        let text = json.get("sig").and_then(Value::as_str);
        let signature = BASE64URL_NOPAD
            .decode(text.ok_or(Fault::Shape)?.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(Fault::Signature)?;
        let Ipld::Map(mut all) = object(json, MAX_DEPTH)? else {
            return Err(Fault::Shape);
        };
        let encode = |map: &_| serde_ipld_dagcbor::to_vec(map).map_err(|_| Fault::Shape);
        let hash = Sha256::digest(encode(&all)?).into();
        all.remove("sig");
        Ok(Self {
            effect,
            prev,
            hash,
            signed: encode(&all)?,
            signature,
        })
    }

    /// Returns the CID of the operation as text.
    pub(super) fn cid(&self) -> String {
        let bytes = [&CID_PREFIX[..], &self.hash].concat();
        format!("b{}", base32(&bytes))
    }

    /// Returns the identifier of an account whose first operation this is.
    pub(super) fn identifier(&self) -> String {
        let mut text = base32(&self.hash);
        text.truncate(IDENTIFIER_LEN);
        text
    }

    /// Returns the index of the key that signed the operation, among the authorised keys.
    pub(super) fn signer(&self, may: &[SigningKey]) -> Result<usize, Fault> {
        may.iter()
            .position(|key| key.verify(&self.signed, &self.signature).is_ok())
            .ok_or(Fault::Signature)
    }
}

impl OperationData {
    fn read(json: &Map<String, Value>) -> Result<Self, Fault> {
        let member = |name| json.get(name).ok_or(Fault::Shape);
        let methods = member("verificationMethods")?
            .as_object()
            .ok_or(Fault::Shape)?;
        let services = member("services")?.as_object().ok_or(Fault::Shape)?;
        let names = texts(member("alsoKnownAs")?)?;
        let keys = texts(member("rotationKeys")?)?;
        // Other methods may have keys of any type, so an unknown type is not a fault.
        let key = methods.get("atproto").and_then(Value::as_str);
        let service = services.get("atproto_pds").filter(|service| {
            service.get("type").and_then(Value::as_str) == Some("AtprotoPersonalDataServer")
        });
        let endpoint = service.and_then(|service| service.get("endpoint")?.as_str());
        Ok(Self {
            rotation_keys: rotation_keys(&keys)?,
            signing_key: key.and_then(|key| SigningKey::from_did_key(key).ok()),
            pds: endpoint.and_then(origin),
            handle: Handle::claimed(names),
        })
    }

    fn read_legacy(json: &Map<String, Value>) -> Result<Self, Fault> {
        let text = |name| json.get(name).and_then(Value::as_str).ok_or(Fault::Shape);
        let signing_key = text("signingKey")?;
        let rotation_keys = rotation_keys(&[text("recoveryKey")?, signing_key])?;
        let (service, handle) = (text("service")?, text("handle")?);
        let has_scheme = ["http://", "https://"]
            .iter()
            .any(|s| service.starts_with(s));
        let pds = if has_scheme {
            origin(service)
        } else {
            origin(&format!("https://{service}"))
        };
        Ok(Self {
            rotation_keys,
            signing_key: SigningKey::from_did_key(signing_key).ok(),
            pds,
            handle: Handle::parse(handle.strip_prefix("at://").unwrap_or(handle)).ok(),
        })
    }
}

fn rotation_keys(texts: &[&str]) -> Result<Vec<SigningKey>, Fault> {
    if !(1..=MAX_ROTATION_KEYS).contains(&texts.len()) {
        return Err(Fault::RotationKeys);
    }
    let read = |text: &&str| SigningKey::from_did_key(text).map_err(|_| Fault::RotationKeys);
    texts.iter().map(read).collect()
}

/// Reads the address of a PDS. URL parsers repair white space and backslashes; other readers of the
/// operation would see another host or none, so such text is refused.
fn origin(text: &str) -> Option<Origin> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    plain.then(|| Origin::parse(text).ok()).flatten()
}

fn texts(value: &Value) -> Result<Vec<&str>, Fault> {
    let list = value.as_array().ok_or(Fault::Shape)?;
    let texts = list.iter().map(|item| item.as_str().ok_or(Fault::Shape));
    texts.collect()
}

/// Converts JSON to the values that are hashed. Unknown members are hashed too. Fractions are
/// refused, since readers round them differently.
fn value(json: &Value, depth: usize) -> Result<Ipld, Fault> {
    Ok(match json {
        Value::Null => Ipld::Null,
        Value::Bool(is) => Ipld::Bool(*is),
        Value::String(text) => Ipld::String(text.clone()),
        Value::Number(number) => {
            let number = number.as_i64().ok_or(Fault::Shape)?;
            if number.unsigned_abs() > MAX_INTEGER {
                return Err(Fault::Shape);
            }
            Ipld::Integer(number.into())
        }
        Value::Array(list) => {
            let depth = depth.checked_sub(1).ok_or(Fault::Shape)?;
            let items = list.iter().map(|item| value(item, depth));
            Ipld::List(items.collect::<Result<_, _>>()?)
        }
        Value::Object(map) => object(map, depth)?,
    })
}

fn object(map: &Map<String, Value>, depth: usize) -> Result<Ipld, Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Shape)?;
    let members = map
        .iter()
        .map(|(name, member)| Ok((name.clone(), value(member, depth)?)));
    Ok(Ipld::Map(members.collect::<Result<_, Fault>>()?))
}

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}
