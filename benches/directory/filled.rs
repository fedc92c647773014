//! A file with many accounts and a time series of a year, filled once for all sections.

use std::path::{Path, PathBuf};
use std::time::Instant;

use atcomm::store::directory::{AccountState, Day, DayDelta, GroupKind};
use atcomm::store::{AccountStatus, Coverage, DirectoryStore, Entry, PackageState};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::key::SigningKey;
use atcomm_proto::proof::{Container, Proven, verify};
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin};
use tempfile::TempDir;

/// Entries per transaction while the store is filled.
const CHUNK: usize = 5_000;

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

/// Name of the file that says what a kept directory was filled with.
const CONTENTS: &str = "contents.txt";

/// A directory with a filled file.
pub(crate) struct Filled {
    pub(crate) path: PathBuf,
    _dir: Option<TempDir>,
}

impl Filled {
    /// Fills a temporary directory, or takes the one that `ATCOMM_BENCH_DIR` names: what is in it
    /// already, of the same day and the same size, is used again.
    pub(crate) async fn open(entries: u64) -> Self {
        let began = Instant::now();
        let contents = format!("{entries} entries on {}\n", Day::of(Clock::system().now()));
        let kept = std::env::var_os("ATCOMM_BENCH_DIR").map(PathBuf::from);
        let dir = kept.is_none().then(|| tempfile::tempdir().unwrap());
        let path = kept.unwrap_or_else(|| dir.as_ref().unwrap().path().to_owned());
        std::fs::create_dir_all(&path).unwrap();
        let marker = path.join(CONTENTS);
        let found = std::fs::read_to_string(&marker).unwrap_or_default();
        if found == contents {
            println!("{entries} entries of an earlier run");
        } else {
            assert!(
                found.is_empty() && !path.join("directory.db").exists(),
                "{} holds something else: {found}",
                path.display()
            );
            fill(&path, entries).await;
            std::fs::write(marker, contents).unwrap();
            println!(
                "{entries} entries written in {:.1} s, {:.0} MB",
                began.elapsed().as_secs_f64(),
                std::fs::metadata(path.join("directory.db")).unwrap().len() as f64 / 1e6
            );
        }
        Self { path, _dir: dir }
    }
}

/// Returns the DID of the n-th account.
pub(crate) fn did(n: u64) -> Did {
    let digit = |i: u32| char::from(b'a' + ((n >> (4 * i)) & 15) as u8);
    let tail: String = (0..16).map(digit).collect();
    Did::parse(&format!("did:plc:aaaaaaaa{tail}")).unwrap()
}

/// Writes `entries` accounts, each with the record and proof of a fixture. Rows have their true
/// size; only rendering reads their contents.
async fn fill(dir: &Path, entries: u64) {
    let store = DirectoryStore::open(&dir.join("directory.db")).unwrap();
    let (template, car) = template();
    // In the order of their DIDs, for which the file needs each page once.
    let mut accounts: Vec<u64> = (0..entries).collect();
    accounts.sort_by_cached_key(|n| did(*n).to_string());
    for chunk in accounts.chunks(CHUNK) {
        let (template, car, chunk) = (template.clone(), car.clone(), chunk.to_vec());
        store
            .transact(move |tx| {
                for n in chunk {
                    let entry = entry(&template, n);
                    tx.put_entry(&entry)?;
                    tx.put_proof(&entry.did, &car)?;
                }
                Ok(())
            })
            .await
            .unwrap();
    }
    fill_series(&store).await;
    store.shutdown().await;
}

/// Writes a time series of a year, with more groups on each day than have a row. All days but today
/// are closed.
async fn fill_series(store: &DirectoryStore) {
    let today = Day::of(Clock::system().now());
    let first = today.plus(-365);
    let sources = [0, 1, 2].map(|n| format!("pds https://pds{n}.example.com"));
    let began = store.transact(move |tx| {
        tx.reach_day(first.start())?;
        for source in &sources {
            let (since, until) = (first.start(), today.start());
            tx.set_coverage(&Coverage {
                source: source.clone(),
                since,
                until,
            })?;
        }
        tx.follow_sources(&sources)
    });
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
                // None is so small that a dataset does not show it.
                let joined = |group: i32| i64::from(if n == 0 { 2020 - group } else { 1 });
                let delta = DayDelta {
                    new: 100,
                    departed: 100,
                    groups: moved
                        .map(|(kind, group)| {
                            let name = match kind {
                                GroupKind::Mediator => {
                                    format!("did:web:mediator{group}.example.com")
                                }
                                _ => format!("host{group}.example.com"),
                            };
                            (kind, name, joined(group))
                        })
                        .collect(),
                    ..DayDelta::default()
                };
                tx.add_to_day(day, day, &delta)?;
                if day == today {
                    return Ok(());
                }
                tx.cover_day(day, day.end())?;
                tx.set_hosts(day, 2000, 1990)?;
                tx.close_day(day, day.end())
            })
            .await
            .unwrap();
    }
}

/// Returns the state of the n-th account: seventeen of twenty are enrolled.
fn state(n: u64) -> AccountState {
    match n % 20 {
        17 => AccountState::Inactive,
        18 => AccountState::Invalid,
        19 => AccountState::Removed,
        _ => AccountState::Enrolled,
    }
}

/// Returns an enrolled account: the n-th, or one near it.
pub(crate) fn enrolled(n: u64) -> Did {
    let is_enrolled = |n: &u64| state(*n) == AccountState::Enrolled;
    did((0..=n).rev().find(is_enrolled).unwrap())
}

/// Returns the entry of the n-th account.
fn entry(template: &Entry, n: u64) -> Entry {
    let handle = Handle::parse(&format!("user{n}.example.com")).ok();
    let pds = Origin::parse(&pds(n)).ok();
    let mut entry = Entry {
        did: did(n),
        handle: handle.clone(),
        claimed: handle,
        handle_at: template.proved_at,
        peer: Some(peer(n)),
        pds: pds.clone(),
        proof_pds: pds,
        mediators: vec![MediatorDid::parse(mediator(n)).unwrap()],
        ..template.clone()
    };
    match state(n) {
        AccountState::Inactive => entry.status = AccountStatus::Deactivated,
        AccountState::Invalid | AccountState::Removed => {
            entry.state = if state(n) == AccountState::Invalid {
                entry.reason = Some("label".to_owned());
                PackageState::Invalid
            } else {
                entry.cid = None;
                PackageState::Removed
            };
            entry.peer = None;
            entry.mediators.clear();
        }
        _ => {}
    }
    entry
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
