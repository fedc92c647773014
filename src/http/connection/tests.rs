use std::convert::Infallible;
use std::future::{Ready, ready};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::serve::IncomingStream;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::Service;

use super::*;

const SHORT: Duration = Duration::from_millis(100);

/// Answers every request after a pause, and reports it to the connection.
#[derive(Clone)]
struct Slow(Arc<Activity>, Duration);

impl Service<Request> for Slow {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.0.request_begun();
        let (guard, wait) = (self.0.busy_guard(), self.1);
        Box::pin(async move {
            sleep(wait).await;
            let answer = Router::new().fallback(async || "ok").call(request).await;
            drop(guard);
            answer
        })
    }
}

struct MakeSlow(Duration);

impl Service<IncomingStream<'_, LimitedListener>> for MakeSlow {
    type Response = Slow;
    type Error = Infallible;
    type Future = Ready<Result<Slow, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, stream: IncomingStream<'_, LimitedListener>) -> Self::Future {
        ready(Ok(Slow(Arc::clone(stream.io().activity()), self.0)))
    }
}

async fn serve(max_connections: usize, wait: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut listener = LimitedListener::new(listener, max_connections);
    listener.check_interval = SHORT;
    tokio::spawn(async move { axum::serve(listener, MakeSlow(wait)).await });
    address
}

/// Returns the bytes until the server closes, and the number of check intervals until then.
async fn until_closed(stream: &mut TcpStream) -> (String, f64) {
    let (begun, mut answer) = (Instant::now(), Vec::new());
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
    drop(read.await.expect("the server closes"));
    let checks = begun.elapsed().as_secs_f64() / SHORT.as_secs_f64();
    (String::from_utf8(answer).unwrap(), checks)
}

#[tokio::test]
async fn a_request_head_has_a_timeout() {
    let address = serve(10, Duration::ZERO).await;
    for begun in ["", "G", "PRI", "GET / HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let (answer, checks) = until_closed(&mut stream).await;
        assert!(checks < f64::from(MAX_SILENT_CHECKS), "{checks}");
        // A request that has begun is told so; without one, a response would answer nothing.
        assert_eq!(begun.is_empty(), answer.is_empty(), "{answer}");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408 "),
            "{answer}"
        );
    }
    // A head that arrives byte by byte is cut off too.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let drip = async {
        while writer.write_all(b"x").await.is_ok() {
            sleep(SHORT / 4).await;
        }
    };
    let mut answer = [0; 12];
    tokio::select! {
        () = drip => {}
        _ = reader.read_exact(&mut answer) => assert_eq!(&answer, b"HTTP/1.1 408"),
        () = sleep(Duration::from_secs(20)) => panic!("the server reads for ever"),
    }
}

#[tokio::test]
async fn a_silent_connection_outlasts_the_head_timeout_and_a_busy_one_both() {
    let address = serve(10, SHORT * 20).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let (answer, checks) = until_closed(&mut stream).await;
    assert!(answer.ends_with("ok"), "{answer}");
    assert!(checks > f64::from(20 + MAX_SILENT_CHECKS - 2), "{checks}");
}

#[tokio::test]
async fn a_request_head_has_a_maximum_length() {
    let address = serve(10, Duration::ZERO).await;
    let cookie = |len| {
        format!(
            "GET / HTTP/1.1\r\nhost: x\r\ncookie: {}\r\n\r\n",
            "c".repeat(len)
        )
    };
    let target = |len| format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "t".repeat(len));
    let many = |n| {
        format!(
            "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n",
            "x-y: z\r\n".repeat(n)
        )
    };
    let lines = |len| "\r\n".repeat(len);
    for (request, status) in [
        (cookie(32_000), 200),
        (cookie(33_000), 431),
        (cookie(40_000), 431),
        (cookie(500_000), 431),
        (target(32_000), 200),
        (target(40_000), 414),
        (target(400_000), 414),
        (many(90), 200),
        (many(200), 431),
        (many(50_000), 431),
        (lines(20_000), 414),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let pour = async {
            let written = writer.write_all(request.as_bytes()).await;
            // The client reads only after it has written everything.
            written.map(|()| sleep(SHORT / 2))?.await;
            writer.shutdown().await
        };
        let poured = pour.await;
        let mut answer = Vec::new();
        drop(reader.read_to_end(&mut answer).await);
        let answer = String::from_utf8(answer).unwrap();
        let begin = &request[..request.len().min(20)];
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{begin} {poured:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_head_without_end_is_not_read_for_ever() {
    let address = serve(10, Duration::ZERO).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let pour = async {
        let mut sent = writer.write(b"GET / HTTP/1.1\r\n").await.unwrap();
        while let Ok(n) = writer.write(&[b'y'; 1000]).await {
            sent += n;
            assert!(sent < 100_000_000, "it reads for ever");
        }
    };
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(pour, reader.read_to_end(&mut answer));
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{read:?}");
}

#[tokio::test]
async fn what_is_not_spoken_here_is_told_so() {
    let address = serve(10, Duration::ZERO).await;
    for (request, status) in [
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0", 505),
        ("GET / HTTP/3.0\r\nhost: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost x\r\n\r\n", 400),
        ("\u{16}\u{3}\u{1}\0\u{4}\u{1}", 400),
        ("GET / HTTP/1.1\r\ncontent-length: 1, 2\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The preface comes in two pieces.
        let (first, rest) = request.as_bytes().split_at(3);
        stream.write_all(first).await.unwrap();
        sleep(SHORT / 10).await;
        drop(stream.write_all(rest).await);
        let (answer, _) = until_closed(&mut stream).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
    }
    // No status stands in the middle of a response.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let two = format!(
        "GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\ncookie: {}",
        "c".repeat(50_000)
    );
    drop(stream.write_all(two.as_bytes()).await);
    let (answer, _) = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{answer}");
    assert!(answer.contains("okHTTP/1.1 431 "), "{answer}");
}

/// A body that counts itself as long as it is in memory.
struct CountedBody(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for CountedBody {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves responses of `len` bytes. Returns the number of those in memory, too.
async fn serve_long(len: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut listener = LimitedListener::new(listener, 10);
    listener.check_interval = SHORT;
    let make = MakeLongResponses(len, Arc::clone(&count));
    tokio::spawn(async move { axum::serve(listener, make).await });
    (address, count)
}

#[derive(Clone)]
struct LongResponses(Arc<Activity>, usize, Arc<AtomicUsize>);

struct MakeLongResponses(usize, Arc<AtomicUsize>);

impl Service<IncomingStream<'_, LimitedListener>> for MakeLongResponses {
    type Response = LongResponses;
    type Error = Infallible;
    type Future = Ready<Result<LongResponses, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, stream: IncomingStream<'_, LimitedListener>) -> Self::Future {
        let activity = Arc::clone(stream.io().activity());
        ready(Ok(LongResponses(activity, self.0, Arc::clone(&self.1))))
    }
}

impl Service<Request> for LongResponses {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        self.0.request_begun();
        // A request behind an unread response is in progress, and is not polled.
        let (guard, len, count) = (self.0.busy_guard(), self.1, Arc::clone(&self.2));
        Box::pin(async move {
            drop(guard);
            count.fetch_add(1, Ordering::SeqCst);
            let body = CountedBody(vec![b'x'; len], count);
            Ok(Response::new(bytes::Bytes::from_owner(body).into()))
        })
    }
}

#[tokio::test]
async fn inv7_a_response_that_is_not_read_does_not_keep_its_connection() {
    const LEN: usize = 64 << 20;
    let (address, count) = serve_long(LEN).await;
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    // Reads nothing, also with another request behind the first; takes too little, in steps that
    // are large enough for the system to hand on that something was taken.
    for (per_check, requests) in [(0, 1), (0, 2), (128 << 10, 1)] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&request.repeat(requests)).await.unwrap();
        let mut part = vec![0; per_check];
        let begun = Instant::now();
        while count.load(Ordering::SeqCst) == 0 {
            sleep(SHORT / 10).await;
        }
        while count.load(Ordering::SeqCst) > 0 {
            sleep(SHORT).await;
            if per_check > 0 {
                drop(stream.read_exact(&mut part).await);
            }
            assert!(begun.elapsed() < SHORT * 100, "it is kept for ever");
        }
        let held = begun.elapsed();
        assert!(held > SHORT * 3, "{held:?}");
        // A connection that is only silent stays longer.
        assert!(
            per_check > 0 || held < SHORT * MAX_SILENT_CHECKS,
            "{held:?}"
        );
        println!("{per_check} bytes a check, {requests} requests: held for {held:?}");
    }
    // A slow reader who keeps up gets everything.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut taken = 0;
    let mut bytes = vec![0; 1 << 20];
    while taken < LEN {
        sleep(SHORT / 4).await;
        let read = stream.read(&mut bytes).await.unwrap();
        assert!(read > 0, "cut off after {taken} bytes");
        taken += read;
    }
}

#[tokio::test]
async fn connections_beyond_the_maximum_wait() {
    let address = serve(1, Duration::ZERO).await;
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(request).await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(request).await.unwrap();
    let early = tokio::time::timeout(SHORT, second.read_exact(&mut byte)).await;
    assert!(early.is_err());
    drop(first);
    second.read_exact(&mut byte).await.unwrap();
}
