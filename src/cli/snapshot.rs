//! `atcomm snapshot`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::admin::SAME_USER;
use super::output::show;
use super::{CliError, Exit, ServiceFlags};
use crate::store::{self, StoreError};

#[derive(Debug, Args)]
pub(super) struct Snapshot {
    /// The new file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    service: ServiceFlags,
}

#[derive(Serialize)]
struct Taken {
    file: PathBuf,
    accounts: u64,
    bytes: u64,
}

/// Copies the directory's database.
pub(super) fn snapshot(args: &Snapshot, stdout: &mut dyn Write) -> Result<(), CliError> {
    let from = args.service.directory_file()?;
    let file = &args.file;
    let failed = |message: String, hint: &str| CliError {
        exit: Exit::Failed,
        message,
        hint: hint.to_owned(),
    };
    if file.exists() {
        let message = format!("{} exists", file.display());
        return Err(failed(message, "name a new file, or move this one away"));
    }
    let taken = store::snapshot(&from, file).map_err(|error| {
        let hint = match error {
            StoreError::Full | StoreError::File(_) => {
                "the copy needs as much room as the database, in a directory that can be written"
            }
            _ => SAME_USER,
        };
        failed(format!("cannot copy {}: {error}", from.display()), hint)
    })?;
    let taken = Taken {
        file: file.clone(),
        accounts: taken.entries,
        bytes: taken.bytes,
    };
    show(args.service.json, stdout, &taken, |out| {
        let Taken {
            file,
            accounts,
            bytes,
        } = &taken;
        writeln!(
            out,
            "{}: {accounts} accounts, {bytes} bytes",
            file.display()
        )
    })
}
