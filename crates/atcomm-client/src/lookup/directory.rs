//! The client of a directory: the methods of the lexicons, with every answer bounded and typed.
//!
//! Answers are not trusted: a [`View`] is a claim that can contain a proof.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use atcomm_net::identity::MediatorDocument;
use atcomm_net::net::{CallError, Net, NetError, Priority, Request, Trust, XrpcError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::plc::MAX_LOG_LEN;
use atcomm_proto::proof::MAX_PROOF_LEN;
use atcomm_proto::syntax::{Did, LexiconError, Origin, RemoteText, Rev};
use atcomm_proto::verify::evidence::Base64;

/// Longest answer about one account, in bytes: a proof in base64, an operation log, the record as
/// JSON once more, and the mediators.
const MAX_ANSWER: usize = MAX_LOG_LEN + 4 * MAX_PROOF_LEN;

/// Longest page of a history with its proofs, in bytes.
const MAX_PAGE: usize = 2 * 1024 * 1024;

/// Number of changes that are asked for and read.
const PAGE: usize = 50;

/// Timeout for one answer. A directory may have to refresh the account first. One that takes longer
/// must leave time for the account's own servers within the time for one message.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// Most mediators, and most keys and services of one, that are read from an answer.
const MAX_MEDIATORS: usize = 32;
const MAX_PARTS: usize = 8;

/// Errors of a directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// The directory refused with an error of the lexicon.
    #[error("the directory says: {message} ({name})")]
    Refused {
        /// The error.
        name: LexiconError,
        /// The directory's reason.
        message: RemoteText,
    },
    /// The directory is busy, or the rate limit is reached.
    #[error("the directory is busy{}", again(.retry_after))]
    Busy {
        /// When a new attempt makes sense.
        retry_after: Option<Duration>,
    },
    /// The directory cannot be reached, or fails.
    #[error("the directory cannot be reached: {0}")]
    Unreachable(#[source] CallError),
    /// The origin is no directory, or its answer does not match the lexicon.
    #[error("the directory's answer cannot be used: {0}")]
    Malformed(#[source] DirectoryFault),
}

/// Causes of [`DirectoryError::Malformed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryFault {
    /// The answer is too long.
    #[error(transparent)]
    TooLong(#[from] NetError),
    /// The origin answered with an error that the lexicon does not have.
    #[error("{}", refusal(.0))]
    Refused(#[from] XrpcError),
    /// The answer is not JSON of the form of the method. The reason is kept as a text that was made
    /// harmless, since it can repeat parts of the answer.
    #[error("{0}")]
    Json(RemoteText),
    /// The proof is not base64.
    #[error("the proof is not base64")]
    NotBase64,
    /// The history is about another account than the one asked for.
    #[error("the history is another account's")]
    OtherAccount,
    /// The time of a change cannot be read.
    #[error("seenAt is no time")]
    NoTime,
}

fn refusal(error: &XrpcError) -> String {
    let status = error.status.as_u16();
    match &error.name {
        Some(name) => {
            let message = error.message.as_ref().map_or("", RemoteText::as_str);
            format!("HTTP {status}, {name}: {message}")
        }
        None => format!("HTTP {status}; there may be no directory at this address"),
    }
}

fn again(after: &Option<Duration>) -> String {
    match after {
        Some(wait) => format!("; it asks to come back after {} s", wait.as_secs().max(1)),
        None => String::new(),
    }
}

/// A recipient as a directory shows it. Every field is a claim.
#[derive(Debug, Clone)]
pub struct View {
    /// The account.
    pub did: Did,
    /// Its handle, or `handle.invalid`.
    pub handle: RemoteText,
    /// `active` or `regressed`.
    pub status: RemoteText,
    /// CID of the record.
    pub cid: String,
    /// Revision of the proof.
    pub rev: Rev,
    /// The record.
    pub value: Value,
    /// The did:peer.
    pub peer: String,
    /// Whether other accounts publish the same did:peer.
    pub ambiguous: bool,
    /// The mediators that the directory knows; those that cannot be read are left out.
    pub mediators: Vec<MediatorDocument>,
    /// Whether the directory says that its proof is old.
    pub stale: bool,
    /// When the directory last verified the proof.
    pub proved_at: Option<Timestamp>,
    /// The proof, if it was asked for.
    pub car: Option<Vec<u8>>,
    /// The operation log, if it came with the proof.
    pub plc_log: Option<Box<RawValue>>,
    /// The whole answer.
    pub answer: Box<RawValue>,
}

/// A change that a directory reports.
#[derive(Debug, Clone)]
pub struct Change {
    /// Kind of the change, such as `package` or `removed`.
    pub kind: RemoteText,
    /// When the directory saw the change.
    pub seen_at: Timestamp,
    /// The proof of that time, where the change has one.
    pub car: Option<Vec<u8>>,
}

/// The result of a refresh.
#[derive(Debug, Clone, Deserialize)]
pub struct Refreshed {
    /// The outcome, such as `package`, `unchanged` or `notEnrolled`.
    pub outcome: RemoteText,
    /// The rule that an invalid package breaks.
    #[serde(default)]
    pub reason: Option<RemoteText>,
}

/// The client of one directory. Cloning is cheap.
#[derive(Clone)]
pub struct DirectoryClient {
    net: Net,
    origin: Origin,
    trust: Trust,
}

impl DirectoryClient {
    /// Returns the client of a directory that the user named; any address is allowed.
    pub fn configured(net: Net, origin: Origin) -> Self {
        Self {
            net,
            origin,
            trust: Trust::Configured,
        }
    }

    /// Returns the client of a directory that a mediator's document names; only public addresses
    /// are allowed.
    pub fn untrusted(net: Net, origin: Origin) -> Self {
        Self {
            net,
            origin,
            trust: Trust::Untrusted,
        }
    }

    /// The directory's address.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Asks for an account, with the proof.
    pub async fn resolve(&self, did: &Did) -> Result<View, DirectoryError> {
        let params = [("actor", did.as_str()), ("proof", "true")];
        let request = self.request("at.didcomm.directory.resolveRecipient", &params, MAX_ANSWER);
        view(&self.net.query(&request).await?)
    }

    /// Asks for an account, without the proof: for what is not relied on.
    pub async fn view(&self, did: &Did) -> Result<View, DirectoryError> {
        let params = [("actor", did.as_str())];
        let request = self.request("at.didcomm.directory.resolveRecipient", &params, MAX_ANSWER);
        view(&self.net.query(&request).await?)
    }

    /// Asks the directory to refresh an account.
    pub async fn refresh(&self, did: &Did) -> Result<Refreshed, DirectoryError> {
        let request = self.request("at.didcomm.directory.refresh", &[], MAX_ANSWER);
        let input = serde_json::json!({"did": did.as_str()}).to_string();
        read(&self.net.procedure(&request, input.into()).await?)
    }

    /// Asks for the newest changes of an account, newest first, with their proofs.
    pub async fn history(&self, did: &Did) -> Result<Vec<Change>, DirectoryError> {
        let limit = PAGE.to_string();
        let params = [("did", did.as_str()), ("limit", &limit), ("proof", "true")];
        let request = self.request("at.didcomm.directory.getHistory", &params, MAX_PAGE);
        history(&self.net.query(&request).await?, did)
    }

    fn request(&self, nsid: &str, params: &[(&str, &str)], cap: usize) -> Request {
        Request {
            accept: Some("application/json"),
            // A `Retry-After` of the directory is returned to the caller and does not close the
            // host for other requests.
            priority: Priority::Interactive,
            timeout: Some(ANSWER_TIMEOUT),
            ..Request::xrpc(&self.origin.to_url(), nsid, params, self.trust, cap)
        }
    }
}

impl From<CallError> for DirectoryError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(error) => error.into(),
            CallError::Net(NetError::HostBusy { retry_after }) => Self::Busy {
                retry_after: Some(retry_after),
            },
            CallError::Net(error @ NetError::TooLarge { .. }) => Self::Malformed(error.into()),
            CallError::Net(error) => Self::Unreachable(error.into()),
        }
    }
}

impl From<XrpcError> for DirectoryError {
    fn from(error: XrpcError) -> Self {
        if let Some(name) = LexiconError::parse(error.name()) {
            return Self::Refused {
                name,
                message: error.message.unwrap_or_default(),
            };
        }
        match (error.status.as_u16(), error.name()) {
            (429 | 503, _) => Self::Busy {
                retry_after: error.retry_after,
            },
            (500.., name) if name != "MethodNotImplemented" => Self::Unreachable(error.into()),
            _ => Self::Malformed(error.into()),
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, DirectoryError> {
    serde_json::from_slice(body)
        .map_err(|why| DirectoryFault::Json(RemoteText::new(&why.to_string())))
        .map_err(DirectoryError::Malformed)
}

fn view(body: &[u8]) -> Result<View, DirectoryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        did: Did,
        handle: RemoteText,
        status: RemoteText,
        key_package: Package,
        peer: Peer,
        #[serde(default)]
        mediators: Vec<Value>,
        verification: Verification,
        #[serde(default)]
        proof: Option<Proof>,
    }
    #[derive(Deserialize)]
    struct Package {
        cid: String,
        rev: Rev,
        value: Value,
    }
    #[derive(Deserialize)]
    struct Peer {
        did: String,
        ambiguous: bool,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Verification {
        stale: bool,
        #[serde(default)]
        proved_at: Option<String>,
    }
    let wire: Wire = read(body)?;
    let (car, plc_log) = match wire.proof {
        Some(proof) => (Some(proof.car()?), proof.plc_log),
        None => (None, None),
    };
    let mediators = wire.mediators.into_iter().take(MAX_MEDIATORS);
    Ok(View {
        did: wire.did,
        handle: wire.handle,
        status: wire.status,
        cid: wire.key_package.cid,
        rev: wire.key_package.rev,
        value: wire.key_package.value,
        peer: wire.peer.did,
        ambiguous: wire.peer.ambiguous,
        mediators: mediators.filter_map(mediator).collect(),
        stale: wire.verification.stale,
        proved_at: wire
            .verification
            .proved_at
            .as_deref()
            .and_then(Timestamp::parse_rfc3339),
        car,
        plc_log,
        answer: read(body)?,
    })
}

/// A mediator in an answer. One with an unknown state or field cannot be read, which costs no more
/// than reading the mediator's own document.
fn mediator(value: Value) -> Option<MediatorDocument> {
    let mut document: MediatorDocument = serde_json::from_value(value).ok()?;
    document.key_agreement.truncate(MAX_PARTS);
    document.services.truncate(MAX_PARTS);
    Some(document)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Proof {
    car: Base64,
    #[serde(default)]
    plc_log: Option<Box<RawValue>>,
}

impl Proof {
    fn car(&self) -> Result<Vec<u8>, DirectoryError> {
        let car = self.car.decode();
        car.ok_or(DirectoryError::Malformed(DirectoryFault::NotBase64))
    }
}

fn history(body: &[u8], asked: &Did) -> Result<Vec<Change>, DirectoryError> {
    #[derive(Deserialize)]
    struct Wire {
        did: Did,
        changes: Vec<Entry>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry {
        kind: RemoteText,
        seen_at: String,
        #[serde(default)]
        proof: Option<Proof>,
    }
    let wire: Wire = read(body)?;
    if wire.did != *asked {
        return Err(DirectoryError::Malformed(DirectoryFault::OtherAccount));
    }
    let change = |entry: Entry| {
        let seen_at = Timestamp::parse_rfc3339(&entry.seen_at);
        Ok(Change {
            kind: entry.kind,
            seen_at: seen_at.ok_or(DirectoryError::Malformed(DirectoryFault::NoTime))?,
            car: entry.proof.map(|proof| proof.car()).transpose()?,
        })
    };
    wire.changes.into_iter().take(PAGE).map(change).collect()
}

#[cfg(test)]
mod tests;
