//! What sending, receiving and checking work with: an account of the wallet, and whom it asks.

use super::desk::{Desk, Own};
use super::terminal::line;
use super::{Complaint, Exit};
use atcomm_client::{
    AccountStore, Courier, Enrolment, MailError, MessagingKey, PathFailure, RecipientLookup, Wallet,
};
use atcomm_proto::syntax::{Did, Handle};

/// An account of the wallet at work.
pub(super) struct Mailing {
    pub(super) desk: Desk,
    pub(super) wallet: Wallet,
    pub(super) store: AccountStore,
    pub(super) enrolment: Enrolment,
    pub(super) recipients: RecipientLookup,
    pub(super) courier: Courier,
}

impl Mailing {
    /// Reads settings and wallet; dials nothing.
    pub(super) fn open(own: &Own) -> Result<Self, Complaint> {
        let desk = Desk::open(&own.common)?;
        let wallet = Wallet::open(&desk.home)?;
        let store = wallet.find(own.account.as_deref())?;
        let enrolment = store.enrolment()?.ok_or_else(|| not_enrolled(&store))?;
        let recipients = desk.recipients(enrolment.directory.as_ref());
        Ok(Self {
            courier: Courier::new(&desk.net, &desk.identity, &desk.clock),
            desk,
            wallet,
            store,
            enrolment,
            recipients,
        })
    }

    /// The key that writes.
    pub(super) fn key(&self) -> Result<&MessagingKey, Complaint> {
        self.enrolment
            .current()
            .ok_or_else(|| not_enrolled(&self.store))
    }
}

fn not_enrolled(store: &AccountStore) -> Complaint {
    Complaint {
        exit: Exit::Failed,
        message: format!("{} has no messaging key", store.account()),
        hint: "make and publish one with `atcomm enroll`".to_owned(),
    }
}

/// How an account is called: by its handle, where that was verified.
pub(super) fn name(handle: Option<&Handle>, account: &Did) -> String {
    match handle {
        Some(handle) => format!("@{handle}"),
        None => line(account.as_str()),
    }
}

/// One way that failed, in a line.
pub(super) fn failed_way(failure: &PathFailure) -> String {
    line(&failure.to_string())
}

/// What an error of a mediator ends a command with.
pub(super) fn exit_of(error: &MailError) -> Exit {
    match error.is_transient() {
        true => Exit::Unreachable,
        false => Exit::Failed,
    }
}
