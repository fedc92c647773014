//! The result of unpacking an envelope.

use super::content::ContentEncryption;
use crate::didcomm::party::Party;

/// An opened layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Encrypted by an authenticated sender.
    Authcrypt,
    /// Encrypted by an unknown sender.
    Anoncrypt(ContentEncryption),
    /// Signed.
    Signed,
}

/// A party that has proven to hold a key.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// The party.
    pub party: Party,
    /// Id of the key, as the envelope names it.
    pub kid: String,
}

/// An unpacked message.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// The plaintext message: a JSON object in UTF-8 with at most one `from` and one `to`, both
    /// checked. Everything else is as the sender wrote it.
    pub plaintext: Vec<u8>,
    /// The party that encrypted the message, if it is authenticated. Without a sender and a signer,
    /// `from` in the plaintext is unproven.
    pub sender: Option<Authenticated>,
    /// The party that signed the message.
    pub signer: Option<Authenticated>,
    /// Id of our key that opened the message, as the envelope names it; for several layers that of
    /// the outermost. `None` if the message was only signed: `to` was then not compared with any
    /// key.
    pub recipient: Option<String>,
    /// Hash that identifies an authcrypted message and cannot be changed on its way, since it
    /// covers only what the sender has authenticated. `None` without a sender.
    pub replay_id: Option<[u8; 32]>,
    /// The layers, outermost first.
    pub layers: Vec<Layer>,
}
