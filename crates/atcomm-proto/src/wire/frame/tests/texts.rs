//! Text that is not UTF-8, and messages of which only a part can be read.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Writes a value as DAG-CBOR does, but each text as `texts` returns it.
fn encode(value: &Ipld, texts: &mut impl FnMut(&str) -> Vec<u8>, out: &mut Vec<u8>) {
    let head = |major: u8, len: usize, out: &mut Vec<u8>| {
        let number = serde_ipld_dagcbor::to_vec(&(len as u64)).unwrap();
        out.push(number[0] | major << 5);
        out.extend(&number[1..]);
    };
    let text = |text: Vec<u8>, out: &mut Vec<u8>| {
        head(3, text.len(), out);
        out.extend(text);
    };
    match value {
        Ipld::String(plain) => text(texts(plain), out),
        Ipld::List(items) => {
            head(4, items.len(), out);
            items.iter().for_each(|item| encode(item, texts, out));
        }
        Ipld::Map(fields) => {
            head(5, fields.len(), out);
            for (key, value) in fields {
                text(texts(key), out);
                encode(value, texts, out);
            }
        }
        other => out.extend(serde_ipld_dagcbor::to_vec(other).unwrap()),
    }
}

/// Returns a frame whose payload has the texts that `texts` returns.
fn with_texts(t: &str, payload: &Ipld, mut texts: impl FnMut(&str) -> Vec<u8>) -> Vec<u8> {
    let header = map(&[("op", Ipld::Integer(1)), ("t", text(t))]);
    let mut bytes = serde_ipld_dagcbor::to_vec(&header).unwrap();
    encode(payload, &mut texts, &mut bytes);
    bytes
}

/// A commit with texts in all places: fields that are read, fields that are skipped, operations.
fn commit_of_texts() -> Ipld {
    let mut fields = commit(vec![
        op("create", "a.b.c/d", link(9)),
        map(&[("path", text("a.b.c/e")), ("note", text("skipped"))]),
    ]);
    let nested = map(&[("inner", Ipld::List(vec![text("deep")]))]);
    fields.insert("future".to_owned(), nested);
    Ipld::Map(fields)
}

#[test]
fn text_that_is_not_utf_8_spoils_its_event_only() {
    let bad = b"\xc3\x28".to_vec();
    for (place, fault_there) in [
        ("did:plc:a", EventFault::Field("repo")),
        ("3n2wo76pa3k2w", EventFault::Field("rev")),
        ("2026-11-22T22:41:51.709Z", EventFault::Field("time")),
        ("repo", EventFault::Field("repo")),
        ("blobs", EventFault::Text),
        ("a.b.c/d", EventFault::Text),
        ("note", EventFault::Text),
        ("skipped", EventFault::Text),
        ("future", EventFault::Text),
        ("inner", EventFault::Text),
        ("deep", EventFault::Text),
    ] {
        let bytes = with_texts("#commit", &commit_of_texts(), |text| {
            if text == place {
                bad.clone()
            } else {
                text.as_bytes().to_vec()
            }
        });
        assert_eq!(fault(&bytes), fault_there, "{place}");
    }
    // A type that is not UTF-8 is an unknown one.
    let mut bytes = b"\xa2\x61t\x62\xc3\x28\x62op\x01".to_vec();
    bytes.extend(b"\xa1\x63seq\x05");
    assert_eq!(
        Frame::parse(&bytes),
        Ok(Frame::Unknown {
            t: "",
            seq: Some(5)
        })
    );
}

#[test]
fn the_account_of_an_unreadable_message_is_found_before_the_fault() {
    // {"did": "did:plc:a", "x": 1.5}
    let float =
        b"\xa2\x61t\x69#identity\x62op\x01\xa2\x63did\x69did:plc:a\x61x\xfb\x3f\xf8\0\0\0\0\0\0";
    assert_eq!(framing(float), Framing::Cbor(CborError::Type));
    assert_eq!(account_of(float), Some("did:plc:a"));
    let good = message("#commit", &Ipld::Map(commit(vec![])));
    assert_eq!(account_of(&good), Some("did:plc:a"));
    for nothing in [&b""[..], b"\xa0", &good[..20], &vec![0; MAX_FRAME + 1]] {
        assert_eq!(account_of(nothing), None);
    }
}

proptest! {
    #[test]
    fn inv8_arbitrary_bytes_in_texts_are_never_a_fault_of_the_stream(
        texts in vec((any::<bool>(), vec(any::<u8>(), 0..40)), 1..40),
        t in prop::sample::select(vec!["#commit", "#sync", "#identity", "#account", "#info"]),
    ) {
        let mut number = 0;
        let bytes = with_texts(t, &commit_of_texts(), |text| {
            number += 1;
            let (changed, other) = &texts[number % texts.len()];
            // Without its number an event has no place in the stream; a field that stands twice
            // can mean two things.
            let is_read = commit(vec![]).contains_key(text)
                || matches!(text, "path" | "action" | "cid");
            if *changed && !is_read { other.clone() } else { text.as_bytes().to_vec() }
        });
        let read = Frame::parse(&bytes);
        prop_assert!(!matches!(read, Err(FrameError::Framing(_))), "{:?}", read);
    }
}
