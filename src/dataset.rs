//! Datasets: the closed days of the time series as files that anybody may have (`docs/research.md`).
//!
//! A dataset is a folder with three tables, each as CSV and as Parquet, and with what describes
//! them. It is a function of the closed days, of the settings and of the version of the program: made
//! twice it is the same, byte by byte. No DID, handle or did:peer is in it, and of small groups of
//! accounts nothing ([`write()`]).

mod description;
mod editions;
mod error;
mod output;
mod parquet_file;
mod rounding;
mod rows;
mod settings;
mod table_files;
mod tables;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::DirectoryFile;
use crate::store::directory::{Day, DayRow, GroupKind, MAX_DAYS, Queries, SourceDay};
use atcomm_net::durable;

pub use editions::{Edition, Editions};
pub use error::DatasetError;
pub use output::DatasetFile;
pub use settings::DatasetSettings;

use description::{Description, Facts};
use output::write_file;
use rounding::Rounding;
use rows::SourcesOfDay;
use table_files::{TableFiles, Written};
use tables::{DAILY, GROUPS, SOURCES, Value};

/// Rows that are read at once.
const PAGE: usize = 2000;

/// The file with the hashes of all others.
pub const HASHES: &str = "SHA256SUMS";

/// What a dataset is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetRequest {
    /// The first day. `None`: as many days as the settings say.
    pub since: Option<Day>,
    /// The last day. `None`: the last one that is closed.
    pub until: Option<Day>,
    /// The settings.
    pub settings: DatasetSettings,
    /// The origin at which the directory is reached, if that is known.
    pub origin: Option<String>,
}

/// A dataset that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The first day.
    pub since: Day,
    /// The last day, after which the dataset is named.
    pub until: Day,
    /// Rows of all tables.
    pub rows: u64,
    /// The files, in the order of their names.
    pub files: Vec<DatasetFile>,
}

/// Returns the days of which a dataset would be made.
pub fn days(file: &DirectoryFile, request: &DatasetRequest) -> Result<(Day, Day), DatasetError> {
    let closed = file.query(|q| q.closed_days())?;
    let (first, last) = closed.ok_or(DatasetError::NoClosedDay)?;
    let until = request.until.map_or(last, |until| until.min(last));
    let most = i32::try_from(request.settings.days).unwrap_or(i32::MAX);
    let since = request.since.unwrap_or_else(|| until.plus(1 - most));
    let since = since.max(first).max(until.plus(1 - MAX_DAYS));
    if since > until {
        return Err(DatasetError::NoSuchDays { first, last });
    }
    Ok((since, until))
}

/// Writes the dataset of the directory's file at `from` into the new folder `to`, while a service may
/// be writing the file. `go_on` is called between pages of rows and ends the work with `false`.
///
/// Fails where `to` exists; what fails leaves nothing there. The files are on disk when this returns.
/// Memory is bounded by a group of rows of one table, some megabytes.
pub fn write(
    from: &Path,
    to: &Path,
    request: &DatasetRequest,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Dataset, DatasetError> {
    if to.try_exists()? {
        return Err(DatasetError::Exists);
    }
    let file = DirectoryFile::open(from)?;
    let part = Part::create(to)?;
    let maker = Maker {
        range: days(&file, request)?,
        rounding: Rounding::new(file.query(|q| q.dataset_key())?, request.settings.threshold),
        file,
        folder: &part.0,
    };
    let dataset = maker.make(request, go_on)?;
    durable::rename(&part.0, to)?;
    Ok(dataset)
}

/// The unfinished folder, deleted when it is dropped.
struct Part(PathBuf);

impl Part {
    /// Creates it beside the place of the dataset, so that it can be moved there.
    fn create(to: &Path) -> io::Result<Self> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let path = to.with_file_name(name);
        // The remains of an attempt that was interrupted.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Where it was moved there is nothing.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One dataset in the making.
struct Maker<'m> {
    file: DirectoryFile,
    range: (Day, Day),
    rounding: Rounding,
    folder: &'m Path,
}

impl Maker<'_> {
    fn make(
        &self,
        request: &DatasetRequest,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Dataset, DatasetError> {
        let (since, until) = self.range;
        let days = self.file.query(|q| q.days(since, until))?;
        let (daily, groups) = (self.daily(&days)?, self.groups(go_on)?);
        let (sources, facts) = self.sources(Facts::of(&days), go_on)?;
        let description = Description {
            range: self.range,
            request,
            smallest: self.rounding.smallest(),
            tables: [(&DAILY, &daily), (&GROUPS, &groups), (&SOURCES, &sources)],
            facts: &facts,
        };
        let texts = description.files()?;
        let rows = daily.rows + groups.rows + sources.rows;
        let mut files = Vec::new();
        for written in [daily, groups, sources] {
            files.extend([written.csv, written.parquet]);
        }
        for (name, text) in texts {
            files.push(write_file(self.folder, name, &text)?);
        }
        files.sort_by(|one, other| one.name.cmp(&other.name));
        let lines = files
            .iter()
            .map(|file| format!("{}  {}\n", file.sha256, file.name));
        let sums: String = lines.collect();
        files.push(write_file(self.folder, HASHES, &sums)?);
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Dataset {
            since,
            until,
            rows,
            files,
        })
    }

    fn daily(&self, days: &[DayRow]) -> Result<Written, DatasetError> {
        let mut files = TableFiles::create(self.folder, &DAILY)?;
        for day in days {
            files.row(&rows::day(&self.rounding, day))?;
        }
        files.finish()
    }

    fn groups(&self, go_on: &mut dyn FnMut() -> bool) -> Result<Written, DatasetError> {
        let mut files = TableFiles::create(self.folder, &GROUPS)?;
        for kind in GroupKind::ALL {
            let mut after = None;
            loop {
                stop_unless(go_on)?;
                let read = |q: &Queries<'_>| q.group_rows(*kind, self.range, after.as_ref(), PAGE);
                let page = self.file.query(read)?;
                for row in &page {
                    let shown = rows::group(&self.rounding, *kind, row);
                    let name = rows::public_name(*kind, &row.name);
                    let (Some([accounts, came, went]), Some(name)) = (shown, name) else {
                        continue;
                    };
                    files.row(&[
                        Value::Text(kind.as_str()),
                        Value::Text(&name),
                        Value::Day(row.day),
                        Value::Number(Some(accounts)),
                        Value::Number(Some(came)),
                        Value::Number(Some(went)),
                    ])?;
                }
                after = page.into_iter().last();
                if after.is_none() {
                    break;
                }
            }
        }
        files.finish()
    }

    fn sources(
        &self,
        mut facts: Facts,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(Written, Facts), DatasetError> {
        let mut files = TableFiles::create(self.folder, &SOURCES)?;
        let mut after: Option<SourceDay> = None;
        // The rows of a day, of which the last page may have had only some.
        let mut pending: Vec<SourceDay> = Vec::new();
        let mut write_day = |rows: &[SourceDay]| {
            for source in SourcesOfDay::new(rows).public() {
                files.row(&source.values(&self.rounding))?;
                facts.add(&source, self.range.1);
            }
            Ok::<(), DatasetError>(())
        };
        loop {
            stop_unless(go_on)?;
            let read = |q: &Queries<'_>| q.source_rows(self.range, after.as_ref(), PAGE);
            let page = self.file.query(read)?;
            let Some(last) = page.last().cloned() else {
                break;
            };
            for row in page {
                if pending.last().is_some_and(|before| before.day != row.day) {
                    write_day(&pending)?;
                    pending.clear();
                }
                pending.push(row);
            }
            after = Some(last);
        }
        write_day(&pending)?;
        Ok((files.finish()?, facts))
    }
}

fn stop_unless(go_on: &mut dyn FnMut() -> bool) -> Result<(), DatasetError> {
    if go_on() {
        Ok(())
    } else {
        Err(DatasetError::Stopped)
    }
}
