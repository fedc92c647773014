//! The operator's socket: `admin.sock` in the data directory, for the user of the service only.
//!
//! One line of JSON asks, one line of JSON answers, and the connection ends.

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

use super::ServerError;
use super::files::DataDir;
use crate::mediator::{KEYS_FILE, Keys, KeysError, Mediator};
use crate::store::StoreError;
use atcomm_proto::clock::Clock;

/// Name of the socket in the data directory.
const SOCKET: &str = "admin.sock";

/// Longest question, in bytes.
const MAX_QUESTION: u64 = 4096;

/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// Conversations at the same time; more wait.
const PLACES: usize = 8;

/// Time for one conversation.
const PATIENCE: Duration = Duration::from_secs(10);

/// Mediators that are listed.
const MAX_LISTED: usize = 10_000;

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Question {
    /// What waits for other mediators, and how it went there.
    RelayStatus,
    /// What waits here.
    MailboxStatus,
    /// New keys for the mediator.
    RotateKeys,
}

/// What waits for other mediators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayStatus {
    /// Messages that wait.
    pub waiting: u64,
    /// Bytes of them.
    pub waiting_bytes: u64,
    /// Each mediator that anything was carried to lately.
    pub destinations: Vec<DestinationStatus>,
}

/// How it went with one mediator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationStatus {
    /// The mediator.
    pub did: String,
    /// Messages that wait.
    pub waiting: u64,
    /// Bytes of them.
    pub waiting_bytes: u64,
    /// Messages that it took.
    pub delivered: u64,
    /// Attempts that failed and were put off.
    pub failed: u64,
    /// Messages that it refused for good.
    pub refused: u64,
    /// Messages that were given up.
    pub given_up: u64,
    /// What the last failure was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it was last tried (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<String>,
}

/// What waits here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailboxStatus {
    /// The mediator.
    pub did: String,
    /// Accounts that are registered.
    pub accounts: u64,
    /// Messages that wait to be picked up.
    pub messages: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// What came of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotated {
    /// Number of the new keys.
    pub generation: u32,
    /// Whether a running service uses them already.
    pub in_use: bool,
}

/// Why an operator's question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No service runs on this data directory.
    #[error("no service runs on {}", .0.display())]
    NotRunning(PathBuf),
    /// The conversation broke.
    #[error("cannot talk to the service: {0}")]
    Conversation(io::Error),
    /// The service says no.
    #[error("{0}")]
    Refused(String),
    /// The data directory or the keys in it cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// No mediator has ever run on this data directory.
    #[error("there are no keys of a mediator in {}", .0.display())]
    NoKeys(PathBuf),
    /// The data directory cannot be had.
    #[error(transparent)]
    DataDir(Box<ServerError>),
}

impl AdminError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotRunning(_) => "start it with `atcomm serve`, or name its --data-dir",
            Self::Conversation(_) => "run this as the user of the service",
            Self::Refused(_) => "see [mediator] in the configuration, and the service's log",
            Self::Keys(error) => error.hint(),
            Self::NoKeys(_) => "name the data directory of a mediator with --data-dir",
            Self::DataDir(error) => error.hint(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    RelayStatus(RelayStatus),
    MailboxStatus(MailboxStatus),
    Rotated(Rotated),
    Error(String),
}

/// The socket, listening.
pub(super) struct Admin {
    listener: UnixListener,
    data_dir: PathBuf,
    mediator: Option<Mediator>,
    clock: Clock,
    rotating: Mutex<()>,
}

impl Admin {
    /// Listens. The data directory is this process's alone, so a socket that lies there already is
    /// what a crash has left.
    pub(super) fn bind(
        data_dir: &Path,
        mediator: Option<Mediator>,
        clock: Clock,
    ) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
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
            rotating: Mutex::new(()),
        })
    }

    /// Answers until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let places = Arc::new(Semaphore::new(PLACES));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = this.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                break;
            };
            let this = Arc::clone(&this);
            tokio::spawn(async move {
                // Whoever asked has gone away, or is slow.
                drop(tokio::time::timeout(PATIENCE, this.converse(stream)).await);
                drop(place);
            });
        }
        drop(std::fs::remove_file(this.data_dir.join(SOCKET)));
    }

    async fn converse(&self, mut stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.split();
        let mut line = String::new();
        BufReader::new(read.take(MAX_QUESTION))
            .read_line(&mut line)
            .await?;
        let answer = match serde_json::from_str(&line) {
            Ok(question) => self.answer(question).await,
            Err(_) => Answer::Error("the question is not known to this version".to_owned()),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        write.write_all(&text).await?;
        write.shutdown().await
    }

    async fn answer(&self, question: Question) -> Answer {
        let Some(mediator) = &self.mediator else {
            let why = "this service is no mediator: mediator.public_url is not set";
            return Answer::Error(why.to_owned());
        };
        let answered = match question {
            Question::RelayStatus => relay_status(mediator).await.map(Answer::RelayStatus),
            Question::MailboxStatus => mailbox_status(mediator).await.map(Answer::MailboxStatus),
            Question::RotateKeys => return self.rotate(mediator),
        };
        answered.unwrap_or_else(|error| Answer::Error(error.to_string()))
    }

    fn rotate(&self, mediator: &Mediator) -> Answer {
        // Two at once would give two keys one number.
        let _turn = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.data_dir.join(KEYS_FILE);
        let rotated = Keys::rotate(&path, self.clock.now()).and_then(|generation| {
            mediator.reload_keys(&path)?;
            Ok(generation)
        });
        match rotated {
            Ok(generation) => {
                tracing::info!(generation, "the mediator has new keys");
                Answer::Rotated(Rotated {
                    generation,
                    in_use: true,
                })
            }
            Err(error) => Answer::Error(error.to_string()),
        }
    }
}

async fn relay_status(mediator: &Mediator) -> Result<RelayStatus, StoreError> {
    let ((waiting, waiting_bytes), outcomes) = mediator
        .mailbox()
        .query(|q| Ok((q.outbox_totals()?, q.relay_outcomes(MAX_LISTED)?)))
        .await?;
    let destinations = outcomes.into_iter().map(|one| DestinationStatus {
        did: one.destination,
        waiting: one.waiting,
        waiting_bytes: one.waiting_bytes,
        delivered: one.delivered,
        failed: one.failed,
        refused: one.refused,
        given_up: one.given_up,
        last_error: one.last_error,
        last_at: one.last_at.map(|at| at.to_string()),
    });
    Ok(RelayStatus {
        waiting,
        waiting_bytes,
        destinations: destinations.collect(),
    })
}

async fn mailbox_status(mediator: &Mediator) -> Result<MailboxStatus, StoreError> {
    let (accounts, (messages, bytes), (file_bytes, _)) = mediator
        .mailbox()
        .query(|q| Ok((q.account_count()?, q.totals()?, q.file_bytes()?)))
        .await?;
    Ok(MailboxStatus {
        did: mediator.did().to_string(),
        accounts,
        messages,
        bytes,
        file_bytes,
    })
}

/// Asks the service that runs on a data directory.
fn ask(data_dir: &Path, question: Question) -> Result<Answer, AdminError> {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    let mut stream = match UnixStream::connect(data_dir.join(SOCKET)) {
        Ok(stream) => stream,
        Err(error) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    AdminError::NotRunning(data_dir.to_owned())
                }
                _ => AdminError::Conversation(error),
            });
        }
    };
    let mut converse = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = serde_json::to_vec(&question)?;
        text.push(b'\n');
        stream.write_all(&text)?;
        let mut line = String::new();
        BufReader::new((&stream).take(MAX_ANSWER)).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    };
    match converse().map_err(AdminError::Conversation)? {
        Answer::Error(why) => Err(AdminError::Refused(why)),
        answer => Ok(answer),
    }
}

fn unexpected() -> AdminError {
    AdminError::Refused("the service answers something else".to_owned())
}

/// What waits for other mediators at the service that runs on a data directory.
pub fn ask_relay_status(data_dir: &Path) -> Result<RelayStatus, AdminError> {
    match ask(data_dir, Question::RelayStatus)? {
        Answer::RelayStatus(status) => Ok(status),
        _ => Err(unexpected()),
    }
}

/// What waits at the service that runs on a data directory.
pub fn ask_mailbox_status(data_dir: &Path) -> Result<MailboxStatus, AdminError> {
    match ask(data_dir, Question::MailboxStatus)? {
        Answer::MailboxStatus(status) => Ok(status),
        _ => Err(unexpected()),
    }
}

/// Makes new keys for the mediator of a data directory, whether or not it runs.
pub fn rotate_keys(data_dir: &Path) -> Result<Rotated, AdminError> {
    match ask(data_dir, Question::RotateKeys) {
        Ok(Answer::Rotated(rotated)) => Ok(rotated),
        Ok(_) => Err(unexpected()),
        Err(AdminError::NotRunning(_)) => {
            let path = data_dir.join(KEYS_FILE);
            if !path.exists() {
                return Err(AdminError::NoKeys(data_dir.to_owned()));
            }
            let _claimed =
                DataDir::claim(data_dir).map_err(|error| AdminError::DataDir(Box::new(error)))?;
            let generation = Keys::rotate(&path, Clock::system().now())?;
            Ok(Rotated {
                generation,
                in_use: false,
            })
        }
        Err(error) => Err(error),
    }
}
