//! One attempt to deliver a message: the mediators of its hop in turn, each by one request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::LOCATION;
use tokio::time::timeout;
use url::Url;

use super::consent::{MEDIA_TYPE, NoConsent};
use super::route::{Ends, RouteError};
use super::schedule::{Response, Schedule, domain_of_url};
use super::standing::Health;
use super::{Destinations, NextHop, POLL_INTERVAL};
use crate::store::Outbound;
use atcomm_net::net::{self, NetError, Priority, Request, Trust};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::MediatorDid;

/// Longest time for one delivery.
const POST_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest time for all mediators of one message together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// Reason of a failure where a mediator uses up its time.
const TIMED_OUT: &str = "it takes too long";

/// How an attempt went.
#[derive(Debug)]
pub(super) enum Attempt {
    Delivered,
    /// The mediator will not take the message, however often it is tried.
    Refused(String),
    /// A later attempt may succeed, not before the time given.
    Failed(String, Option<Duration>),
    /// The mediator answers, and does not take this message now.
    Deferred(String, Option<Duration>),
    /// Nothing was posted: our own limits allow no request now.
    Untried(Duration),
}

impl Attempt {
    /// Returns what the attempt shows of the mediator; `None`: nothing.
    fn shown(&self) -> Option<Health> {
        match self {
            Self::Delivered | Self::Refused(_) => Some(Health::Answering),
            Self::Failed(_, asked) => Some(Health::Failing(*asked)),
            Self::Deferred(_, asked) => Some(Health::Deferring(*asked)),
            Self::Untried(_) => None,
        }
    }

    fn response(&self) -> Response {
        match self {
            Self::Delivered | Self::Refused(_) => Response::Answered,
            Self::Failed(..) => Response::Failed,
            Self::Deferred(..) | Self::Untried(_) => Response::Unknown,
        }
    }

    /// Returns what counts of two attempts with different mediators. A refusal counts only if every
    /// mediator refuses: any other may take the message later. What was tried counts more than what
    /// was not.
    fn or(self, later: Self) -> Self {
        match (self, later) {
            (Self::Untried(one), Self::Untried(other)) => Self::Untried(one.min(other)),
            (earlier, Self::Refused(_)) => earlier,
            (Self::Refused(_), later) => later,
            (earlier, Self::Untried(_)) => earlier,
            (_, later) => later,
        }
    }
}

/// The slot of one delivery, moved from mediator to mediator. Dropping it gives the slot back.
pub(super) struct Slot {
    pub(super) schedule: Arc<Mutex<Schedule>>,
    pub(super) clock: Clock,
    pub(super) id: u64,
}

impl Slot {
    fn enter(&self, mediator: &MediatorDid) -> bool {
        lock(&self.schedule).enter(self.id, mediator, self.clock.now())
    }

    fn leave(&self, response: Response) {
        lock(&self.schedule).leave(self.id, response, self.clock.now());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.schedule).free(self.id, self.clock.now());
    }
}

impl Destinations {
    /// Tries the mediators of a hop in turn; the first that takes the message ends the attempt.
    /// Those that have failed lately come last, so that one message pays for mediators that hang.
    pub(super) async fn attempt(&self, hop: &NextHop, row: &Outbound, slot: &Slot) -> Attempt {
        let mut mediators: Vec<_> = hop.mediators.iter().collect();
        mediators.sort_by_cached_key(|mediator| self.standings.failures(mediator.as_str()));
        // Each has its share of the time, so that the last is reached although the first ones hang.
        let share = ATTEMPT_TIMEOUT / u32::try_from(mediators.len().max(1)).unwrap_or(u32::MAX);
        let mut result: Option<Attempt> = None;
        for mediator in mediators {
            let attempt = self.attempt_one(mediator, hop, row, slot, share).await;
            if matches!(attempt, Attempt::Delivered) {
                return attempt;
            }
            result = Some(match result {
                Some(earlier) => earlier.or(attempt),
                None => attempt,
            });
        }
        result.unwrap_or_else(|| Attempt::Refused("no mediator is named".to_owned()))
    }

    /// Tries one mediator, within `share`.
    async fn attempt_one(
        &self,
        mediator: &MediatorDid,
        hop: &NextHop,
        row: &Outbound,
        slot: &Slot,
        share: Duration,
    ) -> Attempt {
        // The document may be what fails.
        let request = match self.standings.request(mediator.as_str(), None) {
            Ok(request) => request,
            Err(wait) => return Attempt::Untried(wait),
        };
        if !slot.enter(mediator) {
            request.end(None);
            return Attempt::Untried(POLL_INTERVAL);
        }
        let attempt = timeout(share, self.post(mediator, hop, row)).await;
        let attempt = attempt.unwrap_or_else(|_| Attempt::Failed(TIMED_OUT.to_owned(), None));
        request.end(attempt.shown());
        slot.leave(attempt.response());
        attempt
    }

    async fn post(&self, mediator: &MediatorDid, hop: &NextHop, row: &Outbound) -> Attempt {
        let route = match self.route(mediator, hop).await {
            Ok(route) => route,
            Err(error @ (RouteError::Wrapping | RouteError::Indirect)) => {
                return Attempt::Refused(error.to_string());
            }
            Err(error) => return Attempt::Failed(error.to_string(), None),
        };
        let ends = Ends {
            sender: hop.expires,
            // Never earlier than the end here, or another mediator would drop what is still tried.
            carried: row.expires_at.millis().saturating_add(999) / 1000,
        };
        let wrapped = match route.wrap(row.body.clone(), ends) {
            Ok(wrapped) => Bytes::from(wrapped),
            Err(error) => return Attempt::Refused(error.to_string()),
        };
        let mut url = route.endpoint;
        // The endpoint, and where one redirect of the kind that keeps the method leads.
        for redirects in 0..2 {
            let answer = match self.post_to(&route.named_by, &url, &wrapped).await {
                Ok(answer) => answer,
                Err(attempt) => return attempt,
            };
            match redirect(&url, &answer).filter(|_| redirects == 0) {
                Some(target) => url = target,
                None => return classify_response(&answer),
            }
        }
        Attempt::Failed("it redirects without end".to_owned(), None)
    }

    /// Posts a message to one address, if its host agrees and its standing allows it.
    async fn post_to(
        &self,
        named_by: &MediatorDid,
        url: &Url,
        message: &Bytes,
    ) -> Result<net::Response, Attempt> {
        let consent = self.check_consent(named_by, url).await;
        consent.map_err(|refusal| match refusal {
            NoConsent::Later(wait) => Attempt::Untried(wait),
            NoConsent::Silent(_) => Attempt::Failed(refusal.to_string(), None),
            NoConsent::NoEndpoint(_) | NoConsent::Forbidden(_) => {
                Attempt::Refused(refusal.to_string())
            }
        })?;
        let trial = self
            .standings
            .request(url.as_str(), Some(&domain_of_url(url)))
            .map_err(Attempt::Untried)?;
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
            .post(&request, MEDIA_TYPE, message.clone())
            .await;
        let result = answer.map_err(|error| match error {
            NetError::Refused(_) => Attempt::Refused(error.to_string()),
            NetError::HostBusy { retry_after } => Attempt::Untried(retry_after),
            error => Attempt::Failed(error.to_string(), None),
        });
        trial.end(match &result {
            Ok(answer) if redirect(url, answer).is_some() => Some(Health::Answering),
            Ok(answer) => classify_response(answer).shown(),
            Err(attempt) => attempt.shown(),
        });
        result
    }
}

/// Locks the schedule. A panic elsewhere leaves it whole enough to go on with.
pub(super) fn lock(schedule: &Mutex<Schedule>) -> MutexGuard<'_, Schedule> {
    schedule.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Classifies a response by its meaning for the message.
fn classify_response(answer: &net::Response) -> Attempt {
    let status = answer.status;
    if status.is_success() {
        return Attempt::Delivered;
    }
    let why = format!("it answered {}", status.as_u16());
    match status {
        // The message is malformed or not wanted.
        StatusCode::BAD_REQUEST
        | StatusCode::FORBIDDEN
        | StatusCode::GONE
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Attempt::Refused(why),
        // The recipient's queue is full, or a rate is used up.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Attempt::Deferred(why, answer.retry_after)
        }
        _ => Attempt::Failed(why, answer.retry_after),
    }
}

/// Returns the target of a redirect that keeps method and body. Other redirects would lose the
/// message.
fn redirect(url: &Url, answer: &net::Response) -> Option<Url> {
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

    fn answer(status: u16, location: Option<&'static str>) -> net::Response {
        let mut headers = HeaderMap::new();
        if let Some(location) = location {
            headers.insert(LOCATION, HeaderValue::from_static(location));
        }
        net::Response {
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
