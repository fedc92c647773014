//! routing 2.0: mail for somebody else, wrapped for whoever passes it on.
//!
//! Source: DIDComm Messaging v2.1, "Routing Protocol 2.0".

use serde::Serialize;
use serde_json::value::RawValue;

use crate::didcomm::message::{
    Attachment, Body, FieldError, FieldFault, MAX_DID, Message, Object, raw,
};

/// Pass the attachments on to `next`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forward {
    /// A DID, or the id of one of its keys.
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
    /// The message that takes one envelope to `next`; to be encrypted to whoever passes it on.
    /// The envelope is a JSON value, as every encrypted message is.
    pub fn of(id: impl Into<String>, next: impl Into<String>, envelope: Box<RawValue>) -> Message {
        let body = Self { next: next.into() };
        Message::new(id, &body).attachments(vec![Attachment::json(envelope)])
    }
}

/// Holds every attachment of a forward to having its content with it: one at least, and no links.
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
