//! What was sent by way of a relay, and what a report that it failed leads to.
//!
//! A relay says that it took a message long before it knows whether the next mediator does. What is
//! kept of the message until then is the envelope, which only its reader can open; what goes to
//! another mediator is that envelope in new wraps.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attempt::PathFailure;
use super::unpack::Unpacked;
use atcomm_proto::clock::{Timestamp, serde::millis};
use atcomm_proto::didcomm::protocol::problem::Report;
use atcomm_proto::syntax::{Did, Handle, MediatorDid, RemoteText};

/// For how long after the last attempt a report is waited for. Relays try for a day by default.
pub const SENT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most attempts of one message that are kept.
const MAX_ATTEMPTS: usize = 64;

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SentMessage {
    /// Id of the message.
    pub id: String,
    /// The account that it is for.
    pub account: Did,
    /// Its handle when it was sent, verified.
    pub handle: Option<Handle>,
    /// The did:peer that it is encrypted to.
    pub peer: String,
    /// Our did:peer that wrote it.
    pub from: String,
    /// The envelope, which only its reader can open.
    pub envelope: String,
    /// The reader's mediators, in the order of the record.
    pub mediators: Vec<MediatorDid>,
    /// What was tried, oldest first.
    pub attempts: Vec<Attempt>,
    /// When it was written.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// Set where no way is left. It stays in the wallet until its writer was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,
}

/// Why a message will not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    /// What the mediator says that reported it.
    pub words: RemoteText,
    /// The ways that were tried after its report, each with what came of it.
    pub failed: Vec<RemoteText>,
}

/// One way that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The reader's mediator.
    pub mediator: MediatorDid,
    /// Who relays; none where it was posted to the mediator itself.
    pub via: Option<MediatorDid>,
    /// Id of the outermost forward.
    pub forward: String,
    /// How it went.
    pub state: AttemptState,
    /// When it was begun.
    #[serde(with = "millis")]
    pub at: Timestamp,
}

/// How an attempt went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AttemptState {
    /// Written down before it was posted: where it still stands, it may or may not have been.
    Begun,
    /// Taken by whom it was posted to.
    Taken,
    /// Refused, or reported as failed.
    Failed(RemoteText),
}

/// What a mediator tells about a forward that it could not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndeliverableReport {
    /// Who tells it: a DID, shown by the envelope.
    pub by: String,
    /// The thread of the forward, and what the report acknowledges.
    about: Vec<String>,
    /// Code of the problem.
    pub code: RemoteText,
    /// For people.
    pub words: RemoteText,
}

impl UndeliverableReport {
    /// Reads a problem report. `None` for other messages, and where nothing shows who wrote it.
    pub fn read(unpacked: &Unpacked) -> Option<Self> {
        let report: Report = unpacked.message.body_of().ok()?;
        let about = unpacked.message.pthid.iter().chain(&unpacked.message.ack);
        Some(Self {
            by: unpacked.sender.clone()?,
            about: about.cloned().collect(),
            words: RemoteText::new(&report.text()),
            code: RemoteText::new(&report.code),
        })
    }
}

/// What a report means for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportOutcome {
    /// It is about another message, or its writer did not relay this one.
    NotOurs,
    /// Another attempt of the same message may still arrive.
    Pending,
    /// These mediators of the reader were not tried yet, in this order.
    TryNext(Vec<MediatorDid>),
    /// No mediator is left.
    GivenUp,
}

impl SentMessage {
    /// Notes a report, and says what comes next. The same report again says the same again, so that
    /// whoever was interrupted after noting it goes on.
    pub fn report(&mut self, report: &UndeliverableReport) -> ReportOutcome {
        let named = |attempt: &Attempt| {
            report.about.contains(&attempt.forward)
                && attempt.via.as_ref().map(MediatorDid::as_str) == Some(&report.by)
        };
        let Some(attempt) = self.attempts.iter_mut().find(|one| named(one)) else {
            return ReportOutcome::NotOurs;
        };
        attempt.state = AttemptState::Failed(report.words.clone());
        let tried = |wanted: fn(&AttemptState) -> bool| {
            let found = move |one: &&Attempt| wanted(&one.state);
            self.attempts.iter().filter(found).map(|one| &one.mediator)
        };
        if tried(|state| *state == AttemptState::Taken)
            .next()
            .is_some()
        {
            return ReportOutcome::Pending;
        }
        let failed: Vec<_> = tried(|state| matches!(state, AttemptState::Failed(_))).collect();
        let left = self.mediators.iter().filter(|one| !failed.contains(one));
        let left: Vec<_> = left.cloned().collect();
        match left.is_empty() {
            true => ReportOutcome::GivenUp,
            false => ReportOutcome::TryNext(left),
        }
    }

    /// Notes that no way is left.
    pub(super) fn give_up(&mut self, words: &RemoteText, failures: &[PathFailure]) {
        let failures = failures.iter().take(MAX_ATTEMPTS);
        self.given_up = Some(GivenUp {
            words: words.clone(),
            failed: failures
                .map(|one| RemoteText::new(&one.to_string()))
                .collect(),
        });
    }

    /// Notes an attempt before it is made.
    pub(super) fn begin(
        &mut self,
        mediator: MediatorDid,
        via: Option<MediatorDid>,
        forward: String,
        at: Timestamp,
    ) {
        if self.attempts.len() >= MAX_ATTEMPTS {
            self.attempts.remove(0);
        }
        self.attempts.push(Attempt {
            mediator,
            via,
            forward,
            state: AttemptState::Begun,
            at,
        });
    }

    /// Notes how the last attempt went.
    pub(super) fn end(&mut self, state: AttemptState) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.state = state;
        }
    }

    /// Whether it is still needed: its writer is to be told that it was not delivered, or a relay has
    /// taken it, not too long ago, and may report that.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let may_fail = |one: &Attempt| one.via.is_some() && one.state == AttemptState::Taken;
        let recent = |one: &Attempt| now.since(one.at) < SENT_RETENTION;
        let may_come = self.attempts.iter().any(|one| may_fail(one) && recent(one));
        self.given_up.is_some() || may_come
    }
}

#[cfg(test)]
mod tests;
