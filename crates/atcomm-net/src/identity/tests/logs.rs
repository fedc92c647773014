//! Operation logs: verified, cached, evicted, and limited for clients.

use super::*;
use atcomm_proto::plc::{self, Fault, LogError};
use testkit::proto::plc::{TestLog, k256, operation, p256};

/// A PLC directory of operation logs alone, which counts requests.
#[derive(Clone, Default)]
struct Logs {
    log: Arc<Mutex<(u16, Vec<u8>)>>,
    asked: Arc<AtomicUsize>,
}

impl Logs {
    async fn identity(&self, settings: IdentitySettings, clock: &Clock) -> Identity {
        let logs = self.clone();
        let answer = async move || {
            logs.asked.fetch_add(1, Ordering::SeqCst);
            let (status, body) = logs.log.lock().unwrap().clone();
            (StatusCode::from_u16(status).unwrap(), body)
        };
        let port = serve(Router::new().route("/{did}/log/audit", get(answer))).await;
        let settings = IdentitySettings {
            plc_url: Origin::parse(&format!("http://localhost:{port}")).unwrap(),
            ..settings
        };
        let net = Net::bind(NetSettings::default(), clock.clone()).unwrap();
        Identity::bind(net, settings, clock.clone())
    }

    fn set(&self, status: u16, body: &[u8]) {
        *self.log.lock().unwrap() = (status, body.to_vec());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An account's log of one operation or two.
fn log(operations: usize) -> TestLog {
    let owner = p256(1);
    let pds = "https://a.example.com";
    let first = owner.sign(&operation(&[&owner], &k256(2), pds, None));
    let next = owner.sign(&operation(&[&owner], &k256(3), pds, Some(&first)));
    let mut log = TestLog::default();
    log.push(0, &first).push(1, &next);
    log.0.truncate(operations);
    log
}

#[tokio::test]
async fn a_log_is_requested_once_and_after_a_purge() {
    let (plc, clock) = (Logs::default(), by_hand());
    let identity = plc.identity(IdentitySettings::default(), &clock).await;
    let did = log(1).did();
    plc.set(200, &log(1).to_vec());
    assert!(identity.cached_plc_log(&did).is_none());
    let ask = async |freshness| identity.plc_log(&did, freshness).await.unwrap();
    let first = ask(Freshness::Cached).await;
    assert_eq!(first.verified().states().len(), 1);
    assert_eq!(first.asked_at(), clock.now());
    plc.set(200, &log(2).to_vec());
    clock.advance(Duration::from_secs(23 * 3600));
    assert!(Arc::ptr_eq(&first, &ask(Freshness::Cached).await));
    assert_eq!(plc.asked(), 1);
    identity.purge(&did);
    assert_eq!(
        ask(Freshness::Cached).await.verified().states().len(),
        2,
        "the log from before the purge is gone"
    );
    assert_eq!(plc.asked(), 2);
    ask(Freshness::Refresh).await;
    clock.advance(Duration::from_secs(24 * 3600));
    ask(Freshness::Cached).await;
    assert_eq!(plc.asked(), 4);
}

/// The log for other verifiers is the verified log and nothing else.
#[tokio::test]
async fn inv1_a_log_is_passed_on_as_it_was_verified() {
    let (directory, clock) = (Logs::default(), by_hand());
    let identity = directory
        .identity(IdentitySettings::default(), &clock)
        .await;
    let good = log(2);
    let mut served = good.clone();
    served.0[1]["note"] = json!("<script>");
    let text = String::from_utf8(served.to_vec()).unwrap();
    // A reader that takes the first of two members would see another key.
    let twice = text.replacen("\"prev\":null", "\"prev\":\"x\",\"prev\":null", 1);
    assert_ne!(text, twice);
    directory.set(200, twice.as_bytes());
    let log = identity.plc_log(&good.did(), Freshness::Cached).await;
    let log = log.unwrap();
    let passed_on = log.entries().get();
    let verified = plc::verify(&good.did(), passed_on.as_bytes()).unwrap();
    assert_eq!(&verified, log.verified());
    let entries: Vec<Value> = serde_json::from_str(passed_on).unwrap();
    for (entry, good) in entries.iter().zip(&good.0) {
        let names: Vec<_> = entry.as_object().unwrap().keys().collect();
        assert_eq!(names, ["cid", "createdAt", "nullified", "operation"]);
        assert_eq!(entry["operation"], good["operation"]);
    }
    assert_eq!(passed_on.matches("\"prev\":").count(), 2);
}

#[tokio::test]
async fn failures_are_distinguished_and_cached_for_two_minutes() {
    let (plc, clock) = (Logs::default(), by_hand());
    let identity = plc.identity(IdentitySettings::default(), &clock).await;
    let did = log(1).did();
    let mut forged = log(2);
    forged.0[1]["operation"]["alsoKnownAs"] = json!(["at://mallory.example.com"]);
    let long = vec![b' '; atcomm_proto::plc::MAX_LOG_LEN + 1];
    for (status, body, expected) in [
        (404, vec![], PlcLogError::NotFound),
        (410, vec![], PlcLogError::NotFound),
        (500, vec![], PlcLogError::Unreachable { retry_after: None }),
        (302, vec![], PlcLogError::Unreachable { retry_after: None }),
        (200, b"{}".to_vec(), LogError::NotALog.into()),
        (200, long, LogError::TooLong.into()),
        (
            200,
            forged.to_vec(),
            LogError::Operation {
                index: 1,
                fault: Fault::Cid,
            }
            .into(),
        ),
    ] {
        plc.set(status, &body);
        let before = plc.asked();
        for _ in 0..2 {
            let found = identity.plc_log(&did, Freshness::Cached).await;
            assert_eq!(found.unwrap_err(), expected);
        }
        assert_eq!(plc.asked(), before + 1, "{expected:?}");
        clock.advance(Duration::from_secs(120));
    }
    plc.set(200, &log(1).to_vec());
    identity.plc_log(&did, Freshness::Cached).await.unwrap();
    // A did:web has no log, and no request is made.
    let (web, before) = (self::did("did:web:a.example.com"), plc.asked());
    let found = identity.plc_log(&web, Freshness::Cached).await;
    assert_eq!(found.unwrap_err(), LogError::NotPlc.into());
    assert_eq!(plc.asked(), before);
}

#[tokio::test]
async fn inv7_logs_are_cached_up_to_their_bytes() {
    let (plc, clock) = (Logs::default(), by_hand());
    let settings = IdentitySettings {
        plc_log_cache: 1000,
        ..IdentitySettings::default()
    };
    let identity = plc.identity(settings, &clock).await;
    plc.set(200, &log(2).to_vec());
    for _ in 0..2 {
        let found = identity.plc_log(&log(2).did(), Freshness::Cached).await;
        found.unwrap();
    }
    assert_eq!(plc.asked(), 2, "a log of more than the limit is not cached");
}

#[tokio::test]
async fn logs_count_against_the_clients_share_of_the_directory() {
    let (plc, clock) = (Logs::default(), by_hand());
    let settings = IdentitySettings {
        plc_rate: 1,
        ..IdentitySettings::default()
    };
    let background = plc.identity(settings, &clock).await;
    let interactive = background.interactive();
    let did = log(1).did();
    plc.set(200, &log(1).to_vec());
    interactive.plc_log(&did, Freshness::Cached).await.unwrap();
    for _ in 0..5 {
        interactive.plc_log(&did, Freshness::Cached).await.unwrap();
    }
    let refused = interactive
        .plc_log(&did, Freshness::Refresh)
        .await
        .unwrap_err();
    let retry_after = Some(Duration::from_secs(60));
    assert_eq!(refused, PlcLogError::Unreachable { retry_after });
    assert_eq!(plc.asked(), 1);
    // The refusal is not cached and concerns no other caller.
    interactive.plc_log(&did, Freshness::Cached).await.unwrap();
    background.plc_log(&did, Freshness::Refresh).await.unwrap();
    assert_eq!(plc.asked(), 2);
    clock.advance(Duration::from_secs(60));
    interactive.plc_log(&did, Freshness::Refresh).await.unwrap();
}
