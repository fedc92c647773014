//! A table, written as CSV and as Parquet at once.

use std::io;
use std::path::Path;

use super::error::DatasetError;
use super::output::{DatasetFile, Output};
use super::parquet_file::ParquetFile;
use super::tables::{Table, Value};

/// The files of a table that is being written.
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
