//! Plaintext messages: headers, body, attachments.
//!
//! A message comes out of an envelope, so the transport bounds its bytes. Reading returns a value
//! or an error that names the header. Bodies and attachments stay the text that was sent until a
//! protocol reads them.
//!
//! Source: DIDComm Messaging v2.1, "Plaintext Message Structure", "Attachments", "Transports".

mod attachment;
mod error;
mod headers;
mod limits;
mod object;
mod type_uri;

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::value::RawValue;

pub use self::attachment::{Attachment, AttachmentData};
pub use self::error::{BodyError, FieldError, FieldFault, MessageError};
pub use self::limits::{MAX_ACK, MAX_ATTACHMENTS, MAX_DID, MAX_ID, MAX_TO, MAX_TYPE};
pub(in crate::didcomm) use self::object::Object;
pub(in crate::didcomm) use self::type_uri::DOC;
pub use self::type_uri::{TypeUri, TypeUriError};

/// Media type of a plaintext message, the value of the header `typ`.
pub const MEDIA_TYPE: &str = "application/didcomm-plain+json";

/// The body of a message type with only one version.
pub trait Body: Sized {
    /// Message type in full, such as `https://didcomm.org/trust-ping/2.0/ping`.
    const TYPE: &'static str;

    /// The protocol as it is disclosed: the type without the message's name.
    const PROTOCOL: &'static str;

    /// Reads the text of a body. Unknown fields are skipped.
    fn read(body: &RawValue) -> Result<Self, FieldError>;

    /// Returns the text of the body.
    fn write(&self) -> Box<RawValue>;
}

/// The messages that a sender wants to receive on the connection that it opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReturnRoute {
    /// No message; unknown values are read as this one.
    None,
    /// Every message for the sender.
    All,
    /// Messages of the same thread.
    Thread,
}

/// A plaintext message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Message id, unique to the sender.
    pub id: String,
    /// The header `type`; [`TypeUri`] splits it.
    pub kind: String,
    /// The sender as the message states it; the envelope proves or refutes it.
    pub from: Option<String>,
    /// The recipients.
    pub to: Vec<String>,
    /// Id of the thread that the message continues; [`Message::thread`] if it begins one.
    pub thid: Option<String>,
    /// Id of the parent thread.
    pub pthid: Option<String>,
    /// Creation time, in seconds since 1970.
    pub created_time: Option<i64>,
    /// Expiry time, in seconds since 1970.
    pub expires_time: Option<i64>,
    /// The messages that may return on the same connection.
    pub return_route: Option<ReturnRoute>,
    /// Delay of a forward in milliseconds; a negative value asks for a random delay up to that
    /// amount.
    pub delay_milli: Option<i64>,
    /// Our own header `atcomm_relayed`, on a forward that a mediator has wrapped anew. Such a
    /// message is delivered where it arrives, and is not relayed again if another directory names
    /// another mediator.
    pub relayed: bool,
    /// Ids of the messages that this one acknowledges, oldest first.
    pub ack: Vec<String>,
    /// The text of the body, an object; `{}` if it was left out.
    pub body: Box<RawValue>,
    /// The attachments.
    pub attachments: Vec<Attachment>,
}

impl PartialEq for Message {
    /// Compares the written forms, so bodies are compared as text.
    fn eq(&self, other: &Self) -> bool {
        let json = |message: &Self| message.to_vec();
        json(self) == json(other)
    }
}

/// A message as it is written, in an order that people can read.
#[derive(Serialize)]
struct MessageJson<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    to: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    thid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pthid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_route: Option<ReturnRoute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_milli: Option<i64>,
    #[serde(rename = "atcomm_relayed", skip_serializing_if = "Option::is_none")]
    relayed: Option<bool>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ack: &'a [String],
    body: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments: Option<&'a [Attachment]>,
}

impl Message {
    /// Makes a message with a body and no header but its type.
    pub fn new<B: Body>(id: impl Into<String>, body: &B) -> Self {
        Self::with_body(id, B::TYPE, body.write())
    }

    pub(in crate::didcomm) fn with_body(
        id: impl Into<String>,
        kind: &str,
        body: Box<RawValue>,
    ) -> Self {
        Self {
            id: id.into(),
            kind: kind.to_owned(),
            from: None,
            to: Vec::new(),
            thid: None,
            pthid: None,
            created_time: None,
            expires_time: None,
            return_route: None,
            delay_milli: None,
            relayed: false,
            ack: Vec::new(),
            body,
            attachments: Vec::new(),
        }
    }

    /// Reads a message. Unknown headers are skipped.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let text = std::str::from_utf8(bytes).map_err(|_| MessageError::NotJson)?;
        Self::read(headers::read(text)?)
    }

    fn read(mut headers: Object<'_>) -> Result<Self, MessageError> {
        if let Some(typ) = headers.prose("typ", MAX_TYPE)? {
            check_media_type(&typ)?;
        }
        let body = match headers.raw("body") {
            None => empty_object(),
            Some(raw) if raw.get().starts_with('{') => raw.to_owned(),
            Some(_) => return Err(headers.wrong("body", FieldFault::NotObject).into()),
        };
        let attachments = match headers.take_objects("attachments", MAX_ATTACHMENTS)? {
            None => Vec::new(),
            Some(list) => list
                .into_iter()
                .map(Attachment::read)
                .collect::<Result<_, _>>()?,
        };
        let return_route = headers.prose("return_route", MAX_TYPE)?;
        Ok(Self {
            id: headers.required("id", headers.text("id", MAX_ID)?)?,
            kind: headers.required("type", headers.text("type", MAX_TYPE)?)?,
            from: headers.text("from", MAX_DID)?,
            to: headers
                .one_or_more("to", MAX_TO, MAX_DID)?
                .unwrap_or_default(),
            thid: headers.text("thid", MAX_ID)?,
            pthid: headers.text("pthid", MAX_ID)?,
            created_time: headers.integer("created_time")?,
            expires_time: headers.integer("expires_time")?,
            return_route: return_route.map(|word| match word.as_str() {
                "all" => ReturnRoute::All,
                "thread" => ReturnRoute::Thread,
                _ => ReturnRoute::None,
            }),
            delay_milli: headers.integer("delay_milli")?,
            relayed: headers
                .flag("atcomm_relayed")
                .is_ok_and(|flag| flag == Some(true)),
            ack: headers
                .one_or_more("ack", MAX_ACK, MAX_ID)?
                .unwrap_or_default(),
            body,
            attachments,
        })
    }

    /// Returns the bytes of the message, to be encrypted or signed.
    pub fn to_vec(&self) -> Vec<u8> {
        // An empty list of attachments in a delivery says that the queue is empty (message-pickup
        // 4.0); other messages leave the list out.
        let attachments = !self.attachments.is_empty() || self.kind.ends_with("/delivery");
        let json = MessageJson {
            id: &self.id,
            kind: &self.kind,
            typ: MEDIA_TYPE,
            from: self.from.as_deref(),
            to: &self.to,
            thid: self.thid.as_deref(),
            pthid: self.pthid.as_deref(),
            created_time: self.created_time,
            expires_time: self.expires_time,
            return_route: self.return_route,
            delay_milli: self.delay_milli,
            relayed: self.relayed.then_some(true),
            ack: &self.ack,
            body: &self.body,
            attachments: attachments.then_some(&self.attachments),
        };
        String::from(Box::<str>::from(raw(&json))).into_bytes()
    }

    /// Returns the thread that this message belongs to: its `thid`, or its own id if it begins a
    /// thread.
    pub fn thread(&self) -> &str {
        self.thid.as_deref().unwrap_or(&self.id)
    }

    /// Reads the body as that of one message type. A newer minor version is read as the known one.
    pub fn body_of<B: Body>(&self) -> Result<B, BodyError> {
        let known = TypeUri::parse(B::TYPE).map_err(|_| BodyError::Type(B::TYPE))?;
        match TypeUri::parse(&self.kind) {
            Ok(kind) if kind.reads_as(&known) => Ok(B::read(&self.body)?),
            _ => Err(BodyError::Type(B::TYPE)),
        }
    }

    /// Sets the sender.
    #[must_use]
    pub fn from(mut self, did: impl Into<String>) -> Self {
        self.from = Some(did.into());
        self
    }

    /// Adds a recipient.
    #[must_use]
    pub fn to(mut self, did: impl Into<String>) -> Self {
        self.to.push(did.into());
        self
    }

    /// Sets the thread that the message continues.
    #[must_use]
    pub fn thid(mut self, thread: impl Into<String>) -> Self {
        self.thid = Some(thread.into());
        self
    }

    /// Sets the parent thread.
    #[must_use]
    pub fn pthid(mut self, thread: impl Into<String>) -> Self {
        self.pthid = Some(thread.into());
        self
    }

    /// Sets the creation time, in seconds since 1970.
    #[must_use]
    pub fn created_time(mut self, seconds: i64) -> Self {
        self.created_time = Some(seconds);
        self
    }

    /// Sets the expiry time, in seconds since 1970.
    #[must_use]
    pub fn expires_time(mut self, seconds: i64) -> Self {
        self.expires_time = Some(seconds);
        self
    }

    /// Sets the messages that may return on the same connection.
    #[must_use]
    pub fn return_route(mut self, route: ReturnRoute) -> Self {
        self.return_route = Some(route);
        self
    }

    /// Adds the id of a message that this one acknowledges.
    #[must_use]
    pub fn ack(mut self, id: impl Into<String>) -> Self {
        self.ack.push(id.into());
        self
    }

    /// Sets the attachments.
    #[must_use]
    pub fn attachments(mut self, attachments: Vec<Attachment>) -> Self {
        self.attachments = attachments;
        self
    }
}

fn check_media_type(typ: &str) -> Result<(), MessageError> {
    // The prefix may be left out (DIDComm v2.1, "IANA Media Types").
    let known = [MEDIA_TYPE, "didcomm-plain+json"];
    if known.iter().any(|name| typ.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    Err(MessageError::MediaType)
}

/// Returns a new message id: 128 bits from the system's random numbers, as 32 characters.
#[expect(
    clippy::expect_used,
    reason = "a system without random numbers makes neither keys nor envelopes, so no message either"
)]
pub fn fresh_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    HEXLOWER.encode(&bytes)
}

/// Returns the JSON of one of our own values.
#[expect(
    clippy::expect_used,
    reason = "only maps whose keys are no strings fail, and none is written here"
)]
pub(in crate::didcomm) fn raw<T: Serialize>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("structs of strings and numbers are JSON")
}

fn empty_object() -> Box<RawValue> {
    raw(&serde_json::Map::new())
}

#[cfg(test)]
mod tests;
