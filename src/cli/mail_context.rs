//! The context of commands that send, receive and check.

use super::CliError;
use super::context::{CommandContext, Own};
use atcomm_client::{Account, OpenError};

/// An enrolled account, with the client and the runtime of one run.
pub(super) struct MailContext {
    pub(super) command: CommandContext,
    pub(super) account: Account,
}

impl MailContext {
    /// Reads the settings and the wallet; dials nothing.
    pub(super) fn open(own: &Own) -> Result<Self, CliError> {
        let command = CommandContext::open(&own.common)?;
        let client = command.client.clone();
        let account = Account::of_wallet(client, &command.home, own.account.as_deref())?;
        Ok(Self { command, account })
    }

    /// Fails where the account has no key to write with, as after unenrolling.
    pub(super) fn with_key(self) -> Result<Self, CliError> {
        if self.account.key().is_some() {
            return Ok(self);
        }
        let account = self.account.enrolment().account.clone();
        Err(OpenError::NotEnrolled(account).into())
    }
}
