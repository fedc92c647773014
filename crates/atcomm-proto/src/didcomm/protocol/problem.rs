//! report-problem 2.0: reports of errors to the other end.
//!
//! Source: DIDComm Messaging v2.1, "Problem Reports".

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::didcomm::message::{
    Body, FieldError, FieldFault, MAX_DID, MAX_TYPE, Message, Object, raw,
};

/// Longest code, in bytes: a code may contain a message type.
const MAX_CODE: usize = MAX_TYPE + 64;

/// Longest comment, in bytes.
const MAX_COMMENT: usize = 4096;

/// Most arguments of a comment.
const MAX_ARGS: usize = 32;

/// Longest URI of `escalate_to`, in bytes.
const MAX_ADDRESS: usize = 2048;

/// Longest comment with its arguments inserted, in bytes: a comment may insert each argument many
/// times.
const MAX_TEXT: usize = 16 * 1024;

/// The problems that a mediator reports. [`fmt::Display`] writes the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// The message type, or its major version, is unknown.
    Unsupported,
    /// The body breaks the rules of its type, which is named in full.
    Malformed(String),
    /// The sender has no mediation here, or the recipient is unknown.
    NotEnrolled,
    /// The same envelope was received before.
    Replayed,
    /// A DID cannot be read or used.
    DidMalformed,
    /// There is no space for the message.
    Storage,
    /// The message is larger than the mediator accepts.
    MessageTooBig,
    /// The message arrived after its expiry.
    Expired,
    /// Live delivery was requested on a connection that ends with the response.
    LiveModeNotSupported,
}

impl Code {
    /// Returns a sentence for people.
    pub fn comment(&self) -> &'static str {
        match self {
            Self::Unsupported => "messages of this type are not understood here",
            Self::Malformed(_) => "the body of the message breaks the rules of its type",
            Self::NotEnrolled => "the DID is not enrolled at this mediator",
            Self::Replayed => "the same envelope was received before",
            Self::DidMalformed => "a DID of the message cannot be used",
            Self::Storage => "there is no room for the message",
            Self::MessageTooBig => "the message is larger than this mediator takes",
            Self::Expired => "the message arrived after its time",
            Self::LiveModeNotSupported => "live delivery needs a connection that stays open",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "e.p.msg.unsupported",
            Self::Malformed(kind) => return write!(f, "e.p.msg.{kind}"),
            Self::NotEnrolled => "e.p.req.not_enroll",
            Self::Replayed => "e.p.crypto.message.dejavu",
            Self::DidMalformed => "e.p.did.malformed",
            Self::Storage => "e.p.me.res.storage",
            Self::MessageTooBig => "e.p.me.res.storage.message_too_big",
            Self::Expired => "e.p.req.time",
            Self::LiveModeNotSupported => "e.m.live-mode-not-supported",
        })
    }
}

impl From<Code> for String {
    fn from(code: Code) -> String {
        code.to_string()
    }
}

/// A problem: a code for machines and a comment for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Sorter, scope and descriptors separated by dots, the widest first.
    pub code: String,
    /// A sentence in which `{1}` stands for the first argument.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The arguments of the comment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// URI at which people find help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalate_to: Option<String>,
}

impl Report {
    /// Makes a report without arguments.
    pub fn new(code: impl Into<String>, comment: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            comment: Some(comment.into()),
            args: Vec::new(),
            escalate_to: None,
        }
    }

    /// Returns the message that reports about `failed`: its parent thread is the thread of
    /// `failed`, and it acknowledges the id of `failed`. The caller sets sender and recipient.
    pub fn about(&self, id: impl Into<String>, failed: &Message) -> Message {
        Message::new(id, self)
            .pthid(failed.thread())
            .ack(failed.id.as_str())
    }

    /// Returns the comment with its arguments inserted: a question mark for a missing argument, and
    /// unused arguments at the end. Without a comment, returns the code.
    pub fn text(&self) -> String {
        let Some(comment) = &self.comment else {
            return self.code.clone();
        };
        let mut text = String::with_capacity(comment.len());
        let mut used = [false; MAX_ARGS];
        let mut rest = comment.as_str();
        while let Some(at) = rest.find('{') {
            let (before, behind) = rest.split_at(at);
            text.push_str(before);
            rest = behind;
            match number(rest) {
                Some((number, length)) => {
                    let index = number.checked_sub(1);
                    text.push_str(index.and_then(|i| self.args.get(i)).map_or("?", |arg| arg));
                    if let Some(used) = index.and_then(|i| used.get_mut(i)) {
                        *used = true;
                    }
                    rest = rest.get(length..).unwrap_or_default();
                }
                None => {
                    text.push('{');
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
            if text.len() > MAX_TEXT {
                break;
            }
        }
        text.push_str(rest);
        let unused = self.args.iter().zip(used).filter(|(_, used)| !used);
        for (arg, _) in unused {
            text.push_str(", ");
            text.push_str(arg);
        }
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text
    }
}

impl From<Code> for Report {
    fn from(code: Code) -> Self {
        let comment = code.comment();
        Self::new(code, comment)
    }
}

/// Reads the number at the beginning of a text such as `{12}`; returns it with its length.
fn number(text: &str) -> Option<(usize, usize)> {
    let end = text.find('}')?;
    let digits = text.get(1..end)?;
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, end + 1))
}

impl Body for Report {
    const TYPE: &'static str = "https://didcomm.org/report-problem/2.0/problem-report";
    const PROTOCOL: &'static str = "https://didcomm.org/report-problem/2.0";

    fn read(body: &RawValue) -> Result<Self, FieldError> {
        let body = Object::body(body)?;
        let args = body.list("args", MAX_ARGS)?.unwrap_or_default();
        let read = |(index, arg): (usize, &RawValue)| {
            // Numbers and the like are inserted as their own text; null becomes a question mark.
            let text = match arg.get() {
                "null" => "?".to_owned(),
                text if text.starts_with(['{', '[']) => {
                    return Err(body.wrong(&format!("args[{index}]"), FieldFault::NotText));
                }
                text => serde_json::from_str(text).unwrap_or_else(|_| text.to_owned()),
            };
            if text.len() > MAX_DID {
                return Err(body.wrong(&format!("args[{index}]"), FieldFault::TooLong(MAX_DID)));
            }
            Ok(text)
        };
        Ok(Self {
            code: body.required("code", body.text("code", MAX_CODE)?)?,
            comment: body.prose("comment", MAX_COMMENT)?,
            args: args
                .into_iter()
                .enumerate()
                .map(read)
                .collect::<Result<_, _>>()?,
            escalate_to: body.prose("escalate_to", MAX_ADDRESS)?,
        })
    }

    fn write(&self) -> Box<RawValue> {
        raw(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::didcomm::protocol::trust_ping::Ping;

    use super::*;

    const ALICE: &str = "did:example:alice";

    #[test]
    fn codes_and_their_texts() {
        for (code, text) in [
            (Code::Unsupported, "e.p.msg.unsupported"),
            (
                Code::Malformed(Ping::TYPE.to_owned()),
                "e.p.msg.https://didcomm.org/trust-ping/2.0/ping",
            ),
            (Code::NotEnrolled, "e.p.req.not_enroll"),
            (Code::Replayed, "e.p.crypto.message.dejavu"),
            (Code::DidMalformed, "e.p.did.malformed"),
            (Code::Storage, "e.p.me.res.storage"),
            (Code::MessageTooBig, "e.p.me.res.storage.message_too_big"),
            (Code::Expired, "e.p.req.time"),
            (Code::LiveModeNotSupported, "e.m.live-mode-not-supported"),
        ] {
            let report = Report::from(code.clone());
            assert_eq!(report.code, text);
            assert_eq!(report.text(), code.comment());
        }
    }

    #[test]
    fn arguments_stand_where_their_numbers_do() {
        let mut report = Report::new(Code::NotEnrolled, "{2} is not {1}: {3}, {0}, {}, {x}, {");
        report.args = vec!["enrolled".to_owned(), ALICE.to_owned()];
        let text = format!("{ALICE} is not enrolled: ?, ?, {{}}, {{x}}, {{");
        assert_eq!(report.text(), text);
        report.comment = Some("no".to_owned());
        assert_eq!(report.text(), format!("no, enrolled, {ALICE}"));
        // Numbers in braces within an argument are not replaced.
        report.comment = Some("{1}".to_owned());
        report.args = vec!["{1}{2}".to_owned()];
        assert_eq!(report.text(), "{1}{2}");
        report.comment = None;
        assert_eq!(report.text(), "e.p.req.not_enroll");
    }

    #[test]
    fn a_report_is_about_a_message_and_its_thread() {
        let failed = Message::new("1", &Ping::default()).thid("thread");
        let about = Report::from(Code::Expired).about("2", &failed);
        assert_eq!(about.pthid.as_deref(), Some("thread"));
        assert_eq!(about.thid, None);
        assert_eq!(about.ack, ["1"]);
        // The id of a message that begins a thread names the thread.
        let failed = Message::new("1", &Ping::default());
        let about = Report::from(Code::Expired).about("2", &failed);
        assert_eq!(about.pthid.as_deref(), Some("1"));
    }

    proptest! {
        #[test]
        fn inv7_texts_are_bounded(
            comment in "[{}0-9a\u{e4}]{0,200}",
            args in vec("[{}1\u{e4}]{0,3000}", 0..6),
        ) {
            let comment = Some(comment);
            let report = Report { comment, args, ..Report::from(Code::Expired) };
            prop_assert!(report.text().len() <= MAX_TEXT);
        }
    }
}
