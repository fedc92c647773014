//! What sending, receiving and checking work with: an account of the wallet, and whom it asks.

use std::error::Error;

use super::context::{CommandContext, Own};
use super::terminal::line;
use super::{CliError, Exit};
use atcomm_client::{Account, MailError, OpenError, PathFailure};
use atcomm_proto::syntax::{Did, Handle};

/// An account of the wallet at work.
pub(super) struct MailContext {
    pub(super) command: CommandContext,
    pub(super) account: Account,
}

impl MailContext {
    /// Reads settings and wallet; dials nothing.
    pub(super) fn open(own: &Own) -> Result<Self, CliError> {
        let command = CommandContext::open(&own.common)?;
        let account = Account::of_wallet(
            command.client.clone(),
            &command.home,
            own.account.as_deref(),
        )?;
        Ok(Self { command, account })
    }
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Wallet(error) => error.into(),
            OpenError::NotEnrolled(_) => not_enrolled(&error),
            OpenError::Net(error) => Self {
                exit: Exit::Usage,
                message: error.to_string(),
                hint: "look at the section net of the configuration".to_owned(),
            },
        }
    }
}

/// Returns the error of an account without a messaging key.
pub(super) fn not_enrolled(error: &dyn Error) -> CliError {
    CliError {
        exit: Exit::Failed,
        message: error.to_string(),
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
