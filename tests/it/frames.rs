//! Firehose frames, forged and recorded.

use std::collections::BTreeMap;

use atcomm_proto::syntax::RECORD_PATH;
use data_encoding::HEXLOWER;
use ipld_core::cid::Cid;
use ipld_core::cid::multihash::Multihash;
use ipld_core::ipld::Ipld;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::network::{Network, root};

/// A firehose between a real PDS and the service, which relays all messages and adds those of a
/// test.
pub(crate) struct Firehose {
    network: &'static Network,
    id: Value,
    pub(crate) url: String,
}

impl Firehose {
    /// Starts a firehose in front of the host `from`, given by a PDS's index or a URL.
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

    /// Sends a binary message to every connection.
    pub(crate) fn inject(&self, frame: &[u8]) {
        let sent = self.op("firehose.inject", json!({"hex": HEXLOWER.encode(frame)}));
        assert_ne!(sent["sent"], 0, "no connection");
    }

    /// Sends the same binary message many times, to whatever connections there are.
    pub(crate) fn inject_times(&self, frame: &[u8], times: usize) {
        let body = json!({"hex": HEXLOWER.encode(frame), "times": times});
        self.op("firehose.inject", body);
    }

    /// Sends a binary message that has a place in the stream: it comes again on every connection
    /// that begins before it.
    pub(crate) fn inject_kept(&self, frame: &[u8]) {
        let hex = HEXLOWER.encode(frame);
        self.op("firehose.inject", json!({"hex": hex, "keep": true}));
    }

    /// Sends a message of `count` zero bytes that has a place in the stream.
    pub(crate) fn inject_zeros_kept(&self, count: usize) {
        let body = json!({"hex": "00", "repeat": count, "keep": true});
        self.op("firehose.inject", body);
    }

    /// Sends a message of `count` zero bytes.
    pub(crate) fn inject_zeros(&self, count: usize) {
        self.op("firehose.inject", json!({"hex": "00", "repeat": count}));
    }

    /// Sends a text message.
    pub(crate) fn inject_text(&self, text: &str) {
        self.op("firehose.inject", json!({"text": text}));
    }

    /// Drops the next `count` messages; 0 ends that.
    pub(crate) fn lose(&self, count: usize) {
        self.op("firehose.skip", json!({"count": count}));
    }

    /// Closes every connection.
    pub(crate) fn cut(&self) {
        self.op("firehose.drop", json!({}));
    }
}

/// Encodes a message: a header with `t`, and a payload.
pub(crate) fn message(t: &str, payload: BTreeMap<String, Ipld>) -> Vec<u8> {
    let header = map([("op", Ipld::Integer(1)), ("t", text(t))]);
    let mut frame = serde_ipld_dagcbor::to_vec(&Ipld::Map(header)).expect("DAG-CBOR");
    frame.extend(serde_ipld_dagcbor::to_vec(&Ipld::Map(payload)).expect("DAG-CBOR"));
    frame
}

/// The statement of a `#commit` about an account's key package.
pub(crate) struct Claim<'c> {
    pub(crate) seq: i64,
    pub(crate) did: &'c str,
    pub(crate) rev: String,
    pub(crate) commit: Cid,
    /// The record that was written; `None` for a removal.
    pub(crate) cid: Option<Cid>,
    pub(crate) blocks: &'c [u8],
}

impl Claim<'_> {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let action = if self.cid.is_some() {
            "update"
        } else {
            "delete"
        };
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

/// Encodes an `#account` event.
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

/// The time in a frame, which decides nothing within a test.
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

/// Returns the root of a CAR and its blocks in order.
pub(crate) fn read_car(car: &[u8]) -> (Cid, Vec<(Cid, Vec<u8>)>) {
    let (header, mut rest) = section(car);
    let Ok(Ipld::Map(header)) = serde_ipld_dagcbor::from_slice(header) else {
        panic!("no header");
    };
    let Ipld::List(roots) = &header["roots"] else {
        panic!("no roots");
    };
    let &[Ipld::Link(root)] = &roots[..] else {
        panic!("not one root");
    };
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let (mut block, after) = section(rest);
        let cid = Cid::read_bytes(&mut block).expect("a CID");
        blocks.push((cid, block.to_vec()));
        rest = after;
    }
    (root, blocks)
}

/// Splits off the first length-prefixed section.
fn section(bytes: &[u8]) -> (&[u8], &[u8]) {
    let digits = bytes.iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let length = bytes[..digits]
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
    bytes[digits..].split_at(length)
}

/// Returns the CAR with one field of its commit changed: hashes are right, and the signature is the
/// old one.
pub(crate) fn forge_commit(car: &[u8], field: &str, value: Ipld) -> Vec<u8> {
    let (root, mut blocks) = read_car(car);
    let commit = blocks.iter_mut().find(|(cid, _)| *cid == root);
    let (cid, bytes) = commit.expect("a commit");
    let Ok(Ipld::Map(mut fields)) = serde_ipld_dagcbor::from_slice(bytes) else {
        panic!("no commit");
    };
    fields.insert(field.to_owned(), value);
    *bytes = serde_ipld_dagcbor::to_vec(&Ipld::Map(fields)).expect("DAG-CBOR");
    let digest = Multihash::wrap(0x12, &Sha256::digest(&*bytes)).expect("a hash");
    *cid = Cid::new_v1(0x71, digest);
    let root = *cid;

    let header = map([
        ("version", Ipld::Integer(1)),
        ("roots", Ipld::List(vec![Ipld::Link(root)])),
    ]);
    let header = serde_ipld_dagcbor::to_vec(&Ipld::Map(header)).expect("DAG-CBOR");
    let mut forged = Vec::new();
    let mut write = |parts: [&[u8]; 2]| {
        let mut length = parts[0].len() + parts[1].len();
        while length >= 0x80 {
            forged.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        forged.push(length as u8);
        forged.extend(parts.concat());
    };
    write([&header, &[]]);
    for (cid, bytes) in &blocks {
        write([&cid.to_bytes(), bytes]);
    }
    forged
}

/// Reads a file below `fixtures/`.
pub(crate) fn fixture(path: &str) -> Vec<u8> {
    let path = root().join("fixtures").join(path);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the stems of the files below `fixtures/<folder>` with this ending, in order.
pub(crate) fn stems(folder: &str, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join("fixtures").join(folder)).expect("a folder");
    let mut stems: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
        .collect();
    stems.sort();
    stems
}
