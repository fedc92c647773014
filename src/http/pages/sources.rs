//! The sources on the page at `/`: how they are followed.

use std::time::Duration;

use maud::{Markup, html};

use super::layout::{grouped, time};
use crate::store::SourceStatus;
use atcomm_proto::clock::Timestamp;

/// Returns the section of the sources, as they were at `now`.
pub(super) fn sources(sources: &[SourceStatus], now: Option<Timestamp>) -> Markup {
    let at = |at: &Option<Timestamp>| match at {
        Some(at) => time(&at.to_string()),
        None => html! { "never" },
    };
    html! {
        section aria-labelledby="sources" {
            h2 #sources { "Where the directory learns of accounts" }
            @if sources.is_empty() {
                p { "From nowhere by itself: an account is looked at when a client asks for it." }
            } @else {
                p .hint {
                    "A quiet source is behind by the time since its last event, and has missed nothing."
                }
                // Wider than a small screen, so it can be scrolled, by keys as well.
                div .scroll tabindex="0" role="region" aria-label="Table: sources" {
                    table .wide {
                        caption { "Sources" }
                        thead {
                            tr {
                                th scope="col" { "Source" }
                                th scope="col" { "Nothing missed since" }
                                th scope="col" { "Newest event" }
                                th .number scope="col" { "Behind by" }
                                th .next scope="col" { "Listed to the end" }
                                th .number scope="col" { "Accounts listed" }
                            }
                        }
                        tbody {
                            @for source in sources {
                                tr {
                                    th scope="row" { code { (source.name) } }
                                    td { (at(&source.covered_since)) }
                                    td { (at(&source.covered_until)) }
                                    td .number { (behind(source, now)) }
                                    td .next {
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

/// Returns how far the newest event of a source is behind.
fn behind(source: &SourceStatus, now: Option<Timestamp>) -> String {
    match (source.covered_until, now) {
        (Some(until), Some(now)) => words(now.since(until)),
        _ => String::new(),
    }
}

/// Returns a length of time in its largest unit.
fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", grouped(seconds / 86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_told_in_its_largest_unit() {
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7_199, "119 min"),
            (7_200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 days"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
    }
}
