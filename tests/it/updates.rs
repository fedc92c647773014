//! `subscribeUpdates`, read by the reference implementation of event streams, and the channel, read
//! by the client of its npm package.

mod channel;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use testkit::network::script;

use crate::http::{RUNTIME, eventually};
use crate::lexicon::assert_valid;
use crate::network::{Network, in_both_shapes};
use crate::service::{Service, Setup, xrpc_error};

const UPDATES: &str = "at.didcomm.directory.subscribeUpdates";

/// A program that reads the stream (`tests/network/updates.mjs`).
struct Subscriber {
    child: Child,
    lines: Receiver<Value>,
    input: ChildStdin,
}

impl Subscriber {
    fn start(service: &Service, query: &str) -> Self {
        let url = service.url(&format!("/xrpc/{UPDATES}{query}"));
        let mut child = script("node.sh")
            .args(["updates.mjs", &url.replacen("http", "ws", 1)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/network/updates.mjs");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let input = child.stdin.take().expect("a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("a line of JSON");
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            input,
        }
    }

    /// Begins to read after a cursor. Returns the name of the log, too.
    fn read(service: &Service, query: &str) -> (Self, String) {
        let reader = Self::start(service, query);
        assert_eq!(reader.line(), json!({"open": true}));
        let greeting = reader.message();
        assert_eq!(greeting["$type"], format!("{UPDATES}#info"), "{greeting}");
        let stream = greeting["stream"].as_str().expect("a name").to_owned();
        (reader, stream)
    }

    #[track_caller]
    fn line(&self) -> Value {
        let line = self.lines.recv_timeout(Duration::from_secs(30));
        line.expect("a line")
    }

    /// Returns the next message, after checking it against the lexicon.
    #[track_caller]
    fn message(&self) -> Value {
        let line = self.line();
        let mut message = line["body"].clone();
        let t = line["t"].as_str().unwrap_or_else(|| panic!("{line}"));
        message["$type"] = json!(format!("{UPDATES}{t}"));
        assert_valid(UPDATES, "message", &message);
        message
    }

    /// Returns the error with which the stream ends.
    #[track_caller]
    fn error(&self) -> String {
        assert_eq!(self.line(), json!({"open": true}));
        let error = self.line();
        assert_eq!(self.line(), json!({"closed": 1008}), "{error}");
        let name = error["error"].as_str().unwrap_or_else(|| panic!("{error}"));
        name.to_owned()
    }

    /// Reads into `states` until `is_there` accepts them. Returns the last position.
    #[track_caller]
    fn until(
        &self,
        states: &mut BTreeMap<String, Value>,
        is_there: impl Fn(&BTreeMap<String, Value>) -> bool,
    ) -> i64 {
        let mut last = 0;
        while !is_there(states) {
            let message = self.message();
            if let Some(did) = message["did"].as_str() {
                let seq = message["seq"].as_i64().expect("a number");
                assert!(seq > last, "{message}");
                last = seq;
                states.insert(did.to_owned(), message);
            }
        }
        last
    }

    fn is_quiet(&self) -> bool {
        let line = self.lines.recv_timeout(Duration::from_millis(700));
        line == Err(RecvTimeoutError::Timeout)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn has(states: &BTreeMap<String, Value>, did: &str, t: &str, path: &str, value: &Value) -> bool {
    states.get(did).is_some_and(|message| {
        message["$type"] == format!("{UPDATES}{t}") && message.pointer(path) == Some(value)
    })
}

in_both_shapes! {
    fn changes_of_accounts_arrive_and_are_replayed_across_a_kill(network) {
        let service = Setup::beside(network).start();
        let [alice, bob] = ["alice", "bob"].map(|name| network.enrolled(name, 0, json!({})));
        let (reader, stream) = Subscriber::read(&service, "?cursor=0");
        let mut states = BTreeMap::new();
        reader.until(&mut states, |states| {
            has(states, &alice.did, "#upsert", "/handle", &json!(alice.handle))
                && has(states, &bob.did, "#upsert", "/handle", &json!(bob.handle))
        });
        let view = service.until(&alice.did, "the package", |_| true);
        let told = &states[&alice.did];
        for (field, path) in [
            ("cid", "/keyPackage/cid"),
            ("uri", "/keyPackage/uri"),
            ("peer", "/peer/did"),
            ("pds", "/pds"),
            ("status", "/status"),
        ] {
            assert_eq!(Some(&told[field]), view.pointer(path), "{field}");
        }
        // Live changes.
        let put = alice.put(json!({"label": "second"}));
        bob.op("account.deactivate", json!({}));
        let cursor = reader.until(&mut states, |states| {
            has(states, &alice.did, "#upsert", "/cid", &put["cid"])
                && has(states, &bob.did, "#status", "/status", &json!("deactivated"))
        });
        assert_eq!(states[&bob.did].get("peer"), None);
        // After a kill the reader goes on at its cursor, and is told only what is new.
        let service = service.kill().start();
        let query = format!("?cursor={cursor}&stream={stream}");
        let (reader, again) = Subscriber::read(&service, &query);
        assert_eq!(again, stream);
        alice.delete_record();
        reader.until(&mut states, |states| {
            has(states, &alice.did, "#remove", "/state", &json!("removed"))
        });
        // One who begins anew arrives at the same, and learns nothing of the package that is hidden.
        let (new, _) = Subscriber::read(&service, "?cursor=0");
        let mut whole = BTreeMap::new();
        let mut shown = BTreeSet::new();
        while whole.get(&alice.did) != states.get(&alice.did) || !whole.contains_key(&bob.did) {
            let message = new.message();
            let did = message["did"].as_str().expect("an account").to_owned();
            if message.get("peer").is_some() {
                shown.insert(did.clone());
            }
            whole.insert(did, message);
        }
        assert_eq!(whole[&bob.did], states[&bob.did]);
        // Accounts of other tests are in the network, too.
        assert!(shown.contains(&alice.did) && !shown.contains(&bob.did), "{shown:?}");
        // Without a cursor there is only what comes.
        let (live, _) = Subscriber::read(&service, "");
        assert!(live.is_quiet());
        bob.op("account.activate", json!({}));
        let mut states = BTreeMap::new();
        live.until(&mut states, |states| has(states, &bob.did, "#upsert", "/state", &json!("present")));
    }
}

#[test]
fn what_cannot_be_replayed_is_a_typed_error() {
    let network = Network::multikey();
    let service = Setup::beside(network).start();
    let alice = network.enrolled("alice", 0, json!({}));
    let (reader, stream) = Subscriber::read(&service, "?cursor=0");
    let mut states = BTreeMap::new();
    let cursor = reader.until(&mut states, |states| states.contains_key(&alice.did));
    let error = |query: String| Subscriber::start(&service, &query).error();
    assert_eq!(error("?cursor=9007199254740991".to_owned()), "FutureCursor");
    assert_eq!(error("?cursor=1".to_owned()), "StreamMismatch");
    assert_eq!(
        error(format!("?cursor={cursor}&stream=x")),
        "StreamMismatch"
    );
    for (query, name) in [
        ("cursor=-1", "cursor"),
        ("cursor=x", "cursor"),
        ("cursor=1&cursor=2", "cursor"),
        ("cursor=99999999999999999999", "cursor"),
        (&format!("stream={}", "x".repeat(65)), "stream"),
        ("stream=a&stream=b", "stream"),
    ] {
        let url = service.url(&format!("/xrpc/{UPDATES}?{query}"));
        let failure = xrpc_error(UPDATES, &crate::http::request("GET", &url, &[], None));
        assert_eq!((failure.status, &*failure.name), (400, "InvalidRequest"));
        assert!(failure.message.contains(name), "{failure:?}");
    }
    let failure = xrpc_error(UPDATES, &service.query(UPDATES, &[]));
    assert_eq!((failure.status, &*failure.name), (426, "UpgradeRequired"));
    // The store is lost: the log begins anew, and the cursor is none of it.
    let left = service.stop();
    std::fs::remove_file(left.data_dir().join("directory.db")).expect("a file");
    let service = left.start();
    for query in [
        format!("?cursor={cursor}"),
        format!("?cursor={cursor}&stream={stream}"),
    ] {
        let ended = Subscriber::start(&service, &query).error();
        assert_eq!(ended, "StreamMismatch");
    }
}

#[test]
fn inv7_readers_are_bounded_in_all_and_of_one_address() {
    for (key, status) in [("address_subscribers", 429), ("subscribers", 503)] {
        let service = Setup::offline()
            .set(&format!("http.updates.{key}"), json!(2))
            .start();
        let (first, _) = Subscriber::read(&service, "");
        let (_second, _) = Subscriber::read(&service, "");
        let third = Subscriber::start(&service, "");
        assert_eq!(third.line(), json!({"refused": status}));
        assert_eq!(service.metric("atcomm_updates_subscribers", &[]), 2.0);
        drop(first);
        eventually("a place is free", || {
            let reader = Subscriber::start(&service, "");
            (reader.line() == json!({"open": true})).then_some(())
        });
    }
}

/// Returns the seconds of CPU that a process has taken.
fn cpu_of(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    // User and system time are the fields 14 and 15 (proc(5)), in hundredths.
    let times = rest.split(' ').skip(11).take(2);
    times
        .map(|time| time.parse::<f64>().expect("a number") / 100.0)
        .sum()
}

/// `TEST_SUBSCRIBERS` sets the number of readers, such as the 1000 of the target.
#[test]
fn a_live_frame_is_made_once_for_all_readers() {
    let readers = std::env::var("TEST_SUBSCRIBERS").ok();
    let readers: usize = readers.map_or(50, |text| text.parse().expect("a number"));
    // Changes of other tests' accounts would be counted.
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let service = Setup::new(network)
        .pds(network, 0)
        .set("http.updates.address_subscribers", json!(readers))
        .set("http.updates.subscribers", json!(readers))
        .start();
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |view| {
        view["handle"] == *alice.handle
    });
    let url = service
        .url(&format!("/xrpc/{UPDATES}"))
        .replacen("http", "ws", 1);
    let sockets = RUNTIME.block_on(async {
        let mut sockets = Vec::new();
        for _ in 0..readers {
            let opened = tokio_tungstenite::connect_async(&url).await;
            let mut socket = opened.expect("a WebSocket").0;
            // The greeting.
            socket.next().await.expect("a frame").expect("a frame");
            sockets.push(socket);
        }
        sockets
    });
    let made = || service.metric("atcomm_updates_live_total", &[]);
    // All of them are past their beginning.
    eventually("a live frame", || {
        let first = alice.put(json!({"label": "first"}));
        service.until_cid(&alice.did, &first["cid"]);
        (made() >= 1.0).then_some(())
    });
    let (before, cpu, begun) = (made(), cpu_of(service.process_id()), Instant::now());
    let changes = 20;
    let mut last = Value::Null;
    for n in 0..changes {
        last = alice.put(json!({"label": format!("{n}")}))["cid"].clone();
        std::thread::sleep(Duration::from_millis(50));
    }
    let last = last.as_str().expect("a CID").as_bytes().to_vec();
    RUNTIME.block_on(async {
        for mut socket in sockets {
            loop {
                let next = tokio::time::timeout(Duration::from_secs(30), socket.next());
                let frame = next
                    .await
                    .expect("in time")
                    .expect("a frame")
                    .expect("a frame");
                // The text of the CID is in the frame as it is.
                if frame
                    .into_data()
                    .windows(last.len())
                    .any(|part| part == last)
                {
                    break;
                }
            }
        }
    });
    let made = made() - before;
    let cpu = (cpu_of(service.process_id()) - cpu) / begun.elapsed().as_secs_f64();
    println!("{readers} readers, {made} frames made, {cpu:.3} core");
    assert!(
        made >= f64::from(changes) && made < f64::from(2 * changes),
        "{made}"
    );
    let ended = service.metric("atcomm_updates_ended_total", &[]);
    assert_eq!(ended, 0.0);
}

#[test]
fn readers_that_do_not_read_hold_up_neither_the_writer_nor_the_others() {
    let network = Network::multikey();
    let service = Setup::beside(network).start();
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    let mut stuck: Vec<Subscriber> = (0..4)
        .map(|_| Subscriber::read(&service, "?cursor=0").0)
        .collect();
    for reader in &mut stuck {
        writeln!(reader.input, "pause").expect("it reads");
    }
    let (reader, _) = Subscriber::read(&service, "");
    let mut states = BTreeMap::new();
    for n in 0..20 {
        let put = alice.put(json!({"label": format!("{n}")}));
        reader.until(&mut states, |states| {
            has(states, &alice.did, "#upsert", "/cid", &put["cid"])
        });
    }
    // They go on where they stopped.
    for reader in &mut stuck {
        writeln!(reader.input, "go on").expect("it reads");
        let mut theirs = BTreeMap::new();
        reader.until(&mut theirs, |theirs| {
            theirs.get(&alice.did) == states.get(&alice.did)
        });
    }
}
