//! Errors of reaching other hosts.

use std::error::Error as _;
use std::io;
use std::time::Duration;

/// Errors of an outbound request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The policy for untrusted addresses forbids the request, now and later.
    #[error("refused by policy: {0}")]
    Refused(Refusal),
    /// The name does not exist, or has no address.
    #[error("the host has no address")]
    NoSuchHost,
    /// No whole response came within the time limit.
    #[error("timed out")]
    Timeout,
    /// No connection, or it broke before the response was whole.
    #[error("the host cannot be reached")]
    Connect,
    /// The TLS handshake failed: certificate, name or protocol version.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The body, decompressed, is longer than the request allows.
    #[error("the answer is longer than {cap} bytes")]
    TooLarge {
        /// Bytes allowed.
        cap: usize,
    },
    /// Our own limits for this host, or a `Retry-After` that it sent, forbid the request for now.
    #[error("the host must not be asked for another {retry_after:?}")]
    HostBusy {
        /// The time until a new attempt makes sense.
        retry_after: Duration,
    },
    /// The host answered a request for a WebSocket with an HTTP response.
    #[error("the host answered {status} instead of opening a WebSocket")]
    Handshake {
        /// The HTTP status.
        status: u16,
        /// The pause that the host asks for.
        retry_after: Option<Duration>,
    },
    /// The response breaks the rules of HTTP or WebSockets, or redirects without end.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The settings cannot be used (only from `Net::bind`).
    #[error("network settings: {0}")]
    Settings(String),
}

impl NetError {
    /// Returns the time until a new attempt makes sense, where it is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::HostBusy { retry_after } => Some(*retry_after),
            Self::Handshake { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether a later attempt may succeed.
    pub fn is_transient(&self) -> bool {
        !matches!(
            self,
            Self::Refused(_) | Self::TooLarge { .. } | Self::Settings(_)
        )
    }

    /// Finds our own error, or that of the TLS library, among the sources of a client's error.
    pub(super) fn of_request(error: &reqwest::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(own) = cause.downcast_ref::<Self>() {
                return own.clone();
            }
            if let Some(cause) = cause.downcast_ref::<io::Error>()
                && let Self::Tls(reason) = Self::of_io(cause)
            {
                return Self::Tls(reason);
            }
            source = cause.source();
        }
        if error.is_timeout() {
            Self::Timeout
        } else if error.is_connect() {
            Self::Connect
        } else if error.is_decode() {
            Self::Protocol("the body cannot be decoded")
        } else if error.is_builder() {
            Self::Protocol("not a request that can be sent")
        } else {
            // The connection broke after it was open: bad HTTP or a lost peer, which look the same.
            Self::Connect
        }
    }

    /// Finds the error of the TLS library, which may be wrapped in several I/O errors.
    pub(super) fn of_io(mut error: &io::Error) -> Self {
        while let Some(inner) = error.get_ref() {
            if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
                return Self::Tls(tls.to_string());
            }
            match inner.downcast_ref::<io::Error>() {
                Some(inner) => error = inner,
                None => break,
            }
        }
        if error.kind() == io::ErrorKind::TimedOut {
            Self::Timeout
        } else {
            Self::Connect
        }
    }

    /// Returns the label of the outcome in metrics: one of a closed set, never a name.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::NoSuchHost => "no_host",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Tls(_) => "tls",
            Self::TooLarge { .. } => "too_large",
            Self::HostBusy { .. } => "busy",
            Self::Handshake { .. } | Self::Protocol(_) => "protocol",
            Self::Settings(_) => "settings",
        }
    }
}

/// The rule that forbids dialling an untrusted address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Neither `https` nor `wss`.
    #[error("the scheme is not https")]
    Scheme,
    /// A port below 1024 other than the scheme's own.
    #[error("the port is neither 443 nor 1024 and above")]
    Port,
    /// A user name or password in the URL.
    #[error("the URL names a user")]
    UserInfo,
    /// An IP address instead of a name, in any spelling.
    #[error("the host is an address, not a name")]
    AddressLiteral,
    /// A name that is not public: a single label or a reserved top-level domain.
    #[error("the host name is not a public one")]
    HostName,
    /// The name resolves only to addresses that are not public unicast.
    #[error("the host's address is not public")]
    Address,
}

/// Errors of looking up TXT records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The name server answered that there is no such record.
    #[error("there is no such record")]
    NoRecords,
    /// No usable answer: server failure, timeout, or far too many records.
    #[error("the name could not be looked up")]
    Failed,
}
