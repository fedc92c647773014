//! Unpacking an envelope: the message in it, and the sender as far as the envelope proves one.
//!
//! Source: `docs/client-guide.md`, "Attribute".

use atcomm_proto::didcomm::envelope::{
    self, EnvelopeError, Keyring, Layer, Resolve, SelfCertified,
};
use atcomm_proto::didcomm::message::{Message, MessageError};
use atcomm_proto::didcomm::party::Party;

/// Longest envelope that is unpacked, in bytes: four times what mediators accept by default.
pub const MAX_ENVELOPE: usize = 4 << 20;

/// Errors of unpacking mail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Longer than [`MAX_ENVELOPE`], or empty.
    #[error("it is empty or longer than {MAX_ENVELOPE} bytes")]
    Length,
    /// The envelope cannot be decrypted or verified.
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    /// Layers that mail does not have: signed, and not encrypted.
    #[error("its layers are not those of mail")]
    Layers,
    /// The plaintext is not a DIDComm message.
    #[error("{0}")]
    Message(#[from] MessageError),
}

/// An unpacked message.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// The message.
    pub message: Message,
    /// The message as it was written: a JSON object.
    pub plaintext: Vec<u8>,
    /// The sender's DID, proven by the envelope and equal to the message's `from`. `None` for
    /// anoncrypt.
    pub sender: Option<String>,
    /// The own did:peer that the envelope was encrypted to.
    pub recipient: String,
}

/// Unpacks an envelope with the keys of `ring`. Senders whose DIDs contain their keys need not be
/// among `known`, which holds others, such as the own mediators.
pub fn unpack(
    envelope: &[u8],
    ring: &dyn Keyring,
    known: &[Party],
) -> Result<Unpacked, UnpackError> {
    if envelope.is_empty() || envelope.len() > MAX_ENVELOPE {
        return Err(UnpackError::Length);
    }
    let parties = |did: &str| {
        let known = known.iter().find(|party| party.is(did)).cloned();
        known.or_else(|| SelfCertified.party(did))
    };
    let unpacked = envelope::unpack(envelope, ring, &parties)?;
    let sender = match unpacked.layers.as_slice() {
        [Layer::Anoncrypt(_)] => None,
        // The signer of an authcrypted message is its sender, or it is not unpacked.
        [Layer::Authcrypt] | [Layer::Authcrypt, Layer::Signed] => unpacked.sender,
        [Layer::Anoncrypt(_), Layer::Authcrypt] => unpacked.sender,
        [Layer::Anoncrypt(_), Layer::Signed] => unpacked.signer,
        _ => return Err(UnpackError::Layers),
    };
    let kid = unpacked.recipient.ok_or(UnpackError::Layers)?;
    let recipient = kid.split_once('#').map_or(&*kid, |(did, _)| did);
    Ok(Unpacked {
        message: Message::parse(&unpacked.plaintext)?,
        sender: sender.map(|sender| sender.party.did().to_owned()),
        recipient: recipient.to_owned(),
        plaintext: unpacked.plaintext,
    })
}

#[cfg(test)]
mod tests;
