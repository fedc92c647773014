use std::path::Path;

use proptest::prelude::*;
use shrike::car::{Block, read_all, write_all};
use shrike::crypto::{K256SigningKey, P256SigningKey, SigningKey as _};
use shrike::repo::Repo;
use shrike::syntax as library;

use super::*;
use crate::syntax::{COLLECTION, RECORD_KEY};

/// One proof of `fixtures/proof`, written by a foreign implementation.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fixture {
    did: Did,
    signing_key: String,
    expect: String,
    reason: Option<String>,
    commit: Option<String>,
    data: Option<String>,
    rev: Option<String>,
    cid: Option<String>,
    #[serde(skip)]
    name: String,
    #[serde(skip)]
    car: Vec<u8>,
}

impl Fixture {
    fn all() -> Vec<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/proof");
        let mut fixtures: Vec<Self> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "car"))
            .map(|path| {
                let sidecar = std::fs::read_to_string(path.with_extension("json")).unwrap();
                let mut fixture: Self = serde_json::from_str(&sidecar)
                    .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                fixture.name = path.file_stem().unwrap().to_string_lossy().into_owned();
                fixture.car = std::fs::read(&path).unwrap();
                fixture
            })
            .collect();
        fixtures.sort_by(|a, b| a.name.cmp(&b.name));
        fixtures
    }

    fn container(&self) -> Container {
        if self.name.contains("commit") {
            Container::Commit
        } else {
            Container::GetRecord
        }
    }

    fn verify(&self, car: &[u8]) -> Result<Proven, ProofError> {
        let key = SigningKey::from_did_key(&self.signing_key).unwrap();
        verify(car, self.container(), &self.did, &key, at())
    }
}

/// The last minute of 2026: later than every fixture but those of the future.
fn at() -> Timestamp {
    Timestamp::from_millis(1_798_761_540_000)
}

#[test]
fn foreign_proofs_give_what_their_writers_say() {
    let fixtures = Fixture::all();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for f in &fixtures {
        *seen.entry(f.expect.clone()).or_default() += 1;
        let result = f.verify(&f.car);
        let name = &f.name;
        match f.expect.as_str() {
            "present" => {
                let Ok(Proven::Present(found)) = &result else {
                    panic!("{name}: {result:?}")
                };
                assert_eq!(Some(found.cid().to_string()), f.cid, "{name}");
            }
            "absent" => assert!(
                matches!(result, Ok(Proven::Absent(_))),
                "{name}: {result:?}"
            ),
            "inconclusive" => assert_eq!(result, Err(ProofError::Incomplete), "{name}"),
            "refused" => {
                let error = result.expect_err(name);
                let reason = f.reason.as_deref().unwrap_or_default();
                assert!(names(error, reason), "{name}: {error:?} for {reason}");
                continue;
            }
            other => panic!("{name}: unknown expectation {other}"),
        }
        if let Ok(proven) = result {
            let shown = proven.commitment();
            assert_eq!(Some(shown.commit().to_string()), f.commit, "{name}");
            assert_eq!(Some(shown.data().to_string()), f.data, "{name}");
            assert_eq!(Some(shown.rev().to_string()), f.rev, "{name}");
            // The minimal proof verifies alone, like a response of getRecord.
            let key = SigningKey::from_did_key(&f.signing_key).unwrap();
            let again = verify(shown.car(), Container::GetRecord, &f.did, &key, at());
            assert_eq!(again.as_ref(), Ok(&proven), "{name}");
        }
    }
    for kind in ["present", "absent", "inconclusive", "refused"] {
        assert!(
            seen.get(kind).is_some_and(|n| *n > 0),
            "no fixture is {kind}"
        );
    }
}

/// Returns whether `error` is a fair name for the defect of a fixture of `fixtures/proof`.
fn names(error: ProofError, reason: &str) -> bool {
    use ProofError::{
        Commit, Future, Hash, Malformed, Oversize, Record, Rev, Roots, Signature, Tree, WrongDid,
    };
    let fair: &[ProofError] = match reason {
        "signature" => &[Signature, Commit],
        "rev" => &[Rev, Future, Commit],
        "roots" => &[Roots, Malformed, Commit],
        "mst" => &[Tree, Record],
        "version" | "commit" => &[Commit],
        "did" => &[WrongDid, Commit],
        "car" => &[Malformed, Hash, Roots],
        "cbor" => &[Record, Tree, Commit],
        "record" | "nesting" => &[Record],
        "block hash" => &[Hash],
        "oversize" => &[Oversize],
        _ => &[],
    };
    fair.contains(&error)
}

/// Returns the fixtures that verify and are small enough to corrupt at every byte.
fn sound() -> impl Iterator<Item = Fixture> {
    Fixture::all()
        .into_iter()
        .filter(|f| matches!(f.expect.as_str(), "present" | "absent") && f.car.len() < 16 * 1024)
}

#[test]
fn inv1_every_truncation_is_refused() {
    for f in sound() {
        // Whole blocks may be missing at the end only if the path needs none of them; the result
        // must then be the same.
        let whole = f.verify(&f.car).unwrap();
        for len in 0..f.car.len() {
            if let Ok(proven) = f.verify(&f.car[..len]) {
                assert_eq!(proven, whole, "{} cut to {len}", f.name);
            }
        }
    }
}

#[test]
fn inv1_every_byte_flip_is_refused() {
    for f in sound() {
        let whole = f.verify(&f.car).unwrap();
        let (roots, _) = read_all(&f.car[..]).unwrap();
        let length = |roots| write_all(roots, &[]).unwrap().len();
        // Behind its roots the header has its version.
        let (header_end, first_root_end) = (length(&roots), length(&roots[..1]) - 10);
        let mut car = f.car.clone();
        for i in 0..car.len() {
            let bit = 1 << (i % 8);
            car[i] ^= bit;
            // A root behind the first proves nothing, and is covered by nothing.
            let is_further_root = first_root_end < i && i < header_end;
            match f.verify(&car) {
                Err(_) => {}
                Ok(proven) => assert!(
                    is_further_root && proven == whole,
                    "{} with byte {i} flipped",
                    f.name
                ),
            }
            car[i] ^= bit;
        }
    }
}

#[test]
fn inv5_absence_needs_every_node_of_the_path() {
    for f in sound() {
        let whole = f.verify(&f.car).unwrap();
        let (roots, blocks) = read_all(whole.commitment().car()).unwrap();
        for missing in 0..blocks.len() {
            let mut fewer = blocks.clone();
            fewer.remove(missing);
            let car = write_all(&roots, &fewer).unwrap();
            let error = if missing == 0 {
                ProofError::Roots
            } else {
                ProofError::Incomplete
            };
            assert_eq!(f.verify(&car), Err(error), "{}", f.name);
        }
        // The order of blocks does not matter.
        let reversed: Vec<Block> = blocks.iter().rev().cloned().collect();
        assert_eq!(f.verify(&write_all(&roots, &reversed).unwrap()), Ok(whole));
    }
}

#[test]
fn another_account_or_key_is_refused() {
    let other = K256SigningKey::from_bytes(&[3; 32])
        .unwrap()
        .public_key()
        .did_key();
    let other = SigningKey::from_did_key(&other).unwrap();
    let account = Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    for f in sound() {
        let key = SigningKey::from_did_key(&f.signing_key).unwrap();
        let of_other = verify(&f.car, f.container(), &account, &key, at());
        assert_eq!(of_other, Err(ProofError::WrongDid), "{}", f.name);
        let by_other = verify(&f.car, f.container(), &f.did, &other, at());
        assert_eq!(by_other, Err(ProofError::Signature), "{}", f.name);
    }
}

#[derive(serde::Deserialize)]
struct Heights {
    heights: Vec<KeyHeight>,
}

#[derive(serde::Deserialize)]
struct KeyHeight {
    key: String,
    height: u8,
}

/// The height of a key equals what foreign implementations compute.
#[test]
fn heights_of_keys() {
    let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/interop");
    let keys = interop.join("atproto-interop-tests/mst_example_keys.txt");
    for key in std::fs::read_to_string(keys).unwrap().lines() {
        let height = key.strip_prefix(|c: char| c.is_ascii_uppercase()).unwrap();
        let (height, _) = height.split_once('/').unwrap();
        assert_eq!(
            shrike::mst::height_for_key(key),
            height.parse::<u8>().unwrap(),
            "{key}"
        );
    }
    let text = std::fs::read_to_string(interop.join("mst/heights.json")).unwrap();
    let reference: Heights = serde_json::from_str(&text).unwrap();
    for KeyHeight { key, height } in reference.heights {
        assert_eq!(shrike::mst::height_for_key(&key), height, "{key}");
    }
}

#[test]
fn sizes_are_checked_before_anything_is_read() {
    let f = sound().next().unwrap();
    let key = SigningKey::from_did_key(&f.signing_key).unwrap();
    for (container, cap) in [
        (Container::GetRecord, MAX_PROOF_LEN),
        (Container::Commit, MAX_COMMIT_LEN),
    ] {
        let garbage = vec![0xff; cap + 1];
        assert_eq!(
            verify(&garbage, container, &f.did, &key, at()),
            Err(ProofError::Oversize)
        );
        let garbage = vec![0xff; cap];
        assert_ne!(
            verify(&garbage, container, &f.did, &key, at()),
            Err(ProofError::Oversize)
        );
    }
}

/// Returns a repository with the given record paths, its proof for our path, and its key.
fn proof_of(paths: &[String], p256: bool) -> (Vec<u8>, Did, SigningKey) {
    let did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
    let clock = library::TidClock::new(0).unwrap();
    let mut repo = Repo::new(library::Did::try_from(did).unwrap(), clock);
    for path in paths {
        let (collection, rkey) = path.split_once('/').unwrap();
        let collection = library::Nsid::try_from(collection).unwrap();
        let rkey = library::RecordKey::try_from(rkey).unwrap();
        repo.create(&collection, &rkey, b"\xa1\x61n\x01").unwrap();
    }
    let secret: Box<dyn shrike::crypto::SigningKey> = if p256 {
        Box::new(P256SigningKey::from_bytes(&[5; 32]).unwrap())
    } else {
        Box::new(K256SigningKey::from_bytes(&[5; 32]).unwrap())
    };
    repo.commit(&*secret).unwrap();
    let collection = library::Nsid::try_from(COLLECTION).unwrap();
    let rkey = library::RecordKey::try_from(RECORD_KEY).unwrap();
    let car = repo.record_proof(&collection, &rkey).unwrap();
    let key = SigningKey::from_did_key(&secret.public_key().did_key()).unwrap();
    (car, Did::parse(did).unwrap(), key)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The proof tells whether our record is in the repository, whatever else the repository holds.
    #[test]
    fn presence_is_what_was_written(
        others in proptest::collection::btree_set("[a-c]\\.[a-c]{1,3}\\.[a-z]{1,2}/[a-z0-9]{1,6}", 0..60),
        present: bool,
        p256: bool,
    ) {
        let mut paths: Vec<String> = others.into_iter().collect();
        if present {
            paths.push(crate::syntax::RECORD_PATH.to_owned());
        }
        let (car, did, key) = proof_of(&paths, p256);
        let now = Timestamp::from_millis(4_102_444_800_000);
        let proven = verify(&car, Container::GetRecord, &did, &key, now).unwrap();
        prop_assert_eq!(matches!(proven, Proven::Present(_)), present);
    }

    /// Hostile bytes cause an error, never a panic.
    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (mut car, did, key) = proof_of(&[], false);
        prop_assert!(verify(&bytes, Container::Commit, &did, &key, at()).is_err());
        car.truncate(40);
        car.extend_from_slice(&bytes);
        prop_assert!(verify(&car, Container::Commit, &did, &key, at()).is_err());
    }
}

#[test]
fn a_record_is_read_out_of_its_proof_by_its_hash() {
    let other: Cid = "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
        .parse()
        .unwrap();
    let mut shown = 0;
    for fixture in Fixture::all() {
        let Ok(Proven::Present(record)) = fixture.verify(&fixture.car) else {
            continue;
        };
        shown += 1;
        let car = record.commitment().car();
        assert_eq!(block(car, record.cid()), Ok(record.record()));
        assert_eq!(block(car, &other), Err(ProofError::Incomplete));
        assert!(block(&car[..car.len() - 1], record.cid()).is_err());
        // No damage to the CAR gives another record.
        for at in 0..car.len() {
            let mut damaged = car.to_vec();
            damaged[at] ^= 1;
            if let Ok(found) = block(&damaged, record.cid()) {
                assert_eq!(found, record.record());
            }
        }
    }
    assert!(shown > 0);
}
