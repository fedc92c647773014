//! Several accounts in one answer, and what the directory has of one.

use super::*;

const MANY: &str = "/xrpc/at.didcomm.directory.resolveRecipients";
const FIND: &str = "/xrpc/at.didcomm.directory.findByPeer";
const EXPLAIN: &str = "/xrpc/at.didcomm.directory.explainAccount";
const STATUS: &str = "/xrpc/com.atproto.sync.getRepoStatus";
const HISTORY: &str = "/xrpc/at.didcomm.directory.getHistory";

/// Returns a query that names each of these.
fn actors(names: &[&str]) -> String {
    let pairs: Vec<String> = names.iter().map(|name| format!("actors={name}")).collect();
    format!("{MANY}?{}", pairs.join("&"))
}

#[tokio::test]
async fn each_actor_is_answered_once_in_order_and_failures_are_typed() {
    let server = TestServer::new().await;
    let alone = server.get(&format!("{RESOLVE}?actor={}", server.did)).await;
    let whole = server
        .get(&actors(&[&server.did, HANDLE, &server.did]))
        .await;
    let answer = whole.json();
    let view = alone.json();
    assert_eq!(answer["recipients"], json!([view, view, view]));
    assert_eq!(answer["failures"], json!([]));
    assert_eq!(whole.headers["cache-control"], "public, max-age=15");
    let tag = [("if-none-match", whole.headers["etag"].as_str())];
    let same = actors(&[&server.did, HANDLE, &server.did]);
    assert_eq!(server.get_with(&same, &tag).await.status, 304);
    let other = server.get_with(&actors(&[&server.did]), &tag).await;
    assert_eq!(other.status, 200);

    let partly = server
        .get(&actors(&[UNKNOWN, HANDLE, "printer.local"]))
        .await;
    let answer = partly.json();
    assert_eq!(
        (partly.status, &answer["recipients"]),
        (200, &json!([view]))
    );
    assert_eq!(partly.headers["cache-control"], "no-store");
    let failures = answer["failures"].as_array().unwrap();
    let typed: Vec<_> = failures
        .iter()
        .map(|one| {
            (
                one["actor"].as_str().unwrap(),
                one["error"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        typed,
        [
            (UNKNOWN, "UpstreamFailure"),
            ("printer.local", "HandleNotFound")
        ]
    );
}

#[tokio::test]
async fn inv7_each_look_is_out_of_the_allowance_and_known_accounts_need_none() {
    let resolve = ResolveSettings {
        misses_per_minute: 3,
        ..ResolveSettings::default()
    };
    let server = Setup {
        resolve,
        ..Setup::default()
    };
    let server = server.start().await;
    // As many as are allowed, of the greatest length.
    let label = "a".repeat(61);
    let names: Vec<String> = (100..199)
        .map(|n| format!("{label}.{label}.{label}.{}{n}.local", "b".repeat(58)))
        .collect();
    assert!(names.iter().all(|name| name.len() == 253));
    let mut asked: Vec<&str> = names.iter().map(String::as_str).collect();
    asked.push(HANDLE);
    let answer = server.get(&actors(&asked)).await.json();
    assert_eq!(answer["recipients"].as_array().map(Vec::len), Some(1));
    let failures = answer["failures"].as_array().unwrap();
    let count = |name: &str| failures.iter().filter(|one| one["error"] == name).count();
    assert_eq!(
        (count("HandleNotFound"), count("RateLimitExceeded")),
        (3, 96)
    );
    for failure in failures {
        let is_limited = failure["error"] == "RateLimitExceeded";
        assert_eq!(failure["retryAfter"].is_u64(), is_limited, "{failure}");
    }
    // One look for an account that is named twice.
    let server = Setup::default().start().await;
    let answer = server.get(&actors(&["a.local"; 100])).await.json();
    let failures = answer["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 100);
    assert!(failures.iter().all(|one| one["error"] == "HandleNotFound"));
}

#[tokio::test]
async fn what_is_asked_of_many_is_bounded_and_errors_name_the_parameter() {
    let server = TestServer::new().await;
    let long = format!("{MANY}?actors={}", "a".repeat(28 * 1024));
    for target in [
        MANY.to_owned(),
        format!("{MANY}?actor={HANDLE}"),
        format!("{MANY}?actors="),
        actors(&[HANDLE, "no handle".replace(' ', "%20").as_str()]),
        actors(&[HANDLE; 101]),
        long,
    ] {
        let answer = server.get(&target).await;
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert_eq!(answer.error(), (400, "InvalidRequest".to_owned()));
        assert!(message.contains("parameter actors"), "{message}");
    }
    // The longest queries of other methods are shorter.
    let answer = server
        .get(&format!("{RESOLVE}?actor={}", "a".repeat(7000)))
        .await;
    assert!(
        answer.json()["message"]
            .as_str()
            .unwrap()
            .contains("parameter actor ")
    );
}

#[tokio::test]
async fn claimants_of_a_peer_are_found_by_the_whole_did_peer() {
    let server = TestServer::new().await;
    let view = server
        .get(&format!("{RESOLVE}?actor={HANDLE}"))
        .await
        .json();
    let peer = view["peer"]["did"].as_str().unwrap();
    let escaped: String = peer.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for target in [
        format!("{FIND}?peer={peer}"),
        format!("{FIND}?peer={escaped}"),
    ] {
        let answer = server.get(&target).await;
        let whole = json!({"claimants": [view], "ambiguous": false, "more": false});
        assert_eq!(answer.json(), whole);
        let tag = [("if-none-match", answer.headers["etag"].as_str())];
        assert_eq!(server.get_with(&target, &tag).await.status, 304);
    }
    let unclaimed = "did:peer:2.Ez6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc";
    let answer = server.get(&format!("{FIND}?peer={unclaimed}")).await.json();
    let none = json!({"claimants": [], "ambiguous": false, "more": false});
    assert_eq!(answer, none);
    for bad in [
        "",
        "?peer=",
        "?peer=did:plc:ewvi7nxzyoun6zhxrhs64oiz",
        "?peer=did:peer:2",
    ] {
        let answer = server.get(&format!("{FIND}{bad}")).await;
        assert!(
            answer.json()["message"]
                .as_str()
                .unwrap()
                .contains("parameter peer")
        );
        assert_eq!(answer.error(), (400, "InvalidRequest".to_owned()));
    }
}

#[tokio::test]
async fn an_account_is_explained_and_answers_about_it_name_the_revision() {
    let server = TestServer::new().await;
    let view = server.get(&format!("{RESOLVE}?actor={HANDLE}")).await;
    let rev = view.json()["keyPackage"]["rev"]
        .as_str()
        .unwrap()
        .to_owned();
    // Cached, too.
    let cached = server.get(&format!("{RESOLVE}?actor={HANDLE}")).await;
    let explained = server.get(&format!("{EXPLAIN}?did={}", server.did)).await;
    let status = server.get(&format!("{STATUS}?did={}", server.did)).await;
    let proof = server.get(&format!("{PROOF}?did={}", server.did)).await;
    let history = server.get(&format!("{HISTORY}?did={}", server.did)).await;
    for answer in [&view, &cached, &explained, &status, &proof, &history] {
        assert_eq!(answer.headers["atproto-repo-rev"], rev);
    }
    let body = explained.json();
    assert_eq!(
        (&body["state"], &body["reasons"]),
        (&json!("verified"), &json!([]))
    );
    assert_eq!(
        status.json(),
        json!({"did": server.did, "active": true, "rev": rev})
    );
    let unknown = server.get(&format!("{EXPLAIN}?did={UNKNOWN}")).await;
    assert_eq!(unknown.json()["state"], "unknown");
    assert_eq!(unknown.headers.get("atproto-repo-rev"), None);
    let unknown = server.get(&format!("{HISTORY}?did={UNKNOWN}")).await;
    assert_eq!(
        (unknown.status, unknown.headers.get("atproto-repo-rev")),
        (200, None)
    );
    let unknown = server.get(&format!("{STATUS}?did={UNKNOWN}")).await;
    assert_eq!(unknown.error(), (400, "RepoNotFound".to_owned()));
}
