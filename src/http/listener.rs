//! Listening sockets, and graceful shutdown of the servers behind them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

/// Maximum time for open requests and sockets to end after the server was told to stop.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum connections that the kernel queues until they are accepted.
const BACKLOG: u32 = 1024;

/// The error of binding a listener.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct HttpError {
    /// Address that was to be bound.
    pub address: SocketAddr,
    /// Error of the system.
    #[source]
    pub error: io::Error,
}

/// Binds a listener and returns it with its address.
pub(super) fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), HttpError> {
    let open = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // Without it a restart fails while old connections are in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    open().map_err(|error| HttpError { address, error })
}

/// Drives a server with graceful shutdown until it has ended, at most [`SHUTDOWN_TIMEOUT`] after
/// `stop`.
pub(super) async fn serve_until(
    serving: impl IntoFuture<Output = io::Result<()>>,
    stop: CancellationToken,
) {
    let too_late = async {
        stop.cancelled().await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        // axum's loop ends only by the signal and has no error of its own.
        _ = serving.into_future() => {}
        () = too_late => tracing::warn!("some connections did not end in time"),
    }
}
