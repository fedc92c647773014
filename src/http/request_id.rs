//! The id of a request, by which lines of the log and a response belong together.
//!
//! Ids are made here. One that a client or a proxy sends is not taken over: a client could give many
//! requests the same id, and an id that a proxy logs with addresses would join them with what is
//! logged here (invariant 9). A proxy that wants to know the id logs the header of the response.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The key of the ids of this process: an id does not tell how many requests there were before.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Number of the next request.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The id of a request: 64 bits, shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RequestId(u64);

impl RequestId {
    /// Makes the id of a new request.
    pub(super) fn new() -> Self {
        Self(KEY.hash_one(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Writes the id into the headers of the response.
    pub(super) fn write(self, response: &mut Response) {
        // Hexadecimal digits are a value of a header.
        if let Ok(value) = HeaderValue::from_str(&self.to_string()) {
            response.headers_mut().insert(HEADER, value);
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_are_no_count() {
        let ids: Vec<RequestId> = (0..1000).map(|_| RequestId::new()).collect();
        let different: HashSet<&RequestId> = ids.iter().collect();
        assert_eq!(different.len(), 1000);
        let rising = ids.windows(2).filter(|pair| pair[0].0 < pair[1].0);
        assert!((300..700).contains(&rising.count()));
        assert!(ids.iter().all(|id| id.to_string().len() == 16));
    }
}
