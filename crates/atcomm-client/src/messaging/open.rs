//! Opening what came: who has written it, as far as the envelope shows.
//!
//! Source: `docs/client-guide.md`, "Attribute".

use atcomm_proto::didcomm::envelope::{
    self, EnvelopeError, Keyring, Layer, Resolve, SelfCertified,
};
use atcomm_proto::didcomm::message::{Message, MessageError};
use atcomm_proto::didcomm::party::Party;

/// Longest envelope that is opened, in bytes: four times what mediators take by default.
pub const MAX_ENVELOPE: usize = 4 << 20;

/// Why a message is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Longer than [`MAX_ENVELOPE`], or empty.
    #[error("it is empty or longer than {MAX_ENVELOPE} bytes")]
    Length,
    /// The envelope.
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    /// Layers that mail has not: signed only, or signed within authcrypt.
    #[error("its layers are not those of mail")]
    Layers,
    /// What is in it.
    #[error("{0}")]
    Message(#[from] MessageError),
}

/// An opened message.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// What is in it.
    pub message: Message,
    /// The same as it was written: a JSON object.
    pub plaintext: Vec<u8>,
    /// Who wrote it: a DID, shown by the envelope and equal to the message's `from`. None where it
    /// was encrypted by whoever.
    pub writer: Option<String>,
    /// Our did:peer that it was encrypted to.
    pub reader: String,
}

/// Opens an envelope with our keys. DIDs that carry their keys are known of themselves; `known` are
/// others that may have written, such as our mediators.
pub fn open(envelope: &[u8], ring: &dyn Keyring, known: &[Party]) -> Result<Unpacked, UnpackError> {
    if envelope.is_empty() || envelope.len() > MAX_ENVELOPE {
        return Err(UnpackError::Length);
    }
    let parties = |did: &str| {
        let known = known.iter().find(|party| party.is(did)).cloned();
        known.or_else(|| SelfCertified.party(did))
    };
    let opened = envelope::unpack(envelope, ring, &parties)?;
    let author = match opened.layers.as_slice() {
        [Layer::Anoncrypt(_)] => None,
        [Layer::Authcrypt] | [Layer::Anoncrypt(_), Layer::Authcrypt] => opened.sender,
        [Layer::Anoncrypt(_), Layer::Signed] => opened.signer,
        _ => return Err(UnpackError::Layers),
    };
    let reader = opened.recipient.ok_or(UnpackError::Layers)?;
    let reader = reader.split_once('#').map_or(&*reader, |(did, _)| did);
    Ok(Unpacked {
        message: Message::parse(&opened.plaintext)?,
        writer: author.map(|author| author.party.did().to_owned()),
        reader: reader.to_owned(),
        plaintext: opened.plaintext,
    })
}

#[cfg(test)]
mod tests;
