//! What the directory costs: proofs, frames, answers, start and memory.
//!
//! `cargo bench` prints each figure with its target and, if a limit applies, with that limit
//! measured in the same run. Machines are shared and noisy, so figures are medians of rounds and
//! comparisons are made round by round. `ATCOMM_BENCH_ENTRIES` sets the size of the directory
//! (default 1,000,000); an argument selects sections by name. Filling it takes minutes:
//! `ATCOMM_BENCH_DIR` names a directory in which the file is kept and found again on the same day.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench may end with a message and prints its figures"
)]

mod dataset;
mod filled;
mod lists;
mod recipients;
mod service;
mod stats;
mod subscribers;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::key::SigningKey;
use atcomm_proto::proof::{Container, verify};
use atcomm_proto::syntax::Did;
use atcomm_proto::wire::Frame;
use testkit::bench::{Sections, rate};

use filled::Filled;
use service::BenchDirectory;
use subscribers::READERS;

/// Number of rounds whose median is printed.
const ROUNDS: usize = 9;

/// Sections about a directory with many entries.
const SERVED: [&str; 6] = [
    "resolve",
    "recipients",
    "lists",
    "stats",
    "dataset",
    "subscribers",
];

fn main() {
    if let Some(url) = std::env::var_os(READERS) {
        return subscribers::read(url.to_str().unwrap());
    }
    let sections = Sections::from_arguments();
    if sections.contain("proof") {
        proofs();
    }
    if sections.contain("frames") {
        frames();
    }
    if SERVED.iter().any(|section| sections.contain(section)) {
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
    let runtime = service::runtime();
    let empty = BenchDirectory::resident();
    let filled = runtime.block_on(Filled::open(entries));

    let began = Instant::now();
    let bench = runtime.block_on(BenchDirectory::open(&filled.path, Clock::system()));
    println!(
        "start with {entries} entries: {:.2} s (target as before, 0.22 s)",
        began.elapsed().as_secs_f64()
    );

    if sections.contain("resolve") {
        recipients::one(&runtime, bench.address, entries);
        println!(
            "memory: {empty:.0} MB before, {:.0} MB with {entries} entries after this load, client \
             included (target as before, 134 MB at 1,000,000)",
            BenchDirectory::resident()
        );
    }
    if sections.contain("recipients") {
        recipients::many(&runtime, bench.address, entries);
    }
    if sections.contain("lists") {
        lists::lists(&runtime, bench.address);
    }
    if sections.contain("stats") {
        stats::numbers(&runtime, bench.address);
    }
    if sections.contain("dataset") {
        dataset::run(&filled.path);
    }
    if sections.contain("subscribers") {
        subscribers::run(&runtime, &bench, entries);
    }
    runtime.block_on(bench.close());
}
