//! The time series as charts, with a table beside each (`docs/research.md`).

use maud::{Markup, html};

use super::axis::{DayAxis, Part, Scale, WHOLE};
use super::layout::grouped;
use crate::store::directory::{Day, DayRow};

/// Labels of the axis of numbers.
const LABELS: usize = 5;

/// Longest label for which the narrow margin is wide enough, in characters.
const NARROW: usize = 4;

/// The time that the charts show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// 90 days, day by day.
    Days,
    /// A year, week by week.
    Year,
}

impl Span {
    pub(super) const ALL: [Self; 2] = [Self::Days, Self::Year];

    /// Reads the parameter `days`. Returns `None` for a number of days that is not shown.
    pub(super) fn read(days: Option<&str>) -> Option<Self> {
        let Some(days) = days else {
            return Some(Self::Days);
        };
        Self::ALL.into_iter().find(|span| span.days() == days)
    }

    fn days(self) -> &'static str {
        match self {
            Self::Days => "90",
            Self::Year => "365",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Days => "90 days, day by day",
            Self::Year => "A year, week by week",
        }
    }

    /// Returns the first day.
    pub(super) fn since(self, today: Day) -> Day {
        match self {
            Self::Days => today.plus(-89),
            Self::Year => today.plus(-364).week(),
        }
    }

    fn bucket(self, day: Day) -> Day {
        match self {
            Self::Days => day,
            Self::Year => day.week(),
        }
    }
}

/// How sure the numbers of a bucket are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certainty {
    Complete,
    /// Not closed yet.
    Open,
    /// Closed, and not complete.
    Uncertain,
    /// Nothing ran, and nothing was learnt later that made it complete.
    Missed,
}

impl Certainty {
    fn of(day: &DayRow) -> Self {
        match (day.complete, day.closed, day.missed) {
            (true, ..) => Self::Complete,
            (_, _, true) => Self::Missed,
            (_, true, _) => Self::Uncertain,
            (_, false, _) => Self::Open,
        }
    }

    /// Returns the certainty of days together.
    fn of_days(days: &[DayRow]) -> Self {
        let all = |wanted| days.iter().all(|day| Self::of(day) == wanted);
        if all(Self::Complete) {
            Self::Complete
        } else if all(Self::Missed) {
            Self::Missed
        } else if days.iter().any(|day| Self::of(day) == Self::Open) {
            Self::Open
        } else {
            Self::Uncertain
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Open => "may still change",
            Self::Uncertain => "not certain",
            Self::Missed => "nothing ran",
        }
    }

    /// Returns the class of the band behind the bucket.
    fn band(self) -> Option<&'static str> {
        match self {
            Self::Complete => None,
            Self::Open | Self::Uncertain => Some("unsure"),
            Self::Missed => Some("missed"),
        }
    }
}

/// The days that one bar or point stands for.
struct Bucket {
    since: Day,
    until: Day,
    certainty: Certainty,
    /// At the end of the last day.
    stock: [i64; 3],
    new: i64,
    returned: i64,
    found: i64,
    departed: i64,
    vouched: i64,
    unvouched: i64,
}

impl Bucket {
    fn of(days: &[DayRow]) -> Option<Self> {
        let (first, last) = (days.first()?, days.last()?);
        let sum = |of: fn(&DayRow) -> i64| days.iter().map(of).sum();
        Some(Self {
            since: first.day,
            until: last.day,
            certainty: Certainty::of_days(days),
            stock: last.stock,
            new: sum(|day| day.new),
            returned: sum(|day| day.returned),
            found: sum(|day| day.found),
            departed: sum(|day| day.departed),
            vouched: sum(|day| day.vouched),
            unvouched: sum(|day| day.unvouched),
        })
    }

    /// Returns the days as words: one, or the first of a week.
    fn name(&self, span: Span) -> String {
        match span {
            Span::Days => self.since.to_string(),
            Span::Year => format!("week of {}", self.since.week()),
        }
    }
}

/// A number of a bucket.
struct Column {
    name: &'static str,
    class: &'static str,
    drawn: Drawn,
    of: fn(&Bucket) -> i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Drawn {
    Line,
    Up,
    Down,
    /// In the table alone.
    No,
}

/// A chart and its table.
struct Figure {
    id: &'static str,
    title: &'static str,
    about: &'static str,
    columns: &'static [Column],
}

const fn column(
    name: &'static str,
    class: &'static str,
    drawn: Drawn,
    of: fn(&Bucket) -> i64,
) -> Column {
    Column {
        name,
        class,
        drawn,
        of,
    }
}

static FIGURES: [Figure; 3] = [
    Figure {
        id: "enrolled",
        title: "Accounts that can be written to",
        about: "Enrolled accounts at the end of the day. Beside them in the table: accounts that are not active, \
                and accounts whose key package breaks a rule.",
        columns: &[
            column("Enrolled", "one", Drawn::Line, |of| of.stock[0]),
            column("Inactive", "", Drawn::No, |of| of.stock[1]),
            column("Invalid", "", Drawn::No, |of| of.stock[2]),
        ],
    },
    Figure {
        id: "flow",
        title: "Accounts that came and went",
        about: "New: enrolled for the first time. Returned: enrolled again. Departed: no longer enrolled. Found, in \
                the table alone: had enrolled earlier, unknown here until then.",
        columns: &[
            column("New", "one", Drawn::Up, |of| of.new),
            column("Returned", "two", Drawn::Up, |of| of.returned),
            column("Departed", "three", Drawn::Down, |of| of.departed),
            column("Found", "", Drawn::No, |of| of.found),
        ],
    },
    Figure {
        id: "keys",
        title: "Messaging keys replaced",
        about: "Vouched: the key before names the new one, so contacts can go on. Unvouched: it does not.",
        columns: &[
            column("Vouched", "one", Drawn::Up, |of| of.vouched),
            column("Unvouched", "three", Drawn::Up, |of| of.unvouched),
        ],
    },
];

/// Returns the section of the charts. The days are in order.
pub(super) fn series(span: Span, days: &[DayRow]) -> Markup {
    let buckets: Vec<Bucket> = days
        .chunk_by(|one, next| span.bucket(one.day) == span.bucket(next.day))
        .filter_map(Bucket::of)
        .collect();
    html! {
        section aria-labelledby="series" {
            h2 #series { "Over time" }
            @if let [first, .., last] = &*buckets {
                @let axis = DayAxis::new(first.since, last.until);
                nav .spans aria-label="Time that the charts show" {
                    @for one in Span::ALL {
                        @let current = (one == span).then_some("true");
                        a href={ "/?days=" (one.days()) "#series" } aria-current=[current] { (one.words()) }
                    }
                }
                (how_sure(span, &buckets))
                @for figure in &FIGURES { (figure.html(span, &buckets, &axis)) }
            } @else {
                p { "The series has just begun. Charts are shown from its second day on." }
                @if span != Span::Days { p { a href="/#series" { "Day by day" } } }
            }
        }
    }
}

/// Says how many of the days are complete, and what the others lack.
fn how_sure(span: Span, buckets: &[Bucket]) -> Markup {
    let count = |wanted| {
        let all = buckets.iter();
        all.filter(|bucket| bucket.certainty == wanted).count()
    };
    let (unit, one) = match span {
        Span::Days => ("days", "day"),
        Span::Year => ("weeks", "week"),
    };
    let missed = count(Certainty::Missed);
    html! {
        p {
            (count(Certainty::Complete)) " of " (buckets.len()) " " (unit) " are complete: what they say was true at "
            "their end. Of the others: "
            (count(Certainty::Open)) " may still change, as events of them can come late, and in "
            (count(Certainty::Uncertain)) " something may have been missed. Both stand on a grey ground. "
            @if missed > 0 {
                "In " (missed) " " (if missed == 1 { one } else { unit })
                " nothing ran: the ground is hatched, and the line is broken. "
            }
            "The tables say the same beside the " (one) "."
        }
    }
}

impl Figure {
    fn drawn(&self, drawn: Drawn) -> impl Iterator<Item = &Column> {
        let columns = self.columns.iter();
        columns.filter(move |column| column.drawn == drawn)
    }

    /// Returns the sum of what is drawn in one direction.
    fn sum(&self, drawn: Drawn, bucket: &Bucket) -> i64 {
        self.drawn(drawn).map(|column| (column.of)(bucket)).sum()
    }

    fn html(&self, span: Span, buckets: &[Bucket], axis: &DayAxis) -> Markup {
        let shown = || {
            let all = self.columns.iter();
            all.filter(|column| column.drawn != Drawn::No)
        };
        html! {
            figure aria-labelledby={ (self.id) "-name" } {
                figcaption {
                    h3 id={ (self.id) "-name" } { (self.title) }
                    p .hint { (self.about) }
                    @if shown().count() > 1 {
                        ul .legend {
                            @for column in shown() {
                                li {
                                    svg .key aria-hidden="true" width="14" height="14" {
                                        rect class=(column.class) width="14" height="14" rx="3" {}
                                    }
                                    (column.name)
                                }
                            }
                        }
                    }
                }
                div .beside {
                    (self.chart(span, buckets, axis))
                    (self.table(span, buckets))
                }
            }
        }
    }

    fn chart(&self, span: Span, buckets: &[Bucket], axis: &DayAxis) -> Markup {
        let low = buckets.iter().map(|of| -self.sum(Drawn::Down, of)).min();
        let high = buckets.iter().map(|of| {
            let line = self.drawn(Drawn::Line).map(|column| (column.of)(of));
            self.sum(Drawn::Up, of).max(line.max().unwrap_or(0))
        });
        let scale = Scale::new(low.unwrap_or(0), high.max().unwrap_or(0), LABELS);
        let labels: Vec<String> = scale.ticks().iter().map(|tick| signed(*tick)).collect();
        let is_wide = labels.iter().any(|label| label.chars().count() > NARROW);
        html! {
            svg .chart .wide[is_wide] role="img" aria-labelledby={ (self.id) "-title " (self.id) "-desc" } {
                title id={ (self.id) "-title" } { "Chart: " (self.title) }
                desc id={ (self.id) "-desc" } { (self.description(span, buckets)) }
                (hatch(self.id))
                (self.bands(buckets, axis))
                @for (tick, label) in scale.ticks().iter().zip(&labels) {
                    @let at = scale.down(*tick);
                    line .grid .zero[*tick == 0] x1="0" x2="100%" y1=(at) y2=(at) {}
                    text .label x="-8" y=(at) dy="0.32em" text-anchor="end" { (label) }
                }
                @for (at, label) in axis.ticks() {
                    text .label x=(at) y="100%" dy="1.5em" text-anchor="middle" { (label) }
                }
                @for column in self.drawn(Drawn::Line) { (line(column, buckets, axis, &scale)) }
                @for bucket in buckets { (self.bars(bucket, axis, &scale)) }
                @for bucket in buckets { (self.hover(span, bucket, axis)) }
            }
        }
    }

    /// Returns the grounds of the days that are not complete.
    fn bands(&self, buckets: &[Bucket], axis: &DayAxis) -> Markup {
        let runs = buckets.chunk_by(|one, next| one.certainty.band() == next.certainty.band());
        let bands = runs.filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            let start = axis.start(first.since);
            let width = Part(axis.end(last.until).0 - start.0);
            Some((first.certainty.band()?, start, width))
        });
        html! {
            @for (class, start, width) in bands {
                @let hatched = (class == "missed").then(|| format!("url(#{}-hatch)", self.id));
                rect class=(class) x=(start) width=(width) y="0" height="100%" fill=[hatched] {}
            }
        }
    }

    /// Returns the bars of one bucket, those in one direction on each other.
    fn bars(&self, bucket: &Bucket, axis: &DayAxis, scale: &Scale) -> Markup {
        if bucket.certainty == Certainty::Missed {
            return html! {};
        }
        let (start, end) = (axis.start(bucket.since), axis.end(bucket.until));
        // A fifth is left between two bars.
        let margin = (end.0 - start.0) / 10;
        let (x, width) = (Part(start.0 + margin), Part(end.0 - start.0 - 2 * margin));
        let (mut top, mut bottom) = (0, 0);
        html! {
            @for column in self.columns {
                @let value = (column.of)(bucket).max(0);
                @if value > 0 && matches!(column.drawn, Drawn::Up | Drawn::Down) {
                    @let (low, high) = if column.drawn == Drawn::Up {
                        top += value;
                        (top - value, top)
                    } else {
                        bottom -= value;
                        (bottom, bottom + value)
                    };
                    @let (y, height) = (scale.down(high), Part(scale.at(high).0 - scale.at(low).0));
                    rect class=(column.class) x=(x) width=(width) y=(y) height=(height) {}
                }
            }
        }
    }

    /// Returns the place of a bucket, which tells its numbers to a pointer.
    fn hover(&self, span: Span, bucket: &Bucket, axis: &DayAxis) -> Markup {
        let (start, end) = (axis.start(bucket.since), axis.end(bucket.until));
        html! {
            rect .hover x=(start) width=(Part(end.0 - start.0)) y="0" height="100%" {
                title {
                    (bucket.name(span))
                    @for column in self.columns { ", " (column.name) " " (signed((column.of)(bucket))) }
                    @if bucket.certainty != Certainty::Complete { ", " (bucket.certainty.words()) }
                }
            }
        }
    }

    /// Returns what the chart shows, for those who do not see it.
    fn description(&self, span: Span, buckets: &[Bucket]) -> String {
        let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else {
            return String::new();
        };
        let mut words = format!("From {} to {}", first.since, last.until);
        for column in self.columns {
            let values = buckets.iter().map(column.of);
            let name = column.name;
            words.push_str(&match column.drawn {
                Drawn::Line => format!(
                    ". {name}: {} at first, {} at last, at most {}",
                    (column.of)(first),
                    (column.of)(last),
                    values.max().unwrap_or(0)
                ),
                Drawn::Up | Drawn::Down => format!(". {name}: {} in all", values.sum::<i64>()),
                Drawn::No => continue,
            });
        }
        let each = match span {
            Span::Days => "day",
            Span::Year => "week",
        };
        format!("{words}. The table that follows has each {each}.")
    }

    fn table(&self, span: Span, buckets: &[Bucket]) -> Markup {
        html! {
            // Longer than the chart is high, so it is scrolled by itself, by keys as well.
            div .scroll .long tabindex="0" role="region" aria-label={ "Table: " (self.title) } {
                table {
                    caption .hidden { (self.title) }
                    thead {
                        tr {
                            th scope="col" { (match span { Span::Days => "Day", Span::Year => "Week of" }) }
                            @for column in self.columns { th .number scope="col" { (column.name) } }
                        }
                    }
                    tbody {
                        @for bucket in buckets.iter().rev() {
                            tr {
                                th scope="row" {
                                    (span.bucket(bucket.since))
                                    @if bucket.certainty != Certainty::Complete {
                                        " " span .remark { (bucket.certainty.words()) }
                                    }
                                }
                                @for column in self.columns {
                                    td .number { (signed((column.of)(bucket))) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the pattern of days on which nothing ran.
fn hatch(id: &str) -> Markup {
    html! {
        defs {
            pattern id={ (id) "-hatch" } width="7" height="7" patternUnits="userSpaceOnUse"
                patternTransform="rotate(45)" {
                rect .stripe width="2.5" height="7" {}
            }
        }
    }
}

/// Returns a line through the ends of the days, broken where nothing ran. It has a square of its own,
/// which is stretched: paths have no percentages.
fn line(column: &Column, buckets: &[Bucket], axis: &DayAxis, scale: &Scale) -> Markup {
    let is_known = |bucket: &Bucket| bucket.certainty != Certainty::Missed;
    let bottom = scale.down(0).0;
    let (mut path, mut area) = (String::new(), String::new());
    for run in buckets.chunk_by(|one, next| is_known(one) == is_known(next)) {
        if !run.first().is_some_and(is_known) {
            continue;
        }
        let points: Vec<(i32, i32)> = run
            .iter()
            .map(|bucket| {
                let middle = (axis.start(bucket.since).0 + axis.end(bucket.until).0) / 2;
                (middle, scale.down((column.of)(bucket)).0)
            })
            .collect();
        let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else {
            continue;
        };
        area.push_str(&format!("M{first} {bottom}"));
        for (n, (x, y)) in points.iter().enumerate() {
            path.push_str(&format!("{}{x} {y}", if n == 0 { 'M' } else { 'L' }));
            area.push_str(&format!("L{x} {y}"));
        }
        // A day alone is a dot: a line without a length, with round ends.
        if points.len() == 1 {
            path.push_str("h0");
        }
        area.push_str(&format!("L{last} {bottom}z"));
    }
    html! {
        svg viewBox={ "0 0 " (WHOLE) " " (WHOLE) } preserveAspectRatio="none" width="100%" height="100%" {
            path class={ "area " (column.class) } d=(area) {}
            path class={ "line " (column.class) } d=(path) vector-effect="non-scaling-stroke" {}
        }
    }
}

/// Returns a number with its sign where it is below zero.
fn signed(number: i64) -> String {
    let digits = grouped(number.unsigned_abs());
    if number < 0 {
        format!("\u{2212}{digits}")
    } else {
        digits
    }
}

#[cfg(test)]
mod tests;
