//! Checked identifiers with the limits and error texts that the libraries lack, and text of other
//! servers made harmless.
//!
//! Text from outside becomes one of these types at the edge; below the edge no bare `&str` names an
//! account, a handle, a revision or a mediator. Every one of these types is cheap to clone.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use atrium_api::types::string as atrium;
use serde::{Deserialize, Serialize};

mod lexicon_error;
mod remote_text;

pub use lexicon_error::LexiconError;
pub use remote_text::{RemoteText, is_printable};

/// Collection of the records that this service follows.
pub const COLLECTION: &str = "at.didcomm.keyPackage";

/// Record key of the only key package of an account (lexicon `literal:self`).
pub const RECORD_KEY: &str = "self";

/// Path of the record in a repository's tree.
pub const RECORD_PATH: &str = "at.didcomm.keyPackage/self";

/// Longest DID accepted anywhere, in bytes (atproto DID specification).
pub const MAX_DID_LEN: usize = 2048;

/// Returns a value of another server without what people and their editors leave around it: white
/// space, line ends, a byte order mark, and marks of no width or of direction.
///
/// Only the ends are trimmed. A text that needs more is another text, and other readers would make
/// of it what they like.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| {
        let is_mark = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}');
        c.is_whitespace() || is_mark
    })
}

/// A text that is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: {reason}")]
pub struct SyntaxError {
    /// The kind of identifier that was expected, such as `did` or `handle`.
    pub kind: &'static str,
    /// The rule that the text breaks.
    pub reason: &'static str,
}

const fn invalid(kind: &'static str, reason: &'static str) -> SyntaxError {
    SyntaxError { kind, reason }
}

macro_rules! string_newtype {
    ($name:ident) => {
        impl $name {
            /// Returns the identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = SyntaxError;
            fn from_str(s: &str) -> Result<Self, SyntaxError> {
                Self::parse(s)
            }
        }
        impl TryFrom<String> for $name {
            type Error = SyntaxError;
            fn try_from(s: String) -> Result<Self, SyntaxError> {
                Self::parse(&s)
            }
        }
        impl From<$name> for String {
            fn from(v: $name) -> String {
                v.0.to_string()
            }
        }
    };
}

/// An account's DID: `did:plc`, or `did:web` of a host without a path (atproto DID specification,
/// "blessed DID methods").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Did(Arc<str>);

string_newtype!(Did);

impl Did {
    /// Checks syntax and method. A port in a `did:web` (`%3A2583`) is valid syntax; the network
    /// policy decides whether the name may be dialled.
    pub fn parse(s: &str) -> Result<Self, SyntaxError> {
        if s.len() > MAX_DID_LEN {
            return Err(invalid("did", "longer than 2048 bytes"));
        }
        if let Some(id) = s.strip_prefix("did:plc:") {
            if id.len() != 24 || !id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7')) {
                return Err(invalid(
                    "did",
                    "did:plc takes 24 characters of base32 (a-z, 2-7)",
                ));
            }
        } else if s.starts_with("did:web:") {
            let web = WebDid::parse(s)?;
            if !web.path.is_empty() {
                return Err(invalid(
                    "did",
                    "an account's did:web names a host, not a path",
                ));
            }
        } else if s.starts_with("did:") {
            return Err(invalid("did", "an account's DID is did:plc or did:web"));
        } else {
            return Err(invalid("did", "it does not start with did:"));
        }
        Ok(Self(s.into()))
    }

    /// Returns the parts of a `did:web`; `None` for `did:plc`.
    pub fn web(&self) -> Option<WebDid> {
        self.0
            .starts_with("did:web:")
            .then(|| WebDid::parse(&self.0).ok())
            .flatten()
    }
}

/// The parts of a `did:web` identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebDid {
    /// Host name in lower case.
    pub host: String,
    /// Port, if the identifier names one (`%3A`).
    pub port: Option<u16>,
    /// Path segments; empty stands for `/.well-known/did.json`.
    pub path: Vec<String>,
}

impl WebDid {
    /// Splits `did:web:host[%3Aport][:path]*`.
    pub fn parse(s: &str) -> Result<Self, SyntaxError> {
        let err = |reason| invalid("did:web", reason);
        let id = s
            .strip_prefix("did:web:")
            .ok_or(err("it does not start with did:web:"))?;
        if s.len() > MAX_DID_LEN {
            return Err(err("longer than 2048 bytes"));
        }
        let mut parts = id.split(':');
        let authority = parts.next().unwrap_or_default();
        let (host, port) = match authority
            .split_once("%3A")
            .or_else(|| authority.split_once("%3a"))
        {
            Some((host, port)) => {
                let canonical = !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit());
                let port = port.parse::<u16>().ok().filter(|_| canonical);
                (
                    host,
                    Some(port.ok_or(err("the port is not a number from 1 to 65535"))?),
                )
            }
            None => (authority, None),
        };
        let host = host.to_ascii_lowercase();
        if !is_host_name(&host) {
            return Err(err("the host is not a domain name"));
        }
        let path = parts
            .map(|seg| {
                let plain = !seg.is_empty()
                    && seg != "."
                    && seg != ".."
                    && seg
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
                plain
                    .then(|| seg.to_owned())
                    .ok_or(err("a path segment has other characters"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { host, port, path })
    }
}

/// Returns whether `s` is a lower-case host name: labels of letters, digits and inner hyphens, of
/// which the last is not a number (so no address literal passes).
fn is_host_name(s: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    s.len() <= 253
        && s.split('.').all(label)
        && s.rsplit('.')
            .next()
            .is_some_and(|l| !l.bytes().all(|b| b.is_ascii_digit()))
}

/// An account handle in lower case (atproto handle specification).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Handle(Arc<str>);

string_newtype!(Handle);

/// Top-level domains whose handles are never resolved (atproto handle specification).
const DISALLOWED_TLDS: [&str; 8] = [
    "alt",
    "arpa",
    "example",
    "internal",
    "invalid",
    "local",
    "localhost",
    "onion",
];

impl Handle {
    /// Checks the syntax and folds to lower case.
    pub fn parse(s: &str) -> Result<Self, SyntaxError> {
        // The library matches a regular expression against the whole text, so bound the length
        // first.
        if s.len() > 253 {
            return Err(invalid("handle", "longer than 253 characters"));
        }
        atrium::Handle::new(s.to_ascii_lowercase())
            .map(|h| Self(h.as_str().into()))
            .map_err(|_| invalid("handle", "not a domain name of two or more labels"))
    }

    /// Returns the first handle among the names of `alsoKnownAs`, a claim until it is verified.
    pub fn claimed<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<Self> {
        names.into_iter().find_map(|name| {
            let name = trimmed(name).strip_prefix("at://")?;
            Self::parse(name.strip_suffix(['/', '.']).unwrap_or(name)).ok()
        })
    }

    /// Returns whether the handle may be resolved: never under reserved top-level domains, and
    /// under `.test` only in development.
    pub fn is_resolvable(&self, development: bool) -> bool {
        let tld = self.0.rsplit('.').next().unwrap_or_default();
        !DISALLOWED_TLDS.contains(&tld) && (tld != "test" || development)
    }
}

/// An account as a caller names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// By DID.
    Did(Did),
    /// By handle.
    Handle(Handle),
}

impl Actor {
    /// Reads a DID or a handle.
    pub fn parse(s: &str) -> Result<Self, SyntaxError> {
        if s.starts_with("did:") {
            Did::parse(s).map(Self::Did)
        } else {
            Handle::parse(s.strip_prefix('@').unwrap_or(s)).map(Self::Handle)
        }
    }
}

/// A repository revision: a TID, ordered as text (atproto TID specification).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rev([u8; 13]);

impl TryFrom<String> for Rev {
    type Error = SyntaxError;
    fn try_from(s: String) -> Result<Self, SyntaxError> {
        Self::parse(&s)
    }
}

impl From<Rev> for String {
    fn from(rev: Rev) -> Self {
        rev.as_str().to_owned()
    }
}

impl Rev {
    /// Checks the 13 characters of base32-sortable text.
    pub fn parse(s: &str) -> Result<Self, SyntaxError> {
        let bytes: [u8; 13] = s
            .as_bytes()
            .try_into()
            .map_err(|_| invalid("rev", "a TID has 13 characters"))?;
        let sortable = |b: &u8| matches!(b, b'2'..=b'7' | b'a'..=b'z');
        if !matches!(bytes[0], b'2'..=b'7' | b'a'..=b'j') || !bytes.iter().all(sortable) {
            return Err(invalid(
                "rev",
                "a TID is base32-sortable and starts with 2-7 or a-j",
            ));
        }
        Ok(Self(bytes))
    }

    /// Returns the revision as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns the time that the TID encodes, in microseconds since 1970. Some servers count
    /// instead of reading a clock, so the value can bound the future and does not tell the age.
    pub fn micros(&self) -> u64 {
        let value = self.0.iter().fold(0_u64, |acc, b| {
            let digit = match b {
                b'2'..=b'7' => b - b'2',
                _ => b - b'a' + 6,
            };
            (acc << 5) | u64::from(digit)
        });
        value >> 10
    }
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A mediator as a key package names it: any DID, of which only `did:web` can be resolved.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MediatorDid(Arc<str>);

string_newtype!(MediatorDid);

impl MediatorDid {
    /// Checks generic DID syntax (lexicon string format `did`).
    pub fn parse(s: &str) -> Result<Self, SyntaxError> {
        let err = |reason| invalid("did", reason);
        if s.len() > MAX_DID_LEN {
            return Err(err("longer than 2048 bytes"));
        }
        let rest = s
            .strip_prefix("did:")
            .ok_or(err("it does not start with did:"))?;
        let (method, id) = rest.split_once(':').ok_or(err("it has no method"))?;
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_lowercase()) {
            return Err(err("the method is not lower-case letters"));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:%-".contains(&b);
        if id.is_empty() || id.ends_with([':', '%']) || !id.bytes().all(allowed) {
            return Err(err("the identifier is empty or has other characters"));
        }
        Ok(Self(s.into()))
    }

    /// Returns the parts of a well-formed `did:web`; `None` for every other method.
    pub fn web(&self) -> Option<WebDid> {
        WebDid::parse(&self.0).ok()
    }
}

/// The address of a PDS: scheme, host and port of a URL without path, query or user (atproto DID
/// specification, "PDS service").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(Arc<str>);

string_newtype!(Origin);

impl Origin {
    /// Normalises an `http` or `https` origin: host in lower case, without default port and final
    /// slash.
    pub fn parse(s: &str) -> Result<Self, SyntaxError> {
        let err = |reason| invalid("origin", reason);
        if s.len() > 512 {
            return Err(err("longer than 512 bytes"));
        }
        let mut url = url::Url::parse(s).map_err(|_| err("not an URL"))?;
        // The name of the root is written by some and means nothing, but makes another origin.
        if let Some(host) = url.host_str().and_then(|host| host.strip_suffix('.')) {
            let host = host.to_owned();
            url.set_host(Some(&host)).map_err(|_| err("not an URL"))?;
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(err("the scheme is neither https nor http"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(err("it names a user"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(err("it has a path, query or fragment"));
        }
        Ok(Self(url.origin().ascii_serialization().into()))
    }

    /// Returns the origin as the URL of its root.
    pub fn to_url(&self) -> url::Url {
        #[expect(clippy::expect_used, reason = "it was written from a parsed URL")]
        url::Url::parse(&self.0).expect("an origin is an URL")
    }

    /// Returns the host without scheme, with the port where it is not the default one.
    pub fn host(&self) -> &str {
        self.0.split_once("://").map_or(&*self.0, |(_, host)| host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_dids_are_plc_or_bare_web() {
        for good in [
            "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
            "did:web:alice.example.com",
            "did:web:localhost%3A2583",
        ] {
            assert_eq!(Did::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "did:plc:",
            "did:plc:ewvi7nxzyoun6zhxrhs64oi1",
            "did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ",
            "did:web:",
            "did:web:alice.example.com:path",
            "did:web:127.0.0.1",
            "did:web:host%3A0",
            "did:web:host%3A80x",
            "did:key:z6Mk",
            "did:peer:2.E",
            "alice.test",
        ] {
            assert!(Did::parse(bad).is_err(), "{bad}");
        }
        assert!(Did::parse(&format!("did:web:{}", "a".repeat(2048))).is_err());
    }

    #[test]
    fn handles_fold_case_and_know_reserved_domains() {
        assert_eq!(
            Handle::parse("Alice.PDS0.Test").unwrap().as_str(),
            "alice.pds0.test"
        );
        assert!(Handle::parse("alice").is_err());
        assert!(Handle::parse("alice..test").is_err());
        let test = Handle::parse("alice.test").unwrap();
        assert!(test.is_resolvable(true) && !test.is_resolvable(false));
        assert!(!Handle::parse("a.onion").unwrap().is_resolvable(true));
    }

    #[test]
    fn revs_order_as_time() {
        let low = Rev::parse("2222222222e22").unwrap();
        let high = Rev::parse("3n2wo76pa3k2w").unwrap();
        assert!(low < high && low.micros() < high.micros());
        assert!(Rev::parse("zzzzzzzzzzzzz").is_err());
        assert!(Rev::parse("3n2wo76pa3k2").is_err());
    }

    #[test]
    fn origins_are_normalised() {
        assert_eq!(
            Origin::parse("HTTPS://PDS.Example.com:443/")
                .unwrap()
                .as_str(),
            "https://pds.example.com"
        );
        assert_eq!(
            Origin::parse("https://pds.example.com.:8443")
                .unwrap()
                .host(),
            "pds.example.com:8443"
        );
        assert_eq!(
            Origin::parse("http://localhost:2583").unwrap().host(),
            "localhost:2583"
        );
        for good in [
            "https://PDS.Example.com:443/",
            "http://[::1]:8080",
            "https://ä.example",
        ] {
            let origin = Origin::parse(good).unwrap();
            assert_eq!(Origin::parse(origin.to_url().as_str()).unwrap(), origin);
        }
        for bad in [
            "ftp://x.com",
            "https://u@x.com",
            "https://x.com/a",
            "https://.",
            "https://x.com?q",
            "x.com",
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }

    fn list(name: &str) -> Vec<String> {
        let dir = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/interop/atproto-interop-tests"
        );
        let text = std::fs::read_to_string(format!("{dir}/{name}")).unwrap();
        let lines = text
            .lines()
            .filter(|l| !l.starts_with('#') && !l.is_empty());
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn interop_identifiers() {
        for good in list("tid_syntax_valid.txt") {
            assert!(Rev::parse(&good).is_ok(), "{good}");
        }
        for bad in list("tid_syntax_invalid.txt") {
            assert!(Rev::parse(&bad).is_err(), "{bad}");
        }
        for good in list("handle_syntax_valid.txt") {
            assert!(Handle::parse(&good).is_ok(), "{good}");
        }
        for bad in list("handle_syntax_invalid.txt") {
            assert!(Handle::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mediators_may_use_any_method_but_only_web_has_parts() {
        let web = MediatorDid::parse("did:web:m.example.com%3A8443:a:b")
            .unwrap()
            .web()
            .unwrap();
        assert_eq!(
            (web.host.as_str(), web.port, web.path.len()),
            ("m.example.com", Some(8443), 2)
        );
        assert!(
            MediatorDid::parse("did:peer:2.Ez6LS")
                .unwrap()
                .web()
                .is_none()
        );
        for bad in [
            "did:web",
            "did::x",
            "did:web:",
            "did:web:x%",
            "did:web:x y",
            "web:x",
        ] {
            assert!(MediatorDid::parse(bad).is_err(), "{bad}");
        }
    }
}
