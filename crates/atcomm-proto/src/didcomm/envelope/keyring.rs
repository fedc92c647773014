//! The keys and parties that unpacking looks up.

use crate::didcomm::key::SecretKey;
use crate::didcomm::party::Party;

/// Our own secret keys by id. A keyring whose keys have several spellings of their ids finds the
/// key under each of them.
pub trait Keyring {
    /// Returns the key with this id, an absolute DID URL as the sender wrote it.
    fn secret(&self, kid: &str) -> Option<&SecretKey>;
}

impl Keyring for [SecretKey] {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        self.iter().find(|key| key.kid() == kid)
    }
}

impl Keyring for Vec<SecretKey> {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        self.as_slice().secret(kid)
    }
}

impl<const N: usize> Keyring for [SecretKey; N] {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        self.as_slice().secret(kid)
    }
}

impl<R: Keyring + ?Sized> Keyring for &R {
    fn secret(&self, kid: &str) -> Option<&SecretKey> {
        (**self).secret(kid)
    }
}

/// Look-up of other parties while an envelope is unpacked.
pub trait Resolve {
    /// Returns the party with this DID; `None` if it is not known.
    fn party(&self, did: &str) -> Option<Party>;
}

impl<F: Fn(&str) -> Option<Party>> Resolve for F {
    fn party(&self, did: &str) -> Option<Party> {
        self(did)
    }
}

/// Resolves only the DIDs that carry their keys, by [`Party::resolve`].
#[derive(Debug, Clone, Copy)]
pub struct SelfCertified;

impl Resolve for SelfCertified {
    fn party(&self, did: &str) -> Option<Party> {
        Party::resolve(did).ok()
    }
}
