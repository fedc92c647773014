//! Firehose frames that a test forges, and recorded ones.

use std::collections::BTreeMap;

use atcomm::syntax::RECORD_PATH;
use data_encoding::HEXLOWER;
use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use serde_json::{Value, json};

use crate::network::{Network, root};

/// A firehose between a real PDS and the service that passes everything on and adds what a test
/// wants.
pub(crate) struct Firehose {
    network: &'static Network,
    id: Value,
    pub(crate) url: String,
}

impl Firehose {
    /// In front of the host at `from`: a PDS's index or a URL.
    pub(crate) fn start(network: &'static Network, from: &Value) -> Self {
        let hose = network.op("firehose.start", json!({"from": from}));
        Self {
            network,
            id: hose["id"].clone(),
            url: hose["url"].as_str().expect("a URL").to_owned(),
        }
    }

    fn op(&self, operation: &str, mut body: Value) -> Value {
        body["id"] = self.id.clone();
        self.network.op(operation, body)
    }

    /// Sends a binary message to whoever follows.
    pub(crate) fn inject(&self, frame: &[u8]) {
        let sent = self.op("firehose.inject", json!({"hex": HEXLOWER.encode(frame)}));
        assert_ne!(sent["sent"], 0, "nobody follows");
    }

    /// Sends so many bytes of nothing.
    pub(crate) fn inject_zeros(&self, count: usize) {
        self.op("firehose.inject", json!({"hex": "00", "repeat": count}));
    }

    /// Sends a text message.
    pub(crate) fn inject_text(&self, text: &str) {
        self.op("firehose.inject", json!({"text": text}));
    }

    /// Loses the next messages; 0 ends that.
    pub(crate) fn lose(&self, count: usize) {
        self.op("firehose.skip", json!({"count": count}));
    }

    /// Breaks every connection.
    pub(crate) fn cut(&self) {
        self.op("firehose.drop", json!({}));
    }
}

/// A message: a header with `t`, and a payload.
pub(crate) fn message(t: &str, payload: BTreeMap<String, Ipld>) -> Vec<u8> {
    let header = map([("op", Ipld::Integer(1)), ("t", text(t))]);
    let mut frame = serde_ipld_dagcbor::to_vec(&Ipld::Map(header)).expect("DAG-CBOR");
    frame.extend(serde_ipld_dagcbor::to_vec(&Ipld::Map(payload)).expect("DAG-CBOR"));
    frame
}

/// What a `#commit` claims about an account's key package.
pub(crate) struct Claim<'c> {
    pub(crate) seq: i64,
    pub(crate) did: &'c str,
    pub(crate) rev: String,
    pub(crate) commit: Cid,
    /// The record that it wrote; `None` for a removal.
    pub(crate) cid: Option<Cid>,
    pub(crate) blocks: &'c [u8],
}

impl Claim<'_> {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let action = if self.cid.is_some() { "update" } else { "delete" };
        let op = map([
            ("action", text(action)),
            ("path", text(RECORD_PATH)),
            ("cid", self.cid.map_or(Ipld::Null, Ipld::Link)),
        ]);
        let payload = map([
            ("seq", Ipld::Integer(self.seq.into())),
            ("repo", text(self.did)),
            ("rev", text(&self.rev)),
            ("since", Ipld::Null),
            ("commit", Ipld::Link(self.commit)),
            ("blocks", Ipld::Bytes(self.blocks.to_vec())),
            ("ops", Ipld::List(vec![Ipld::Map(op)])),
            ("blobs", Ipld::List(Vec::new())),
            ("rebase", Ipld::Bool(false)),
            ("tooBig", Ipld::Bool(false)),
            ("time", text(TIME)),
        ]);
        message("#commit", payload)
    }
}

/// An `#account` event.
pub(crate) fn account(seq: i64, did: &str, active: bool, status: Option<&str>) -> Vec<u8> {
    let mut payload = map([
        ("seq", Ipld::Integer(seq.into())),
        ("did", text(did)),
        ("active", Ipld::Bool(active)),
        ("time", text(TIME)),
    ]);
    if let Some(status) = status {
        payload.insert("status".to_owned(), text(status));
    }
    message("#account", payload)
}

/// A time that a server writes; nothing is decided by it within a test.
const TIME: &str = "2026-11-23T00:00:00.000Z";

pub(crate) fn map<const N: usize>(fields: [(&str, Ipld); N]) -> BTreeMap<String, Ipld> {
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

pub(crate) fn text(text: &str) -> Ipld {
    Ipld::String(text.to_owned())
}

/// A file below `fixtures/`.
pub(crate) fn fixture(path: &str) -> Vec<u8> {
    let path = root().join("fixtures").join(path);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The stems of the files of one kind below `fixtures/<folder>`, in order.
pub(crate) fn stems(folder: &str, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join("fixtures").join(folder)).expect("a folder");
    let mut stems: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
        .collect();
    stems.sort();
    stems
}
