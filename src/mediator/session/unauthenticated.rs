//! Requests of a sender that the envelope does not prove: forwards.

use super::{HandlerOutput, Session, Unauthenticated, count, label, malformed_forward};
use crate::mediator::{Answer, Form, Refused};
use atcomm_proto::didcomm::envelope;
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::protocol::Request;

impl Session<Unauthenticated> {
    /// Forwards messages. Any other request has no answer.
    pub(super) async fn answer(self) -> Result<HandlerOutput, Refused> {
        let request = Request::read(&self.ctx.message);
        let label = label(&request);
        let answer = match request {
            _ if self.ctx.is_expired() => {
                count(label, "expired");
                Answer::Accepted
            }
            Ok(Request::Forward(forward)) => match self.forward(&forward, None).await {
                Ok(is_unknown) => {
                    count(label, "done");
                    if is_unknown && self.ctx.wants_answers() {
                        self.signed(self.ctx.unknown_recipient())?
                    } else {
                        Answer::Accepted
                    }
                }
                Err(refused) => self.signed(self.ctx.report_refusal(refused)?)?,
            },
            Err(error) => {
                count(label, "anonymous");
                malformed_forward(&error).map_or(Ok(Answer::Accepted), Err)?
            }
            Ok(_) => {
                count(label, "anonymous");
                Answer::Accepted
            }
        };
        Ok(HandlerOutput {
            answer,
            live: None,
            may_answer: self.ctx.may_answer(),
        })
    }

    /// Signs an answer, so that it is believed, since no key of the sender is known to encrypt it
    /// to.
    fn signed(&self, message: Message) -> Result<Answer, Refused> {
        if self.ctx.core.reports.charge(self.ctx.address()).is_err() {
            return Ok(Answer::Accepted);
        }
        let message = message.from(self.ctx.own.party.did());
        match envelope::sign(&message.to_vec(), &self.ctx.own.signing) {
            Ok(bytes) => Ok(Answer::Reply(Form::Signed, bytes.into())),
            Err(error) => {
                tracing::error!(%error, "cannot sign");
                Err(Refused::Unavailable)
            }
        }
    }
}
