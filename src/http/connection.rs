//! Accepted connections: their number, the time and length of a request head, and the time that a
//! silent connection stays open.
//!
//! axum's server sets no such limits, so they are set below it, where bytes are read and written.
//! The service above reports requests through [`Activity`].
//!
//! A connection that cannot be served on is told so by a status where no response is under way
//! ([`Refusal`]).
//!
//! An accept loop over hyper-util with `header_read_timeout` and `max_buf_size` does not replace
//! [`Head`]:
//!
//! - hyper runs `header_read_timeout` also between two requests. One value cannot end a slow head
//!   after 2 checks and keep a silent connection for 12: with the first value connections of reverse
//!   proxies close early, with the second a slow head stays too long.
//! - hyper-util reads the first bytes to tell HTTP/1 from HTTP/2 before that timer starts, also with
//!   `http1_only` where connections can be upgraded, so a connection without any byte never ends.
//!   It speaks HTTP/2 as soon as any crate in the tree wants that of it, and then one connection has
//!   many responses.

mod head;
mod refusal;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

use head::{Head, Preface};
use refusal::{Refusal, Refused};

/// Time between two checks of an inactive connection. Two intervals are the maximum time for a
/// request head.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Checks without a request or a written byte after which a connection is closed: longer than
/// reverse proxies usually keep their end open, so that they never send into a closing connection.
const MAX_SILENT_CHECKS: u32 = 12;

/// Checks that a peer may take nothing of a response before it has to keep up with
/// [`MIN_READ_PER_CHECK`].
const READ_GRACE_CHECKS: u64 = 3;

/// Bytes of a response that a peer has to take between two checks on average: 16 KiB/s. A response
/// that waits to be read holds memory, and a byte a minute would hold it for ever.
const MIN_READ_PER_CHECK: u64 = 160 * 1024;

/// Returns the maximum time for a peer to take `len` bytes.
pub(super) fn read_timeout(len: usize) -> Duration {
    let checks = READ_GRACE_CHECKS + u64::try_from(len).unwrap_or(u64::MAX) / MIN_READ_PER_CHECK;
    CHECK_INTERVAL.saturating_mul(u32::try_from(checks).unwrap_or(u32::MAX))
}

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

/// A write that waits for the peer to read, until everything is written.
#[derive(Default)]
struct BlockedWrite {
    checks: u64,
    /// Bytes written since.
    len: u64,
}

impl BlockedWrite {
    /// Returns whether the peer reads too slowly: a large response has a longer time, and a fast
    /// beginning counts.
    fn is_overdue(&self) -> bool {
        self.checks > READ_GRACE_CHECKS + self.len / MIN_READ_PER_CHECK
    }
}

/// A time limit that has passed.
enum Overdue {
    /// That of a request head.
    Head,
    /// That of a silent connection, or of a peer that does not read.
    Connection,
}

/// One accepted connection.
pub(super) struct Connection {
    stream: TcpStream,
    activity: Arc<Activity>,

    /// The head that follows the request numbered `head_after`.
    head: Head,
    head_after: u64,
    preface: Preface,
    /// The status by which the connection ends.
    refusal: Option<Refusal>,

    /// Whether bytes were written since the last complete response.
    unflushed: bool,
    /// The write that the peer keeps waiting.
    blocked: Option<BlockedWrite>,

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
            preface: Preface::default(),
            refusal: None,
            unflushed: false,
            blocked: None,
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
    fn check_time(&mut self, cx: &mut Context<'_>) -> Result<(), Overdue> {
        while self.next_check.as_mut().poll(cx).is_ready() {
            self.next_check
                .as_mut()
                .reset(Instant::now() + self.check_interval);
            if self.refusal.as_mut().is_some_and(Refusal::is_overdue) {
                return Err(Overdue::Connection);
            }
            // Also while a request is in progress: the next one may be behind this response.
            if let Some(blocked) = &mut self.blocked {
                blocked.checks += 1;
                if blocked.is_overdue() {
                    return Err(Overdue::Connection);
                }
            }
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
            self.overdue_checks = if begun == 0 || in_head {
                self.overdue_checks + 1
            } else {
                0
            };
            self.silent_checks += 1;
            if self.overdue_checks == 2 {
                return Err(Overdue::Head);
            }
            if self.silent_checks == MAX_SILENT_CHECKS {
                return Err(Overdue::Connection);
            }
        }
        Ok(())
    }

    fn note_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        match &written {
            Poll::Pending => {
                self.blocked.get_or_insert_default();
                self.check_time(cx).map_err(|_| io::ErrorKind::TimedOut)?;
            }
            Poll::Ready(Ok(len)) => {
                self.wrote = true;
                if let Some(blocked) = &mut self.blocked {
                    blocked.len += u64::try_from(*len).unwrap_or_default();
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    /// Ends the connection by a status. No status can stand in the middle of a response.
    fn refuse(&mut self, why: Refused) -> io::Result<()> {
        if self.unflushed || self.is_busy() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.refusal.get_or_insert_with(|| Refusal::new(why));
        Ok(())
    }

    /// Writes the refusal, and fails once the peer has it.
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(refusal) = &mut self.refusal
            && refusal.poll(&mut self.stream, cx).is_pending()
            && self.check_time(cx).is_ok()
        {
            return Poll::Pending;
        }
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
    }

    /// Reads at most [`MAX_READ_LEN`] bytes. Returns whether they belong to a protocol that is
    /// spoken here.
    fn poll_read_part(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let of_head = self.head.room().filter(|_| !self.is_busy());
        let room = buf
            .remaining()
            .min(MAX_READ_LEN)
            .min(of_head.unwrap_or(MAX_READ_LEN));
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let new = part.filled();
        if self.preface.read(new) {
            return Poll::Ready(Ok(false));
        }
        if !self.is_busy() {
            self.head.read(new);
        }
        let len = new.len();
        buf.advance(len);
        Poll::Ready(Ok(true))
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
            this.head = Head::following();
        }
        if let Some(fault) = this.head.fault() {
            this.refuse(fault)?;
        }
        if this.refusal.is_none() {
            match this.poll_read_part(cx, buf) {
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(false)) => this.refuse(Refused::Http2)?,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => match this.check_time(cx) {
                    Ok(()) => return Poll::Pending,
                    Err(Overdue::Head) if this.head.len > 0 => this.refuse(Refused::SlowHead)?,
                    Err(_) => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                },
            }
        }
        this.poll_refusal(cx)
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

    /// Is called once all bytes of a response, or of a frame, are written.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.unflushed = false;
        this.blocked = None;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
