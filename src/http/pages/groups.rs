//! Where the accounts are: the largest groups as bars, with a table beside them.

use maud::{Markup, html};
use serde::Deserialize;

use super::axis::{Part, Scale};
use super::layout::{grouped, mediator_state, time};
use atcomm_net::identity::{MediatorDocument, MediatorState};
use atcomm_proto::syntax::RemoteText;

/// Groups that are shown. `getStats` has more.
pub(super) const MAX_SHOWN: usize = 10;

/// Labels of the axis.
const LABELS: usize = 3;

/// Longest name in the chart, in characters: what a small screen has room for. The table has all of
/// it.
const MAX_NAME: usize = 34;

/// Height of a group in the chart: its name, and its bar below. In pixels, as all heights here.
const ROW: usize = 44;

/// Top and height of a bar in its row.
const BAR: (usize, usize) = (20, 14);

/// Height of the labels below the bars.
const FOOT: usize = 24;

/// Groups of one kind, of `getStats`.
#[derive(Deserialize)]
pub(super) struct Grouping {
    pub(super) groups: u64,
    largest: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    accounts: u64,
}

impl Grouping {
    /// Returns the names of the groups that are shown.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.shown().iter().map(|group| &*group.name)
    }

    fn shown(&self) -> &[Group] {
        self.largest.get(..MAX_SHOWN).unwrap_or(&self.largest)
    }
}

/// The groups of one kind, as they are shown.
struct Figure<'n> {
    id: &'static str,
    title: &'static str,
    head: &'static str,
    about: &'static str,
    grouping: &'n Grouping,
    /// What is known of the mediators that the groups are, in the same order.
    mediators: Option<&'n [Option<MediatorDocument>]>,
}

/// Returns the section of the groups by PDS, by mediator and by type of key. `mediators` are those of
/// the shown groups, in their order.
pub(super) fn groups(
    [by_pds, by_mediator, by_key_type]: [&Grouping; 3],
    mediators: &[Option<MediatorDocument>],
) -> Markup {
    let figures = [
        Figure {
            id: "hosts",
            title: "Servers of accounts (PDS)",
            head: "Server",
            about: "Each account is on one.",
            grouping: by_pds,
            mediators: None,
        },
        Figure {
            id: "mediators",
            title: "Mediators",
            head: "Mediator",
            about: "An account may name several, and is counted for each.",
            grouping: by_mediator,
            mediators: Some(mediators),
        },
        Figure {
            id: "key-types",
            title: "Types of keys",
            head: "Type",
            about: "To encrypt to, and to sign with.",
            grouping: by_key_type,
            mediators: None,
        },
    ];
    html! {
        section aria-labelledby="groups" {
            h2 #groups { "Where they are" }
            @for figure in &figures { (figure.html()) }
        }
    }
}

impl Figure<'_> {
    fn html(&self) -> Markup {
        html! {
            figure aria-labelledby={ (self.id) "-name" } {
                figcaption {
                    h3 id={ (self.id) "-name" } { (self.title) }
                    p .hint { (self.about) }
                }
                @if self.grouping.largest.is_empty() {
                    p { "None yet." }
                } @else {
                    div .beside { (self.chart()) (self.table()) }
                }
            }
        }
    }

    fn chart(&self) -> Markup {
        let shown = self.grouping.shown();
        let accounts = |group: &Group| i64::try_from(group.accounts).unwrap_or(i64::MAX);
        let scale = Scale::new(0, shown.iter().map(accounts).max().unwrap_or(0), LABELS);
        let bottom = shown.len() * ROW;
        html! {
            svg .bars role="img" width="100%" height=(bottom + FOOT)
                aria-labelledby={ (self.id) "-title " (self.id) "-desc" } {
                title id={ (self.id) "-title" } { "Chart: " (self.title) ", by accounts" }
                desc id={ (self.id) "-desc" } {
                    @for (n, group) in shown.iter().enumerate() {
                        @if n > 0 { ", " }
                        (short(&group.name)) ": " (group.accounts)
                    }
                    ". The table that follows has the same."
                }
                @for (n, tick) in scale.ticks().iter().enumerate() {
                    @let at = scale.at(*tick);
                    @let anchor = match n {
                        0 => "start",
                        n if n + 1 == scale.ticks().len() => "end",
                        _ => "middle",
                    };
                    line .grid x1=(at) x2=(at) y1="0" y2=(bottom) {}
                    text .label x=(at) y=(bottom + FOOT - 6) text-anchor=(anchor) {
                        (grouped(tick.unsigned_abs()))
                    }
                }
                @for (n, group) in shown.iter().enumerate() {
                    (bar(n * ROW, &group.name, group.accounts, scale.at(accounts(group))))
                }
            }
        }
    }

    fn table(&self) -> Markup {
        let shown = self.grouping.shown();
        let count = u64::try_from(shown.len()).unwrap_or(0);
        let rest = self.grouping.groups.saturating_sub(count);
        html! {
            div .scroll tabindex="0" role="region" aria-label={ "Table: " (self.title) } {
                table {
                    caption .hidden { (self.title) }
                    thead {
                        tr {
                            th scope="col" { (self.head) }
                            th .number scope="col" { "Accounts" }
                        }
                    }
                    tbody {
                        @for (n, group) in shown.iter().enumerate() {
                            tr {
                                th scope="row" {
                                    code { bdi { (RemoteText::new(&group.name).as_str()) } }
                                    @if let Some(mediators) = self.mediators {
                                        (mediator(mediators.get(n).and_then(Option::as_ref)))
                                    }
                                }
                                td .number { (grouped(group.accounts)) }
                            }
                        }
                        @if rest > 0 {
                            tr { td colspan="2" { "and " (grouped(rest)) " more" } }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the state of a mediator, and when it was checked.
fn mediator(document: Option<&MediatorDocument>) -> Markup {
    let state = document.map_or(MediatorState::Unchecked, |document| document.state);
    let checked_at = document.and_then(|document| document.checked_at);
    let (class, words) = mediator_state(state);
    html! {
        " "
        span .remark {
            span class={ "state " (class) } { (words) }
            @if let Some(at) = checked_at { ", checked " (time(&at.to_string())) }
        }
    }
}

fn bar(top: usize, name: &str, accounts: u64, width: Part) -> Markup {
    let (bar, height) = BAR;
    html! {
        text .name x="0" y=(top + 14) { (short(name)) }
        text .value x="100%" y=(top + 14) text-anchor="end" { (grouped(accounts)) }
        rect .ground x="0" y=(top + bar) width="100%" height=(height) rx="2" {}
        rect .one x="0" y=(top + bar) width=(width) height=(height) rx="2" {}
    }
}

/// Returns the beginning of a name, if the name is long.
fn short(name: &str) -> String {
    let name = RemoteText::new(name);
    let name = name.as_str();
    if name.chars().count() <= MAX_NAME {
        return name.to_owned();
    }
    let mut short: String = name.chars().take(MAX_NAME - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouping(names: &[&str]) -> Grouping {
        let group = |(n, name): (usize, &&str)| Group {
            name: (*name).to_owned(),
            accounts: u64::try_from(n).unwrap() + 1,
        };
        Grouping {
            groups: 12,
            largest: names.iter().enumerate().map(group).collect(),
        }
    }

    fn figure(grouping: &Grouping) -> String {
        let figure = Figure {
            id: "x",
            title: "Hosts",
            head: "Host",
            about: "",
            grouping,
            mediators: None,
        };
        figure.html().into_string()
    }

    #[test]
    fn a_bar_is_as_long_as_its_share_of_the_axis() {
        let page = figure(&grouping(&[
            "a.example.com",
            "b.example.com",
            "c.example.com",
        ]));
        for (name, width) in [("a", "33.33%"), ("b", "66.66%"), ("c", "100.00%")] {
            let (_, rest) = page
                .split_once(&format!(">{name}.example.com</text>"))
                .unwrap();
            let bar = rest.split_once("class=\"one\"").unwrap().1;
            let bar = bar.split_once('>').unwrap().0;
            assert!(bar.contains(&format!("width=\"{width}\"")), "{name}: {bar}");
        }
        assert!(page.contains("and 9 more"), "{page}");
        assert!(figure(&grouping(&[])).contains("None yet."));
    }

    #[test]
    fn names_of_the_network_are_text_and_cut_in_the_chart_alone() {
        let hostile = "<script>alert(1)</script>\"><img src=x onerror=alert(1)>\u{202e}moc";
        let page = figure(&grouping(&[hostile]));
        assert!(
            !page.contains("<script") && !page.contains("<img"),
            "{page}"
        );
        assert!(!page.contains('\u{202e}'), "{page}");
        let whole = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&gt;&lt;img src=x onerror=alert(1)&gt;\u{fffd}moc";
        assert_eq!(page.matches(whole).count(), 1, "{page}");
        let cut = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&gt;&lt;img s…";
        assert_eq!(page.matches(cut).count(), 2, "{page}");
    }
}
