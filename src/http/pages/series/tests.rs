use super::*;

fn day(text: &str) -> Day {
    Day::parse(text).unwrap()
}

/// Returns a complete day with this many enrolled accounts.
fn complete(day: Day, enrolled: i64) -> DayRow {
    DayRow {
        day,
        stock: [enrolled, 0, 0],
        new: 0,
        returned: 0,
        found: 0,
        departed: 0,
        vouched: 0,
        unvouched: 0,
        delays: [0; 7],
        uncertain: 0,
        missed: false,
        gap: false,
        hosts: None,
        reached: None,
        begun: false,
        covered: true,
        closed: true,
        complete: true,
    }
}

fn missed(day: Day, enrolled: i64) -> DayRow {
    DayRow {
        missed: true,
        complete: false,
        ..complete(day, enrolled)
    }
}

fn open(day: Day, enrolled: i64) -> DayRow {
    DayRow {
        closed: false,
        complete: false,
        ..complete(day, enrolled)
    }
}

/// Returns consecutive days from 2026-11-02 on, a Monday.
fn days(count: i32, make: impl Fn(i32, Day) -> DayRow) -> Vec<DayRow> {
    let first = day("2026-11-02");
    (0..count).map(|n| make(n, first.plus(n))).collect()
}

/// Returns the part of the page about one chart.
fn figure<'p>(page: &'p str, id: &str) -> &'p str {
    let (_, rest) = page
        .split_once(&format!("<figure aria-labelledby=\"{id}-name\">"))
        .unwrap();
    rest.split_once("</figure>").unwrap().0
}

/// Returns what stands between two marks, each time.
fn between<'p>(text: &'p str, start: &str, end: &str) -> Vec<&'p str> {
    let parts = text.split(start).skip(1);
    parts.map(|part| part.split_once(end).unwrap().0).collect()
}

#[test]
fn a_day_on_which_nothing_ran_breaks_the_line() {
    let days = days(10, |n, day| match n {
        4 => missed(day, 40),
        // What was learnt later made it complete.
        7 => DayRow {
            complete: true,
            ..missed(day, 40)
        },
        9 => open(day, 40),
        _ => complete(day, 40),
    });
    let page = series(Span::Days, &days).into_string();
    let enrolled = figure(&page, "enrolled");
    let lines = between(enrolled, "class=\"line one\" d=\"", "\"");
    assert_eq!(
        lines,
        ["M500 0L1500 0L2500 0L3500 0\
             M5500 0L6500 0L7500 0L8500 0L9500 0"]
    );
    let grounds = between(enrolled, "<rect class=\"missed\" ", ">");
    assert_eq!(
        grounds,
        ["x=\"40.00%\" width=\"10.00%\" y=\"0\" height=\"100%\" fill=\"url(#enrolled-hatch)\""]
    );
    let grounds = between(enrolled, "<rect class=\"unsure\" ", ">");
    assert_eq!(
        grounds,
        ["x=\"90.00%\" width=\"10.00%\" y=\"0\" height=\"100%\""]
    );
    let words = [
        "8 of 10 days are complete",
        "1 may still change",
        "In 1 day nothing ran",
    ];
    for words in words {
        assert!(page.contains(words), "{words} in {page}");
    }
    let rows = between(enrolled, "<th scope=\"row\">", "</tr>");
    assert_eq!(rows.len(), 10);
    assert!(rows[0].starts_with("2026-11-11") && rows[0].contains("may still change"));
    assert!(rows[5].starts_with("2026-11-06") && rows[5].contains("nothing ran"));
    assert!(rows[1].starts_with("2026-11-10</th>"), "{}", rows[1]);
}

#[test]
fn a_day_between_two_missed_ones_is_a_dot() {
    let days = days(3, |n, day| {
        if n == 1 {
            complete(day, 4)
        } else {
            missed(day, 4)
        }
    });
    let page = series(Span::Days, &days).into_string();
    let lines = between(figure(&page, "enrolled"), "class=\"line one\" d=\"", "\"");
    assert_eq!(lines, ["M4999 0h0"]);
}

#[test]
fn bars_stand_on_each_other_and_departures_below() {
    let days = days(2, |n, day| DayRow {
        new: i64::from(n) * 3,
        returned: i64::from(n),
        departed: i64::from(n) * 4,
        ..complete(day, 9)
    });
    let page = series(Span::Days, &days).into_string();
    let flow = figure(&page, "flow");
    let chart = flow.split_once("</desc>").unwrap().1;
    // From -4 to 4, so a unit is an eighth of the height.
    for (class, y, height) in [
        ("one", "12.50%", "37.50%"),
        ("two", "0.00%", "12.50%"),
        ("three", "50.00%", "50.00%"),
    ] {
        let bars = between(chart, &format!("<rect class=\"{class}\" "), ">");
        let expected = format!("x=\"55.00%\" width=\"40.00%\" y=\"{y}\" height=\"{height}\"");
        assert_eq!(bars, [expected]);
    }
    let labels = between(flow, "text-anchor=\"end\">", "<");
    assert_eq!(labels, ["\u{2212}4", "\u{2212}2", "0", "2", "4"]);
    assert!(flow.contains("New: 3 in all. Returned: 1 in all. Departed: 4 in all"));
    assert!(flow.contains("2026-11-03, New 3, Returned 1, Departed 4, Found 0</title>"));
}

#[test]
fn weeks_have_the_totals_of_their_end_and_the_sums_of_their_days() {
    let days = days(16, |n, day| {
        let row = DayRow {
            new: 1,
            ..complete(day, i64::from(100 + n))
        };
        match n {
            5 => DayRow {
                complete: false,
                ..row
            },
            15 => DayRow {
                closed: false,
                complete: false,
                ..row
            },
            _ => row,
        }
    });
    let page = series(Span::Year, &days).into_string();
    let rows = between(figure(&page, "enrolled"), "<th scope=\"row\">", "</tr>");
    assert_eq!(rows.len(), 3);
    for (row, start) in rows.iter().zip([
        "2026-11-16 <span class=\"remark\">may still change</span></th><td class=\"number\">115<",
        "2026-11-09</th><td class=\"number\">113<",
        "2026-11-02 <span class=\"remark\">not certain</span></th><td class=\"number\">106<",
    ]) {
        assert!(row.starts_with(start), "{row}");
    }
    let rows = between(figure(&page, "flow"), "<th scope=\"row\">", "</tr>");
    assert!(
        rows[1].starts_with("2026-11-09</th><td class=\"number\">7<"),
        "{}",
        rows[1]
    );
    assert!(page.contains("1 of 3 weeks are complete"), "{page}");
}

#[test]
fn a_series_of_one_day_has_no_chart() {
    let page = series(Span::Days, &days(1, |n, day| complete(day, i64::from(n)))).into_string();
    assert!(
        page.contains("has just begun") && !page.contains("<svg"),
        "{page}"
    );
    assert!(!series(Span::Year, &[]).into_string().contains("<svg"));
}

#[test]
fn a_span_is_read_and_its_days_are_bounded() {
    assert_eq!(Span::read(None), Some(Span::Days));
    assert_eq!(Span::read(Some("90")), Some(Span::Days));
    assert_eq!(Span::read(Some("365")), Some(Span::Year));
    for wrong in ["", "1", "0365", "-1", "366"] {
        assert_eq!(Span::read(Some(wrong)), None, "{wrong}");
    }
    let today = day("2026-12-01");
    assert_eq!(Span::Days.since(today), day("2026-09-03"));
    assert_eq!(Span::Year.since(today), day("2025-12-01"));
}
