//! Plain HTTP for tests, and waiting for what takes a while.

use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;

/// How long anything may take that is only a matter of time. Far longer than it takes on a busy
/// machine: reaching it is a failure.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(25);

/// The runtime below the blocking helpers of all tests.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    // One provider for every TLS user of this process, as in the program itself.
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
        // Node closes what was idle for five seconds; a request that meets that is lost.
        .pool_idle_timeout(Duration::from_secs(2))
        .build()
        .expect("a client")
});

/// A whole answer.
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

/// One request; panics where there is no answer.
pub(crate) fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<Vec<u8>>,
) -> Answer {
    try_request(method, url, headers, body).unwrap_or_else(|e| panic!("{method} {url}: {e}"))
}

/// One request.
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

/// The first answer of `attempt`, which is tried until there is one; `what` says what was waited
/// for in vain.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> T {
    within(WAIT_TIMEOUT, what, attempt)
}

/// The same with another deadline.
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

/// Holds for as long as `span`: what must not happen is looked for again and again.
#[track_caller]
pub(crate) fn throughout(span: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < span {
        assert!(holds(), "{what}");
        sleep(RETRY_INTERVAL);
    }
}
