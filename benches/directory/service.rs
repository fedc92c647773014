//! A directory of many accounts, served as in production except for its network.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use atcomm::directory::Directory;
use atcomm::http::{Http, HttpSettings, UpdatesSettings};
use atcomm::resolve::{ResolveSettings, Resolver};
use atcomm::store::directory::{Day, DayDelta, GroupKind, Owner};
use atcomm::store::{Change, ChangeKind, DirectoryStore, Entry, PackageState};
use atcomm_net::identity::{Identity, IdentitySettings};
use atcomm_net::net::{Net, NetSettings};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::key::SigningKey;
use atcomm_proto::proof::{Container, Proven, verify};
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin};
use tokio_util::sync::CancellationToken;

/// Entries per transaction while the store is filled.
const CHUNK: u64 = 5_000;

/// Size of the cache of rendered views, in bytes: the default of the service.
const VIEW_CACHE_BYTES: u64 = 64 << 20;

/// PDSes and mediators of most accounts.
const PDSES: [&str; 4] = [
    LARGE_PDS,
    "https://pds1.example.com",
    "https://pds2.example.com",
    "https://pds3.example.com",
];
pub(crate) const MEDIATORS: [&str; 4] = [
    "did:web:mediator0.example.com",
    "did:web:mediator1.example.com",
    "did:web:mediator2.example.com",
    RARE_MEDIATOR,
];

/// The PDS of a quarter of all accounts, and the mediator of another quarter: few accounts have both.
pub(crate) const LARGE_PDS: &str = "https://pds0.example.com";
pub(crate) const RARE_MEDIATOR: &str = "did:web:mediator3.example.com";

pub(crate) struct BenchDirectory {
    pub(crate) address: SocketAddr,
    directory: Arc<Directory>,
    stop: CancellationToken,
}

impl BenchDirectory {
    /// Returns the DID of the n-th account.
    pub(crate) fn did(n: u64) -> Did {
        let digit = |i: u32| char::from(b'a' + ((n >> (4 * i)) & 15) as u8);
        let tail: String = (0..16).map(digit).collect();
        Did::parse(&format!("did:plc:aaaaaaaa{tail}")).unwrap()
    }

    /// Writes `entries` accounts, each with the record and proof of a fixture. Rows have their true
    /// size; only rendering reads their contents.
    pub(crate) async fn fill(dir: &Path, entries: u64) {
        let store = DirectoryStore::open(&dir.join("directory.db")).unwrap();
        let (template, car) = template();
        for first in (0..entries).step_by(usize::try_from(CHUNK).unwrap()) {
            let (template, car) = (template.clone(), car.clone());
            store
                .transact(move |tx| {
                    for n in first..(first + CHUNK).min(entries) {
                        let mut entry = template.clone();
                        entry.did = Self::did(n);
                        entry.handle = Handle::parse(&format!("user{n}.example.com")).ok();
                        entry.claimed.clone_from(&entry.handle);
                        entry.handle_at = entry.proved_at;
                        entry.peer = Some(peer(n));
                        entry.pds = Origin::parse(&pds(n)).ok();
                        entry.proof_pds.clone_from(&entry.pds);
                        entry.mediators = vec![MediatorDid::parse(mediator(n)).unwrap()];
                        tx.put_entry(&entry)?;
                        tx.put_proof(&entry.did, &car)?;
                    }
                    Ok(())
                })
                .await
                .unwrap();
        }
        Self::fill_series(&store).await;
        store.shutdown().await;
    }

    /// Writes a time series of a year, with more groups on each day than have a row.
    async fn fill_series(store: &DirectoryStore) {
        let today = Day::of(Clock::system().now());
        let first = today.plus(-365);
        let began = store.transact(move |tx| tx.reach_day(first.start()));
        began.await.unwrap();
        for n in 0..=365 {
            let day = first.plus(n);
            store
                .transact(move |tx| {
                    tx.reach_day(day.start())?;
                    let groups = [GroupKind::Host, GroupKind::Mediator].into_iter();
                    let named = groups.flat_map(|kind| (0..2000).map(move |group| (kind, group)));
                    // All groups on the first day, a part of them on each later one.
                    let moved = named.filter(|(_, group)| n == 0 || group % 40 == n % 40);
                    let delta = DayDelta {
                        new: 100,
                        departed: 100,
                        groups: moved
                            .map(|(kind, group)| (kind, format!("host{group}.example.com"), 1))
                            .collect(),
                        ..DayDelta::default()
                    };
                    tx.add_to_day(day, day, &delta)
                })
                .await
                .unwrap();
        }
    }

    pub(crate) async fn open(dir: &Path, clock: Clock) -> Self {
        let store = DirectoryStore::open(&dir.join("directory.db")).unwrap();
        let directory = Arc::new(
            Directory::bind(store, clock.clone(), VIEW_CACHE_BYTES)
                .await
                .unwrap(),
        );
        let net = Net::bind(NetSettings::default(), clock.clone()).unwrap();
        let identity = Identity::bind(net.clone(), IdentitySettings::default(), clock.clone());
        let resolver = Resolver::bind(
            net,
            identity,
            Arc::clone(&directory),
            Vec::new(),
            ResolveSettings::default(),
            clock,
        );
        let settings = HttpSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            updates: UpdatesSettings {
                address_subscribers: usize::MAX,
                ..UpdatesSettings::default()
            },
            // All load comes from one address.
            rate_limit: 0,
            ..HttpSettings::default()
        };
        let http = Http::bind(settings, resolver, None, None).unwrap();
        let address = http.local_addr();
        let stop = CancellationToken::new();
        tokio::spawn(http.run(stop.clone()));
        Self {
            address,
            directory,
            stop,
        }
    }

    /// Has an account change, as a check of its handle has it.
    pub(crate) async fn change(&self, n: u64) {
        let did = Self::did(n);
        let now = Clock::system().now();
        let change = self.directory.store().transact(move |tx| {
            let entry = tx.entry(&did)?;
            if let Some(entry) = entry {
                let change = Change::of(&entry, ChangeKind::Identity, None, now);
                tx.append_change(&change, &Owner::of(&entry))?;
            }
            Ok(())
        });
        change.await.unwrap();
    }

    pub(crate) async fn close(self) {
        self.stop.cancel();
        self.directory.shutdown().await;
    }

    /// Returns the resident memory of this process, in megabytes.
    pub(crate) fn resident() -> f64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: f64 = statm
            .split(' ')
            .nth(1)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0.0);
        pages * 4096.0 / 1e6
    }
}

/// Returns the PDS of an account: one in a hundred accounts has its own.
fn pds(n: u64) -> String {
    if n % 100 == 99 {
        return format!("https://pds.user{n}.example.com");
    }
    PDSES[usize::try_from(n % 4).unwrap()].to_owned()
}

/// Returns the mediator of an account: in step with the PDS, but for one account in a thousand.
fn mediator(n: u64) -> &'static str {
    let index = if n % 1000 == 4 { 3 } else { n % 4 };
    MEDIATORS[usize::try_from(index).unwrap()]
}

/// Returns a did:peer:2 of usual length, different for each `n`.
fn peer(n: u64) -> String {
    let key = |codec: [u8; 2]| {
        let mut bytes = [0x55; 34];
        bytes[..2].copy_from_slice(&codec);
        bytes[2..10].copy_from_slice(&n.to_be_bytes());
        format!("z{}", bs58::encode(bytes).into_string())
    };
    let service = "eyJ0IjoiZG0iLCJzIjp7InVyaSI6ImRpZDp3ZWI6bWVkaWF0b3IuZXhhbXBsZSJ9fQ";
    format!(
        "did:peer:2.E{}.V{}.S{service}",
        key([0xec, 1]),
        key([0xed, 1])
    )
}

/// Returns an entry and its proof.
fn template() -> (Entry, Vec<u8>) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/proof");
    let car = std::fs::read(fixtures.join("repo-k256-50-present.car")).unwrap();
    let sidecar = std::fs::read(fixtures.join("repo-k256-50-present.json")).unwrap();
    let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).unwrap();
    let did = Did::parse(sidecar["did"].as_str().unwrap()).unwrap();
    let key = SigningKey::from_did_key(sidecar["signingKey"].as_str().unwrap()).unwrap();
    let at = Timestamp::from_millis(1_798_761_540_000);
    let Ok(Proven::Present(record)) = verify(&car, Container::GetRecord, &did, &key, at) else {
        panic!("the fixture does not verify");
    };
    let now = Clock::system().now();
    let shown = record.commitment();
    let entry = Entry {
        pds: Some(Origin::parse("https://pds.example.com").unwrap()),
        signing_key: Some(key.clone()),
        state: PackageState::Present,
        rev: Some(shown.rev()),
        commit: Some(*shown.commit()),
        cid: Some(*record.cid()),
        proof_pds: Some(Origin::parse("https://pds.example.com").unwrap()),
        proof_key: Some(key.clone()),
        identity_key: Some(key),
        mediators: vec![MediatorDid::parse("did:web:mediator.example.com").unwrap()],
        proved_at: Some(now),
        next_check_at: now.plus(atcomm::directory::REPROVE),
        change_seq: 1,
        identity_at: Some(now),
        ..Entry::empty(did, "listing", now)
    };
    (entry, shown.car().to_vec())
}
