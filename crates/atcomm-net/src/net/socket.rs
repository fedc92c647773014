//! WebSockets under the same policy as HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::{SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::Url;

use super::client::{Net, count};
use super::error::{NetError, TlsError};
use super::host_limiter::{HostKey, Priority};
use super::policy::{self, Trust};
use super::retry_after;

/// Addresses tried before the host is unreachable.
const MAX_ATTEMPTS: usize = 4;

/// Read buffer of one connection, in bytes. Large, since a firehose sends much and few are open.
const READ_BUFFER: usize = 64 * 1024;

/// The byte stream below a WebSocket: TCP, or TLS over TCP.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Options of opening a WebSocket.
#[derive(Debug, Clone)]
pub struct WsOptions {
    /// Longest message in bytes. A longer message ends the connection with an error.
    pub max_frame: usize,
    /// Time limit for name look-up, connection, TLS and handshake together.
    pub handshake_timeout: Duration,
    /// Subprotocol requested (`Sec-WebSocket-Protocol`).
    pub subprotocol: Option<&'static str>,
}

impl Default for WsOptions {
    /// Allows frames of a firehose (5 MB, atproto event stream specification) and 10 s; requests no
    /// subprotocol.
    fn default() -> Self {
        Self {
            max_frame: 5_000_000,
            handshake_timeout: Duration::from_secs(10),
            subprotocol: None,
        }
    }
}

impl Net {
    /// Opens a WebSocket. Only the handshake counts against the host's limits, since connections may
    /// stay open for days.
    pub async fn connect_ws(
        &self,
        url: &Url,
        trust: Trust,
        options: &WsOptions,
    ) -> Result<WebSocketStream<Box<dyn Wire>>, NetError> {
        let result =
            tokio::time::timeout(options.handshake_timeout, self.open(url, trust, options))
                .await
                .unwrap_or(Err(NetError::Timeout));
        count("ws", result.as_ref().err());
        result
    }

    async fn open(
        &self,
        url: &Url,
        trust: Trust,
        options: &WsOptions,
    ) -> Result<WebSocketStream<Box<dyn Wire>>, NetError> {
        let host = policy::check(url, trust, policy::WEBSOCKET, self.development())?;
        let port = url
            .port_or_known_default()
            .ok_or(NetError::Protocol("no port"))?;
        let key = HostKey::new(&host, port, trust);
        let _permit = self.inner.hosts.acquire(&key, Priority::Background).await?;
        let tcp = self.dial(&host, port, trust).await?;
        let stream: Box<dyn Wire> = if url.scheme() == "wss" {
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(|_| TlsError::Name)?;
            let tls = TlsConnector::from(Arc::clone(&self.inner.ws_tls))
                .connect(name, tcp)
                .await
                .map_err(|e| NetError::of_io(&e))?;
            Box::new(tls)
        } else {
            Box::new(tcp)
        };
        let request = self.upgrade_request(url, options)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(options.max_frame))
            .max_frame_size(Some(options.max_frame));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok(socket),
            Err(WsError::Http(answer)) => {
                let retry_after = retry_after::requested(
                    answer.status(),
                    answer.headers(),
                    self.inner.clock.now(),
                );
                if let Some(wait) = retry_after {
                    self.inner.hosts.close(&key, wait);
                }
                Err(NetError::Handshake {
                    status: answer.status().as_u16(),
                    retry_after,
                })
            }
            Err(WsError::Io(e)) => Err(NetError::of_io(&e)),
            Err(WsError::Capacity(CapacityError::MessageTooLong { max_size, .. })) => {
                Err(NetError::TooLarge { cap: max_size })
            }
            Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => Err(NetError::Connect),
            Err(_) => Err(NetError::Protocol("not a WebSocket handshake")),
        }
    }

    /// The request that asks a host to speak WebSocket on the connection.
    fn upgrade_request(
        &self,
        url: &Url,
        options: &WsOptions,
    ) -> Result<http::Request<()>, NetError> {
        let mut request = url
            .as_str()
            .into_client_request()
            .map_err(|_| NetError::Protocol("not a WebSocket URL"))?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, self.inner.user_agent.clone());
        if let Some(subprotocol) = options.subprotocol {
            headers.insert(
                SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(subprotocol),
            );
        }
        Ok(request)
    }

    async fn dial(&self, host: &str, port: u16, trust: Trust) -> Result<TcpStream, NetError> {
        let addresses = self.inner.dns.addresses(host, trust).await?;
        let mut last = NetError::Connect;
        for ip in addresses.into_iter().take(MAX_ATTEMPTS) {
            let connect = TcpStream::connect(SocketAddr::new(ip, port));
            match tokio::time::timeout(self.inner.settings.connect_timeout, connect).await {
                Ok(Ok(stream)) => {
                    // Acknowledgements and pings are small and must not wait for more data.
                    stream.set_nodelay(true).ok();
                    return Ok(stream);
                }
                Ok(Err(_)) => last = NetError::Connect,
                Err(_) => last = NetError::Timeout,
            }
        }
        Err(last)
    }
}
