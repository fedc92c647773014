//! Names as people type and paste them: with white space, invisible marks and quotes around them,
//! as links to profiles, with letters of other widths.
//!
//! What is typed becomes the exact form here, before it is parsed, compared or shown. Names that
//! come from servers are not treated so: those are right or wrong.

use url::Url;

use crate::syntax::{Actor, Handle, Origin, SyntaxError};

/// Longest text that is looked at, in bytes: a long link.
const MAX_TYPED: usize = 4096;

/// Ends of a name that belong to the sentence or the markup from which it was copied.
const AROUND: [char; 18] = [
    '"', '\'', '`', '<', '>', '(', ')', '[', ']', '\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}',
    '\u{2019}', '\u{ab}', '\u{bb}', '\u{2039}', '\u{203a}',
];

/// Signs that end a sentence.
const AFTER: [char; 6] = ['.', ',', ';', ':', '!', '?'];

/// Reads an account as people name it: a handle or a DID, also with `@` or `at://` before it, or a
/// link to the account's profile.
pub fn actor(text: &str) -> Result<Actor, SyntaxError> {
    if text.len() > MAX_TYPED {
        return Actor::parse(text);
    }
    let plain = trimmed(text);
    let name = linked(&plain).unwrap_or_else(|| bare(&plain).to_owned());
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("did:") {
        // The port of a did:web stands behind this escape, which is written in capitals.
        return Actor::parse(&lower.replace("%3a", "%3A"));
    }
    match Handle::parse(&name) {
        // Letters of other scripts and widths stand for a name in ASCII.
        Err(_) if !name.is_ascii() => {
            let url = Url::parse(&format!("https://{name}/")).ok();
            let host = url.as_ref().and_then(Url::host_str);
            Actor::parse(host.unwrap_or(&name))
        }
        parsed => parsed.map(Actor::Handle),
    }
}

/// Reads a server as people name it: its origin, its host, or its `did:web`. A host is reached by
/// https, and `localhost` by http.
pub fn origin(text: &str) -> Result<Origin, SyntaxError> {
    let trimmed = trimmed(text);
    let plain = match trimmed.strip_prefix("did:web:") {
        Some(host) => host.replace("%3A", ":").replace("%3a", ":"),
        None => trimmed,
    };
    if plain.contains("://") {
        return Origin::parse(&plain);
    }
    let host = plain.split([':', '/']).next().unwrap_or_default();
    let scheme = if host.eq_ignore_ascii_case("localhost") {
        "http"
    } else {
        "https"
    };
    Origin::parse(&format!("{scheme}://{plain}"))
}

/// Returns the record that people name, as an `at://` address: that address itself, or a link to a
/// post, a list or a feed in an app. Anything else comes back without what is around it.
pub fn record(text: &str) -> String {
    let plain = trimmed(text);
    let Some(mut segments) = segments(&plain) else {
        return plain;
    };
    let (found, account, kind, key) = (
        segments.find(|segment| segment == "profile"),
        segments.next(),
        segments.next(),
        segments.next(),
    );
    let collection = match kind.as_deref() {
        Some("post") => "app.bsky.feed.post",
        Some("lists") => "app.bsky.graph.list",
        Some("feed") => "app.bsky.feed.generator",
        _ => return plain,
    };
    match (found, account, key) {
        (Some(_), Some(account), Some(key)) => format!("at://{account}/{collection}/{key}"),
        _ => plain,
    }
}

/// Removes invisible characters, and white space and quotes at both ends.
pub fn trimmed(text: &str) -> String {
    let visible: String = text.chars().filter(|c| !is_invisible(*c)).collect();
    visible
        .trim_matches(|c: char| c.is_whitespace() || AROUND.contains(&c))
        .to_owned()
}

/// Whether a character is only an instruction for drawing the text: marks of the direction of
/// writing, joiners, soft hyphens, byte order marks.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

/// Returns a name without the signs before and after it.
fn bare(name: &str) -> &str {
    name.trim_start_matches(['@', '\u{ff20}'])
        .trim_start()
        .trim_end_matches(|c| AFTER.contains(&c) || AROUND.contains(&c))
}

/// Returns the account that a link names.
fn linked(text: &str) -> Option<String> {
    if let Some(rest) = stripped(text, "at://") {
        let name = rest.split(['/', '?', '#']).next().unwrap_or_default();
        return Some(bare(name).to_owned());
    }
    let named: Vec<String> = segments(text)?.collect();
    let after_profile = named.iter().skip_while(|one| *one != "profile").nth(1);
    let did = || named.iter().find(|one| stripped(one, "did:").is_some());
    if let Some(name) = after_profile.or_else(did) {
        return Some(bare(name).to_owned());
    }
    // A handle is a host, and its address may lead to a profile.
    let url = Url::parse(text).ok()?;
    named
        .is_empty()
        .then(|| url.host_str().map(str::to_owned))?
}

/// Returns the parts of the path of a link, with or without its scheme.
fn segments(text: &str) -> Option<impl Iterator<Item = String> + use<>> {
    let is_link = stripped(text, "https://").or_else(|| stripped(text, "http://"));
    let url = match is_link {
        Some(_) => Url::parse(text),
        None if text.contains("/profile/") => Url::parse(&format!("https://{text}")),
        None => return None,
    };
    let path = url.ok()?.path().to_owned();
    let decoded = |part: &str| {
        part.replace("%3A", ":")
            .replace("%3a", ":")
            .replace("%40", "@")
    };
    let parts: Vec<String> = path.split('/').map(decoded).collect();
    Some(parts.into_iter().filter(|part| !part.is_empty()))
}

fn stripped<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::Did;

    #[test]
    fn an_account_is_read_as_people_name_it() {
        const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
        for text in [
            "alice.example.com",
            "  alice.example.com\n",
            "\u{a0}alice.example.com\u{3000}",
            "@alice.example.com",
            "@ alice.example.com",
            "\u{ff20}alice.example.com",
            "@\u{202a}alice.example.com\u{202c}",
            "\u{2068}alice.example.com\u{2069}",
            "\u{feff}alice.exam\u{200b}ple.com",
            "Alice.Example.COM",
            "alice.example.com.",
            "<alice.example.com>",
            "\u{201e}alice.example.com\u{201c}",
            "(@alice.example.com),",
            "at://alice.example.com",
            "AT://alice.example.com/app.bsky.feed.post/3jzfcijpj2z2a",
            "at://@alice.example.com",
            "https://bsky.app/profile/alice.example.com",
            "http://bsky.app/profile/alice.example.com/",
            "https://bsky.app/profile/@alice.example.com/post/3jzfcijpj2z2a?x=y#z",
            "bsky.app/profile/alice.example.com",
            "https://deer.social/profile/alice.example.com/feed/x",
            "https://alice.example.com",
            "https://alice.example.com/",
            "\u{ff41}lice\u{ff0e}example\u{3002}com",
        ] {
            let read = actor(text).ok();
            let wanted = Handle::parse("alice.example.com").ok().map(Actor::Handle);
            assert_eq!(read, wanted, "{text:?}");
        }
        for text in [
            DID,
            " did:plc:ewvi7nxzyoun6zhxrhs64oiz ",
            "DID:PLC:EWVI7NXZYOUN6ZHXRHS64OIZ",
            "@did:plc:ewvi7nxzyoun6zhxrhs64oiz",
            "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/at.didcomm.keyPackage/self",
            "https://bsky.app/profile/did:plc:ewvi7nxzyoun6zhxrhs64oiz",
            "https://bsky.app/profile/did%3Aplc%3Aewvi7nxzyoun6zhxrhs64oiz",
            "https://plc.directory/did:plc:ewvi7nxzyoun6zhxrhs64oiz",
            "https://pdsls.dev/at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/x",
        ] {
            let read = actor(text).map(|actor| match actor {
                Actor::Did(did) => did.to_string(),
                Actor::Handle(handle) => handle.to_string(),
            });
            assert_eq!(read.as_deref().ok(), Some(DID), "{text:?}");
        }
        for text in [
            "did:web:localhost%3A2583",
            "did:web:Localhost%3a2583",
            "at://did:web:localhost%3A2583/at.didcomm.keyPackage/self",
        ] {
            let wanted = Did::parse("did:web:localhost%3A2583").ok().map(Actor::Did);
            assert_eq!(actor(text).ok(), wanted, "{text:?}");
        }
        for text in [
            "",
            " ",
            "@",
            "at://",
            "alice",
            "alice at example",
            "alice@example.com",
            "https://example.com/alice",
            "https://bsky.app/profile/",
            "did:key:z6Mk",
            "\u{202e}",
            &"a.".repeat(4000),
        ] {
            assert!(actor(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_server_is_read_as_people_name_it() {
        for (text, wanted) in [
            ("mail.example.com", "https://mail.example.com"),
            (" https://Mail.Example.com/ ", "https://mail.example.com"),
            ("mail.example.com/", "https://mail.example.com"),
            ("mail.example.com:8443", "https://mail.example.com:8443"),
            (
                "\u{202a}mail.example.com\u{202c}",
                "https://mail.example.com",
            ),
            ("did:web:mail.example.com", "https://mail.example.com"),
            ("did:web:localhost%3A2590", "http://localhost:2590"),
            ("localhost:2590", "http://localhost:2590"),
            ("http://localhost:2590", "http://localhost:2590"),
        ] {
            let read = origin(text).map(|origin| origin.to_string());
            assert_eq!(read.as_deref().ok(), Some(wanted), "{text:?}");
        }
        for text in ["", "mail.example.com/path", "user@mail.example.com", "a b"] {
            assert!(origin(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_record_is_read_as_people_name_it() {
        const POST: &str = "at://alice.example.com/app.bsky.feed.post/3jzfcijpj2z2a";
        for text in [
            POST,
            " at://alice.example.com/app.bsky.feed.post/3jzfcijpj2z2a\u{202c}",
            "https://bsky.app/profile/alice.example.com/post/3jzfcijpj2z2a",
            "bsky.app/profile/alice.example.com/post/3jzfcijpj2z2a?ref=x",
        ] {
            assert_eq!(record(text), POST, "{text:?}");
        }
        for text in [
            "https://example.com/x",
            "https://bsky.app/profile/alice.example.com",
            "x",
        ] {
            assert_eq!(record(text), text);
        }
    }
}
