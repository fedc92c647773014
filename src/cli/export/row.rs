//! A row as JSON or as comma-separated values.

use std::io::{self, Write};

use csv::{Writer, WriterBuilder};
use serde_json::{Map, Value};

use super::super::terminal::{json, line};
use super::Format;
use super::pseudonym::{Domain, Pseudonyms};
use crate::store::directory::{Cell, ColumnKind, Day, ExportColumn, SortKey};
use atcomm_proto::clock::Timestamp;

/// The first characters by which a spreadsheet takes a cell for a formula, in their full width too.
const FORMULA: [char; 8] = [
    '=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
];

/// How rows are written.
pub(super) struct Rows {
    format: Format,
    columns: Vec<ExportColumn>,
    pseudonyms: Option<Pseudonyms>,
}

impl Rows {
    pub(super) fn new(
        format: Format,
        columns: Vec<ExportColumn>,
        pseudonyms: Option<Pseudonyms>,
    ) -> Self {
        Self {
            format,
            columns,
            pseudonyms,
        }
    }

    pub(super) fn columns(&self) -> &[ExportColumn] {
        &self.columns
    }

    /// Returns the key that the rows are sorted by. In the order of DIDs, or of changes, a row would
    /// be found by its place in the lists that the directory serves; in that of pseudonyms it is not.
    pub(super) fn sort_key(&self) -> Option<SortKey> {
        let pseudonyms = self.pseudonyms.clone()?;
        Some(Box::new(move |did| pseudonyms.of(Domain::Did, did)))
    }

    /// Writes the line of names, where the format has one.
    pub(super) fn write_head(&self, to: &mut dyn Write) -> io::Result<()> {
        match self.format {
            Format::Ndjson => Ok(()),
            Format::Csv => write_record(self.columns.iter().map(|column| column.name.into()), to),
        }
    }

    /// Writes a row, whose cells are in the order of the columns.
    pub(super) fn write(&self, cells: &[Cell<'_>], to: &mut dyn Write) -> io::Result<()> {
        let values = self.columns.iter().zip(cells);
        let values = values.map(|(column, cell)| (column.name, self.value(column, *cell)));
        match self.format {
            Format::Ndjson => {
                let row: Map<String, Value> = values
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect();
                let text = Value::from(row).to_string();
                // Nearly all rows are, and the transaction lasts as long as they take.
                if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                    writeln!(to, "{text}")
                } else {
                    writeln!(to, "{}", json(&text))
                }
            }
            Format::Csv => write_record(values.map(|(_, value)| cell_of(&value)), to),
        }
    }

    /// Returns the value of a cell.
    fn value(&self, column: &ExportColumn, cell: Cell<'_>) -> Value {
        match (column.kind, cell) {
            (_, Cell::Empty) => Value::Null,
            (ColumnKind::Flag, Cell::Number(flag)) => (flag != 0).into(),
            (ColumnKind::Time, Cell::Number(millis)) => self.time(millis).into(),
            (_, Cell::Number(number)) => number.into(),
            (ColumnKind::Did, Cell::Text(did)) => self.name(Domain::Did, did).into(),
            (ColumnKind::Handle, Cell::Text(handle)) => self.name(Domain::Handle, handle).into(),
            (ColumnKind::Peer, Cell::Text(peer)) => self.name(Domain::Peer, peer).into(),
            // The store writes these lists, so they are read.
            (ColumnKind::List, Cell::Text(list)) => {
                serde_json::from_str(list).unwrap_or_else(|_| list.into())
            }
            (_, Cell::Text(text)) => text.into(),
        }
    }

    fn name(&self, domain: Domain, name: &str) -> String {
        match &self.pseudonyms {
            Some(pseudonyms) => pseudonyms.of(domain, name),
            None => name.to_owned(),
        }
    }

    /// Returns a time. With pseudonyms it is a day: the directory serves the times of changes with
    /// the accounts' names.
    fn time(&self, millis: i64) -> String {
        let at = Timestamp::from_millis(millis);
        if self.pseudonyms.is_some() {
            Day::of(at).to_string()
        } else {
            at.to_string()
        }
    }
}

/// Returns a value as the text of a cell that no spreadsheet runs and no terminal obeys.
fn cell_of(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => line(text),
        // DIDs have no spaces.
        Value::Array(list) => {
            let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            line(&texts.join(" "))
        }
        other => other.to_string(),
    };
    if text.starts_with(FORMULA) && !value.is_number() {
        format!("'{text}")
    } else {
        text
    }
}

fn write_record(cells: impl Iterator<Item = String>, to: &mut dyn Write) -> io::Result<()> {
    let mut record: Writer<&mut dyn Write> = WriterBuilder::new().from_writer(to);
    for cell in cells {
        record.write_field(cell)?;
    }
    record.write_record(None::<&[u8]>)?;
    record.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::directory::ExportTable;

    fn written(format: Format, table: ExportTable, row: &[(&str, Cell<'_>)]) -> String {
        let rows = Rows::new(format, table.columns().to_vec(), None);
        let cells: Vec<Cell<'_>> = (rows.columns().iter())
            .map(|column| {
                let named = row.iter().find(|(name, _)| *name == column.name);
                named.map_or(Cell::Empty, |(_, cell)| *cell)
            })
            .collect();
        let mut text = Vec::new();
        rows.write_head(&mut text).unwrap();
        rows.write(&cells, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    const ROW: [(&str, Cell<'_>); 6] = [
        ("seq", Cell::Number(7)),
        ("did", Cell::Text("did:plc:abc")),
        ("seenAt", Cell::Number(1_893_456_000_000)),
        (
            "mediators",
            Cell::Text(r#"["did:web:a.example.com","did:web:b.example.com"]"#),
        ),
        ("status", Cell::Text("=HYPERLINK(\"x\",\u{1b}\n\u{202e})")),
        ("regressed", Cell::Number(1)),
    ];

    #[test]
    fn a_row_is_a_line_of_json() {
        let text = written(Format::Ndjson, ExportTable::Changes, &ROW);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        let row: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(row["seq"], 7);
        assert_eq!(row["seenAt"], "2030-01-01T00:00:00.000Z");
        assert_eq!(row["mediators"][1], "did:web:b.example.com");
        assert_eq!(row["status"], "=HYPERLINK(\"x\",\u{1b}\n\u{202e})");
        assert_eq!(row["regressed"], true);
        assert_eq!(row["handle"], Value::Null);
        let names: Vec<&String> = row.as_object().unwrap().keys().collect();
        let columns = ExportTable::Changes.columns().iter();
        assert!(columns.map(|column| column.name).eq(names), "{text}");
    }

    #[test]
    fn a_cell_is_no_formula_and_steers_nothing() {
        let text = written(Format::Csv, ExportTable::Changes, &ROW);
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("seq,did,kind,seenAt,"));
        assert_eq!(
            lines.next().unwrap(),
            "7,did:plc:abc,,2030-01-01T00:00:00.000Z,,,,did:web:a.example.com did:web:b.example.com,,,\
             \"'=HYPERLINK(\"\"x\"\",\\u{1b}\\u{a}\\u{202e})\",,,,,true"
        );
        assert_eq!(lines.next(), None);
        for (text, cell) in [
            ("@x", "'@x"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("\u{ff1d}1", "'\u{ff1d}1"),
            ("\t=1", "\\u{9}=1"),
            ("a=1", "a=1"),
        ] {
            assert_eq!(cell_of(&text.into()), cell);
        }
        assert_eq!(cell_of(&(-1).into()), "-1");
    }
}
