//! `fixtures/plc`: logs made and judged by the implementation of the PLC directory.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vector {
    name: String,
    did: String,
    expect: String,
    reference: Reference,
    log: Value,
}

#[derive(Deserialize)]
struct Reference {
    states: Option<usize>,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    signing_key: Option<String>,
    pds: Option<String>,
    handle: Option<String>,
}

#[test]
fn logs_are_judged_as_the_reference_judges_them() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/plc/logs.json");
    let text = std::fs::read_to_string(file).unwrap();
    let vectors: Vec<Vector> = serde_json::from_str(&text).unwrap();
    assert!(vectors.len() >= 40);
    for vector in vectors {
        let did = Did::parse(&vector.did).unwrap();
        let read = verify(&did, vector.log.to_string().as_bytes());
        let Vector {
            name, reference, ..
        } = &vector;
        if vector.expect == "refused" {
            assert!(read.is_err(), "{name}");
            continue;
        }
        let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(Some(read.states().len()), reference.states, "{name}");
        let Some(now) = read.current() else {
            assert!(reference.data.is_none(), "{name}");
            continue;
        };
        let data = reference.data.as_ref().unwrap();
        let key = now.signing_key.as_ref().map(SigningKey::did_key);
        assert_eq!(key, data.signing_key, "{name}");
        let pds = now.pds.as_ref().map(Origin::as_str);
        assert_eq!(pds, data.pds.as_deref(), "{name}");
        let handle = now.handle.as_ref().map(Handle::as_str);
        assert_eq!(handle, data.handle.as_deref(), "{name}");
    }
}
