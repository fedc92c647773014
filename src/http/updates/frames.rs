//! Frames of the stream: a header and a body, each a DAG-CBOR object (atproto specification, "Event
//! Stream"), in one binary WebSocket message.

use serde::Serialize;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;

use super::super::socket::write_head;
use crate::directory::{CursorRefusal, Update};
use crate::store::{ChangeKind, EntryState, PackageState};
use atcomm_proto::syntax::{Did, MediatorDid, RECORD_PATH};

#[derive(Serialize)]
struct Header {
    op: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<&'static str>,
}

/// The state of the account's entry.
#[derive(Serialize)]
struct State<'a> {
    status: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pds: Option<&'a str>,
    regressed: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    seq: i64,
    did: &'a Did,
    time: String,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(flatten)]
    state: Option<State<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mediators: Option<&'a [MediatorDid]>,
}

/// What a reader is told beside changes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Info<'a> {
    /// Stable name.
    pub(super) name: &'static str,
    /// The same as a sentence.
    pub(super) message: &'static str,
    /// Name of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stream: Option<&'a str>,
    /// The newest position of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) newest: Option<i64>,
    /// Until when all that was told is known good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) known_good_until: Option<String>,
}

/// The end of a stream, as its last frame says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamError {
    Cursor(CursorRefusal),
    TooSlow,
    Unavailable,
}

#[derive(Serialize)]
struct ErrorBody {
    error: &'static str,
    message: &'static str,
}

impl StreamError {
    /// Returns the name of the error.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cursor(CursorRefusal::StreamMismatch) => "StreamMismatch",
            Self::Cursor(CursorRefusal::Future) => "FutureCursor",
            Self::Cursor(CursorRefusal::TooOld) => "CursorTooOld",
            Self::TooSlow => "ConsumerTooSlow",
            Self::Unavailable => "ServiceUnavailable",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Cursor(CursorRefusal::StreamMismatch) => {
                "the cursor is of another log than this one; begin anew at cursor 0"
            }
            Self::Cursor(CursorRefusal::Future) => "the log has not come to the cursor",
            Self::Cursor(CursorRefusal::TooOld) => {
                "ends of accounts since the cursor are kept no more; begin anew at cursor 0"
            }
            Self::TooSlow => "the frames are not read fast enough; come back with the last cursor",
            Self::Unavailable => "the directory cannot answer at the moment",
        }
    }
}

/// Appends the frame of an update.
pub(super) fn push_update(to: &mut Vec<u8>, update: &Update) {
    push(to, message_type(update), &body(update));
}

/// Appends the frame of other news.
pub(super) fn push_info(to: &mut Vec<u8>, info: &Info<'_>) {
    push(to, "#info", info);
}

/// Returns the frame of an error.
pub(super) fn error(error: StreamError) -> Vec<u8> {
    let mut frame = Vec::new();
    let header = Header { op: -1, t: None };
    let body = ErrorBody {
        error: error.name(),
        message: error.message(),
    };
    push_parts(&mut frame, &header, &body);
    frame
}

/// Returns the type of the message: whether the account is served as a recipient, has no package, or
/// has one that is not served.
fn message_type(update: &Update) -> &'static str {
    match &update.state {
        Some(state) if state.is_served() => "#upsert",
        Some(state)
            if state.state != PackageState::Removed
                && state.state != PackageState::RemovedUnproven =>
        {
            "#status"
        }
        _ => "#remove",
    }
}

fn body(update: &Update) -> Body<'_> {
    let package = update.package.as_ref();
    // A status or removal names the revision of what has gone, too.
    let rev = update.rev.as_ref().map(|rev| rev.as_str());
    let has_ended = matches!(update.kind, ChangeKind::Dropped | ChangeKind::Deleted);
    Body {
        seq: update.seq,
        did: &update.did,
        time: update.seen_at.to_string(),
        change: update.kind.as_str(),
        detail: update.detail.as_deref(),
        state: update.state.as_ref().map(state),
        uri: package.map(|_| format!("at://{}/{RECORD_PATH}", update.did)),
        cid: update.record.map(|cid| cid.to_string()),
        rev: rev.filter(|_| !has_ended),
        peer: package.map(|package| package.peer.as_str()),
        mediators: package.map(|package| package.mediators.as_slice()),
    }
}

fn state(state: &EntryState) -> State<'_> {
    State {
        status: state.status.as_str(),
        state: state.state.as_str(),
        reason: state.reason.as_deref(),
        handle: state.handle.as_ref().map(|handle| handle.as_str()),
        pds: state.pds.as_ref().map(|pds| pds.as_str()),
        regressed: state.regressed,
    }
}

fn push(to: &mut Vec<u8>, t: &'static str, body: &impl Serialize) {
    push_parts(to, &Header { op: 1, t: Some(t) }, body);
}

fn push_parts(to: &mut Vec<u8>, header: &Header, body: &impl Serialize) {
    let parts = (
        serde_ipld_dagcbor::to_vec(header),
        serde_ipld_dagcbor::to_vec(body),
    );
    // Texts and integers are always written, and a vector takes everything.
    if let (Ok(header), Ok(body)) = parts
        && write_head(to, Data::Binary, header.len() + body.len()).is_ok()
    {
        to.extend_from_slice(&header);
        to.extend_from_slice(&body);
    }
}
