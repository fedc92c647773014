//! Requests of somebody whom the envelope names: what changes something is done once, what needs an
//! account finds it.

use super::{
    HandlerOutput, Known, Registered, Reply, Session, Transport, count, encrypt, label,
    problem_code, refused_forward,
};
use crate::mediator::admission::Admission;
use crate::mediator::{Answer, Form, Refused, count_refused, replay};
use crate::store::{Account, ReplayKind, StoreError};
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::protocol::problem::{Code, Report};
use atcomm_proto::didcomm::protocol::{ReadError, Request, coordination, pickup};

impl<'m> Session<'m, Known> {
    pub(super) async fn answer(self) -> Result<HandlerOutput, Refused> {
        let request = Request::read(&self.message);
        let label = label(&request);
        let wants_answers = self.wants_answers();
        let (sender, own) = (self.state.sender.clone(), self.own);
        let reply = if matches!(request, Ok(Request::Problem(_))) {
            // A problem is never answered with another, whatever is wrong with it.
            count(label, "done");
            Reply::none()
        } else if self.is_expired() {
            count(label, "expired");
            Reply::of(self.problem(Code::Expired))
        } else {
            match self.carry_out_once(request).await {
                Ok((reply, outcome)) => {
                    count(label, outcome);
                    reply
                }
                // A request is refused by its status, which also the relays in between understand;
                // a socket has nothing but messages.
                Err(refused) => match (&self.transport, problem_code(&refused)) {
                    (Transport::Socket { .. }, Some(code)) if wants_answers => {
                        count_refused(&refused);
                        Reply::of(self.report(&Report::new(code, refused.to_string())))
                    }
                    _ => return Err(refused),
                },
            }
        };
        let answer = match reply.message.filter(|_| wants_answers) {
            Some(message) => Answer::Reply(Form::Encrypted, encrypt(message, own, &sender)?),
            None => Answer::Accepted,
        };
        Ok(HandlerOutput {
            answer,
            live: reply.live,
            answers: self.answers(),
        })
    }

    /// Does what is asked for, if it was not done before.
    async fn carry_out_once(
        &self,
        request: Result<Request, ReadError>,
    ) -> Result<(Reply, &'static str), Refused> {
        let replayed = || (Reply::of(self.problem(Code::Replayed)), "replay");
        let (mediator, now) = (self.mediator, self.now);
        match &request {
            // A queue takes the same message once.
            Ok(Request::Forward(_)) => self.carry_out(request).await,
            Ok(request) if changes_something(request) => {
                // Only accounts take room among what is remembered.
                if self.registered().await?.is_none() {
                    return Ok((Reply::of(self.not_registered()), "not_registered"));
                }
                let created = self.message.created_time.unwrap_or(i64::MAX);
                let oldest = now.minus(replay::WINDOW).millis() / 1000;
                if created < oldest {
                    return Ok((Reply::of(self.problem(Code::Expired)), "expired"));
                }
                let replay_id = self.replay_id;
                if !mediator.replays.writes.insert(replay_id, now) {
                    return Ok(replayed());
                }
                // At the same time, and so in one commit.
                let noted = mediator
                    .mailbox
                    .transact(move |tx| tx.record_replay(ReplayKind::Write, replay_id, now));
                let (done, noted) = tokio::join!(self.carry_out(Ok(request.clone())), noted);
                // What was not done, or not noted, may be asked for again.
                noted
                    .map_err(Refused::from)
                    .and(done)
                    .inspect_err(|_| mediator.replays.writes.remove(&replay_id))
            }
            // To be told again what one was told gains nothing over waiting for the disk.
            _ if mediator.replays.reads.insert(self.replay_id, now) => {
                mediator.record_read(self.replay_id, now);
                let done = self.carry_out(request).await;
                done.inspect_err(|_| mediator.replays.reads.remove(&self.replay_id))
            }
            _ => Ok(replayed()),
        }
    }

    /// Does what is asked for; the word is for metrics.
    async fn carry_out(
        &self,
        request: Result<Request, ReadError>,
    ) -> Result<(Reply, &'static str), Refused> {
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                if let Some(refused) = refused_forward(&error).filter(|_| !self.wants_answers()) {
                    return Err(refused);
                }
                let outcome = match error {
                    ReadError::UnknownType { .. } => "unsupported",
                    ReadError::Malformed { .. } => "malformed",
                };
                return Ok((Reply::of(self.report(&error.report())), outcome));
            }
        };
        let reply = match request {
            Request::Forward(forward) => {
                let unknown = self.forward(&forward, Some(&self.state.sender)).await?;
                match unknown {
                    true => Reply::of(self.unknown_recipient()),
                    false => Reply::none(),
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
                    return Ok((Reply::of(self.not_registered()), "not_registered"));
                };
                session.pick_up(version, request).await?
            }
        };
        Ok((reply, "done"))
    }

    pub(super) fn not_registered(&self) -> Message {
        let comment = "the sender has no account at this mediator; send a mediate-request";
        self.report(&Report::new(Code::NotEnrolled, comment))
    }

    /// The session of the sender's account, if it has one and may still read.
    pub(super) async fn registered(&self) -> Result<Option<Session<'m, Registered>>, StoreError> {
        let did = self.state.sender.party.canonical().to_owned();
        let (open, now) = (self.mediator.policy.is_open(), self.now);
        let account = self
            .mediator
            .mailbox
            .query(move |q| {
                let Some(account) = q.account(&did)? else {
                    return Ok(None);
                };
                let provisional = account.provisional_until.is_some_and(|until| now < until);
                let reading = || Ok::<_, StoreError>(Admission::of(&q.claims(&did)?, now).reading);
                Ok((open || provisional || reading()?).then_some(account))
            })
            .await?;
        Ok(account.map(|account| self.with_account(account)))
    }

    fn with_account(&self, account: Account) -> Session<'m, Registered> {
        Session {
            mediator: self.mediator,
            keys: self.keys,
            own: self.own,
            message: self.message.clone(),
            transport: self.transport.clone(),
            now: self.now,
            replay_id: self.replay_id,
            state: Registered {
                sender: self.state.sender.clone(),
                account,
            },
        }
    }
}

/// Whether doing it twice could differ from doing it once. To be granted again what one was granted
/// does not.
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
