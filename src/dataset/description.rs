//! The files that describe a dataset: for people, for programs, and for those who cite it.

mod croissant;
mod package;
mod readme;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::DatasetRequest;
use super::error::DatasetError;
use super::rows::PublicSource;
use super::table_files::Written;
use super::tables::Table;
use crate::store::directory::{Day, DayRow};
use atcomm_proto::clock::Timestamp;

/// The publisher where none is named.
const PROGRAM: &str = "atcomm";

/// What a dataset holds.
pub(super) struct Description<'d> {
    pub(super) range: (Day, Day),
    pub(super) request: &'d DatasetRequest,
    /// The smallest number of accounts that is shown.
    pub(super) smallest: u64,
    pub(super) tables: [(&'static Table, &'d Written); 3],
    pub(super) facts: &'d Facts,
}

/// How sure the days of a dataset are, and what they stand on.
#[derive(Debug, Default)]
pub(super) struct Facts {
    days: u64,
    complete: u64,
    missed: u64,
    gap: u64,
    not_covered: u64,
    begun: Option<Day>,
    sources: BTreeMap<String, SourceFacts>,
}

#[derive(Debug, Default)]
struct SourceFacts {
    days: u64,
    gaps: i64,
    gap_ms: i64,
    covered_until: Option<Timestamp>,
    position: Option<i64>,
}

impl Facts {
    /// Counts days.
    pub(super) fn of(days: &[DayRow]) -> Self {
        let mut facts = Self::default();
        for day in days {
            facts.days += 1;
            facts.complete += u64::from(day.complete);
            facts.missed += u64::from(day.missed);
            facts.gap += u64::from(day.gap);
            facts.not_covered += u64::from(!day.covered);
            facts.begun = facts.begun.or(day.begun.then_some(day.day));
        }
        facts
    }

    /// Adds a source on a day. `last` is the last day of the dataset.
    pub(super) fn add(&mut self, source: &PublicSource<'_>, last: Day) {
        let facts = self.sources.entry(source.name.to_owned()).or_default();
        facts.days += 1;
        facts.gaps = facts.gaps.saturating_add(source.row.gaps);
        facts.gap_ms = facts.gap_ms.saturating_add(source.row.gap_ms);
        if source.day == last {
            facts.covered_until = source.row.covered_until;
            facts.position = source.row.position;
        }
    }
}

impl Description<'_> {
    /// Returns the files by their names.
    pub(super) fn files(&self) -> Result<[(&'static str, String); 5], DatasetError> {
        Ok([
            ("CITATION.cff", self.citation()),
            ("README.md", self.readme()),
            ("croissant.json", pretty(&self.croissant())?),
            ("datapackage.json", pretty(&self.package())?),
            ("provenance.json", pretty(&self.provenance())?),
        ])
    }

    fn publisher(&self) -> &str {
        let named = self.request.settings.publisher.as_deref();
        let origin = self.request.origin.as_deref();
        let host = origin.and_then(|origin| origin.split_once("://"));
        named.or(host.map(|(_, host)| host)).unwrap_or(PROGRAM)
    }

    fn title(&self) -> String {
        let (since, until) = self.range;
        let publisher = self.publisher();
        format!("Accounts with a key for encrypted messages, {since} to {until} ({publisher})")
    }

    fn summary(&self) -> String {
        let threshold = self.request.settings.threshold;
        let rounding = if threshold == 1 {
            String::new()
        } else {
            format!(
                " Numbers are rounded to multiples of {threshold}, and those of accounts that come to \
                 less than {} are not shown.",
                self.smallest
            )
        };
        format!(
            "How many atproto accounts publish a key package (the record at.didcomm.keyPackage), \
             where they are, which mediators they name, and how that changes: a row for each day, \
             with how sure it is. Every record was verified.{rounding}"
        )
    }

    /// Returns the last day as a version of three numbers, as programs expect one.
    fn version(&self) -> String {
        let day = self.range.1.to_string();
        let parts = day.split('-').map(|part| part.trim_start_matches('0'));
        parts.collect::<Vec<_>>().join(".")
    }

    /// Returns the first moment after the last day: nothing in a dataset tells when it was made.
    fn released(&self) -> Timestamp {
        self.range.1.end()
    }

    /// Returns the place of the files, if that is known.
    fn url(&self) -> Option<String> {
        let origin = self.request.origin.as_deref()?;
        Some(format!("{origin}/dataset/{}/", self.range.1))
    }

    fn licence_url(&self) -> String {
        format!(
            "https://spdx.org/licenses/{}.html",
            self.request.settings.license
        )
    }

    fn citation(&self) -> String {
        // A text in double quotes is the same in JSON and in YAML.
        let text = |text: &str| Json::from(text).to_string();
        let mut lines = vec![
            "cff-version: 1.2.0".to_owned(),
            format!("message: {}", text("Please cite this dataset as below.")),
            "type: dataset".to_owned(),
            format!("title: {}", text(&self.title())),
            "authors:".to_owned(),
            format!("  - name: {}", text(self.publisher())),
            format!("version: {}", text(&self.version())),
            format!(
                "date-released: {}",
                text(&Day::of(self.released()).to_string())
            ),
            format!("license: {}", text(&self.request.settings.license)),
            format!("abstract: {}", text(&self.summary())),
        ];
        if let Some(url) = self.url() {
            lines.push(format!("url: {}", text(&url)));
        }
        lines.join("\n") + "\n"
    }

    fn provenance(&self) -> Json {
        let (since, until) = self.range;
        let facts = self.facts;
        let day = |day: Option<Day>| day.map(|day| day.to_string());
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let sources = facts.sources.iter().map(|(name, source)| {
            json!({
                "source": name,
                "days": source.days,
                "gaps": source.gaps,
                "gapMillis": source.gap_ms,
                "coveredUntil": time(source.covered_until),
                "cursor": source.position,
            })
        });
        let rows = self.tables.iter();
        let rows = rows.map(|(table, written)| (table.name.to_owned(), json!(written.rows)));
        json!({
            "program": PROGRAM,
            "version": env!("CARGO_PKG_VERSION"),
            "since": since.to_string(),
            "until": until.to_string(),
            "begun": day(facts.begun),
            "days": {
                "all": facts.days,
                "complete": facts.complete,
                "missed": facts.missed,
                "withGapAtTheirEnd": facts.gap,
                "notCovered": facts.not_covered,
            },
            "rows": rows.collect::<Map<_, _>>(),
            "disclosureControl": {
                "threshold": self.request.settings.threshold,
                "roundedTo": self.request.settings.threshold,
                "smallestShown": self.smallest,
            },
            "sources": sources.collect::<Vec<_>>(),
        })
    }
}

fn pretty(json: &Json) -> Result<String, DatasetError> {
    Ok(serde_json::to_string_pretty(json)? + "\n")
}
