//! The outbox: messages that were sent, and what a report that one could not be delivered leads to.
//!
//! A relay accepts a message long before it knows whether the next mediator does. Until then the
//! outbox holds the envelope, which only the recipient can decrypt; another mediator is sent the
//! same envelope in new layers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attempt::PathFailure;
use super::unpack::Unpacked;
use atcomm_proto::clock::{Timestamp, serde::millis};
use atcomm_proto::didcomm::protocol::problem::Report;
use atcomm_proto::syntax::{Did, Handle, MediatorDid, RemoteText};

/// Time for which a report is waited for after the last attempt. Relays try for a day by default.
pub const SENT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most attempts of one message that are stored.
const MAX_ATTEMPTS: usize = 64;

/// A message in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SentMessage {
    /// Id of the message.
    pub id: String,
    /// The recipient's account.
    pub account: Did,
    /// The recipient's verified handle at the time of sending.
    pub handle: Option<Handle>,
    /// The did:peer that the message is encrypted to.
    pub peer: String,
    /// The own did:peer that the message is from.
    pub from: String,
    /// The envelope, which only the recipient can decrypt.
    pub envelope: String,
    /// The recipient's mediators, in the order of the record.
    pub mediators: Vec<MediatorDid>,
    /// The attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// When the message was composed.
    #[serde(with = "millis")]
    pub at: Timestamp,
    /// Set where no path is left. The message stays in the outbox until the user has read that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<GivenUp>,
}

/// Why a message will not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    /// The reason of the mediator that reported it.
    pub words: RemoteText,
    /// The paths that were tried after the report, each with its error.
    pub failed: Vec<RemoteText>,
}

/// An attempt to deliver a message by one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The recipient's mediator.
    pub mediator: MediatorDid,
    /// The own mediator that relays; `None` where the message was posted directly.
    pub via: Option<MediatorDid>,
    /// Id of the outermost forward.
    pub forward: String,
    /// The result.
    pub state: AttemptState,
    /// When the attempt began.
    #[serde(with = "millis")]
    pub at: Timestamp,
}

/// Results of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AttemptState {
    /// The message is about to be posted. Where a crash leaves this state, it may have been posted
    /// or not.
    Begun,
    /// The mediator that the message was posted to accepted it.
    Taken,
    /// The mediator refused the message, or reported that it could not deliver it.
    Failed(RemoteText),
}

/// A mediator's report that it could not deliver a forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndeliverableReport {
    /// The mediator: a DID, proven by the envelope.
    pub by: String,
    /// The thread of the forward, and what the report acknowledges.
    about: Vec<String>,
    /// Code of the problem.
    pub code: RemoteText,
    /// Reason in words.
    pub words: RemoteText,
}

impl UndeliverableReport {
    /// Reads a problem report. `None` for other messages, and for reports whose sender is not
    /// proven.
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

/// What a report means for a message of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportOutcome {
    /// The report is about another message, or comes from a mediator that did not relay this one.
    NotOurs,
    /// Another attempt of the same message may still arrive.
    Pending,
    /// These mediators of the recipient were not tried yet, in this order.
    TryNext(Vec<MediatorDid>),
    /// No mediator is left.
    GivenUp,
}

impl SentMessage {
    /// Records a report, and returns what it means. The same report again gives the same result, so
    /// that an interrupted follow-up can be repeated.
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
        let left: Vec<_> = self
            .mediators
            .iter()
            .filter(|one| !failed.contains(one))
            .cloned()
            .collect();
        if left.is_empty() {
            ReportOutcome::GivenUp
        } else {
            ReportOutcome::TryNext(left)
        }
    }

    /// Records that no path is left.
    pub(super) fn give_up(&mut self, words: &RemoteText, failures: &[PathFailure]) {
        let failures = failures.iter().take(MAX_ATTEMPTS);
        self.given_up = Some(GivenUp {
            words: words.clone(),
            failed: failures
                .map(|one| RemoteText::new(&one.to_string()))
                .collect(),
        });
    }

    /// Records an attempt before it is made.
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

    /// Records the result of an attempt. A report that has come meanwhile is the later word.
    pub(super) fn end(&mut self, forward: &str, state: AttemptState) {
        let mut attempts = self.attempts.iter_mut().rev();
        if let Some(attempt) = attempts.find(|one| one.forward == forward)
            && attempt.state == AttemptState::Begun
        {
            attempt.state = state;
        }
    }

    /// Whether the message is still needed: the user has not read yet that it was given up, or a
    /// relay has accepted it within [`SENT_RETENTION`] and may report a failure.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let may_fail = |one: &Attempt| one.via.is_some() && one.state == AttemptState::Taken;
        let recent = |one: &Attempt| now.since(one.at) < SENT_RETENTION;
        let may_come = self.attempts.iter().any(|one| may_fail(one) && recent(one));
        self.given_up.is_some() || may_come
    }
}

#[cfg(test)]
mod tests;
