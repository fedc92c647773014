//! What many readers of the change log cost the service.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::runtime::{Builder, Runtime};

use super::service::BenchDirectory;
use atcomm_proto::clock::Clock;

/// Readers, as the target has it.
const READERS: usize = 1000;

/// Changes in a second, likewise.
const CHANGES: u64 = 10;

/// How long is measured.
const MEASURED: Duration = Duration::from_secs(20);

/// Name of the threads that are measured, beside those of the store.
const SERVICE: &str = "service";

/// Prints the part of a core that the service takes for its readers while accounts change.
pub(crate) fn run() {
    let dir = tempfile::tempdir().unwrap();
    let service = runtime(SERVICE);
    let directory = service.block_on(async {
        BenchDirectory::fill(dir.path(), 1000).await;
        BenchDirectory::open(dir.path(), Clock::system()).await
    });
    let readers = runtime("readers");
    let received = readers.block_on(async {
        let url = format!(
            "ws://{}/xrpc/at.didcomm.directory.subscribeUpdates",
            directory.address
        );
        let mut sockets = Vec::new();
        for _ in 0..READERS {
            let (socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
            sockets.push(socket);
        }
        let (cpu, begun) = (cpu_of_service(), Instant::now());
        let reading = sockets.into_iter().map(|mut socket| {
            tokio::spawn(async move {
                let mut frames = 0_u64;
                while let Ok(Some(Ok(message))) =
                    tokio::time::timeout_at((begun + MEASURED).into(), socket.next()).await
                {
                    frames += u64::from(message.is_binary());
                }
                frames
            })
        });
        let reading: Vec<_> = reading.collect();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / CHANGES as u32);
        for n in 0..CHANGES * MEASURED.as_secs() {
            ticks.tick().await;
            directory.change(n % 1000).await;
        }
        let mut received = 0;
        for reader in reading {
            received += reader.await.unwrap();
        }
        let took = begun.elapsed().as_secs_f64();
        println!(
            "{READERS} readers of {CHANGES} changes/s: {:.3} core (target below 0.1); {:.0} frames/s written",
            (cpu_of_service() - cpu) / took,
            received as f64 / took
        );
        received
    });
    assert!(received > 0);
    service.block_on(directory.close());
}

fn runtime(name: &str) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).thread_name(name).enable_all();
    builder.build().unwrap()
}

/// Returns the seconds of CPU that the threads of the service and its store have taken.
fn cpu_of_service() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let ticks = tasks.flatten().filter_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        if name != SERVICE && !name.starts_with("store") {
            return None;
        }
        // User and system time are the fields 14 and 15 (proc(5)).
        let mut fields = rest.split(' ').skip(11).map(str::parse::<f64>);
        Some(fields.next()?.ok()? + fields.next()?.ok()?)
    });
    ticks.sum::<f64>() / 100.0
}
