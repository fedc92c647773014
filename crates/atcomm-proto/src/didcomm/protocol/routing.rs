//! routing 2.0: messages for another recipient, wrapped for the mediator that forwards them.
//!
//! Source: DIDComm Messaging v2.1, "Routing Protocol 2.0".

use serde::Serialize;
use serde_json::value::RawValue;

use crate::didcomm::message::{
    Attachment, Body, FieldError, FieldFault, MAX_DID, Message, Object, raw,
};

/// A request to forward the attachments to `next`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forward {
    /// The next recipient: a DID or the id of one of its keys.
    pub next: String,
}

impl Body for Forward {
    const TYPE: &'static str = "https://didcomm.org/routing/2.0/forward";
    const PROTOCOL: &'static str = "https://didcomm.org/routing/2.0";

    fn read(body: &RawValue) -> Result<Self, FieldError> {
        let body = Object::body(body)?;
        Ok(Self {
            next: body.required("next", body.text("next", MAX_DID)?)?,
        })
    }

    fn write(&self) -> Box<RawValue> {
        raw(self)
    }
}

impl Forward {
    /// Makes the message that forwards one envelope to `next`; it must be encrypted to the
    /// forwarding mediator. The envelope is a JSON value, as every encrypted message is.
    pub fn of(id: impl Into<String>, next: impl Into<String>, envelope: Box<RawValue>) -> Message {
        let body = Self { next: next.into() };
        Message::new(id, &body).attachments(vec![Attachment::json(envelope)])
    }
}

/// Checks the attachments of a forward: at least one, and each with its content instead of links.
pub(super) fn check_attachments(message: &Message) -> Result<(), FieldError> {
    if message.attachments.is_empty() {
        return Err(FieldError::new("attachments", FieldFault::Missing));
    }
    for (index, attachment) in message.attachments.iter().enumerate() {
        let data = &attachment.data;
        if data.base64.is_none() && data.json.is_none() {
            let field = format!("attachments[{index}].data");
            let why = "it has to hold json or base64, links are not followed";
            return Err(FieldError::new(field, FieldFault::Rule(why.into())));
        }
    }
    Ok(())
}
