//! The service under a small load for an hour: what it holds stays what it was.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use testkit::bench::median;
use testkit::load::{Connection, post};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::service::{BenchMediator, MEDIA_TYPE, PATH, Recipient, peer_identity};

/// How long the service is watched.
const WATCHED: Duration = Duration::from_secs(3600);

/// Time between two looks at the service.
const INTERVAL: Duration = Duration::from_secs(30);

/// Looks between two prints of the figures; a whole number of prints is made in [`WATCHED`].
const LOOKS: usize = 10;

/// Messages that the load sends in a second.
const MESSAGES: usize = 40;

/// Recipients of the load; each picks up its messages in turn, one in a second.
const RECIPIENTS: usize = 16;

/// Connections that the load leaves open without a whole request, oldest first to be closed.
const IDLE: usize = 20;

/// Name in the environment of the address that a process of load uses.
pub(crate) const LOAD: &str = "ATCOMM_BENCH_SOAK";

/// What the process of the service holds.
#[derive(Clone, Copy)]
struct Held {
    resident: f64,
    log: f64,
    file: f64,
    descriptors: f64,
    threads: f64,
}

/// One of the figures.
type Figure = fn(&Held) -> f64;

/// Watches the service while a process of its own sends and picks up messages, asks the directory,
/// opens sockets, and leaves requests unfinished. Prints its figures every five minutes.
pub(crate) fn run(runtime: &tokio::runtime::Runtime, bench: &BenchMediator) {
    let mut load = start(bench.address);
    let (began, mut looks) = (Instant::now(), Vec::new());
    while began.elapsed() < WATCHED {
        std::thread::sleep(INTERVAL);
        assert!(load.try_wait().unwrap().is_none(), "the load has ended");
        looks.push(look(&bench.mailbox()));
        if looks.len().is_multiple_of(LOOKS) {
            print(&looks);
        }
    }
    load.kill().unwrap();
    load.wait().unwrap();
    // The service still answers.
    let health = async {
        Connection::connect(bench.address)
            .await
            .get("/xrpc/_health")
            .await
            .status
    };
    assert_eq!(runtime.block_on(health), 200);
}

/// Prints the median of each figure in the second quarter of the looks and in the last.
fn print(looks: &[Held]) {
    let quarter = looks.len() / 4;
    let (second, last) = (&looks[quarter..2 * quarter], &looks[3 * quarter..]);
    println!(
        "{} minutes of {MESSAGES} messages/s, sockets and unfinished requests, the median of the \
         second quarter and of the last:",
        INTERVAL.as_secs() * looks.len() as u64 / 60
    );
    let figures: [(&str, Figure); 5] = [
        ("resident memory, MB", |held| held.resident),
        ("log of the mailbox, MB", |held| held.log),
        ("mailbox, MB", |held| held.file),
        ("file descriptors", |held| held.descriptors),
        ("threads", |held| held.threads),
    ];
    for (name, figure) in figures {
        let of = |part: &[Held]| median(&part.iter().map(figure).collect::<Vec<_>>());
        let most = looks.iter().map(figure).fold(0.0, f64::max);
        println!(
            "  {name}: {:.1} -> {:.1}, at most {most:.1}",
            of(second),
            of(last)
        );
    }
}

fn start(address: SocketAddr) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env(LOAD, address.to_string())
        .spawn()
        .unwrap()
}

fn look(mailbox: &Path) -> Held {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let mut log = mailbox.as_os_str().to_owned();
    log.push("-wal");
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    Held {
        resident: field("VmRSS:") * 1024.0 / 1e6,
        log: bytes(Path::new(&log)) as f64 / 1e6,
        file: bytes(mailbox) as f64 / 1e6,
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count() as f64,
        threads: field("Threads:"),
    }
}

/// Is the load, until the process is killed.
pub(crate) fn load(address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let mediator = peer_identity(address);
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::connect(address).await;
        let mut recipients = Vec::new();
        for _ in 0..RECIPIENTS {
            let recipient = Recipient::new(mediator.clone());
            recipient.register(&mut connection).await;
            recipients.push(recipient);
        }
        let (mut idle, mut second) = (std::collections::VecDeque::new(), 0);
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            let forwards = |n: usize| recipients[n % RECIPIENTS].forward(second, n);
            let forwards = (0..MESSAGES).map(forwards).collect();
            let sent = post(address, 4, PATH, MEDIA_TYPE, forwards).await;
            assert_eq!(sent.refused, 0, "a valid message was refused");
            let recipient = &recipients[second % RECIPIENTS];
            recipient.empty(&mut connection).await;
            if second.is_multiple_of(10) {
                // A socket that lives for a moment, and receives what waits and comes.
                drop(recipient.live_socket(address).await);
            }
            for path in ["/", "/xrpc/at.didcomm.directory.getStats"] {
                assert_eq!(connection.get(path).await.status, 200, "{path}");
            }
            let mut unfinished = TcpStream::connect(address).await.unwrap();
            unfinished
                .write_all(b"POST /didcomm HTTP/1.1\r\n")
                .await
                .unwrap();
            idle.push_back(unfinished);
            if idle.len() > IDLE {
                idle.pop_front();
            }
            second += 1;
        }
    });
}
