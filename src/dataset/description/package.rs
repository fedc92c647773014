//! `datapackage.json`: Data Package, version 2 (<https://datapackage.org/standard/data-package/>).

use serde_json::{Value as Json, json};

use super::super::tables::{Column, Kind, Table};
use super::Description;
use crate::dataset::table_files::Written;

impl Description<'_> {
    pub(super) fn package(&self) -> Json {
        let settings = &self.request.settings;
        let tables = self.tables.iter();
        let resources = tables.map(|(table, written)| resource(table, written));
        let mut package = json!({
            "$schema": "https://datapackage.org/profiles/2.0/datapackage.json",
            "name": "atproto-key-packages",
            "title": self.title(),
            "description": self.summary(),
            "version": self.version(),
            "created": self.released().to_string(),
            "licenses": [{"name": settings.license, "path": self.licence_url()}],
            "contributors": [{"title": self.publisher(), "roles": ["publisher"]}],
            "resources": resources.collect::<Vec<_>>(),
        });
        if let (Some(url), Some(package)) = (self.url(), package.as_object_mut()) {
            package.insert("homepage".to_owned(), Json::from(url));
        }
        package
    }
}

/// Describes the CSV file of a table. That of Parquet is left out: programs for data packages take
/// every file of theirs for a table, and few of them can read it.
fn resource(table: &Table, written: &Written) -> Json {
    let file = &written.csv;
    json!({
        "name": table.name,
        "path": file.name,
        "type": "table",
        "title": table.title,
        "description": table.about,
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "bytes": file.bytes,
        "hash": format!("sha256:{}", file.sha256),
        "schema": schema(table),
    })
}

fn schema(table: &Table) -> Json {
    json!({
        "$schema": "https://datapackage.org/profiles/2.0/tableschema.json",
        "fields": table.columns.iter().map(field).collect::<Vec<_>>(),
        "missingValues": [""],
        "primaryKey": table.key,
    })
}

fn field(column: &Column) -> Json {
    let mut field = json!({
        "name": column.name,
        "type": match column.kind {
            Kind::Day => "date",
            Kind::Time => "datetime",
            Kind::Text => "string",
            Kind::Flag => "boolean",
            Kind::Number => "integer",
        },
        "description": column.about,
    });
    let mut constraints = json!({"required": column.required});
    if let (Kind::Number, Some(of)) = (column.kind, constraints.as_object_mut()) {
        of.insert("minimum".to_owned(), Json::from(0));
    }
    if let Some(field) = field.as_object_mut() {
        field.insert("constraints".to_owned(), constraints);
    }
    field
}
