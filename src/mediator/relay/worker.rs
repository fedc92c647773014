//! Empties the outbox.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::LOCATION;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::super::queues::{Enqueued, NewMessage};
use super::super::{Core, Mediator, fresh_id};
use super::concurrency::{DestinationHealth, DestinationSlots, InFlight};
use super::route::RouteError;
use super::{NewRelay, NextHop, pauses};
use crate::store::mailbox::Tx;
use crate::store::{Outbound, Outcome, StoreError};
use atcomm_net::backoff::Spread;
use atcomm_net::net::{NetError, Priority, Request, Response, Trust};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::envelope;
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::didcomm::protocol::problem::Report;
use atcomm_proto::syntax::MediatorDid;

/// How long nothing happens without a bell: for what was put off, and what another process left.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How soon is looked again after a delivery has ended.
const COALESCE_DELAY: Duration = Duration::from_millis(5);

/// Longest time for one delivery.
const POST_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest time for all mediators of one message together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// What is said of a route that cannot be read.
const UNREADABLE_ROUTE: &str = "its route cannot be read";

/// What is said of a mediator that uses up its time.
const TIMED_OUT: &str = "it takes too long";

/// For how long a message that was taken is nobody else's. A crash delays it by that.
const LEASE: Duration = Duration::from_secs(90);

/// Time for what is under way when the service ends.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

const MEDIA_TYPE: &str = "application/didcomm-encrypted+json";

/// What the sender of a message is told that could not be delivered.
const UNDELIVERABLE: &str = "e.p.xfer.undeliverable";

/// How an attempt went.
#[derive(Debug)]
enum Attempt {
    Delivered,
    /// It will not be taken there, however often it is tried.
    Refused(String),
    /// It may go better later, not before the time given.
    Failed(String, Option<Duration>),
    /// It answers, and does not take this message now.
    Deferred(String, Option<Duration>),
    /// Limits of ours kept us from trying.
    HostBusy(Duration),
}

/// Carries what waits in the outbox, until it is told to stop.
pub struct Relay {
    mediator: Mediator,
}

impl Relay {
    /// Of this mediator.
    pub fn new(mediator: Mediator) -> Self {
        Self { mediator }
    }

    /// Works until `stop`. What is under way then is finished or tried again after a restart.
    pub async fn run(self, stop: CancellationToken) {
        let core = &self.mediator.core;
        let places = core.settings.relay.concurrency.max(1);
        let now = core.clock.now();
        match core
            .mailbox
            .transact(move |tx| tx.outbox_recover(now))
            .await
        {
            Ok(0) => {}
            Ok(messages) => tracing::info!(messages, "the relay takes up what was under way"),
            // They are due when their leases have ended.
            Err(error) => tracing::error!(%error, "the outbox cannot be recovered"),
        }
        let mut in_flight = InFlight::new(places);
        let mut tasks: JoinSet<DestinationHealth> = JoinSet::new();
        let mut next_poll = Instant::now();
        loop {
            let room = tasks.len() < places;
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next_with_id() => {
                    match ended {
                        Ok((id, health)) => in_flight.remove(id, health),
                        // The panic hook has written where it was.
                        Err(error) => in_flight.remove(error.id(), DestinationHealth::Failing),
                    }
                    // The next one may have waited for this place.
                    next_poll = next_poll.min(Instant::now() + COALESCE_DELAY);
                    continue;
                }
                () = core.destinations.pending.notified(), if room => {}
                () = sleep_until(next_poll), if room => {}
            }
            next_poll = Instant::now() + POLL_INTERVAL;
            match core.take(places - tasks.len(), in_flight.slots()).await {
                Ok(taken) => {
                    for row in taken {
                        let destination = row.destination.clone();
                        let mediator = self.mediator.clone();
                        let task = tasks.spawn(async move { mediator.core.process(row).await });
                        in_flight.insert(task.id(), destination);
                    }
                }
                Err(error) => tracing::error!(%error, "nothing can be taken from the outbox"),
            }
        }
        // A message that is on its way is better known to have arrived.
        let rest = async { while tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(SHUTDOWN_TIMEOUT, rest).await);
    }
}

impl Core {
    /// Takes messages that are due, so that nobody takes them again for a while.
    async fn take(
        &self,
        free: usize,
        mut slots: DestinationSlots,
    ) -> Result<Vec<Outbound>, StoreError> {
        let now = self.clock.now();
        // Most of the time there is nothing, and looking is not worth a write.
        if !self.mailbox.query(move |q| q.outbox_is_due(now)).await? {
            return Ok(Vec::new());
        }
        self.mailbox
            .transact(move |tx| {
                let room = |destination: &str| slots.of(destination);
                tx.outbox_take(now, now.plus(LEASE), free, room)
            })
            .await
    }

    /// Tries one message and writes what came of it. Says what was seen of its mediator.
    async fn process(&self, row: Outbound) -> DestinationHealth {
        let (id, started) = (row.id, self.clock.now());
        let Ok(next) = serde_json::from_str::<NextHop>(&row.route) else {
            tracing::error!("a route in the outbox cannot be read; its message is given up");
            self.log_failure(
                self.finish(id, Outcome::Refused, Some(UNREADABLE_ROUTE), started)
                    .await,
            );
            return DestinationHealth::Unknown;
        };
        let attempt = match row.expires_at <= started {
            true => Attempt::Failed("its time has ended".to_owned(), None),
            false => self.attempt(&next, &row).await,
        };
        let now = self.clock.now();
        let (why, wait, health) = match attempt {
            Attempt::Delivered => {
                self.log_failure(self.finish(id, Outcome::Delivered, None, now).await);
                return DestinationHealth::Healthy;
            }
            Attempt::Refused(why) => {
                self.report_undeliverable(&row, &next, &why).await;
                self.log_failure(self.finish(id, Outcome::Refused, Some(&why), now).await);
                return DestinationHealth::Healthy;
            }
            Attempt::HostBusy(wait) if now.plus(wait) < row.expires_at => {
                let next_at = now.plus(wait.max(POLL_INTERVAL));
                let defer = move |tx: &Tx<'_>| tx.outbox_defer(id, next_at);
                self.log_failure(self.mailbox.transact(defer).await);
                return DestinationHealth::Unknown;
            }
            Attempt::HostBusy(_) => (
                "there was no time to try".to_owned(),
                None,
                DestinationHealth::Unknown,
            ),
            Attempt::Deferred(why, wait) => (why, wait, DestinationHealth::Unknown),
            Attempt::Failed(why, wait) => (why, wait, DestinationHealth::Failing),
        };
        match self.next_attempt(&row, wait, now) {
            Some(next_at) => {
                count("failed");
                let defer = move |tx: &Tx<'_>| tx.outbox_retry(id, next_at, &why, now);
                self.log_failure(self.mailbox.transact(defer).await);
            }
            None => {
                self.report_undeliverable(&row, &next, &why).await;
                self.log_failure(self.finish(id, Outcome::GivenUp, Some(&why), now).await);
            }
        }
        health
    }

    /// When a message is tried again; `None`: its time is too short for that. The last attempt
    /// comes shortly before its end, however long the pause would be.
    fn next_attempt(
        &self,
        row: &Outbound,
        wait: Option<Duration>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let longest = self.settings.relay.longest_pause;
        // A mediator's `Retry-After` is heard, but does not end the message's time.
        let pause = pauses(longest)
            .wait(row.attempts.saturating_add(1), Spread::random())
            .max(wait.unwrap_or_default().min(longest));
        let last = row.expires_at.minus(2 * POLL_INTERVAL);
        match now.plus(pause) {
            next_at if next_at < row.expires_at => Some(next_at),
            _ if last > now.plus(POLL_INTERVAL) => Some(last),
            _ => None,
        }
    }

    /// What cannot be written leaves the message to be tried again when its lease has ended.
    fn log_failure(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::error!(%error, "the outbox cannot be written");
        }
    }

    async fn finish(
        &self,
        id: i64,
        outcome: Outcome,
        why: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let why = why.map(str::to_owned);
        count(match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Refused => "refused",
            Outcome::GivenUp => "given_up",
        });
        self.mailbox
            .transact(move |tx| tx.outbox_done(id, outcome, why.as_deref(), now))
            .await?;
        Ok(())
    }

    /// Tries the mediators of a message in turn; the first that takes it ends the attempt.
    async fn attempt(&self, next: &NextHop, row: &Outbound) -> Attempt {
        let mut worst = Attempt::Refused("no mediator is named".to_owned());
        // Each has its part of the time, so that the last is reached although the first ones hang.
        let share =
            ATTEMPT_TIMEOUT / u32::try_from(next.mediators.len().max(1)).unwrap_or(u32::MAX);
        for mediator in &next.mediators {
            let post = self.post(mediator, next, &row.body);
            let attempt = tokio::time::timeout(share, post).await;
            match attempt.unwrap_or_else(|_| Attempt::Failed(TIMED_OUT.to_owned(), None)) {
                Attempt::Delivered => return Attempt::Delivered,
                // As long as one of them may take it later, there is hope.
                Attempt::Refused(why) => {
                    if matches!(worst, Attempt::Refused(_)) {
                        worst = Attempt::Refused(why);
                    }
                }
                later => worst = later,
            }
        }
        worst
    }

    async fn post(&self, mediator: &MediatorDid, next: &NextHop, message: &[u8]) -> Attempt {
        let route = match self.route(mediator, next.peer.as_deref()).await {
            Ok(route) => route,
            Err(error @ RouteError::Wrapping) => return Attempt::Refused(error.to_string()),
            Err(error) => return Attempt::Failed(error.to_string(), None),
        };
        let wrapped = match route.wrap(message.to_vec(), next.expires) {
            Ok(wrapped) => bytes::Bytes::from(wrapped),
            Err(error) => return Attempt::Refused(error.to_string()),
        };
        let mut url = route.endpoint;
        // Where one redirect of the kind that keeps the method leads is tried, too.
        for redirects in 0..2 {
            let request = Request {
                priority: Priority::Mail,
                timeout: Some(POST_TIMEOUT),
                // Only the status counts.
                body: false,
                ..Request::new(url.clone(), Trust::Untrusted, 0)
            };
            let answer = self
                .resolver
                .net()
                .post(&request, MEDIA_TYPE, wrapped.clone())
                .await;
            match answer {
                Ok(answer) => match redirect(&url, &answer).filter(|_| redirects == 0) {
                    Some(target) => url = target,
                    None => return classify_response(&answer),
                },
                Err(error @ NetError::Refused(_)) => return Attempt::Refused(error.to_string()),
                Err(NetError::HostBusy { retry_after }) => return Attempt::HostBusy(retry_after),
                Err(error) => return Attempt::Failed(error.to_string(), None),
            }
        }
        Attempt::Failed("it redirects without end".to_owned(), None)
    }

    /// Tells the sender of a message that it was not delivered, as far as that can be done now.
    /// Reports never lead to reports.
    async fn report_undeliverable(&self, row: &Outbound, next: &NextHop, why: &str) {
        let sender = row.sender.as_deref().map(Party::resolve);
        let Some(Ok(sender)) = sender else {
            return;
        };
        let mut report = Report::new(UNDELIVERABLE, "{1} did not take the message: {2}");
        let tried: Vec<&str> = next.mediators.iter().map(MediatorDid::as_str).collect();
        report.args = vec![tried.join(", "), why.to_owned()];
        let mut message = Message::new(fresh_id(), &report)
            .pthid(row.thread.clone().unwrap_or_default())
            .created_time(self.clock.now().millis() / 1000);
        if let Some(forward) = &next.forward {
            message = message.ack(forward);
        }
        let Some(sealed) = self.seal(message, &sender) else {
            return;
        };
        let sealed: Arc<[u8]> = sealed.into();
        let now = self.clock.now();
        let mail = NewMessage {
            recipient: sender.canonical().to_owned(),
            hash: Sha256::digest(&sealed).into(),
            body: Arc::clone(&sealed),
            available_at: now,
            expires_at: now.plus(self.settings.time_to_live),
        };
        let kept = match self.enqueue(vec![mail]).await {
            Ok(outcomes) => outcomes
                .iter()
                .any(|one| *one != Enqueued::UnknownRecipient),
            Err(refused) => {
                tracing::warn!(%refused, "a report cannot be delivered");
                return;
            }
        };
        if kept {
            count("reported");
            return;
        }
        for hop in self
            .other_mediators_of(sender.canonical())
            .await
            .unwrap_or_default()
        {
            let relay = NewRelay {
                messages: vec![Arc::clone(&sealed)],
                sender: None,
                thread: String::new(),
                id: String::new(),
                not_before: now,
                expires_at: None,
            };
            if self.enqueue_relay(hop, relay).await.is_ok() {
                count("reported");
            }
        }
    }

    /// Encrypts a message of ours to a sender's first key.
    fn seal(&self, message: Message, to: &Party) -> Option<Vec<u8>> {
        let keys = self.keys();
        let own = keys.web_identity();
        let key = to
            .key_agreement()
            .iter()
            .find(|key| key.curve() == envelope::Curve::X25519)?;
        let message = message.from(own.party.did()).to(to.did());
        envelope::authcrypt(&message.to_vec(), &own.agreement, std::slice::from_ref(key)).ok()
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("atcomm_mediator_relay_total", "outcome" => outcome).increment(1);
}

/// What an answer means for the message.
fn classify_response(answer: &Response) -> Attempt {
    let status = answer.status;
    if status.is_success() {
        return Attempt::Delivered;
    }
    let why = format!("it answered {}", status.as_u16());
    match status {
        // The message itself is at fault, or is not wanted.
        StatusCode::BAD_REQUEST
        | StatusCode::FORBIDDEN
        | StatusCode::GONE
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Attempt::Refused(why),
        // A recipient's queue that is full, or a rate that somebody has used up.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Attempt::Deferred(why, answer.retry_after)
        }
        _ => Attempt::Failed(why, answer.retry_after),
    }
}

/// Where a redirect leads that keeps method and body; other redirects would lose the message.
fn redirect(url: &Url, answer: &Response) -> Option<Url> {
    if answer.status != StatusCode::TEMPORARY_REDIRECT {
        return None;
    }
    let location = answer.headers.get(LOCATION)?.to_str().ok()?;
    url.join(location).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn answer(status: u16, location: Option<&'static str>) -> Response {
        let mut headers = HeaderMap::new();
        if let Some(location) = location {
            headers.insert(LOCATION, HeaderValue::from_static(location));
        }
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: bytes::Bytes::new(),
            retry_after: None,
        }
    }

    #[test]
    fn only_a_fault_of_the_message_ends_its_attempts() {
        for status in [200, 202, 204] {
            assert!(matches!(
                classify_response(&answer(status, None)),
                Attempt::Delivered
            ));
        }
        for status in [400, 403, 410, 413, 415, 422] {
            assert!(
                matches!(
                    classify_response(&answer(status, None)),
                    Attempt::Refused(_)
                ),
                "{status}"
            );
        }
        for status in [429, 503] {
            assert!(
                matches!(
                    classify_response(&answer(status, None)),
                    Attempt::Deferred(..)
                ),
                "{status}"
            );
        }
        for status in [302, 308, 401, 404, 408, 500, 502, 507] {
            assert!(
                matches!(
                    classify_response(&answer(status, None)),
                    Attempt::Failed(..)
                ),
                "{status}"
            );
        }
    }

    #[test]
    fn one_kind_of_redirect_keeps_the_message() {
        let url = Url::parse("https://m.example.com/didcomm").unwrap();
        let target = |status, location| redirect(&url, &answer(status, location));
        let moved = target(307, Some("/other")).unwrap();
        assert_eq!(moved.as_str(), "https://m.example.com/other");
        for (status, location) in [
            (301, Some("/other")),
            (302, Some("/other")),
            (303, Some("/other")),
            (308, Some("/other")),
            (307, None),
            (202, Some("/other")),
        ] {
            assert!(target(status, location).is_none(), "{status}");
        }
    }
}
