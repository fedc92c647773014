//! How much of the directory's file one domain can take, and what comes free again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as Segment, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use rusqlite::Connection;
use serde_json::{Value, json};
use testkit::net::serve;
use testkit::proto::plc::k256;
use testkit::proto::repo::{TestRepo, package, peer};

use super::print_harm;
use crate::http::{RUNTIME, request};
use crate::service::Setup;

/// What a PLC directory and PDSes answer, by account.
#[derive(Default)]
struct Served {
    documents: HashMap<String, Value>,
    cars: HashMap<String, Vec<u8>>,
}

/// A PLC directory and two PDSes, each on a port of its own.
struct Hosts {
    served: Arc<Mutex<Served>>,
    plc: String,
    hostile: String,
    honest: String,
}

type Shared = Arc<Mutex<Served>>;

impl Hosts {
    fn start() -> Self {
        let served = Shared::default();
        let found = |found: Option<Vec<u8>>| found.ok_or(StatusCode::NOT_FOUND);
        let document = async move |State(served): State<Shared>, Segment(did): Segment<String>| {
            let served = served.lock().expect("a lock");
            found(served.documents.get(&did).map(|d| d.to_string().into()))
        };
        let car = async move |State(served): State<Shared>,
                              Query(query): Query<HashMap<String, String>>| {
            found(
                served
                    .lock()
                    .expect("a lock")
                    .cars
                    .get(&query["did"])
                    .cloned(),
            )
        };
        let router = Router::new()
            .route("/{did}", get(document))
            .route("/xrpc/com.atproto.sync.getRecord", get(car))
            .with_state(Arc::clone(&served));
        let host = || {
            format!(
                "http://localhost:{}",
                RUNTIME.block_on(serve(router.clone()))
            )
        };
        Self {
            plc: host(),
            hostile: host(),
            honest: host(),
            served,
        }
    }

    /// Makes an account with this record at a PDS, or gives it another record. Returns its DID.
    fn account(&self, n: u64, pds: &str, record: &Value) -> String {
        let did = did(n);
        let mut repo = TestRepo::new(&did, 1);
        repo.put(record);
        let key = k256(1).text();
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
        let mut served = self.served.lock().expect("a lock");
        served.documents.insert(did.clone(), document);
        served.cars.insert(did.clone(), repo.car());
        did
    }
}

/// The DID of the n-th account.
fn did(n: u64) -> String {
    let digit = |i: u32| char::from(b'a' + ((n >> (4 * i)) & 15) as u8);
    let tail: String = (0..24)
        .map(|i| if i < 16 { digit(i) } else { 'a' })
        .collect();
    format!("did:plc:{tail}")
}

/// A record that is as large as a proof may be.
fn large(n: u64) -> Value {
    let mut record = package(&peer(10), &["did:web:mediator.example.com"]);
    record["note"] = json!("x".repeat(58_000));
    record["n"] = json!(n);
    record
}

fn file_len(data: &Path) -> u64 {
    std::fs::metadata(data.join("directory.db"))
        .expect("a file")
        .len()
}

/// One address asks for account after account of one domain. Before, each took 123,208 bytes of the
/// disk that mail is on, too.
#[test]
fn inv7_accounts_of_one_domain_that_a_client_asks_for_take_a_bounded_part_of_the_disk() {
    const KEPT: u64 = 20;
    const ASKED: u64 = 200;
    let hosts = Hosts::start();
    let setup = Setup::offline()
        .set("identity.plc_url", json!(hosts.plc))
        .set("identity.plc_rate", json!(100_000))
        .set("resolve.misses_per_minute", json!(100_000))
        .set("net.host_rate", json!(1000))
        .set("net.host_burst", json!(1000))
        .set("directory.asked_per_domain", json!(KEPT));
    let service = setup.start();
    let victim = package(&peer(11), &["did:web:mediator.example.com"]);
    let early = hosts.account(1_000_000, &hosts.honest, &victim);
    service
        .recipient(&early)
        .expect("an account of another domain");
    let dids: Vec<String> = (0..ASKED)
        .map(|n| hosts.account(n, &hosts.hostile, &large(n)))
        .collect();
    let mut refused = 0;
    for did in &dids {
        if let Err(error) = service.recipient(did) {
            assert_eq!((error.status, &*error.name), (502, "UpstreamFailure"));
            assert!(
                error.message.contains("keeps no more accounts"),
                "{}",
                error.message
            );
            refused += 1;
        }
    }
    assert_eq!(refused, ASKED - KEPT);
    // Those that are kept are changed again and again.
    const CHANGES: u64 = 12;
    for change in 1..=CHANGES {
        for n in 0..KEPT {
            hosts.account(n, &hosts.hostile, &large(n + change * 1000));
            let did = &dids[usize::try_from(n).expect("small")];
            assert_eq!(
                service.refresh(did).expect("an outcome")["outcome"],
                "package"
            );
        }
    }
    // Others are resolved and enrolled as ever, and nothing is ill.
    service
        .recipient(&early)
        .expect("an account of another domain");
    let late = hosts.account(1_000_001, &hosts.honest, &victim);
    service
        .recipient(&late)
        .expect("a new account of another domain");
    let health = request("GET", &service.url("/xrpc/_health"), &[], None);
    assert_eq!(health.status, 200);
    let limits = [("limit", "accounts")];
    let counted = service.metric("atcomm_directory_refused_total", &limits);
    assert!(counted >= (ASKED - KEPT) as f64, "{counted}");
    assert!(service.log().contains("keeps no more accounts of a domain"));
    let data = service.data_dir();
    let stopped = service.stop();
    let looks = ASKED + CHANGES * KEPT;
    let bytes = file_len(&data);
    print_harm(
        "one address asks for accounts of a domain of its own, with records of 58 kB",
        &format!("{looks} looks, {} bytes of proofs", looks * 59_000),
        &format!(
            "{bytes} bytes of directory.db, {} a look; {refused} of {ASKED} are refused; others \
             are resolved and enrolled, health is 200",
            bytes / looks
        ),
    );
    // What is kept of an account is its newest proof: large superseded ones are not saved.
    assert!(bytes < KEPT * 100_000 + 1_000_000, "{bytes}");
    assert!(stopped.entry(&dids[0]).is_some() && stopped.entry(&late).is_some());
    assert!(stopped.entry(&dids[199]).is_none());
}

/// A file of the version before is taken over without being held in memory.
#[test]
fn a_large_file_of_an_earlier_version_is_taken_over_in_bounded_memory() {
    const ENTRIES: u64 = 2000;
    const PROOF: usize = 60_000;
    let setup = Setup::offline();
    let empty = setup.clone().start();
    let data = empty.data_dir();
    let usual = peak_memory(empty.process_id());
    let stopped = empty.stop();
    for name in ["directory.db", "directory.db-wal", "directory.db-shm"] {
        drop(std::fs::remove_file(data.join(name)));
    }
    let conn = Connection::open(data.join("directory.db")).expect("a file");
    let schema = include_str!("earlier.sql");
    conn.execute_batch(schema).expect("the earlier schema");
    let transaction = conn.unchecked_transaction().expect("a transaction");
    for n in 0..ENTRIES {
        transaction
            .execute(
                "INSERT INTO entry (did, status, state, regressed, source, method, observed_at,
                   checked_at, next_check_at, failures, change_seq, pds, record, proof)
                 VALUES (?1, 'active', 'present', 0, 'pds', 'getRecord', 0, 0,
                   9000000000000, 0, 0, 'https://pds.example.com', ?2, ?2)",
                (did(n), vec![7_u8; PROOF]),
            )
            .expect("a row");
    }
    transaction.commit().expect("a commit");
    drop(conn);
    let before = file_len(&data);
    let service = stopped.start();
    let peak = peak_memory(service.process_id());
    let stopped = service.stop();
    let after = file_len(&data);
    println!(
        "{before} bytes of an earlier version become {after}; the start takes {peak} bytes of \
         memory, {usual} without a file"
    );
    let (count, all) = stopped.read(|q| Ok((q.entry_count()?, q.share_of_all()?.bytes)));
    assert_eq!(count, ENTRIES);
    assert!(all >= ENTRIES * PROOF as u64);
    // The record is in its proof and stored once.
    assert!(after < before * 6 / 10, "{before} {after}");
    assert!(peak < usual + 64_000_000, "{usual} {peak}");
}

/// The most memory that a process has had, in bytes.
fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    kib.expect("a number") * 1024
}
