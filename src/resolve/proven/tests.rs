use std::sync::Mutex;

use axum::Router;
use axum::routing::get;
use serde_json::Value;

use super::*;
use crate::directory::{
    Authority, Directory, Finding, IdentityFacts, MAX_CHANGES, Observation, PendingUpdate,
};
use crate::resolve::ResolveSettings;
use crate::store::{DirectoryStore, Trigger};
use atcomm_net::identity::{Identity, IdentitySettings};
use atcomm_net::net::{Net, NetSettings};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::proof::Proven;
use atcomm_proto::syntax::Origin;
use testkit::net::serve;
use testkit::proto::plc::{TestLog, k256, operation, p256};
use testkit::proto::repo::{TestRepo, package, peer};

const PDS: &str = "https://pds.example.com";
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A log whose account replaced its key in place, as a PLC directory has it at first.
fn logs() -> (TestLog, TestLog) {
    let owner = p256(1);
    let first = owner.sign(&operation(&[&owner], &k256(1), PDS, None));
    let second = owner.sign(&operation(&[&owner], &k256(2), PDS, Some(&first)));
    let mut log = TestLog::default();
    log.push(0, &first);
    let before = log.clone();
    log.push(1, &second);
    (before, log)
}

/// A log that has become too short is asked for again once for every refresh of the account, and
/// not for every client.
#[tokio::test]
async fn a_log_that_is_too_old_is_asked_for_again_once() {
    let (before, after) = logs();
    let served = Arc::new(Mutex::new((before.to_vec(), 0)));
    let answer = Arc::clone(&served);
    let answer = get(async move || {
        let mut served = answer.lock().unwrap();
        served.1 += 1;
        served.0.clone()
    });
    let plc = serve(Router::new().route("/{did}/log/audit", answer)).await;
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
    let store = DirectoryStore::open(&dir.path().join("directory.db")).unwrap();
    let directory = Directory::bind(store, clock.clone(), 1 << 20);
    let net = Net::bind(NetSettings::default(), clock.clone()).unwrap();
    let identity = IdentitySettings {
        plc_url: Origin::parse(&format!("http://localhost:{plc}")).unwrap(),
        ..IdentitySettings::default()
    };
    let resolver = Resolver::bind(
        net.clone(),
        Identity::bind(net, identity, clock.clone()),
        Arc::new(directory.await.unwrap()),
        Vec::new(),
        ResolveSettings::default(),
        clock.clone(),
    );
    let mut repo = TestRepo::new(before.did().as_str(), 1);
    let proven = async |proven: Proven, key: u8| {
        let Proven::Present(record) = proven else {
            panic!("an absence");
        };
        clock.advance(Duration::from_secs(1));
        let begun = resolver.directory().begin(&before.did()).await.unwrap();
        let seen = Observation {
            did: before.did(),
            identity: Some(IdentityFacts {
                pds: Some(Origin::parse(PDS).unwrap()),
                key: Some(k256(key).public()),
                claimed: None,
                asked_at: clock.now(),
            }),
            finding: Finding::Present(record),
            authority: Authority::Pds,
            trigger: Trigger::Recheck,
            begun,
            at: clock.now(),
        };
        let directory = resolver.directory();
        directory
            .apply(seen, PendingUpdate::Unchanged)
            .await
            .unwrap();
        clock.advance(Duration::from_secs(1));
    };
    // The number of operations in an answer, and of questions to the directory so far.
    let operations = async || {
        let actor = Actor::Did(before.did());
        let view = resolver.recipient_with_proof(&actor, CLIENT).await.unwrap();
        let view: Value = serde_json::from_slice(&view.body).unwrap();
        let page = Page {
            before: None,
            limit: MAX_CHANGES,
            with_proof: true,
            log: None,
        };
        let history = resolver.history(&before.did(), page, CLIENT).await.unwrap();
        let history: Value = serde_json::from_slice(&history.body).unwrap();
        assert_eq!(
            view["proof"].get("plcLog"),
            history.get("plcLog"),
            "both or neither"
        );
        let log = view["proof"]["plcLog"].as_array().map(Vec::len);
        (log, served.lock().unwrap().1)
    };
    let first = repo.put(&package(&peer(10), &["did:web:mediator.example.com"]));
    proven(first, 1).await;
    assert_eq!(operations().await, (Some(1), 1));
    assert_eq!(operations().await, (Some(1), 1));

    // The key is replaced, and the directory still gives the log that it gave.
    repo.rotate(2);
    proven(repo.prove(), 2).await;
    assert_eq!(operations().await, (None, 2));
    assert_eq!(operations().await, (None, 2));
    served.lock().unwrap().0 = after.to_vec();
    proven(repo.prove(), 2).await;
    assert_eq!(operations().await, (Some(2), 3));
    proven(repo.prove(), 2).await;
    assert_eq!(operations().await, (Some(2), 3));
}
