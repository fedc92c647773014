//! The context of commands that send, receive and check.

use super::CliError;
use super::context::{CommandContext, Own};
use atcomm_client::Account;

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
}
