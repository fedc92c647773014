//! Fetching an account's key package from its PDS, with the proof, and the account's status.
//!
//! Source: atproto, `com.atproto.sync.getRecord` and `com.atproto.sync.getRepoStatus`.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use url::Url;

use crate::net::{CallError, Net, NetError, Priority, Refusal, Request, Trust, XrpcError};
use atcomm_proto::proof::MAX_PROOF_LEN;
use atcomm_proto::syntax::{COLLECTION, Did, Origin, RECORD_KEY};

/// The method for the record.
const GET_RECORD: &str = "com.atproto.sync.getRecord";

/// The method for the status.
const GET_REPO_STATUS: &str = "com.atproto.sync.getRepoStatus";

/// Longest answer about a status, in bytes. It is a DID and three words.
const MAX_STATUS_LEN: usize = 8 * 1024;

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

/// The answer of a PDS about the status of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusAnswer {
    /// The account is active.
    Active,
    /// The account is not active, for the reason in this word, if the PDS gives one. The vocabulary
    /// is open.
    Inactive(Option<String>),
    /// The PDS does not have the account.
    NotFound,
    /// The answer says nothing about the account, as that of a server without the method.
    Unusable,
}

/// Requests the key package of an account from a PDS. After an error there is no answer for now: the
/// PDS cannot be reached, fails, or must not be asked.
pub async fn fetch_record(
    net: &Net,
    did: &Did,
    pds: &Origin,
    options: PdsOptions<'_>,
) -> Result<RecordAnswer, CallError> {
    let params = [
        ("did", did.as_str()),
        ("collection", COLLECTION),
        ("rkey", RECORD_KEY),
    ];
    let accept = "application/vnd.ipld.car";
    let call = Call {
        nsid: GET_RECORD,
        params: &params,
        accept,
        cap: MAX_PROOF_LEN,
    };
    read_answer(call.send(net, pds, options).await)
}

/// Requests the status of an account from a PDS. After an error there is no answer for now, as for
/// [`fetch_record`].
pub async fn fetch_status(
    net: &Net,
    did: &Did,
    pds: &Origin,
    options: PdsOptions<'_>,
) -> Result<StatusAnswer, CallError> {
    let call = Call {
        nsid: GET_REPO_STATUS,
        params: &[("did", did.as_str())],
        accept: "application/json",
        cap: MAX_STATUS_LEN,
    };
    read_status(call.send(net, pds, options).await, did)
}

/// A query to a PDS.
struct Call<'c> {
    nsid: &'c str,
    params: &'c [(&'c str, &'c str)],
    accept: &'static str,
    /// Longest answer, in bytes.
    cap: usize,
}

impl Call<'_> {
    async fn send(
        &self,
        net: &Net,
        pds: &Origin,
        options: PdsOptions<'_>,
    ) -> Result<Bytes, CallError> {
        let own;
        let (server, trust) = match options.connect {
            Some(connect) => (connect, Trust::Configured),
            None => {
                own = pds.to_url();
                (&own, Trust::Untrusted)
            }
        };
        let request = Request {
            priority: options.priority,
            accept: Some(self.accept),
            timeout: options.timeout,
            ..Request::xrpc(server, self.nsid, self.params, trust, self.cap)
        };
        net.query(&request).await
    }
}

/// The body of an answer about a status.
#[derive(Deserialize)]
struct StatusBody {
    did: String,
    active: bool,
    status: Option<String>,
}

fn read_status(answer: Result<Bytes, CallError>, did: &Did) -> Result<StatusAnswer, CallError> {
    let body = match answer {
        Ok(body) => serde_json::from_slice::<StatusBody>(&body).ok(),
        Err(CallError::Net(NetError::TooLarge { .. } | NetError::Refused(_))) => None,
        // A server without the method may say so by 501.
        Err(CallError::Refused(error))
            if !error.is_of_server() || error.status == StatusCode::NOT_IMPLEMENTED =>
        {
            return Ok(match error.name() {
                "RepoNotFound" => StatusAnswer::NotFound,
                _ => StatusAnswer::Unusable,
            });
        }
        Err(error) => return Err(error),
    };
    let Some(body) = body.filter(|body| body.did == did.as_str()) else {
        return Ok(StatusAnswer::Unusable);
    };
    Ok(match (body.active, body.status) {
        (true, None) => StatusAnswer::Active,
        (true, Some(status)) if status == "active" => StatusAnswer::Active,
        (false, Some(status)) if status == "active" => StatusAnswer::Unusable,
        (false, status) => StatusAnswer::Inactive(status),
        (true, Some(_)) => StatusAnswer::Unusable,
    })
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
    fn a_status_is_read_strictly() {
        use StatusAnswer as A;
        const DID: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
        let did = Did::parse(DID).unwrap();
        let read = |body: String| read_status(Ok(body.into()), &did);
        let inactive = |status: &str| A::Inactive(Some(status.to_owned()));
        for (rest, wanted) in [
            (r#""active":true"#, A::Active),
            (r#""active":true,"rev":"3l","x":[]"#, A::Active),
            (r#""active":true,"status":"active""#, A::Active),
            (
                r#""active":false,"status":"takendown""#,
                inactive("takendown"),
            ),
            (
                r#""active":false,"status":"sleeping""#,
                inactive("sleeping"),
            ),
            (r#""active":false"#, A::Inactive(None)),
            (r#""active":true,"status":"takendown""#, A::Unusable),
            (r#""active":false,"status":"active""#, A::Unusable),
            (r#""active":1"#, A::Unusable),
            (r#""active":false,"active":true"#, A::Unusable),
            (r#""status":"takendown""#, A::Unusable),
        ] {
            let body = format!(r#"{{"did":"{DID}",{rest}}}"#);
            assert_eq!(read(body), Ok(wanted), "{rest}");
        }
        for body in [
            "",
            "<html>",
            "[]",
            "null",
            r#"{"did":"did:web:x.example","active":true}"#,
        ] {
            assert_eq!(read(body.to_owned()), Ok(A::Unusable), "{body}");
        }
        for (error, wanted) in [
            (refused(400, "RepoNotFound"), Ok(A::NotFound)),
            (refused(404, ""), Ok(A::Unusable)),
            (refused(403, "AccountTakedown"), Ok(A::Unusable)),
            (refused(501, "MethodNotImplemented"), Ok(A::Unusable)),
            (NetError::TooLarge { cap: 1 }.into(), Ok(A::Unusable)),
            (
                refused(502, "RepoNotFound"),
                Err(refused(502, "RepoNotFound")),
            ),
            (NetError::Timeout.into(), Err(NetError::Timeout.into())),
        ] {
            assert_eq!(read_status(Err(error), &did), wanted);
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
