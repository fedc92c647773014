//! Accepted connections: how many, how long a request head may take and be, how long a silent
//! one may stay.
//!
//! axum's server sets no such limits, so they lie here, below it, where bytes come and go. What
//! the bytes mean is told by the service above through [`Activity`].

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// How often a connection is looked at that gives no work. Two of these are the longest time that
/// a request head may take.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Ticks without a request or a byte written after which a connection is closed: longer than the
/// usual reverse proxy keeps its own end open, so that it never sends into a closing connection.
const MAX_SILENT_CHECKS: u32 = 12;

/// Longest request head in bytes. Ours take a few hundred.
const MAX_HEAD_LEN: usize = 32 * 1024;

/// Bytes read at a time. The server's buffer grows with what it gets at once, to hundreds of KiB for
/// each connection that sends much; with this it stays small.
const MAX_READ_LEN: usize = 16 * 1024;

/// Pause after an error that the next attempt would meet again, such as no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A listener that admits a bounded number of connections.
pub(super) struct LimitedListener {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    check_interval: Duration,
}

impl LimitedListener {
    pub(super) fn new(listener: TcpListener, max_connections: usize) -> Self {
        let slots = max_connections.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            listener,
            slots: Arc::new(Semaphore::new(slots)),
            check_interval: CHECK_INTERVAL,
        }
    }
}

impl Listener for LimitedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed; without a permit the connection would just be uncounted.
        let permit = Arc::clone(&self.slots).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Only speed is lost where this fails.
                    drop(stream.set_nodelay(true));
                    return (Connection::new(stream, permit, self.check_interval), peer);
                }
                Err(error) if is_of_peer(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Whether an error of `accept` is about one connection that is gone already.
fn is_of_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// What the service above makes of a connection's bytes.
#[derive(Default)]
pub(super) struct Activity {
    /// Requests whose head was read.
    begun: AtomicU64,
    /// Requests whose answer is being made.
    busy: AtomicUsize,
}

impl Activity {
    /// A request head was read.
    pub(super) fn request_begun(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps the connection alive, and its bytes from being taken for a head, until dropped.
    pub(super) fn busy_guard(self: &Arc<Self>) -> BusyGuard {
        self.busy.fetch_add(1, Ordering::Relaxed);
        BusyGuard(Arc::clone(self))
    }
}

/// See [`Activity::busy_guard`].
pub(super) struct BusyGuard(Arc<Activity>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How far a request head has come. What is read in one piece with its end is not counted: the
/// server reads as much at once as there is, which may be all of a body.
#[derive(Default)]
struct Head {
    /// Bytes of it.
    len: usize,
    /// Whether more than empty lines has come, which may stand before a request.
    begun: bool,
    /// Whether its current line is empty so far.
    empty_line: bool,
    complete: bool,
}

impl Head {
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.complete {
                return;
            }
            self.len += 1;
            match byte {
                b'\r' => {}
                b'\n' => {
                    self.complete = self.begun && self.empty_line;
                    self.empty_line = true;
                }
                _ => {
                    self.begun = true;
                    self.empty_line = false;
                }
            }
        }
    }
}

/// One connection.
pub(super) struct Connection {
    stream: TcpStream,
    activity: Arc<Activity>,

    /// What was read since the request numbered `head_after` began, and so of the next head.
    head: Head,
    head_after: u64,
    /// Whether it speaks HTTP/1; not known before its first bytes.
    http1: Option<bool>,

    check_interval: Duration,
    next_check: Pin<Box<Sleep>>,
    begun_at_check: u64,
    wrote: bool,
    silent_checks: u32,
    overdue_checks: u32,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn new(
        stream: TcpStream,
        permit: Option<OwnedSemaphorePermit>,
        check_interval: Duration,
    ) -> Self {
        Self {
            stream,
            activity: Arc::default(),
            head: Head::default(),
            head_after: 0,
            http1: None,
            check_interval,
            next_check: Box::pin(sleep(check_interval)),
            begun_at_check: 0,
            wrote: false,
            silent_checks: 0,
            overdue_checks: 0,
            _permit: permit,
        }
    }

    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    fn is_busy(&self) -> bool {
        self.activity.busy.load(Ordering::Relaxed) > 0
    }

    /// Lets time pass for a connection that has nothing to read or cannot write.
    fn check_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.next_check.as_mut().poll(cx).is_ready() {
            self.next_check
                .as_mut()
                .reset(Instant::now() + self.check_interval);
            let begun = self.activity.begun.load(Ordering::Relaxed);
            let is_active = begun != self.begun_at_check || self.is_busy();
            self.begun_at_check = begun;
            if std::mem::take(&mut self.wrote) || is_active {
                self.silent_checks = 0;
                self.overdue_checks = 0;
                continue;
            }
            // A new connection owes its first head; an old one the rest of what it has begun.
            let in_head = self.head_after == begun && self.head.len > 0;
            let is_head_due = begun == 0 || (in_head && self.http1 == Some(true));
            self.overdue_checks = if is_head_due {
                self.overdue_checks + 1
            } else {
                0
            };
            self.silent_checks += 1;
            if self.overdue_checks == 2 || self.silent_checks == MAX_SILENT_CHECKS {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    fn note_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            self.check_time(cx)?;
        } else {
            self.wrote = true;
        }
        written
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let begun = this.activity.begun.load(Ordering::Relaxed);
        if begun != this.head_after {
            this.head_after = begun;
            this.head = Head::default();
        }
        if this.head.len > MAX_HEAD_LEN && this.http1 == Some(true) {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let room = buf.remaining().min(MAX_READ_LEN);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        let read = Pin::new(&mut this.stream).poll_read(cx, &mut part);
        if read.is_pending() {
            this.check_time(cx)?;
            return read;
        }
        let new = part.filled();
        if this.http1.is_none() && !new.is_empty() {
            this.http1 = Some(!new.starts_with(b"PRI"));
        }
        if !this.is_busy() {
            this.head.read(new);
        }
        let len = new.len();
        buf.advance(len);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.note_write(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.note_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
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

    /// Answers everything after a while, and tells the connection about it.
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

    struct Each(Duration);

    impl Service<IncomingStream<'_, LimitedListener>> for Each {
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
        tokio::spawn(async move { axum::serve(listener, Each(wait)).await });
        address
    }

    /// What comes until the server closes, and after how many ticks it did.
    async fn until_closed(stream: &mut TcpStream) -> (String, f64) {
        let (begun, mut answer) = (Instant::now(), Vec::new());
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
        drop(read.await.expect("the server closes"));
        let ticks = begun.elapsed().as_secs_f64() / SHORT.as_secs_f64();
        (String::from_utf8(answer).unwrap(), ticks)
    }

    #[tokio::test]
    async fn a_head_must_come_soon() {
        let address = serve(10, Duration::ZERO).await;
        for begun in ["", "G", "GET / HTTP/1.1\r\nhost: x\r\nx-slow: "] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            let (answer, ticks) = until_closed(&mut stream).await;
            assert!(
                answer.is_empty() && ticks < f64::from(MAX_SILENT_CHECKS),
                "{answer} {ticks}"
            );
        }
        // One byte now and then is not soon.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let drip = async {
            while writer.write_all(b"x").await.is_ok() {
                sleep(SHORT / 4).await;
            }
        };
        let mut byte = [0];
        tokio::select! {
            () = drip => {}
            read = reader.read(&mut byte) => assert!(!matches!(read, Ok(1))),
            () = sleep(Duration::from_secs(20)) => panic!("the server reads for ever"),
        }
    }

    #[tokio::test]
    async fn a_silent_connection_stays_longer_and_a_busy_one_as_long_as_it_takes() {
        let address = serve(10, SHORT * 20).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let (answer, ticks) = until_closed(&mut stream).await;
        assert!(answer.ends_with("ok"), "{answer}");
        assert!(ticks > f64::from(20 + MAX_SILENT_CHECKS - 2), "{ticks}");
    }

    #[tokio::test]
    async fn a_head_has_an_end() {
        let address = serve(10, Duration::ZERO).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let pour = async {
            let mut sent = writer.write(b"GET / HTTP/1.1\r\n").await.unwrap();
            while let Ok(n) = writer
                .write(b"x-filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n")
                .await
            {
                sent += n;
                assert!(sent < 100_000_000, "it reads for ever");
            }
        };
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(pour, reader.read_to_end(&mut answer));
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{read:?}");
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        let counted = |pieces: &[&str]| {
            let mut head = Head::default();
            pieces.iter().for_each(|piece| head.read(piece.as_bytes()));
            (head.len, head.complete)
        };
        assert_eq!(counted(&["GET / HTTP/1.1\r\nx: y\r\n"]), (22, false));
        assert_eq!(counted(&["GET /\r\n\r\nbody\n\n"]), (9, true));
        assert_eq!(counted(&["GET /\r\n", "\r", "\nbody", "more"]), (9, true));
        assert_eq!(counted(&["GET /\n\nbody"]), (7, true));
        // Empty lines before a request are no end of it.
        assert_eq!(counted(&["\r\n\r\n\r\n", "G"]), (7, false));
        assert_eq!(counted(&["\r\n\r\nG\r\n\r\nbody"]), (9, true));
    }

    #[tokio::test]
    async fn a_full_house_lets_others_wait() {
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
}
