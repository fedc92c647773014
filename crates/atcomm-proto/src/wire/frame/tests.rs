use std::collections::BTreeMap;

use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::syntax::{Did, MAX_DID_LEN, RECORD_PATH, Rev};
use crate::wire::cbor::CID_LEN;

mod texts;

fn text(s: &str) -> Ipld {
    Ipld::String(s.to_owned())
}

fn map(fields: &[(&str, Ipld)]) -> Ipld {
    Ipld::Map(
        fields
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect(),
    )
}

fn cid_bytes(n: u8) -> [u8; CID_LEN] {
    let mut bytes = [n; CID_LEN];
    bytes[..4].copy_from_slice(&[0x01, 0x71, 0x12, 0x20]);
    bytes
}

fn link(n: u8) -> Ipld {
    Ipld::Link(Cid::try_from(&cid_bytes(n)[..]).unwrap())
}

fn frame(header: &Ipld, payload: &Ipld) -> Vec<u8> {
    let mut bytes = serde_ipld_dagcbor::to_vec(header).unwrap();
    bytes.extend(serde_ipld_dagcbor::to_vec(payload).unwrap());
    bytes
}

fn message(t: &str, payload: &Ipld) -> Vec<u8> {
    frame(&map(&[("op", Ipld::Integer(1)), ("t", text(t))]), payload)
}

fn op(action: &str, path: &str, cid: Ipld) -> Ipld {
    map(&[("action", text(action)), ("path", text(path)), ("cid", cid)])
}

fn commit(ops: Vec<Ipld>) -> BTreeMap<String, Ipld> {
    let Ipld::Map(fields) = map(&[
        ("seq", Ipld::Integer(5)),
        ("repo", text("did:plc:a")),
        ("rev", text("3n2wo76pa3k2w")),
        ("since", Ipld::Null),
        ("time", text("2026-11-22T22:41:51.709Z")),
        ("commit", link(1)),
        ("blocks", Ipld::Bytes(vec![7; 3000])),
        ("ops", Ipld::List(ops)),
        ("blobs", Ipld::List(vec![])),
        ("rebase", Ipld::Bool(false)),
        ("tooBig", Ipld::Bool(false)),
    ]) else {
        panic!("not a map");
    };
    fields
}

fn changed(field: &str, value: Ipld) -> Vec<u8> {
    let mut fields = commit(vec![]);
    fields.insert(field.to_owned(), value);
    message("#commit", &Ipld::Map(fields))
}

fn fault(bytes: &[u8]) -> EventFault {
    match Frame::parse(bytes) {
        Err(FrameError::Event {
            seq: 5, did, fault, ..
        }) => {
            assert!(did.is_none_or(|did| did == "did:plc:a"));
            fault
        }
        other => panic!("{other:?}"),
    }
}

fn framing(bytes: &[u8]) -> Framing {
    match Frame::parse(bytes) {
        Err(FrameError::Framing(framing)) => framing,
        other => panic!("{other:?}"),
    }
}

fn our_op(ops: Vec<Ipld>) -> Option<(String, Option<u8>)> {
    let bytes = message("#commit", &Ipld::Map(commit(ops)));
    let Ok(Frame::Commit(commit)) = Frame::parse(&bytes) else {
        panic!("not a commit");
    };
    commit.op.map(|op| match op {
        RecordOp::Create { cid } => ("create".to_owned(), Some(cid[35])),
        RecordOp::Update { cid } => ("update".to_owned(), Some(cid[35])),
        RecordOp::Delete => ("delete".to_owned(), None),
    })
}

#[test]
fn a_commit_is_read_with_what_it_does_to_the_key_package() {
    let other = op("create", "app.bsky.feed.post/3k2y", link(9));
    let bytes = message(
        "#commit",
        &Ipld::Map(commit(vec![
            other.clone(),
            op("create", RECORD_PATH, link(2)),
        ])),
    );
    let Ok(Frame::Commit(read)) = Frame::parse(&bytes) else {
        panic!("not a commit");
    };
    assert_eq!(
        (read.seq, read.repo, read.rev),
        (5, "did:plc:a", "3n2wo76pa3k2w")
    );
    assert_eq!((read.since, read.prev_data, read.ops), (None, None, 2));
    assert_eq!(read.commit, &cid_bytes(1));
    assert_eq!(read.blocks, [7; 3000]);
    assert_eq!(read.op, Some(RecordOp::Create { cid: &cid_bytes(2) }));

    let update = op("update", RECORD_PATH, link(3));
    let delete = op("delete", RECORD_PATH, Ipld::Null);
    assert_eq!(our_op(vec![other.clone()]), None);
    assert_eq!(
        our_op(vec![update, other.clone()]),
        Some(("update".to_owned(), Some(3)))
    );
    assert_eq!(
        our_op(vec![other, delete]),
        Some(("delete".to_owned(), None))
    );
}

#[test]
fn only_the_exact_path_is_ours() {
    for path in [
        "at.didcomm.keyPackage/selfie",
        "at.didcomm.keyPackage/",
        "at.didcomm.keyPackage",
        "at.didcomm.keyPackages/self",
        "/at.didcomm.keyPackage/self",
    ] {
        assert_eq!(our_op(vec![op("create", path, link(2))]), None, "{path}");
    }
}

#[test]
fn operations_that_concern_others_may_be_anything() {
    let odd = vec![
        Ipld::Null,
        map(&[]),
        op("burn", "a.b.c/d", Ipld::Integer(4)),
        map(&[("path", link(1)), ("action", Ipld::List(vec![link(1)]))]),
        op("delete", RECORD_PATH, Ipld::Null),
    ];
    assert_eq!(our_op(odd), Some(("delete".to_owned(), None)));
}

#[test]
fn events_of_every_type_are_read() {
    let base = [
        ("seq", Ipld::Integer(7)),
        ("did", text("did:plc:a")),
        ("time", text("2026-11-22T22:41:51.709773+00:00")),
    ];
    let with = |more: &[(&str, Ipld)]| map(&[&base[..], more].concat());
    let bytes = message("#identity", &with(&[("handle", text("a.test"))]));
    assert!(matches!(
        Frame::parse(&bytes),
        Ok(Frame::Identity(Identity {
            seq: 7,
            did: "did:plc:a",
            ..
        }))
    ));
    let bytes = message("#account", &with(&[("active", Ipld::Bool(true))]));
    assert!(matches!(
        Frame::parse(&bytes),
        Ok(Frame::Account(Account {
            active: true,
            status: None,
            ..
        }))
    ));
    let gone = [("active", Ipld::Bool(false)), ("status", text("deleted"))];
    let bytes = message("#account", &with(&gone));
    assert!(matches!(
        Frame::parse(&bytes),
        Ok(Frame::Account(Account {
            active: false,
            status: Some("deleted"),
            ..
        }))
    ));
    let blocks = [("rev", text("3n2")), ("blocks", Ipld::Bytes(vec![1; 300]))];
    let bytes = message("#sync", &with(&blocks));
    assert!(matches!(
        Frame::parse(&bytes),
        Ok(Frame::Sync(Sync { seq: 7, rev: "3n2", blocks, .. })) if blocks.len() == 300
    ));
    let bytes = message("#handle", &with(&[]));
    assert_eq!(
        Frame::parse(&bytes),
        Ok(Frame::Unknown {
            t: "#handle",
            seq: Some(7)
        })
    );
    let bytes = message("#future", &Ipld::Integer(3));
    assert_eq!(
        Frame::parse(&bytes),
        Ok(Frame::Unknown {
            t: "#future",
            seq: None
        })
    );
}

#[test]
fn words_of_the_server_are_read_and_cut() {
    let info = map(&[("name", text("OutdatedCursor"))]);
    let bytes = message("#info", &info);
    assert_eq!(
        Frame::parse(&bytes),
        Ok(Frame::Info {
            name: "OutdatedCursor",
            message: None
        })
    );
    let header = map(&[("op", Ipld::Integer(-1))]);
    let long = "ä".repeat(1000);
    let payload = map(&[("error", text("FutureCursor")), ("message", text(&long))]);
    let bytes = frame(&header, &payload);
    assert_eq!(
        Frame::parse(&bytes),
        Ok(Frame::Error {
            error: "FutureCursor",
            message: Some(&long[..512])
        })
    );
    let header = map(&[("op", Ipld::Integer(2))]);
    let bytes = frame(&header, &payload);
    assert_eq!(
        Frame::parse(&bytes),
        Ok(Frame::Unknown { t: "", seq: None })
    );
}

#[test]
fn a_bad_event_is_told_apart_from_a_bad_stream() {
    let others = vec![op("create", "a.b.c/d", link(1)); 201];
    let bytes = message("#commit", &Ipld::Map(commit(others)));
    assert_eq!(fault(&bytes), EventFault::TooManyOps);
    for ours in [
        vec![op("create", RECORD_PATH, Ipld::Null)],
        vec![op("burn", RECORD_PATH, link(1))],
        vec![op("delete", RECORD_PATH, link(1))],
        vec![
            op("update", RECORD_PATH, link(1)),
            op("delete", RECORD_PATH, Ipld::Null),
        ],
    ] {
        let bytes = message("#commit", &Ipld::Map(commit(ours)));
        assert_eq!(fault(&bytes), EventFault::Operation);
    }
    let large = Ipld::Bytes(vec![0; MAX_BLOCKS + 1]);
    assert_eq!(fault(&changed("blocks", large)), EventFault::BlocksTooLarge);
    for (field, value) in [
        ("repo", Ipld::Integer(1)),
        ("repo", text("")),
        ("repo", text(&"d".repeat(2049))),
        ("rev", text(&"r".repeat(65))),
        ("since", text(&"r".repeat(65))),
        ("time", Ipld::Null),
        ("commit", Ipld::Bytes(cid_bytes(1).to_vec())),
        ("blocks", Ipld::Null),
        ("ops", map(&[])),
    ] {
        assert_eq!(fault(&changed(field, value)), EventFault::Field(field));
    }
    let account = map(&[
        ("seq", Ipld::Integer(5)),
        ("did", text("did:plc:a")),
        ("time", text("t")),
        ("active", text("yes")),
    ]);
    assert_eq!(
        fault(&message("#account", &account)),
        EventFault::Field("active")
    );
    let sync = map(&[
        ("seq", Ipld::Integer(5)),
        ("did", text("did:plc:a")),
        ("time", text("t")),
        ("rev", text("r")),
        ("blocks", Ipld::Bytes(vec![0; MAX_SYNC_BLOCKS + 1])),
    ]);
    assert_eq!(fault(&message("#sync", &sync)), EventFault::BlocksTooLarge);
}

#[test]
fn a_stream_that_cannot_be_followed_is_refused() {
    for seq in [
        Ipld::Integer(0),
        Ipld::Integer(1 << 53),
        Ipld::Integer(-5),
        text("5"),
    ] {
        assert_eq!(framing(&changed("seq", seq)), Framing::Seq);
    }
    assert_eq!(framing(&vec![0; MAX_FRAME + 1]), Framing::TooLarge);
    assert_eq!(framing(b""), Framing::Cbor(CborError::Truncated));
    let good = message("#commit", &Ipld::Map(commit(vec![])));
    for len in 0..good.len() {
        assert_eq!(framing(&good[..len]), Framing::Cbor(CborError::Truncated));
    }
    let trailing = [&good[..], &[0]].concat();
    assert_eq!(framing(&trailing), Framing::Cbor(CborError::Trailing));
    let float = map(&[("seq", Ipld::Integer(5)), ("x", Ipld::Float(1.5))]);
    assert_eq!(
        framing(&message("#commit", &float)),
        Framing::Cbor(CborError::Type)
    );
    assert_eq!(framing(&message("#commit", &Ipld::Null)), Framing::Payload);
    let payload = Ipld::Map(commit(vec![]));
    for header in [
        map(&[]),
        map(&[("t", text("#commit"))]),
        map(&[("op", Ipld::Integer(1))]),
        map(&[("op", text("1")), ("t", text("#commit"))]),
        map(&[("op", Ipld::Integer(1)), ("t", text(&"#".repeat(65)))]),
        Ipld::Integer(1),
    ] {
        assert_eq!(framing(&frame(&header, &payload)), Framing::Header);
    }
    // {"op": 1, "t": "#identity"} {"seq": 5, "seq": 6}
    let twice = b"\xa2\x62op\x01\x61t\x69#identity\xa2\x63seq\x05\x63seq\x06";
    assert_eq!(framing(twice), Framing::DuplicateField);
}

#[test]
fn fields_may_stand_in_any_order() {
    // {"t": ..., "op": 1} as DAG-CBOR sorts it and as some servers write it.
    let sorted = b"\xa2\x61t\x69#identity\x62op\x01\xa3\x63seq\x05\x63did\x61d\x64time\x61t";
    let other = b"\xa2\x62op\x01\x61t\x69#identity\xa3\x64time\x61t\x63did\x61d\x63seq\x05";
    let expected = Frame::Identity(Identity {
        seq: 5,
        did: "d",
        time: "t",
    });
    assert_eq!(Frame::parse(sorted), Ok(expected.clone()));
    assert_eq!(Frame::parse(other), Ok(expected));
}

#[test]
fn codes_are_stable_names() {
    let errors = [
        FrameError::Framing(Framing::Seq),
        FrameError::from(CborError::Key),
        FrameError::Event {
            seq: 1,
            did: None,
            event: EventType::Commit,
            fault: EventFault::Field("rev"),
        },
    ];
    let codes: Vec<_> = errors.iter().map(FrameError::reason).collect();
    assert_eq!(codes, ["seq", "cbor_key", "field"]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Frame::parse(&bytes);
        let header = message("#commit", &Ipld::Null);
        let bytes = [&header[..header.len() - 1], &bytes].concat();
        let _ = Frame::parse(&bytes);
    }

    #[test]
    fn a_damaged_frame_is_read_or_refused(
        at in any::<prop::sample::Index>(), to in any::<u8>(),
    ) {
        let ours = vec![op("update", RECORD_PATH, link(3)), op("create", "a.b.c/d", link(4))];
        let mut bytes = message("#commit", &Ipld::Map(commit(ours)));
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(Frame::Commit(commit)) = Frame::parse(&bytes) {
            prop_assert!(commit.seq > 0 && commit.repo.len() <= MAX_DID_LEN);
        }
    }
}

fn vectors() -> Vec<(Value, Vec<u8>)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/frames");
    let read = |name: &str| std::fs::read(format!("{dir}/{name}")).unwrap();
    let list: Vec<Value> = serde_json::from_slice(&read("frames.json")).unwrap();
    let with_bytes = |v: Value| {
        let bytes = read(v["file"].as_str().unwrap());
        (v, bytes)
    };
    list.into_iter().map(with_bytes).collect()
}

fn cid_text(cid: &[u8; CID_LEN]) -> Value {
    Cid::try_from(&cid[..]).unwrap().to_string().into()
}

/// Returns the fields that are read here, as the vector's own decoder saw them; absent and null are
/// equal.
fn seen(v: &Value, names: &[&str]) -> Vec<Value> {
    names
        .iter()
        .map(|name| v["payload"][*name].clone())
        .collect()
}

#[test]
fn recorded_frames_are_read_as_their_decoders_read_them() {
    let messages = vectors()
        .into_iter()
        .filter(|(v, _)| v["expect"] == "message");
    for (v, bytes) in messages {
        let what = format!("{}: {}", v["file"], v["what"]);
        let (names, got): (&[&str], Vec<Value>) = match Frame::parse(&bytes).expect(&what) {
            Frame::Commit(c) => {
                let ops = v["payload"]["ops"].as_array().unwrap();
                assert_eq!(c.ops, ops.len() as u64, "{what}");
                assert_eq!(v["blocksLength"], c.blocks.len(), "{what}");
                let ours = ops.iter().find(|op| op["path"] == RECORD_PATH);
                let expected = ours.map(|op| (op["action"].clone(), op["cid"].clone()));
                let read = c.op.map(|op| match op {
                    RecordOp::Create { cid } => ("create".into(), cid_text(cid)),
                    RecordOp::Update { cid } => ("update".into(), cid_text(cid)),
                    RecordOp::Delete => ("delete".into(), Value::Null),
                });
                assert_eq!(read, expected, "{what}");
                (
                    &[
                        "seq", "repo", "rev", "since", "time", "commit", "prevData", "tooBig",
                    ],
                    vec![
                        c.seq.into(),
                        c.repo.into(),
                        c.rev.into(),
                        c.since.into(),
                        c.time.into(),
                        cid_text(c.commit),
                        c.prev_data.map_or(Value::Null, cid_text),
                        c.too_big.into(),
                    ],
                )
            }
            Frame::Sync(s) => {
                assert_eq!(v["blocksLength"], s.blocks.len(), "{what}");
                (
                    &["seq", "did", "rev", "time"],
                    vec![s.seq.into(), s.did.into(), s.rev.into(), s.time.into()],
                )
            }
            Frame::Identity(i) => (
                &["seq", "did", "time"],
                vec![i.seq.into(), i.did.into(), i.time.into()],
            ),
            Frame::Account(a) => (
                &["seq", "did", "time", "active", "status"],
                vec![
                    a.seq.into(),
                    a.did.into(),
                    a.time.into(),
                    a.active.into(),
                    a.status.into(),
                ],
            ),
            Frame::Info { name, message } => {
                (&["name", "message"], vec![name.into(), message.into()])
            }
            Frame::Error { error, message } => {
                (&["error", "message"], vec![error.into(), message.into()])
            }
            Frame::Unknown { t, .. } => panic!("{what}: unknown type {t}"),
        };
        assert_eq!(got, seen(&v, names), "{what}");
    }
}

/// Returns whether a vector may be accepted here although it is invalid, with the reason.
fn is_harmless_here(v: &Value, frame: &Frame<'_>) -> bool {
    match (v["kind"].as_str().unwrap(), frame) {
        // Refused by the types that the caller makes of the text, or by the proof (a future rev).
        ("did", Frame::Identity(identity)) => Did::parse(identity.did).is_err(),
        ("rev", Frame::Commit(commit)) => {
            Rev::parse(commit.rev).is_err() || v["what"] == "a rev of the year 2100"
        }
        // Not our path: if every malformed path of other records caused a refresh, anyone could
        // make us fetch.
        ("path", Frame::Commit(commit)) => commit.op.is_none(),
        // Envelopes are not signed, and the reference's decoder accepts this one too.
        ("cbor", _) => v["what"] == "the keys in the wrong order" && v["decoder"].is_null(),
        _ => false,
    }
}

#[test]
fn damaged_frames_are_judged_by_what_has_to_be_done() {
    for (v, bytes) in vectors() {
        let what = format!("{}: {}", v["file"], v["what"]);
        let frame = Frame::parse(&bytes);
        let judged = match &frame {
            Ok(Frame::Unknown { .. }) => "ignored",
            Ok(_) => "message",
            Err(FrameError::Event { .. }) => "invalid",
            Err(FrameError::Framing(_)) => "disconnect",
        };
        let harmless = frame
            .as_ref()
            .is_ok_and(|frame| is_harmless_here(&v, frame));
        assert!(
            v["expect"] == judged || v["orElse"] == judged || harmless,
            "{what}: {frame:?}"
        );
    }
}
