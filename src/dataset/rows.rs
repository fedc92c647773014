//! The rows of the tables, made of those of the time series. What is not for the public is left out
//! here.

use std::borrow::Cow;

use super::rounding::{Cell, Rounding};
use super::tables::{DAILY, Value};
use crate::store::SourceKind;
use crate::store::directory::{Day, DayRow, GroupKind, GroupRow, SourceDay};
use atcomm_proto::syntax::{MediatorDid, WebDid};

/// The row of all PDSes.
const ALL_PDSES: &str = "pds";

/// Returns the row of a day. What happened on it is shown where the enrolled accounts are.
pub(super) fn day(rounding: &Rounding, row: &DayRow) -> Vec<Value<'static>> {
    let cell = |column| Cell {
        of: DAILY.name,
        name: "",
        column,
    };
    let accounts = |column, count| Value::Number(rounding.accounts(cell(column), count));
    let hosts = |column, count: Option<i64>| {
        Value::Number(count.and_then(|count| rounding.accounts(cell(column), count)))
    };
    let [enrolled, inactive, invalid] = row.stock;
    let is_shown = rounding.accounts(cell("enrolled"), enrolled).is_some();
    let happened = |column, count| {
        let shown = || rounding.happened(cell(column), row.day, count);
        Value::Number(is_shown.then(shown).flatten())
    };
    let mut values = vec![
        Value::Day(row.day),
        accounts("enrolled", enrolled),
        accounts("inactive", inactive),
        accounts("invalid", invalid),
        happened("new", row.new),
        happened("returned", row.returned),
        happened("found", row.found),
        happened("departed", row.departed),
        happened("vouched", row.vouched),
        happened("unvouched", row.unvouched),
    ];
    let delays = [
        "within_1s",
        "within_10s",
        "within_1m",
        "within_10m",
        "within_1h",
        "within_1d",
        "longer",
    ];
    let counts = delays.into_iter().zip(row.delays);
    values.extend(counts.map(|(column, count)| happened(column, count)));
    values.extend([
        happened("uncertain", row.uncertain),
        hosts("hosts", row.hosts),
        hosts("reached", row.reached),
        Value::Flag(row.begun),
        Value::Flag(row.missed),
        Value::Flag(row.gap),
        Value::Flag(row.covered),
        Value::Flag(row.complete),
    ]);
    values
}

/// Returns the numbers of a group on a day, or `None` where it is too small to be shown: its
/// accounts, and those that came and went.
pub(super) fn group(rounding: &Rounding, kind: GroupKind, row: &GroupRow) -> Option<[u64; 3]> {
    let cell = |column| Cell {
        of: kind.as_str(),
        name: &row.name,
        column,
    };
    Some([
        rounding.accounts(cell("accounts"), row.accounts)?,
        rounding.happened(cell("came"), row.day, row.came)?,
        rounding.happened(cell("went"), row.day, row.went)?,
    ])
}

/// Returns the name of a group as the public sees it, or `None` where it has none: a mediator by its
/// host, and one that a DID of another method or with a path names not at all.
pub(super) fn public_name(kind: GroupKind, name: &str) -> Option<Cow<'_, str>> {
    let name = match kind {
        GroupKind::Mediator => {
            let WebDid { host, port, path } = MediatorDid::parse(name).ok()?.web()?;
            let (written, public) = match port {
                None => (format!("did:web:{host}"), host),
                Some(port) => (format!("did:web:{host}%3A{port}"), format!("{host}:{port}")),
            };
            // Two ways of writing one host would be two rows of one name.
            let is_canonical = path.is_empty() && name == written;
            Cow::Owned(Some(public).filter(|_| is_canonical)?)
        }
        GroupKind::Host | GroupKind::KeyType | GroupKind::Rule => Cow::Borrowed(name),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:[]".contains(&byte);
    let is_plain = !name.is_empty() && name.bytes().all(allowed) && !name.starts_with("did:");
    is_plain.then_some(name)
}

/// The sources of a day.
pub(super) struct SourcesOfDay<'r> {
    rows: &'r [SourceDay],
}

/// A source, or all PDSes, on a day.
pub(super) struct PublicSource<'r> {
    pub(super) day: Day,
    pub(super) name: &'r str,
    pub(super) sources: u64,
    /// Of all PDSes: times and cursor left out, numbers summed up.
    pub(super) row: SourceDay,
}

impl<'r> SourcesOfDay<'r> {
    /// Takes rows of one day.
    pub(super) fn new(rows: &'r [SourceDay]) -> Self {
        Self { rows }
    }

    /// Returns the sources as the public sees them, in the order of their names.
    pub(super) fn public(&self) -> Vec<PublicSource<'r>> {
        let mut found: Vec<PublicSource<'r>> = Vec::new();
        let mut pdses: Option<PublicSource<'r>> = None;
        for row in self.rows {
            if is_stream_of_many(&row.source) {
                found.push(PublicSource {
                    day: row.day,
                    name: &row.source,
                    sources: 1,
                    row: row.clone(),
                });
                continue;
            }
            let all = pdses.get_or_insert_with(|| PublicSource::all_pdses(row.day));
            all.add(row);
        }
        found.extend(pdses);
        found.sort_by(|one, other| one.name.cmp(other.name));
        found
    }
}

impl PublicSource<'_> {
    fn all_pdses(day: Day) -> Self {
        Self {
            day,
            name: ALL_PDSES,
            sources: 0,
            row: SourceDay {
                day,
                source: ALL_PDSES.to_owned(),
                covered_until: None,
                ended_at: None,
                gaps: 0,
                gap_ms: 0,
                listed: None,
                unknown: None,
                unlisted: None,
                position: None,
            },
        }
    }

    fn add(&mut self, pds: &SourceDay) {
        let sum = |all: Option<i64>, one: Option<i64>| match (all, one) {
            (Some(all), Some(one)) => Some(all.saturating_add(one)),
            (all, one) => all.or(one),
        };
        self.sources += 1;
        self.row.gaps = self.row.gaps.saturating_add(pds.gaps);
        self.row.gap_ms = self.row.gap_ms.saturating_add(pds.gap_ms);
        self.row.listed = sum(self.row.listed, pds.listed);
        self.row.unknown = sum(self.row.unknown, pds.unknown);
    }

    /// Returns the row of the source.
    pub(super) fn values(&self, rounding: &Rounding) -> Vec<Value<'_>> {
        let rounded = |column, count: Option<i64>| {
            let cell = Cell {
                of: "sources",
                name: self.name,
                column,
            };
            Value::Number(count.and_then(|count| rounding.accounts(cell, count)))
        };
        let number = |count| Value::Number(Some(u64::try_from(count).unwrap_or(0)));
        vec![
            Value::Day(self.day),
            Value::Text(self.name),
            Value::Number(Some(self.sources)),
            Value::Time(self.row.covered_until),
            Value::Time(self.row.ended_at),
            number(self.row.gaps),
            number(self.row.gap_ms),
            rounded("listed", self.row.listed),
            rounded("unknown", self.row.unknown),
            rounded("unlisted", self.row.unlisted),
        ]
    }
}

/// Returns whether a source brings the events of many hosts: a PDS brings those of its own accounts,
/// of which there may be one.
fn is_stream_of_many(source: &str) -> bool {
    let kind = source
        .split_once(' ')
        .and_then(|(kind, _)| SourceKind::parse(kind));
    matches!(kind, Some(SourceKind::Relay | SourceKind::Jetstream))
}
