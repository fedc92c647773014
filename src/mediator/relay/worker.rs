//! Empties the outbox.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use http::StatusCode;
use http::header::LOCATION;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::super::deliver::{Delivered, Mail};
use super::super::{Inner, Mediator, fresh_id, random};
use super::route::RouteError;
use super::{NewRelay, Next, pause};
use crate::clock::Timestamp;
use crate::didcomm::envelope;
use crate::didcomm::message::Message;
use crate::didcomm::party::Party;
use crate::didcomm::protocol::problem::Report;
use crate::net::{NetError, Reach, Request, Response};
use crate::store::{Outbound, Outcome, StoreError};
use crate::syntax::MediatorDid;

/// How long nothing happens without a bell: for what was put off, and what another process left.
const PATIENCE: Duration = Duration::from_secs(1);

/// Deliveries under way to one mediator.
const PER_DESTINATION: usize = 4;

/// Bytes of an answer that are read; only its status counts.
const ANSWER_CAP: usize = 64 * 1024;

/// Longest time for one delivery.
const TIMEOUT: Duration = Duration::from_secs(15);

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
        let inner = &self.mediator.inner;
        let mut under_way = UnderWay::default();
        let mut tasks: JoinSet<Done> = JoinSet::new();
        let mut next_look = Instant::now();
        loop {
            let room = inner.settings.relay.concurrency.max(1) > tasks.len();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(done) = tasks.join_next() => {
                    if let Ok(done) = done {
                        under_way.remove(&done);
                    }
                    next_look = Instant::now();
                    continue;
                }
                () = inner.destinations.bell.notified(), if room => {}
                () = sleep_until(next_look), if room => {}
            }
            next_look = Instant::now() + PATIENCE;
            let free = inner.settings.relay.concurrency.max(1) - tasks.len();
            match inner.due(free, under_way.busy()).await {
                Ok(due) => {
                    for row in due {
                        if !under_way.insert(&row) {
                            continue;
                        }
                        let mediator = self.mediator.clone();
                        tasks.spawn(async move {
                            let done = Done {
                                id: row.id,
                                destination: row.destination.clone(),
                            };
                            if let Err(error) = mediator.inner.try_row(row).await {
                                tracing::error!(%error, "the outbox cannot be written");
                            }
                            done
                        });
                    }
                }
                Err(error) => tracing::error!(%error, "the outbox cannot be read"),
            }
        }
        // A message that is on its way is better known to have arrived.
        let rest = async { while tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(Duration::from_secs(5), rest).await);
    }
}

struct Done {
    id: i64,
    destination: String,
}

/// What is being delivered.
#[derive(Default)]
struct UnderWay {
    ids: HashSet<i64>,
    by_destination: BTreeMap<String, usize>,
}

impl UnderWay {
    fn insert(&mut self, row: &Outbound) -> bool {
        let count = self.by_destination.get(&row.destination).copied();
        if count.unwrap_or(0) >= PER_DESTINATION || !self.ids.insert(row.id) {
            return false;
        }
        *self
            .by_destination
            .entry(row.destination.clone())
            .or_default() += 1;
        true
    }

    fn remove(&mut self, done: &Done) {
        self.ids.remove(&done.id);
        if let Some(count) = self.by_destination.get_mut(&done.destination) {
            *count -= 1;
            if *count == 0 {
                self.by_destination.remove(&done.destination);
            }
        }
    }

    /// Destinations with no place left.
    fn busy(&self) -> Vec<String> {
        let full = |(_, count): &(&String, &usize)| **count >= PER_DESTINATION;
        let busy = self.by_destination.iter().filter(full);
        busy.map(|(destination, _)| destination.clone()).collect()
    }
}

impl Inner {
    async fn due(&self, free: usize, busy: Vec<String>) -> Result<Vec<Outbound>, StoreError> {
        let now = self.clock.now();
        // Some of them are under way already.
        let limit = free + PER_DESTINATION * 16;
        let mut due = self
            .mailbox
            .query(move |q| q.outbox_due(now, limit, &busy))
            .await?;
        due.truncate(limit);
        Ok(due)
    }

    /// Tries one message and writes what came of it.
    async fn try_row(&self, row: Outbound) -> Result<(), StoreError> {
        let now = self.clock.now();
        let Ok(next) = serde_json::from_str::<Next>(&row.route) else {
            return Err(StoreError::Corrupt("a route in the outbox".to_owned()));
        };
        let attempt = match row.expires_at <= now {
            true => Attempt::Failed("its time has ended".to_owned(), None),
            false => self.attempt(&next, &row.body).await,
        };
        let now = self.clock.now();
        let (id, settings) = (row.id, &self.settings.relay);
        match attempt {
            Attempt::Delivered => self.end(id, Outcome::Delivered, now).await,
            Attempt::Refused(why) => {
                self.tell(&row, &next, &why).await?;
                self.end(id, Outcome::Refused, now).await
            }
            Attempt::Failed(why, wait) => {
                let pause = pause(row.attempts, settings.longest_pause, random());
                let next_at = now.plus(pause.max(wait.unwrap_or_default().min(settings.give_up)));
                if next_at < row.expires_at {
                    count("failed");
                    return self
                        .mailbox
                        .transact(move |tx| tx.outbox_retry(id, next_at, &why, now))
                        .await;
                }
                // The last attempt is not put off beyond the message's time.
                if row.expires_at > now && wait.is_none() && row.attempts > 0 {
                    let last = row.expires_at.minus(Duration::from_millis(1)).max(now);
                    if last > now.plus(Duration::from_secs(1)) {
                        count("failed");
                        return self
                            .mailbox
                            .transact(move |tx| tx.outbox_retry(id, last, &why, now))
                            .await;
                    }
                }
                self.tell(&row, &next, &why).await?;
                self.end(id, Outcome::GivenUp, now).await
            }
        }
    }

    async fn end(&self, id: i64, outcome: Outcome, now: Timestamp) -> Result<(), StoreError> {
        count(match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Refused => "refused",
            Outcome::GivenUp => "given_up",
        });
        self.mailbox
            .transact(move |tx| tx.outbox_done(id, outcome, now))
            .await?;
        Ok(())
    }

    /// Tries the mediators of a message in turn; the first that takes it ends the attempt.
    async fn attempt(&self, next: &Next, message: &[u8]) -> Attempt {
        let mut worst = Attempt::Refused("no mediator is named".to_owned());
        for mediator in &next.mediators {
            match self.post(mediator, next.peer.as_deref(), message).await {
                Attempt::Delivered => return Attempt::Delivered,
                // As long as one of them may take it later, there is hope.
                Attempt::Refused(why) => {
                    if matches!(worst, Attempt::Refused(_)) {
                        worst = Attempt::Refused(why);
                    }
                }
                failed @ Attempt::Failed(..) => worst = failed,
            }
        }
        worst
    }

    async fn post(&self, mediator: &MediatorDid, peer: Option<&str>, message: &[u8]) -> Attempt {
        let route = match self.route(mediator, peer).await {
            Ok(route) => route,
            Err(error @ RouteError::Wrapping) => return Attempt::Refused(error.to_string()),
            Err(error) => return Attempt::Failed(error.to_string(), None),
        };
        let wrapped = match route.wrap(message.to_vec()) {
            Ok(wrapped) => bytes::Bytes::from(wrapped),
            Err(error) => return Attempt::Refused(error.to_string()),
        };
        let mut url = route.endpoint;
        // Where one redirect of the kind that keeps the method leads is tried, too.
        for hop in 0..2 {
            let request = Request {
                timeout: Some(TIMEOUT),
                ..Request::new(url.clone(), Reach::Learnt, ANSWER_CAP)
            };
            let answer = self
                .resolver
                .net()
                .post(&request, MEDIA_TYPE, wrapped.clone())
                .await;
            match answer {
                Ok(answer) => match redirect(&url, &answer).filter(|_| hop == 0) {
                    Some(target) => url = target,
                    None => return judge(&answer),
                },
                // It was taken, and somebody talks too much.
                Err(NetError::TooLarge { .. }) => return Attempt::Delivered,
                Err(error @ NetError::Refused(_)) => return Attempt::Refused(error.to_string()),
                Err(error) => {
                    let wait = error.retry_after();
                    return Attempt::Failed(error.to_string(), wait);
                }
            }
        }
        Attempt::Failed("it redirects without end".to_owned(), None)
    }

    /// Tells the sender of a message that it was not delivered. Reports never lead to reports.
    async fn tell(&self, row: &Outbound, next: &Next, why: &str) -> Result<(), StoreError> {
        let Some(sender) = row
            .sender
            .as_deref()
            .and_then(|did| Party::resolve(did).ok())
        else {
            return Ok(());
        };
        let thread = row.thread.clone().unwrap_or_default();
        let mut report = Report::new(UNDELIVERABLE, "{1} did not take the message: {2}");
        let tried: Vec<&str> = next.mediators.iter().map(MediatorDid::as_str).collect();
        report.args = vec![tried.join(", "), why.to_owned()];
        let message = Message::new(fresh_id(), &report)
            .pthid(thread)
            .created_time(self.clock.now().millis() / 1000);
        let Some(sealed) = self.seal(message, &sender) else {
            return Ok(());
        };
        let now = self.clock.now();
        let mail = Mail {
            recipient: sender.canonical().to_owned(),
            hash: sha256(&sealed),
            body: sealed.clone(),
            available_at: now,
            expires_at: now.plus(self.settings.time_to_live),
        };
        let kept = match self.deliver(vec![mail]).await {
            Ok(outcomes) => outcomes.iter().any(|one| *one != Delivered::Unknown),
            // Told or not, the message has ended.
            Err(_) => return Ok(()),
        };
        if kept {
            count("reported");
            return Ok(());
        }
        if let Ok(Some(home)) = self.elsewhere(sender.canonical()).await {
            let relay = NewRelay {
                messages: vec![sealed],
                sender: None,
                thread: String::new(),
                not_before: now,
                expires_at: None,
            };
            if self.send_on(home, relay).await.is_ok() {
                count("reported");
            }
        }
        Ok(())
    }

    /// Encrypts a message of ours to a sender's first key.
    fn seal(&self, message: Message, to: &Party) -> Option<Vec<u8>> {
        let keys = self.keys();
        let own = keys.current();
        let key = to
            .key_agreement()
            .iter()
            .find(|key| key.curve() == envelope::Curve::X25519)?;
        let message = message.from(own.party.did()).to(to.did());
        envelope::authcrypt(&message.to_vec(), &own.agreement, std::slice::from_ref(key)).ok()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

fn count(outcome: &'static str) {
    metrics::counter!("atcomm_mediator_relay_total", "outcome" => outcome).increment(1);
}

/// What an answer means for the message.
fn judge(answer: &Response) -> Attempt {
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
            assert!(matches!(judge(&answer(status, None)), Attempt::Delivered));
        }
        for status in [400, 403, 410, 413, 415, 422] {
            assert!(
                matches!(judge(&answer(status, None)), Attempt::Refused(_)),
                "{status}"
            );
        }
        for status in [302, 308, 401, 404, 408, 429, 500, 502, 503, 507] {
            assert!(
                matches!(judge(&answer(status, None)), Attempt::Failed(..)),
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

    #[test]
    fn inv7_one_mediator_takes_a_bounded_number_of_places() {
        let row = |id: i64, destination: &str| Outbound {
            id,
            destination: destination.to_owned(),
            route: String::new(),
            hash: [0; 32],
            body: Vec::new(),
            sender: None,
            thread: None,
            attempts: 0,
            next_at: Timestamp::default(),
            created_at: Timestamp::default(),
            expires_at: Timestamp::default(),
        };
        let mut under_way = UnderWay::default();
        for id in 0..4 {
            assert!(under_way.insert(&row(id, "did:web:a.example")));
        }
        assert!(!under_way.insert(&row(4, "did:web:a.example")));
        assert!(under_way.insert(&row(5, "did:web:b.example")));
        assert!(
            !under_way.insert(&row(5, "did:web:b.example")),
            "twice at once"
        );
        assert_eq!(under_way.busy(), ["did:web:a.example"]);
        under_way.remove(&Done {
            id: 0,
            destination: "did:web:a.example".to_owned(),
        });
        assert!(under_way.busy().is_empty() && under_way.insert(&row(4, "did:web:a.example")));
    }
}
