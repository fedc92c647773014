//! Parameters of XRPC queries.

use std::borrow::Cow;

use axum::http::Uri;
use url::form_urlencoded;

use super::error::XrpcError;
use atcomm_proto::did_peer::PeerDid;
use atcomm_proto::syntax::{Actor, Did, Handle};

/// Maximum length of a query in bytes: a DID of the maximum length with every character escaped,
/// and 256 bytes for flags and numbers.
pub(super) const MAX_QUERY_LEN: usize = 3 * atcomm_proto::syntax::MAX_DID_LEN + 256;

/// Maximum length of a query with many accounts in bytes: the most handles of the maximum length
/// fit, and fewer DIDs of the maximum length. The head of a request may be a little longer.
pub(super) const MAX_ACTORS_QUERY_LEN: usize = 28 * 1024;

/// Longest cursor of a log, in bytes, by the lexicon.
const MAX_CURSOR_LEN: usize = 64;

/// The parameters of one request. Unknown parameters are ignored, as by the reference servers.
pub(super) struct Params<'a>(&'a str);

impl<'a> Params<'a> {
    pub(super) fn of(uri: &'a Uri) -> Self {
        Self::of_query(uri.query().unwrap_or_default())
    }

    pub(super) fn of_query(query: &'a str) -> Self {
        Self(query)
    }

    /// Returns the handle or DID in `actor`.
    pub(super) fn actor(&self) -> Result<Actor, XrpcError> {
        self.named("actor")
    }

    /// Returns the handle or DID in `identifier`.
    pub(super) fn identifier(&self) -> Result<Actor, XrpcError> {
        self.named("identifier")
    }

    fn named(&self, name: &str) -> Result<Actor, XrpcError> {
        let hint = format!("a handle or a DID, as in ?{name}=alice.example.com");
        let text = self.required(name, &hint)?;
        Actor::parse(&text).map_err(|why| invalid(name, &why, &hint))
    }

    /// Returns the handle in `handle`.
    pub(super) fn handle(&self) -> Result<Handle, XrpcError> {
        let hint = "a handle, as in ?handle=alice.example.com";
        let text = self.required("handle", hint)?;
        Handle::parse(&text).map_err(|why| invalid("handle", &why, hint))
    }

    /// Returns the handles or DIDs in `actors`, from 1 to `max`, in their order.
    pub(super) fn actors(&self, max: usize) -> Result<Vec<Actor>, XrpcError> {
        let hint = "a handle or a DID each time, as in ?actors=alice.example.com";
        let mut actors = Vec::new();
        for text in self.all("actors") {
            if actors.len() == max {
                let message = format!("parameter actors is given more than {max} times");
                return Err(XrpcError::invalid(message));
            }
            actors.push(Actor::parse(&text).map_err(|why| invalid("actors", &why, hint))?);
        }
        if actors.is_empty() {
            return Err(missing("actors", hint));
        }
        Ok(actors)
    }

    /// Returns the whole did:peer in `peer`.
    pub(super) fn peer(&self) -> Result<PeerDid, XrpcError> {
        let hint = "a whole did:peer:2";
        let text = self.required("peer", hint)?;
        PeerDid::parse(&text).map_err(|why| invalid("peer", &why, hint))
    }

    /// Returns the DID of an account in `did`.
    pub(super) fn did(&self) -> Result<Did, XrpcError> {
        let hint = "an account's DID, as in ?did=did:plc:ewvi7nxzyoun6zhxrhs64oiz";
        let text = self.required("did", hint)?;
        Did::parse(&text).map_err(|why| invalid("did", &why, hint))
    }

    /// Returns a boolean parameter; false when absent.
    pub(super) fn flag(&self, name: &str) -> Result<bool, XrpcError> {
        match self.one(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(XrpcError::invalid(format!(
                "parameter {name} is neither true nor false"
            ))),
        }
    }

    /// Returns the maximum number of items of a page, from 1 to `max`; `default` when absent.
    pub(super) fn limit(&self, max: usize, default: usize) -> Result<usize, XrpcError> {
        let Some(text) = self.one("limit")? else {
            return Ok(default);
        };
        let limit = integer(&text).and_then(|limit| usize::try_from(limit).ok());
        let limit = limit.filter(|limit| (1..=max).contains(limit));
        limit.ok_or_else(|| XrpcError::invalid(format!("parameter limit is not from 1 to {max}")))
    }

    /// Returns the position in a log at which the previous page ended.
    pub(super) fn cursor(&self) -> Result<Option<i64>, XrpcError> {
        let Some(text) = self.one("cursor")? else {
            return Ok(None);
        };
        integer(&text)
            .filter(|position| *position > 0 && text.len() <= MAX_CURSOR_LEN)
            .map(Some)
            .ok_or_else(|| XrpcError::invalid("parameter cursor is none that this server gave"))
    }

    fn required(&self, name: &str, hint: &str) -> Result<Cow<'a, str>, XrpcError> {
        self.one(name)?.ok_or_else(|| missing(name, hint))
    }

    /// Returns all values of a parameter.
    fn all(&self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        form_urlencoded::parse(self.0.as_bytes())
            .filter(move |(found, _)| found == name)
            .map(|(_, value)| value)
    }

    /// Returns a parameter that may be given once.
    pub(super) fn one(&self, name: &str) -> Result<Option<Cow<'a, str>>, XrpcError> {
        let mut values = self.all(name);
        let value = values.next();
        match values.next() {
            None => Ok(value),
            Some(_) => Err(XrpcError::invalid(format!(
                "parameter {name} is given more than once; it takes one value"
            ))),
        }
    }
}

/// Reads an integer of a query: digits, and a minus before them. Returns `None` for every other
/// spelling, also of one that fits no `i64`.
pub(super) fn integer(text: &str) -> Option<i64> {
    // The parser of the standard library takes a plus, too.
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

fn missing(name: &str, hint: &str) -> XrpcError {
    XrpcError::invalid(format!("parameter {name} is missing; it takes {hint}"))
}

/// Returns the error of a query that is longer than `max`. It names the parameter that takes the
/// most, if that is spelled as names of parameters are.
pub(super) fn too_long(query: &str, max: usize) -> XrpcError {
    let longest = query.split('&').max_by_key(|pair| pair.len());
    let name = longest
        .and_then(|pair| form_urlencoded::parse(pair.as_bytes()).next())
        .map(|(name, _)| name)
        .filter(|name| (1..=32).contains(&name.len()))
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    // A list is long by the number of its values.
    XrpcError::invalid(match name {
        Some(name) => format!("parameter {name} is too long: a query has at most {max} bytes"),
        None => format!("the query is longer than {max} bytes"),
    })
}

fn invalid(name: &str, why: &impl std::fmt::Display, hint: &str) -> XrpcError {
    XrpcError::invalid(format!("parameter {name}: {why}; it takes {hint}"))
}

/// Buffer for a name: as long as the longest handle and most DIDs. Longer DIDs are parsed by
/// [`Params`].
pub(super) type NameBuffer = [u8; 256];

/// Reads the account from a query that has no other effective parameter: unescaped, a handle in
/// lower case, as the cache of views is keyed. Returns `None` for every other query, which
/// [`Params`] must parse: a spelling that [`Actor::parse`] refuses must not be answered because it
/// happens to be cached. Allocates nothing.
pub(super) fn plain_actor<'n>(query: &str, name: &'n mut NameBuffer) -> Option<&'n str> {
    let value = match query.split_once('&') {
        None => query.strip_prefix("actor=")?,
        Some((actor, "proof=false")) => actor.strip_prefix("actor=")?,
        Some(("proof=false", actor)) => actor.strip_prefix("actor=")?,
        Some(_) => return None,
    };
    let mut len = 0;
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => 16 * hex(bytes.next()?)? + hex(bytes.next()?)?,
            b'+' | b'&' => return None,
            byte => byte,
        };
        *name.get_mut(len)? = byte;
        len += 1;
    }
    let name = name.get_mut(..len)?;
    // Only handles are case-insensitive: in a did:web, `%3A` differs from `%3a`.
    if name.starts_with(b"did:") {
        return std::str::from_utf8(name).ok();
    }
    let name = match name {
        [b'@', handle @ ..] => handle,
        handle => handle,
    };
    // Also no DID of another spelling: a handle has no colon.
    if name.contains(&b':') {
        return None;
    }
    name.make_ascii_lowercase();
    std::str::from_utf8(name).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(query: &str) -> Option<String> {
        plain_actor(query, &mut [0; 256]).map(str::to_owned)
    }

    #[test]
    fn plain_queries_name_an_account() {
        for (query, name) in [
            ("actor=Alice.Example.com", Some("alice.example.com")),
            ("actor=%40alice.example.com", Some("alice.example.com")),
            (
                "actor=did%3Aplc%3Aewvi7nxzyoun6zhxrhs64oiz",
                Some("did:plc:ewvi7nxzyoun6zhxrhs64oiz"),
            ),
            (
                "actor=did:web:localhost%253A2583",
                Some("did:web:localhost%3A2583"),
            ),
            ("actor=a.b&proof=false", Some("a.b")),
            ("proof=false&actor=a.b", Some("a.b")),
            ("actor=a.b&proof=true", None),
            ("actor=a.b&actor=a.b", None),
            ("actor=a.b&proof=false&proof=false", None),
            ("actor=a%2", None),
            ("actor=a%zz", None),
            ("actor=%ff", None),
            ("actor=a+b", None),
            ("actor=DID:PLC:ewvi7nxzyoun6zhxrhs64oiz", None),
            ("actor=@did:plc:ewvi7nxzyoun6zhxrhs64oiz", None),
            ("actor=Did%3Aplc:ewvi7nxzyoun6zhxrhs64oiz", None),
            ("did=a.b", None),
            ("", None),
        ] {
            assert_eq!(plain(query).as_deref(), name, "{query}");
        }
        assert_eq!(plain(&format!("actor={}", "a".repeat(257))), None);
    }

    /// Returns the account that [`Params`] reads.
    fn full(query: &str) -> Option<Actor> {
        let uri: Uri = format!("/?{query}").parse().unwrap();
        Params::of(&uri).actor().ok()
    }

    /// Returns spellings of an account's name: changed case, prefixes, suffixes, escapes.
    fn spelling() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            Just("alice.example.com"),
            Just("did:plc:ewvi7nxzyoun6zhxrhs64oiz"),
            Just("did:web:localhost%3A2583"),
        ];
        let around = prop_oneof![
            4 => Just(""),
            2 => Just("@"),
            1 => Just("@@"),
            1 => Just(" "),
            1 => Just("."),
            1 => Just("at://"),
            1 => Just("\u{202a}"),
            1 => Just("did:"),
            1 => Just("DID:"),
        ];
        let flips = prop::collection::vec(prop::bool::weighted(0.1), 40);
        let escapes = prop::collection::vec(prop::bool::weighted(0.2), 60);
        (around.clone(), name, around, flips, escapes).prop_map(
            |(before, name, after, flips, escapes)| {
                let flipped = name.chars().zip(flips).map(|(one, flip)| match flip {
                    true if one.is_ascii_lowercase() => one.to_ascii_uppercase(),
                    true => one.to_ascii_lowercase(),
                    false => one,
                });
                let name: String = flipped.collect();
                let text = format!("{before}{name}{after}");
                let escaped = text.bytes().zip(escapes.into_iter().cycle());
                escaped
                    .map(|(byte, escape)| {
                        if escape || !byte.is_ascii_graphic() || byte == b'%' {
                            format!("%{byte:02x}")
                        } else {
                            char::from(byte).to_string()
                        }
                    })
                    .collect()
            },
        )
    }

    proptest! {
        /// Whenever `plain_actor` reads the name of an account, `Params` reads the same account, so
        /// that an answer does not depend on what is cached. No name in the cache begins with `@`.
        #[test]
        fn plain_actor_reads_no_more_than_params(
            query in prop_oneof![
                "(actor=)?[a-zA-Z0-9.:%@&=+-]{0,40}",
                spelling().prop_map(|name| format!("actor={name}")),
            ],
        ) {
            if let Some(name) = plain(&query)
                && !name.starts_with('@')
                && let Ok(cached) = Actor::parse(&name)
            {
                prop_assert_eq!(full(&query), Some(cached), "{}", name);
            }
        }
    }
}
