//! The mediator's own keys: one file, made once, and the identities that the keys belong to.
//!
//! The file is trusted and cannot be made again: without it, messages to the DID that accounts have
//! published cannot be opened, and mail on its way is lost. Each generation of keys belongs to two
//! identities: the `did:web` that key packages name, and a `did:peer:2` with the same keys for
//! clients that cannot resolve the former.

mod error;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use atcomm_net::durable::{self, Mode, ReadError, SecretText};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::did_peer::{KeyType, PeerDid, Purpose};
use atcomm_proto::didcomm::envelope::{Curve, Keyring, PublicKey, SecretKey};
use atcomm_proto::didcomm::party::Party;

use super::address::PublicAddress;

pub use error::{KeyFileFault, KeyMakingError, KeysError};

/// Name of the file in the data directory.
pub const FILE: &str = "mediator-keys.json";

/// How long messages to retired keys are still opened: clients cache the keys of mediators, and
/// relays try for a day.
pub const RETIRED_KEY_GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Generations in the file. Bounded, so that endless rotation does not slow down unpacking.
const MAX_GENERATIONS: usize = 16;

/// Longest file that is read, in bytes.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// The contents of the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    generations: Vec<StoredGeneration>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredGeneration {
    number: u32,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired_at: Option<i64>,
    x25519: SecretText,
    ed25519: SecretText,
}

/// One generation of keys.
struct Generation {
    number: u32,
    created_at: Timestamp,
    retired_at: Option<Timestamp>,
    x25519: Zeroizing<Vec<u8>>,
    ed25519: Zeroizing<Vec<u8>>,
}

/// The two kinds of the mediator's DIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdentityKind {
    /// The `did:web` that key packages name.
    Web,
    /// The `did:peer:2` with the same keys.
    Peer,
}

/// One of the mediator's own DIDs under one generation of its keys.
pub(super) struct IdentityKeys {
    pub(super) kind: IdentityKind,
    retired_at: Option<Timestamp>,
    /// The DID and its public keys.
    pub(super) party: Party,
    /// Decrypts messages, and authenticates encrypted ones.
    pub(super) agreement: SecretKey,
    /// Signs messages.
    pub(super) signing: SecretKey,
}

/// All identities of the mediator. Those of the newest keys come first, each `did:web` before the
/// did:peer:2 with the same keys.
pub struct Keys {
    identities: Vec<Arc<IdentityKeys>>,
    created_at: Timestamp,
}

impl Keys {
    /// Reads the file. Makes keys and writes them where neither the file nor the store exists.
    pub fn open(
        path: &Path,
        store_exists: bool,
        address: &PublicAddress,
        now: Timestamp,
    ) -> Result<Self, KeysError> {
        let generations = match read(path)? {
            Some(generations) => generations,
            None if store_exists => return Err(KeysError::Vanished(path.to_owned())),
            None => {
                let first = vec![Generation::make(1, now)];
                write(path, &first)?;
                first
            }
        };
        Self::of(&generations, address, now)
    }

    /// Makes new keys and returns their number. The keys before still open messages for
    /// [`RETIRED_KEY_GRACE`]. On disk when this returns.
    pub fn rotate(path: &Path, now: Timestamp) -> Result<u32, KeysError> {
        let Some(mut generations) = read(path)? else {
            return Err(KeysError::Vanished(path.to_owned()));
        };
        for old in &mut generations {
            old.retired_at.get_or_insert(now);
        }
        generations.retain(|old| old.is_usable(now));
        if generations.len() >= MAX_GENERATIONS {
            generations.drain(..=generations.len() - MAX_GENERATIONS);
        }
        let number = generations.last().map_or(1, |last| last.number + 1);
        generations.push(Generation::make(number, now));
        write(path, &generations)?;
        Ok(number)
    }

    fn of(
        generations: &[Generation],
        address: &PublicAddress,
        now: Timestamp,
    ) -> Result<Self, KeysError> {
        let mut identities = Vec::new();
        let mut created_at = now;
        for generation in generations.iter().rev().filter(|g| g.is_usable(now)) {
            if identities.is_empty() {
                created_at = generation.created_at;
            }
            identities.push(Arc::new(generation.web_identity(address)?));
            identities.push(Arc::new(generation.peer_identity(address)?));
        }
        if identities.is_empty() {
            return Err(KeyMakingError::Retired.into());
        }
        Ok(Self {
            identities,
            created_at,
        })
    }

    /// Returns the present `did:web`.
    pub(super) fn web_identity(&self) -> &IdentityKeys {
        // `of` makes no value without both identities.
        &self.identities[0]
    }

    /// Returns the present did:peer:2.
    pub(super) fn peer_identity(&self) -> &IdentityKeys {
        &self.identities[1]
    }

    /// Returns the present identity of a kind.
    pub(super) fn current(&self, kind: IdentityKind) -> &IdentityKeys {
        match kind {
            IdentityKind::Web => self.web_identity(),
            IdentityKind::Peer => self.peer_identity(),
        }
    }

    /// Returns the keys without those whose grace has ended; `None` if there are none.
    pub(super) fn without_expired(&self, now: Timestamp) -> Option<Self> {
        let lasts = |own: &&Arc<IdentityKeys>| lasts(own.retired_at, now);
        let identities: Vec<_> = self.identities.iter().filter(lasts).cloned().collect();
        (identities.len() < self.identities.len()).then_some(Self {
            identities,
            created_at: self.created_at,
        })
    }

    /// Returns when the present keys were made.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Returns the identity with a DID, the newest where several generations share it.
    pub(super) fn identity(&self, did: &str) -> Option<&IdentityKeys> {
        let found = self.identities.iter().find(|own| own.party.is(did));
        found.map(|own| &**own)
    }

    /// Returns the identity that a key belongs to.
    pub(super) fn by_kid(&self, kid: &str) -> Option<&Arc<IdentityKeys>> {
        let mut identities = self.identities.iter();
        identities.find(|own| own.party.key(kid).is_some())
    }
}

impl Keyring for Keys {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        self.identities.iter().find_map(|own| {
            let key = own.party.key(kid)?;
            (key.kid() == own.agreement.kid()).then_some(&own.agreement)
        })
    }
}

/// Returns whether keys still open messages.
fn lasts(retired_at: Option<Timestamp>, now: Timestamp) -> bool {
    retired_at.is_none_or(|at| now.since(at) < RETIRED_KEY_GRACE)
}

impl Generation {
    fn make(number: u32, now: Timestamp) -> Self {
        let secret = |curve| SecretKey::generate(curve, "").to_bytes();
        Self {
            number,
            created_at: now,
            retired_at: None,
            x25519: secret(Curve::X25519),
            ed25519: secret(Curve::Ed25519),
        }
    }

    fn is_usable(&self, now: Timestamp) -> bool {
        lasts(self.retired_at, now)
    }

    fn pair(&self, agreement: String, signing: String) -> Result<[SecretKey; 2], KeyMakingError> {
        Ok([
            SecretKey::from_bytes(Curve::X25519, agreement, &self.x25519)?,
            SecretKey::from_bytes(Curve::Ed25519, signing, &self.ed25519)?,
        ])
    }

    /// Makes the `did:web`. Its keys are numbered through all generations, so that a `kid` never
    /// changes its meaning.
    fn web_identity(&self, address: &PublicAddress) -> Result<IdentityKeys, KeyMakingError> {
        let did = address.did().as_str();
        let first = 2 * self.number - 1;
        let [agreement, signing] = self.pair(
            format!("{did}#key-{first}"),
            format!("{did}#key-{}", first + 1),
        )?;
        Ok(IdentityKeys {
            kind: IdentityKind::Web,
            retired_at: self.retired_at,
            party: Party::from_document(did, vec![agreement.public()], vec![signing.public()]),
            agreement,
            signing,
        })
    }

    fn peer_identity(&self, address: &PublicAddress) -> Result<IdentityKeys, KeyMakingError> {
        let [x25519, ed25519] = self.pair(String::new(), String::new())?;
        let (x25519, ed25519) = (x25519.public(), ed25519.public());
        let keys = [
            (
                Purpose::KeyAgreement,
                KeyType::X25519,
                PublicKey::as_bytes(&x25519),
            ),
            (
                Purpose::Authentication,
                KeyType::Ed25519,
                PublicKey::as_bytes(&ed25519),
            ),
        ];
        let did = PeerDid::build(&keys, &address.peer_services())?;
        let party = Party::resolve(did.as_str())?;
        let [agreement, signing] = self.pair(format!("{did}#key-1"), format!("{did}#key-2"))?;
        Ok(IdentityKeys {
            kind: IdentityKind::Peer,
            retired_at: self.retired_at,
            party,
            agreement,
            signing,
        })
    }
}

fn read(path: &Path) -> Result<Option<Vec<Generation>>, KeysError> {
    let unusable = |error| KeysError::File {
        path: path.to_owned(),
        error,
    };
    let damaged = |fault| KeysError::Damaged {
        path: path.to_owned(),
        fault,
    };
    let text = durable::read_private(path, MAX_FILE_BYTES).map_err(|error| match error {
        ReadError::Exposed => KeysError::Exposed(path.to_owned()),
        ReadError::TooLong(_) => damaged(KeyFileFault::Length(error)),
        ReadError::Io(error) => unusable(error),
    })?;
    let Some(text) = text else {
        return Ok(None);
    };
    let stored: Stored =
        serde_json::from_slice(&text).map_err(|error| damaged(KeyFileFault::Json(error)))?;
    if stored.version != 1 {
        return Err(damaged(KeyFileFault::Version(stored.version)));
    }
    let secret = |text: &SecretText| {
        text.decode()
            .filter(|bytes| bytes.len() == 32)
            .ok_or_else(|| damaged(KeyFileFault::Key))
    };
    let generations = stored.generations.iter().map(|one| {
        if one.number == 0 {
            return Err(damaged(KeyFileFault::Number));
        }
        Ok(Generation {
            number: one.number,
            created_at: Timestamp::from_millis(one.created_at),
            retired_at: one.retired_at.map(Timestamp::from_millis),
            x25519: secret(&one.x25519)?,
            ed25519: secret(&one.ed25519)?,
        })
    });
    let generations: Vec<Generation> = generations.collect::<Result<_, _>>()?;
    let current = generations.iter().filter(|one| one.retired_at.is_none());
    if current.count() != 1
        || generations
            .last()
            .is_none_or(|one| one.retired_at.is_some())
    {
        return Err(damaged(KeyFileFault::NoPresent));
    }
    Ok(Some(generations))
}

/// Writes the file in one step: the old one or the new one is there, whenever power is lost.
fn write(path: &Path, generations: &[Generation]) -> Result<(), KeysError> {
    let stored = Stored {
        version: 1,
        generations: generations
            .iter()
            .map(|one| StoredGeneration {
                number: one.number,
                created_at: one.created_at.millis(),
                retired_at: one.retired_at.map(Timestamp::millis),
                x25519: SecretText::encode(&one.x25519),
                ed25519: SecretText::encode(&one.ed25519),
            })
            .collect(),
    };
    let text = serde_json::to_vec_pretty(&stored)
        .map(Zeroizing::new)
        .map_err(KeyMakingError::Json)?;
    durable::replace(path, &text, Mode::Private).map_err(|error| KeysError::File {
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn address() -> PublicAddress {
        PublicAddress::parse("https://mail.example.com", false).unwrap()
    }

    fn at(days: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).plus(Duration::from_secs(days * 24 * 3600))
    }

    fn open(path: &Path, store_exists: bool, days: u64) -> Result<Keys, KeysError> {
        Keys::open(path, store_exists, &address(), at(days))
    }

    #[test]
    fn keys_are_made_once_and_for_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert!(matches!(open(&path, true, 0), Err(KeysError::Vanished(_))));
        assert!(!path.exists());
        let made = open(&path, false, 0).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let again = open(&path, true, 1).unwrap();
        assert_eq!(again.created_at(), at(0));
        for (a, b) in made.identities.iter().zip(&again.identities) {
            assert_eq!(a.party.did(), b.party.did());
            assert_eq!(a.agreement.public(), b.agreement.public());
        }
        assert_eq!(made.web_identity().party.did(), "did:web:mail.example.com");
        assert!(
            made.peer_identity()
                .party
                .did()
                .starts_with("did:peer:2.Ez6LS")
        );
        assert_eq!(
            made.web_identity().agreement.public().as_bytes(),
            made.peer_identity().agreement.public().as_bytes()
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(open(&path, true, 0), Err(KeysError::Exposed(_))));
    }

    #[test]
    fn replaced_keys_open_what_is_under_way_for_a_month() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let first = open(&path, false, 0).unwrap();
        let old_kid = first.web_identity().agreement.kid().to_owned();
        let old_peer = first.peer_identity().party.did().to_owned();
        assert_eq!(Keys::rotate(&path, at(10)).unwrap(), 2);
        let second = open(&path, true, 10).unwrap();
        let kid = second.web_identity().agreement.kid();
        assert_eq!(kid, "did:web:mail.example.com#key-3");
        assert!(second.secret(kid).is_some() && second.secret(&old_kid).is_some());
        assert_ne!(second.peer_identity().party.did(), old_peer);
        assert!(second.identity(&old_peer).is_some());
        assert!(open(&path, true, 39).unwrap().secret(&old_kid).is_some());
        let month = second.without_expired(at(41)).unwrap();
        assert!(second.without_expired(at(39)).is_none());
        assert!(month.secret(&old_kid).is_none() && month.secret(kid).is_some());
        let later = open(&path, true, 41).unwrap();
        assert!(later.secret(&old_kid).is_none() && later.identity(&old_peer).is_none());
        // Rotating without end keeps a bounded number.
        for _ in 0..40 {
            Keys::rotate(&path, at(41)).unwrap();
        }
        let many = open(&path, true, 41).unwrap();
        assert_eq!(many.identities.len(), 2 * MAX_GENERATIONS);
        assert_eq!(
            many.web_identity().agreement.kid(),
            "did:web:mail.example.com#key-83"
        );
    }

    #[test]
    fn damage_is_told_and_nothing_is_made_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        open(&path, false, 0).unwrap();
        let sound = std::fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            "{}".to_owned(),
            sound.replace("\"version\": 1", "\"version\": 2"),
            sound.replace("\"number\": 1", "\"number\": 0"),
            sound.replace("\"x25519\": \"", "\"x25519\": \"AA"),
            sound.replace("\"number\": 1", "\"retiredAt\": 1, \"number\": 1"),
        ] {
            std::fs::write(&path, &bad).unwrap();
            assert!(
                matches!(open(&path, true, 0), Err(KeysError::Damaged { .. })),
                "{bad}"
            );
            assert!(matches!(
                Keys::rotate(&path, at(0)),
                Err(KeysError::Damaged { .. })
            ));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
    }
}
