//! What the service manager is told, as sd_notify(3) describes it: that the service is ready, that it
//! ends, and, as often as its watchdog wants to hear it, that it is alive.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::directory::Directory;
use crate::http::ConnectionSlots;
use crate::mediator::Mediator;

/// Tells the service manager that requests are answered from now on.
pub(super) fn ready() {
    tell(&NotifyState::Ready);
}

/// Tells the service manager that the service ends.
pub(super) fn stopping() {
    tell(&NotifyState::Stopping);
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "cannot tell the service manager {state}");
    }
}

/// The watchdog of the service manager, which restarts a service that hangs.
///
/// A timer alone would go on in a service that answers nothing. So each time the parts that all work
/// depends on have to answer first: the writers of the stores, and the public listener. An answer
/// that is an error counts: a restart frees no disk.
pub(super) struct Watchdog {
    /// Time after which the service manager gives up.
    timeout: Duration,
    directory: Arc<Directory>,
    mediator: Option<Mediator>,
    listener: SocketAddr,
    slots: ConnectionSlots,
}

impl Watchdog {
    /// Returns `None` if the service manager does not watch this process.
    pub(super) fn of_environment(
        directory: Arc<Directory>,
        mediator: Option<Mediator>,
        listener: SocketAddr,
        slots: ConnectionSlots,
    ) -> Option<Self> {
        Some(Self {
            timeout: sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero())?,
            directory,
            mediator,
            listener,
            slots,
        })
    }

    /// Tells the service manager four times within its timeout that the service is alive, unless a
    /// part of it does not answer for half of that time.
    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            match self.silent_part().await {
                None => tell(&NotifyState::Watchdog),
                Some(part) => tracing::error!(
                    part,
                    "no answer: if that lasts, the service manager restarts this service"
                ),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.timeout / 4) => {}
            }
        }
    }

    /// Returns a part that does not answer in time.
    async fn silent_part(&self) -> Option<&'static str> {
        let limit = self.timeout / 2;
        let directory = async {
            // The result does not matter: a closed store and a full disk are answers.
            let _ = self.directory.store().transact(|_| Ok(())).await;
        };
        let mailbox = async {
            if let Some(mediator) = &self.mediator {
                let _ = mediator.mailbox().transact(|_| Ok(())).await;
            }
        };
        let (directory, mailbox, listener) = tokio::join!(
            tokio::time::timeout(limit, directory),
            tokio::time::timeout(limit, mailbox),
            health(self.listener, limit),
        );
        let silent = [
            ("the directory's store", directory.is_err()),
            ("the mediator's store", mailbox.is_err()),
            // Of a flood the listener is full and not dead; a restart would drop every client.
            ("the listener", listener.is_err() && !self.slots.are_taken()),
        ];
        silent
            .into_iter()
            .find_map(|(part, is_silent)| is_silent.then_some(part))
    }
}

/// Asks the service that listens on `address` for its health. Returns the status of the answer: 200,
/// or 503 while a store cannot be written.
pub async fn health(address: SocketAddr, timeout: Duration) -> io::Result<u16> {
    let exchange = async {
        let mut stream = TcpStream::connect(own(address)).await?;
        let request = b"GET /xrpc/_health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut line = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut line).await?;
        let line = std::str::from_utf8(&line).unwrap_or_default();
        let status = line.strip_prefix("HTTP/1.1 ").unwrap_or_default();
        status
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1.1"))
    };
    let answered = tokio::time::timeout(timeout, exchange).await;
    answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Returns the address at which this machine reaches a listener on `address`.
fn own(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::net::TcpListener;

    use super::*;
    use crate::store::DirectoryStore;
    use atcomm_proto::clock::Clock;

    /// Answers every connection as the service does.
    async fn serve(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 512]).await;
            let _ = stream
                .write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
                .await;
        }
    }

    #[tokio::test]
    async fn each_part_that_does_not_answer_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(&dir.path().join("directory.db")).unwrap();
        let directory = Directory::bind(store, Clock::system(), 1 << 20)
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut watchdog = Watchdog {
            timeout: Duration::from_secs(60),
            directory: Arc::new(directory),
            mediator: None,
            listener: listener.local_addr().unwrap(),
            slots: ConnectionSlots::new(8),
        };
        let server = tokio::spawn(serve(listener));
        assert_eq!(watchdog.silent_part().await, None);

        // A writer that is stuck in one transaction.
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel::<()>();
        let directory = Arc::clone(&watchdog.directory);
        let stuck = tokio::spawn(async move {
            let stuck = directory.store().transact(move |_| {
                let _ = (begin.send(()), released.recv());
                Ok(())
            });
            stuck.await
        });
        tokio::task::spawn_blocking(move || begun.recv())
            .await
            .unwrap()
            .unwrap();
        watchdog.timeout = Duration::from_millis(200);
        assert_eq!(watchdog.silent_part().await, Some("the directory's store"));
        release.send(()).unwrap();
        stuck.await.unwrap().unwrap();
        watchdog.timeout = Duration::from_secs(60);
        assert_eq!(watchdog.silent_part().await, None);

        // A closed store answers, with an error.
        watchdog.directory.shutdown().await;
        assert_eq!(watchdog.silent_part().await, None);

        server.abort();
        let _ = server.await;
        assert_eq!(watchdog.silent_part().await, Some("the listener"));
        let _all = watchdog.slots.take_all();
        assert_eq!(watchdog.silent_part().await, None);
    }

    #[tokio::test]
    async fn only_an_answer_in_http_is_health() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Ok(200)),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Ok(503)),
            ("220 mail.example.com", Err(io::ErrorKind::InvalidData)),
            ("HTTP/1.1", Err(io::ErrorKind::UnexpectedEof)),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let _ = stream.read(&mut request).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let (status, ()) = tokio::join!(health(address, Duration::from_secs(30)), serve);
            assert_eq!(status.map_err(|error| error.kind()), expected, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_listener_that_does_not_answer_is_no_health() {
        // The kernel completes the connection; nothing accepts it.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = health(listener.local_addr().unwrap(), Duration::from_millis(50)).await;
        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_listener_on_every_interface_is_reached_on_this_machine() {
        let reached = |address: &str| own(address.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(reached("[::]:2"), "[::1]:2");
        assert_eq!(reached("10.1.2.3:4"), "10.1.2.3:4");
    }
}
