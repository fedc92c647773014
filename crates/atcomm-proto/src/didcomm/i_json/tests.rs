use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

fn nested(open: &str, close: &str, levels: usize) -> String {
    format!("{{\"x\":{}1{}}}", open.repeat(levels), close.repeat(levels))
}

#[test]
fn envelopes_and_their_extensions_pass() {
    let recipient =
        r#"{"header":{"kid":"did:web:x#1","epk":{"kty":"OKP","x":"AA"}},"encrypted_key":"AA"}"#;
    for good in [
        "{}".to_owned(),
        " \r\n\t{ } \n".to_owned(),
        r#"{"protected":"e30","iv":"","tag":"AA","x5t#S256":"AA","http://x.example/y":[]}"#
            .to_owned(),
        format!(r#"{{"recipients":[{}]}}"#, [recipient; 32].join(",")),
        r#"{"a":0,"b":-0,"c":-12.50,"d":999999999999999,"e":true,"f":false,"g":null}"#.to_owned(),
        r#"{"a":"\"\\\/\b\f\n\r\t\u00e4\u0001\ud83d\ude00\uD83D\uDE00","b":"äß😀\u2028"}"#
            .to_owned(),
        format!(
            r#"{{"{}":"{}"}}"#,
            "n".repeat(MAX_NAME),
            "x".repeat(100_000)
        ),
        nested("[", "]", MAX_DEPTH - 1),
        nested("{\"x\":", "}", MAX_DEPTH - 1),
        // The name of another object, or of a closed one, is no second member.
        r#"{"a":{"a":{"b":1}},"b":{"a":1}}"#.to_owned(),
    ] {
        assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
    }
}

#[test]
fn inv8_texts_that_some_reader_refuses_are_faults() {
    use IJsonError::*;
    let long = "n".repeat(MAX_NAME + 1);
    let cases: &[(&str, IJsonError)] = &[
        ("", Syntax),
        ("[]", Syntax),
        ("\"text\"", Syntax),
        ("\u{feff}{}", Syntax),
        ("{}{}", Syntax),
        ("{} x", Syntax),
        ("{\u{a0}}", Syntax),
        ("{\"a\":1,}", Syntax),
        ("{\"a\":[1,]}", Syntax),
        ("{\"a\":[1", Syntax),
        ("{\"a\"", Syntax),
        ("{\"a", Syntax),
        ("{\"a\":\"b", Syntax),
        ("{a:1}", Syntax),
        ("{'a':1}", Syntax),
        ("{\"a\":nul}", Syntax),
        ("{\"a\":NaN}", Syntax),
        ("{\"a\":-Infinity}", Syntax),
        ("{\"a\":+1}", Syntax),
        ("{\"a\":01}", Syntax),
        ("{\"a\":-01.5}", Syntax),
        ("{\"a\":1.}", Syntax),
        ("{\"a\":.5}", Syntax),
        ("{\"a\":0x10}", Syntax),
        ("{\"a\":1 /* no */}", Syntax),
        ("{\"a\":\"\n\"}", Syntax),
        ("{\"a\":\"\0\"}", Syntax),
        ("{\"a\":\"\\x41\"}", Syntax),
        ("{\"a\":\"\\u12\"}", Syntax),
        ("{\"a\":\"\\u12g4\"}", Syntax),
        ("{\"a\":\"\\u+123\"}", Syntax),
        ("{\"a\":\"\\ud800\"}", Surrogate),
        ("{\"a\":\"\\ud800x\"}", Surrogate),
        ("{\"a\":\"\\udc00\"}", Surrogate),
        ("{\"a\":\"\\ud800\\ud800\"}", Surrogate),
        ("{\"a\":\"\\ud800\\n\"}", Surrogate),
        ("{\"a\":\"\\u0000\"}", Character),
        ("{\"a\":\"\\uffff\"}", Character),
        ("{\"a\":\"\\ufdd0\"}", Character),
        ("{\"a\":\"\\ud83f\\udffe\"}", Character),
        ("{\"a\":\"\u{fffe}\"}", Character),
        ("{\"a\":1e999}", Number),
        ("{\"a\":1E1}", Number),
        ("{\"a\":-0.0e-400}", Number),
        ("{\"a\":9999999999999999}", Number),
        ("{\"a\":0.1234567890123456}", Number),
        ("{\"\":1}", Name),
        ("{\"\\u0061\":1}", Name),
        ("{\"ä\":1}", Name),
        ("{\"a b\":1}", Name),
        ("{\"$ref\":1}", Name),
        ("{\"@class\":1}", Name),
        ("{\"x\":{\"__proto__\":1}}", Name),
        ("{\"constructor\":{\"prototype\":1}}", Name),
        ("{\"a\":1,\"a\":1}", Twice),
        ("{\"tag\":1,\"b\":{\"c\":1},\"Tag\":1}", Twice),
        ("{\"x\":[{\"a\":1,\"b\":2,\"a\":3}]}", Twice),
    ];
    for (bad, error) in cases {
        assert_eq!(check(bad.as_bytes()), Err(*error), "{bad}");
    }
    assert_eq!(check(format!("{{\"{long}\":1}}").as_bytes()), Err(Name));
    for bad in [
        &b"{\"a\":\"\xff\"}"[..],
        b"\xff\xfe{\0}\0",
        b"{\"\xc3\":1}",
        b"{\"a\":\"\xed\xa0\x80\"}",
    ] {
        assert_eq!(check(bad), Err(Utf8));
    }
}

#[test]
fn inv7_depth_and_number_of_values_are_bounded() {
    use IJsonError::*;
    for levels in [MAX_DEPTH, 1500, 1 << 20] {
        assert_eq!(check(nested("[", "]", levels).as_bytes()), Err(Depth));
        assert_eq!(check(nested("{\"x\":", "}", levels).as_bytes()), Err(Depth));
    }
    assert_eq!(check("{\"x\":".repeat(1 << 20).as_bytes()), Err(Depth));
    let list = |count: usize| format!("{{\"x\":[{}]}}", vec!["1"; count].join(","));
    assert_eq!(check(list(MAX_VALUES - 2).as_bytes()), Ok(()));
    assert_eq!(check(list(MAX_VALUES - 1).as_bytes()), Err(Values));
    let members: Vec<_> = (0..MAX_VALUES).map(|n| format!("\"m{n}\":1")).collect();
    assert_eq!(
        check(format!("{{{}}}", members.join(",")).as_bytes()),
        Err(Values)
    );
}

/// Values that an envelope might have, and values that are refused.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(10, 64, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-c$_.é]{0,2}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    /// What passes is JSON to the strict parser, and its canonical form passes, too.
    #[test]
    fn what_passes_is_json(bytes in prop::collection::vec(any::<u8>(), 0..200), value in values()) {
        let text = Value::Object(Map::from_iter([("x".to_owned(), value)])).to_string();
        for bytes in [&bytes[..], text.as_bytes()] {
            if check(bytes).is_ok() {
                let read: Value = serde_json::from_slice(bytes).expect("it passed");
                prop_assert_eq!(check(read.to_string().as_bytes()), Ok(()));
            }
        }
    }

    /// One changed byte of a text never makes the check accept what the strict parser refuses.
    #[test]
    fn damage_is_seen_by_both(value in values(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let text = Value::Object(Map::from_iter([("x".to_owned(), value)])).to_string();
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if check(&bytes).is_ok() {
            prop_assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
        }
    }

    #[test]
    fn a_run_of_plain_characters_ends_where_it_ends(text in "[a-z\"\\\\\n]{0,5}[a-z]{0,100}[a-z\"\u{1}é]{0,40}") {
        let end = text.bytes().position(is_special).unwrap_or(text.len());
        prop_assert_eq!(plain_run(text.as_bytes()), end);
    }
}
