//! Requests of a sender that the envelope proves. A request that changes something is carried out
//! only once; a request that needs an account looks up the account.

use std::sync::Arc;

use super::{
    Handled, HandlerOutput, Registered, Reply, Session, count, encrypt_reply, label,
    malformed_forward,
};
use crate::mediator::admission::Admission;
use crate::mediator::{Answer, Form, Refused, replay};
use crate::store::StoreError;
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
        if self.registered().await?.is_none() {
            return Ok(Handled::new(self.not_registered(), "not_registered"));
        }
        let created = self.ctx.message.created_time.unwrap_or(i64::MAX);
        let oldest = now.minus(replay::WINDOW).millis() / 1000;
        if created < oldest {
            return Ok(Handled::new(self.ctx.problem(Code::Expired), "expired"));
        }
        if !replays.writes.insert(id, now) {
            return Ok(self.replayed());
        }
        // Both are in the store's queue at the same time, and so in one commit.
        let (done, recorded) =
            tokio::join!(self.carry_out(Ok(request)), replays.record_write(id, now));
        // A request that was not carried out, or not recorded, may be repeated.
        recorded
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

    /// Returns the session of the sender's account, if there is one that may read.
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
                let reading = || Ok::<_, StoreError>(Admission::of(&q.claims(&did)?, now).reading);
                Ok((is_open || provisional || reading()?).then_some(account))
            })
            .await?;
        Ok(account.map(|account| Session {
            ctx: Arc::clone(&self.ctx),
            state: Registered {
                sender: self.state.clone(),
                account,
            },
        }))
    }
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
