//! What the commands share that change how an account is enrolled: signing in, telling of the steps,
//! and ending well where they are interrupted.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::context::CommandContext;
use super::secret::Source;
use super::signal::Shutdown;
use super::terminal::line;
use super::{CliError, Exit};
use atcomm_client::{EnrolError, Enroller, Located, Step};

/// How the account's owner shows who he is to its PDS.
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

/// Work that SIGINT and SIGTERM end between two steps, with a word.
pub(super) fn interruptible<T>(
    context: &CommandContext,
    work: impl Future<Output = Result<T, EnrolError>>,
) -> Result<T, CliError> {
    context.block_on(async {
        let Ok(mut shutdown) = Shutdown::listen() else {
            // Without them a signal ends the process where it is, which loses no more.
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

    /// Work before a password is asked for. While it may be asked for in a terminal, a signal ends
    /// the process as it ends any: nothing is half done then, and whoever types a password has to
    /// be able to end that.
    pub(super) fn before<T>(
        &self,
        context: &CommandContext,
        work: impl Future<Output = Result<T, EnrolError>>,
    ) -> Result<T, CliError> {
        match self.source().asks() {
            true => Ok(context.block_on(work)?),
            false => interruptible(context, work),
        }
    }

    /// Makes sure of a session, by the one that is kept or by the password.
    pub(super) fn ensure(
        &self,
        context: &CommandContext,
        enroller: &Enroller,
        located: &Located,
    ) -> Result<(), CliError> {
        let client = enroller.client(located);
        if self.before(context, async { Ok(client.is_signed_in().await?) })? {
            return Ok(());
        }
        let name = name(located);
        let prompt = format!("App password of {name} at {}: ", located.pds);
        let password = self.source().read(&prompt, false)?;
        interruptible(context, async {
            Ok(client
                .sign_in(&name, &password, self.code.as_deref())
                .await?)
        })
    }
}

/// What people call an account.
pub(super) fn name(located: &Located) -> String {
    match &located.handle {
        Some(handle) => handle.to_string(),
        None => located.account.to_string(),
    }
}

/// Tells of a step. Where nobody listens, the work goes on.
pub(super) fn tell(stderr: &mut dyn Write, step: &Step) {
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
        Step::DirectoryPending(directory, why) => writeln!(
            stderr,
            "the directory {directory} has not seen that yet, and will by itself: {}",
            line(why)
        ),
        Step::Registered(did) => writeln!(stderr, "{did} keeps the mail"),
        Step::RegisterFailed(did, why) => {
            let why = line(&why.to_string());
            writeln!(stderr, "{did} does not keep the mail yet: {why}")
        }
        Step::Unregistered(did) => writeln!(stderr, "{did} keeps no more mail"),
        Step::UnregisterFailed(did, why) => {
            let why = line(&why.to_string());
            writeln!(stderr, "{did} could not be told: {why}")
        }
    };
}
