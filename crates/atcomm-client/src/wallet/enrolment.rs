//! The enrolment of an account: its messaging keys, its mediators, and how far their publication
//! has come.

use std::time::Duration;

use atcomm_proto::clock::Timestamp;
use atcomm_proto::did_peer::{KeyType, PeerDid, Purpose};
use atcomm_proto::didcomm::envelope::{Curve, Keyring, SecretKey};
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin};

/// Time for which the secret halves of a replaced key are kept: mediators deliver mail to the key
/// for as long.
pub const REPLACED_KEY_RETENTION: Duration = Duration::from_secs(14 * 24 * 3600);

/// An enrolment.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The account.
    pub account: Did,
    /// The handle at the last look-up, verified in both directions.
    pub handle: Option<Handle>,
    /// The PDS at the last look-up.
    pub pds: Origin,
    /// The directory to ask for recipients.
    pub directory: Option<Origin>,
    /// The mediators that hold the account's mail, in the order of the record; one at least.
    pub mediators: Vec<MediatorDid>,
    /// Name of this device in the record.
    pub label: Option<String>,
    /// Messaging keys, the newest first.
    pub keys: Vec<MessagingKey>,
}

impl Enrolment {
    /// The key that the record names, or where it names none yet, the one that it is going to name.
    /// Messages are encrypted with it.
    pub fn current(&self) -> Option<&MessagingKey> {
        let published = |key: &&MessagingKey| matches!(key.state, KeyState::Published { .. });
        self.keys.iter().find(published).or_else(|| self.minted())
    }

    /// Returns the mediators that hold mail for a key: those where it is registered, or else where
    /// it is to be.
    pub fn mediators_of<'e>(&'e self, key: &'e MessagingKey) -> &'e [MediatorDid] {
        if key.registered.is_empty() {
            &self.mediators
        } else {
            &key.registered
        }
    }

    /// Whether a mediator holds the mail of the present key.
    pub fn is_registered(&self, did: &MediatorDid) -> bool {
        self.current()
            .is_some_and(|key| key.registered.contains(did))
    }

    /// The key that the record is going to name, where that is not the one that it names.
    pub fn minted(&self) -> Option<&MessagingKey> {
        self.keys.iter().find(|key| key.state == KeyState::Minted)
    }
}

/// A did:peer:2 with the secret halves of its two keys.
#[derive(Debug, Clone)]
pub struct MessagingKey {
    /// The DID; it contains no services, so that it stays the same when the mediators change.
    pub peer: PeerDid,
    /// Its X25519 key.
    pub agreement: SecretKey,
    /// Its Ed25519 key.
    pub signing: SecretKey,
    /// When it was made.
    pub minted_at: Timestamp,
    /// How far its publication has come.
    pub state: KeyState,
    /// The mediators that hold its mail.
    pub registered: Vec<MediatorDid>,
}

/// How far the publication of a key has come. Each state is saved before the step that leads to the
/// next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Made and saved. The record may name the key already.
    Minted,
    /// The record names the key.
    Published {
        /// Since when, by our clock.
        at: Timestamp,
    },
    /// The record names another key, or none.
    Replaced {
        /// Since when, by our clock.
        at: Timestamp,
    },
}

impl MessagingKey {
    /// Makes a new key from the system's random numbers.
    pub fn mint(now: Timestamp) -> Self {
        let agreement = SecretKey::generate(Curve::X25519, "did:key:new#agreement");
        let signing = SecretKey::generate(Curve::Ed25519, "did:key:new#signing");
        #[expect(clippy::expect_used, reason = "two keys of the length of their types")]
        let key = Self::from_parts(&agreement.to_bytes(), &signing.to_bytes(), now)
            .expect("two new keys make a did:peer:2");
        key
    }

    /// Returns the key with these 32 secret bytes each, as just made. `None` where they are no
    /// keys.
    pub fn from_parts(agreement: &[u8], signing: &[u8], minted_at: Timestamp) -> Option<Self> {
        let halves = (
            SecretKey::from_bytes(Curve::X25519, "did:key:new#agreement", agreement).ok()?,
            SecretKey::from_bytes(Curve::Ed25519, "did:key:new#signing", signing).ok()?,
        );
        let public = (halves.0.public(), halves.1.public());
        let peer = PeerDid::build(
            &[
                (Purpose::KeyAgreement, KeyType::X25519, public.0.as_bytes()),
                (
                    Purpose::Authentication,
                    KeyType::Ed25519,
                    public.1.as_bytes(),
                ),
            ],
            &[],
        )
        .ok()?;
        let kid = |keys: &[atcomm_proto::did_peer::PeerKey]| Some(keys.first()?.id.clone());
        Some(Self {
            agreement: SecretKey::from_bytes(Curve::X25519, kid(peer.key_agreement())?, agreement)
                .ok()?,
            signing: SecretKey::from_bytes(Curve::Ed25519, kid(peer.authentication())?, signing)
                .ok()?,
            peer,
            minted_at,
            state: KeyState::Minted,
            registered: Vec::new(),
        })
    }
}

impl MessagingKey {
    /// Whether the key still decrypts mail. A thief of the key can forge messages of any sender to
    /// it, since authcrypt proves a sender only to parties without the recipient's key; so the key
    /// expires.
    pub fn reads(&self, now: Timestamp) -> bool {
        !matches!(self.state, KeyState::Replaced { at } if now.since(at) >= REPLACED_KEY_RETENTION)
    }

    /// Whether the record names another key, or none.
    pub fn is_replaced(&self) -> bool {
        matches!(self.state, KeyState::Replaced { .. })
    }
}

/// The keys of an enrolment that decrypt mail at one time.
pub struct Reading<'e> {
    enrolment: &'e Enrolment,
    now: Timestamp,
}

impl Enrolment {
    /// Returns the keys that decrypt mail now.
    pub fn reading(&self, now: Timestamp) -> Reading<'_> {
        let enrolment = self;
        Reading { enrolment, now }
    }
}

impl Keyring for Reading<'_> {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        let mut keys = self.enrolment.keys.iter();
        keys.find_map(|key| key.secret(kid).filter(|_| key.reads(self.now)))
    }
}

impl Keyring for MessagingKey {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        let named = self.peer.key(kid)?;
        [&self.agreement, &self.signing]
            .into_iter()
            .find(|key| key.kid() == named.id)
    }
}

impl Keyring for Enrolment {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        self.keys.iter().find_map(|key| key.secret(kid))
    }
}

/// Marks all keys but `present` as replaced.
pub(crate) fn replace_all(keys: &mut [MessagingKey], present: Option<&str>, now: Timestamp) {
    for key in keys {
        let is_present = present == Some(key.peer.as_str());
        if !is_present && !matches!(key.state, KeyState::Replaced { .. }) {
            key.state = KeyState::Replaced { at: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_key_answers_to_its_ids_and_hides_its_secrets() {
        let key = MessagingKey::mint(Timestamp::from_millis(0));
        let [x25519] = key.peer.key_agreement() else {
            panic!("one key")
        };
        assert_eq!(key.secret(&x25519.id).unwrap().curve(), Curve::X25519);
        assert!(key.secret("did:peer:2.Ez#key-1").is_none());
        let again = MessagingKey::from_parts(
            &key.agreement.to_bytes(),
            &key.signing.to_bytes(),
            key.minted_at,
        );
        assert_eq!(again.unwrap().peer, key.peer);
        let shown = format!("{key:?}");
        let secret = data_encoding::HEXLOWER.encode(&key.agreement.to_bytes());
        assert!(
            !shown.contains(&secret) && !shown.contains("bytes"),
            "{shown}"
        );
    }
    #[test]
    fn a_key_that_was_replaced_reads_for_so_long_and_no_longer() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut key = MessagingKey::mint(now);
        assert!(key.reads(now.plus(REPLACED_KEY_RETENTION * 100)) && !key.is_replaced());
        key.state = KeyState::Replaced { at: now };
        let kid = key.agreement.kid().to_owned();
        let enrolment = Enrolment {
            account: Did::parse("did:web:bob.example.com").unwrap(),
            handle: None,
            pds: Origin::parse("https://pds.example.com").unwrap(),
            directory: None,
            mediators: Vec::new(),
            label: None,
            keys: vec![MessagingKey::mint(now), key],
        };
        let last = now.plus(REPLACED_KEY_RETENTION - Duration::from_millis(1));
        assert!(enrolment.reading(last).secret(&kid).is_some());
        let over = now.plus(REPLACED_KEY_RETENTION);
        assert!(enrolment.reading(over).secret(&kid).is_none());
        let current = enrolment.keys[0].agreement.kid();
        assert!(enrolment.reading(over).secret(current).is_some());
    }
}
