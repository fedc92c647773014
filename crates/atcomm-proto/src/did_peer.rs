//! `did:peer`: encryption addresses that carry their own keys.
//!
//! A DID is `did:peer:2` followed by elements `.<purpose><value>`: keys as multibase text, services
//! as base64url JSON. Every spelling in use is accepted, since a sender must reach recipients
//! enrolled by any client. Nothing is rewritten: the text that was published is the text that is
//! returned.
//!
//! Source: peer DID method specification, method 2, as clarified in 2023-10.

mod build;
mod error;
mod key;
mod method_4;
mod service;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::error::{MAX_ELEMENTS, MAX_LEN, PeerDidError};
pub(crate) use self::key::is_low_order;
pub use self::key::{KeyType, PeerKey, Purpose};
pub(crate) use self::method_4::forms as forms_of_4;
pub use self::method_4::{MAX_LEN_4, PeerDid4, PeerDid4Error};
pub use self::service::{Endpoint, PeerService};

/// Characters of the abbreviated key ids of an earlier reading of the method (`#6LSbysY2`).
const SHORT_ID_LEN: usize = 8;

/// A checked `did:peer:2` with at least one X25519 key to encrypt to. Cloning is cheap; two are
/// equal if their texts are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerDid(Arc<Elements>);

struct Elements {
    text: Box<str>,
    /// All keys in order of appearance.
    keys: Vec<PeerKey>,
    /// The X25519 keys with purpose E; never empty.
    key_agreement: Vec<PeerKey>,
    /// The Ed25519 keys with purpose V.
    authentication: Vec<PeerKey>,
    services: Vec<PeerService>,
}

impl PeerDid {
    /// Reads a DID and checks everything that can be checked without a key of our own.
    pub fn parse(s: &str) -> Result<Self, PeerDidError> {
        if s.len() > MAX_LEN {
            return Err(PeerDidError::TooLong);
        }
        let elements = method_2_elements(s)?;
        if elements.split('.').any(str::is_empty) {
            return Err(PeerDidError::Syntax);
        }
        if elements.split('.').nth(MAX_ELEMENTS).is_some() {
            return Err(PeerDidError::TooManyElements);
        }
        let mut keys = Vec::new();
        let mut services = service::Services::default();
        for element in elements.split('.') {
            let (purpose, value) = split_purpose(element)?;
            match purpose {
                Some(purpose) => {
                    let id = format!("{s}#key-{}", keys.len() + 1);
                    keys.push(key::parse(id, purpose, value)?);
                }
                None => service::parse(value, &mut services)?,
            }
        }
        let chosen = |purpose, key_type| -> Vec<PeerKey> {
            keys.iter()
                .filter(|k| k.purpose == purpose && k.key_type == key_type)
                .cloned()
                .collect()
        };
        let key_agreement = chosen(Purpose::KeyAgreement, KeyType::X25519);
        let authentication = chosen(Purpose::Authentication, KeyType::Ed25519);
        if key_agreement.is_empty() {
            return Err(PeerDidError::NoX25519);
        }
        Ok(Self(Arc::new(Elements {
            text: s.into(),
            keys,
            key_agreement,
            authentication,
            services: services.list,
        })))
    }

    /// Returns the DID as it was published.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Returns the X25519 keys to encrypt to, at least one. Keys of other types under the same
    /// purpose are left out: the binding's envelope uses X25519 only, and a sender takes the first
    /// key.
    pub fn key_agreement(&self) -> &[PeerKey] {
        &self.0.key_agreement
    }

    /// Returns the Ed25519 keys that may sign for this DID; may be empty.
    pub fn authentication(&self) -> &[PeerKey] {
        &self.0.authentication
    }

    /// Returns the keys of every type and purpose, in order of appearance.
    pub fn keys(&self) -> &[PeerKey] {
        &self.0.keys
    }

    /// Returns the services in order of appearance; may be empty.
    pub fn services(&self) -> &[PeerService] {
        &self.0.services
    }

    /// Finds a key by a fragment or by an absolute id of this DID.
    ///
    /// Accepts `#key-N`, the key's text with or without its `z`, and the first eight characters of
    /// that text where they match only one key. An id of another DID finds nothing.
    pub fn key(&self, fragment_or_kid: &str) -> Option<&PeerKey> {
        let fragment = match fragment_or_kid.split_once('#') {
            Some(("", fragment)) => fragment,
            Some((did, fragment)) if did == self.as_str() => fragment,
            Some(_) => return None,
            None => fragment_or_kid,
        };
        if let Some(number) = fragment.strip_prefix("key-") {
            let canonical = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
            let index = number.parse::<usize>().ok().filter(|_| canonical)?;
            return self.0.keys.get(index.checked_sub(1)?);
        }
        let bare = |key: &PeerKey| key.multibase.get(1..).is_some_and(|text| text == fragment);
        let found = |key: &&PeerKey| key.multibase == fragment || bare(key);
        if let Some(key) = self.0.keys.iter().find(found) {
            return Some(key);
        }
        if fragment.len() != SHORT_ID_LEN {
            return None;
        }
        let short = |key: &&PeerKey| {
            key.multibase
                .get(1..)
                .is_some_and(|t| t.starts_with(fragment))
        };
        let mut matches = self.0.keys.iter().filter(short);
        let first = matches.next()?;
        matches
            .all(|other| other.multibase == first.multibase)
            .then_some(first)
    }
}

/// Returns the elements behind `did:peer:2.`. Tells another method from a text that is not a DID.
fn method_2_elements(s: &str) -> Result<&str, PeerDidError> {
    let rest = s.strip_prefix("did:").ok_or(PeerDidError::Syntax)?;
    let (method, id) = rest.split_once(':').ok_or(PeerDidError::Syntax)?;
    if method != "peer" {
        let is_name = !method.is_empty() && method.bytes().all(|b| b.is_ascii_lowercase());
        return Err(if is_name {
            PeerDidError::Method
        } else {
            PeerDidError::Syntax
        });
    }
    if let Some(elements) = id.strip_prefix("2.") {
        return Ok(elements);
    }
    let digits = id.bytes().take_while(u8::is_ascii_digit).count();
    match (digits, id.starts_with('2')) {
        (0, _) | (1, true) => Err(PeerDidError::Syntax),
        _ => Err(PeerDidError::Method),
    }
}

/// Splits an element into purpose and value; a service (`S`) has no key purpose.
fn split_purpose(element: &str) -> Result<(Option<Purpose>, &str), PeerDidError> {
    let mut rest = element.chars();
    let purpose = match rest.next() {
        Some('A') => Some(Purpose::Assertion),
        Some('D') => Some(Purpose::CapabilityDelegation),
        Some('E') => Some(Purpose::KeyAgreement),
        Some('I') => Some(Purpose::CapabilityInvocation),
        Some('V') => Some(Purpose::Authentication),
        Some('S') => None,
        _ => return Err(PeerDidError::Purpose),
    };
    Ok((purpose, rest.as_str()))
}

impl PartialEq for PeerDid {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for PeerDid {}

impl PartialOrd for PeerDid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PeerDid {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for PeerDid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for PeerDid {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for PeerDid {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for PeerDid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PeerDid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromStr for PeerDid {
    type Err = PeerDidError;
    fn from_str(s: &str) -> Result<Self, PeerDidError> {
        Self::parse(s)
    }
}

impl TryFrom<String> for PeerDid {
    type Error = PeerDidError;
    fn try_from(s: String) -> Result<Self, PeerDidError> {
        Self::parse(&s)
    }
}

impl From<PeerDid> for String {
    fn from(v: PeerDid) -> String {
        v.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests;
