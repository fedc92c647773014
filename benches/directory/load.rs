//! A small closed-loop HTTP/1.1 client: every connection asks, reads the answer, asks again.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How hard and how long.
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) time: Duration,
}

/// What came of it; latencies in milliseconds.
pub(crate) struct Report {
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Report {
    /// The report with the median rate.
    pub(crate) fn median(mut reports: Vec<Self>) -> Self {
        reports.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        reports.swap_remove(reports.len() / 2)
    }
}

impl Load {
    /// Runs against `address` from a thread of its own; `path` names the n-th request.
    pub(crate) fn run(
        &self,
        address: SocketAddr,
        path: impl Fn(u64) -> String + Send + Clone + 'static,
    ) -> Report {
        let (connections, time) = (self.connections, self.time);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(drive(address, connections, time, path))
        })
        .join()
        .unwrap()
    }
}

async fn drive(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    path: impl Fn(u64) -> String + Send + Clone + 'static,
) -> Report {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for connection in 0..connections {
        let path = path.clone();
        tasks.spawn(async move {
            let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
            socket.set_nodelay(true).unwrap();
            let (mut latencies, mut buffer, mut n) = (Vec::new(), vec![0; 64 * 1024], 0);
            while began.elapsed() < time {
                let path = path(connection as u64 + n * connections as u64);
                let asked = Instant::now();
                let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
                socket.write_all(request.as_bytes()).await.unwrap();
                let mut filled = 0;
                loop {
                    filled += match socket.read(&mut buffer[filled..]).await.unwrap() {
                        0 => panic!("the server closed a connection"),
                        n => n,
                    };
                    if answered(&buffer[..filled]).is_some() {
                        break;
                    }
                }
                latencies.push(asked.elapsed());
                n += 1;
            }
            latencies
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done.unwrap());
    }
    let elapsed = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |part: f64| {
        let index = (latencies.len() as f64 * part) as usize;
        latencies[index.min(latencies.len() - 1)].as_secs_f64() * 1000.0
    };
    Report {
        rate: latencies.len() as f64 / elapsed,
        p50: at(0.5),
        p99: at(0.99),
    }
}

/// Where the body of a whole answer begins, once it is there; anything but a 200 is an error.
fn answered(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let length = text
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")
                .map(str::to_owned)
        })
        .unwrap();
    (bytes.len() >= head + length.trim().parse::<usize>().unwrap()).then_some(head)
}

/// One answer's body.
pub(crate) fn fetch(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let head = answered(&answer).unwrap();
    answer.split_off(head)
}
