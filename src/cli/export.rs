//! `atcomm export`.

mod pseudonym;
mod row;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Read, Seek as _, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::pseudonym::Pseudonyms;
use self::row::Rows;
use super::output::{show, unwritten};
use super::signal;
use super::{CliError, Exit, ServiceFlags};
use crate::store::directory::{Cell, ExportColumn, ExportTable, Queries};
use crate::store::{DirectoryFile, StoreError};
use atcomm_net::durable::{Mode, Staged};

/// Rows between two pictures of the progress.
const ROWS_PER_TICK: u64 = 1000;

/// Bytes that are written at once.
const BUFFER: usize = 1 << 18;

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The new file, readable by you alone; - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The rows to be exported
    #[arg(long, value_enum, default_value_t = Table::Accounts)]
    table: Table,
    /// Format of the rows [default: csv where the name of FILE ends in .csv, else ndjson]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Replace DIDs, handles and did:peers by pseudonyms made with the secret in this file
    #[arg(long, value_name = "KEYFILE")]
    pseudonyms: Option<PathBuf>,
    #[command(flatten)]
    service: ServiceFlags,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Table {
    /// The accounts as they are now
    Accounts,
    /// The change log
    Changes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// A JSON object in each line
    Ndjson,
    /// Comma-separated values with a line of names
    Csv,
}

#[derive(Serialize)]
struct Exported {
    file: PathBuf,
    table: &'static str,
    format: Format,
    pseudonyms: bool,
    rows: u64,
}

/// Errors of writing rows.
enum ExportError {
    Store(StoreError),
    Write(io::Error),
    /// The process was asked to end.
    Ended,
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Exports rows of the directory's database.
///
/// The rows are read in one transaction, during which the log of a service that runs cannot be
/// started anew. So they go to a file first, also where they are for standard output: no reader of
/// a pipe makes the transaction last. A request to end leaves no file behind.
pub(super) fn export(args: &Export, stdout: &mut dyn Write) -> Result<(), CliError> {
    let is_ended = if args.is_to_stdout() {
        // The file has no name, so it goes with the process.
        None
    } else {
        signal::watch().ok()
    };
    run(args, stdout, &|| {
        is_ended.as_ref().is_some_and(|is_ended| is_ended())
    })
}

fn run(args: &Export, stdout: &mut dyn Write, is_ended: &dyn Fn() -> bool) -> Result<(), CliError> {
    let from = args.service.directory_file()?;
    let pseudonyms = match &args.pseudonyms {
        Some(path) => Some(Pseudonyms::read(path)?),
        None => None,
    };
    let table = args.table();
    let columns = columns(table, pseudonyms.is_some());
    let rows = Rows::new(args.format(), columns, pseudonyms);
    let unwritable = |error: io::Error| args.unwritable(&error);
    if args.is_to_stdout() {
        let mut spool = tempfile::tempfile().map_err(unwritable)?;
        args.fill(&from, rows, &mut spool, is_ended)?;
        spool.rewind().map_err(unwritable)?;
        return copy(&mut spool, stdout).or_else(unwritten);
    }
    if args.file.symlink_metadata().is_ok() {
        return Err(args.exists());
    }
    let mut staged = Staged::beside(&args.file, &[], Mode::Private).map_err(unwritable)?;
    let written = args.fill(&from, rows, &mut staged, is_ended)?;
    staged
        .create_new(&args.file)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => args.exists(),
            _ => args.unwritable(&error),
        })?;
    let exported = Exported {
        file: args.file.clone(),
        table: table.as_str(),
        format: args.format(),
        pseudonyms: args.pseudonyms.is_some(),
        rows: written,
    };
    show(args.service.json, stdout, &exported, |out| {
        let Exported {
            file, rows, table, ..
        } = &exported;
        writeln!(out, "{}: {rows} rows of {table}", file.display())
    })
}

/// Returns the columns of an export. With pseudonyms those are left out that lead to the account by
/// themselves.
fn columns(table: ExportTable, with_pseudonyms: bool) -> Vec<ExportColumn> {
    let columns = table.columns().iter().copied();
    columns
        .filter(|column| !(with_pseudonyms && column.is_telling))
        .collect()
}

fn copy(from: &mut File, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer)?;
        let Some(read) = buffer.get(..n).filter(|read| !read.is_empty()) else {
            return to.flush();
        };
        to.write_all(read)?;
    }
}

impl Export {
    fn is_to_stdout(&self) -> bool {
        self.file == Path::new("-")
    }

    fn table(&self) -> ExportTable {
        match self.table {
            Table::Accounts => ExportTable::Accounts,
            Table::Changes => ExportTable::Changes,
        }
    }

    fn format(&self) -> Format {
        let is_csv = || self.file.extension().is_some_and(|end| end == "csv");
        self.format.unwrap_or_else(|| {
            if is_csv() {
                Format::Csv
            } else {
                Format::Ndjson
            }
        })
    }

    /// Writes all rows, and returns their number.
    fn fill(
        &self,
        from: &Path,
        rows: Rows,
        to: &mut dyn Write,
        is_ended: &dyn Fn() -> bool,
    ) -> Result<u64, CliError> {
        let table = self.table();
        let written = DirectoryFile::open(from)
            .map_err(ExportError::from)
            .and_then(|file| {
                // What the work ends in is told apart from what the transaction ends in.
                file.query(|q| Ok(write_rows(q, table, &rows, to, is_ended)))?
            });
        written.map_err(|error| match error {
            ExportError::Store(error) => CliError {
                exit: Exit::Failed,
                message: format!("cannot read {}: {error}", from.display()),
                hint: super::admin::SAME_USER.to_owned(),
            },
            ExportError::Write(error) => self.unwritable(&error),
            ExportError::Ended => CliError {
                exit: Exit::Failed,
                message: "ended before all rows were written, so none were".to_owned(),
                hint: "run it again".to_owned(),
            },
        })
    }

    fn exists(&self) -> CliError {
        CliError {
            exit: Exit::Failed,
            message: format!("{} exists", self.file.display()),
            hint: "name a new file, or move this one away".to_owned(),
        }
    }

    fn unwritable(&self, error: &io::Error) -> CliError {
        let (file, hint) = if self.is_to_stdout() {
            let hint = "the rows go to a temporary file first; TMPDIR names a directory with room";
            ("the temporary file".to_owned(), hint)
        } else {
            let hint = "name a file in a directory that can be written, with room for all rows";
            (self.file.display().to_string(), hint)
        };
        CliError {
            exit: Exit::Failed,
            message: format!("cannot write {file}: {error}"),
            hint: hint.to_owned(),
        }
    }
}

fn write_rows(
    q: &Queries<'_>,
    table: ExportTable,
    rows: &Rows,
    to: &mut dyn Write,
    is_ended: &dyn Fn() -> bool,
) -> Result<u64, ExportError> {
    let progress = progress(q.count_rows(table)?);
    let mut to = BufWriter::with_capacity(BUFFER, to);
    rows.write_head(&mut to)?;
    let mut written = 0_u64;
    let each = |cells: &[Cell<'_>]| -> Result<(), ExportError> {
        if is_ended() {
            return Err(ExportError::Ended);
        }
        rows.write(cells, &mut to)?;
        written += 1;
        if written.is_multiple_of(ROWS_PER_TICK) {
            progress.set_position(written);
        }
        Ok(())
    };
    let result = q.each_row(table, rows.columns(), rows.sort_key(), each);
    progress.finish_and_clear();
    result?;
    to.flush()?;
    Ok(written)
}

/// Returns a bar on standard error, where that is a terminal.
fn progress(rows: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(rows);
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} rows ({eta})");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests;
