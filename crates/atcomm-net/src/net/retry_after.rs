//! The pause that a refusal asks for.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use atcomm_proto::clock::Timestamp;

/// Returns the pause that a refusal (429, 503) asks for: `Retry-After` in seconds or as a date
/// (RFC 9110 section 10.2.3). Where a 429 has none, `RateLimit-Reset`, which PDSes send as a Unix
/// time.
pub(super) fn requested(
    status: StatusCode,
    headers: &HeaderMap,
    now: Timestamp,
) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let until = |millis: i64| Timestamp::from_millis(millis).since(now);
    let wait = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            text(RETRY_AFTER.as_str()).and_then(|value| match value.parse::<u64>() {
                Ok(seconds) => Some(Duration::from_secs(seconds)),
                Err(_) => chrono::DateTime::parse_from_rfc2822(value)
                    .ok()
                    .map(|date| until(date.timestamp_millis())),
            })
        }
        _ => return None,
    };
    wait.or_else(|| {
        let reset = text("ratelimit-reset").filter(|_| status == StatusCode::TOO_MANY_REQUESTS)?;
        let seconds: i64 = reset.parse().ok()?;
        Some(until(seconds.checked_mul(1000)?))
    })
    .filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ask(status: u16, name: &'static str, value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        let now = Timestamp::from_millis(1_445_412_420_000); // Wed, 21 Oct 2015 07:27:00 GMT
        requested(StatusCode::from_u16(status).unwrap(), &headers, now)
    }

    #[test]
    fn seconds_dates_and_resets() {
        let minute = Some(Duration::from_secs(60));
        assert_eq!(ask(429, "retry-after", "60"), minute);
        assert_eq!(ask(503, "retry-after", " 60 "), minute);
        assert_eq!(
            ask(503, "retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"),
            minute
        );
        assert_eq!(ask(429, "ratelimit-reset", "1445412480"), minute);
        assert_eq!(ask(503, "ratelimit-reset", "1445412480"), None);
        assert_eq!(ask(200, "retry-after", "60"), None);
        for odd in [
            "",
            "0",
            "-1",
            "soon",
            "1e9",
            "Wed, 21 Oct 2015 07:26:00 GMT",
        ] {
            assert_eq!(ask(429, "retry-after", odd), None, "{odd}");
        }
        assert_eq!(ask(429, "ratelimit-reset", "9223372036854775807"), None);
    }
}
