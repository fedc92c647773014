//! Senders and recipients: DIDs that carry their own keys.
//!
//! The short form of a did:peer:4 carries none; its keys come from the long form that its account
//! was registered under.

use super::keys::Keys;
use crate::store::{MailboxStore, StoreError};
use atcomm_proto::didcomm::envelope::{EnvelopeError, Resolve, Unpacked, unpack};
use atcomm_proto::didcomm::party::{Party, PartyError};

/// Resolves senders. Holds the party of a sender whose DID does not carry its keys.
pub(super) struct SenderResolver(Option<Party>);

impl Resolve for SenderResolver {
    fn party(&self, did: &str) -> Option<Party> {
        match &self.0 {
            Some(party) if party.is(did) => Some(party.clone()),
            _ => Party::resolve(did).ok(),
        }
    }
}

/// Opens an envelope. Takes the keys of a sender whose DID does not carry them from the sender's
/// account.
pub(super) async fn open_envelope(
    mailbox: &MailboxStore,
    keys: &Keys,
    message: &[u8],
) -> Result<Result<Unpacked, EnvelopeError>, StoreError> {
    match unpack(message, keys, &SenderResolver(None)) {
        Err(EnvelopeError::Unresolved { did }) => {
            let account = mailbox.query(move |q| q.account(&did)).await?;
            let party = account.and_then(|account| Party::resolve(&account.long).ok());
            Ok(unpack(message, keys, &SenderResolver(party)))
        }
        opened => Ok(opened),
    }
}

/// Returns the name of the queue that a forward names. Checks only the shape of the DID: a message
/// never opens a queue, so a malformed DID finds none, and parsing its keys would cost time for
/// nothing.
pub(super) fn queue_name(next: &str) -> Option<String> {
    let did = next.split_once('#').map_or(next, |(did, _)| did);
    let plain = did.starts_with("did:peer:2") || did.starts_with("did:key:");
    if plain && did.len() <= MAX_DID_BYTES {
        return Some(did.to_owned());
    }
    canonical(did)
}

/// Longest DID of a recipient, in bytes.
const MAX_DID_BYTES: usize = 4096;

/// Returns the name of a recipient's queue, given its DID or the id of one of its keys. `None` for a
/// text that cannot have a queue here.
pub(super) fn canonical(text: &str) -> Option<String> {
    let did = text.split_once('#').map_or(text, |(did, _)| did);
    match Party::resolve(did) {
        Ok(party) => Some(party.canonical().to_owned()),
        Err(PartyError::ShortForm) => Some(did.to_owned()),
        Err(_) => None,
    }
}
