//! The files of a dataset: written in order, measured and hashed on the way.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::error::DatasetError;
use super::parquet_file::ParquetFile;
use super::tables::{Table, Value};

/// A file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetFile {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// A file that is measured and hashed as it is written.
pub(super) struct Output {
    name: String,
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Output {
    /// Creates a file in a folder.
    pub(super) fn create(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Self {
            name: name.to_owned(),
            file: BufWriter::new(file),
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// Ends the file. It is on disk when this returns.
    pub(super) fn finish(self) -> io::Result<DatasetFile> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(DatasetFile {
            name: self.name,
            bytes: self.bytes,
            sha256: HEXLOWER.encode(&self.hash.finalize()),
        })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        if let Some(written) = bytes.get(..written) {
            self.hash.update(written);
            self.bytes += u64::try_from(written.len()).unwrap_or(u64::MAX);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a whole file.
pub(super) fn write_file(folder: &Path, name: &str, text: &str) -> io::Result<DatasetFile> {
    let mut output = Output::create(folder, name)?;
    output.write_all(text.as_bytes())?;
    output.finish()
}

/// A table, written as CSV and as Parquet at once.
pub(super) struct TableFiles {
    csv: csv::Writer<Output>,
    parquet: ParquetFile,
    rows: u64,
    text: String,
}

/// A table that was written.
pub(super) struct Written {
    /// Its CSV file.
    pub(super) csv: DatasetFile,
    /// Its Parquet file.
    pub(super) parquet: DatasetFile,
    /// Its rows.
    pub(super) rows: u64,
}

impl TableFiles {
    /// Creates the files of a table in a folder.
    pub(super) fn create(folder: &Path, table: &'static Table) -> Result<Self, DatasetError> {
        let csv = Output::create(folder, &format!("{}.csv", table.name))?;
        let mut csv = csv::Writer::from_writer(csv);
        csv.write_record(table.columns.iter().map(|column| column.name))
            .map_err(io::Error::from)?;
        let parquet = Output::create(folder, &format!("{}.parquet", table.name))?;
        Ok(Self {
            csv,
            parquet: ParquetFile::new(parquet, table)?,
            rows: 0,
            text: String::new(),
        })
    }

    /// Writes a row, whose values are in the order of the columns.
    pub(super) fn row(&mut self, row: &[Value<'_>]) -> Result<(), DatasetError> {
        for value in row {
            self.text.clear();
            write_text(value, &mut self.text);
            self.csv.write_field(&self.text).map_err(io::Error::from)?;
        }
        self.csv
            .write_record(None::<&[u8]>)
            .map_err(io::Error::from)?;
        self.parquet.row(row)?;
        self.rows += 1;
        Ok(())
    }

    /// Ends both files.
    pub(super) fn finish(self) -> Result<Written, DatasetError> {
        let csv = self.csv.into_inner();
        let csv = csv.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Written {
            csv: csv.finish()?,
            parquet: self.parquet.finish()?,
            rows: self.rows,
        })
    }
}

/// Writes a value as it stands in CSV; one that is missing is empty.
fn write_text(value: &Value<'_>, to: &mut String) {
    use std::fmt::Write as _;
    // A text takes every write.
    let _ = match value {
        Value::Day(day) => write!(to, "{day}"),
        Value::Time(Some(time)) => {
            let time = time.to_string();
            write!(to, "{}Z", time.get(..19).unwrap_or_default())
        }
        Value::Text(text) => write!(to, "{text}"),
        Value::Flag(flag) => write!(to, "{flag}"),
        Value::Number(Some(number)) => write!(to, "{number}"),
        Value::Time(None) | Value::Number(None) => Ok(()),
    };
}
