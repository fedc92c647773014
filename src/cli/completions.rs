//! `atcomm completions`: completions of a shell from the descriptions of the commands.

use std::io::Write;

use clap::CommandFactory as _;

use super::output::unwritten;
use super::{Cli, CliError};

/// `atcomm completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: clap_complete::Shell,
}

/// Writes the completions of a shell.
pub(super) fn completions(args: &Completions, stdout: &mut dyn Write) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "atcomm", &mut script);
    stdout
        .write_all(&script)
        .and_then(|()| stdout.flush())
        .or_else(unwritten)
}
