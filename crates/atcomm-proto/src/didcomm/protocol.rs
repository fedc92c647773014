//! The protocols of a mediator and its clients: the contents of messages, one module for each
//! protocol.
//!
//! Reading turns a [`Message`] into a typed body or an error that names the field; writing returns
//! a [`Message`]. Two versions of a protocol share one type, and the version decides only the
//! written form, so that each handler is written once. What a body means, and limits beyond those
//! of reading, are left to the mediator.

pub mod coordination;
pub mod discover;
pub mod empty;
pub mod out_of_band;
pub mod pickup;
pub mod problem;
pub mod routing;
pub mod trust_ping;

use super::message::{FieldError, Message, TypeUri};

pub use super::message::Body;

use self::problem::{Code, Report};

/// Errors of reading a message as a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The type is not one that a mediator receives, or is another major version.
    #[error("messages of the type {kind} are not understood here")]
    UnknownType {
        /// The type as it was sent.
        kind: String,
    },
    /// The type is known, and the body breaks its rules.
    #[error("{why}")]
    Malformed {
        /// The type as it was sent.
        piuri: String,
        /// The field and its fault.
        #[source]
        why: FieldError,
    },
}

impl ReadError {
    /// Returns the problem report for the sender.
    pub fn report(&self) -> Report {
        let code = match self {
            Self::UnknownType { .. } => Code::Unsupported,
            Self::Malformed { piuri, .. } => Code::Malformed(piuri.clone()),
        };
        Report::new(code, self.to_string())
    }
}

/// The messages that a mediator receives.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// A message to be forwarded, in the attachments.
    Forward(routing::Forward),
    /// A request for mediation or a change to the list of recipients.
    Coordination(coordination::Version, coordination::Request),
    /// A request for queued messages.
    Pickup(pickup::Version, pickup::Request),
    /// A trust ping.
    Ping(trust_ping::Ping),
    /// Queries for features.
    Queries(discover::Queries),
    /// A message that has only headers.
    Empty,
    /// A problem report; `None` if it cannot be read. Problem reports are never answered by a
    /// report.
    Problem(Option<Report>),
}

impl Request {
    /// Reads a message as a request.
    pub fn read(message: &Message) -> Result<Self, ReadError> {
        let unknown = || ReadError::UnknownType {
            kind: message.kind.clone(),
        };
        let kind = TypeUri::parse(&message.kind).map_err(|_| unknown())?;
        // A protocol may have its own report of this name (message-pickup 4.0 has one). Answering
        // reports with reports would never end.
        if kind.name == "problem-report" {
            return Ok(Self::Problem(Report::read(&message.body).ok()));
        }
        match Self::read_known(message, &kind) {
            Ok(Some(request)) => Ok(request),
            Ok(None) => Err(unknown()),
            Err(why) => Err(ReadError::Malformed {
                piuri: message.kind.clone(),
                why,
            }),
        }
    }

    fn read_known(message: &Message, kind: &TypeUri<'_>) -> Result<Option<Self>, FieldError> {
        let is = |known: &str| TypeUri::parse(known).is_ok_and(|known| kind.reads_as(&known));
        let body = &message.body;
        Ok(Some(if is(routing::Forward::TYPE) {
            routing::check_attachments(message)?;
            Self::Forward(routing::Forward::read(body)?)
        } else if let Some((version, request)) = pickup::Request::of(message)? {
            Self::Pickup(version, request)
        } else if let Some((version, request)) = coordination::Request::of(message)? {
            Self::Coordination(version, request)
        } else if is(trust_ping::Ping::TYPE) {
            Self::Ping(trust_ping::Ping::read(body)?)
        } else if is(discover::Queries::TYPE) {
            Self::Queries(discover::Queries::read(body)?)
        } else if is(empty::Empty::TYPE) {
            Self::Empty
        } else {
            return Ok(None);
        }))
    }
}

#[cfg(test)]
mod tests;
