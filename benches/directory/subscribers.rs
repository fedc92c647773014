//! What many readers of the change log cost the service.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::runtime::{Builder, Runtime};

use super::service::BenchDirectory;

/// Readers, as the target has it.
const SUBSCRIBERS: usize = 1000;

/// Changes in a second, likewise.
const CHANGES: u32 = 10;

/// How long is measured with readers, and before them without.
const MEASURED: Duration = Duration::from_secs(20);

/// Name in the environment of the URL that a process of readers reads.
pub(crate) const READERS: &str = "ATCOMM_BENCH_READERS";

/// Prints the part of a core that this process takes while accounts change, with all readers in a
/// process of their own: the service, its store, and what has the accounts change.
pub(crate) fn run(runtime: &Runtime, bench: &BenchDirectory, entries: u64) {
    let alone = runtime.block_on(changes(bench, entries));
    let (mut readers, mut output) = start(bench);
    let with = runtime.block_on(changes(bench, entries));
    // They end with their standard input, and say what they have read.
    drop(readers.stdin.take());
    let mut frames = String::new();
    output.read_to_string(&mut frames).unwrap();
    readers.wait().unwrap();
    let frames: u64 = frames.trim().parse().unwrap();
    println!(
        "{SUBSCRIBERS} readers of {CHANGES} changes/s: {with:.3} core (target below 0.1), {alone:.3} \
         core without readers; {:.0} frames/s read",
        frames as f64 / MEASURED.as_secs_f64()
    );
    let expected = SUBSCRIBERS as u64 * u64::from(CHANGES) * MEASURED.as_secs();
    assert!(frames >= expected, "{frames} frames of {expected}");
}

/// Has accounts change for a while. Returns the part of a core that was taken.
async fn changes(bench: &BenchDirectory, entries: u64) -> f64 {
    let (cpu, begun) = (cpu(), Instant::now());
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CHANGES);
    for n in 0..u64::from(CHANGES) * MEASURED.as_secs() {
        ticks.tick().await;
        bench.change(n * 7919 % entries).await;
    }
    // What the last of them leads to.
    tokio::time::sleep(Duration::from_secs(1)).await;
    (self::cpu() - cpu) / begun.elapsed().as_secs_f64()
}

/// Starts a process of readers. Returns once all of them are connected.
fn start(bench: &BenchDirectory) -> (Child, BufReader<ChildStdout>) {
    let method = "at.didcomm.directory.subscribeUpdates";
    let url = format!("ws://{}/xrpc/{method}", bench.address);
    let mut readers = Command::new(std::env::current_exe().unwrap())
        .env(READERS, url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(readers.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "connected\n");
    (readers, output)
}

/// Reads the stream at a URL as many readers until the end of the standard input, and prints how many
/// frames have come.
pub(crate) fn read(url: &str) {
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut reading = tokio::task::JoinSet::new();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        for _ in 0..SUBSCRIBERS {
            let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
            // The greeting.
            socket.next().await.unwrap().unwrap();
            let mut stopped = stopped.clone();
            reading.spawn(async move {
                let mut frames = 0_u64;
                loop {
                    let message = tokio::select! {
                        message = socket.next() => message.unwrap().unwrap(),
                        _ = stopped.changed() => break frames,
                    };
                    frames += u64::from(message.is_binary());
                }
            });
        }
        println!("connected");
        let input = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        input.await.unwrap().unwrap();
        stop.send(true).unwrap();
        let frames: u64 = reading.join_all().await.into_iter().sum();
        println!("{frames}");
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
