//! Accepted connections: their number, the time and length of a request head, and the time that a
//! silent connection stays open.
//!
//! axum's server sets no such limits, so they are set below it, where bytes are read and written.
//! The service above reports requests through [`Activity`].
//!
//! An accept loop over hyper-util with `header_read_timeout` and `max_buf_size` does not replace
//! [`Head`]:
//!
//! - hyper runs `header_read_timeout` also between two requests. One value cannot end a slow head
//!   after 2 checks and keep a silent connection for 12: with the first value connections of reverse
//!   proxies close early, with the second a slow head stays too long.
//! - hyper-util reads the first bytes to tell HTTP/1 from HTTP/2 before that timer starts, also with
//!   `http1_only` where connections can be upgraded, so a connection without any byte never ends.
//! - Beyond `max_buf_size` hyper answers 431; here a head that is too long gets no answer.

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

/// Time between two checks of an inactive connection. Two intervals are the maximum time for a
/// request head.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Checks without a request or a written byte after which a connection is closed: longer than
/// reverse proxies usually keep their end open, so that they never send into a closing connection.
const MAX_SILENT_CHECKS: u32 = 12;

/// Maximum length of a request head in bytes. Usual ones take a few hundred.
const MAX_HEAD_LEN: usize = 32 * 1024;

/// Maximum bytes per read. The server's buffer grows with the size of a read, to hundreds of KiB for
/// each connection that sends much; with this limit it stays small.
const MAX_READ_LEN: usize = 16 * 1024;

/// Pause after an error of `accept` that lasts, such as no free file descriptor.
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
        // The semaphore is never closed, so there is always a permit.
        let permit = Arc::clone(&self.slots).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // A failure costs only latency.
                    let _ = stream.set_nodelay(true);
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

/// Returns whether an error of `accept` concerns one connection that is gone already.
fn is_of_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// The requests of one connection, as the service above reports them.
#[derive(Default)]
pub(super) struct Activity {
    /// Number of requests whose head was read.
    begun: AtomicU64,
    /// Number of requests in progress.
    busy: AtomicUsize,
}

impl Activity {
    /// Records that a request head was read.
    pub(super) fn request_begun(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a guard: until it is dropped, the connection stays open and its bytes do not count as
    /// a request head.
    pub(super) fn busy_guard(self: &Arc<Self>) -> BusyGuard {
        self.busy.fetch_add(1, Ordering::Relaxed);
        BusyGuard(Arc::clone(self))
    }
}

/// The guard of [`Activity::busy_guard`].
pub(super) struct BusyGuard(Arc<Activity>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Progress of a request head. Bytes after its end are not counted, since one read can return a
/// head together with its body.
#[derive(Default)]
struct Head {
    /// Bytes read.
    len: usize,
    /// Whether a byte other than a line break was read: empty lines may precede a request.
    begun: bool,
    /// Whether the current line is empty so far.
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

/// One accepted connection.
pub(super) struct Connection {
    stream: TcpStream,
    activity: Arc<Activity>,

    /// The head that follows the request numbered `head_after`.
    head: Head,
    head_after: u64,
    /// Whether the peer speaks HTTP/1; `None` before the first bytes.
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

    /// Counts the checks that passed while nothing could be read or written, and fails once the
    /// connection was inactive for too long.
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
            // A head is due on a new connection, and on an old one after the first byte of the next.
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
        for begun in ["", "G", "GET / HTTP/1.1\r\nhost: x\r\nx-slow: "] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            let (answer, checks) = until_closed(&mut stream).await;
            assert!(
                answer.is_empty() && checks < f64::from(MAX_SILENT_CHECKS),
                "{answer} {checks}"
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
        let mut byte = [0];
        tokio::select! {
            () = drip => {}
            read = reader.read(&mut byte) => assert!(!matches!(read, Ok(1))),
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
        // Empty lines before a request do not end its head.
        assert_eq!(counted(&["\r\n\r\n\r\n", "G"]), (7, false));
        assert_eq!(counted(&["\r\n\r\nG\r\n\r\nbody"]), (9, true));
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
}
