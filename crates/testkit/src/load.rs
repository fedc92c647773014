//! A small HTTP/1.1 client, and closed loops of many such clients: each connection sends its next
//! request when the previous one is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Greatest length of an answer, in bytes.
const MAX_ANSWER: usize = 2 << 20;

/// Size of a connection's buffer before an answer needs more, in bytes. The clients of a bench are
/// part of the memory that it prints.
const FIRST_BUFFER: usize = 64 * 1024;

/// A kept-alive connection.
pub struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, stored in the buffer of its connection.
pub struct Answer<'c> {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: &'c [u8],
}

/// The figures of one round; latencies in milliseconds.
#[derive(Debug)]
pub struct Report {
    /// Answers per second over all connections.
    pub rate: f64,
    /// The median latency.
    pub p50: f64,
    /// The 99th percentile of the latency.
    pub p99: f64,
    /// The greatest latency.
    pub max: f64,
    /// Number of answers with a status other than 2xx.
    pub refused: usize,
}

impl Connection {
    /// Connects to a server.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            buffer: vec![0; FIRST_BUFFER],
        }
    }

    /// Sends a GET and reads the whole answer.
    pub async fn get(&mut self, path: &str) -> Answer<'_> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.exchange(request.as_bytes()).await
    }

    /// Posts a body and reads the whole answer.
    pub async fn post(&mut self, path: &str, media_type: &str, body: &[u8]) -> Answer<'_> {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {media_type}\r\nContent-Length: \
             {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.exchange(&request).await
    }

    async fn exchange(&mut self, request: &[u8]) -> Answer<'_> {
        self.socket.write_all(request).await.unwrap();
        let mut filled = 0;
        let (status, head, end) = loop {
            if filled == self.buffer.len() && filled < MAX_ANSWER {
                self.buffer.resize(filled * 2, 0);
            }
            filled += match self.socket.read(&mut self.buffer[filled..]).await.unwrap() {
                0 => panic!("the server closed a connection, or its answer is too long"),
                n => n,
            };
            if let Some(whole) = whole(&self.buffer[..filled]) {
                break whole;
            }
        };
        Answer {
            status,
            body: &self.buffer[head..end],
        }
    }
}

/// Returns the status of an answer and the start and end of its body, or `None` while the answer is
/// incomplete.
fn whole(bytes: &[u8]) -> Option<(u16, usize, usize)> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    let end = head + length.unwrap_or(0);
    (bytes.len() >= end).then(|| (text[9..12].parse().unwrap(), head, end))
}

impl Report {
    fn new(mut latencies: Vec<Duration>, refused: usize, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        let at = |part: f64| {
            let index = (latencies.len() as f64 * part) as usize;
            latencies[index.min(latencies.len() - 1)].as_secs_f64() * 1000.0
        };
        Self {
            rate: latencies.len() as f64 / elapsed.as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
            refused,
        }
    }

    /// Returns the report with the median rate.
    pub fn median(mut reports: Vec<Self>) -> Self {
        reports.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        reports.swap_remove(reports.len() / 2)
    }
}

/// Sends GET requests for `time` over `connections` connections, from a thread of its own; `path`
/// names the n-th request. Panics on any status but 200.
pub fn ask(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    path: impl Fn(u64) -> String + Send + Clone + 'static,
) -> Report {
    let work = async move {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for connection in 0..connections {
            let path = path.clone();
            tasks.spawn(async move {
                let mut socket = Connection::connect(address).await;
                let (mut latencies, mut n) = (Vec::new(), 0);
                while began.elapsed() < time {
                    let path = path(connection as u64 + n * connections as u64);
                    let asked = Instant::now();
                    assert_eq!(socket.get(&path).await.status, 200, "{path}");
                    latencies.push(asked.elapsed());
                    n += 1;
                }
                (latencies, 0)
            });
        }
        collect(tasks, began).await
    };
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(work)
    });
    thread.join().unwrap()
}

/// Posts all bodies over `connections` connections.
pub async fn post(
    address: SocketAddr,
    connections: usize,
    path: &'static str,
    media_type: &'static str,
    bodies: Vec<Vec<u8>>,
) -> Report {
    let (bodies, next) = (Arc::new(bodies), Arc::new(AtomicUsize::new(0)));
    let mut sockets = Vec::new();
    for _ in 0..connections {
        sockets.push(Connection::connect(address).await);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut socket in sockets {
        let (bodies, next) = (Arc::clone(&bodies), Arc::clone(&next));
        tasks.spawn(async move {
            let (mut latencies, mut refused) = (Vec::new(), 0);
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let asked = Instant::now();
                let answer = socket.post(path, media_type, body).await;
                refused += usize::from(answer.status / 100 != 2);
                latencies.push(asked.elapsed());
            }
            (latencies, refused)
        });
    }
    collect(tasks, began).await
}

async fn collect(mut tasks: JoinSet<(Vec<Duration>, usize)>, began: Instant) -> Report {
    let (mut latencies, mut refused) = (Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (some, bad) = done.unwrap();
        latencies.extend(some);
        refused += bad;
    }
    Report::new(latencies, refused, began.elapsed())
}
