//! Accounts made in memory, with all proofs of their packages.

use serde_json::{Value, json};

use super::plc::{TestLog, k256, operation};
use super::repo::{TestRepo, package, peer};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::did_peer::{KeyType, PeerDid, Purpose};
use atcomm_proto::didcomm::envelope::{Curve, SecretKey};
use atcomm_proto::plc::{self, VerifiedLog};
use atcomm_proto::syntax::{Did, Handle, Origin};
use atcomm_proto::verify::evidence::{Evidence, Keys, ProofResult, VerifiedPackage};
use atcomm_proto::verify::succession;
use serde_json::value::RawValue;

/// A time later than every revision of a test repository. Revisions come from the system's clock.
pub const NOW: Timestamp = Timestamp::from_millis(4_102_444_800_000);

/// The PDS that operation logs name first.
pub const PDS: &str = "https://pds.example.com";

/// An account: its operation log and its repository.
pub struct TestAccount {
    /// The operation log.
    pub log: TestLog,
    /// The repository.
    pub repo: TestRepo,
}

impl TestAccount {
    /// Returns an account with signing key `seed` and rotation key 99.
    pub fn new(seed: u8) -> Self {
        let rotation = k256(99);
        let genesis = rotation.sign(&operation(&[&rotation], &k256(seed), PDS, None));
        let mut log = TestLog::default();
        log.push(0, &genesis);
        let repo = TestRepo::new(log.did().as_str(), seed);
        Self { log, repo }
    }

    /// Names another signing key and PDS in the log, and signs with that key afterwards.
    pub fn rotate(&mut self, minute: u32, seed: u8, pds: &str) {
        let rotation = k256(99);
        let last = self.log.0.last().unwrap()["operation"].clone();
        let next = rotation.sign(&operation(&[&rotation], &k256(seed), pds, Some(&last)));
        self.log.push(minute, &next);
        self.repo.rotate(seed);
    }

    /// Writes a key package with did:peer `key` and the additional fields `more`. Returns the
    /// verified package.
    pub fn put(&mut self, key: u8, more: &Value) -> VerifiedPackage {
        let mut record = package(&peer(key), &["did:web:m.example.com"]);
        for (name, value) in more.as_object().unwrap() {
            record[name] = value.clone();
        }
        self.repo.put(&record);
        self.proven()
    }

    /// Returns the signing keys that the log shows.
    pub fn keys(&self) -> Keys {
        Keys::of_log(&self.verified_log()).unwrap()
    }

    /// Returns the log, verified.
    pub fn verified_log(&self) -> VerifiedLog {
        plc::verify(&self.log.did(), &self.log.to_vec()).unwrap()
    }

    /// Returns the newest package, verified.
    pub fn proven(&self) -> VerifiedPackage {
        let shown = self.keys().prove(&self.log.did(), &self.repo.car(), NOW);
        match shown.unwrap() {
            ProofResult::Package(package) => *package,
            absent => panic!("{absent:?}"),
        }
    }

    /// Returns the evidence of the newest package.
    pub fn evidence(&self) -> Evidence {
        Evidence {
            did: self.log.did(),
            handle: Some(Handle::parse("alice.example.com").unwrap()),
            directory: Some(Origin::parse("https://directory.example.com").unwrap()),
            asked_at: Timestamp::from_millis(1_790_000_000_000),
            car: self.repo.car(),
            plc_log: Some(raw(&json!(self.log.0))),
            answer: Some(raw(&json!({"did": self.log.did().as_str()}))),
        }
    }
}

/// A did:peer with its secret keys.
pub struct TestKey {
    /// The DID.
    pub peer: PeerDid,
    /// The X25519 key.
    pub agreement: SecretKey,
    /// The Ed25519 key.
    pub signing: SecretKey,
}

impl TestKey {
    /// Generates both keys and the DID that contains them.
    pub fn generate() -> Self {
        let made = |curve| SecretKey::generate(curve, "did:key:new#key");
        let (agreement, signing) = (made(Curve::X25519), made(Curve::Ed25519));
        let (first, second) = (agreement.public(), signing.public());
        let keys = [
            (Purpose::KeyAgreement, KeyType::X25519, first.as_bytes()),
            (Purpose::Authentication, KeyType::Ed25519, second.as_bytes()),
        ];
        let peer = PeerDid::build(&keys, &[]).unwrap();
        let named = |key: &SecretKey, kid: &str| {
            SecretKey::from_bytes(key.curve(), kid, &key.to_bytes()).unwrap()
        };
        Self {
            agreement: named(&agreement, &peer.key_agreement()[0].id),
            signing: named(&signing, &peer.authentication()[0].id),
            peer,
        }
    }

    /// Signs the statement that `next` succeeds this key.
    pub fn vouch(&self, next: &Self, account: &Did, now: Timestamp) -> String {
        succession::statement(&self.peer, &self.signing, &next.peer, account, now).unwrap()
    }
}

/// Returns a value as JSON text.
pub fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}
