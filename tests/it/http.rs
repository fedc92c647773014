//! A plain HTTP client for tests, and waiting.

use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;

/// Timeout of waiting for an outcome, far longer than it takes on a busy machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(25);

/// The runtime under the blocking helpers of all tests.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    // All TLS users of this process share one provider, as in the program itself.
    drop(rustls::crypto::ring::default_provider().install_default());
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    let _runtime = RUNTIME.enter();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(45))
        // Node closes a connection that is idle for five seconds; a request at that moment is lost.
        .pool_idle_timeout(Duration::from_secs(2))
        .build()
        .expect("a client")
});

/// A complete response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("text in a header"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request. Panics if there is no response.
pub(crate) fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<Vec<u8>>,
) -> Answer {
    try_request(method, url, headers, body).unwrap_or_else(|e| panic!("{method} {url}: {e}"))
}

/// Sends a request.
pub(crate) fn try_request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<Vec<u8>>,
) -> Result<Answer, reqwest::Error> {
    let method = method.parse().expect("a method");
    RUNTIME.block_on(async {
        let mut request = CLIENT.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await?.to_vec(),
        })
    })
}

/// Repeats `attempt` until it returns a value. `what` names the awaited outcome in the panic at the
/// timeout.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> T {
    within(WAIT_TIMEOUT, what, attempt)
}

/// Repeats `attempt` like [`eventually`], with another timeout.
#[track_caller]
pub(crate) fn within<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        sleep(RETRY_INTERVAL);
    }
}

/// Asserts repeatedly for the time `span` that `holds` returns true.
#[track_caller]
pub(crate) fn throughout(span: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < span {
        assert!(holds(), "{what}");
        sleep(RETRY_INTERVAL);
    }
}
