//! Attachments of a message.

use std::borrow::Cow;

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::error::{FieldError, FieldFault, MessageError};
use super::limits::MAX_ID;
use super::object::Object;
use crate::didcomm::i_json;

/// Longest media type, file name, format or description, in bytes.
const MAX_LABEL: usize = 1024;

/// Most links of one attachment.
const MAX_LINKS: usize = 16;

/// Longest link, in bytes.
const MAX_LINK: usize = 2048;

/// An attachment. Its content is decoded only by [`Attachment::bytes`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Attachment {
    /// Id within the message; a mediator gives one that acknowledges the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Description for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Suggested file name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Media type of the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Format in the words of the protocol, more precise than the media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The content.
    pub data: AttachmentData,
}

/// The content of an attachment in its forms, usually one.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AttachmentData {
    /// Bytes in base64 of either alphabet, as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// The text of a JSON value, as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Box<RawValue>>,
    /// Links to the content; they are not fetched here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
}

impl PartialEq for AttachmentData {
    fn eq(&self, other: &Self) -> bool {
        let json = |data: &Self| data.json.as_deref().map(RawValue::get).map(str::to_owned);
        self.base64 == other.base64 && self.links == other.links && json(self) == json(other)
    }
}

impl Attachment {
    /// Makes the attachment that delivers a message, with the id `id`.
    ///
    /// Some clients read only `base64` and others only `json`, so both are written. Bytes that some
    /// reader cannot read as a JSON object are written as `base64` alone: inside the message they
    /// would make the whole of it unreadable.
    pub fn message(id: impl Into<String>, bytes: &[u8]) -> Self {
        let json = i_json::check(bytes)
            .is_ok()
            .then(|| serde_json::from_slice(bytes).ok())
            .flatten();
        Self {
            id: Some(id.into()),
            data: AttachmentData {
                base64: Some(BASE64URL_NOPAD.encode(bytes)),
                json,
                links: Vec::new(),
            },
            ..Self::default()
        }
    }

    /// Makes an attachment of a JSON value, such as an envelope to be forwarded.
    pub fn json(json: Box<RawValue>) -> Self {
        Self {
            data: AttachmentData {
                json: Some(json),
                ..AttachmentData::default()
            },
            ..Self::default()
        }
    }

    /// Returns the bytes of the content: decoded base64, else the text of the JSON value as it was
    /// sent.
    ///
    /// Base64 comes first, since it stays exact even if an intermediary has rewritten the JSON.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>, MessageError> {
        if let Some(text) = &self.data.base64 {
            return decode(text).map(Cow::Owned);
        }
        match (&self.data.json, self.data.links.is_empty()) {
            (Some(json), _) => Ok(Cow::Borrowed(json.get().as_bytes())),
            (None, false) => Err(MessageError::Links),
            (None, true) => Err(MessageError::NoContent),
        }
    }

    pub(super) fn read(mut object: Object<'_>) -> Result<Self, FieldError> {
        let data = object.take_object("data")?;
        let data = object.required("data", data)?;
        let base64 = match data.raw("base64") {
            None => None,
            Some(raw) => Some(
                serde_json::from_str(raw.get())
                    .map_err(|_| data.wrong("base64", FieldFault::NotText))?,
            ),
        };
        Ok(Self {
            id: object.text("id", MAX_ID)?,
            description: object.prose("description", MAX_LABEL)?,
            filename: object.prose("filename", MAX_LABEL)?,
            media_type: object.prose("media_type", MAX_LABEL)?,
            format: object.prose("format", MAX_LABEL)?,
            data: AttachmentData {
                base64,
                json: data.raw("json").map(ToOwned::to_owned),
                links: data
                    .texts("links", MAX_LINKS, MAX_LINK)?
                    .unwrap_or_default(),
            },
        })
    }
}

/// Decodes base64 of either alphabet, with or without padding and line breaks.
fn decode(text: &str) -> Result<Vec<u8>, MessageError> {
    let text = text.trim_ascii().trim_end_matches('=').as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let decoded = if text.iter().all(plain) {
        BASE64URL_NOPAD.decode(text)
    } else {
        let one = |b: &u8| match b {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        };
        let lines = text.iter().filter(|b| !b.is_ascii_whitespace());
        BASE64URL_NOPAD.decode(&lines.map(one).collect::<Vec<u8>>())
    };
    decoded.map_err(|_| MessageError::Base64)
}
