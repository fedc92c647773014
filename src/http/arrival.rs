//! How a request arrives that the service sends to itself by way of its public address: what the
//! proxies in between do to it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;

use super::client_address::{Network, last_forwarded};
use super::routes::DID_DOCUMENT;
use atcomm_proto::didcomm::message::fresh_id;

/// Parameter of the query that holds the id of such a request.
const PARAMETER: &str = "check=";

/// A request to oneself, as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Address of the connection: the last proxy's, where there is one.
    pub peer: IpAddr,
    /// Whether `http.trusted_proxies` names it.
    pub is_trusted: bool,
    /// The last entry of `X-Forwarded-For`, which the last proxy writes.
    pub forwarded: Option<IpAddr>,
}

/// Waits for one request at a time. Cloning is cheap, and clones share the state.
#[derive(Clone, Default)]
pub struct Arrivals(Arc<Mutex<Option<Expected>>>);

struct Expected {
    /// Random, so that no other client can send such a request.
    id: String,
    arrival: Option<Arrival>,
}

impl Arrivals {
    /// Expects a request from now on, and no earlier one any more. Returns the query that the request
    /// for the DID document has to have.
    pub fn expect(&self) -> String {
        let id = fresh_id();
        let query = format!("{PARAMETER}{id}");
        *self.lock() = Some(Expected { id, arrival: None });
        query
    }

    /// Returns the arrival of the request that was expected last, if it came.
    pub fn take(&self) -> Option<Arrival> {
        self.lock().take()?.arrival
    }

    /// Notes a request if it is the one that is expected.
    pub(super) fn note(&self, request: &Request, peer: IpAddr, trusted: &[Network]) {
        if request.uri().path() != DID_DOCUMENT.path {
            return;
        }
        let query = request.uri().query();
        let Some(id) = query.and_then(|query| query.strip_prefix(PARAMETER)) else {
            return;
        };
        if let Some(expected) = &mut *self.lock()
            && expected.id == id
        {
            let peer = peer.to_canonical();
            expected.arrival = Some(Arrival {
                peer,
                is_trusted: trusted.iter().any(|network| network.contains(peer)),
                forwarded: last_forwarded(request.headers()),
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Expected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(uri: &str, forwarded: &[&str]) -> Request {
        let mut request = Request::builder().uri(uri);
        for line in forwarded {
            request = request.header("x-forwarded-for", *line);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn only_the_expected_request_is_noted() {
        let (peer, trusted) = ("10.0.0.2".parse().unwrap(), ["10.0.0.0/8".parse().unwrap()]);
        let arrivals = Arrivals::default();
        let path = DID_DOCUMENT.path;
        arrivals.note(&request(&format!("{path}?check="), &[]), peer, &trusted);
        assert_eq!(arrivals.take(), None);
        let query = arrivals.expect();
        for other in [
            path.to_owned(),
            format!("{path}?check="),
            format!("{path}?{query}0"),
            format!("/other?{query}"),
        ] {
            arrivals.note(&request(&other, &[]), peer, &trusted);
        }
        let earlier = query;
        let query = arrivals.expect();
        arrivals.note(&request(&format!("{path}?{earlier}"), &[]), peer, &trusted);
        assert_eq!(arrivals.clone().take(), None);
        let query = {
            drop(query);
            arrivals.expect()
        };
        let forwarded = ["192.0.2.1", "192.0.2.1, 203.0.113.5"];
        arrivals.note(
            &request(&format!("{path}?{query}"), &forwarded),
            peer,
            &trusted,
        );
        let arrival = Arrival {
            peer,
            is_trusted: true,
            forwarded: "203.0.113.5".parse().ok(),
        };
        assert_eq!(arrivals.take(), Some(arrival));
        assert_eq!(arrivals.take(), None);
    }
}
