use ipld_core::cid::Cid;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const PEER: &str = "did:peer:2.Ez6LSqgWCUWG1wGycaieSkTxorcgpXmPk3ZyZ8JSwJ78nP65v.\
                    Vz6MktE4LqoF37NWAEAuWBxoYmMCgeYvTrDGG4ckPTPqBUMY2";

/// Converts JSON to a value; `{"$link"}` and `{"$bytes"}` are read only where they are well-formed.
fn ipld(value: &Value) -> Ipld {
    match value {
        Value::Null => Ipld::Null,
        Value::Bool(value) => Ipld::Bool(*value),
        Value::Number(n) => match n.as_i64() {
            Some(n) => Ipld::Integer(n.into()),
            None => Ipld::Float(n.as_f64().unwrap()),
        },
        Value::String(text) => Ipld::String(text.clone()),
        Value::Array(items) => Ipld::List(items.iter().map(ipld).collect()),
        Value::Object(map) => {
            let only = |key: &str| map.get(key).filter(|_| map.len() == 1)?.as_str();
            if let Some(cid) = only("$link").and_then(|text| text.parse::<Cid>().ok()) {
                return Ipld::Link(cid);
            }
            let decode = |text: &str| data_encoding::BASE64_NOPAD.decode(text.as_bytes()).ok();
            if let Some(bytes) = only("$bytes").and_then(decode) {
                return Ipld::Bytes(bytes);
            }
            Ipld::Map(map.iter().map(|(k, v)| (k.clone(), ipld(v))).collect())
        }
    }
}

fn block(value: &Value) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(&ipld(value)).unwrap()
}

fn plain() -> Value {
    json!({
        "$type": "at.didcomm.keyPackage",
        "did": PEER,
        "mediators": ["did:web:wa.mediators.didcomm.at"],
        "label": "phone",
        "createdAt": "2026-06-14T00:00:00Z",
    })
}

/// Returns a valid record with one field changed, or removed if the value is null.
fn with(field: &str, value: Value) -> Value {
    let mut record = plain();
    let fields = record.as_object_mut().unwrap();
    if value.is_null() {
        fields.remove(field);
    } else {
        fields.insert(field.to_owned(), value);
    }
    record
}

fn rule(value: &Value) -> Rule {
    KeyPackage::parse(&block(value)).unwrap_err().rule
}

#[test]
fn a_package_is_read_as_it_is() {
    let package = KeyPackage::parse(&block(&plain())).unwrap();
    assert_eq!(package.peer.as_str(), PEER);
    assert_eq!(
        package.mediators[0].as_str(),
        "did:web:wa.mediators.didcomm.at"
    );
    assert_eq!(package.label.as_deref(), Some("phone"));
    assert_eq!(package.created_at, "2026-06-14T00:00:00Z");
    assert_eq!(record_json(&block(&plain())).unwrap(), plain());
}

#[test]
fn optional_and_unknown_fields_are_let_through() {
    assert_eq!(
        KeyPackage::parse(&block(&with("label", Value::Null)))
            .unwrap()
            .label,
        None
    );
    let extra = with(
        "devices",
        json!([{"n": 1, "blob": {"$bytes": "AAEC"}, "of": {"$link":
            "bafyreigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"}}]),
    );
    assert!(KeyPackage::parse(&block(&extra)).is_ok());
    assert_eq!(record_json(&block(&extra)).unwrap(), extra);
}

#[test]
fn mediators_keep_order_and_may_repeat_or_be_of_any_method() {
    let list = json!([
        "did:web:b.example",
        PEER,
        "did:web:a.example",
        "did:web:b.example"
    ]);
    let package = KeyPackage::parse(&block(&with("mediators", list.clone()))).unwrap();
    let read: Vec<_> = package.mediators.iter().map(MediatorDid::as_str).collect();
    assert_eq!(json!(read), list);
}

#[test]
fn mediators_are_dids_as_the_reference_judges_them() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../../fixtures/interop/syntax/did.json")).unwrap();
    for (list, valid) in [("valid", true), ("invalid", false)] {
        for did in vectors[list].as_array().unwrap() {
            let record = block(&with("mediators", json!([did])));
            assert_eq!(KeyPackage::parse(&record).is_ok(), valid, "{did}");
        }
    }
}

#[test]
fn each_rule_is_told_by_its_name() {
    let cases = [
        (json!([plain()]), Rule::Object),
        (json!(42), Rule::Object),
        (with("$type", Value::Null), Rule::Type),
        (with("$type", json!("at.didcomm.dm")), Rule::Type),
        (with("$type", json!(1)), Rule::DataModel),
        (with("did", Value::Null), Rule::Did),
        (with("did", json!(42)), Rule::Did),
        (with("did", json!("did:web:a.example")), Rule::DidMethod),
        (with("did", json!("did:peer:4zQm")), Rule::DidMethod),
        (with("did", json!("x")), Rule::DidSyntax),
        (with("did", json!(format!("{PEER}#key-1"))), Rule::DidSyntax),
        (
            with(
                "did",
                json!("did:peer:2.Vz6MktE4LqoF37NWAEAuWBxoYmMCgeYvTrDGG4ckPTPqBUMY2"),
            ),
            Rule::DidX25519,
        ),
        (with("mediators", Value::Null), Rule::Mediators),
        (
            with("mediators", json!("did:web:a.example")),
            Rule::Mediators,
        ),
        (with("mediators", json!([])), Rule::MediatorsEmpty),
        (
            with("mediators", json!(vec!["did:web:a.example"; 33])),
            Rule::MediatorsTooMany,
        ),
        (
            with("mediators", json!(["https://a.example"])),
            Rule::MediatorDid,
        ),
        (
            with("mediators", json!(["did:web:a.example#didcomm"])),
            Rule::MediatorDid,
        ),
        (
            with("mediators", json!(["did:web:a.example", null])),
            Rule::MediatorDid,
        ),
        (with("label", json!(["phone"])), Rule::Label),
        (with("label", json!("a".repeat(65))), Rule::LabelTooLong),
        (with("createdAt", Value::Null), Rule::CreatedAt),
        (with("createdAt", json!(1_781_395_200)), Rule::CreatedAt),
        (
            with("createdAt", json!("2026-06-14")),
            Rule::CreatedAtSyntax,
        ),
        (with("x", json!(1.5)), Rule::DataModel),
    ];
    for (record, expected) in cases {
        let err = KeyPackage::parse(&block(&record)).unwrap_err();
        assert_eq!(err.rule, expected, "{record}");
        assert!(!err.detail.is_empty() && err.detail.len() < 200, "{record}");
    }
    // A label that is null is present and is not a text.
    let mut null = plain();
    null["label"] = Value::Null;
    assert_eq!(rule(&null), Rule::Label);
}

#[test]
fn labels_are_counted_in_graphemes_and_bytes() {
    let family = "👨‍👩‍👧‍👦"; // 25 bytes
    let label = |text: String| KeyPackage::parse(&block(&with("label", json!(text)))).map(drop);
    assert_eq!(label("a".repeat(64)), Ok(()));
    assert_eq!(label(family.repeat(25)), Ok(()));
    assert_eq!(
        label(family.repeat(26)).unwrap_err().rule,
        Rule::LabelTooLong
    );
    // One grapheme of 641 bytes.
    let tall = format!("e{}", "\u{301}".repeat(320));
    assert_eq!(label(tall).unwrap_err().rule, Rule::LabelTooLong);
    assert_eq!(label(String::new()), Ok(()));
}

#[test]
fn a_mediator_that_is_named_twice_counts_at_its_first_place() {
    let mut record = plain();
    let (one, two) = ("did:web:one.example.com", "did:web:two.example.com");
    record["mediators"] = json!([one, two, one, two, one]);
    let package = KeyPackage::parse(&block(&record)).unwrap();
    assert_eq!(package.mediators.len(), 5);
    let distinct = package.distinct_mediators();
    let distinct: Vec<&str> = distinct.iter().map(MediatorDid::as_str).collect();
    assert_eq!(distinct, [one, two]);
}

#[test]
fn codes_are_unique_and_read_back() {
    for rule in Rule::ALL {
        assert_eq!(Rule::from_code(rule.code()), Some(rule));
        assert!(rule.message().ends_with('.'));
    }
    assert_eq!(Rule::from_code("other"), None);
}

#[test]
fn the_data_model_is_shown_as_the_reference_shows_it() {
    let vectors: Value = serde_json::from_str(include_str!(
        "../../../../fixtures/interop/data-model/valid.json"
    ))
    .unwrap();
    for v in vectors["values"].as_array().unwrap() {
        let hex = v["cborHex"].as_str().unwrap();
        let block = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        assert_eq!(
            record_json(&block).as_ref(),
            Ok(&v["json"]),
            "{}",
            v["what"]
        );
    }
}

#[test]
fn what_the_reference_refuses_has_no_json() {
    let vectors: Value = serde_json::from_str(include_str!(
        "../../../../fixtures/interop/data-model/invalid.json"
    ))
    .unwrap();
    for v in vectors["values"].as_array().unwrap() {
        assert!(record_json(&block(&v["json"])).is_err(), "{}", v["what"]);
    }
}

#[test]
fn records_that_break_their_readers_have_no_json() {
    let cases = [
        (json!({"a": [{"__proto__": 1}]}), RecordError::ReservedKey),
        (json!({"a": {"$link": "bafy"}}), RecordError::ReservedKey),
        (
            json!({"a": {"$bytes": "!", "b": 1}}),
            RecordError::ReservedKey,
        ),
        (
            json!({"a": 9_007_199_254_740_992_i64}),
            RecordError::Integer,
        ),
        (json!({"a": i64::MIN}), RecordError::Integer),
    ];
    for (value, error) in cases {
        assert_eq!(record_json(&block(&value)), Err(error), "{value}");
        let mut record = plain();
        record["extra"] = value;
        assert_eq!(rule(&record), Rule::DataModel);
    }
}

#[test]
fn blocks_that_are_not_strict_are_refused() {
    let bytes = block(&plain());
    let trailing = [&bytes[..], &[0]].concat();
    let deep = [vec![0x81; 100_000], vec![0]].concat();
    for bad in [
        &[][..],
        &bytes[..bytes.len() - 1],
        &trailing,
        &deep,
        b"\xa2\x61b\x01\x61a\x02",
    ] {
        assert_eq!(KeyPackage::parse(bad).unwrap_err().rule, Rule::DataModel);
        assert!(record_json(bad).is_err());
    }
}

proptest! {
    #[test]
    fn a_damaged_record_is_read_or_refused(
        at in any::<prop::sample::Index>(), to in any::<u8>(), end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = block(&plain());
        let at = at.index(bytes.len());
        bytes[at] = to;
        if KeyPackage::parse(&bytes).is_ok() {
            prop_assert!(record_json(&bytes).is_ok());
        }
        prop_assert!(KeyPackage::parse(&bytes[..end.index(bytes.len())]).is_err());
    }
}
