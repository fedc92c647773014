//! Readers over connections in memory.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use ipld_core::ipld::Ipld;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::directory::{Authority, Begun, Finding, IdentityFacts, Observation, PendingUpdate};
use crate::store::{AccountStatus, DirectoryStore, Gap, Trigger};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::proof::Proven;
use atcomm_proto::syntax::Origin;
use testkit::proto::repo::{TestRepo, package, peer};

const DID: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";

struct World {
    dir: tempfile::TempDir,
    updates: Updates,
    clock: Clock,
    repo: TestRepo,
    stop: CancellationToken,
    hub: JoinHandle<()>,
}

async fn open(path: PathBuf, clock: &Clock) -> Arc<Directory> {
    let store = DirectoryStore::open(&path).unwrap();
    let directory = Directory::bind(store, clock.clone(), 1 << 20)
        .await
        .unwrap();
    directory.begin_log().await.unwrap();
    Arc::new(directory)
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        let directory = open(dir.path().join("directory.db"), &clock).await;
        let updates = Updates::new(directory, &UpdatesSettings::default());
        let stop = CancellationToken::new();
        let (running, ended) = (updates.clone(), stop.clone());
        Self {
            dir,
            updates,
            clock,
            repo: TestRepo::new(DID, 1),
            stop,
            hub: tokio::spawn(async move { running.run(ended).await }),
        }
    }

    async fn apply(&self, finding: Finding) {
        let now = self.clock.now();
        let directory = &self.updates.directory;
        let did = self.repo.did.clone();
        let begun = directory.begin(&did).await.unwrap();
        let seen = Observation {
            did,
            identity: Some(IdentityFacts {
                pds: Some(Origin::parse("https://pds.example.com").unwrap()),
                key: Some(self.repo.key()),
                claimed: None,
                asked_at: now,
            }),
            finding,
            authority: Authority::Pds,
            trigger: Trigger::Recheck,
            begun: Begun { ..begun },
            at: now,
        };
        let applied = directory.apply(seen, PendingUpdate::Unchanged);
        applied.await.unwrap();
        self.clock.advance(Duration::from_secs(1));
    }

    async fn put(&mut self, seed: u8) {
        let Proven::Present(record) = self.repo.put(&package(&peer(seed), &["did:web:m.example"]))
        else {
            panic!("an absence")
        };
        self.apply(Finding::Present(record)).await;
    }

    /// Writes many changes of many accounts, as the store keeps them.
    async fn fill(&self, count: u32) {
        let store = self.updates.directory.store();
        let now = self.clock.now();
        store
            .transact(move |tx| {
                use crate::store::directory::Owner;
                use crate::store::{Change, ChangeKind, Entry};
                for n in 0..count {
                    let did = format!("did:web:a{n}.example.com");
                    let did = atcomm_proto::syntax::Did::parse(&did).unwrap();
                    let entry = Entry::empty(did, "pds", now);
                    tx.append_change(
                        &Change::of(&entry, ChangeKind::Removed, Some("x".repeat(500)), now),
                        &Owner::of(&entry),
                    )?;
                }
                Ok(())
            })
            .await
            .unwrap();
    }

    fn read(&self, cursor: Option<i64>, stream: Option<&str>) -> Client {
        self.read_by(cursor, stream, 1 << 20)
    }

    /// Begins to read, over a connection that holds this many bytes.
    fn read_by(&self, cursor: Option<i64>, stream: Option<&str>, room: usize) -> Client {
        let (ours, theirs) = tokio::io::duplex(room);
        let stream = stream.map(str::to_owned);
        let reader = self
            .updates
            .reader("192.0.2.1".parse().unwrap(), cursor, stream);
        let serving = tokio::spawn(reader.serve(theirs, self.stop.clone()));
        Client {
            connection: Some(ours),
            socket: None,
            serving,
        }
    }

    async fn newest(&self) -> (String, i64) {
        let log = self.updates.directory.log().await.unwrap();
        (log.stream, log.newest)
    }
}

struct Client {
    connection: Option<DuplexStream>,
    socket: Option<WebSocketStream<DuplexStream>>,
    serving: JoinHandle<()>,
}

/// A frame: its type or error, and its body.
type Frame = (String, Ipld);

/// Reads a frame strictly: behind the byte that opens an array of two, it is one value.
fn decode(bytes: &Bytes) -> Frame {
    let array = [&[0x82], &bytes[..]].concat();
    let Ok(Ipld::List(parts)) = serde_ipld_dagcbor::from_slice(&array) else {
        panic!("{bytes:?}")
    };
    let [Ipld::Map(header), body] = &parts[..] else {
        panic!("{parts:?}")
    };
    let name = match header.get("op") {
        Some(Ipld::Integer(1)) => &header["t"],
        Some(Ipld::Integer(-1)) => field(body, "error").unwrap(),
        _ => panic!("{header:?}"),
    };
    let Ipld::String(name) = name else {
        panic!("{header:?}")
    };
    (name.clone(), body.clone())
}

fn field<'b>(body: &'b Ipld, name: &str) -> Option<&'b Ipld> {
    let Ipld::Map(body) = body else {
        panic!("{body:?}")
    };
    body.get(name)
}

fn seq(body: &Ipld) -> i64 {
    match field(body, "seq") {
        Some(Ipld::Integer(seq)) => i64::try_from(*seq).unwrap(),
        other => panic!("{other:?}"),
    }
}

impl Client {
    async fn socket(&mut self) -> &mut WebSocketStream<DuplexStream> {
        if let Some(connection) = self.connection.take() {
            let socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
            self.socket = Some(socket);
        }
        self.socket.as_mut().unwrap()
    }

    /// Returns the next frame, or `None` at the end.
    async fn next(&mut self) -> Option<Frame> {
        let next = tokio::time::timeout(Duration::from_secs(30), self.next_frame()).await;
        next.expect("a frame in time")
    }

    async fn next_frame(&mut self) -> Option<Frame> {
        loop {
            match self.socket().await.next().await {
                Some(Ok(Message::Binary(bytes))) => return Some(decode(&bytes)),
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(other)) => panic!("{other:?}"),
            }
        }
    }

    async fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(self.next().await.expect("a frame").0);
        }
        names
    }

    /// Returns the error with which the stream ends.
    async fn error(mut self) -> String {
        let mut last = self.next().await.expect("a frame");
        while let Some(frame) = self.next().await {
            last = frame;
        }
        last.0
    }
}

#[tokio::test]
async fn a_reader_gets_what_was_and_what_comes() {
    let mut w = World::new().await;
    w.put(10).await;
    let mut from_now = w.read(None, None);
    assert_eq!(from_now.names(1).await, ["#info"]);
    let mut reader = w.read(Some(0), None);
    let (name, greeting) = reader.next().await.unwrap();
    let (stream, newest) = w.newest().await;
    assert_eq!(name, "#info");
    assert_eq!(
        field(&greeting, "stream"),
        Some(&Ipld::String(stream.clone()))
    );
    let (name, body) = reader.next().await.unwrap();
    assert_eq!((name.as_str(), seq(&body)), ("#upsert", newest));
    assert_eq!(field(&body, "peer"), Some(&Ipld::String(peer(10))));
    assert_eq!(field(&body, "did"), Some(&Ipld::String(DID.to_owned())));
    w.apply(Finding::Inactive(AccountStatus::Takendown)).await;
    w.put(11).await;
    w.apply(Finding::AbsentUnproven).await;
    w.apply(Finding::Deleted).await;
    let expected = ["#status", "#upsert", "#upsert", "#remove", "#remove"];
    for client in [&mut reader, &mut from_now] {
        let (mut names, mut last) = (Vec::new(), newest);
        loop {
            let (name, body) = client.next().await.unwrap();
            assert!(seq(&body) > last);
            last = seq(&body);
            names.push(name);
            if field(&body, "change") == Some(&Ipld::String("deleted".to_owned())) {
                break;
            }
        }
        // What came before the end of an account need not be told once the account has ended, and
        // some of it may have been told before.
        let mut rest = expected.iter();
        let in_order = names.iter().all(|name| rest.any(|one| one == name));
        assert!(in_order, "{names:?}");
    }
    // One who comes back misses nothing and gets nothing twice.
    let (_, newest) = w.newest().await;
    let mut again = w.read(Some(newest), Some(&stream));
    assert_eq!(again.names(1).await, ["#info"]);
    w.put(12).await;
    let (name, body) = again.next().await.unwrap();
    assert_eq!(name, "#upsert");
    assert!(seq(&body) > newest);
    w.stop.cancel();
    assert_eq!(again.next().await, None);
}

/// However many come at once: none of them reads the store, and each gets what comes after it.
#[tokio::test]
async fn a_reader_that_is_not_behind_waits_for_no_turn() {
    let mut w = World::new().await;
    w.put(9).await;
    // The first one has frames made.
    let mut first = w.read(None, None);
    assert_eq!(first.names(1).await, ["#info"]);
    w.put(10).await;
    first.next().await.unwrap();
    w.updates.replays.stop().await;
    let mut readers = Vec::new();
    for seed in 11..21 {
        // Before or after the frame of the last change is made.
        let (stream, newest) = w.newest().await;
        let cursor = (seed % 2 == 0).then_some(newest);
        let mut reader = w.read(cursor, Some(&stream));
        assert_eq!(reader.names(1).await, ["#info"]);
        w.put(seed).await;
        readers.push((newest, reader));
        tokio::time::sleep(Duration::from_millis(u64::from(seed) * 7)).await;
    }
    let (_, newest) = w.newest().await;
    for (mut last, mut reader) in readers {
        while last < newest {
            let (name, body) = reader.next().await.unwrap();
            assert_eq!((name.as_str(), seq(&body)), ("#upsert", last + 1));
            last += 1;
        }
    }
}

#[test]
fn frames_after_a_position_begin_with_the_next_one() {
    use super::hub::Live;
    let frames = Bytes::from_static(b"aabbbc");
    let starts = [(3, 0), (5, 2), (9, 5)];
    let expected = [
        (0, &b"aabbbc"[..]),
        (2, b"aabbbc"),
        (3, b"bbbc"),
        (4, b"bbbc"),
        (5, b"c"),
        (8, b"c"),
        (9, b""),
        (10, b""),
    ];
    for (position, expected) in expected {
        assert_eq!(Live::after(&frames, &starts, position), expected);
    }
}

#[tokio::test]
async fn a_cursor_of_another_log_is_told_from_one_of_the_future() {
    let mut w = World::new().await;
    w.put(10).await;
    let (stream, newest) = w.newest().await;
    let end = async |cursor, stream: Option<&str>| w.read(Some(cursor), stream).error().await;
    assert_eq!(end(newest + 1, Some(&stream)).await, "FutureCursor");
    assert_eq!(end(newest, Some("another")).await, "StreamMismatch");
    assert_eq!(end(0, Some("another")).await, "StreamMismatch");
    assert_eq!(end(1, None).await, "StreamMismatch");
    // A name without a cursor is checked, too.
    assert_eq!(
        w.read(None, Some("another")).error().await,
        "StreamMismatch"
    );
}

/// The reader holds one page, whatever comes: the live frames pass it by until it is ended.
#[tokio::test]
async fn inv7_a_reader_that_does_not_read_is_told_that_it_is_too_slow() {
    let w = World::new().await;
    let mut slow = w.read_by(None, None, 4096);
    assert_eq!(slow.names(1).await, ["#info"]);
    let mut quick = w.read(None, None);
    assert_eq!(quick.names(1).await, ["#info"]);
    // Pages enough that the slow one is behind more of them than are kept.
    let count = 12_000;
    w.fill(count).await;
    let mut last = 0;
    for _ in 0..count {
        let (_, body) = quick.next().await.expect("a frame");
        assert!(seq(&body) > last);
        last = seq(&body);
    }
    assert!(!slow.serving.is_finished());
    assert_eq!(slow.error().await, "ConsumerTooSlow");
    assert!(!quick.serving.is_finished());
}

#[tokio::test]
async fn a_gap_is_told_and_so_is_its_end() {
    let mut w = World::new().await;
    w.put(10).await;
    let mut reader = w.read(None, None);
    assert_eq!(reader.names(1).await, ["#info"]);
    let gap = Gap {
        source: "relay https://relay.example.com".to_owned(),
        reason: "hole",
        since: w.clock.now(),
        pds: None,
        covered: BTreeSet::new(),
    };
    let batch = crate::directory::Batch {
        gap: Some(gap),
        ..Default::default()
    };
    let directory = &w.updates.directory;
    directory.apply_batch(batch).await.unwrap();
    let (name, body) = reader.next().await.unwrap();
    assert_eq!(name, "#info");
    assert_eq!(
        field(&body, "name"),
        Some(&Ipld::String("InDoubt".to_owned()))
    );
    // A reader that comes now is told, too.
    let mut new = w.read(None, None);
    assert_eq!(new.names(2).await, ["#info", "#info"]);
    while directory.mark_gap().await.unwrap().is_some() {}
    w.clock.advance(Duration::from_secs(5));
    let Proven::Present(record) = w.repo.prove() else {
        panic!("an absence")
    };
    w.apply(Finding::Present(record)).await;
    let (_, body) = reader.next().await.unwrap();
    assert_eq!(
        field(&body, "name"),
        Some(&Ipld::String("DoubtEnded".to_owned()))
    );
}

#[tokio::test]
async fn a_reader_that_speaks_is_ended() {
    use futures_util::SinkExt as _;
    let w = World::new().await;
    let mut reader = w.read(None, None);
    assert_eq!(reader.names(1).await, ["#info"]);
    let socket = reader.socket().await;
    socket.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(reader.next().await, None);
    w.stop.cancel();
    w.hub.await.unwrap();
    drop(w.dir);
}
