//! The body of a direct message, `at.didcomm.dm`.
//!
//! A body is written strictly and read leniently: a recipient needs the text alone, so other parts
//! that cannot be used are left out. The sender that a body names is a claim, kept as text;
//! [`attribute`](atcomm_proto::verify::attribution::attribute) decides what the claim is worth.
//!
//! Source: the binding, "Body at.didcomm.dm"; app.bsky.richtext.facet; app.bsky.embed.record.

mod facet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use unicode_segmentation::UnicodeSegmentation as _;

use atcomm_proto::didcomm::message::{Body, FieldError, FieldFault, Message};
use atcomm_proto::syntax::Did;

pub use facet::{
    ByteSlice, Facet, Feature, MAX_FACETS, MAX_MENTIONS, Span, SpanKind, facets, spans,
};

/// Longest text, in bytes (binding).
pub const MAX_TEXT_LEN: usize = 10_000;

/// Longest text, in graphemes (binding).
pub const MAX_TEXT_GRAPHEMES: usize = 1000;

/// Longest claim of an account that is kept, in bytes; no DID is longer.
const MAX_CLAIM: usize = 2048;

/// Longest address of an embedded record, in bytes (lexicon string format `at-uri`).
const MAX_URI: usize = 8192;

/// Longest content hash of an embedded record, in bytes.
const MAX_CID: usize = 256;

/// Errors of a text that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The text has nothing but white space.
    #[error("the text is empty")]
    Empty,
    /// Longer than [`MAX_TEXT_LEN`].
    #[error("the text has {0} bytes, more than {MAX_TEXT_LEN}")]
    Bytes(usize),
    /// Longer than [`MAX_TEXT_GRAPHEMES`].
    #[error("the text has {0} characters, more than {MAX_TEXT_GRAPHEMES}")]
    Graphemes(usize),
}

/// A public record that a message points at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrongRef {
    /// Its `at://` address.
    pub uri: String,
    /// CID of the version that is pointed at.
    pub cid: String,
}

/// The body of a direct message.
#[derive(Debug, Clone, PartialEq)]
pub struct Dm {
    /// The text.
    pub text: String,
    /// The account that the sender claims to be; can be any text.
    pub sender_did: Option<String>,
    /// The account that the sender means; can be any text.
    pub recipient_did: Option<String>,
    /// Links, mentions and tags in the text.
    pub facets: Vec<Facet>,
    /// The public record that the message points at.
    pub embed: Option<StrongRef>,
}

/// Checks whether a text can be sent.
pub fn check_text(text: &str) -> Result<(), TextError> {
    if text.trim().is_empty() {
        return Err(TextError::Empty);
    }
    // The bytes are counted first: they bound the work of counting graphemes.
    if text.len() > MAX_TEXT_LEN {
        return Err(TextError::Bytes(text.len()));
    }
    match text.graphemes(true).count() {
        count if count > MAX_TEXT_GRAPHEMES => Err(TextError::Graphemes(count)),
        _ => Ok(()),
    }
}

impl Dm {
    /// Returns a message from one account to another, without facets.
    pub fn new(text: impl Into<String>, from: &Did, to: &Did) -> Result<Self, TextError> {
        let text = text.into();
        check_text(&text)?;
        Ok(Self {
            text,
            sender_did: Some(from.as_str().to_owned()),
            recipient_did: Some(to.as_str().to_owned()),
            facets: Vec::new(),
            embed: None,
        })
    }

    /// Returns the DIDComm message with this body. `from` and `to` are did:peers, `now` is in
    /// seconds since 1970.
    pub fn message(&self, id: impl Into<String>, from: &str, to: &str, now: i64) -> Message {
        Message::new(id, self).from(from).to(to).created_time(now)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_did: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient_did: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    facets: &'a [Facet],
    #[serde(skip_serializing_if = "Option::is_none")]
    embed: Option<Embed<'a>>,
}

#[derive(Serialize)]
struct Embed<'a> {
    #[serde(rename = "$type")]
    kind: &'static str,
    record: &'a StrongRef,
}

const EMBED_RECORD: &str = "app.bsky.embed.record";

impl Body for Dm {
    const TYPE: &'static str = "https://didcomm.at/dm/1.0/message";
    const PROTOCOL: &'static str = "https://didcomm.at/dm/1.0";

    fn read(body: &RawValue) -> Result<Self, FieldError> {
        // The fields are read as raw JSON first, so that no unused field is built as a value.
        let mut fields: std::collections::BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(body.get()).map_err(|_| wrong("body", FieldFault::NotObject))?;
        let text = fields
            .remove("text")
            .ok_or_else(|| wrong("text", FieldFault::Missing))?;
        let text: String =
            serde_json::from_str(text.get()).map_err(|_| wrong("text", FieldFault::NotText))?;
        match check_text(&text) {
            Ok(()) | Err(TextError::Empty) => {}
            Err(TextError::Bytes(_)) => {
                return Err(wrong("text", FieldFault::TooLong(MAX_TEXT_LEN)));
            }
            Err(error @ TextError::Graphemes(_)) => {
                return Err(wrong("text", FieldFault::Rule(error.to_string().into())));
            }
        }
        let facets = fields.remove("facets").map(|raw| facet::read(&raw, &text));
        let embed = fields.remove("embed");
        Ok(Self {
            sender_did: fields.remove("senderDid").and_then(|raw| claim(&raw)),
            recipient_did: fields.remove("recipientDid").and_then(|raw| claim(&raw)),
            facets: facets.unwrap_or_default(),
            embed: embed.and_then(|raw| read_embed(&raw)),
            text,
        })
    }

    fn write(&self) -> Box<RawValue> {
        let wire = Wire {
            text: &self.text,
            sender_did: self.sender_did.as_deref(),
            recipient_did: self.recipient_did.as_deref(),
            facets: &self.facets,
            embed: self.embed.as_ref().map(|record| Embed {
                kind: EMBED_RECORD,
                record,
            }),
        };
        #[expect(
            clippy::expect_used,
            reason = "structs of strings and numbers are JSON"
        )]
        serde_json::value::to_raw_value(&wire).expect("a body is JSON")
    }
}

fn wrong(field: &str, why: FieldFault) -> FieldError {
    FieldError {
        field: field.to_owned(),
        why,
    }
}

/// Reads a claim as it was sent. A value that is no string is a claim, too, and stays without
/// effect; only `null` is none.
fn claim(raw: &RawValue) -> Option<String> {
    let text = raw.get();
    if text == "null" {
        return None;
    }
    let claimed = serde_json::from_str(text).unwrap_or_else(|_| text.to_owned());
    let end = claimed.floor_char_boundary(MAX_CLAIM);
    Some(claimed.get(..end).unwrap_or_default().to_owned())
}

fn read_embed(raw: &RawValue) -> Option<StrongRef> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(rename = "$type")]
        kind: String,
        record: Value,
    }
    let found: Found = serde_json::from_str(raw.get()).ok()?;
    let record: StrongRef = serde_json::from_value(found.record).ok()?;
    let fits = found.kind == EMBED_RECORD
        && record.uri.starts_with("at://")
        && record.uri.len() <= MAX_URI
        && record.cid.len() <= MAX_CID;
    fits.then_some(record)
}

#[cfg(test)]
mod tests;
