//! The numbers on the page at `/`: accounts, where they are, and how the sources are followed.

use maud::{Markup, html};
use serde::Deserialize;

use super::layout::time;
use crate::store::SourceStatus;
use atcomm_proto::syntax::RemoteText;

/// Groups that a table shows. `getStats` has more.
const MAX_SHOWN: usize = 10;

/// The answer of `getStats`, as far as the page shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Numbers {
    as_of: String,
    totals: Totals,
    by_pds: Grouping,
    by_mediator: Grouping,
    changes: Changes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    enrolled: u64,
    invalid: u64,
    inactive: u64,
    in_doubt: u64,
}

#[derive(Deserialize)]
struct Grouping {
    groups: u64,
    largest: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    accounts: u64,
}

#[derive(Deserialize)]
struct Changes {
    #[serde(rename = "last24Hours")]
    day: Happenings,
    #[serde(rename = "last7Days")]
    week: Happenings,
    #[serde(rename = "last30Days")]
    month: Happenings,
}

#[derive(Deserialize)]
struct Happenings {
    enrolments: u64,
    rotations: u64,
    removals: u64,
}

impl Numbers {
    /// Reads the body of the answer.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

/// Returns the section of the numbers.
pub(super) fn numbers(numbers: &Numbers) -> Markup {
    let Totals {
        enrolled,
        invalid,
        inactive,
        in_doubt,
    } = numbers.totals;
    html! {
        section aria-labelledby="numbers" {
            h2 #numbers { "In numbers" }
            ul .totals {
                (total(enrolled, "account can be written to", "accounts can be written to"))
                (total(numbers.by_pds.groups, "server holds them", "servers hold them"))
                (total(numbers.by_mediator.groups, "mediator keeps their mail", "mediators keep their mail"))
            }
            p .hint {
                (grouped(inactive)) " more are not active, and " (grouped(invalid)) " have a package that breaks "
                "a rule. "
                @if in_doubt > 0 { (grouped(in_doubt)) " are being looked at again after missed events. " }
                "As of " (time(&numbers.as_of)) "."
            }
            (changes(&numbers.changes))
            div .tables {
                (table("Servers of accounts (PDS)", "Server", &numbers.by_pds))
                (table("Mediators", "Mediator", &numbers.by_mediator))
            }
        }
    }
}

fn total(number: u64, one: &str, many: &str) -> Markup {
    html! { li { strong { (grouped(number)) } " " (if number == 1 { one } else { many }) } }
}

fn changes(changes: &Changes) -> Markup {
    let columns = [&changes.day, &changes.week, &changes.month];
    let of = |number: fn(&Happenings) -> u64| columns.map(number);
    let rows = [
        ("Keys published for the first time", of(|of| of.enrolments)),
        ("Keys replaced", of(|of| of.rotations)),
        ("Keys taken back", of(|of| of.removals)),
    ];
    html! {
        table {
            caption { "What changed" }
            thead {
                tr {
                    th scope="col" { "Change" }
                    @for span in ["24 hours", "7 days", "30 days"] { th .number scope="col" { (span) } }
                }
            }
            tbody {
                @for (name, numbers) in rows {
                    tr {
                        th scope="row" { (name) }
                        @for number in numbers { td .number { (grouped(number)) } }
                    }
                }
            }
        }
    }
}

fn table(caption: &str, head: &str, grouping: &Grouping) -> Markup {
    let shown = grouping.largest.len().min(MAX_SHOWN);
    let rest = grouping
        .groups
        .saturating_sub(u64::try_from(shown).unwrap_or(0));
    html! {
        table {
            caption { (caption) }
            thead { tr { th scope="col" { (head) } th .number scope="col" { "Accounts" } } }
            tbody {
                @for group in grouping.largest.iter().take(MAX_SHOWN) {
                    tr {
                        th scope="row" { code { (RemoteText::new(&group.name).as_str()) } }
                        td .number { (grouped(group.accounts)) }
                    }
                }
                @if grouping.largest.is_empty() { tr { td colspan="2" { "none yet" } } }
                @if rest > 0 { tr { td colspan="2" { "and " (grouped(rest)) " more" } } }
            }
        }
    }
}

/// Returns the section of the sources.
pub(super) fn sources(sources: &[SourceStatus]) -> Markup {
    let at = |at: &Option<atcomm_proto::clock::Timestamp>| match at {
        Some(at) => time(&at.to_string()),
        None => html! { "never" },
    };
    html! {
        section aria-labelledby="sources" {
            h2 #sources { "Where the directory learns of accounts" }
            @if sources.is_empty() {
                p { "From nowhere by itself: an account is looked at when a client asks for it." }
            } @else {
                // Wider than a small screen, so it can be scrolled, by keys as well.
                div .scroll tabindex="0" role="region" aria-labelledby="sources" {
                    table {
                        caption { "Sources" }
                        thead {
                            tr {
                                th scope="col" { "Source" }
                                th scope="col" { "Nothing missed since" }
                                th scope="col" { "Newest event" }
                                th scope="col" { "Listed to the end" }
                                th .number scope="col" { "Accounts listed" }
                            }
                        }
                        tbody {
                            @for source in sources {
                                tr {
                                    th scope="row" { code { (source.name) } }
                                    td { (at(&source.covered_since)) }
                                    td { (at(&source.covered_until)) }
                                    td {
                                        (at(&source.listed_at))
                                        @if source.failure.is_some() { " (the last attempt failed)" }
                                    }
                                    td .number { (grouped(source.listed)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Returns a number with thin spaces between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len());
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push('\u{2009}');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1\u{2009}000"),
            (1_234_567, "1\u{2009}234\u{2009}567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
