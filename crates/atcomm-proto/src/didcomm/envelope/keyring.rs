//! Where the keys for opening an envelope come from.

use crate::didcomm::key::SecretKey;
use crate::didcomm::party::Party;

/// Our own keys, found by the id that an envelope names. A ring whose keys are known under several
/// spellings of their ids answers to each of them.
pub trait Keyring {
    /// The key with this id, which is an absolute DID URL as the sender wrote it.
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

/// What is asked about others while an envelope is opened.
pub trait Resolve {
    /// The party with this DID, or none where it is not known here.
    fn party(&self, did: &str) -> Option<Party>;
}

impl<F: Fn(&str) -> Option<Party>> Resolve for F {
    fn party(&self, did: &str) -> Option<Party> {
        self(did)
    }
}

/// Knows the DIDs that carry their keys: [`Party::resolve`], and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct SelfCertified;

impl Resolve for SelfCertified {
    fn party(&self, did: &str) -> Option<Party> {
        Party::resolve(did).ok()
    }
}
