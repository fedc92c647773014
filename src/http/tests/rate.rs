//! The limit on the requests of one address, and its headers.

use super::harness::Answer;
use super::*;

const EXPLAIN: &str = "/xrpc/at.didcomm.directory.explainAccount";

fn limited(rate_limit: u32, bypass: &[&str]) -> HttpSettings {
    HttpSettings {
        rate_limit,
        rate_limit_bypass: bypass.iter().map(|one| one.parse().unwrap()).collect(),
        ..HttpSettings::default()
    }
}

/// Asks as a client with this address, behind a proxy.
async fn ask_from(server: &TestServer, address: &str) -> Answer {
    let target = format!("{EXPLAIN}?did={}", server.did);
    server
        .get_with(&target, &[("x-forwarded-for", address)])
        .await
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    answer.headers.get(name).cloned()
}

#[tokio::test]
async fn inv7_an_address_makes_so_many_requests_and_is_told_how_many_are_left() {
    let http = limited(3, &[]);
    let server = Setup {
        http,
        ..Setup::default()
    };
    let server = server.start().await;
    let now = server.resolver.clock().now().millis().unsigned_abs() / 1000;
    for (n, left) in [(1, "2"), (2, "1"), (3, "0")] {
        // One household has all addresses of an IPv6 /64.
        let answer = ask_from(&server, &format!("2001:db8::{n}")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(header(&answer, "ratelimit-limit").as_deref(), Some("3"));
        assert_eq!(
            header(&answer, "ratelimit-remaining").as_deref(),
            Some(left)
        );
        assert_eq!(
            header(&answer, "ratelimit-policy").as_deref(),
            Some("3;w=300")
        );
        let reset: u64 = answer.headers["ratelimit-reset"].parse().unwrap();
        assert!(
            (now + 100 * n..=now + 100 * n + 2).contains(&reset),
            "{reset} {now}"
        );
    }
    let refused = ask_from(&server, "2001:db8::4").await;
    assert_eq!(refused.error(), (429, "RateLimitExceeded".to_owned()));
    assert_eq!(refused.headers["retry-after"], "100");
    assert_eq!(refused.headers["ratelimit-remaining"], "0");
    for other in ["2001:db8:0:1::1", "192.0.2.1"] {
        assert_eq!(ask_from(&server, other).await.status, 200, "{other}");
    }
    // Neither monitoring nor what is answered from memory is counted.
    let client = [("x-forwarded-for", "2001:db8::1")];
    let health = server.get_with("/xrpc/_health", &client).await;
    assert_eq!(
        (health.status, header(&health, "ratelimit-limit")),
        (200, None)
    );
    let view = format!("{RESOLVE}?actor={HANDLE}");
    assert_eq!(server.get_with(&view, &client).await.status, 429);
    assert_eq!(server.get(&view).await.status, 200);
    assert_eq!(server.get_with(&view, &client).await.status, 200);
}

#[tokio::test]
async fn addresses_of_the_bypass_list_are_not_limited_and_others_are() {
    let resolve = ResolveSettings {
        misses_per_minute: 1,
        ..ResolveSettings::default()
    };
    let server = Setup {
        http: limited(2, &["192.0.2.0/24", "2001:db8::/32"]),
        resolve,
        ..Setup::default()
    };
    let server = server.start().await;
    for address in ["192.0.2.7", "2001:db8:1::1"] {
        for _ in 0..5 {
            let answer = ask_from(&server, address).await;
            assert_eq!(
                (answer.status, header(&answer, "ratelimit-limit")),
                (200, None)
            );
        }
    }
    // Nor are their looks at the network.
    let look = |address: &'static str, n: u32| {
        let target = format!("{RESOLVE}?actor=printer{n}.local");
        let server = &server;
        async move {
            server
                .get_with(&target, &[("x-forwarded-for", address)])
                .await
        }
    };
    for n in 0..5 {
        assert_eq!(look("192.0.2.7", n).await.error().1, "HandleNotFound");
    }
    assert_eq!(look("198.51.100.1", 5).await.error().1, "HandleNotFound");
    let refused = look("198.51.100.1", 6).await;
    assert_eq!(refused.error(), (429, "RateLimitExceeded".to_owned()));
    // The limit that refuses is the one that is told of.
    assert_eq!(refused.headers["ratelimit-policy"], "1;w=60");
    assert_eq!(refused.headers["ratelimit-remaining"], "0");
    assert_eq!(
        look("198.51.100.1", 7).await.headers["ratelimit-policy"],
        "2;w=300"
    );
}

#[tokio::test]
async fn without_a_limit_nothing_is_counted() {
    let server = Setup {
        http: limited(0, &[]),
        ..Setup::default()
    };
    let server = server.start().await;
    for _ in 0..20 {
        let answer = ask_from(&server, "192.0.2.1").await;
        assert_eq!(
            (answer.status, header(&answer, "ratelimit-limit")),
            (200, None)
        );
    }
}
