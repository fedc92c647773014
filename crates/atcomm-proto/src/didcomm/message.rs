//! Plaintext messages: headers, body, attachments.
//!
//! A message arrives from inside an envelope, so its bytes are bounded by the transport; whatever
//! they say, reading ends in a value or in an error that names the header. Bodies and attachments
//! stay the text that was sent until a protocol asks for them.
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

/// Media type of a plaintext message, the header `typ`.
pub const MEDIA_TYPE: &str = "application/didcomm-plain+json";

/// The body of a message type that has one version only.
pub trait Body: Sized {
    /// Its type in full, `https://didcomm.org/trust-ping/2.0/ping`.
    const TYPE: &'static str;

    /// The protocol that it belongs to, as it is disclosed: the type without the message's name.
    const PROTOCOL: &'static str;

    /// Reads the body's text. Fields that are not known are passed over.
    fn read(body: &RawValue) -> Result<Self, FieldError>;

    /// The body's text.
    fn write(&self) -> Box<RawValue>;
}

/// What a sender wants to come back on the connection that it opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReturnRoute {
    /// Nothing; also what a word that is not known means.
    None,
    /// Every message for the sender.
    All,
    /// Messages of the same thread.
    Thread,
}

/// A plaintext message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Unique to its sender.
    pub id: String,
    /// The header `type`; [`TypeUri`] splits it.
    pub kind: String,
    /// Who says that it sent it: the envelope proves it or not.
    pub from: Option<String>,
    /// Whom it is for.
    pub to: Vec<String>,
    /// The thread that it goes on with; [`Message::thread`] where it begins one.
    pub thid: Option<String>,
    /// The thread that its own came out of.
    pub pthid: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created_time: Option<i64>,
    /// When it loses its meaning, in seconds since 1970.
    pub expires_time: Option<i64>,
    /// What may come back on the same connection.
    pub return_route: Option<ReturnRoute>,
    /// How long to hold it up, in milliseconds; below zero a random time up to the amount.
    pub delay_milli: Option<i64>,
    /// A header of ours, `atcomm_relayed`, on a forward that a mediator has made anew: it is to be
    /// delivered where it arrives, and not passed on by what another directory says.
    pub relayed: bool,
    /// Messages that it acknowledges, oldest first.
    pub ack: Vec<String>,
    /// The body's text, an object; `{}` where it was left out.
    pub body: Box<RawValue>,
    /// What it carries besides.
    pub attachments: Vec<Attachment>,
}

impl PartialEq for Message {
    /// Equal when all is equal as it was written: bodies are compared as texts.
    fn eq(&self, other: &Self) -> bool {
        let json = |message: &Self| message.to_vec();
        json(self) == json(other)
    }
}

/// The message on its way out, in the order that people read.
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
    /// A message with a body and no more headers than its type.
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

    /// Reads a message. Headers that are not known are passed over.
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

    /// The message's bytes, to be put into an envelope.
    pub fn to_vec(&self) -> Vec<u8> {
        // A delivery says by an empty list that nothing waits (message-pickup 4.0); elsewhere the
        // list is left out.
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

    /// The thread that this message belongs to: its `thid`, or its own id where it begins one.
    pub fn thread(&self) -> &str {
        self.thid.as_deref().unwrap_or(&self.id)
    }

    /// The body as that of one message type; a newer minor version is read as the one known.
    pub fn body_of<B: Body>(&self) -> Result<B, BodyError> {
        let known = TypeUri::parse(B::TYPE).map_err(|_| BodyError::Type(B::TYPE))?;
        match TypeUri::parse(&self.kind) {
            Ok(kind) if kind.reads_as(&known) => Ok(B::read(&self.body)?),
            _ => Err(BodyError::Type(B::TYPE)),
        }
    }

    /// Sets who sends it.
    #[must_use]
    pub fn from(mut self, did: impl Into<String>) -> Self {
        self.from = Some(did.into());
        self
    }

    /// Adds one whom it is for.
    #[must_use]
    pub fn to(mut self, did: impl Into<String>) -> Self {
        self.to.push(did.into());
        self
    }

    /// Sets the thread that it goes on with.
    #[must_use]
    pub fn thid(mut self, thread: impl Into<String>) -> Self {
        self.thid = Some(thread.into());
        self
    }

    /// Sets the thread that its own comes out of.
    #[must_use]
    pub fn pthid(mut self, thread: impl Into<String>) -> Self {
        self.pthid = Some(thread.into());
        self
    }

    /// Sets when it was made, in seconds since 1970.
    #[must_use]
    pub fn created_time(mut self, seconds: i64) -> Self {
        self.created_time = Some(seconds);
        self
    }

    /// Sets when it loses its meaning, in seconds since 1970.
    #[must_use]
    pub fn expires_time(mut self, seconds: i64) -> Self {
        self.expires_time = Some(seconds);
        self
    }

    /// Sets what may come back on the same connection.
    #[must_use]
    pub fn return_route(mut self, route: ReturnRoute) -> Self {
        self.return_route = Some(route);
        self
    }

    /// Adds a message that it acknowledges.
    #[must_use]
    pub fn ack(mut self, id: impl Into<String>) -> Self {
        self.ack.push(id.into());
        self
    }

    /// Sets what it carries besides its body.
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

/// JSON of a value of ours.
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
