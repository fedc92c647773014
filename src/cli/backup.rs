//! `atcomm backup` and `atcomm restore`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::context::{CommandContext, Common};
use super::output::{show, unwritten};
use super::secret::Source;
use super::{CliError, Exit};
use atcomm_client::Wallet;
use atcomm_client::backup::{self, BackupError};
use atcomm_proto::syntax::Did;

/// `atcomm backup`.
#[derive(Debug, clap::Args)]
pub(super) struct Backup {
    /// File to be written; - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file where there is one
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    own: Own,
}

/// `atcomm restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// File that was written by `atcomm backup`; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the wallet has another key for an account, put the backup's in its place
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    own: Own,
}

/// Flags of both commands.
#[derive(Debug, clap::Args)]
struct Own {
    /// File whose first line is the passphrase; - is standard input [default: ATCOMM_PASSPHRASE,
    /// else it is asked for]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl Own {
    fn passphrase(&self) -> Source<'_> {
        Source {
            name: "passphrase",
            file: self.passphrase_file.as_deref(),
            flag: "--passphrase-file",
            variable: "ATCOMM_PASSPHRASE",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    file: String,
    accounts: Vec<String>,
    contacts: usize,
}

/// Writes a backup.
pub(super) fn backup(args: &Backup, stdout: &mut dyn Write) -> Result<(), CliError> {
    let context = CommandContext::open(&args.own.common)?;
    let wallet = Wallet::open(&context.home)?;
    let backup = backup::Backup::of(&wallet, context.client.clock.now())?;
    let to_stdout = args.file == Path::new("-");
    // Before the user thinks of a passphrase.
    if !to_stdout && !args.force && args.file.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(args.file.clone()).into());
    }
    let prompt = "Passphrase of the backup (whoever has both can read your mail): ";
    let passphrase = args.own.passphrase().read(prompt, true)?;
    let sealed = backup.seal(&passphrase)?;
    if to_stdout {
        return stdout
            .write_all(&sealed)
            .and_then(|()| stdout.flush())
            .or_else(unwritten);
    }
    backup::write(&args.file, &sealed, args.force)?;
    let written = Written {
        file: args.file.display().to_string(),
        accounts: backup
            .accounts
            .iter()
            .map(|one| one.account.to_string())
            .collect(),
        contacts: backup.contacts.len(),
    };
    show(args.own.common.json, stdout, &written, |out| {
        writeln!(
            out,
            "{} has the keys of {} accounts and {} contacts, without their mail",
            written.file,
            written.accounts.len(),
            written.contacts
        )
    })
}

/// Brings a backup into the wallet.
pub(super) fn restore(
    args: &Restore,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), CliError> {
    let context = CommandContext::open(&args.own.common)?;
    let wallet = Wallet::open(&context.home)?;
    let from_stdin = args.file == Path::new("-");
    if from_stdin && args.own.passphrase_file.as_deref() == Some(Path::new("-")) {
        return Err(CliError {
            exit: Exit::Usage,
            message: "the backup and the passphrase cannot both come from standard input"
                .to_owned(),
            hint: "name a file for one of them".to_owned(),
        });
    }
    let read = if !from_stdin {
        File::open(&args.file).and_then(backup::read)
    } else if io::stdin().is_terminal() {
        Err(io::Error::other("it is a terminal"))
    } else {
        backup::read(io::stdin().lock())
    };
    let file = read.map_err(|error| CliError {
        exit: Exit::Failed,
        message: format!("cannot read {}: {error}", args.file.display()),
        hint: "it has to be what `atcomm backup` has written".to_owned(),
    })?;
    let passphrase = args
        .own
        .passphrase()
        .read("Passphrase of the backup: ", false)?;
    let backup = backup::Backup::open(&file, &passphrase)?;
    let mut waiting = |account: &Did| {
        let _ = writeln!(
            stderr,
            "another atcomm changes how {account} is enrolled; waiting for it to end"
        );
    };
    let restored = backup.restore(
        &wallet,
        args.force,
        context.client.clock.now(),
        &mut waiting,
    )?;
    show(args.own.common.json, stdout, &restored, |out| {
        for account in &restored.added {
            writeln!(out, "{account} is in the wallet now")?;
        }
        for account in &restored.merged {
            writeln!(out, "{account} has more keys now")?;
        }
        for account in &restored.unchanged {
            writeln!(out, "{account} was in the wallet already")?;
        }
        writeln!(out, "{} contacts were added", restored.contacts)
    })
}
