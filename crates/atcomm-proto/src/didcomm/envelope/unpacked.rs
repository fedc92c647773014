//! What opening an envelope gives.

use super::content::ContentEncryption;
use crate::didcomm::party::Party;

/// One layer that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Encrypted by a proven sender.
    Authcrypt,
    /// Encrypted by whoever.
    Anoncrypt(ContentEncryption),
    /// Signed.
    Signed,
}

/// A party that proved to hold a key.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// The party.
    pub party: Party,
    /// Which of its keys, as the envelope names it.
    pub kid: String,
}

/// An opened message.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// The plaintext message: UTF-8, a JSON object, `from` and `to` checked and neither there
    /// twice. The rest of it is as the sender wrote it.
    pub plaintext: Vec<u8>,
    /// Who encrypted it, where that is proven. Without a sender and a signer a `from` in the
    /// plaintext is nobody's word.
    pub sender: Option<Authenticated>,
    /// Who signed it.
    pub signer: Option<Authenticated>,
    /// Which of our keys opened it, as the envelope names it; of several layers the outermost. None
    /// where it was signed only: then `to` has been compared with nothing.
    pub recipient: Option<String>,
    /// Tells one authcrypted message from every other, and stays the same whatever is done to the
    /// message on its way: of what its sender has authenticated, nothing outside of it. None
    /// without a sender.
    pub replay_id: Option<[u8; 32]>,
    /// The layers, outermost first.
    pub layers: Vec<Layer>,
}
