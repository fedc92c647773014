//! The channel, with the unmodified client of `@atproto/tap` (`tests/network/tap/consumer.mjs`).

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
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

/// Changes in the large test.
const CHANGES: usize = 100_000;

/// Changes of one account, fewer than the log keeps.
const CHANGES_OF_ACCOUNT: usize = 150;

/// Kills in the large test, half of them of either side.
const KILLS: usize = 20;

/// Changes of each account between two kills of the service.
const ROUNDS: usize = CHANGES_OF_ACCOUNT.div_ceil(KILLS / 2);

/// Most events that are sent before one of them is acknowledged, and some more.
const MAX_UNDER_WAY: usize = 1000;

/// Longest wait for the midst of a delivery before a kill, and for a new event at the end.
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
        lines.filter(is_event).collect()
    }

    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            self.events().into_iter().find(|event| wanted(event))
        })
    }
}

/// Returns whether a line of the consumer is an event. An acknowledgement may meet a connection that
/// breaks off; there are no other faults.
#[track_caller]
fn is_event(line: &Value) -> bool {
    let fault = line["fault"].as_str();
    assert!(
        fault.is_none_or(|fault| fault.contains("send ack")),
        "{line}"
    );
    fault.is_none()
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
    let mut load = Load::new(2, 3);
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
    /// What a stream shows of one change of each account, round by round.
    rounds: Receiver<Vec<Observation>>,
    /// Changes of each account so far.
    written: usize,
}

impl Load {
    /// Has the accounts write `rounds` packages each. They are a few rounds ahead of what is put into
    /// a store: to sign takes longer than to write.
    fn new(accounts: usize, rounds: usize) -> Self {
        let (sender, receiver) = sync_channel(ROUNDS);
        std::thread::spawn(move || {
            let accounts = (0..accounts).map(|n| {
                let tail: String = (0..24)
                    .map(|i| char::from(b'a' + ((n >> (i * 2)) & 3) as u8))
                    .collect();
                let seed = u8::try_from(n % 200).expect("a small number") + 1;
                TestRepo::new(&format!("did:plc:{tail}"), seed)
            });
            let mut accounts: Vec<TestRepo> = accounts.collect();
            let clock = Clock::system();
            for label in 1..=rounds {
                let seen = accounts.iter_mut();
                let seen = seen.map(|repo| observe(repo, label, &clock)).collect();
                if sender.send(seen).is_err() {
                    break;
                }
            }
        });
        Self {
            rounds: receiver,
            written: 0,
        }
    }

    /// Writes `rounds` changes of each account.
    fn write(&mut self, left: &Stopped, rounds: usize) {
        RUNTIME.block_on(async {
            let store = DirectoryStore::open(&left.data_dir().join("directory.db"));
            let directory = Directory::bind(store.expect("a store"), Clock::system(), 1 << 20);
            let directory = directory.await.expect("a directory");
            for _ in 0..rounds {
                let seen = self.rounds.recv().expect("a round");
                self.written += 1;
                if self.written == 1 {
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

/// What has arrived at a consumer, read from its file as it grows.
struct Arrived {
    file: BufReader<std::fs::File>,
    /// A line whose end has not arrived.
    rest: String,
    /// The newest change of each account.
    newest: BTreeMap<String, usize>,
    deliveries: usize,
}

impl Arrived {
    fn at(consumer: &Consumer) -> Self {
        let file = eventually("the consumer runs", || {
            std::fs::File::open(consumer.file()).ok()
        });
        Self {
            file: BufReader::new(file),
            rest: String::new(),
            newest: BTreeMap::new(),
            deliveries: 0,
        }
    }

    /// Reads on, and checks the order of each account. Returns how many different changes have
    /// arrived.
    #[track_caller]
    fn read(&mut self) -> usize {
        while self.file.read_line(&mut self.rest).expect("text") > 0 && self.rest.ends_with('\n') {
            let line = std::mem::take(&mut self.rest);
            let event: Value = serde_json::from_str(&line).expect("a line of JSON");
            if is_event(&event) {
                self.take(&event);
            }
        }
        self.newest.values().sum()
    }

    #[track_caller]
    fn take(&mut self, event: &Value) {
        self.deliveries += 1;
        if event["type"] != "record" {
            return;
        }
        assert_ne!(event["action"], "delete", "{event}");
        let label = event["record"]["label"].as_str().expect("a label");
        let label: usize = label.parse().expect("a number");
        let did = event["did"].as_str().expect("an account");
        let newest = self.newest.entry(did.to_owned()).or_default();
        // The next one, or one that is delivered again.
        assert!(label <= *newest + 1, "{label} after {newest}: {event}");
        *newest = label.max(*newest);
    }

    /// Reads on until `wanted` changes have arrived, or none for a long time. Returns how many.
    #[track_caller]
    fn until(&mut self, wanted: usize) -> usize {
        let (mut before, mut last) = (self.read(), Instant::now());
        while before < wanted && last.elapsed() < STALLED {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.read();
            if now > before {
                (before, last) = (now, Instant::now());
            }
        }
        before
    }
}

/// The service is a process, and so is the consumer, whose client is the unmodified one. The service
/// is killed in the midst of its delivery, and so is the consumer, in turn and each ten times; the
/// accounts change before each start of the service. The consumer has written down every event that
/// it has acknowledged, in the order in which they came. In the end it has every change of every
/// account, and of each account they came in their order: an event before the one that precedes it
/// fails the test, and so does a change that never comes. `TEST_CHANNEL_CHANGES` sets another number
/// of changes.
#[test]
fn inv10_no_change_is_lost_over_twenty_kills_of_either_side() {
    let changes = std::env::var("TEST_CHANNEL_CHANGES").ok();
    let changes: usize = changes.map_or(CHANGES, |text| text.parse().expect("a number"));
    let accounts = changes.div_ceil(CHANGES_OF_ACCOUNT);
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = port.expect("a port").port();
    // The accounts are of no network that could be asked.
    let setup = setup(Setup::offline())
        .set("http.listen", json!(format!("127.0.0.1:{port}")))
        .set("resolve.on_demand", json!(0));
    let mut left = setup.start().stop();
    let mut load = Load::new(accounts, CHANGES_OF_ACCOUNT);
    let mut consumer = Consumer::start(format!("http://127.0.0.1:{port}"));
    let mut arrived = Arrived::at(&consumer);
    let (mut kills, mut writing, mut serving) = (0, Duration::ZERO, Duration::ZERO);
    while load.written < CHANGES_OF_ACCOUNT {
        let begun = Instant::now();
        load.write(&left, ROUNDS.min(CHANGES_OF_ACCOUNT - load.written));
        writing += begun.elapsed();
        let begun = Instant::now();
        let service = left.start();
        // In the midst of the delivery of what is new, first of the one side, then of the other.
        let missing = accounts * load.written - arrived.read();
        arrived.until(accounts * load.written - missing * 2 / 3);
        consumer.restart();
        arrived.until(accounts * load.written - missing / 3);
        left = service.kill();
        serving += begun.elapsed();
        kills += 2;
    }
    assert!(kills >= KILLS, "{kills} kills");
    let service = left.start();
    let all = accounts * CHANGES_OF_ACCOUNT;
    assert_eq!(arrived.until(all), all, "changes have arrived");
    let delivered = arrived.deliveries;
    println!(
        "{all} changes of {accounts} accounts, {delivered} deliveries, {kills} kills; {:.0} s to write, \
         {:.0} s to serve",
        writing.as_secs_f64(),
        serving.as_secs_f64()
    );
    // What is acknowledged is not delivered again after the next start.
    let service = service.stop().start();
    eventually("the consumer is back", || {
        (service.metric("atcomm_channel_connections", &[]) == 1.0).then_some(())
    });
    drop(service);
    assert_eq!(arrived.read(), all);
    assert!(arrived.deliveries < delivered + MAX_UNDER_WAY);
}
