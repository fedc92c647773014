//! One attempt to deliver a message: the mediators of its hop in turn, each by one request.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::LOCATION;
use tokio::time::timeout;
use url::Url;

use super::route::{Ends, RouteError};
use super::{Destinations, NextHop};
use crate::store::Outbound;
use atcomm_net::net::{NetError, Priority, Request, Response, Trust};
use atcomm_proto::syntax::MediatorDid;

/// Longest time for one delivery.
const POST_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest time for all mediators of one message together.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// Reason of a failure where a mediator uses up its time.
const TIMED_OUT: &str = "it takes too long";

const MEDIA_TYPE: &str = "application/didcomm-encrypted+json";

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
    /// Our own limits for a host allow no request now.
    HostBusy(Duration),
}

impl Destinations {
    /// Tries the mediators of a hop in turn; the first that takes the message ends the attempt.
    pub(super) async fn attempt(&self, hop: &NextHop, row: &Outbound) -> Attempt {
        let mut worst = Attempt::Refused("no mediator is named".to_owned());
        // Each has its share of the time, so that the last is reached although the first ones hang.
        let share = ATTEMPT_TIMEOUT / u32::try_from(hop.mediators.len().max(1)).unwrap_or(u32::MAX);
        for mediator in &hop.mediators {
            let attempt = timeout(share, self.post(mediator, hop, row)).await;
            match attempt.unwrap_or_else(|_| Attempt::Failed(TIMED_OUT.to_owned(), None)) {
                Attempt::Delivered => return Attempt::Delivered,
                // A refusal counts only if every mediator refuses: any other may take the message
                // later.
                Attempt::Refused(reason) => {
                    if matches!(worst, Attempt::Refused(_)) {
                        worst = Attempt::Refused(reason);
                    }
                }
                later => worst = later,
            }
        }
        worst
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
            let request = Request {
                priority: Priority::Mail,
                timeout: Some(POST_TIMEOUT),
                // Only the status counts.
                body: false,
                ..Request::new(url.clone(), Trust::Untrusted, 0)
            };
            let net = self.resolver.net();
            match net.post(&request, MEDIA_TYPE, wrapped.clone()).await {
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
}

/// Classifies a response by its meaning for the message.
fn classify_response(answer: &Response) -> Attempt {
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
