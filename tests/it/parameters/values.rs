//! Values that no client should send, and changes that put them into a good query.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::json;
use url::form_urlencoded;

/// A change of a good query. The parameter is chosen by the index, its value is as in a query.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Set(Index, Text),
    Leave(Index),
    Repeat(Index, Text),
    /// A parameter that the method does not have.
    Add(String, Text),
    /// The same query with the names of all parameters escaped.
    EscapeNames,
}

/// A value, as far as it does not depend on the parameter.
#[derive(Debug, Clone)]
pub(super) enum Text {
    /// Text that is escaped where it must be.
    Plain(String),
    /// Text of which every byte is escaped.
    Escaped(String),
    /// Text as it stands in a query, with escapes that are none.
    Raw(String),
    /// The good value with another character somewhere, or without one, or longer.
    Like(Index, Option<char>),
    Twice,
    UpperCase,
    Padded(usize),
}

impl Text {
    /// Returns the value as it stands in a query.
    pub(super) fn in_query(&self, good: &str) -> String {
        let plain = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect();
        match self {
            Self::Plain(text) => plain(text),
            Self::Escaped(text) => text.bytes().map(|byte| format!("%{byte:02x}")).collect(),
            Self::Raw(text) => text.clone(),
            Self::Like(at, other) => {
                let mut chars: Vec<char> = good.chars().collect();
                let at = at.index(chars.len());
                match other {
                    Some(other) => chars.insert(at, *other),
                    None => drop(chars.remove(at)),
                }
                plain(&chars.into_iter().collect::<String>())
            }
            Self::Twice => plain(&good.repeat(2)),
            Self::UpperCase => plain(&good.to_uppercase()),
            Self::Padded(zeros) => plain(&format!("{}{good}", "0".repeat(*zeros))),
        }
    }
}

/// Values that are wrong for many parameters, and that have deceived servers before.
const HOSTILE: &[&str] = &[
    "",
    " ",
    "\0",
    "\u{0}did:plc:ewvi7nxzyoun6zhxrhs64oiz",
    "did:plc:ewvi7nxzyoun6zhxrhs64oiz\0",
    "did:plc:ewvi7nxzyoun6zhxrhs64oiz\n",
    "did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ",
    "did:plc:",
    "did:web:",
    "did:web:127.0.0.1",
    "did:web:localhost%3A22",
    "did:web:a.test:..:b",
    "did:key:z6Mk",
    "did:peer:2.Ez6LS",
    "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz",
    "@",
    "@@a.test",
    "alice",
    "-a.test",
    "a..test",
    "xn--.test",
    "http://a.test/path?x#y",
    "https://user@a.test",
    "file:///etc/passwd",
    "../../etc/passwd",
    "' OR 1=1 --",
    "\";DROP TABLE entry;--",
    "<script>alert(1)</script>",
    "${jndi:ldap://a.test}",
    "{{7*7}}",
    "%s%n",
    "null",
    "undefined",
    "[]",
    "{}",
    "[object Object]",
    "\u{202e}\u{feff}\u{e000}",
    "\u{fffd}",
    "a\u{301}.test",
    "true",
    "TRUE",
    "1",
    "0",
    "-0",
    "-1",
    "+1",
    "01",
    "1.0",
    "1e2",
    "0x10",
    "1_000",
    "\u{661}",
    "NaN",
    "101",
    "501",
    "2001",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "99999999999999999999999999",
    "2026-02-29",
    "2026-6-1",
    "0000-00-00",
    "9999-12-31",
    "+2026-06-1",
    "day,week",
];

/// Texts of a query that are no escapes, or escapes of bytes that are no UTF-8.
const RAW: &[&str] = &[
    "%",
    "%0",
    "%zz",
    "a%",
    "%%30",
    "%u0041",
    "%c0%80",
    "%ff",
    "%ed%a0%80",
    "+",
    "a=b=c",
    ";",
    "%2526",
    "%00%00",
];

/// Lengths at and around limits, in bytes.
const LENGTHS: [usize; 10] = [64, 65, 253, 256, 513, 2048, 2049, 4097, 6401, 14_000];

fn value() -> impl Strategy<Value = Text> {
    let hostile = select(HOSTILE).prop_map(str::to_owned);
    let random =
        any::<Vec<char>>().prop_map(|chars| chars.into_iter().take(40).collect::<String>());
    let part = select(&["a", "did:web:a.", "1", "0", "%25", "%C3%A9"][..]);
    let long = (part, select(&LENGTHS[..]))
        .prop_map(|(part, length)| part.repeat(length.div_ceil(part.len())));
    let other = prop_oneof![
        Just(None),
        select(vec![
            '\0', ' ', '.', ':', '%', '/', '@', '\u{e9}', '0', 'Z', '\n'
        ])
        .prop_map(Some),
        any::<char>().prop_map(Some),
    ];
    prop_oneof![
        4 => hostile.clone().prop_map(Text::Plain),
        2 => hostile.prop_map(Text::Escaped),
        2 => random.prop_map(Text::Plain),
        1 => long.prop_map(Text::Raw),
        2 => select(RAW).prop_map(|text| Text::Raw(text.to_owned())),
        3 => (any::<Index>(), other).prop_map(|(at, other)| Text::Like(at, other)),
        1 => Just(Text::Twice),
        1 => Just(Text::UpperCase),
        1 => (1..80_usize).prop_map(Text::Padded),
    ]
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let unknown = select(&["x", "Did", "actor[]", "__proto__", "\0", "limit ", ""][..]);
    prop_oneof![
        8 => (any::<Index>(), value()).prop_map(|(which, value)| Change::Set(which, value)),
        2 => any::<Index>().prop_map(Change::Leave),
        3 => (any::<Index>(), value()).prop_map(|(which, value)| Change::Repeat(which, value)),
        2 => (unknown, value()).prop_map(|(name, value)| Change::Add(name.to_owned(), value)),
        1 => Just(Change::EscapeNames),
    ]
}

/// Bodies of the procedure, as JSON or not.
pub(super) fn body() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        3 => select(HOSTILE).prop_map(|text| json!(text)),
        1 => any::<Vec<char>>().prop_map(|chars| json!(String::from_iter(chars))),
        1 => select(vec![json!(null), json!(1), json!(true), json!([]), json!({})]),
        1 => select(&LENGTHS[..]).prop_map(|length| json!("a".repeat(length))),
    ];
    let name = select(&["did", "Did", "did ", "dids", ""][..]);
    prop_oneof![
        4 => value.clone().prop_map(|value| json!({"did": value}).to_string()),
        2 => (name, value.clone()).prop_map(|(name, value)| json!({name: value}).to_string()),
        1 => value.prop_map(|value| value.to_string()),
        1 => select(&["", "{", "\0", "{\"did\"", "nul", "{\"did\":\"\\ud800\"}"][..])
            .prop_map(str::to_owned),
        1 => (1..2000_usize).prop_map(|depth| "[".repeat(depth)),
    ]
}
