//! Why something could not be reached.

use std::time::Duration;

/// Why an outbound request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The policy for names learnt from the network forbids it. Asking again is of no use.
    #[error("refused by policy: {0}")]
    Refused(Refusal),
    /// The name does not exist, or has no address.
    #[error("the host has no address")]
    NoSuchHost,
    /// No whole answer within the time given.
    #[error("timed out")]
    Timeout,
    /// No connection, or it broke before the answer was whole.
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
    /// Our own limits for this host, or a `Retry-After` that it sent, forbid asking now.
    #[error("the host must not be asked for another {retry_after:?}")]
    HostBusy {
        /// When a new attempt makes sense.
        retry_after: Duration,
    },
    /// The host answered a WebSocket request with this HTTP status instead.
    #[error("the host answered {status} instead of opening a WebSocket")]
    Handshake {
        /// The HTTP status.
        status: u16,
        /// What the host said about a new attempt.
        retry_after: Option<Duration>,
    },
    /// The answer breaks HTTP or WebSocket rules, or redirects without end.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The settings cannot be used (only from `Net::bind`).
    #[error("network settings: {0}")]
    Settings(String),
}

impl NetError {
    /// When a new attempt makes sense, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::HostBusy { retry_after } => Some(*retry_after),
            Self::Handshake { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether a later attempt may go better.
    pub fn is_transient(&self) -> bool {
        !matches!(
            self,
            Self::Refused(_) | Self::TooLarge { .. } | Self::Settings(_)
        )
    }

    /// The outcome label in metrics: a closed set, never a name.
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

/// The rule that forbids dialling a name learnt from the network.
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
    /// An address instead of a name, in whatever spelling.
    #[error("the host is an address, not a name")]
    AddressLiteral,
    /// A name that is not public: a single label or a reserved top-level domain.
    #[error("the host name is not a public one")]
    HostName,
    /// The name leads to addresses that are not public unicast.
    #[error("the host's address is not public")]
    Address,
}

/// Why a TXT look-up gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The name server says that there is no such record.
    #[error("there is no such record")]
    NoRecords,
    /// No usable answer: server failure, timeout, or far too many records.
    #[error("the name could not be looked up")]
    Failed,
}
