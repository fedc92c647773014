//! A small HTTP/1.1 client that posts, and a closed loop of many of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct Post {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// One answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// What came of a round; latencies in milliseconds.
pub(crate) struct Report {
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Answers that were no 2xx.
    pub(crate) refused: usize,
}

impl Post {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            buffer: vec![0; 2 << 20],
        }
    }

    pub(crate) async fn send(&mut self, message: &[u8]) -> Answer {
        let mut request = format!(
            "POST /didcomm HTTP/1.1\r\nHost: bench\r\nContent-Type: \
             application/didcomm-encrypted+json\r\nContent-Length: {}\r\n\r\n",
            message.len()
        )
        .into_bytes();
        request.extend_from_slice(message);
        self.socket.write_all(&request).await.unwrap();
        let mut filled = 0;
        loop {
            filled += match self.socket.read(&mut self.buffer[filled..]).await.unwrap() {
                0 => panic!("the server closed a connection"),
                n => n,
            };
            if let Some(answer) = whole(&self.buffer[..filled]) {
                return answer;
            }
        }
    }
}

fn whole(bytes: &[u8]) -> Option<Answer> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    let status = text[9..12].parse().unwrap();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    let end = head + length.unwrap_or(0);
    (bytes.len() >= end).then(|| Answer {
        status,
        body: bytes[head..end].to_vec(),
    })
}

/// Sends all messages over so many connections, each of which sends the next when it is answered.
pub(crate) async fn drive(
    address: SocketAddr,
    connections: usize,
    messages: Vec<Vec<u8>>,
) -> Report {
    let (messages, next) = (Arc::new(messages), Arc::new(AtomicUsize::new(0)));
    let mut posts = Vec::new();
    for _ in 0..connections {
        posts.push(Post::connect(address).await);
    }
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut post in posts {
        let (messages, next) = (Arc::clone(&messages), Arc::clone(&next));
        tasks.spawn(async move {
            let (mut latencies, mut refused) = (Vec::new(), 0);
            while let Some(message) = messages.get(next.fetch_add(1, Ordering::Relaxed)) {
                let asked = Instant::now();
                let answer = post.send(message).await;
                latencies.push(asked.elapsed());
                refused += usize::from(answer.status / 100 != 2);
            }
            (latencies, refused)
        });
    }
    let (mut latencies, mut refused) = (Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (some, bad) = done.unwrap();
        latencies.extend(some);
        refused += bad;
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
        refused,
    }
}
