//! `atcomm stats`.

mod render;

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::output::show;
use super::terminal::width;
use super::{CliError, ServiceFlags};
use crate::directory::StatsView;
use crate::store::directory::{Day, DayRow, Queries, SourceDay};
use crate::store::{SourceStatus, StoreError};
use atcomm_proto::clock::{Clock, Timestamp};

/// Most sources that are shown.
const MAX_SOURCES: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Stats {
    /// Number of days, the present one included
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..=3660))]
    days: i32,
    #[command(flatten)]
    service: ServiceFlags,
}

/// What is shown.
#[derive(Serialize)]
struct Numbers {
    statistics: StatsView,
    days: Vec<DayNumbers>,
    sources: Vec<SourceNumbers>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DayNumbers {
    day: String,
    enrolled: i64,
    inactive: i64,
    invalid: i64,
    new: i64,
    returned: i64,
    found: i64,
    departed: i64,
    closed: bool,
    complete: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SourceNumbers {
    name: String,
    followed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    covered_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    covered_until: Option<String>,
    days: Vec<SourceDayNumbers>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SourceDayNumbers {
    day: String,
    /// Milliseconds of the day that have passed.
    #[serde(skip)]
    passed: u64,
    /// Whether the stream was followed on the day, as far as the store knows.
    followed: bool,
    gaps: i64,
    gap_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    listed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unlisted: Option<i64>,
}

/// Prints the numbers of accounts, and how they and the coverage of the sources have changed.
pub(super) fn stats(args: &Stats, stdout: &mut dyn Write) -> Result<(), CliError> {
    let now = Clock::system().now();
    let numbers = args
        .service
        .read_directory(|q| Numbers::read(q, now, args.days))?;
    show(args.service.json, stdout, &numbers, |out| {
        render::text(&numbers, now, width(), out)
    })
}

impl Numbers {
    fn read(q: &Queries<'_>, now: Timestamp, days: i32) -> Result<Self, StoreError> {
        let until = q.newest_day()?.unwrap_or_else(|| Day::of(now));
        let since = until.plus(1 - days);
        let days = q.days(since, until)?;
        let followed = q.followed_sources()?;
        let is_followed = |name: &str| followed.iter().any(|one| one.source == name);
        let mut of_source: BTreeMap<String, BTreeMap<Day, SourceDay>> = BTreeMap::new();
        for one in q.source_days(since, until)? {
            let days = of_source.entry(one.source.clone()).or_default();
            days.insert(one.day, one);
        }
        let sources = q.sources(MAX_SOURCES)?.into_iter().map(|source| {
            let known = of_source.remove(&source.name).unwrap_or_default();
            let is_followed = is_followed(&source.name);
            SourceNumbers::of(source, is_followed, &days, known, now)
        });
        Ok(Self {
            sources: sources.collect(),
            statistics: StatsView::at(q, now)?,
            days: days.iter().map(DayNumbers::of).collect(),
        })
    }
}

impl DayNumbers {
    fn of(row: &DayRow) -> Self {
        let [enrolled, inactive, invalid] = row.stock;
        Self {
            day: row.day.to_string(),
            enrolled,
            inactive,
            invalid,
            new: row.new,
            returned: row.returned,
            found: row.found,
            departed: row.departed,
            closed: row.closed,
            complete: row.complete,
        }
    }
}

impl SourceNumbers {
    fn of(
        source: SourceStatus,
        followed: bool,
        days: &[DayRow],
        mut known: BTreeMap<Day, SourceDay>,
        now: Timestamp,
    ) -> Self {
        let newest = days.last().map(|row| row.day);
        let of_day = days.iter().map(|row| {
            let known = known.remove(&row.day);
            // The row of a day comes when the day has ended.
            let is_newest = newest == Some(row.day);
            SourceDayNumbers::of(row.day, known, followed && is_newest, now)
        });
        Self {
            days: of_day.collect(),
            name: source.name,
            followed,
            covered_since: source.covered_since.map(|at| at.to_string()),
            covered_until: source.covered_until.map(|at| at.to_string()),
        }
    }
}

impl SourceDayNumbers {
    fn of(day: Day, known: Option<SourceDay>, followed: bool, now: Timestamp) -> Self {
        let passed = now.clamp(day.start(), day.end()).since(day.start());
        let known = known.as_ref();
        let was_followed = known.is_some_and(|known| known.ended_at.is_some() || known.gaps > 0);
        Self {
            day: day.to_string(),
            passed: u64::try_from(passed.as_millis()).unwrap_or(u64::MAX),
            followed: followed || was_followed,
            gaps: known.map_or(0, |known| known.gaps),
            gap_ms: known.map_or(0, |known| known.gap_ms),
            listed: known.and_then(|known| known.listed),
            unknown: known.and_then(|known| known.unknown),
            unlisted: known.and_then(|known| known.unlisted),
        }
    }

    /// Returns the milliseconds of the day that no gap covers. Gaps may overlap, so there may be more.
    fn covered(&self) -> u64 {
        let gaps = u64::try_from(self.gap_ms).unwrap_or(0);
        self.passed.saturating_sub(gaps)
    }
}

#[cfg(test)]
mod tests;
