use std::collections::BTreeMap;

use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

/// Generates a value of the data model without floats.
fn any_value() -> impl Strategy<Value = Ipld> {
    let leaf = prop_oneof![
        Just(Ipld::Null),
        any::<bool>().prop_map(Ipld::Bool),
        any::<i64>().prop_map(|n| Ipld::Integer(n.into())),
        (0_i128..300).prop_map(Ipld::Integer),
        ".{0,30}".prop_map(Ipld::String),
        vec(any::<u8>(), 0..40).prop_map(Ipld::Bytes),
        any::<[u8; 32]>().prop_map(|hash| {
            let bytes = [&DAG_CBOR_CID[..], &hash].concat();
            Ipld::Link(Cid::try_from(bytes).unwrap())
        }),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Ipld::List),
            btree_map(".{0,6}", inner, 0..6).prop_map(Ipld::Map),
        ]
    })
}

fn has_float(value: &Ipld) -> bool {
    match value {
        Ipld::Float(_) => true,
        Ipld::List(items) => items.iter().any(has_float),
        Ipld::Map(map) => map.values().any(has_float),
        _ => false,
    }
}

fn has_odd_link(value: &Ipld) -> bool {
    match value {
        Ipld::Link(cid) => sha256_cid(&cid.to_bytes()).is_none(),
        Ipld::List(items) => items.iter().any(has_odd_link),
        Ipld::Map(map) => map.values().any(has_odd_link),
        _ => false,
    }
}

/// Returns whether the library reads the bytes and writes the same bytes again.
fn library_agrees(bytes: &[u8]) -> bool {
    serde_ipld_dagcbor::from_slice::<Ipld>(bytes).is_ok_and(|value| {
        !has_float(&value)
            && !has_odd_link(&value)
            && serde_ipld_dagcbor::to_vec(&value).is_ok_and(|again| again == bytes)
    })
}

#[test]
fn what_dag_cbor_leaves_out_is_refused() {
    use CborError as E;
    let cases: [(&[u8], E); 22] = [
        (b"", E::Truncated),
        (b"\x61", E::Truncated),
        (b"\x82\x01", E::Truncated),
        (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", E::Truncated),
        (b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", E::Truncated),
        (b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff", E::Truncated),
        (b"\x9f\xff", E::Indefinite),
        (b"\x5f\x41\x00\xff", E::Indefinite),
        (b"\x18\x17", E::NotShortest),
        (b"\x19\x00\xff", E::NotShortest),
        (b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff", E::NotShortest),
        (b"\x78\x01a", E::NotShortest),
        (b"\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00", E::Type),
        (b"\xf9\x3c\x00", E::Type),
        (b"\xf7", E::Type),
        (b"\x1c", E::Type),
        (b"\xc0\x60", E::Tag),
        (b"\xd8\x2a\xd8\x2a\x41\x00", E::Link),
        (b"\x62\xc3\x28", E::Utf8),
        (b"\xa1\x01\x01", E::Key),
        (b"\xa2\x61b\x01\x61a\x02", E::Key),
        (b"\xa2\x61a\x01\x61a\x02", E::Key),
    ];
    for (bytes, error) in cases {
        assert_eq!(validate(bytes), Err(error), "{bytes:02x?}");
        assert!(!library_agrees(bytes), "{bytes:02x?}");
    }
    assert_eq!(validate(b"\x01\x01"), Err(E::Trailing));
    // Keys are sorted by length first.
    assert_eq!(validate(b"\xa2\x61b\x01\x62aa\x02"), Ok(()));
    assert_eq!(validate(b"\xa2\x62aa\x01\x61b\x02"), Err(E::Key));
}

#[test]
fn links_are_version_1_with_sha_256() {
    let link = |cid: &[u8]| {
        let mut bytes = vec![0xd8, 0x2a, 0x58, u8::try_from(cid.len() + 1).unwrap(), 0];
        bytes.extend(cid);
        validate(&bytes)
    };
    let hash = [7; 32];
    assert_eq!(link(&[&DAG_CBOR_CID[..], &hash].concat()), Ok(()));
    assert_eq!(link(&[&RAW_CID[..], &hash].concat()), Ok(()));
    let version_0 = [&[0x12, 0x20][..], &hash].concat();
    assert_eq!(link(&version_0), Err(CborError::Link));
    let other_codec = [&[0x01, 0x70, 0x12, 0x20][..], &hash].concat();
    assert_eq!(link(&other_codec), Err(CborError::Link));
    assert_eq!(
        link(&[&DAG_CBOR_CID[..], &[7; 31]].concat()),
        Err(CborError::Link)
    );
}

#[test]
fn nesting_is_bounded_before_the_stack_is() {
    let nested = |levels: usize| [vec![0x81; levels], vec![0x01]].concat();
    assert_eq!(validate(&nested(MAX_DEPTH)), Ok(()));
    assert_eq!(validate(&nested(MAX_DEPTH + 1)), Err(CborError::Depth));
    assert_eq!(CborReader::new(&nested(MAX_DEPTH)).skip(), Ok(()));
    let deepest = nested(5_000_000);
    assert_eq!(validate(&deepest), Err(CborError::Depth));
    assert_eq!(CborReader::new(&deepest).skip(), Err(CborError::Depth));
}

#[test]
fn a_value_of_another_type_is_passed_over_whole() {
    let value = Ipld::List(vec![
        Ipld::Map(BTreeMap::from([(
            "a".to_owned(),
            Ipld::List(vec![Ipld::Null]),
        )])),
        Ipld::String("next".to_owned()),
    ]);
    let bytes = serde_ipld_dagcbor::to_vec(&value).unwrap();
    let mut reader = CborReader::new(&bytes);
    assert_eq!(reader.array(), Ok(Some(2)));
    assert_eq!(reader.unsigned(), Ok(None));
    assert_eq!(reader.text(), Ok(Some("next")));
    assert!(reader.is_empty());
}

proptest! {
    #[test]
    fn what_the_library_writes_is_valid(value in any_value()) {
        let bytes = serde_ipld_dagcbor::to_vec(&value).unwrap();
        prop_assert_eq!(validate(&bytes), Ok(()));
        let mut reader = CborReader::new(&bytes);
        prop_assert_eq!(reader.skip(), Ok(()));
        prop_assert!(reader.is_empty());
        for len in 0..bytes.len() {
            prop_assert!(validate(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn a_damaged_block_is_judged_as_the_library_judges_it(
        value in any_value(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let mut bytes = serde_ipld_dagcbor::to_vec(&value).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = to;
        prop_assert_eq!(validate(&bytes).is_ok(), library_agrees(&bytes));
    }

    #[test]
    fn any_bytes_are_judged_as_the_library_judges_them(bytes in vec(any::<u8>(), 0..24)) {
        prop_assert_eq!(validate(&bytes).is_ok(), library_agrees(&bytes));
    }
}
