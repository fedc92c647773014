//! Forwards and pickups while another program reads `mailbox.db`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection as Database;
use testkit::bench::median;
use testkit::load::{Connection, Report};

use super::service::{BenchMediator, MEDIA_TYPE, PATH};
use super::{CONNECTIONS, MESSAGES, send};

/// How long the other program keeps its read transaction open.
const HELD: Duration = Duration::from_secs(60);

/// How long forwards are sent before and after.
const BESIDE: Duration = Duration::from_secs(10);

/// Time between two pickups.
const PICKUP_INTERVAL: Duration = Duration::from_millis(20);

/// The figures of one phase.
struct Phase {
    rounds: Vec<Report>,
    pickups: Vec<f64>,
    log: u64,
}

/// Measures forwards of 64 clients and the pickups of another one: alone, while another program
/// holds a read transaction, and after it has ended.
pub(crate) fn reader(runtime: &tokio::runtime::Runtime, bench: &BenchMediator) {
    let mut round = 500_000;
    let mut phase = |name: &str, time| {
        let phase = runtime.block_on(run(bench, time, &mut round));
        let rates: Vec<f64> = phase.rounds.iter().map(|report| report.rate).collect();
        let p99: Vec<f64> = phase.rounds.iter().map(|report| report.p99).collect();
        let max = |figures: &mut dyn Iterator<Item = f64>| figures.fold(0.0, f64::max);
        println!(
            "forwards and pickups, {name}: {:.0}/s in {} rounds, p99 {:.1} ms, max {:.0} ms; \
             pickup median {:.1} ms, max {:.0} ms; the log takes {} MiB",
            median(&rates),
            rates.len(),
            median(&p99),
            max(&mut phase.rounds.iter().map(|report| report.max)),
            median(&phase.pickups),
            max(&mut phase.pickups.iter().copied()),
            phase.log >> 20
        );
    };
    phase("no other program", BESIDE);
    let other = Database::open(bench.mailbox()).unwrap();
    other.execute_batch("BEGIN").unwrap();
    let count = |conn: &Database| {
        let sql = "SELECT messages FROM total WHERE name = 'mail'";
        conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let before = count(&other);
    phase("another program reads (target: max under 200 ms)", HELD);
    assert_eq!(count(&other), before, "the other program reads one state");
    other.execute_batch("COMMIT").unwrap();
    drop(other);
    phase("the other program has ended", BESIDE);
}

async fn run(bench: &BenchMediator, time: Duration, round: &mut usize) -> Phase {
    let began = Instant::now();
    let (mut rounds, mut pickups) = (Vec::new(), Vec::new());
    let recipient = bench.recipient(1);
    while began.elapsed() < time {
        *round += 1;
        let forwards = bench.forwards(MESSAGES, *round, None);
        let sent = AtomicBool::new(false);
        let picking = async {
            let mut connection = Connection::connect(bench.address).await;
            let mut times = Vec::new();
            while !sent.load(Ordering::Relaxed) {
                let request = recipient.delivery_request(1);
                let asked = Instant::now();
                assert_eq!(
                    connection.post(PATH, MEDIA_TYPE, &request).await.status,
                    200
                );
                times.push(asked.elapsed().as_secs_f64() * 1000.0);
                tokio::time::sleep(PICKUP_INTERVAL).await;
            }
            times
        };
        let sending = async {
            let report = send(bench, CONNECTIONS, forwards).await;
            sent.store(true, Ordering::Relaxed);
            report
        };
        let (report, times) = tokio::join!(sending, picking);
        assert_eq!(report.refused, 0, "a valid message was refused");
        rounds.push(report);
        pickups.extend(times);
    }
    let mut log = bench.mailbox().into_os_string();
    log.push("-wal");
    Phase {
        rounds,
        pickups,
        log: std::fs::metadata(log).map_or(0, |meta| meta.len()),
    }
}
