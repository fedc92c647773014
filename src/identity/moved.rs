//! The key that an account had before it moved to its present PDS.
//!
//! A repository that is moved keeps its last commit, signed by the key of the PDS it left, until
//! the account writes again: nobody can sign that commit anew. The PLC operation that moved the
//! account, and that replaced the key, says which key that was and until when it counted.
//!
//! A key that was replaced without a move is not that: it may have been replaced because somebody
//! else has it.

use serde_json::Value;
use url::Url;

use super::{DidDocument, Inner};
use crate::clock::Timestamp;
use crate::key::SigningKey;
use crate::net::{Reach, Request};
use crate::syntax::Origin;

/// Largest operation log that is read; one operation has about 1 KB.
const MAX_LOG_LEN: usize = 1024 * 1024;

/// The key of the PDS that an account left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyBeforeMove {
    /// The key.
    pub key: SigningKey,
    /// When the operation that moved the account was accepted.
    pub until: Timestamp,
}

/// What an operation sets, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    key: SigningKey,
    pds: Origin,
    at: Timestamp,
}

/// Asks the directory for the account's log. `None` where there is no such key, or no answer: the
/// proof at hand then stays unproven.
pub(super) async fn key_before_move(
    inner: &Inner,
    document: &DidDocument,
) -> Option<KeyBeforeMove> {
    if document.did.web().is_some() {
        return None;
    }
    let url = format!("{}/{}/log/audit", inner.settings.plc_url, document.did);
    let request = Request::new(Url::parse(&url).ok()?, Reach::Operator, MAX_LOG_LEN);
    let answer = inner.net.get(&request).await.ok()?;
    if !answer.status.is_success() {
        return None;
    }
    read_log(&answer.body, document)
}

/// Finds the newest change of key in the log, and gives the key before it if the same operation
/// moved the account to where the document says that it is.
fn read_log(body: &[u8], document: &DidDocument) -> Option<KeyBeforeMove> {
    let log: Vec<Value> = serde_json::from_slice(body).ok()?;
    let states: Vec<State> = log
        .iter()
        .filter(|entry| counts(entry))
        .map_while(read_entry)
        .collect();
    // An entry that cannot be read makes everything after it guesswork.
    if states.len() != log.iter().filter(|entry| counts(entry)).count() {
        return None;
    }
    let now = states.last()?;
    if Ok(&now.key) != document.signing_key.as_ref() || Ok(&now.pds) != document.pds.as_ref() {
        return None;
    }
    let (before, change) = states.windows(2).rev().find_map(|pair| match pair {
        [before, change] if before.key != change.key => Some((before, change)),
        _ => None,
    })?;
    let moved = before.pds != change.pds && change.pds == now.pds;
    moved.then(|| KeyBeforeMove {
        key: before.key.clone(),
        until: change.at,
    })
}

fn counts(entry: &Value) -> bool {
    entry.get("nullified").and_then(Value::as_bool) == Some(false)
}

fn read_entry(entry: &Value) -> Option<State> {
    let text = |value: &Value, path: &str| value.pointer(path)?.as_str().map(str::to_owned);
    let operation = entry.get("operation")?;
    // The first operations of old accounts have a shape of their own.
    let (key, pds) = match operation.get("type")?.as_str()? {
        "plc_operation" => (
            text(operation, "/verificationMethods/atproto")?,
            text(operation, "/services/atproto_pds/endpoint")?,
        ),
        "create" => (
            text(operation, "/signingKey")?,
            text(operation, "/service")?,
        ),
        _ => return None,
    };
    let at = chrono::DateTime::parse_from_rfc3339(&text(entry, "/createdAt")?).ok()?;
    Some(State {
        key: SigningKey::from_did_key(&key).ok()?,
        pds: Origin::parse(&pds).ok()?,
        at: Timestamp::from_millis(at.timestamp_millis()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::syntax::Did;

    const KEYS: [&str; 3] = [
        "did:key:zQ3shqwJEJyMBsBXCWyCBpUBMqxcon9oHB7mCvx4sSpMdLJwc",
        "did:key:zQ3shrcoZDizSgitLeDcCVBpZddr1b2mBNhzFz5caRef7tFo9",
        "did:key:zQ3shh6QjnhdDQgP8DKjXJsh6kgPnEkUg3Y5GeWgFViQcRuyg",
    ];

    fn entry(key: usize, pds: &str, minute: u32, nullified: bool) -> Value {
        json!({
            "nullified": nullified,
            "createdAt": format!("2026-01-01T00:{minute:02}:00.000Z"),
            "operation": {
                "type": "plc_operation",
                "verificationMethods": {"atproto": KEYS[key]},
                "services": {"atproto_pds": {"endpoint": pds}},
            },
        })
    }

    fn read(log: &[Value], key: usize, pds: &str) -> Option<KeyBeforeMove> {
        let document = DidDocument {
            did: Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap(),
            claimed_handle: None,
            pds: Ok(Origin::parse(pds).unwrap()),
            signing_key: Ok(SigningKey::from_did_key(KEYS[key]).unwrap()),
        };
        read_log(&serde_json::to_vec(log).unwrap(), &document)
    }

    const A: &str = "https://a.example.com";
    const B: &str = "https://b.example.com";

    #[test]
    fn a_move_that_replaced_the_key_names_the_key_before() {
        let log = [entry(0, A, 1, false), entry(1, B, 2, false)];
        let found = read(&log, 1, B).unwrap();
        assert_eq!(found.key.did_key(), KEYS[0]);
        assert_eq!(found.until.to_string(), "2026-01-01T00:02:00.000Z");
        // Later operations that change neither are passed over.
        let log = [
            entry(0, A, 1, false),
            entry(1, B, 2, false),
            entry(1, B, 3, false),
        ];
        assert!(read(&log, 1, B).is_some());
    }

    #[test]
    fn a_key_replaced_in_place_is_gone_for_good() {
        assert_eq!(
            read(&[entry(0, A, 1, false), entry(1, A, 2, false)], 1, A),
            None
        );
        // Also when it was replaced again after a move.
        let log = [
            entry(0, A, 1, false),
            entry(1, B, 2, false),
            entry(2, B, 3, false),
        ];
        assert_eq!(read(&log, 2, B), None);
    }

    #[test]
    fn what_was_nullified_or_does_not_fit_the_document_does_not_count() {
        let log = [
            entry(0, A, 1, false),
            entry(1, B, 2, true),
            entry(0, A, 3, false),
        ];
        assert_eq!(read(&log, 0, A), None);
        assert_eq!(read(&log, 1, B), None);
        assert_eq!(read(&[], 1, B), None);
        let mut odd = entry(1, B, 2, false);
        odd["operation"]["type"] = json!("plc_tombstone");
        assert_eq!(read(&[entry(0, A, 1, false), odd], 1, B), None);
    }
}
