//! messagepickup 3.0 and message-pickup 4.0: fetching queued messages.
//!
//! In both versions a message leaves the queue only when it is acknowledged. The versions differ in
//! their name, in the name of a delivery's limit, in the unit of times, and in the answer of an
//! empty queue to a delivery request: 3.0 answers its status, 4.0 an empty delivery.

use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::didcomm::message::{
    Attachment, DOC, FieldError, MAX_DID, MAX_ID, Message, Object, TypeUri, raw,
};

/// Most messages acknowledged at once: as many as the largest delivery may hold.
pub const MAX_RECEIVED: usize = 1000;

/// The version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// messagepickup 3.0.
    V3,
    /// message-pickup 4.0.
    V4,
}

impl Version {
    /// Returns the protocol as it is disclosed.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::V3 => "https://didcomm.org/messagepickup/3.0",
            Self::V4 => "https://didcomm.org/message-pickup/4.0",
        }
    }

    /// Returns the version of a message type; `None` if it is of another protocol.
    pub fn of(kind: &TypeUri<'_>) -> Option<Self> {
        match (kind.doc, kind.protocol, kind.major) {
            (DOC, "messagepickup", 3) => Some(Self::V3),
            (DOC, "message-pickup", 4) => Some(Self::V4),
            _ => None,
        }
    }

    /// Returns the name of the field with the limit of a delivery request.
    const fn limit(self) -> &'static str {
        match self {
            Self::V3 => "limit",
            Self::V4 => "message_count_limit",
        }
    }

    /// Returns a time in the unit of this version; 3.0 drops the milliseconds.
    const fn time(self, time: Timestamp) -> i64 {
        match self {
            Self::V3 => time.millis().div_euclid(1000),
            Self::V4 => time.millis(),
        }
    }

    fn timestamp(self, number: i64) -> Timestamp {
        Timestamp::from_millis(match self {
            Self::V3 => number.saturating_mul(1000),
            Self::V4 => number,
        })
    }

    fn message<T: Serialize>(self, name: &str, id: impl Into<String>, body: &T) -> Message {
        Message::with_body(id, &format!("{}/{name}", self.protocol()), raw(body))
    }
}

/// The requests of a recipient to its mediator. `recipient_did` limits a request to the messages
/// for one DID; without it the request is about all messages of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `status-request`.
    Status {
        /// The DID whose messages are meant.
        recipient_did: Option<String>,
    },
    /// `delivery-request`.
    Delivery {
        /// Most messages to deliver.
        limit: u64,
        /// The DID whose messages are meant.
        recipient_did: Option<String>,
    },
    /// `messages-received`: acknowledges messages by the ids of their attachments.
    Received(Vec<String>),
    /// `live-delivery-change`: whether new messages are pushed on this connection.
    Live(bool),
}

/// The replies of a mediator.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// `status`.
    Status(Status),
    /// `delivery`: queued messages as attachments, also those pushed by live delivery.
    Delivery {
        /// The DID whose messages are meant, if the request named one.
        recipient_did: Option<String>,
        /// The messages; the id of each acknowledges it.
        messages: Vec<Attachment>,
    },
}

/// The status of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Number of queued messages.
    pub message_count: u64,
    /// The DID whose messages are meant, if the request named one.
    pub recipient_did: Option<String>,
    /// Time that the oldest message has been queued; written by 3.0 only, in whole seconds.
    pub longest_waited: Option<Duration>,
    /// Arrival of the newest message.
    pub newest_received: Option<Timestamp>,
    /// Arrival of the oldest message.
    pub oldest_received: Option<Timestamp>,
    /// Size of all queued messages, in bytes.
    pub total_bytes: Option<u64>,
    /// Whether new messages are pushed on this connection.
    pub live_delivery: bool,
}

impl Request {
    /// Reads a request of either version; `None` if the message is of another type.
    pub fn of(message: &Message) -> Result<Option<(Version, Self)>, FieldError> {
        let Some((version, name)) = split(message) else {
            return Ok(None);
        };
        let body = Object::body(&message.body)?;
        let request = match name {
            "status-request" => Self::Status {
                recipient_did: body.text("recipient_did", MAX_DID)?,
            },
            "delivery-request" => Self::Delivery {
                limit: body.required(version.limit(), body.count(version.limit())?)?,
                recipient_did: body.text("recipient_did", MAX_DID)?,
            },
            "messages-received" => {
                let list = body.texts("message_id_list", MAX_RECEIVED, MAX_ID)?;
                Self::Received(body.required("message_id_list", list)?)
            }
            "live-delivery-change" => {
                let live = body.flag("live_delivery")?;
                Self::Live(body.required("live_delivery", live)?)
            }
            _ => return Ok(None),
        };
        Ok(Some((version, request)))
    }

    /// Returns the request as a message.
    pub fn write(&self, version: Version, id: impl Into<String>) -> Message {
        #[derive(Serialize)]
        struct Status<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            recipient_did: Option<&'a str>,
        }
        #[derive(Serialize)]
        struct Delivery<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            limit: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            message_count_limit: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            recipient_did: Option<&'a str>,
        }
        #[derive(Serialize)]
        struct Received<'a> {
            message_id_list: &'a [String],
        }
        #[derive(Serialize)]
        struct Live {
            live_delivery: bool,
        }
        match self {
            Self::Status { recipient_did } => {
                let recipient_did = recipient_did.as_deref();
                version.message("status-request", id, &Status { recipient_did })
            }
            Self::Delivery {
                limit,
                recipient_did,
            } => {
                let body = Delivery {
                    limit: (version == Version::V3).then_some(*limit),
                    message_count_limit: (version == Version::V4).then_some(*limit),
                    recipient_did: recipient_did.as_deref(),
                };
                version.message("delivery-request", id, &body)
            }
            Self::Received(message_id_list) => {
                version.message("messages-received", id, &Received { message_id_list })
            }
            Self::Live(live) => {
                let live_delivery = *live;
                version.message("live-delivery-change", id, &Live { live_delivery })
            }
        }
    }
}

impl Reply {
    /// Reads a reply of either version; `None` if the message is of another type.
    pub fn of(message: &Message) -> Result<Option<(Version, Self)>, FieldError> {
        let Some((version, name)) = split(message) else {
            return Ok(None);
        };
        let body = Object::body(&message.body)?;
        let reply = match name {
            "status" => Self::Status(Status::read(version, &body)?),
            "delivery" => Self::Delivery {
                recipient_did: body.text("recipient_did", MAX_DID)?,
                messages: message.attachments.clone(),
            },
            _ => return Ok(None),
        };
        Ok(Some((version, reply)))
    }

    /// Returns the reply as a message; the caller sets its thread.
    pub fn write(self, version: Version, id: impl Into<String>) -> Message {
        #[derive(Serialize)]
        struct Delivery<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            recipient_did: Option<&'a str>,
        }
        match self {
            Self::Status(status) => status.write(version, id),
            Self::Delivery {
                recipient_did,
                messages,
            } => {
                let recipient_did = recipient_did.as_deref();
                version
                    .message("delivery", id, &Delivery { recipient_did })
                    .attachments(messages)
            }
        }
    }
}

impl Status {
    fn read(version: Version, body: &Object<'_>) -> Result<Self, FieldError> {
        let time = |name| Ok(body.integer(name)?.map(|number| version.timestamp(number)));
        let waited = match version {
            Version::V3 => body.count("longest_waited_seconds")?,
            Version::V4 => None,
        };
        Ok(Self {
            message_count: body.required("message_count", body.count("message_count")?)?,
            recipient_did: body.text("recipient_did", MAX_DID)?,
            longest_waited: waited.map(Duration::from_secs),
            newest_received: time("newest_received_time")?,
            oldest_received: time("oldest_received_time")?,
            total_bytes: body.count("total_bytes")?,
            live_delivery: body.flag("live_delivery")?.unwrap_or(false),
        })
    }

    fn write(&self, version: Version, id: impl Into<String>) -> Message {
        #[derive(Serialize)]
        struct StatusJson<'a> {
            message_count: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            recipient_did: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            longest_waited_seconds: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            newest_received_time: Option<i64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            oldest_received_time: Option<i64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            total_bytes: Option<u64>,
            live_delivery: bool,
        }
        let waited = self.longest_waited.filter(|_| version == Version::V3);
        let body = StatusJson {
            message_count: self.message_count,
            recipient_did: self.recipient_did.as_deref(),
            longest_waited_seconds: waited.map(|waited| waited.as_secs()),
            newest_received_time: self.newest_received.map(|time| version.time(time)),
            oldest_received_time: self.oldest_received.map(|time| version.time(time)),
            total_bytes: self.total_bytes,
            live_delivery: self.live_delivery,
        };
        version.message("status", id, &body)
    }
}

fn split(message: &Message) -> Option<(Version, &str)> {
    let kind = TypeUri::parse(&message.kind).ok()?;
    Some((Version::of(&kind)?, kind.name))
}
