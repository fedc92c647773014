use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};
use url::Url;

use super::*;
use crate::directory::Directory;
use crate::resolve::refresh::ResolveError;
use crate::resolve::{ResolveSettings, Resolver, Route};
use crate::store::{DirectoryStore, EventKind, SourceKind, Trigger};
use atcomm_net::identity::IdentitySettings;
use atcomm_net::net::{Net, NetSettings};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::Actor;
use testkit::net::{NameServer, serve};
use testkit::proto::plc::{TestLog, k256, operation, p256};
use testkit::proto::repo::{TestRepo, package, peer};
use tokio::sync::Notify;

const OLD: &str = "https://old.example.com";
const NEW: &str = "https://new.example.com";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The answers of a PLC directory and a PDS by account, and the number of requests to the directory.
#[derive(Default)]
struct ServedAnswers {
    documents: HashMap<String, Value>,
    logs: HashMap<String, Vec<u8>>,
    cars: HashMap<String, Vec<u8>>,
    /// Statuses and bodies that come instead of the CARs.
    errors: HashMap<String, (StatusCode, &'static str)>,
    statuses: HashMap<String, Value>,
    /// Holds back the answer to the next request for a record.
    gate: Option<Arc<Notify>>,
    documents_asked: usize,
    logs_asked: usize,
    records_asked: usize,
    statuses_asked: usize,
}

type Shared = Arc<Mutex<ServedAnswers>>;

struct TestResolver {
    answers: Shared,
    clock: Clock,
    resolver: Resolver,
    _dns: NameServer,
    _dir: tempfile::TempDir,
}

impl TestResolver {
    async fn start(plc_rate: u32) -> Self {
        let answers = Shared::default();
        let found = |found: Option<Vec<u8>>| found.ok_or(StatusCode::NOT_FOUND);
        let document = async move |State(answers): State<Shared>, Path(did): Path<String>| {
            let mut answers = answers.lock().unwrap();
            answers.documents_asked += 1;
            found(answers.documents.get(&did).map(|d| d.to_string().into()))
        };
        let log = async move |State(answers): State<Shared>, Path(did): Path<String>| {
            let mut answers = answers.lock().unwrap();
            answers.logs_asked += 1;
            found(answers.logs.get(&did).cloned())
        };
        let car = async move |State(answers): State<Shared>,
                              Query(query): Query<HashMap<String, String>>| {
            let (answer, gate) = {
                let mut answers = answers.lock().unwrap();
                answers.records_asked += 1;
                let answer = match answers.errors.get(&query["did"]) {
                    Some((status, body)) => (*status, body.as_bytes().to_vec()),
                    None => match answers.cars.get(&query["did"]) {
                        Some(car) => (StatusCode::OK, car.clone()),
                        None => (StatusCode::NOT_FOUND, Vec::new()),
                    },
                };
                (answer, answers.gate.take())
            };
            if let Some(gate) = gate {
                gate.notified().await;
            }
            answer
        };
        let status =
            async move |State(answers): State<Shared>,
                        Query(query): Query<HashMap<String, String>>| {
                let mut answers = answers.lock().unwrap();
                answers.statuses_asked += 1;
                let status = answers.statuses.get(&query["did"]);
                status.map_or(Err(StatusCode::NOT_FOUND), |status| Ok(status.to_string()))
            };
        let router = Router::new()
            .route("/{did}", get(document))
            .route("/{did}/log/audit", get(log))
            .route("/xrpc/com.atproto.sync.getRecord", get(car))
            .route("/xrpc/com.atproto.sync.getRepoStatus", get(status))
            .with_state(Arc::clone(&answers));
        let here = format!("http://localhost:{}", serve(router).await);
        let dns = NameServer::start().await;
        let dir = tempfile::tempdir().unwrap();
        // After every revision that a test repository makes now.
        let clock = Clock::manual(Timestamp::from_millis(4_102_444_800_000));
        let store = DirectoryStore::open(&dir.path().join("directory.db")).unwrap();
        let directory = Directory::bind(store, clock.clone(), 1 << 20).await;
        let net = NetSettings {
            name_server: Some(dns.address),
            host_rate: 1000,
            host_burst: 1000,
            ..NetSettings::default()
        };
        let net = Net::bind(net, clock.clone()).unwrap();
        let identity = IdentitySettings {
            plc_url: Origin::parse(&here).unwrap(),
            plc_rate,
            ..IdentitySettings::default()
        };
        let routes = [OLD, NEW].map(|pds| Route {
            origin: Origin::parse(pds).unwrap(),
            connect: Url::parse(&here).unwrap(),
        });
        let resolver = Resolver::bind(
            net.clone(),
            Identity::bind(net, identity, clock.clone()),
            Arc::new(directory.unwrap()),
            routes.into(),
            ResolveSettings::default(),
            clock.clone(),
        );
        Self {
            answers,
            clock,
            resolver,
            _dns: dns,
            _dir: dir,
        }
    }

    /// An account whose first operation is at the old PDS under the key of seed 1, and that has
    /// come to `pds` with the key of seed `key` where that is another. Its owner has the key of
    /// seed `owner`, and its repository is signed by the key of seed `signer`.
    fn account(&self, owner: u8, pds: &str, key: u8, signer: u8) -> Did {
        let owner = p256(owner);
        let first = owner.sign(&operation(&[&owner], &k256(1), OLD, None));
        let mut log = TestLog::default();
        log.push(0, &first);
        if key != 1 {
            let moved = owner.sign(&operation(&[&owner], &k256(key), pds, Some(&first)));
            log.push(60_000_000, &moved);
        }
        let did = log.did();
        let mut repo = TestRepo::new(did.as_str(), signer);
        repo.put(&package(&peer(10), &["did:web:mediator.example.com"]));
        let mut answers = self.answers.lock().unwrap();
        answers.logs.insert(did.to_string(), log.to_vec());
        answers.cars.insert(did.to_string(), repo.car());
        drop(answers);
        self.set_document(&did, pds, key);
        did
    }

    fn set_document(&self, did: &Did, pds: &str, key: u8) {
        let key = k256(key).text();
        let document = json!({
            "id": did,
            "verificationMethod": [{
                "id": format!("{did}#atproto"), "type": "Multikey", "controller": did,
                "publicKeyMultibase": key.trim_start_matches("did:key:"),
            }],
            "service": [{
                "id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": pds,
            }],
        });
        let mut answers = self.answers.lock().unwrap();
        answers.documents.insert(did.to_string(), document);
    }

    /// Documents and logs that the PLC directory was asked for so far.
    fn asked(&self) -> (usize, usize) {
        let answers = self.answers.lock().unwrap();
        (answers.documents_asked, answers.logs_asked)
    }

    /// Refreshes an account in the background.
    async fn refresh(&self, did: &Did, refresh: Refresh) -> RefreshOutcome {
        let unchanged = PendingUpdate::Unchanged;
        let refreshed = self
            .resolver
            .refresh_and_update(did, refresh, unchanged, None);
        refreshed.await.unwrap()
    }

    /// The message of a refusal.
    async fn refused(&self, did: &Did) -> String {
        let actor = Actor::Did(did.clone());
        match self.resolver.recipient(&actor, CLIENT).await {
            Err(ResolveError::Refused(refusal)) => refusal.message,
            other => panic!("{other:?}"),
        }
    }
}

fn commit() -> Trigger {
    Trigger::Event {
        source: SourceKind::Pds,
        event: EventKind::Commit,
    }
}

mod again;

const BUSY: &str = "must not be asked again";

#[tokio::test]
async fn bad_proofs_make_clients_spend_no_more_than_their_share_of_the_directory() {
    let test = TestResolver::start(10).await;
    for owner in 1..=12 {
        let did = test.account(owner, OLD, 1, 9);
        test.refused(&did).await;
        let _ = test.resolver.refresh(&did, CLIENT).await;
    }
    let (documents, logs) = test.asked();
    assert_eq!(documents + logs, 10, "{documents} documents, {logs} logs");
    assert!(logs > 0);
}

#[tokio::test]
async fn bad_proofs_in_a_stream_make_a_log_be_read_once() {
    let test = TestResolver::start(10).await;
    let did = test.account(1, OLD, 1, 9);
    for identity in [
        IdentityLookup::Cached,
        IdentityLookup::RefreshOrCached,
        IdentityLookup::Cached,
        IdentityLookup::Refresh,
        IdentityLookup::Cached,
    ] {
        let refresh = Refresh {
            identity,
            ..Refresh::new(commit())
        };
        let refreshed = test.refresh(&did, refresh).await;
        assert_eq!(refreshed.outcome, Outcome::Unverifiable);
    }
    assert_eq!(test.asked().1, 1);
    // Clients get what the refreshes of the stream found.
    assert!(test.refused(&did).await.contains("signature"));
    assert_eq!(test.asked().1, 1);
}

#[tokio::test]
async fn an_account_that_moved_is_not_called_a_bad_proof_under_a_limit() {
    let test = TestResolver::start(1).await;
    let did = test.account(1, NEW, 2, 1);
    // The document takes what there is, and the log has to wait.
    let refused = test.refused(&did).await;
    assert!(refused.contains(BUSY), "{refused}");
    assert_eq!(test.asked(), (1, 0));
    assert!(!test.resolver.directory().is_tracked(did.as_str()));
    test.clock.advance(Duration::from_secs(60));
    let actor = Actor::Did(did);
    let found = test.resolver.recipient(&actor, CLIENT).await.unwrap();
    let view: Value = serde_json::from_slice(&found.body).unwrap();
    assert_eq!(view["verification"]["beforeMove"], true);
    assert_eq!(view["verification"]["signingKey"], k256(1).text());
    assert_eq!(test.asked(), (1, 1));
}

#[tokio::test]
async fn an_account_that_replaced_its_key_is_not_called_a_bad_proof_under_a_limit() {
    let test = TestResolver::start(1).await;
    let did = test.account(1, OLD, 2, 2);
    // What is remembered is from before.
    test.set_document(&did, OLD, 1);
    let identity = test.resolver.identity();
    identity.resolve(&did, Freshness::Cached).await.unwrap();
    test.clock.advance(Duration::from_millis(1));
    test.set_document(&did, OLD, 2);
    for asked in [(1, 1), (2, 1)] {
        if asked.0 == 2 {
            test.clock.advance(Duration::from_secs(60));
            let actor = Actor::Did(did.clone());
            let found = test.resolver.recipient(&actor, CLIENT).await.unwrap();
            let view: Value = serde_json::from_slice(&found.body).unwrap();
            assert_eq!(view["verification"]["signingKey"], k256(2).text());
        } else {
            let refused = test.refused(&did).await;
            assert!(refused.contains(BUSY), "{refused}");
        }
        assert_eq!(test.asked(), asked);
    }
}

/// A log that is remembered from before the move is asked for again.
#[tokio::test]
async fn a_log_from_before_the_move_does_not_do() {
    let test = TestResolver::start(10).await;
    let did = test.account(1, NEW, 2, 1);
    let after = test.answers.lock().unwrap().logs[did.as_str()].clone();
    let mut before: Vec<Value> = serde_json::from_slice(&after).unwrap();
    before.truncate(1);
    let set_log = |log: Vec<u8>| {
        let mut answers = test.answers.lock().unwrap();
        answers.logs.insert(did.to_string(), log);
    };
    set_log(serde_json::to_vec(&before).unwrap());
    let identity = test.resolver.identity();
    identity.plc_log(&did, Freshness::Cached).await.unwrap();
    set_log(after);
    test.clock.advance(Duration::from_secs(1));
    let refreshed = test.refresh(&did, Refresh::new(commit())).await;
    assert_eq!(refreshed.outcome, Outcome::Package);
    assert_eq!(test.asked().1, 2);
}
