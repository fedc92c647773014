//! Fetching an account's key package from its PDS, with the proof.
//!
//! Source: atproto, `com.atproto.sync.getRecord`.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use url::Url;

use crate::net::{CallError, Net, NetError, Priority, Refusal, Request, Trust, XrpcError};
use atcomm_proto::proof::MAX_PROOF_LEN;
use atcomm_proto::syntax::{COLLECTION, Did, Origin, RECORD_KEY};

/// The method.
const NSID: &str = "com.atproto.sync.getRecord";

/// Options of a request to a PDS.
#[derive(Debug, Clone, Copy, Default)]
pub struct PdsOptions<'a> {
    /// The address that the operator configured for this PDS; `None`: its own address, which is
    /// untrusted.
    pub connect: Option<&'a Url>,
    /// The class of work.
    pub priority: Priority,
    /// Time limit; `None`: the setting of the network.
    pub timeout: Option<Duration>,
}

/// The answer of a PDS about the key package of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordAnswer {
    /// A CAR that may prove the record or its absence. Some servers send it as `text/html`, so only
    /// its verification shows whether it is one.
    Car(Bytes),
    /// The PDS has the account and states, without a proof, that the record does not exist.
    RecordNotFound,
    /// The PDS does not have the account.
    RepoNotFound,
    /// The PDS has the account and does not serve it.
    Inactive(RepoStatus),
    /// The answer says nothing about the record, and another request would have the same answer.
    Unusable(UnusableAnswer),
}

/// The status of an account that a PDS does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoStatus {
    /// Deactivated by the account.
    Deactivated,
    /// Taken down by the PDS.
    Takendown,
    /// Suspended by the PDS for a time.
    Suspended,
}

impl RepoStatus {
    /// Returns the status in words for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deactivated => "deactivated",
            Self::Takendown => "taken down",
            Self::Suspended => "suspended",
        }
    }
}

/// Reasons why an answer says nothing about the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableAnswer {
    /// The answer is longer than a proof may be.
    #[error("the answer is longer than {MAX_PROOF_LEN} bytes")]
    Oversize,
    /// The network policy forbids dialling the address of the PDS.
    #[error("refused by policy: {0}")]
    Forbidden(#[source] Refusal),
    /// The answer has a status and an error name that the method does not have.
    #[error("HTTP {}", .0.as_u16())]
    Status(StatusCode),
}

/// Requests the key package of an account from a PDS. After an error there is no answer for now: the
/// PDS cannot be reached, fails, or must not be asked.
pub async fn fetch_record(
    net: &Net,
    did: &Did,
    pds: &Origin,
    options: PdsOptions<'_>,
) -> Result<RecordAnswer, CallError> {
    let own;
    let (server, trust) = match options.connect {
        Some(connect) => (connect, Trust::Configured),
        None => {
            own = pds.to_url();
            (&own, Trust::Untrusted)
        }
    };
    let params = [
        ("did", did.as_str()),
        ("collection", COLLECTION),
        ("rkey", RECORD_KEY),
    ];
    let request = Request {
        priority: options.priority,
        accept: Some("application/vnd.ipld.car"),
        timeout: options.timeout,
        ..Request::xrpc(server, NSID, &params, trust, MAX_PROOF_LEN)
    };
    read_answer(net.query(&request).await)
}

fn read_answer(answer: Result<Bytes, CallError>) -> Result<RecordAnswer, CallError> {
    Ok(match answer {
        Ok(car) => RecordAnswer::Car(car),
        Err(CallError::Net(NetError::TooLarge { .. })) => {
            RecordAnswer::Unusable(UnusableAnswer::Oversize)
        }
        Err(CallError::Net(NetError::Refused(rule))) => {
            RecordAnswer::Unusable(UnusableAnswer::Forbidden(rule))
        }
        Err(CallError::Refused(error)) if !error.is_of_server() => read_error(&error),
        Err(error) => return Err(error),
    })
}

fn read_error(error: &XrpcError) -> RecordAnswer {
    match error.name() {
        "RecordNotFound" => RecordAnswer::RecordNotFound,
        "RepoNotFound" => RecordAnswer::RepoNotFound,
        "RepoDeactivated" => RecordAnswer::Inactive(RepoStatus::Deactivated),
        "RepoTakendown" => RecordAnswer::Inactive(RepoStatus::Takendown),
        "RepoSuspended" => RecordAnswer::Inactive(RepoStatus::Suspended),
        _ => RecordAnswer::Unusable(UnusableAnswer::Status(error.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atcomm_proto::syntax::RemoteText;

    fn refused(status: u16, name: &str) -> CallError {
        CallError::Refused(XrpcError {
            status: StatusCode::from_u16(status).unwrap(),
            name: Some(RemoteText::new(name)).filter(|name| *name != ""),
            message: None,
            retry_after: None,
        })
    }

    #[test]
    fn names_of_errors_are_read() {
        use RecordAnswer as A;
        for (status, name, wanted) in [
            (400, "RecordNotFound", A::RecordNotFound),
            (404, "RecordNotFound", A::RecordNotFound),
            (400, "RepoNotFound", A::RepoNotFound),
            (400, "RepoDeactivated", A::Inactive(RepoStatus::Deactivated)),
            (400, "RepoTakendown", A::Inactive(RepoStatus::Takendown)),
            (400, "RepoSuspended", A::Inactive(RepoStatus::Suspended)),
        ] {
            assert_eq!(
                read_answer(Err(refused(status, name))),
                Ok(wanted),
                "{name}"
            );
        }
        for (status, name) in [(400, "InvalidRequest"), (404, ""), (302, "")] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                read_answer(Err(refused(status.as_u16(), name))),
                Ok(A::Unusable(UnusableAnswer::Status(status)))
            );
        }
    }

    #[test]
    fn a_temporary_failure_is_no_answer() {
        // A failing PDS may still send the names of errors.
        for error in [
            refused(502, "RecordNotFound"),
            refused(500, ""),
            refused(429, "RepoNotFound"),
            NetError::Timeout.into(),
            NetError::HostBusy {
                retry_after: Duration::from_secs(1),
            }
            .into(),
        ] {
            assert_eq!(read_answer(Err(error.clone())), Err(error));
        }
        let lasting: [(NetError, UnusableAnswer); 2] = [
            (NetError::TooLarge { cap: 1 }, UnusableAnswer::Oversize),
            (
                NetError::Refused(Refusal::Port),
                UnusableAnswer::Forbidden(Refusal::Port),
            ),
        ];
        for (error, why) in lasting {
            let answer = read_answer(Err(error.into()));
            assert_eq!(answer, Ok(RecordAnswer::Unusable(why)));
        }
    }
}
