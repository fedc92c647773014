//! Signing in, progress and interruption of commands that change how an account is enrolled.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::context::CommandContext;
use super::secret::Source;
use super::signal::Shutdown;
use super::terminal::line;
use super::{CliError, Exit};
use atcomm_client::{EnrolError, Enroller, Located, Operation, Step};

/// Flags of the app password.
#[derive(Debug, Args)]
pub(super) struct SignIn {
    /// File whose first line is an app password; - is standard input [default: ATCOMM_PASSWORD,
    /// else it is asked for]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The code that your PDS has sent by mail, where it asks for one
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
}

/// Runs a future that SIGINT and SIGTERM end between two steps, with a message.
pub(super) fn interruptible<T>(
    context: &CommandContext,
    work: impl Future<Output = Result<T, EnrolError>>,
) -> Result<T, CliError> {
    context.block_on(async {
        let Ok(mut shutdown) = Shutdown::listen() else {
            // Without handlers a signal ends the process where it is, which loses no more.
            return Ok(work.await?);
        };
        tokio::select! {
            result = work => Ok(result?),
            () = shutdown.requested() => Err(interrupted()),
        }
    })
}

fn interrupted() -> CliError {
    CliError {
        exit: Exit::Failed,
        message: "interrupted".to_owned(),
        hint: "what was done is kept; run the same command again and it finishes".to_owned(),
    }
}

impl SignIn {
    fn source(&self) -> Source<'_> {
        Source {
            name: "app password",
            file: self.password_file.as_deref(),
            flag: "--password-file",
            variable: "ATCOMM_PASSWORD",
        }
    }

    /// Runs a future before a password is asked for. While a terminal may ask for the password, a
    /// signal ends the process as it ends any: nothing is half done then, and the prompt must not
    /// catch the signal of a user who wants to leave it.
    pub(super) fn before<T>(
        &self,
        context: &CommandContext,
        work: impl Future<Output = Result<T, EnrolError>>,
    ) -> Result<T, CliError> {
        if self.source().asks() {
            Ok(context.block_on(work)?)
        } else {
            interruptible(context, work)
        }
    }

    /// Asks for the password and signs in, where the operation needs that.
    pub(super) fn ensure(
        &self,
        context: &CommandContext,
        enroller: &Enroller,
        located: &Located,
        operation: Operation,
    ) -> Result<(), CliError> {
        if !self.before(context, enroller.needs_password(located, operation))? {
            return Ok(());
        }
        let prompt = format!("App password of {} at {}: ", name(located), located.pds);
        let password = self.source().read(&prompt, false)?;
        let code = self.code.as_deref().map(str::trim);
        interruptible(context, enroller.sign_in(located, &password, code))
    }
}

/// Returns the handle of an account, else its DID.
pub(super) fn name(located: &Located) -> &str {
    match &located.handle {
        Some(handle) => handle.as_str(),
        None => located.account.as_str(),
    }
}

/// Reports a step on standard error. Where that is closed, the work goes on.
pub(super) fn print_step(stderr: &mut dyn Write, step: &Step) {
    let _ = match step {
        Step::Waiting => writeln!(
            stderr,
            "another atcomm changes how this account is enrolled; waiting for it to end"
        ),
        Step::Minted => writeln!(stderr, "a new messaging key is in the wallet"),
        Step::Resumed => writeln!(stderr, "the messaging key in the wallet is used"),
        Step::Published => writeln!(stderr, "the account's record names it"),
        Step::Unchanged => writeln!(stderr, "the account's record is as it should be"),
        Step::Deleted => writeln!(stderr, "the account's record is deleted"),
        Step::DirectoryUpdated(directory) => {
            writeln!(stderr, "the directory {directory} has seen that")
        }
        Step::DirectoryPending(directory, reason) => writeln!(
            stderr,
            "the directory {directory} has not seen that yet, and will by itself: {}",
            line(reason)
        ),
        Step::Registered(did) => writeln!(stderr, "{did} keeps the mail"),
        Step::RegisterFailed(did, error) => {
            let error = line(&error.to_string());
            writeln!(stderr, "{did} does not keep the mail yet: {error}")
        }
        Step::Fetched(count) => {
            let messages = if *count == 1 { "message" } else { "messages" };
            writeln!(
                stderr,
                "{count} {messages} fetched first; `atcomm receive` shows them"
            )
        }
        Step::FetchFailed(did, error) => {
            let error = line(&error.to_string());
            writeln!(
                stderr,
                "{did} could not be asked for mail, and is asked later: {error}"
            )
        }
        Step::Dropped(did) => writeln!(stderr, "{did} is asked for mail for another 14 days"),
    };
}
