//! The numbers as text.

use std::io::{self, Write};

use super::super::terminal::{head, line};
use super::{Numbers, SourceDayNumbers, SourceNumbers};
use crate::directory::{Grouping, Happenings, StatsView};
use atcomm_proto::clock::Timestamp;

/// Groups of each kind that are shown.
const MAX_SHOWN: usize = 10;

/// The heights of a day in a sparkline.
const LEVELS: [char; 8] = [
    '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];

/// A day of which a sparkline knows nothing.
const UNKNOWN: char = '\u{b7}';

/// Prefix of a sparkline.
const INDENT: &str = "  ";

/// Writes the numbers. `width` is the number of columns of the terminal: of the days the newest fit.
pub(super) fn text(
    numbers: &Numbers,
    now: Timestamp,
    width: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "as of {now}\n")?;
    totals(&numbers.statistics, width, out)?;
    changes(&numbers.statistics, out)?;
    for (name, groups) in [
        ("PDS", &numbers.statistics.by_pds),
        ("mediator", &numbers.statistics.by_mediator),
        ("key type", &numbers.statistics.by_key_type),
    ] {
        largest(name, groups, width, out)?;
    }
    enrolled(numbers, width, out)?;
    for source in &numbers.sources {
        self::source(source, width, out)?;
    }
    Ok(())
}

fn totals(of: &StatsView, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
    let totals = &of.totals;
    for (count, name, reasons) in [
        (totals.enrolled, "enrolled", None),
        (totals.inactive, "inactive", Some(&of.inactive)),
        (totals.invalid, "invalid", Some(&of.invalid)),
        (totals.removed, "removed", None),
        (
            totals.removed_unproven,
            "removed, by the word of the PDS alone",
            None,
        ),
        (totals.unverifiable, "unverifiable", Some(&of.unverifiable)),
        (totals.accounts, "accounts in all", None),
    ] {
        let mut shown = format!("{count:>9}  {name}");
        let reasons = reasons.map_or(&[][..], |groups| &groups.largest);
        for (at, group) in reasons.iter().take(MAX_SHOWN).enumerate() {
            let comma = if at == 0 { ':' } else { ',' };
            let accounts = group.accounts;
            shown.push_str(&format!("{comma} {} {accounts}", line(&group.name)));
        }
        write!(out, "{}", head(&shown, width))?;
    }
    let marks = format!(
        "of the enrolled, {} are in doubt after gaps, and the PDS of {} showed an older revision; {} \
         did:peers are named by several accounts",
        totals.in_doubt, totals.regressed, totals.ambiguous_peers
    );
    write!(out, "{}", head(&marks, width))
}

fn changes(of: &StatsView, out: &mut dyn Write) -> io::Result<()> {
    let spans = [
        &of.changes.last24_hours,
        &of.changes.last7_days,
        &of.changes.last30_days,
    ];
    writeln!(out, "\n24 hours   7 days  30 days")?;
    let counts =
        spans.map(|of: &Happenings| [of.enrolments, of.rotations, of.removals, of.deletions]);
    let names = ["enrolments", "rotations", "removals", "deletions"];
    for (at, name) in names.into_iter().enumerate() {
        let [day, week, month] = counts.map(|counts| counts.get(at).copied().unwrap_or(0));
        writeln!(out, "{day:>8} {week:>8} {month:>8}  {name}")?;
    }
    Ok(())
}

fn largest(
    name: &str,
    groups: &Grouping,
    width: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "\nenrolled  by {name} ({} in all)", groups.groups)?;
    for group in groups.largest.iter().take(MAX_SHOWN) {
        let shown = format!("{:>8}  {}", group.accounts, line(&group.name));
        write!(out, "{}", head(&shown, width))?;
    }
    Ok(())
}

fn enrolled(numbers: &Numbers, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
    let days = newest(&numbers.days, width);
    let counts = days.iter().map(|day| day.enrolled);
    let (Some(least), Some(most)) = (counts.clone().min(), counts.clone().max()) else {
        return writeln!(out, "\nno day has begun");
    };
    let (first, last) = (days.first(), days.last());
    let (since, until) = (
        first.map_or("", |day| day.day.as_str()),
        last.map_or("", |day| day.day.as_str()),
    );
    let complete = days.iter().filter(|day| day.complete).count();
    let title = format!(
        "enrolled at the end of each day, {since} to {until}: {least} to {most}; {complete} of {} \
         days are complete",
        days.len()
    );
    write!(out, "\n{}", head(&title, width))?;
    let range = u64::try_from(most - least).unwrap_or(0);
    let shown: String = counts
        .map(|count| level(u64::try_from(count - least).unwrap_or(0), range))
        .collect();
    writeln!(out, "{INDENT}{shown}")
}

fn source(source: &SourceNumbers, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
    let days = newest(&source.days, width);
    let followed = days.iter().filter(|day| day.followed);
    let (covered, passed) = followed.clone().fold((0, 0), |(covered, passed), day| {
        (covered + day.covered(), passed + day.passed)
    });
    let mut title = line(&source.name);
    if !source.followed {
        title.push_str(", not followed now");
    }
    if let Some(per_mille) = covered.saturating_mul(1000).checked_div(passed) {
        let gaps: i64 = followed.map(|day| day.gaps).sum();
        title.push_str(&format!(
            ": {}.{} % of the time without a gap, {gaps} gaps",
            per_mille / 10,
            per_mille % 10
        ));
    }
    if let Some(until) = &source.covered_until {
        title.push_str(&format!("; newest event {until}"));
    }
    write!(out, "\n{}", head(&title, width))?;
    let shown: String = days.iter().map(coverage).collect();
    writeln!(out, "{INDENT}{shown}")?;
    let listing = days.iter().rev().find(|day| day.listed.is_some());
    let Some((day, listed)) = listing.and_then(|day| Some((day, day.listed?))) else {
        return Ok(());
    };
    let listing = format!(
        "{INDENT}listed {listed} accounts on {}: {} were not known here; {} that were known were not listed",
        day.day,
        day.unknown.unwrap_or(0),
        day.unlisted.unwrap_or(0)
    );
    write!(out, "{}", head(&listing, width))
}

/// Returns the days that fit.
fn newest<T>(days: &[T], width: Option<usize>) -> &[T] {
    let room = width.map_or(days.len(), |width| {
        width.saturating_sub(INDENT.len()).max(1)
    });
    days.get(days.len().saturating_sub(room)..)
        .unwrap_or_default()
}

/// Returns the height of a part of a range. A range of nothing is in the middle.
fn level(part: u64, range: u64) -> char {
    let at = match range {
        0 => 3,
        range => part.saturating_mul(7) / range,
    };
    let at = usize::try_from(at).unwrap_or(usize::MAX).min(7);
    LEVELS.get(at).copied().unwrap_or(UNKNOWN)
}

/// Returns the height of a source's day: the part of it that no gap covers. Only a day without a gap
/// is of full height.
fn coverage(day: &SourceDayNumbers) -> char {
    if !day.followed {
        return UNKNOWN;
    }
    if day.gaps == 0 {
        return level(1, 1);
    }
    level(
        (day.covered()).saturating_mul(6),
        day.passed.saturating_mul(7).max(1),
    )
}
