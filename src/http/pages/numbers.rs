//! The numbers on the page at `/`: accounts, and what changed lately.

use maud::{Markup, html};
use serde::Deserialize;

use super::groups::Grouping;
use super::layout::{grouped, time};
use atcomm_proto::clock::Timestamp;

/// The answer of `getStats`, as far as the page shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Numbers {
    as_of: String,
    totals: Totals,
    by_pds: Grouping,
    pub(super) by_mediator: Grouping,
    by_key_type: Grouping,
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

    /// Returns the totals as one line.
    pub(super) fn text(&self) -> String {
        format!(
            "accounts that can be written to: {}; their servers: {}; their mediators: {}\n",
            self.totals.enrolled, self.by_pds.groups, self.by_mediator.groups
        )
    }

    /// Returns the groups by PDS, by mediator and by type of key.
    pub(super) fn groupings(&self) -> [&Grouping; 3] {
        [&self.by_pds, &self.by_mediator, &self.by_key_type]
    }

    /// Returns when they were so.
    pub(super) fn as_of(&self) -> Option<Timestamp> {
        Timestamp::parse_rfc3339(&self.as_of)
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
                "Beside them: " (grouped(inactive)) " that are not active, and " (grouped(invalid)) " with a "
                "package that breaks a rule. "
                @if in_doubt > 0 { "To be looked at again after missed events: " (grouped(in_doubt)) ". " }
                "As of " (time(&numbers.as_of)) "."
            }
            (changes(&numbers.changes))
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
