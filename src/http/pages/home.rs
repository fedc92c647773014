//! The page at `/`: what this server is.

use maud::{Markup, html};

use super::super::routes;
use super::groups::groups;
use super::layout::{look_up_form, page};
use super::numbers::{self, Numbers};
use super::series::{Span, series};
use super::sources::sources;
use crate::store::SourceStatus;
use crate::store::directory::{Day, DayRow};
use atcomm_net::identity::MediatorDocument;

/// What the directory knows.
#[derive(Default)]
pub(super) struct Known {
    /// `None` while they cannot be read.
    pub(super) numbers: Option<Numbers>,
    /// What is known of the mediators that are shown, in their order.
    pub(super) mediators: Vec<Option<MediatorDocument>>,
    pub(super) sources: Vec<SourceStatus>,
    /// The days that the charts show, in order.
    pub(super) days: Vec<DayRow>,
    /// The last day of the newest dataset.
    pub(super) edition: Option<Day>,
}

/// Returns the page for browsers.
pub(super) fn html(mediator: Option<&str>, span: Span, known: &Known) -> Markup {
    let host = mediator.and_then(|did| did.strip_prefix("did:web:"));
    let content = html! {
        h1 { "Find out how an account can be written to" }
        p .lead {
            "This directory knows which atproto accounts take end-to-end encrypted messages, with "
            "which key, and by way of which servers. It believes no server: what it tells is signed "
            "by the account itself, and comes with the proof."
        }
        (look_up_form(""))
        @if let Some(host) = host {
            section aria-labelledby="enrol" {
                h2 #enrol { "Let people write to you" }
                p {
                    "With the program atcomm, and an app password of your PDS. Your mail is then kept "
                    "here, encrypted, until you fetch it."
                }
                pre { code { "atcomm enroll YOUR.HANDLE --mediator " (host.replace("%3A", ":")) } }
            }
        }
        @if let Some(known_numbers) = &known.numbers {
            (numbers::numbers(known_numbers))
            (series(span, &known.days))
            (groups(known_numbers.groupings(), &known.mediators))
            (sources(&known.sources, known_numbers.as_of()))
        } @else {
            p .verdict.warn { "The numbers cannot be read at the moment." }
        }
        section aria-labelledby="researchers" {
            h2 #researchers { "For researchers" }
            p {
                "The charts are drawn from a series that is kept for ever, with how sure each day is. "
                a href="/xrpc/at.didcomm.directory.getTimeline?interval=week" { "The last weeks" }
                " and " a href="/xrpc/at.didcomm.directory.getStats" { "all numbers of now" } " as JSON."
            }
            @if let Some(day) = known.edition {
                p {
                    a href="/dataset/latest.json" { "The dataset up to " (day) } ": tables of each day as CSV and "
                    "Parquet, to be cited. Small groups cannot be told from it."
                }
            }
        }
        section aria-labelledby="programs" {
            h2 #programs { "For programs" }
            ul .methods {
                @for route in routes::XRPC { li { code { (route.example) } } }
            }
            @if let Some(did) = mediator {
                p { "This server is a mediator, too: " code { (did) } "." }
                ul .methods {
                    @for route in &routes::MEDIATOR {
                        @for line in route.example.lines() { li { code { (line) } } }
                    }
                }
            }
            p .hint { "The methods at.didcomm.directory.* are experimental." }
        }
    };
    page("atcomm: how accounts are written to", &content)
}

/// Returns the page about a wrong address.
pub(super) fn no_such_span() -> Markup {
    let content = html! {
        h1 { "Charts of this time are not made" }
        p { "There are charts of " a href="/?days=90" { "90 days" } " and of " a href="/?days=365" { "365 days" } "." }
    };
    page("Charts of this time are not made", &content)
}

/// Returns the page for programs that print: what the server is, and its routes with examples.
pub(super) fn text(mediator: Option<&str>, numbers: Option<&Numbers>) -> String {
    let mut page = format!(
        "atcomm {}\n\n\
         A directory of at.didcomm.keyPackage records: it says how to send an encrypted DIDComm\n\
         message to an atproto account, with the proof that the account itself said so.\n\n",
        env!("CARGO_PKG_VERSION"),
    );
    if let Some(numbers) = numbers {
        page.push_str(&numbers.text());
        page.push('\n');
    }
    for route in routes::XRPC {
        page.push_str(route.example);
        page.push('\n');
    }
    page.push_str("\nThe methods at.didcomm.directory.* are experimental.\n");
    if let Some(did) = mediator {
        page.push_str(&format!(
            "\nA mediator, too: it keeps encrypted DIDComm messages for who names it in a key\n\
             package, until they are picked up, and cannot read them.\n\n\
             {did}\n",
        ));
        for route in &routes::MEDIATOR {
            page.push_str(route.example);
            page.push('\n');
        }
    }
    page
}
