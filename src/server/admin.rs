//! The admin socket: `admin.sock` in the data directory, accessible to the user of the service only.
//!
//! A connection carries one request and one response, each a line of JSON.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::error::ServerError;
use super::files::DataDir;
use super::mailbox::{self, MailboxQueues, MailboxStatus, PurgeStep, Purged};
use crate::mediator::{KEYS_FILE, Keys, KeysError, Mediator};
use crate::store::StoreError;
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::RemoteText;

/// File name of the socket in the data directory.
const SOCKET_FILE: &str = "admin.sock";

/// Maximum length of a request in bytes: it may name a did:peer.
const MAX_REQUEST_LEN: u64 = 16 << 10;

/// Maximum length of a response in bytes.
const MAX_RESPONSE_LEN: u64 = 16 << 20;

/// Maximum simultaneous connections; more wait.
const MAX_CONNECTIONS: usize = 8;

/// Maximum duration of one connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed `accept`, such as one without a free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Maximum destinations in a [`RelayStatus`].
const MAX_DESTINATIONS: usize = 10_000;

/// Maximum queues in a [`MailboxQueues`].
const MAX_QUEUES: usize = 1000;

/// A request of the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Request {
    /// Asks for the outbox and the deliveries to other mediators.
    RelayStatus,
    /// Asks for the queues of the accounts.
    MailboxStatus,
    /// Asks for the largest queues.
    MailboxQueues {
        /// Number of queues.
        limit: usize,
    },
    /// Deletes the mail that waits for a DID. Repeated until nothing remains.
    #[serde(rename_all = "camelCase")]
    Purge {
        /// A did:peer, or an atproto account.
        did: String,
        /// Newest message that is meant; none: the newest now.
        up_to: Option<i64>,
        /// Whether to count only.
        dry_run: bool,
    },
    /// Makes new keys for the mediator.
    RotateKeys,
}

/// State of the outbox: messages for other mediators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayStatus {
    /// Messages in the outbox.
    pub waiting: u64,
    /// Bytes of the messages in the outbox.
    pub waiting_bytes: u64,
    /// Mediators that messages were relayed to recently.
    pub destinations: Vec<DestinationStatus>,
}

/// Deliveries to one mediator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationStatus {
    /// DID of the mediator.
    pub did: String,
    /// Messages in the outbox.
    pub waiting: u64,
    /// Bytes of the messages in the outbox.
    pub waiting_bytes: u64,
    /// Messages that the mediator accepted.
    pub delivered: u64,
    /// Attempts that failed and are retried.
    pub failed: u64,
    /// Messages that the mediator refused permanently.
    pub refused: u64,
    /// Messages that expired in the outbox.
    pub given_up: u64,
    /// Reason of the last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<RemoteText>,
    /// Time of the last attempt (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<String>,
    /// End of the pause after failures (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_until: Option<String>,
    /// Whether the mediator's domain gets one message at a time, since deliveries to it take long.
    #[serde(default)]
    pub slow: bool,
}

/// Result of a key rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotated {
    /// Number of the new generation of keys.
    pub generation: u32,
    /// Whether a running service uses the new keys already.
    pub in_use: bool,
}

/// Errors of the admin socket's client.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No service runs on the data directory.
    #[error("no service runs on {}", .0.display())]
    NotRunning(PathBuf),
    /// The connection failed.
    #[error("cannot talk to the service: {0}")]
    Connection(#[source] io::Error),
    /// The service refused the request.
    #[error("{0}")]
    Refused(String),
    /// The key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// No mediator has ever run on this data directory.
    #[error("there are no keys of a mediator in {}", .0.display())]
    NoKeys(PathBuf),
    /// The data directory cannot be claimed.
    #[error(transparent)]
    DataDir(Box<ServerError>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Response {
    RelayStatus(RelayStatus),
    MailboxStatus(MailboxStatus),
    MailboxQueues(MailboxQueues),
    Purge(PurgeStep),
    Rotated(Rotated),
    Error(String),
}

/// The server side of the admin socket.
pub(super) struct AdminSocket {
    listener: UnixListener,
    data_dir: PathBuf,
    mediator: Option<Mediator>,
    clock: Clock,
    /// Held during a rotation, since two at once would give two generations one number.
    rotation: Mutex<()>,
}

impl AdminSocket {
    /// Binds the socket. The caller holds the lock of the data directory, so an existing socket is
    /// a leftover of a crash and is replaced.
    pub(super) fn bind(
        data_dir: &Path,
        mediator: Option<Mediator>,
        clock: Clock,
    ) -> io::Result<Self> {
        let path = data_dir.join(SOCKET_FILE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            data_dir: data_dir.to_owned(),
            mediator,
            clock,
            rotation: Mutex::new(()),
        })
    }

    /// Answers requests until `stop`, then removes the socket.
    pub(super) async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = this.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&slots).acquire_owned().await else {
                break;
            };
            let this = Arc::clone(&this);
            tokio::spawn(async move {
                // A client that is slow or has closed loses only its own response.
                let _ = tokio::time::timeout(REQUEST_TIMEOUT, this.serve(stream)).await;
                drop(permit);
            });
        }
        let _ = std::fs::remove_file(this.data_dir.join(SOCKET_FILE));
    }

    async fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.split();
        let mut line = String::new();
        BufReader::new(read.take(MAX_REQUEST_LEN))
            .read_line(&mut line)
            .await?;
        let response = match serde_json::from_str(&line) {
            Ok(request) => self.respond(request).await,
            Err(_) => Response::Error("the question is not known to this version".to_owned()),
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        write.write_all(&text).await?;
        write.shutdown().await
    }

    async fn respond(&self, request: Request) -> Response {
        let Some(mediator) = &self.mediator else {
            let reason = "this service is no mediator: mediator.public_url is not set";
            return Response::Error(reason.to_owned());
        };
        let status = match request {
            Request::RelayStatus => relay_status(mediator).await.map(Response::RelayStatus),
            Request::MailboxStatus => mailbox::status(mediator).await.map(Response::MailboxStatus),
            Request::MailboxQueues { limit } => mailbox::queues(mediator, limit.min(MAX_QUEUES))
                .await
                .map(Response::MailboxQueues),
            Request::Purge {
                did,
                up_to,
                dry_run,
            } => match mailbox::purge(mediator, &did, up_to, dry_run).await {
                Ok(step) => return Response::Purge(step),
                Err(error) => return Response::Error(error.to_string()),
            },
            Request::RotateKeys => return self.rotate(mediator).await,
        };
        status.unwrap_or_else(|error| Response::Error(error.to_string()))
    }

    async fn rotate(&self, mediator: &Mediator) -> Response {
        let generation = match self.make_keys(mediator) {
            Ok(generation) => generation,
            Err(error) => return Response::Error(error.to_string()),
        };
        tracing::info!(generation, "the mediator has new keys");
        if let Err(error) = mediator.show_in_directory().await {
            tracing::error!(%error, "the directory does not show the mediator's new keys yet");
        }
        Response::Rotated(Rotated {
            generation,
            in_use: true,
        })
    }

    fn make_keys(&self, mediator: &Mediator) -> Result<u32, KeysError> {
        let _rotation = self.rotation.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.data_dir.join(KEYS_FILE);
        let generation = Keys::rotate(&path, self.clock.now())?;
        mediator.reload_keys(&path)?;
        Ok(generation)
    }
}

async fn relay_status(mediator: &Mediator) -> Result<RelayStatus, StoreError> {
    let ((waiting, waiting_bytes), outcomes) = mediator
        .mailbox()
        .query(|q| Ok((q.outbox_totals()?, q.relay_outcomes(MAX_DESTINATIONS)?)))
        .await?;
    let destinations = outcomes.into_iter().map(|one| {
        let (paused_until, slow) = mediator.relay_trouble(&one.destination);
        DestinationStatus {
            paused_until: paused_until.map(|at| at.to_string()),
            slow,
            did: one.destination,
            waiting: one.waiting,
            waiting_bytes: one.waiting_bytes,
            delivered: one.delivered,
            failed: one.failed,
            refused: one.refused,
            given_up: one.given_up,
            last_error: one.last_error,
            last_at: one.last_at.map(|at| at.to_string()),
        }
    });
    Ok(RelayStatus {
        waiting,
        waiting_bytes,
        destinations: destinations.collect(),
    })
}

/// Sends a request to the service that runs on a data directory.
fn ask(data_dir: &Path, request: Request) -> Result<Response, AdminError> {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    let mut stream =
        UnixStream::connect(data_dir.join(SOCKET_FILE)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                AdminError::NotRunning(data_dir.to_owned())
            }
            _ => AdminError::Connection(error),
        })?;
    let mut exchange = || {
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        let mut text = serde_json::to_vec(&request)?;
        text.push(b'\n');
        stream.write_all(&text)?;
        let mut line = String::new();
        BufReader::new((&stream).take(MAX_RESPONSE_LEN)).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    };
    match exchange().map_err(AdminError::Connection)? {
        Response::Error(reason) => Err(AdminError::Refused(reason)),
        response => Ok(response),
    }
}

fn unexpected() -> AdminError {
    AdminError::Refused("the service answers something else".to_owned())
}

/// Asks the service that runs on a data directory for the state of its outbox.
pub fn ask_relay_status(data_dir: &Path) -> Result<RelayStatus, AdminError> {
    match ask(data_dir, Request::RelayStatus)? {
        Response::RelayStatus(status) => Ok(status),
        _ => Err(unexpected()),
    }
}

/// Asks the service that runs on a data directory for the state of its queues.
pub fn ask_mailbox_status(data_dir: &Path) -> Result<MailboxStatus, AdminError> {
    match ask(data_dir, Request::MailboxStatus)? {
        Response::MailboxStatus(status) => Ok(status),
        _ => Err(unexpected()),
    }
}

/// Asks the service that runs on a data directory for its largest queues, at most `limit`.
pub fn ask_mailbox_queues(data_dir: &Path, limit: usize) -> Result<MailboxQueues, AdminError> {
    match ask(data_dir, Request::MailboxQueues { limit })? {
        Response::MailboxQueues(queues) => Ok(queues),
        _ => Err(unexpected()),
    }
}

/// Has the service that runs on a data directory delete the mail that waits for a did:peer, or for
/// every did:peer that an atproto account claims. Mail that comes meanwhile stays.
pub fn purge_mailbox(data_dir: &Path, did: &str, dry_run: bool) -> Result<Purged, AdminError> {
    let mut all: Option<Purged> = None;
    let mut up_to = None;
    loop {
        let request = Request::Purge {
            did: did.to_owned(),
            up_to,
            dry_run,
        };
        let Response::Purge(step) = ask(data_dir, request)? else {
            return Err(unexpected());
        };
        let is_stuck = step.purged.messages == 0;
        match &mut all {
            Some(all) => all.add(&step.purged),
            None => all = Some(step.purged),
        }
        up_to = Some(step.up_to);
        if let Some(purged) = all.take_if(|_| step.remaining == 0 || is_stuck) {
            return Ok(purged);
        }
    }
}

/// Makes new keys for the mediator of a data directory: through the service if one runs, else in
/// the key file itself.
pub fn rotate_keys(data_dir: &Path) -> Result<Rotated, AdminError> {
    match ask(data_dir, Request::RotateKeys) {
        Ok(Response::Rotated(rotated)) => Ok(rotated),
        Ok(_) => Err(unexpected()),
        Err(AdminError::NotRunning(_)) => rotate_offline(data_dir),
        Err(error) => Err(error),
    }
}

fn rotate_offline(data_dir: &Path) -> Result<Rotated, AdminError> {
    let path = data_dir.join(KEYS_FILE);
    if !path.exists() {
        return Err(AdminError::NoKeys(data_dir.to_owned()));
    }
    let _data_dir =
        DataDir::claim(data_dir).map_err(|error| AdminError::DataDir(Box::new(error)))?;
    let generation = Keys::rotate(&path, Clock::system().now())?;
    Ok(Rotated {
        generation,
        in_use: false,
    })
}
