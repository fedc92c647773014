//! What the directory costs: proofs, frames, answers, start and memory.
//!
//! `cargo bench` prints each figure with its target and, if a limit applies, with that limit
//! measured in the same run. Machines are shared and noisy, so figures are medians of rounds and
//! comparisons are made round by round. `ATCOMM_BENCH_ENTRIES` sets the size of the directory
//! (default 1,000,000); an argument selects sections by name.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench may end with a message and prints its figures"
)]

mod lists;
mod service;
mod subscribers;

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atcomm::store::directory::Day;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::key::SigningKey;
use atcomm_proto::proof::{Container, verify};
use atcomm_proto::syntax::Did;
use atcomm_proto::wire::Frame;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::runtime::{Builder, Runtime};

use testkit::bench::{Sections, median, rate};
use testkit::load::{Connection, Report, ask};

use service::BenchDirectory;

/// Number of rounds whose median is printed.
const ROUNDS: usize = 9;

fn main() {
    let sections = Sections::from_arguments();
    if sections.contain("proof") {
        proofs();
    }
    if sections.contain("frames") {
        frames();
    }
    if sections.contain("subscribers") {
        subscribers::run();
    }
    if sections.contain("resolve") || sections.contain("lists") {
        served(&sections);
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

fn proofs() {
    let at = Timestamp::from_millis(1_798_761_540_000);
    for (curve, stem, target) in [
        ("K-256", "repo-k256-50-present", "at least 15,000/s"),
        ("P-256", "repo-p256-50-present", "none set"),
    ] {
        let car = std::fs::read(fixture(&format!("proof/{stem}.car"))).unwrap();
        let sidecar = std::fs::read(fixture(&format!("proof/{stem}.json"))).unwrap();
        let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).unwrap();
        let did = Did::parse(sidecar["did"].as_str().unwrap()).unwrap();
        let key = SigningKey::from_did_key(sidecar["signingKey"].as_str().unwrap()).unwrap();
        let check = || verify(black_box(&car), Container::GetRecord, &did, &key, at);
        check().expect("a sound fixture");
        let whole = rate(ROUNDS, || drop(black_box(check())));
        // The limit: a signature check on the same curve and nothing else.
        let limit = rate(ROUNDS, || {
            let _ = black_box(key.verify(black_box(b"message"), &[1; 64]));
        });
        println!(
            "proof check, {curve}, {} B: {whole:.0}/s per core (target {target}; \
             one signature check alone {limit:.0}/s)",
            car.len()
        );
    }
}

fn frames() {
    let list = std::fs::read(fixture("frames/frames.json")).unwrap();
    let list: Vec<serde_json::Value> = serde_json::from_slice(&list).unwrap();
    let mut others: Vec<Vec<u8>> = list
        .iter()
        .filter(|f| f["kind"] == "commit" && f["expect"] == "message")
        .map(|f| {
            std::fs::read(fixture(&format!("frames/{}", f["file"].as_str().unwrap()))).unwrap()
        })
        .filter(|bytes| matches!(Frame::parse(bytes), Ok(Frame::Commit(c)) if c.op.is_none()))
        .collect();
    others.sort_by_key(Vec::len);
    let frame = &others[others.len() / 2];
    let parsed = rate(ROUNDS, || drop(black_box(Frame::parse(black_box(frame)))));
    println!(
        "frame that does not concern us, {} B: {parsed:.0}/s per core (target at least 500,000/s)",
        frame.len()
    );
}

/// What is measured of a directory with many entries.
fn served(sections: &Sections) {
    let entries = std::env::var("ATCOMM_BENCH_ENTRIES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let empty = BenchDirectory::resident();
    let began = Instant::now();
    runtime.block_on(BenchDirectory::fill(dir.path(), entries));
    println!(
        "{entries} entries written in {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let began = Instant::now();
    let bench = runtime.block_on(BenchDirectory::open(dir.path(), Clock::system()));
    println!(
        "start with {entries} entries: {:.2} s (target under 3 s)",
        began.elapsed().as_secs_f64()
    );

    if sections.contain("resolve") {
        resolve(&runtime, &bench, entries, empty);
    }
    if sections.contain("lists") {
        lists::lists(&runtime, bench.address);
    }
    runtime.block_on(bench.close());
}

fn resolve(runtime: &Runtime, bench: &BenchDirectory, entries: u64, empty: f64) {
    let hot = BenchDirectory::did(7);
    let path = format!("/xrpc/at.didcomm.directory.resolveRecipient?actor={hot}");
    let body = runtime.block_on(async {
        let mut connection = Connection::connect(bench.address).await;
        connection.get(&path).await.body.to_vec()
    });
    let bare = bare(runtime, body);

    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let round = Duration::from_millis(700);
        let hot = path.clone();
        let a = ask(bench.address, 64, round, move |_| hot.clone());
        let b = ask(bare, 64, round, |_| "/".to_owned());
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
                ask(bench.address, connections, time, move |n| {
                    let account = (round * 1_000_003 + n * 7919) % entries;
                    let did = BenchDirectory::did(account);
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
    timelines(bench.address, entries);
    println!(
        "memory: {empty:.0} MB before, {:.0} MB with {entries} entries after this load, client \
         included (target under 600 MB at 1,000,000)",
        BenchDirectory::resident()
    );
}

/// Asks for the time series of a year: the totals, and one group.
fn timelines(address: SocketAddr, entries: u64) {
    let path = "/xrpc/at.didcomm.directory.getTimeline";
    let today = Day::of(Clock::system().now());
    let range = format!("since={}&until={today}", today.plus(-364));
    for (what, query) in [
        ("totals", range.clone()),
        (
            "one host",
            format!("{range}&group=host&name=host7.example.com"),
        ),
    ] {
        let time = Duration::from_millis(1500);
        let reports: Vec<Report> = (0..5)
            .map(|_| {
                let url = format!("{path}?{query}");
                ask(address, 1, time, move |_| url.clone())
            })
            .collect();
        let report = Report::median(reports);
        println!(
            "getTimeline, {what}, 365 days at {entries} entries: {:.0}/s, p50 {:.2} ms, \
             p99 {:.2} ms (target p99 under 5 ms)",
            report.rate, report.p50, report.p99
        );
    }
}

/// Serves the same bytes to every request and does nothing else.
fn bare(runtime: &Runtime, body: Vec<u8>) -> SocketAddr {
    let body = bytes::Bytes::from(body);
    let handler = move || {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    };
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            async move { axum::serve(listener, Router::new().route("/", get(handler))).await },
        );
        address
    })
}
