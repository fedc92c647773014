//! Whether the account publishes a key of this wallet still, or another device's.

use super::account::AccountClient;
use super::enroll::PublishedState;
use crate::account::Account;
use crate::lookup::directory::DirectoryError;
use atcomm_proto::syntax::LexiconError;

/// Asks which key the account publishes now: the directory, or without one the account's PDS. What a
/// directory says against the wallet counts only where the PDS does not deny it, since a directory
/// may not have seen the latest record. `None` where no answer is to be had.
pub async fn published_now(account: &Account) -> Option<PublishedState> {
    let enrolment = account.enrolment();
    if let Some(directory) = account.lookup().directory() {
        let peer = match directory.view(&enrolment.account).await {
            Ok(view) => Some(view.peer),
            Err(DirectoryError::Refused {
                name: LexiconError::NotEnrolled,
                ..
            }) => None,
            Err(_) => return None,
        };
        let state = PublishedState::of_peer(peer.as_deref(), Some(enrolment));
        if state.is_ours() {
            return Some(state);
        }
    }
    let client = AccountClient::new(&account.client().net, &enrolment.pds, account.store());
    let record = client.record().await.ok()?;
    Some(PublishedState::of(record.as_ref(), Some(enrolment)))
}
