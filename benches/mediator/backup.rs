//! Forwards while a backup of a mailbox of 1 GiB is made.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use atcomm::backup::{Plan, Recipients, make};
use atcomm_proto::clock::Clock;
use rusqlite::Connection as Database;
use testkit::load::Connection;
use tokio::task::JoinSet;

use super::CONNECTIONS;
use super::service::{BenchMediator, MEDIA_TYPE, PATH};

/// Bytes that wait in the mailbox.
const FILLED: u64 = 1 << 30;

/// Length of a message that waits, in bytes.
const WAITING: u64 = 4000;

/// Forwards a second, whether or not those before are answered.
const RATE: usize = 2000;

/// How long forwards are sent before the backup, and in all.
const BEFORE: Duration = Duration::from_secs(5);
const ALL: Duration = Duration::from_secs(30);

/// A forward: when it was due, and how long after that it was accepted.
type Sent = (Duration, Duration);

/// Measures forwards at a constant rate, before and while a backup is made.
pub(crate) fn beside(runtime: &tokio::runtime::Runtime, bench: &BenchMediator) {
    fill(&bench.mailbox());
    let bytes = std::fs::metadata(bench.mailbox()).unwrap().len() as f64;
    let identity = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let encrypted = Recipients::parse(&[identity.to_owned()]).unwrap();
    for (round, (name, recipients)) in [("plain", Recipients::default()), ("encrypted", encrypted)]
        .into_iter()
        .enumerate()
    {
        let count = RATE * ALL.as_secs() as usize;
        let forwards = bench.forwards(count, 900_000 + round, None);
        let (sent, begun, took, log) = runtime.block_on(run(bench, forwards, recipients));
        let (mut alone, mut meanwhile) = (Vec::new(), Vec::new());
        for (due, latency) in sent {
            let milliseconds = latency.as_secs_f64() * 1000.0;
            if due < begun {
                alone.push(milliseconds);
            } else if due < begun + took {
                meanwhile.push(milliseconds);
            }
        }
        let per_gib = took.as_secs_f64() / bytes * f64::from(1 << 30);
        println!(
            "backup, {name}, {:.2} GiB beside {RATE} forwards/s: {:.1} s, {per_gib:.1} s a GiB \
             (target at most 10); forwards meanwhile p50 {:.1} ms, p99 {:.1} ms (target under 50), \
             max {:.0} ms; before p99 {:.1} ms; the log takes {} MiB",
            bytes / f64::from(1 << 30),
            took.as_secs_f64(),
            part(&mut meanwhile, 0.5),
            part(&mut meanwhile, 0.99),
            part(&mut meanwhile, 1.0),
            part(&mut alone, 0.99),
            log >> 20
        );
    }
}

/// Writes messages that wait, as another program.
fn fill(mailbox: &Path) {
    let conn = Database::open(mailbox).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    let rows = 5000;
    for _ in 0..FILLED / (rows * WAITING) {
        let sql = format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO message (recipient, hash, size, stored_at, available_at, expires_at, body)
             SELECT (SELECT min(id) FROM recipient), randomblob(32), {WAITING}, 1800000000000,
               1800000000000, 4000000000000, randomblob({WAITING}) FROM n"
        );
        conn.execute_batch(&sql).unwrap();
    }
}

/// Sends all forwards at the rate, and makes a backup meanwhile. Returns what was sent, when the backup
/// began and how long it took, and the length of the log after it.
async fn run(
    bench: &BenchMediator,
    forwards: Vec<Vec<u8>>,
    recipients: Recipients,
) -> (Vec<Sent>, Duration, Duration, u64) {
    let began = Instant::now();
    let data = bench.mailbox().parent().unwrap().to_owned();
    let backup = async {
        tokio::time::sleep(BEFORE).await;
        let from = began.elapsed();
        let work = move || {
            let dir = data.with_file_name("backups");
            let plan = Plan {
                data_dir: &data,
                dir: &dir,
                recipients: &recipients,
                keep: Some(1),
                clock: &Clock::system(),
            };
            make(&plan, &mut || true).unwrap();
        };
        tokio::task::spawn_blocking(work).await.unwrap();
        let took = began.elapsed() - from;
        assert!(
            from + took < ALL,
            "the backup took longer than the forwards"
        );
        let mut log = bench.mailbox().into_os_string();
        log.push("-wal");
        (
            from,
            took,
            std::fs::metadata(log).map_or(0, |meta| meta.len()),
        )
    };
    let (sent, (from, took, log)) = tokio::join!(send(bench, forwards, began), backup);
    (sent, from, took, log)
}

async fn send(bench: &BenchMediator, forwards: Vec<Vec<u8>>, began: Instant) -> Vec<Sent> {
    let (forwards, next) = (Arc::new(forwards), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::connect(bench.address).await;
        let (forwards, next) = (Arc::clone(&forwards), Arc::clone(&next));
        tasks.spawn(async move {
            let mut sent = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(forward) = forwards.get(n) else {
                    return sent;
                };
                let due = Duration::from_secs(1) * u32::try_from(n).unwrap() / RATE as u32;
                tokio::time::sleep_until((began + due).into()).await;
                let answer = connection.post(PATH, MEDIA_TYPE, forward).await;
                assert_eq!(answer.status, 202);
                // From when it was due, so that a pause counts for all that it holds up.
                sent.push((due, began.elapsed().saturating_sub(due)));
            }
        });
    }
    tasks.join_all().await.concat()
}

/// Returns the figure below which a part of all is.
fn part(figures: &mut [f64], part: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    let index = (figures.len() as f64 * part) as usize;
    figures[index.min(figures.len() - 1)]
}
