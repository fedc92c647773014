//! Repositories made in memory.

use std::collections::HashMap;

use shrike::cbor::Cid;
use shrike::crypto::{K256SigningKey, SigningKey as _};
use shrike::repo::{Commit, Repo, record_proof_car};
use shrike::syntax as library;

use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::SigningKey;
use atcomm_proto::proof::{Container, Proven, verify};
use atcomm_proto::syntax::{COLLECTION, Did, MediatorDid, RECORD_KEY};

/// An account's repository with its signing key.
pub struct TestRepo {
    /// The account.
    pub did: Did,
    repo: Repo,
    secret: K256SigningKey,
}

impl TestRepo {
    /// Returns an empty repository signed with the K-256 key of this seed.
    pub fn new(did: &str, seed: u8) -> Self {
        let clock = library::TidClock::new(u16::from(seed)).unwrap();
        Self {
            did: Did::parse(did).unwrap(),
            repo: Repo::new(library::Did::try_from(did).unwrap(), clock),
            secret: K256SigningKey::from_bytes(&[seed; 32]).unwrap(),
        }
    }

    /// Returns the public signing key.
    pub fn key(&self) -> SigningKey {
        SigningKey::from_did_key(&self.secret.public_key().did_key()).unwrap()
    }

    /// Replaces the signing key and commits with the new key.
    pub fn rotate(&mut self, seed: u8) {
        self.secret = K256SigningKey::from_bytes(&[seed; 32]).unwrap();
        self.commit();
    }

    /// Writes the key package record. Returns its proof.
    pub fn put(&mut self, record: &serde_json::Value) -> Proven {
        let bytes = serde_ipld_dagcbor::to_vec(record).unwrap();
        let (collection, rkey) = path();
        if self.repo.get(&collection, &rkey).unwrap().is_some() {
            self.repo.update(&collection, &rkey, &bytes).unwrap();
        } else {
            self.repo.create(&collection, &rkey, &bytes).unwrap();
        }
        self.commit();
        self.prove()
    }

    /// Deletes the key package record. Returns the proof of exclusion.
    pub fn delete(&mut self) -> Proven {
        let (collection, rkey) = path();
        self.repo.delete(&collection, &rkey).unwrap();
        self.commit();
        self.prove()
    }

    /// Writes an unrelated record. Returns the proof of the key package at the new commit.
    pub fn touch(&mut self, n: u32) -> Proven {
        let collection = library::Nsid::try_from("app.example.note").unwrap();
        let rkey = library::RecordKey::try_from(format!("n{n}").as_str()).unwrap();
        self.repo
            .create(&collection, &rkey, b"\xa1\x61n\x01")
            .unwrap();
        self.commit();
        self.prove()
    }

    /// Returns the proof at the newest commit, verified.
    pub fn prove(&self) -> Proven {
        let now = Timestamp::from_millis(4_102_444_800_000);
        verify(
            &self.car(),
            Container::GetRecord,
            &self.did,
            &self.key(),
            now,
        )
        .unwrap()
    }

    /// Returns the proof at a commit of the same records that was made at a time of choice, verified.
    /// The repository is not changed.
    pub fn prove_at(&self, at: Timestamp) -> Proven {
        let did = library::Did::try_from(self.did.as_str()).unwrap();
        let micros = u64::try_from(at.millis()).unwrap() * 1000;
        let rev = library::Tid::new(micros, 0).unwrap();
        let data = self.repo.head().unwrap().data;
        let signed = Commit::create_signed(did, rev, data, &self.secret).unwrap();
        let store = self.repo.store();
        let mut blocks: HashMap<Cid, Vec<u8>> = store
            .iter()
            .map(|(cid, block)| (*cid, block.to_vec()))
            .collect();
        blocks.insert(signed.cid, signed.bytes);
        let (collection, rkey) = path();
        let car = record_proof_car(&blocks, &signed.cid, &collection, &rkey).unwrap();
        verify(&car, Container::GetRecord, &self.did, &self.key(), at).unwrap()
    }

    /// Returns the answer of `getRecord` at the newest commit as a CAR.
    pub fn car(&self) -> Vec<u8> {
        let (collection, rkey) = path();
        self.repo.record_proof(&collection, &rkey).unwrap()
    }

    fn commit(&mut self) {
        self.repo.commit(&self.secret).unwrap();
    }
}

fn path() -> (library::Nsid, library::RecordKey) {
    (
        library::Nsid::try_from(COLLECTION).unwrap(),
        library::RecordKey::try_from(RECORD_KEY).unwrap(),
    )
}

/// Returns a did:peer:2, different for each seed.
pub fn peer(seed: u8) -> String {
    let key = |codec: [u8; 2], byte: u8| {
        format!(
            "z{}",
            bs58::encode([&codec[..], &[byte; 32][..]].concat()).into_string()
        )
    };
    format!(
        "did:peer:2.E{}.V{}",
        key([0xec, 1], seed.max(2)),
        key([0xed, 1], seed.max(2))
    )
}

/// Returns a valid key package.
pub fn package(peer: &str, mediators: &[&str]) -> serde_json::Value {
    for mediator in mediators {
        MediatorDid::parse(mediator).unwrap();
    }
    serde_json::json!({
        "$type": COLLECTION,
        "did": peer,
        "mediators": mediators,
        "createdAt": "2026-06-14T00:00:00Z",
    })
}
