//! The channel, with the unmodified client of `@atproto/tap` (`tests/network/tap/consumer.mjs`).

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use atcomm::directory::{
    Authority, Batch, Begun, Directory, Finding, IdentityFacts, Observation, PendingUpdate,
};
use atcomm::store::{DirectoryStore, EventKind, SourceKind, Trigger};
use atcomm_proto::clock::Clock;
use atcomm_proto::proof::Proven;
use atcomm_proto::syntax::Origin;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::network::script;
use testkit::proto::repo::{TestRepo, package, peer};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::http::{RUNTIME, eventually, request};
use crate::network::Network;
use crate::service::{Service, Setup, Stopped};

const PASSWORD: &str = "a password of the tests";

/// Changes of one account, fewer than the log keeps.
const CHANGES_OF_ACCOUNT: usize = 150;

/// Kills in the large test.
const KILLS: usize = 20;

/// Most events that are sent before one of them is acknowledged, and some more.
const MAX_UNDER_WAY: usize = 1000;

/// Longest time without a new event in the large test.
const STALLED: Duration = Duration::from_secs(60);

fn setup(setup: Setup) -> Setup {
    setup.set("http.updates.channel_password", json!(PASSWORD))
}

/// The client, and the file in which it keeps what it was sent.
struct Consumer {
    dir: TempDir,
    url: String,
    child: Child,
}

impl Consumer {
    fn start(url: String) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let child = run(&url, &dir.path().join("events"));
        Self { dir, url, child }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("events")
    }

    /// Kills the client, like a power cut, and starts it again.
    fn restart(&mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
        self.child = run(&self.url, &self.file());
    }

    /// Returns all that the client was sent, in order.
    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        let lines = text.lines().map(|line| {
            serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e} in {line}"))
        });
        // An acknowledgement may meet a connection that breaks off.
        let is_event = |event: &Value| {
            let fault = event["fault"].as_str();
            assert!(
                fault.is_none_or(|fault| fault.contains("send ack")),
                "{event}"
            );
            fault.is_none()
        };
        lines.filter(is_event).collect()
    }

    fn len(&self) -> u64 {
        std::fs::metadata(self.file()).map_or(0, |file| file.len())
    }

    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            self.events().into_iter().find(|event| wanted(event))
        })
    }
}

fn run(url: &str, file: &Path) -> Child {
    script("tap/run.sh")
        .args([url, PASSWORD])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("tests/network/tap/run.sh")
}

impl Drop for Consumer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_consumer_follows_accounts_from_their_enrolment_to_their_end() {
    let network = Network::multikey();
    let service = setup(Setup::beside(network)).start();
    let alice = network.enrolled("alice", 0, json!({"label": "first"}));
    let first = service.until(&alice.did, "the package", |view| {
        view["handle"] == *alice.handle
    });
    let consumer = Consumer::start(service.url(""));
    let is_hers = |event: &Value, kind: &str| event["did"] == *alice.did && event["type"] == kind;
    let created = consumer.until("the package", |event| is_hers(event, "record"));
    assert_eq!(created["action"], "create");
    assert_eq!(created["live"], false);
    assert_eq!(created["collection"], "at.didcomm.keyPackage");
    assert_eq!(created["rkey"], "self");
    assert_eq!(created["cid"], first["keyPackage"]["cid"]);
    assert_eq!(created["record"], first["keyPackage"]["value"]);
    let named = consumer.until("the handle", |event| {
        is_hers(event, "identity") && event["handle"] == *alice.handle
    });
    assert_eq!(
        (&named["isActive"], &named["status"]),
        (&json!(true), &json!("active"))
    );
    let put = alice.put(json!({"label": "second"}));
    let updated = consumer.until("the new package", |event| event["cid"] == put["cid"]);
    assert_eq!(
        (&updated["action"], &updated["live"]),
        (&json!("update"), &json!(true))
    );
    assert_eq!(updated["record"]["label"], "second");
    alice.op("account.deactivate", json!({}));
    consumer.until("the status", |event| {
        is_hers(event, "identity") && event["status"] == "deactivated" && event["isActive"] == false
    });
    consumer.until("the end of the record", |event| {
        is_hers(event, "record") && event["action"] == "delete"
    });
    alice.op("account.activate", json!({}));
    consumer.until("the record again", |event| {
        event["cid"] == put["cid"] && event["action"] == "create"
    });
    assert!(service.metric("atcomm_channel_acknowledged_total", &[]) >= 5.0);
}

#[test]
fn the_channel_is_closed_to_those_without_the_password() {
    let off = Setup::offline().start();
    let basic = |text: &str| format!("Basic {}", data_encoding::BASE64.encode(text.as_bytes()));
    let ask = |service: &Service, path: &str, header: &str| {
        let headers = [("authorization", header)];
        request("GET", &service.url(path), &headers, None).status
    };
    let right = basic(&format!("admin:{PASSWORD}"));
    assert_eq!(ask(&off, "/channel", &right), 403);
    let on = setup(Setup::offline()).start();
    for wrong in [
        "",
        "Basic",
        &basic("admin:"),
        &basic("admin:another password"),
        &basic("x"),
    ] {
        assert_eq!(ask(&on, "/channel", wrong), 401, "{wrong}");
    }
    let refused = request("GET", &on.url("/channel"), &[], None);
    assert_eq!(
        refused.header("www-authenticate"),
        "Basic realm=\"channel\""
    );
    assert_eq!(ask(&on, "/channel", &right), 426);
    assert_eq!(ask(&on, "/channel?consumer=a%20b", &right), 400);
    assert!(!on.log().contains(PASSWORD));
}

/// A client that acknowledges when it is told to.
struct Raw(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Raw {
    fn open(service: &Service, consumer: &str) -> Self {
        let url = service.url(&format!("/channel?consumer={consumer}"));
        let basic = data_encoding::BASE64.encode(format!("admin:{PASSWORD}").as_bytes());
        let mut request = url
            .replacen("http", "ws", 1)
            .into_client_request()
            .expect("a request");
        let basic = format!("Basic {basic}").parse().expect("a header");
        request.headers_mut().insert("authorization", basic);
        let opened = RUNTIME.block_on(tokio_tungstenite::connect_async(request));
        Self(opened.expect("a WebSocket").0)
    }

    /// Returns the next event, or the code with which the connection ends.
    #[track_caller]
    fn next(&mut self) -> Result<Value, Option<u16>> {
        let next = async {
            loop {
                match tokio::time::timeout(Duration::from_secs(30), self.0.next()).await {
                    Ok(Some(Ok(Message::Text(text)))) => break Ok(text),
                    Ok(Some(Ok(Message::Ping(_)))) => {}
                    Ok(Some(Ok(Message::Close(frame)))) => {
                        break Err(frame.map(|frame| frame.code.into()));
                    }
                    Ok(Some(Err(_)) | None) => break Err(None),
                    other => panic!("{other:?}"),
                }
            }
        };
        let text = RUNTIME.block_on(next)?;
        Ok(serde_json::from_str(&text).expect("JSON"))
    }

    fn say(&mut self, text: &str) {
        let said = self.0.send(Message::Text(text.into()));
        RUNTIME.block_on(said).expect("a connection");
    }

    fn acknowledge(&mut self, event: &Value) {
        self.say(&json!({"type": "ack", "id": event["id"]}).to_string());
    }

    /// Returns whether nothing more comes for now.
    fn is_quiet(&mut self) -> bool {
        let next = async { tokio::time::timeout(Duration::from_millis(700), self.0.next()).await };
        RUNTIME.block_on(next).is_err()
    }
}

#[test]
fn an_event_waits_for_the_one_before_it_of_its_account_and_for_no_other() {
    let setup = setup(Setup::offline()).set("resolve.on_demand", json!(0));
    let left = setup.start().stop();
    let mut load = Load::new(2);
    load.write(&left, 3);
    let service = left.start();
    let mut raw = Raw::open(&service, "one");
    // Of each account its identity, then its packages.
    let mut firsts = [raw.next(), raw.next()].map(|event| event.expect("an event"));
    assert!(raw.is_quiet());
    assert_ne!(firsts[0]["identity"]["did"], firsts[1]["identity"]["did"]);
    // An acknowledgement of what was not sent, or is not there, has no effect.
    for id in [
        json!(0),
        json!(-1),
        json!(i64::MAX),
        json!(firsts[0]["id"].as_i64().expect("an id") + 1),
    ] {
        raw.say(&json!({"type": "ack", "id": id}).to_string());
    }
    assert!(raw.is_quiet());
    let mut waiting = firsts[1].clone();
    for label in ["1", "2", "3"] {
        raw.acknowledge(&waiting);
        waiting = raw.next().expect("an event");
        assert_eq!(waiting["record"]["record"]["label"], label, "{waiting}");
        let action = if label == "1" { "create" } else { "update" };
        assert_eq!(waiting["record"]["action"], action);
        assert!(raw.is_quiet());
    }
    raw.acknowledge(&waiting);
    assert!(raw.is_quiet());
    // Another consumer has a position of its own; this one goes on at the first that it did not
    // acknowledge. Its connection of before ends.
    let mut other = Raw::open(&service, "two");
    assert_eq!(other.next().as_ref(), Ok(&firsts[0]));
    let mut again = Raw::open(&service, "one");
    assert_eq!(raw.next(), Err(Some(1008)));
    assert_eq!(again.next().as_ref(), Ok(&firsts[0]));
    firsts[0]["id"] = json!("x");
    for garbage in [
        "",
        "{}",
        "[]",
        &firsts[0].to_string(),
        r#"{"type":"nack","id":1}"#,
        &"x".repeat(1025),
    ] {
        let mut raw = Raw::open(&service, "garbage");
        assert!(raw.next().is_ok());
        raw.say(garbage);
        let ended = loop {
            match raw.next() {
                Ok(_) => {}
                Err(code) => break code,
            }
        };
        assert!(matches!(ended, Some(1008 | 1009)), "{garbage}: {ended:?}");
    }
    // A service that ends lets the connection break off, so that the client comes back.
    drop(other);
    let left = service.stop();
    let ended = loop {
        if let Err(code) = again.next() {
            break code;
        }
    };
    assert_eq!(ended, None);
    drop(left);
}

/// Accounts that write without a network: what they write is put into the store of a service that
/// does not run.
struct Load {
    accounts: Vec<TestRepo>,
    /// Changes of each account so far.
    written: usize,
}

impl Load {
    fn new(accounts: usize) -> Self {
        let accounts = (0..accounts).map(|n| {
            let tail: String = (0..24)
                .map(|i| char::from(b'a' + ((n >> (i * 2)) & 3) as u8))
                .collect();
            let seed = u8::try_from(n % 200).expect("a small number") + 1;
            TestRepo::new(&format!("did:plc:{tail}"), seed)
        });
        Self {
            accounts: accounts.collect(),
            written: 0,
        }
    }

    /// Writes `rounds` changes of each account.
    fn write(&mut self, left: &Stopped, rounds: usize) {
        RUNTIME.block_on(async {
            let clock = Clock::system();
            let store = DirectoryStore::open(&left.data_dir().join("directory.db"));
            let directory = Directory::bind(store.expect("a store"), clock.clone(), 1 << 20);
            let directory = directory.await.expect("a directory");
            for _ in 0..rounds {
                self.written += 1;
                let label = self.written;
                let seen: Vec<Observation> = self
                    .accounts
                    .iter_mut()
                    .map(|repo| observe(repo, label, &clock))
                    .collect();
                if label == 1 {
                    for seen in seen {
                        let applied = directory.apply(seen, PendingUpdate::Unchanged).await;
                        applied.expect("an outcome");
                    }
                } else {
                    let batch = Batch {
                        observations: seen,
                        ..Batch::default()
                    };
                    directory.apply_batch(batch).await.expect("outcomes");
                }
            }
            directory.shutdown().await;
        });
    }
}

/// Has an account write a package with this number, and returns what a stream shows of that.
fn observe(repo: &mut TestRepo, label: usize, clock: &Clock) -> Observation {
    let seed = u8::try_from(label % 250).expect("a small number");
    let mut record = package(&peer(seed), &["did:web:mediator.example.com"]);
    record["label"] = json!(label.to_string());
    let Proven::Present(record) = repo.put(&record) else {
        panic!("an absence")
    };
    let now = clock.now();
    Observation {
        did: repo.did.clone(),
        identity: Some(IdentityFacts {
            pds: Some(Origin::parse("https://pds.example.com").expect("an origin")),
            key: Some(repo.key()),
            claimed: None,
            asked_at: now,
        }),
        finding: Finding::Present(record),
        // Only its own PDS brings an account in.
        authority: if label == 1 {
            Authority::Pds
        } else {
            Authority::Stream
        },
        trigger: Trigger::Event {
            source: SourceKind::Pds,
            event: EventKind::Commit,
        },
        begun: Begun::default(),
        at: now,
    }
}

/// Checks the order of each account. Returns how many different changes have arrived.
#[track_caller]
fn arrived(events: &[Value]) -> usize {
    let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events.iter().filter(|event| event["type"] == "record") {
        assert_ne!(event["action"], "delete", "{event}");
        let label = event["record"]["label"].as_str().expect("a label");
        let label: usize = label.parse().expect("a number");
        let newest = newest
            .entry(event["did"].as_str().expect("an account"))
            .or_default();
        // The next one, or one that is delivered again.
        assert!(label <= *newest + 1, "{label} after {newest}: {event}");
        *newest = label.max(*newest);
    }
    newest.values().sum()
}

/// The size of the load is set by `TEST_CHANNEL_CHANGES`, such as 100000.
#[test]
fn inv10_no_change_is_lost_over_twenty_kills_of_either_side() {
    let changes = std::env::var("TEST_CHANNEL_CHANGES").ok();
    let changes: usize = changes.map_or(6000, |text| text.parse().expect("a number"));
    let accounts = changes.div_ceil(CHANGES_OF_ACCOUNT);
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = port.expect("a port").port();
    // The accounts are of no network that could be asked.
    let setup = setup(Setup::offline())
        .set("http.listen", json!(format!("127.0.0.1:{port}")))
        .set("resolve.on_demand", json!(0));
    let mut left = setup.start().stop();
    let mut load = Load::new(accounts);
    let mut consumer = Consumer::start(format!("http://127.0.0.1:{port}"));
    let mut kills = 0;
    while kills < KILLS || load.written < CHANGES_OF_ACCOUNT {
        let rounds = (CHANGES_OF_ACCOUNT / (KILLS / 2)).min(CHANGES_OF_ACCOUNT - load.written);
        load.write(&left, rounds);
        let service = left.start();
        // In the midst of the delivery of what is new, first of the one side, then of the other.
        let some = u64::try_from(accounts * rounds * 100).expect("a small number");
        let wait = |consumer: &Consumer, more: u64| {
            let begun = Instant::now();
            let len = consumer.len();
            while consumer.len() < len + more && begun.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        wait(&consumer, some);
        consumer.restart();
        wait(&consumer, some);
        left = service.kill();
        kills += 2;
    }
    assert_eq!(load.written, CHANGES_OF_ACCOUNT);
    let service = left.start();
    let all = accounts * CHANGES_OF_ACCOUNT;
    let (mut before, mut last) = (0, Instant::now());
    loop {
        let len = consumer.len();
        // Read again only once nothing comes any more.
        if len == before {
            let arrived = arrived(&consumer.events());
            if arrived == all {
                break;
            }
            assert!(last.elapsed() < STALLED, "{arrived} of {all} have arrived");
        } else {
            (before, last) = (len, Instant::now());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let delivered = consumer.events().len();
    println!("{all} changes of {accounts} accounts, {delivered} deliveries, {kills} kills");
    // What is acknowledged is not delivered again after the next start.
    let service = service.stop().start();
    eventually("the consumer is back", || {
        (service.metric("atcomm_channel_connections", &[]) == 1.0).then_some(())
    });
    drop(service);
    assert!(consumer.events().len() < delivered + MAX_UNDER_WAY);
}
