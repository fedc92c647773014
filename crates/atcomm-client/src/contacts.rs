//! Accepting a contact: what is pinned becomes what was looked up, by the decision of the user.

use crate::lookup::outcome::Recipient;
use crate::lookup::trust::SendBlocker;
use crate::wallet::Wallet;
use crate::wallet::error::WalletError;
use atcomm_proto::verify::pin::Pin;
use atcomm_proto::verify::pinning::KeyChange;

/// Results of [`accept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// The contact is saved as it was looked up.
    Accepted,
    /// Only the directory shows the key, so nothing was accepted.
    Unconfirmed(SendBlocker),
    /// The key is not the one that was shown to the user: it has changed once more since. Nothing was
    /// accepted.
    ChangedAgain,
    /// Another process has changed the contact since it was read. Nothing was accepted.
    Outdated,
}

/// Accepts a recipient's key and handle. `pins` are all contacts, as they were for the look-up. Other
/// contacts that are known by the handle lose it: a handle names one account only.
pub fn accept(
    wallet: &Wallet,
    pins: &[Pin],
    recipient: &Recipient,
) -> Result<Acceptance, WalletError> {
    if let Some(blocker) = recipient.unconfirmed_blocker() {
        return Ok(Acceptance::Unconfirmed(blocker));
    }
    let known = pins.iter().find(|pin| pin.account == recipient.account);
    let waiting = known.and_then(|pin| pin.changed.as_ref());
    if let (KeyChange::Changed { .. }, Some(waiting)) = (&recipient.trust.change, waiting)
        && waiting.peer != recipient.package.peer()
    {
        wallet.record(pins, recipient.trust.pin.as_ref())?;
        return Ok(Acceptance::ChangedAgain);
    }
    if !wallet.record(pins, Some(recipient.trust.accepted()))? {
        return Ok(Acceptance::Outdated);
    }
    if let Some(handle) = &recipient.handle {
        let others = pins.iter().filter(|pin| pin.account != recipient.account);
        for other in others.filter(|pin| pin.is_known_by(handle)) {
            wallet.record(pins, Some(&other.clone().without_handle(handle)))?;
        }
    }
    Ok(Acceptance::Accepted)
}
