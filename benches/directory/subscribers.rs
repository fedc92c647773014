//! What many readers of the change log cost the service.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::service::BenchDirectory;

/// Readers, as the target has it.
const SUBSCRIBERS: usize = 1000;

/// Changes in a second, likewise.
const CHANGES: u32 = 10;

/// How long accounts change with readers, and before them without.
const MEASURED: Duration = Duration::from_secs(20);

/// Frames that each reader gets, one for each change.
const FRAMES: usize = CHANGES as usize * MEASURED.as_secs() as usize;

/// Name in the environment of the URL that a process of readers reads.
pub(crate) const READERS: &str = "ATCOMM_BENCH_READERS";

/// Longest wait of a reader for a frame.
const STALLED: Duration = Duration::from_secs(60);

/// Prints the part of a core that this process takes while accounts change, with all readers in a
/// process of their own: the service, its store, and what has the accounts change. What is taken
/// until the last reader has the last change counts.
pub(crate) fn run(runtime: &Runtime, bench: &BenchDirectory, entries: u64) {
    let before = cpu();
    runtime.block_on(changes(bench, entries));
    let alone = cpu() - before;
    let (mut readers, mut output) = start(bench);
    let before = cpu();
    runtime.block_on(changes(bench, entries));
    let mut frames = String::new();
    output.read_to_string(&mut frames).unwrap();
    let with = cpu() - before;
    readers.wait().unwrap();
    let core = |seconds: f64| seconds / MEASURED.as_secs_f64();
    println!(
        "{SUBSCRIBERS} readers of {CHANGES} changes/s: {:.3} core (target below 0.1), {:.3} core without \
         readers; {} frames read of {}",
        core(with),
        core(alone),
        frames.trim(),
        SUBSCRIBERS * FRAMES
    );
}

/// Has accounts change for a while.
async fn changes(bench: &BenchDirectory, entries: u64) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CHANGES);
    for n in 0..FRAMES as u64 {
        ticks.tick().await;
        bench.change(n * 7919 % entries).await;
    }
}

/// Starts a process of readers. Returns once all of them are connected.
fn start(bench: &BenchDirectory) -> (Child, BufReader<ChildStdout>) {
    let method = "at.didcomm.directory.subscribeUpdates";
    let url = format!("ws://{}/xrpc/{method}", bench.address);
    let mut readers = Command::new(std::env::current_exe().unwrap())
        .env(READERS, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(readers.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "connected\n");
    (readers, output)
}

/// Reads the stream at a URL as many readers until all have all frames, or one gets none for long.
/// Prints how many frames have come.
pub(crate) fn read(url: &str) {
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut reading = tokio::task::JoinSet::new();
        for _ in 0..SUBSCRIBERS {
            let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
            // The greeting.
            socket.next().await.unwrap().unwrap();
            reading.spawn(async move {
                let mut frames = 0;
                while frames < FRAMES
                    && let Ok(Some(Ok(message))) = timeout(STALLED, socket.next()).await
                {
                    frames += usize::from(message.is_binary());
                }
                frames
            });
        }
        println!("connected");
        println!("{}", reading.join_all().await.into_iter().sum::<usize>());
    });
}

/// Returns the seconds of CPU that this process has taken.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    // User and system time are the fields 14 and 15 (proc(5)), in hundredths.
    let times = rest.split(' ').skip(11).take(2);
    times.map(|time| time.parse::<f64>().unwrap() / 100.0).sum()
}
