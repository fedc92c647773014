//! Requests of a sender that the envelope proves. A request that changes something is carried out
//! only once; a request that needs an account looks up the account.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Handled, HandlerOutput, Registered, Reply, Session, count, encrypt_reply, label,
    malformed_forward,
};
use crate::mediator::admission::Admission;
use crate::mediator::{Answer, Form, Refused, replay};
use crate::store::StoreError;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::envelope::Authenticated;
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::protocol::problem::{Code, Report};
use atcomm_proto::didcomm::protocol::{ReadError, Request, coordination, pickup};

impl Session<Authenticated> {
    pub(super) async fn answer(self) -> Result<HandlerOutput, Refused> {
        let request = Request::read(&self.ctx.message);
        let label = label(&request);
        let reply = if matches!(request, Ok(Request::Problem(_))) {
            // A problem is never answered with another, even if it is expired or was sent before.
            count(label, "done");
            Reply::none()
        } else if self.ctx.is_expired() {
            count(label, "expired");
            Reply::of(self.ctx.problem(Code::Expired))
        } else {
            match self.carry_out_once(request).await {
                Ok(handled) => {
                    count(label, handled.outcome);
                    handled.reply
                }
                Err(refused) => Reply::of(self.ctx.report_refusal(refused)?),
            }
        };
        let answer = match reply.message.filter(|_| self.ctx.wants_answers()) {
            Some(message) => {
                let encrypted = encrypt_reply(message, &self.ctx.own, &self.state)?;
                let permitted = match reply.permit {
                    Some(permit) => permit.attach(encrypted),
                    None => encrypted,
                };
                Answer::Reply(Form::Encrypted, permitted)
            }
            None => Answer::Accepted,
        };
        Ok(HandlerOutput {
            answer,
            live: reply.live,
            may_answer: self.ctx.may_answer(),
        })
    }

    /// Carries out a request, unless it was carried out before.
    async fn carry_out_once(
        &self,
        request: Result<Request, ReadError>,
    ) -> Result<Handled, Refused> {
        let replays = &self.ctx.core.replays;
        let (id, now) = (self.ctx.replay_id, self.ctx.now);
        match request {
            // A queue takes the same message once.
            Ok(Request::Forward(_)) => self.carry_out(request).await,
            Ok(request) if changes_something(&request) => self.write_once(request).await,
            // A repeated read gains its sender nothing, so reads do not wait for the disk.
            request if replays.reads.insert(id, now) => {
                replays.record_read(id, now);
                let done = self.carry_out(request).await;
                done.inspect_err(|_| replays.reads.remove(&id))
            }
            _ => Ok(self.replayed()),
        }
    }

    /// Carries out a request that changes something, and records it in the same commit.
    async fn write_once(&self, request: Request) -> Result<Handled, Refused> {
        let replays = &self.ctx.core.replays;
        let (id, now) = (self.ctx.replay_id, self.ctx.now);
        // Only requests of accounts use up the window.
        let Some(session) = self.registered().await? else {
            return Ok(Handled::new(self.not_registered(), "not_registered"));
        };
        let account = &session.state.account;
        let created = self.ctx.message.created_time;
        if let Some(fault) = date_fault(created, account.dates_changes, now) {
            let report = Report::new(Code::Expired, fault);
            return Ok(Handled::new(self.ctx.report(&report), "expired"));
        }
        let first_dated = (created.is_some() && !account.dates_changes).then_some(account.id);
        if !replays.writes.insert(id, now) {
            return Ok(self.replayed());
        }
        let date = async {
            let Some(account) = first_dated else {
                return Ok(());
            };
            let mailbox = &self.ctx.core.mailbox;
            mailbox
                .transact(move |tx| tx.set_dates_changes(account))
                .await
        };
        // All are in the store's queue at the same time, and so in one commit.
        let (done, recorded, dated) = tokio::join!(
            self.carry_out(Ok(request)),
            replays.record_write(id, now),
            date
        );
        // A request that was not carried out, or not recorded, may be repeated.
        recorded
            .and(dated)
            .map_err(Refused::from)
            .and(done)
            .inspect_err(|_| replays.writes.remove(&id))
    }

    fn replayed(&self) -> Handled {
        Handled::new(self.ctx.problem(Code::Replayed), "replay")
    }

    async fn carry_out(&self, request: Result<Request, ReadError>) -> Result<Handled, Refused> {
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                if let Some(refused) = malformed_forward(&error)
                    && !self.ctx.wants_answers()
                {
                    return Err(refused);
                }
                let outcome = match error {
                    ReadError::UnknownType { .. } => "unsupported",
                    ReadError::Malformed { .. } => "malformed",
                };
                return Ok(Handled::new(self.ctx.report(&error.report()), outcome));
            }
        };
        let reply = match request {
            Request::Forward(forward) => {
                if self.forward(&forward, Some(&self.state)).await? {
                    Reply::of(self.ctx.unknown_recipient())
                } else {
                    Reply::none()
                }
            }
            Request::Ping(ping) => self.ping(&ping),
            Request::Queries(queries) => self.disclose(&queries),
            // A problem is never answered with another.
            Request::Problem(_) | Request::Empty => Reply::none(),
            Request::Coordination(version, request) => {
                return self.coordinate(version, request).await;
            }
            Request::Pickup(version, request) => {
                let Some(session) = self.registered().await? else {
                    return Ok(Handled::new(self.not_registered(), "not_registered"));
                };
                session.pick_up(version, request).await?
            }
        };
        Ok(Handled {
            reply,
            outcome: "done",
        })
    }

    pub(super) fn not_registered(&self) -> Message {
        let comment = "the sender has no account at this mediator; send a mediate-request";
        self.ctx.report(&Report::new(Code::NotEnrolled, comment))
    }

    /// Returns the session of the sender's account, if there is one that is admitted for good or
    /// provisionally.
    pub(super) async fn registered(&self) -> Result<Option<Session<Registered>>, StoreError> {
        let did = self.state.party.canonical().to_owned();
        let (is_open, now) = (self.ctx.core.policy.is_open(), self.ctx.now);
        let account = self
            .ctx
            .core
            .mailbox
            .query(move |q| {
                let Some(account) = q.account(&did)? else {
                    return Ok(None);
                };
                let provisional = account.provisional_until.is_some_and(|until| now < until);
                let may_read = is_open || Admission::of(&q.claims(&did)?, now).reading;
                Ok((may_read || provisional).then_some((account, may_read)))
            })
            .await?;
        Ok(account.map(|(account, may_read)| Session {
            ctx: Arc::clone(&self.ctx),
            state: Registered {
                sender: self.state.clone(),
                account,
                may_read,
            },
        }))
    }
}

/// Longest difference between the time of a change and the clock here. A change is remembered for
/// twice as long, and so cannot be repeated when it is forgotten.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(replay::WINDOW.as_secs() / 2);

/// The least time that is one in milliseconds, which some senders write: in seconds it would be in
/// the year 5138.
const LEAST_MILLIS: i64 = 100_000_000_000;

/// Returns why a change is refused because of its `created_time`, if it is. A change without one
/// could be repeated whenever it is forgotten, so a sender that dates its changes dates all.
fn date_fault(created: Option<i64>, dates_changes: bool, now: Timestamp) -> Option<&'static str> {
    let Some(created) = created else {
        return dates_changes
            .then_some("the message has no created_time, and earlier ones of its sender had one");
    };
    let millis = if created < LEAST_MILLIS {
        created.saturating_mul(1000)
    } else {
        created
    };
    let longest = i64::try_from(MAX_CLOCK_DIFFERENCE.as_millis()).unwrap_or(i64::MAX);
    (millis.saturating_sub(now.millis()).saturating_abs() > longest).then_some(
        "the created_time of the message is more than 12 hours away from this mediator's clock",
    )
}

/// Returns whether carrying out a request twice could differ from doing so once. A repeated
/// mediate-request is granted again without effect.
fn changes_something(request: &Request) -> bool {
    match request {
        Request::Coordination(_, coordination) => {
            matches!(coordination, coordination::Request::Update(_))
        }
        Request::Pickup(_, pickup) => matches!(
            pickup,
            pickup::Request::Received(_) | pickup::Request::Live(_)
        ),
        Request::Forward(_)
        | Request::Ping(_)
        | Request::Queries(_)
        | Request::Problem(_)
        | Request::Empty => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_near_its_time_and_dated_once_its_sender_dates() {
        const NOW: i64 = 1_800_000_000;
        let now = Timestamp::from_millis(NOW * 1000);
        let half_a_day = 12 * 3600;
        for (created, dates_changes, accepted) in [
            (None, false, true),
            (None, true, false),
            (Some(NOW), false, true),
            (Some(NOW), true, true),
            (Some(NOW - half_a_day), true, true),
            (Some(NOW + half_a_day), true, true),
            (Some(NOW - half_a_day - 1), true, false),
            (Some(NOW + half_a_day + 1), true, false),
            (Some(0), true, false),
            (Some(i64::MIN), true, false),
            (Some(i64::MAX), true, false),
            // In milliseconds.
            (Some(NOW * 1000), true, true),
            (Some((NOW + half_a_day + 1) * 1000), true, false),
        ] {
            let fault = date_fault(created, dates_changes, now);
            assert_eq!(fault.is_none(), accepted, "{created:?} {dates_changes}");
        }
    }
}
