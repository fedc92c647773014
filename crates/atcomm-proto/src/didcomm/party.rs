//! Senders and recipients of messages: a DID with its keys.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::did_peer::{
    PeerDid, PeerDid4, PeerDid4Error, PeerDidError, PeerKey, Purpose, forms_of_4,
};

use super::key::{Curve, KeyError, PublicKey};

/// Errors of reading the keys from a DID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PartyError {
    /// The text is not a DID, or has a path, query or fragment.
    #[error("it is not a DID")]
    Syntax,
    /// The DID's method is unknown, or its DIDs do not carry their keys.
    #[error("its method is not supported, or its document lies elsewhere")]
    Method,
    /// The DID is the short form of a `did:peer:4` whose long form is not known.
    #[error("it is the short form of a did:peer:4, and the long form is not known")]
    ShortForm,
    /// The DID is not a valid `did:peer:2`.
    #[error("{0}")]
    Peer(#[source] PeerDidError),
    /// The DID is not a valid `did:peer:4`.
    #[error("{0}")]
    Peer4(#[source] PeerDid4Error),
    /// The DID is not a valid `did:key`.
    #[error("{0}")]
    Key(#[source] KeyError),
}

impl PartyError {
    /// Returns a stable code for metrics and statistics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Method => "method",
            Self::ShortForm => "short_form",
            Self::Peer(err) => err.reason(),
            Self::Peer4(_) => "peer_4",
            Self::Key(_) => "key",
        }
    }
}

/// A key to encrypt to; keys of every kind are converted to this form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyAgreement {
    /// Absolute id: the `kid` of envelopes.
    pub id: String,
    /// Always `Multikey`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Multicodec and key in base58btc.
    pub public_key_multibase: String,
}

/// A DID with its keys: `did:peer:2`, the long form of a `did:peer:4`, `did:key`, or a resolved
/// document. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Party(Arc<PartyKeys>);

#[derive(Debug)]
struct PartyKeys {
    did: Box<str>,
    /// Length of the canonical name in bytes; the DID begins with it.
    canonical: usize,
    /// The parsed `did:peer:2`, which knows every spelling of its key ids.
    peer: Option<PeerDid>,
    key_agreement: Vec<PublicKey>,
    authentication: Vec<PublicKey>,
}

impl Party {
    /// Returns the party of a DID that carries its own keys.
    pub fn resolve(did: &str) -> Result<Self, PartyError> {
        let rest = did.strip_prefix("did:").ok_or(PartyError::Syntax)?;
        if did.contains(['#', '?', '/']) {
            return Err(PartyError::Syntax);
        }
        match rest.split_once(':').ok_or(PartyError::Syntax)? {
            ("peer", id) if id.starts_with('2') => Self::peer_2(did),
            ("peer", id) if id.starts_with('4') => Self::peer_4(did),
            ("key", multikey) => Self::did_key(did, multikey),
            _ => Err(PartyError::Method),
        }
    }

    /// Makes the party of a resolved document, such as that of a `did:web`. The ids of the keys are
    /// absolute; keys of curves that their use does not allow are left out.
    pub fn from_document(
        did: &str,
        key_agreement: Vec<PublicKey>,
        authentication: Vec<PublicKey>,
    ) -> Self {
        let canonical = canonical(did).len();
        Self::new(did, canonical, None, key_agreement, authentication)
    }

    fn new(
        did: &str,
        canonical: usize,
        peer: Option<PeerDid>,
        mut key_agreement: Vec<PublicKey>,
        mut authentication: Vec<PublicKey>,
    ) -> Self {
        key_agreement.retain(|key| key.curve() != Curve::Ed25519);
        authentication.retain(|key| key.curve() != Curve::X25519);
        Self(Arc::new(PartyKeys {
            did: did.into(),
            canonical,
            peer,
            key_agreement,
            authentication,
        }))
    }

    fn peer_2(did: &str) -> Result<Self, PartyError> {
        let peer = PeerDid::parse(did).map_err(PartyError::Peer)?;
        let of = |purpose| keys(peer.keys().iter().filter(move |key| key.purpose == purpose));
        let key_agreement = of(Purpose::KeyAgreement)?;
        let authentication = of(Purpose::Authentication)?;
        Ok(Self::new(
            did,
            did.len(),
            Some(peer),
            key_agreement,
            authentication,
        ))
    }

    fn peer_4(did: &str) -> Result<Self, PartyError> {
        let peer = PeerDid4::parse(did).map_err(|err| match err {
            PeerDid4Error::ShortForm => PartyError::ShortForm,
            err => PartyError::Peer4(err),
        })?;
        Ok(Self::new(
            did,
            peer.short().len(),
            None,
            keys(peer.key_agreement().iter())?,
            keys(peer.authentication().iter())?,
        ))
    }

    fn did_key(did: &str, multikey: &str) -> Result<Self, PartyError> {
        let kid = format!("{did}#{multikey}");
        let key = PublicKey::from_multikey(kid, multikey).map_err(PartyError::Key)?;
        // One key has one DID, but the decoder accepts several spellings.
        if key.multikey() != multikey {
            return Err(PartyError::Key(KeyError::Multibase));
        }
        let (key_agreement, authentication) = match key.curve() {
            Curve::X25519 => (vec![key], Vec::new()),
            Curve::P256 => (vec![key.clone()], vec![key]),
            Curve::Ed25519 => {
                let derived = key.to_x25519(|multikey| format!("{did}#{multikey}"));
                (derived.into_iter().collect(), vec![key])
            }
        };
        Ok(Self::new(
            did,
            did.len(),
            None,
            key_agreement,
            authentication,
        ))
    }

    /// Returns the DID as it was written.
    pub fn did(&self) -> &str {
        &self.0.did
    }

    /// Returns the canonical name of the party: the short form of a `did:peer:4`, any other DID as
    /// written.
    pub fn canonical(&self) -> &str {
        self.0.did.get(..self.0.canonical).unwrap_or_default()
    }

    /// Returns whether a DID is the party's: as it was written, or its canonical name.
    pub fn is(&self, did: &str) -> bool {
        did == self.did() || did == self.canonical()
    }

    /// Returns the X25519 and P-256 keys to encrypt to, in the DID's order; may be empty.
    pub fn key_agreement(&self) -> &[PublicKey] {
        &self.0.key_agreement
    }

    /// Returns the Ed25519 and P-256 keys that may sign; may be empty.
    pub fn authentication(&self) -> &[PublicKey] {
        &self.0.authentication
    }

    /// Finds a key by an absolute id or by a fragment with its `#`, in every spelling that the
    /// method has. An id of another DID finds nothing.
    pub fn key(&self, kid: &str) -> Option<&PublicKey> {
        self.agreement_key(kid)
            .or_else(|| self.authentication_key(kid))
    }

    /// Finds a key like [`key`](Self::key), among the keys to encrypt to.
    pub fn agreement_key(&self, kid: &str) -> Option<&PublicKey> {
        self.find(kid, self.key_agreement())
    }

    /// Finds a key like [`key`](Self::key), among the keys that sign.
    pub fn authentication_key(&self, kid: &str) -> Option<&PublicKey> {
        self.find(kid, self.authentication())
    }

    fn find<'k>(&self, kid: &str, keys: &'k [PublicKey]) -> Option<&'k PublicKey> {
        let (did, fragment) = kid.split_once('#')?;
        if !did.is_empty() && !self.is(did) {
            return None;
        }
        if let Some(peer) = &self.0.peer {
            let found = peer.key(kid)?;
            // A key with two uses appears twice in the DID, and its text names the first.
            return keys
                .iter()
                .find(|key| key.kid() == found.id)
                .or_else(|| keys.iter().find(|key| is_key(key, found)));
        }
        keys.iter().find(|key| {
            let own = key.kid().split_once('#');
            own.is_some_and(|(did, name)| name == fragment && self.is(did))
        })
    }
}

fn is_key(key: &PublicKey, found: &PeerKey) -> bool {
    Curve::of(found.key_type) == Some(key.curve()) && found.as_bytes() == key.as_bytes()
}

/// Returns the keys of a DID that envelopes can use.
fn keys<'k>(found: impl Iterator<Item = &'k PeerKey>) -> Result<Vec<PublicKey>, PartyError> {
    let mut keys = Vec::new();
    for key in found {
        if let Some(curve) = Curve::of(key.key_type) {
            let key = PublicKey::new(key.id.clone(), curve, key.as_bytes());
            keys.push(key.map_err(PartyError::Key)?);
        }
    }
    Ok(keys)
}

/// Returns the canonical name of a DID given in any of its forms. Does not check the hash of a
/// `did:peer:4`.
pub fn canonical(did: &str) -> &str {
    match forms_of_4(did) {
        Some((short, _)) => short,
        None => did,
    }
}

/// Returns whether two DIDs name one party, given that one of them is valid.
pub(super) fn is_same_did(one: &str, other: &str) -> bool {
    one == other || canonical(one) == canonical(other)
}

#[cfg(test)]
mod tests;
