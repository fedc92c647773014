//! trust-ping 2.0: checks that the other end answers and understands the message.
//!
//! Source: DIDComm Messaging v2.1, "Trust Ping Protocol 2.0".

use serde::Serialize;
use serde_json::value::RawValue;

use crate::didcomm::message::{Body, FieldError, Object, raw};

/// A ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ping {
    /// Whether a response is wanted; true if the field is left out.
    pub response_requested: bool,
}

impl Default for Ping {
    fn default() -> Self {
        Self {
            response_requested: true,
        }
    }
}

impl Body for Ping {
    const TYPE: &'static str = "https://didcomm.org/trust-ping/2.0/ping";
    const PROTOCOL: &'static str = "https://didcomm.org/trust-ping/2.0";

    fn read(body: &RawValue) -> Result<Self, FieldError> {
        let body = Object::body(body)?;
        Ok(Self {
            response_requested: body.flag("response_requested")?.unwrap_or(true),
        })
    }

    fn write(&self) -> Box<RawValue> {
        raw(self)
    }
}

/// The response; its `thid` names the ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingResponse;

impl Body for PingResponse {
    const TYPE: &'static str = "https://didcomm.org/trust-ping/2.0/ping-response";
    const PROTOCOL: &'static str = Ping::PROTOCOL;

    fn read(_: &RawValue) -> Result<Self, FieldError> {
        Ok(Self)
    }

    fn write(&self) -> Box<RawValue> {
        raw(&serde_json::Map::new())
    }
}
