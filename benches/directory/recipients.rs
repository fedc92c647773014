//! What the answer about one account costs, and that about a hundred.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::bench::median;
use testkit::load::{Report, ask};
use tokio::runtime::Runtime;

use crate::ROUNDS;
use crate::filled::{did, enrolled};
use crate::service::{bare, body_of, cpu_of_service};

/// Accounts of one question, the most that the method takes.
const ACTORS: u64 = 100;

/// Questions whose accounts are warm.
const WARM: u64 = 8;

/// How long a round of questions lasts.
const ROUND: Duration = Duration::from_millis(700);

/// Asks for one account that is ready, and for accounts in the store.
pub(crate) fn one(runtime: &Runtime, address: SocketAddr, entries: u64) {
    let hot = did(7);
    let path = format!("/xrpc/at.didcomm.directory.resolveRecipient?actor={hot}");
    let bare = bare(runtime, body_of(runtime, address, &path));

    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let hot = path.clone();
        let a = ask(address, 64, ROUND, move |_| hot.clone());
        let b = ask(bare, 64, ROUND, |_| "/".to_owned());
        ratios.push(a.rate / b.rate);
        ours.push(a);
        theirs.push(b);
    }
    let (ours, theirs) = (Report::median(ours), Report::median(theirs));
    println!(
        "resolveRecipient, ready, 64 connections: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms; bare handler \
         {:.0}/s, p99 {:.2} ms; ratio {:.2} (targets: ratio at least 0.90, p99 under 3 ms)",
        ours.rate,
        ours.p50,
        ours.p99,
        theirs.rate,
        theirs.p99,
        median(&ratios)
    );

    let cold = |connections: usize| {
        let time = Duration::from_millis(1500);
        let reports: Vec<Report> = (0..5)
            .map(|round: u64| {
                ask(address, connections, time, move |n| {
                    let did = enrolled((round * 1_000_003 + n * 7919) % entries);
                    format!("/xrpc/at.didcomm.directory.resolveRecipient?actor={did}")
                })
            })
            .collect();
        Report::median(reports)
    };
    for connections in [1, 64] {
        let report = cold(connections);
        println!(
            "resolveRecipient, from the store, {connections} connection(s): {:.0}/s, p50 {:.2} ms, \
             p99 {:.2} ms (target p99 under 2 ms)",
            report.rate, report.p50, report.p99
        );
    }
}

/// Asks for a hundred accounts at once: those of a few questions, whose views are ready, and others,
/// which are read from the store.
pub(crate) fn many(runtime: &Runtime, address: SocketAddr, entries: u64) {
    let question = move |first: u64| {
        let actors =
            (0..ACTORS).map(|n| format!("actors={}", enrolled((first + n * 31) % entries)));
        let actors: Vec<String> = actors.collect();
        let method = "/xrpc/at.didcomm.directory.resolveRecipients";
        format!("{method}?{}", actors.join("&"))
    };
    let bare = bare(runtime, body_of(runtime, address, &question(0)));
    let warm = move |n: u64| question(n % WARM * 10_007);
    // Questions that no other asks.
    let cold = move |n: u64| question(n * 104_729 + 17);
    for (what, target, first) in [
        ("warm", "target over 5,000/s per core", true),
        ("from the store", "no target", false),
    ] {
        let (mut per_core, mut ratios, mut reports) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS as u64 {
            let cpu = cpu_of_service();
            let report = ask(address, 4, ROUND, move |n| {
                if first {
                    warm(n)
                } else {
                    cold(round * 1_000_000 + n)
                }
            });
            let accounts = report.rate * ROUND.as_secs_f64() * ACTORS as f64;
            per_core.push(accounts / (cpu_of_service() - cpu).max(0.01));
            ratios.push(report.rate / ask(bare, 4, ROUND, |_| "/".to_owned()).rate);
            reports.push(report);
        }
        let report = Report::median(reports);
        println!(
            "resolveRecipients of {ACTORS}, {what}, 4 connections: {:.0} accounts/s per core, {:.0} \
             accounts/s, p50 {:.2} ms, p99 {:.2} ms ({target}); {:.2} of a bare handler with the \
             same bytes",
            median(&per_core),
            report.rate * ACTORS as f64,
            report.p50,
            report.p99,
            median(&ratios)
        );
    }
}
