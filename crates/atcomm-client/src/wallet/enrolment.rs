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

/// Time for which a mediator is asked for mail after the record stopped naming it. Its directory may
/// hear of that late, senders use a package that they know for a day, and relays try for another.
pub const DROPPED_MEDIATOR_RETENTION: Duration = REPLACED_KEY_RETENTION;

/// Most dropped mediators of the present key: mail may wait at each, so none is forgotten for
/// another, and the record is not changed further before one can be left.
pub const MAX_DROPPED: usize = 64;

/// Most mediators in each list of a key: those that the record names and named, with room for what
/// interrupted runs leave.
pub(crate) const MAX_HOLDERS: usize = 256;

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

    /// Returns the mediators that relay for a key: those where it is registered and that were not
    /// dropped, or else where it is to be.
    pub fn mediators_of(&self, key: &MessagingKey) -> Vec<MediatorDid> {
        let serving = |did: &&MediatorDid| !key.has_dropped(did);
        let registered: Vec<_> = key.registered.iter().filter(serving).cloned().collect();
        if registered.is_empty() {
            self.mediators.clone()
        } else {
            registered
        }
    }

    /// Whether the record names a mediator for a key, as far as the wallet knows: where a run was
    /// interrupted, the record may name a key that was only made.
    pub fn names(&self, key: &MessagingKey, did: &MediatorDid) -> bool {
        !key.is_replaced() && self.mediators.contains(did)
    }

    /// Returns the mediators where mail for a key can wait: those that the record names, also where
    /// an interrupted run has not registered with them, and those that it named before.
    pub fn holders<'e>(&'e self, key: &'e MessagingKey) -> Vec<&'e MediatorDid> {
        let named = self.mediators.iter().filter(|did| self.names(key, did));
        let dropped = key.dropped.iter().map(|one| &one.did);
        let mut found = Vec::new();
        for did in named.chain(&key.registered).chain(dropped) {
            if !found.contains(&did) {
                found.push(did);
            }
        }
        found
    }

    /// Whether the time is over in which a mediator is asked for the mail of a key. Never for a
    /// mediator that the record names, or may name.
    pub fn may_leave(&self, key: &MessagingKey, did: &MediatorDid, now: Timestamp) -> bool {
        if self.names(key, did) {
            return false;
        }
        let replaced = match key.state {
            KeyState::Replaced { at } => Some(at),
            KeyState::Minted | KeyState::Published { .. } => None,
        };
        let dropped = key.dropped.iter().find(|one| one.did == *did);
        let dropped = dropped.and_then(|one| one.at);
        // Of two times the earlier one began the wait.
        let since = replaced.into_iter().chain(dropped).min();
        since.is_some_and(|since| now.since(since) >= DROPPED_MEDIATOR_RETENTION)
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
    /// The mediators that have accepted it, until they have been told to accept no more mail.
    pub registered: Vec<MediatorDid>,
    /// The mediators that the record has stopped naming for it, or is about to. Mail may wait there,
    /// and more may come for a while.
    pub dropped: Vec<DroppedMediator>,
}

/// A mediator that the record named for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedMediator {
    /// The mediator.
    pub did: MediatorDid,
    /// Since when the record does not name it, by our clock. `None` until the record that does not
    /// is known to be written.
    pub at: Option<Timestamp>,
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
            dropped: Vec::new(),
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

    /// Whether a mediator is among the dropped ones.
    pub fn has_dropped(&self, did: &MediatorDid) -> bool {
        self.dropped.iter().any(|one| one.did == *did)
    }

    /// Notes mediators that the record is about to stop naming, before it does.
    pub(crate) fn note_dropped<'m>(&mut self, mediators: impl Iterator<Item = &'m MediatorDid>) {
        for did in mediators {
            if !self.has_dropped(did) && self.dropped.len() < MAX_HOLDERS {
                let did = did.clone();
                self.dropped.push(DroppedMediator { did, at: None });
            }
        }
    }

    /// Notes the mediators that the record named for the key, before it names another key or none.
    pub(crate) fn note_replaced(&mut self, mediators: &[MediatorDid]) {
        let registered = self.registered.clone();
        self.note_dropped(mediators.iter().filter(|did| !registered.contains(did)));
    }

    /// Notes the mediators that the record stops naming for the key, which it goes on naming: it
    /// named `before`, and is to name `named`.
    pub(crate) fn note_changed(&mut self, before: &[MediatorDid], named: &[MediatorDid]) {
        let known = [before, &self.registered].concat();
        self.note_dropped(known.iter().filter(|did| !named.contains(did)));
    }

    /// Sets since when the record names no other mediators for the key than `named`.
    pub(crate) fn date_dropped(&mut self, named: &[MediatorDid], now: Timestamp) {
        for dropped in &mut self.dropped {
            dropped.at = if named.contains(&dropped.did) {
                None
            } else {
                dropped.at.or(Some(now))
            };
        }
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

/// Marks all keys but `present` as replaced. The record may have named `mediators` for them, also
/// where a run that was interrupted has not registered there.
pub(crate) fn replace_all(
    keys: &mut [MessagingKey],
    present: Option<&str>,
    mediators: &[MediatorDid],
    now: Timestamp,
) {
    for key in keys {
        let is_present = present == Some(key.peer.as_str());
        if !is_present && !key.is_replaced() {
            key.note_replaced(mediators);
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
