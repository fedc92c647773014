//! The protocols of a mediator and its clients: what messages say, one module for each protocol.
//!
//! Reading takes a [`Message`] and ends in a typed body or in an error that names the field;
//! writing gives a [`Message`] back. What two versions of a protocol share is one type, and the
//! version only says how it is written, so that a handler is written once. What a body means, and
//! which limits apply beyond those of reading, is the mediator's affair.

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

/// Why a message is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No type that a mediator receives, or another major version of one.
    #[error("messages of the type {kind} are not understood here")]
    UnknownType {
        /// The type, as it was sent.
        kind: String,
    },
    /// A known type with a body that breaks its rules.
    #[error("{why}")]
    Malformed {
        /// The type, as it was sent.
        piuri: String,
        /// Which field, and what is wrong with it.
        why: FieldError,
    },
}

impl ReadError {
    /// The report that tells the sender.
    pub fn report(&self) -> Report {
        let code = match self {
            Self::UnknownType { .. } => Code::Unsupported,
            Self::Malformed { piuri, .. } => Code::Malformed(piuri.clone()),
        };
        Report::new(code, self.to_string())
    }
}

/// Everything that a mediator receives.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Mail for somebody, in the message's attachments.
    Forward(routing::Forward),
    /// Asking for mediation and naming recipients.
    Coordination(coordination::Version, coordination::Request),
    /// Fetching mail.
    Pickup(pickup::Version, pickup::Request),
    /// Asking whether anybody is there.
    Ping(trust_ping::Ping),
    /// Asking what is offered.
    Queries(discover::Queries),
    /// Headers without content.
    Empty,
    /// Something went wrong at the other end; `None` where the report itself cannot be read.
    /// Neither is ever answered by a report.
    Problem(Option<Report>),
}

impl Request {
    /// Reads a message as a request.
    pub fn read(message: &Message) -> Result<Self, ReadError> {
        let unknown = || ReadError::UnknownType {
            kind: message.kind.clone(),
        };
        let kind = TypeUri::parse(&message.kind).map_err(|_| unknown())?;
        // Protocols may bring a report of their own by this name (message-pickup 4.0 does), and
        // whoever answers reports with reports never comes to an end.
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
