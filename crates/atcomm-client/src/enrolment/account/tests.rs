//! PDSes with odd answers, and other processes that use the same wallet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::wallet::Wallet;
use atcomm_proto::syntax::Did;
use testkit::net::{bind, development, serve};

const ACCOUNT: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
const THERE: &str = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm";
const OTHER: &str = "bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq";

fn store() -> (TempDir, AccountStore) {
    let dir = TempDir::new().unwrap();
    let wallet = Wallet::open(&dir.path().join("wallet")).unwrap();
    (dir, wallet.account_store(&Did::parse(ACCOUNT).unwrap()))
}

fn session(pds: &Origin, name: &str) -> Session {
    Session {
        pds: pds.clone(),
        access: Zeroizing::new(format!("{name}-access")),
        refresh: Zeroizing::new(format!("{name}-refresh")),
    }
}

async fn client(router: Router, store: &AccountStore) -> AccountClient {
    let port = serve(router).await;
    let pds = Origin::parse(&format!("http://localhost:{port}")).unwrap();
    store.save_session(&session(&pds, "old")).unwrap();
    AccountClient::new(&bind(development()), &pds, store)
}

#[tokio::test]
async fn a_mismatch_in_other_words_does_not_open_the_way() {
    let blind = Arc::new(AtomicUsize::new(0));
    let written = Arc::clone(&blind);
    let write = post(async move |Json(input): Json<Value>| {
        if input.get("swapRecord").is_some() {
            let said = json!({"error": "InvalidRequest", "message": "swapRecord does not match"});
            return (StatusCode::BAD_REQUEST, Json(said));
        }
        written.fetch_add(1, Ordering::Relaxed);
        (
            StatusCode::OK,
            Json(json!({"uri": "at://x/y/z", "cid": OTHER})),
        )
    });
    let there = json!({"uri": "at://x/y/z", "cid": THERE, "value": {"did": "did:peer:2.Ez"}});
    let router = Router::new()
        .route(
            "/xrpc/com.atproto.repo.getRecord",
            get(async || Json(there)),
        )
        .route("/xrpc/com.atproto.repo.putRecord", write.clone())
        .route("/xrpc/com.atproto.repo.deleteRecord", write);
    let (_dir, store) = store();
    let client = client(router, &store).await;
    let [there, other] = [THERE, OTHER].map(|cid| Cid::try_from(cid).unwrap());
    let record = json!({"$type": COLLECTION});
    for before in [None, Some(&other)] {
        let refused = client.put(&record, before).await;
        assert!(matches!(refused, Err(AccountError::Swapped)), "{refused:?}");
    }
    let refused = client.delete(&other).await;
    assert!(matches!(refused, Err(AccountError::Swapped)), "{refused:?}");
    assert_eq!(blind.load(Ordering::Relaxed), 0);
    // Without a change in between, a record is written also to a PDS that cannot compare.
    client.put(&record, Some(&there)).await.unwrap();
    client.delete(&there).await.unwrap();
    assert_eq!(blind.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_session_that_another_process_has_renewed_is_used_and_not_forgotten() {
    let (_dir, store) = store();
    let theirs = store.clone();
    let ended = || {
        let said = json!({"error": "ExpiredToken", "message": "Token has expired"});
        (StatusCode::BAD_REQUEST, Json(said))
    };
    let router = Router::new()
        .route(
            "/xrpc/com.atproto.server.getSession",
            get(async move |headers: HeaderMap| {
                if headers["authorization"] == "Bearer new-access" {
                    (
                        StatusCode::OK,
                        Json(json!({"did": ACCOUNT, "handle": "alice.example.com"})),
                    )
                } else {
                    ended()
                }
            }),
        )
        .route(
            "/xrpc/com.atproto.server.refreshSession",
            // Another process was faster.
            post(async move || {
                let old = theirs.session().unwrap().unwrap();
                theirs.save_session(&session(&old.pds, "new")).unwrap();
                ended()
            }),
        );
    let client = client(router, &store).await;
    assert!(client.is_signed_in().await.unwrap());
    let kept = store.session().unwrap().unwrap();
    assert_eq!(kept, session(client.pds(), "new"));
}

#[tokio::test]
async fn the_session_of_another_host_is_neither_used_nor_forgotten() {
    let dir = tempfile::TempDir::new().unwrap();
    let wallet = Wallet::open(&dir.path().join("wallet")).unwrap();
    let account = Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    let store = wallet.account_store(&account);
    let session = Session {
        pds: Origin::parse("https://pds.example.com").unwrap(),
        access: Zeroizing::new("access".to_owned()),
        refresh: Zeroizing::new("refresh".to_owned()),
    };
    store.save_session(&session).unwrap();
    let other = Origin::parse("https://other.example.com").unwrap();
    let client = AccountClient::new(
        &bind(atcomm_net::net::NetSettings::default()),
        &other,
        &store,
    );
    assert!(!client.is_signed_in().await.unwrap());
    assert_eq!(store.session().unwrap().unwrap().pds, session.pds);
}
