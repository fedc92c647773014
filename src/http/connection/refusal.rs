//! The last words of a connection that cannot be served on: a status, written below the server.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Maximum bytes that are read and discarded after a refusal. Closing a connection with unread bytes
/// resets it, and a client that is still writing would not see the status.
const MAX_DRAINED_LEN: usize = 1024 * 1024;

/// Reasons to end a connection by a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The headers of a request are too long.
    LongHead,
    /// The request line is too long.
    LongTarget,
    /// A request head takes too long.
    SlowHead,
    /// The connection begins with the preface of HTTP/2.
    Http2,
}

impl Refused {
    /// Returns the whole response, in the form of every error.
    fn response(self) -> String {
        let (status, error, message) = match self {
            Self::LongHead => (
                "431 Request Header Fields Too Large",
                "RequestHeadTooLarge",
                "the headers are longer than 32 KiB",
            ),
            Self::LongTarget => (
                "414 URI Too Long",
                "RequestTargetTooLong",
                "the request line is longer than 32 KiB",
            ),
            Self::SlowHead => (
                "408 Request Timeout",
                "RequestTimeout",
                "the head of the request did not arrive in time",
            ),
            Self::Http2 => (
                "505 HTTP Version Not Supported",
                "VersionNotSupported",
                "HTTP/1.1 is spoken here",
            ),
        };
        let body = format!(r#"{{"error":"{error}","message":"{message}"}}"#);
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
             access-control-allow-origin: *\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len(),
        )
    }
}

/// A refusal on its way to the peer.
pub(super) struct Refusal {
    response: String,
    written: usize,
    is_shut: bool,
    drained: usize,
    checks: u32,
}

impl Refusal {
    pub(super) fn new(why: Refused) -> Self {
        Self {
            response: why.response(),
            written: 0,
            is_shut: false,
            drained: 0,
            checks: 0,
        }
    }

    /// Counts a check of the connection's time. Returns whether the peer takes too long.
    pub(super) fn is_overdue(&mut self) -> bool {
        self.checks += 1;
        self.checks > 1
    }

    /// Writes the response, closes this side, and reads what the peer still sends. Ready when the
    /// peer has closed its side, has sent too much or is gone.
    pub(super) fn poll(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(rest) = self.response.as_bytes().get(self.written..)
            && !rest.is_empty()
        {
            match ready!(Pin::new(&mut *stream).poll_write(cx, rest)) {
                Ok(len) if len > 0 => self.written += len,
                _ => return Poll::Ready(()),
            }
        }
        if !self.is_shut {
            if ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            self.is_shut = true;
        }
        let mut bytes = [0; 8192];
        while self.drained < MAX_DRAINED_LEN {
            let mut buf = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
            self.drained += buf.filled().len();
        }
        Poll::Ready(())
    }
}
