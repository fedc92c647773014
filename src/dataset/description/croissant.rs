//! `croissant.json`: Croissant, version 1.1 (<https://docs.mlcommons.org/croissant/>).

use serde_json::{Value as Json, json};

use super::super::tables::{Kind, Table};
use super::Description;
use crate::dataset::output::DatasetFile;
use crate::dataset::table_files::Written;

impl Description<'_> {
    pub(super) fn croissant(&self) -> Json {
        let tables = self.tables.iter();
        let files = tables
            .clone()
            .flat_map(|(table, written)| files(table, written));
        let (since, until) = self.range;
        let mut croissant = json!({
            "@context": context(),
            "@type": "sc:Dataset",
            "conformsTo": "http://mlcommons.org/croissant/1.1",
            "name": "atproto-key-packages",
            "alternateName": self.title(),
            "description": self.summary(),
            "version": self.version(),
            "datePublished": self.released().to_string(),
            "temporalCoverage": format!("{since}/{until}"),
            "license": self.licence_url(),
            "creator": {"@type": "sc:Organization", "name": self.publisher()},
            "citeAs": format!("{}: {}, version {}", self.publisher(), self.title(), self.version()),
            "isLiveDataset": true,
            "distribution": files.collect::<Vec<_>>(),
            "recordSet": tables.map(|(table, _)| record_set(table)).collect::<Vec<_>>(),
        });
        if let (Some(url), Some(croissant)) = (self.url(), croissant.as_object_mut()) {
            croissant.insert("url".to_owned(), Json::from(url));
        }
        croissant
    }
}

fn files(table: &Table, written: &Written) -> [Json; 2] {
    let object = |file: &DatasetFile, format: &str| {
        json!({
            "@type": "cr:FileObject",
            "@id": file.name,
            "name": file.name,
            "description": table.title,
            "contentUrl": file.name,
            "contentSize": format!("{} B", file.bytes),
            "encodingFormat": format,
            "sha256": file.sha256,
        })
    };
    [
        object(&written.csv, "text/csv"),
        object(&written.parquet, "application/x-parquet"),
    ]
}

fn record_set(table: &Table) -> Json {
    let id = |column: &str| format!("{}/{column}", table.name);
    let fields = table.columns.iter().map(|column| {
        json!({
            "@type": "cr:Field",
            "@id": id(column.name),
            "name": column.name,
            "description": column.about,
            "dataType": match column.kind {
                Kind::Day => "sc:Date",
                Kind::Time => "sc:DateTime",
                Kind::Text => "sc:Text",
                Kind::Flag => "sc:Boolean",
                Kind::Number => "sc:Integer",
            },
            "source": {
                "fileObject": {"@id": format!("{}.csv", table.name)},
                "extract": {"column": column.name},
            },
        })
    });
    let key = table.key.iter().map(|column| json!({"@id": id(column)}));
    json!({
        "@type": "cr:RecordSet",
        "@id": table.name,
        "name": table.name,
        "description": format!("{}. {}", table.title, table.about),
        "key": key.collect::<Vec<_>>(),
        "field": fields.collect::<Vec<_>>(),
    })
}

/// The names that the specification gives its terms.
fn context() -> Json {
    json!({
        "@language": "en",
        "@vocab": "https://schema.org/",
        "citeAs": "cr:citeAs",
        "column": "cr:column",
        "conformsTo": "dct:conformsTo",
        "cr": "http://mlcommons.org/croissant/",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "dct": "http://purl.org/dc/terms/",
        "equivalentProperty": "cr:equivalentProperty",
        "examples": {"@id": "cr:examples", "@type": "@json"},
        "extract": "cr:extract",
        "field": "cr:field",
        "fileObject": "cr:fileObject",
        "fileProperty": "cr:fileProperty",
        "fileSet": "cr:fileSet",
        "format": "cr:format",
        "includes": "cr:includes",
        "isLiveDataset": "cr:isLiveDataset",
        "jsonPath": "cr:jsonPath",
        "key": "cr:key",
        "md5": "cr:md5",
        "parentField": "cr:parentField",
        "path": "cr:path",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "recordSet": "cr:recordSet",
        "references": "cr:references",
        "regex": "cr:regex",
        "repeated": "cr:repeated",
        "replace": "cr:replace",
        "samplingRate": "cr:samplingRate",
        "sc": "https://schema.org/",
        "separator": "cr:separator",
        "source": "cr:source",
        "subField": "cr:subField",
        "transform": "cr:transform",
    })
}
