//! Errors of reading messages.

use std::borrow::Cow;

/// Errors of reading a message or the bytes of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The bytes are not a JSON object in UTF-8.
    #[error("the message is not a JSON object")]
    NotJson,
    /// The message has more headers than any valid message.
    #[error("the message has more than {0} headers")]
    TooManyHeaders(usize),
    /// `typ` names another format than the plaintext of DIDComm v2.
    #[error("the header `typ` names another media type than application/didcomm-plain+json")]
    MediaType,
    /// A header, or a field of an attachment, is wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The attachment has only links to its content, which are not fetched.
    #[error("the attachment has links where its content is needed")]
    Links,
    /// The attachment has no content.
    #[error("the attachment has neither json nor base64")]
    NoContent,
    /// The attachment is not valid base64.
    #[error("the attachment is not base64")]
    Base64,
}

/// Errors of reading the body of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The message is of another type.
    #[error("the message is of another type than {0}")]
    Type(&'static str),
    /// A field of the body is wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Faults of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    /// The field is required and missing.
    #[error("is missing")]
    Missing,
    /// Two fields have this name, so two readers could see different messages.
    #[error("stands there twice")]
    Twice,
    /// The value is not a string.
    #[error("is not a string")]
    NotText,
    /// The string or list is empty where that has no meaning.
    #[error("is empty")]
    Empty,
    /// The string is longer than this many bytes.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// The value is not a whole number.
    #[error("is not a whole number")]
    NotInteger,
    /// A count is below zero.
    #[error("is below zero")]
    Negative,
    /// The value is neither true nor false.
    #[error("is neither true nor false")]
    NotFlag,
    /// The value is not an array.
    #[error("is not an array")]
    NotList,
    /// The list or object has more than this many entries.
    #[error("has more than {0} entries")]
    TooMany(usize),
    /// The value is not an object.
    #[error("is not an object")]
    NotObject,
    /// The string is not in the vocabulary, which is named.
    #[error("is not one of {0}")]
    NotOneOf(&'static str),
    /// The value breaks another rule, which is named.
    #[error("is unusable: {0}")]
    Rule(Cow<'static, str>),
}

/// A field that cannot be used, as a sentence: "the field `updates[3].action` is missing".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field `{field}` {why}")]
pub struct FieldError {
    /// Path of the field, such as `updates[3].action`.
    pub field: String,
    /// The fault of the field.
    #[source]
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
