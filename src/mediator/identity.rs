//! The address and the keys under which this mediator is known.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use super::address::PublicAddress;
use super::keys::{Keys, KeysError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{MediatorDid, WebDid};

/// The public address of this mediator and its keys.
pub(super) struct MediatorIdentity {
    /// Fixed by the configuration.
    address: PublicAddress,
    /// Exchanged as a whole when the operator rotates the keys and when retired keys expire. The
    /// lock is held only to clone or to exchange the `Arc`.
    keys: RwLock<Arc<Keys>>,
}

impl MediatorIdentity {
    pub(super) fn new(address: PublicAddress, keys: Keys) -> Self {
        Self {
            address,
            keys: RwLock::new(Arc::new(keys)),
        }
    }

    pub(super) fn address(&self) -> &PublicAddress {
        &self.address
    }

    pub(super) fn did(&self) -> &MediatorDid {
        self.address.did()
    }

    /// Returns the present keys. Each message is handled under one such snapshot.
    pub(super) fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the keys by those that the file at `path` holds.
    pub(super) fn reload(&self, path: &Path, now: Timestamp) -> Result<(), KeysError> {
        let keys = Keys::open(path, true, &self.address, now)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    /// Drops retired keys whose grace has ended.
    pub(super) fn drop_expired(&self, now: Timestamp) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(rest) = keys.without_expired(now) {
            *keys = Arc::new(rest);
        }
    }

    /// Returns whether a DID, or the id of a key, names this mediator. A `did:web` does so in every
    /// spelling.
    pub(super) fn is_named_by(&self, keys: &Keys, name: &str) -> bool {
        let did = name.split_once('#').map_or(name, |(did, _)| did);
        let is_own_web = || WebDid::parse(did).is_ok_and(|web| self.did().web() == Some(web));
        keys.identity(did).is_some() || is_own_web()
    }
}
