//! A table as Parquet, written in groups of rows of a bounded size.

use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use super::error::DatasetError;
use super::output::{DatasetFile, Output};
use super::tables::{Column, Kind, Table, Value};
use crate::store::directory::Day;
use atcomm_proto::clock::Timestamp;

/// Rows that are held in memory and written at once: some megabytes.
const GROUP_ROWS: usize = if cfg!(test) { 64 } else { 50_000 };

/// A Parquet file that is being written.
pub(super) struct ParquetFile {
    file: SerializedFileWriter<Output>,
    columns: Vec<Values>,
    rows: usize,
}

/// The values of a column that are not written yet. Of those that may be missing, `present` says for
/// each row whether it has one.
enum Values {
    Days(Vec<i32>),
    Texts(Vec<ByteArray>),
    Flags(Vec<bool>),
    Numbers {
        values: Vec<i64>,
        present: Option<Vec<i16>>,
    },
}

impl ParquetFile {
    /// Begins the file of a table.
    pub(super) fn new(output: Output, table: &Table) -> Result<Self, DatasetError> {
        let schema = parse_message_type(&schema(table))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .build();
        Ok(Self {
            file: SerializedFileWriter::new(output, Arc::new(schema), Arc::new(properties))?,
            columns: table.columns.iter().map(Values::of).collect(),
            rows: 0,
        })
    }

    /// Adds a row.
    pub(super) fn row(&mut self, row: &[Value<'_>]) -> Result<(), DatasetError> {
        for (column, value) in self.columns.iter_mut().zip(row) {
            column.push(value)?;
        }
        self.rows += 1;
        if self.rows >= GROUP_ROWS {
            self.write_rows()?;
        }
        Ok(())
    }

    fn write_rows(&mut self) -> Result<(), DatasetError> {
        let mut group = self.file.next_row_group()?;
        for values in &mut self.columns {
            let writer = group.next_column()?;
            let mut writer =
                writer.ok_or_else(|| ParquetError::General("a column is missing".to_owned()))?;
            values.write(&mut writer)?;
            writer.close()?;
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }

    /// Ends the file.
    pub(super) fn finish(mut self) -> Result<DatasetFile, DatasetError> {
        if self.rows > 0 {
            self.write_rows()?;
        }
        Ok(self.file.into_inner()?.finish()?)
    }
}

impl Values {
    fn of(column: &Column) -> Self {
        match column.kind {
            Kind::Day => Self::Days(Vec::new()),
            Kind::Text => Self::Texts(Vec::new()),
            Kind::Flag => Self::Flags(Vec::new()),
            Kind::Time | Kind::Number => Self::Numbers {
                values: Vec::new(),
                present: (!column.required).then(Vec::new),
            },
        }
    }

    fn push(&mut self, value: &Value<'_>) -> Result<(), ParquetError> {
        match (self, value) {
            (Self::Days(days), Value::Day(day)) => days.push(day.since(Day::of(EPOCH))),
            (Self::Texts(texts), Value::Text(text)) => texts.push(ByteArray::from(*text)),
            (Self::Flags(flags), Value::Flag(flag)) => flags.push(*flag),
            (Self::Numbers { values, present }, Value::Number(_) | Value::Time(_)) => {
                let number = match value {
                    Value::Number(number) => number.and_then(|n| i64::try_from(n).ok()),
                    // Exact to a second, as in CSV.
                    Value::Time(time) => time.map(|time| time.millis().div_euclid(1000) * 1000),
                    _ => None,
                };
                values.extend(number);
                match (present, number) {
                    (Some(present), _) => present.push(i16::from(number.is_some())),
                    (None, Some(_)) => {}
                    (None, None) => {
                        return Err(ParquetError::General("a value is missing".to_owned()));
                    }
                }
            }
            _ => {
                return Err(ParquetError::General(
                    "a value is of another kind".to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Writes the values and forgets them.
    fn write(&mut self, to: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        match self {
            Self::Days(days) => {
                to.typed::<Int32Type>().write_batch(days, None, None)?;
                days.clear();
            }
            Self::Texts(texts) => {
                to.typed::<ByteArrayType>().write_batch(texts, None, None)?;
                texts.clear();
            }
            Self::Flags(flags) => {
                to.typed::<BoolType>().write_batch(flags, None, None)?;
                flags.clear();
            }
            Self::Numbers { values, present } => {
                let levels = present.as_deref();
                to.typed::<Int64Type>().write_batch(values, levels, None)?;
                values.clear();
                if let Some(present) = present {
                    present.clear();
                }
            }
        }
        Ok(())
    }
}

const EPOCH: Timestamp = Timestamp::from_millis(0);

/// Returns the schema of a table in Parquet's own notation.
fn schema(table: &Table) -> String {
    let mut text = format!("message {} {{", table.name);
    for column in table.columns {
        let (physical, logical) = match column.kind {
            Kind::Day => ("INT32", " (DATE)"),
            Kind::Time => ("INT64", " (TIMESTAMP(MILLIS,true))"),
            Kind::Text => ("BYTE_ARRAY", " (STRING)"),
            Kind::Flag => ("BOOLEAN", ""),
            Kind::Number => ("INT64", ""),
        };
        let repetition = if column.required {
            "REQUIRED"
        } else {
            "OPTIONAL"
        };
        text += &format!(" {repetition} {physical} {}{logical};", column.name);
    }
    text + " }"
}
