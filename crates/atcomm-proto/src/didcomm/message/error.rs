//! Errors of reading messages.

use std::borrow::Cow;

/// Why bytes are no message, or an attachment gives no bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not a JSON object in UTF-8.
    #[error("the message is not a JSON object")]
    NotJson,
    /// More headers than any message has.
    #[error("the message has more than {0} headers")]
    TooManyHeaders(usize),
    /// `typ` names another format than the plaintext of DIDComm v2.
    #[error("the header `typ` names another media type than application/didcomm-plain+json")]
    MediaType,
    /// A header, or a field of an attachment.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// An attachment says only where its content lies: nothing is fetched here.
    #[error("the attachment has links where its content is needed")]
    Links,
    /// An attachment without content.
    #[error("the attachment has neither json nor base64")]
    NoContent,
    /// An attachment in broken base64.
    #[error("the attachment is not base64")]
    Base64,
}

/// Why a message does not give the body that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is of another type.
    #[error("the message is of another type than {0}")]
    Type(&'static str),
    /// A field of its body.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    /// It has to be there.
    #[error("is missing")]
    Missing,
    /// Two fields of one name: two readers could see two messages.
    #[error("stands there twice")]
    Twice,
    /// Another type than a string.
    #[error("is not a string")]
    NotText,
    /// An empty string or list where that says nothing.
    #[error("is empty")]
    Empty,
    /// A string longer than this many bytes.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// Not a whole number.
    #[error("is not a whole number")]
    NotInteger,
    /// A number below zero that counts something.
    #[error("is below zero")]
    Negative,
    /// Neither true nor false.
    #[error("is neither true nor false")]
    NotFlag,
    /// Another type than an array.
    #[error("is not an array")]
    NotList,
    /// A list or object of more than this many entries.
    #[error("has more than {0} entries")]
    TooMany(usize),
    /// Another type than an object.
    #[error("is not an object")]
    NotObject,
    /// A string outside the vocabulary, which is named.
    #[error("is not one of {0}")]
    Word(&'static str),
    /// It breaks another rule, which is named.
    #[error("is unusable: {0}")]
    Rule(Cow<'static, str>),
}

/// A field that cannot be used, as a sentence: "the field `updates[3].action` is missing".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field `{field}` {why}")]
pub struct FieldError {
    /// Its place, such as `updates[3].action`.
    pub field: String,
    /// What is wrong with it.
    pub why: FieldFault,
}

impl FieldError {
    pub(in crate::didcomm) fn new(field: impl Into<String>, why: FieldFault) -> Self {
        Self {
            field: field.into(),
            why,
        }
    }
}
