//! out-of-band 2.0: the invitation, and its form as a link or QR code.
//!
//! Source: DIDComm Messaging v2.1, "Out Of Band Messages".

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use serde_json::value::RawValue;
use url::Url;

use crate::didcomm::message::{Body, BodyError, FieldError, Message, MessageError, Object, raw};

/// The goal code of a mediator's invitation.
pub const REQUEST_MEDIATE: &str = "request-mediate";

/// The query parameter that holds an invitation.
pub const PARAMETER: &str = "_oob";

/// Longest accepted `_oob`, in bytes: a QR code holds under 3000, a link may carry a long DID.
pub const MAX_PARAMETER: usize = 64 * 1024;

/// Longest goal, in bytes.
const MAX_GOAL: usize = 1024;

/// Most message profiles accepted.
const MAX_ACCEPT: usize = 16;

/// Errors of reading an invitation from a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// The text is not a URL.
    #[error("the text is not a URL")]
    Url,
    /// The URL has no parameter `_oob`.
    #[error("the URL has no parameter `_oob`")]
    NoParameter,
    /// The parameter is longer than [`MAX_PARAMETER`].
    #[error("the parameter `_oob` is longer than 65536 bytes")]
    TooLong,
    /// The parameter is not base64url.
    #[error("the parameter `_oob` is not base64url")]
    Base64,
    /// The parameter is not a message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The parameter is another message, or its body is invalid.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The invitation has no header `from`, to which the answer would be sent.
    #[error("the invitation names no sender")]
    NoSender,
}

/// The start of a conversation with the message's `from`; an answer names the invitation's id as
/// `pthid`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Invitation {
    /// Goal for machines, such as [`REQUEST_MEDIATE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal_code: Option<String>,
    /// Goal for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<String>,
    /// Accepted message profiles such as `didcomm/v2`, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<String>,
}

impl Body for Invitation {
    const TYPE: &'static str = "https://didcomm.org/out-of-band/2.0/invitation";
    const PROTOCOL: &'static str = "https://didcomm.org/out-of-band/2.0";

    fn read(body: &RawValue) -> Result<Self, FieldError> {
        let body = Object::body(body)?;
        let accept = body.texts("accept", MAX_ACCEPT, MAX_GOAL)?;
        Ok(Self {
            goal_code: body.prose("goal_code", MAX_GOAL)?,
            goal: body.prose("goal", MAX_GOAL)?,
            accept: accept.unwrap_or_default(),
        })
    }

    fn write(&self) -> Box<RawValue> {
        raw(self)
    }
}

/// Returns `base` with the invitation as its parameter `_oob`.
pub fn to_url(base: &Url, invitation: &Message) -> Url {
    let mut url = base.clone();
    let text = BASE64URL_NOPAD.encode(&invitation.to_vec());
    url.query_pairs_mut().append_pair(PARAMETER, &text);
    url
}

/// Reads the invitation in a link; returns the message and its body.
pub fn from_url(text: &str) -> Result<(Message, Invitation), InvitationError> {
    let url = Url::parse(text).map_err(|_| InvitationError::Url)?;
    let found = url.query_pairs().find(|(name, _)| name == PARAMETER);
    let (_, text) = found.ok_or(InvitationError::NoParameter)?;
    read_parameter(&text)
}

/// Reads the invitation in the parameter `_oob`, with or without padding.
pub fn read_parameter(text: &str) -> Result<(Message, Invitation), InvitationError> {
    if text.len() > MAX_PARAMETER {
        return Err(InvitationError::TooLong);
    }
    let bytes = BASE64URL_NOPAD
        .decode(text.trim_end_matches('=').as_bytes())
        .map_err(|_| InvitationError::Base64)?;
    let message = Message::parse(&bytes)?;
    let invitation = message.body_of()?;
    if message.from.is_none() {
        return Err(InvitationError::NoSender);
    }
    Ok((message, invitation))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::didcomm::protocol::empty::Empty;

    use super::*;

    #[test]
    fn invitations_in_links() {
        let body = Invitation {
            goal_code: Some(REQUEST_MEDIATE.to_owned()),
            goal: Some("Request mediation".to_owned()),
            accept: vec!["didcomm/v2".to_owned()],
        };
        let invitation = Message::new("1", &body).from("did:web:mediator.example");
        let base = Url::parse("https://mediator.example/invitation?lang=en").unwrap();
        let url = to_url(&base, &invitation);
        let text = url.as_str();
        assert!(text.starts_with("https://mediator.example/invitation?lang=en&_oob=ey"));
        assert!(!text.contains(['%', '+']) && !text.ends_with('='));
        let expected = Ok((invitation.clone(), body));
        assert_eq!(from_url(text), expected);
        let (_, parameter) = text.split_once("_oob=").unwrap();
        let padding = "=".repeat((4 - parameter.len() % 4) % 4);
        assert_eq!(read_parameter(&format!("{parameter}{padding}")), expected);

        let link = |message: &Message| to_url(&base, message).to_string();
        let refusal = |text: &str| from_url(text).unwrap_err();
        assert_eq!(refusal("invitation"), InvitationError::Url);
        assert_eq!(refusal(base.as_str()), InvitationError::NoParameter);
        assert_eq!(
            refusal("https://a.example/?_oob=%2F%2F"),
            InvitationError::Base64
        );
        let message = InvitationError::Message(MessageError::NotJson);
        assert_eq!(refusal("https://a.example/?_oob="), message);
        let long = format!("https://a.example/?_oob={}", "A".repeat(65_537));
        assert_eq!(refusal(&long), InvitationError::TooLong);
        let other = InvitationError::Body(BodyError::Type(Invitation::TYPE));
        assert_eq!(refusal(&link(&Message::new("1", &Empty))), other);
        let without_sender = Message {
            from: None,
            ..invitation
        };
        assert_eq!(refusal(&link(&without_sender)), InvitationError::NoSender);
    }

    proptest! {
        #[test]
        fn inv8_no_link_makes_it_panic(text in "(https://a\\.example/\\?_oob=)?[A-Za-z0-9%=&_-]{0,60}") {
            let _ = from_url(&text);
        }
    }
}
