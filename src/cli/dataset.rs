//! `atcomm dataset`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::admin::SAME_USER;
use super::output::show;
use super::{CliError, Exit, ServiceFlags};
use crate::dataset::{self, DatasetError, DatasetFile, DatasetRequest};
use crate::store::directory::Day;

#[derive(Debug, Args)]
pub(super) struct Dataset {
    /// The new folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// First day, such as 2026-12-01 [default: a year before the last]
    #[arg(long, value_name = "DAY", value_parser = day)]
    from: Option<Day>,
    /// Last day [default: the last one that is closed]
    #[arg(long, value_name = "DAY", value_parser = day)]
    to: Option<Day>,
    #[command(flatten)]
    service: ServiceFlags,
}

#[derive(Serialize)]
struct Made {
    dir: PathBuf,
    since: String,
    until: String,
    rows: u64,
    files: Vec<MadeFile>,
}

#[derive(Serialize)]
struct MadeFile {
    name: String,
    bytes: u64,
    sha256: String,
}

fn day(text: &str) -> Result<Day, &'static str> {
    Day::parse(text).ok_or("a day is written as 2026-12-01")
}

/// Writes the time series as a dataset.
pub(super) fn dataset(args: &Dataset, stdout: &mut dyn Write) -> Result<(), CliError> {
    let config = args.service.config()?;
    let from = args.service.directory_file()?;
    let request = DatasetRequest {
        since: args.from,
        until: args.to,
        ..config.dataset_request()
    };
    let made = dataset::write(&from, &args.dir, &request, &mut || true)
        .map_err(|error| failed(&args.dir, &error))?;
    let made = Made {
        dir: args.dir.clone(),
        since: made.since.to_string(),
        until: made.until.to_string(),
        rows: made.rows,
        files: made.files.into_iter().map(MadeFile::from).collect(),
    };
    show(args.service.json, stdout, &made, |out| {
        let bytes: u64 = made.files.iter().map(|file| file.bytes).sum();
        writeln!(
            out,
            "{}: {} to {}, {} rows, {bytes} bytes",
            made.dir.display(),
            made.since,
            made.until,
            made.rows,
        )
    })
}

impl From<DatasetFile> for MadeFile {
    fn from(file: DatasetFile) -> Self {
        let DatasetFile {
            name,
            bytes,
            sha256,
        } = file;
        Self {
            name,
            bytes,
            sha256,
        }
    }
}

fn failed(dir: &Path, error: &DatasetError) -> CliError {
    let hint = match error {
        DatasetError::Exists => "name a new folder, or move this one away",
        DatasetError::NoClosedDay => {
            "a day is closed some minutes after its midnight in UTC; docs/research.md says when"
        }
        DatasetError::NoSuchDays { .. } => "choose --from and --to among these",
        DatasetError::Store(_) => SAME_USER,
        _ => "the folder needs room, and to be in a folder that can be written",
    };
    CliError {
        exit: Exit::Failed,
        message: format!("cannot make {}: {error}", dir.display()),
        hint: hint.to_owned(),
    }
}
