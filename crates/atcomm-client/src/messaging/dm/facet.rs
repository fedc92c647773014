//! Links and mentions in a text.
//!
//! Source: app.bsky.richtext.facet: offsets count bytes of UTF-8, and the end is exclusive.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use atcomm_proto::syntax::{Did, Handle};

/// Most facets of one text.
pub const MAX_FACETS: usize = 100;

/// Most handles of one text that are resolved: each costs a request to a host that the text
/// chooses.
pub const MAX_MENTIONS: usize = 10;

/// Most features of one facet that are read.
const MAX_FEATURES: usize = 8;

/// A part of a text with its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facet {
    /// The part.
    pub index: ByteSlice,
    /// The meanings, one at least.
    pub features: Vec<Feature>,
}

/// A part of a text, in bytes of UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByteSlice {
    /// Its first byte.
    pub byte_start: usize,
    /// The first byte after it.
    pub byte_end: usize,
}

/// Meanings of a part of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "$type")]
pub enum Feature {
    /// A link. The part may look like another address.
    #[serde(rename = "app.bsky.richtext.facet#link")]
    Link {
        /// The address.
        uri: String,
    },
    /// A mention of an account.
    #[serde(rename = "app.bsky.richtext.facet#mention")]
    Mention {
        /// The account.
        did: String,
    },
    /// A hashtag.
    #[serde(rename = "app.bsky.richtext.facet#tag")]
    Tag {
        /// The tag, without `#`.
        tag: String,
    },
}

/// A part of a text that looks like a link or a mention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The part.
    pub index: ByteSlice,
    /// What the part looks like.
    pub kind: SpanKind,
}

/// What a part of a text can look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpanKind {
    /// An `https` address.
    Link(String),
    /// A handle after `@`.
    Mention(Handle),
}

/// Finds links and mentions, in the order of the text. Both begin a word, or follow an opening
/// bracket or quotation mark.
pub fn spans(text: &str) -> Vec<Span> {
    let mut found = Vec::new();
    let mut end = 0;
    let mut before = None;
    for (at, c) in text.char_indices() {
        let begins = before.is_none_or(|c: char| c.is_whitespace() || "([{<\"'“‘«".contains(c));
        before = Some(c);
        if at < end || !begins || found.len() == MAX_FACETS {
            continue;
        }
        let rest = text.get(at..).unwrap_or_default();
        let Some((length, kind)) = link(rest).or_else(|| mention(rest)) else {
            continue;
        };
        end = at + length;
        let index = ByteSlice {
            byte_start: at,
            byte_end: end,
        };
        found.push(Span { index, kind });
    }
    found
}

fn link(rest: &str) -> Option<(usize, SpanKind)> {
    if !rest.starts_with("https://") {
        return None;
    }
    let end = rest.find(|c: char| c.is_whitespace() || "<>\"“”«»".contains(c));
    let mut uri = rest.get(..end.unwrap_or(rest.len()))?;
    loop {
        // Punctuation of the sentence, and the bracket that was opened before the address, are no
        // part of it.
        let last = uri.chars().next_back()?;
        let closes = |open, close| last == close && count(uri, close) > count(uri, open);
        if ".,;:!?'’".contains(last) || closes('(', ')') || closes('[', ']') || closes('{', '}') {
            uri = uri.get(..uri.len() - last.len_utf8())?;
        } else {
            break;
        }
    }
    let url = Url::parse(uri).ok()?;
    url.host_str()?;
    Some((uri.len(), SpanKind::Link(uri.to_owned())))
}

fn count(text: &str, wanted: char) -> usize {
    text.chars().filter(|c| *c == wanted).count()
}

fn mention(rest: &str) -> Option<(usize, SpanKind)> {
    let name = rest.strip_prefix('@')?;
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-');
    let name = name
        .get(..end.unwrap_or(name.len()))?
        .trim_end_matches(['.', '-']);
    let handle = Handle::parse(name).ok()?;
    Some((1 + name.len(), SpanKind::Mention(handle)))
}

/// Returns the facets of what was found. A mention whose handle leads to no account stays plain
/// text.
pub fn facets(spans: &[Span], account: impl Fn(&Handle) -> Option<Did>) -> Vec<Facet> {
    let facet = |span: &Span| {
        let feature = match &span.kind {
            SpanKind::Link(uri) => Feature::Link { uri: uri.clone() },
            SpanKind::Mention(handle) => Feature::Mention {
                did: account(handle)?.as_str().to_owned(),
            },
        };
        Some(Facet {
            index: span.index,
            features: vec![feature],
        })
    };
    spans.iter().filter_map(facet).collect()
}

/// Reads the facets that can be used: those on character boundaries with known features.
pub(super) fn read(raw: &RawValue, text: &str) -> Vec<Facet> {
    #[derive(Deserialize)]
    struct Found {
        index: ByteSlice,
        features: Vec<Value>,
    }
    let Ok(list) = serde_json::from_str::<Vec<Box<RawValue>>>(raw.get()) else {
        return Vec::new();
    };
    let read = |raw: &RawValue| {
        let found: Found = serde_json::from_str(raw.get()).ok()?;
        let ByteSlice {
            byte_start,
            byte_end,
        } = found.index;
        text.get(byte_start..byte_end).filter(|s| !s.is_empty())?;
        let features: Vec<Feature> = found
            .features
            .into_iter()
            .take(MAX_FEATURES)
            .filter_map(|one| serde_json::from_value(one).ok())
            .collect();
        (!features.is_empty()).then_some(Facet {
            index: found.index,
            features,
        })
    };
    let list = list.iter().take(MAX_FACETS);
    list.filter_map(|raw| read(raw)).collect()
}
