//! A page of `listRepos` or `listReposByCollection`, as servers write it: a bad entry costs that
//! entry.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use atcomm_proto::syntax::Did;

/// Longest paging cursor that is stored and sent, in bytes. Servers write numbers, times and DIDs.
const MAX_CURSOR_LEN: usize = 4096;

/// One page of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// Where the next page begins; `None` behind the last one.
    pub(super) cursor: Option<String>,
    pub(super) repos: Vec<Repo>,
    /// Entries that name no account.
    pub(super) bad_entries: usize,
}

/// One account of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repo {
    pub(super) did: Did,
    /// Whether the account is active; `None` where the server does not say so.
    pub(super) active: Option<bool>,
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow, default)]
    cursor: Option<&'a RawValue>,
    #[serde(borrow, default)]
    repos: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct RawRepo<'a> {
    #[serde(borrow)]
    did: Cow<'a, str>,
    #[serde(borrow, default)]
    active: Option<&'a RawValue>,
}

impl Page {
    /// Reads a page. A list that is missing or `null` is empty. `None` where the body is no object
    /// with a list, or its cursor cannot be one.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        // Text that is not UTF-8 spoils the entry in which it stands.
        let text = String::from_utf8_lossy(body);
        let text = text.trim_start_matches('\u{feff}').trim_start();
        // The library reads an array as an object, too.
        if !text.starts_with('{') {
            return None;
        }
        let page: RawPage<'_> = serde_json::from_str(text).ok()?;
        let entries = page.repos.unwrap_or_default();
        let repos: Vec<Repo> = entries
            .iter()
            .filter_map(|entry| Repo::parse(entry.get()))
            .collect();
        Some(Self {
            cursor: page.cursor.map_or(Some(None), |raw| cursor(raw.get()))?,
            bad_entries: entries.len() - repos.len(),
            repos,
        })
    }
}

impl Repo {
    fn parse(entry: &str) -> Option<Self> {
        let raw: RawRepo<'_> = serde_json::from_str(entry).ok()?;
        Some(Self {
            did: Did::parse(raw.did.trim()).ok()?,
            active: match raw.active.map_or("", RawValue::get) {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            },
        })
    }
}

/// Reads a paging cursor: text, or a number as some servers write it. `Some(None)` where there is
/// no further page, `None` where the value is no cursor.
fn cursor(value: &str) -> Option<Option<String>> {
    let text = match value.as_bytes().first()? {
        b'n' | b'f' => return Some(None),
        b'"' => serde_json::from_str::<String>(value).ok()?,
        b'0'..=b'9' | b'-' => value.to_owned(),
        _ => return None,
    };
    if text.len() > MAX_CURSOR_LEN {
        return None;
    }
    Some(Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the names of the accounts, the number of bad entries and the cursor.
    fn read(body: &str) -> Option<(Vec<String>, usize, Option<String>)> {
        let page = Page::parse(body.as_bytes())?;
        let names = page.repos.iter().map(|repo| repo.did.to_string()).collect();
        Some((names, page.bad_entries, page.cursor))
    }

    const A: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn pages_are_read_as_servers_write_them() {
        let good = format!("{{\"did\":\"{A}\",\"head\":\"x\",\"active\":true}}");
        let one = vec![A.to_owned()];
        for (body, names, bad, cursor) in [
            ("{}".to_owned(), vec![], 0, None),
            ("{\"repos\":null}".to_owned(), vec![], 0, None),
            (
                "{\"repos\":null,\"cursor\":null}".to_owned(),
                vec![],
                0,
                None,
            ),
            ("{\"repos\":[],\"cursor\":\"\"}".to_owned(), vec![], 0, None),
            (
                "{\"repos\":[],\"cursor\":\"x\"}".to_owned(),
                vec![],
                0,
                Some("x"),
            ),
            (
                "{\"repos\":[],\"cursor\":12}".to_owned(),
                vec![],
                0,
                Some("12"),
            ),
            (
                format!("\u{feff}{{\"repos\":[{good}],\"cursor\":false}}"),
                one.clone(),
                0,
                None,
            ),
            (
                format!(
                    "{{\"repos\":[{{}},null,5,\"x\",[],{{\"did\":null}},{{\"did\":7}},\
                     {{\"did\":\"no\"}},{{\"did\":\"\\ud800\"}},{{\"did\":{{}}}},{good}]}}"
                ),
                one.clone(),
                10,
                None,
            ),
            (
                format!(
                    "{{\"repos\":[{{\"x\":{}{}}},{good}]}}",
                    "[".repeat(100_000),
                    "]".repeat(100_000)
                ),
                one,
                1,
                None,
            ),
        ] {
            let expected = Some((names, bad, cursor.map(str::to_owned)));
            assert_eq!(read(&body), expected, "{body:.200}");
        }
        for body in [
            "",
            "null",
            "[]",
            "<html>",
            "{\"repos\":{}}",
            "{\"repos\":\"x\"}",
            "{\"repos\":[],\"cursor\":{}}",
            "{\"repos\":[],\"cursor\":true}",
            "{\"repos\":[",
        ] {
            assert_eq!(read(body), None, "{body}");
        }
        let long = format!("{{\"cursor\":\"{}\"}}", "c".repeat(MAX_CURSOR_LEN + 1));
        assert_eq!(read(&long), None);
    }

    #[test]
    fn whether_an_account_is_active_may_be_left_out_or_written_otherwise() {
        for (active, expected) in [
            ("", None),
            (",\"active\":null", None),
            (",\"active\":\"false\"", None),
            (",\"active\":0", None),
            (",\"active\":true", Some(true)),
            (",\"active\":false", Some(false)),
        ] {
            let body = format!("{{\"repos\":[{{\"did\":\"{A}\"{active}}}]}}");
            let page = Page::parse(body.as_bytes()).unwrap();
            assert_eq!(page.repos[0].active, expected, "{active}");
        }
    }

    #[test]
    fn text_that_is_not_utf_8_costs_its_entry() {
        let mut body = format!("{{\"repos\":[{{\"did\":\"did:plc:#\"}},{{\"did\":\"{A}\"}}]}}");
        let at = body.find('#').unwrap();
        let mut bytes = std::mem::take(&mut body).into_bytes();
        bytes[at] = 0xff;
        let page = Page::parse(&bytes).unwrap();
        assert_eq!((page.repos.len(), page.bad_entries), (1, 1));
    }
}
