//! What numbers and time series cost.

use std::net::SocketAddr;
use std::time::Duration;

use atcomm::store::directory::Day;
use atcomm_proto::clock::Clock;
use testkit::load::{Report, ask};
use tokio::runtime::Runtime;

use crate::ROUNDS;
use crate::lists::time;
use crate::service::{bare, body_of};

const STATS: &str = "/xrpc/at.didcomm.directory.getStats";
const TIMELINE: &str = "/xrpc/at.didcomm.directory.getTimeline";

/// Asks for the numbers, and for the time series of a year: the totals and single groups.
pub(crate) fn numbers(runtime: &Runtime, address: SocketAddr) {
    for connections in [1, 64] {
        let limit = limit(runtime, address, connections, STATS);
        let report = rounds(address, connections, STATS);
        println!(
            "getStats, {connections} connection(s): {:.0}/s, p50 {:.2} ms, p99 {:.2} ms (target p99 \
             under 5 ms); bare handler p99 {:.2} ms",
            report.rate, report.p50, report.p99, limit.p99
        );
    }
    let mut read: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            // An answer is given again within a second.
            std::thread::sleep(Duration::from_millis(1050));
            runtime.block_on(time(address, STATS))
        })
        .collect();
    read.sort_by(f64::total_cmp);
    println!(
        "getStats, read from the store: median {:.2} ms, slowest of {ROUNDS} {:.2} ms (target p99 under \
         5 ms)",
        read[ROUNDS / 2],
        read[ROUNDS - 1]
    );
    let today = Day::of(Clock::system().now());
    let year = format!("since={}&until={today}", today.plus(-364));
    for (what, query) in [
        ("totals by day", year.clone()),
        ("totals by week", format!("{year}&interval=week")),
        (
            "one host",
            format!("{year}&group=host&name=host7.example.com"),
        ),
        (
            "one mediator",
            format!("{year}&group=mediator&name=did:web:mediator999.example.com"),
        ),
        ("the smaller hosts together", format!("{year}&group=host")),
    ] {
        let path = format!("{TIMELINE}?{query}");
        let limit = limit(runtime, address, 1, &path);
        let report = rounds(address, 1, &path);
        println!(
            "getTimeline, {what}, 365 days: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms (target p99 under \
             5 ms); bare handler p99 {:.2} ms",
            report.rate, report.p50, report.p99, limit.p99
        );
    }
}

/// Asks for the same bytes of a server that does nothing else.
fn limit(runtime: &Runtime, address: SocketAddr, connections: usize, path: &str) -> Report {
    let bare = bare(runtime, body_of(runtime, address, path));
    rounds(bare, connections, "/")
}

/// Returns the median of several rounds.
fn rounds(address: SocketAddr, connections: usize, path: &str) -> Report {
    let reports = (0..5).map(|_| {
        let path = path.to_owned();
        let time = Duration::from_millis(1200);
        ask(address, connections, time, move |_| path.clone())
    });
    Report::median(reports.collect())
}
