//! Errors of reaching other hosts.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::NetError as HickoryError;
use http::header::InvalidHeaderValue;
use rustls::pki_types::pem;

/// Errors of an outbound request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The policy for untrusted addresses forbids the request, now and later.
    #[error("refused by policy: {0}")]
    Refused(#[source] Refusal),
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
    Tls(#[from] TlsError),
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
    Settings(#[source] Arc<SettingsError>),
}

impl From<SettingsError> for NetError {
    fn from(error: SettingsError) -> Self {
        Self::Settings(Arc::new(error))
    }
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
                return TlsError::Session(tls.clone()).into();
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

/// Errors of a TLS handshake or session.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// The host's name cannot stand in a certificate.
    #[error("not a name that a certificate can hold")]
    Name,
    /// The TLS library gave up: a peer refused the other, or broke the protocol.
    #[error(transparent)]
    Session(rustls::Error),
}

/// Compares the texts, since errors of the TLS library need not equal themselves.
impl PartialEq for TlsError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for TlsError {}

/// Errors of network settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The port of `https` is set outside development.
    #[error("https_port is for development only")]
    HttpsPort,
    /// The contact cannot be part of the header `User-Agent`.
    #[error("contact has characters that no header may have")]
    Contact(#[source] InvalidHeaderValue),
    /// The resolver refuses its name servers.
    #[error("name server: {0}")]
    NameServer(#[source] HickoryError),
    /// The file of certificate authorities is unusable.
    #[error("{}: {error}", .path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        #[source]
        error: AuthoritiesError,
    },
    /// The TLS library has no protocol version for its cipher suites.
    #[error(transparent)]
    Tls(rustls::Error),
    /// The HTTP library cannot make a client.
    #[error(transparent)]
    Client(reqwest::Error),
}

/// Compares the texts, since most errors of libraries cannot be compared.
impl PartialEq for SettingsError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for SettingsError {}

/// Errors of a file of certificate authorities.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// The file cannot be read, or is not PEM.
    #[error(transparent)]
    Pem(#[from] pem::Error),
    /// The TLS library refuses a certificate of the file.
    #[error(transparent)]
    Certificate(#[from] rustls::Error),
    /// The file is empty, or has only sections of other kinds.
    #[error("no certificate in this file")]
    NoCertificate,
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
