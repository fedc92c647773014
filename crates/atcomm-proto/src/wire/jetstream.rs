//! Jetstream events, version 1 (`GET /subscribe`).
//!
//! Events carry no signature and no proof, so an event only triggers a refresh of the account; the
//! record in it is never read.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::syntax::MAX_DID_LEN;

/// Longest accepted event, in bytes. Hosts accept records of at most 1 MiB, and events with our
/// records are far smaller.
pub const MAX_EVENT: usize = 1024 * 1024;

/// Errors of reading an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum JetstreamError {
    /// The event is larger than [`MAX_EVENT`].
    #[error("the event is larger than 1 MiB")]
    TooLarge,
    /// The text is not a JSON object with the fields of every event.
    #[error("the event is not an object with did, time_us and kind")]
    Json,
    /// The DID is empty or longer than any valid DID.
    #[error("the event's DID has no possible length")]
    Did,
    /// The time, from which a subscription continues, is not positive.
    #[error("the event's time_us is not positive")]
    Time,
    /// The member that the event's kind requires is missing.
    #[error("the event lacks what its kind says it carries")]
    Body,
}

impl JetstreamError {
    /// Returns a stable code for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Json => "json",
            Self::Did => "did",
            Self::Time => "time",
            Self::Body => "body",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JetstreamEvent<'a> {
    /// DID of the account; only its length is checked.
    pub did: Cow<'a, str>,
    /// The host's time of the event in microseconds since 1970, from which a subscription
    /// continues.
    pub time_us: u64,
    /// The host's own number of the event, from which a subscription continues, too. Hosts of the
    /// first version have none.
    pub number: Option<u64>,
    /// The kind of the event.
    pub kind: JetstreamKind<'a>,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JetstreamKind<'a> {
    /// A record was written or deleted.
    Commit {
        /// Revision of the repository.
        rev: Option<Cow<'a, str>>,
        /// Collection of the record.
        collection: Cow<'a, str>,
        /// Key of the record.
        rkey: Cow<'a, str>,
        /// `create`, `update`, `delete`, or an unknown operation.
        operation: Cow<'a, str>,
    },
    /// The DID document or handle may have changed.
    Identity,
    /// The status of the account at its PDS has changed.
    Account {
        /// Whether the account's records are served.
        active: bool,
        /// The reason if they are not, in an open vocabulary.
        status: Option<Cow<'a, str>>,
    },
    /// An event of an unknown kind, which is ignored.
    Other,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    did: Cow<'a, str>,
    time_us: u64,
    // A number of another form counts as none.
    #[serde(borrow)]
    cursor: Option<&'a RawValue>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    // Read only for the kind that has it, so that an unknown kind may reuse the names.
    #[serde(borrow)]
    commit: Option<&'a RawValue>,
    #[serde(borrow)]
    account: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CommitBody<'a> {
    // Read leniently: nothing is lost without it.
    #[serde(borrow)]
    rev: Option<&'a RawValue>,
    #[serde(borrow)]
    collection: Cow<'a, str>,
    #[serde(borrow)]
    rkey: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
}

#[derive(Deserialize)]
struct AccountBody<'a> {
    active: bool,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
}

impl<'a> JetstreamEvent<'a> {
    /// Reads one message of the stream. Unknown kinds and fields are accepted.
    pub fn parse(text: &'a str) -> Result<Self, JetstreamError> {
        if text.len() > MAX_EVENT {
            return Err(JetstreamError::TooLarge);
        }
        // Other fields, above all the record, are skipped without recursion.
        let event: Event<'a> = serde_json::from_str(text).map_err(|_| JetstreamError::Json)?;
        if event.did.is_empty() || event.did.len() > MAX_DID_LEN {
            return Err(JetstreamError::Did);
        }
        if event.time_us == 0 {
            return Err(JetstreamError::Time);
        }
        let kind = match &*event.kind {
            "commit" => {
                let body: CommitBody<'a> = body(event.commit)?;
                JetstreamKind::Commit {
                    rev: body
                        .rev
                        .and_then(|rev| serde_json::from_str::<Text<'a>>(rev.get()).ok())
                        .map(|rev| rev.0),
                    collection: body.collection,
                    rkey: body.rkey,
                    operation: body.operation,
                }
            }
            "identity" => JetstreamKind::Identity,
            "account" => {
                let body: AccountBody<'a> = body(event.account)?;
                JetstreamKind::Account {
                    active: body.active,
                    status: body.status,
                }
            }
            _ => JetstreamKind::Other,
        };
        Ok(Self {
            did: event.did,
            time_us: event.time_us,
            number: event
                .cursor
                .and_then(|cursor| cursor.get().trim_matches('"').parse().ok())
                .filter(|number| *number > 0),
            kind,
        })
    }
}

/// A JSON string, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn body<'a, T: Deserialize<'a>>(part: Option<&'a RawValue>) -> Result<T, JetstreamError> {
    serde_json::from_str(part.ok_or(JetstreamError::Body)?.get()).map_err(|_| JetstreamError::Body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_whatever_else_they_carry() {
        let commit = r#"{"did":"did:plc:a","time_us":1725911162329308,"kind":"commit","cursor":7,
            "commit":{"rev":"3l3","operation":"create","collection":"at.didcomm.keyPackage",
            "rkey":"self","record":{"$type":"at.didcomm.keyPackage","x":[[{"y":1.5}]]},
            "cid":"bafy"},"future":{}}"#;
        let event = JetstreamEvent::parse(commit).unwrap();
        assert_eq!(
            (&*event.did, event.time_us),
            ("did:plc:a", 1_725_911_162_329_308)
        );
        assert_eq!(event.number, Some(7));
        let JetstreamKind::Commit {
            rev,
            collection,
            rkey,
            operation,
        } = event.kind
        else {
            panic!("not a commit");
        };
        assert_eq!(
            (&*collection, &*rkey, &*operation),
            ("at.didcomm.keyPackage", "self", "create")
        );
        assert!(matches!(collection, Cow::Borrowed(_)));
        assert_eq!(rev.as_deref(), Some("3l3"));
    }

    #[test]
    fn a_number_or_revision_of_another_form_counts_as_none() {
        for (cursor, number) in [
            ("7", Some(7)),
            ("\"8\"", Some(8)),
            ("0", None),
            ("-1", None),
            ("1.5", None),
            ("null", None),
            ("[1]", None),
            ("99999999999999999999", None),
        ] {
            let text = format!(
                r#"{{"did":"d","time_us":1,"kind":"commit","cursor":{cursor},"commit":
                    {{"rev":{cursor},"collection":"c","rkey":"r","operation":"create"}}}}"#
            );
            let event = JetstreamEvent::parse(&text).unwrap();
            assert_eq!(event.number, number, "{cursor}");
            assert!(
                matches!(event.kind, JetstreamKind::Commit { .. }),
                "{cursor}"
            );
        }
    }

    #[test]
    fn accounts_and_unknown_kinds_are_read() {
        let kind = |text| JetstreamEvent::parse(text).unwrap().kind;
        assert_eq!(
            kind(
                r#"{"did":"did:plc:a","time_us":1,"kind":"account",
                    "account":{"active":false,"did":"did:plc:a","seq":1,"status":"x"}}"#
            ),
            JetstreamKind::Account {
                active: false,
                status: Some("x".into())
            }
        );
        assert_eq!(
            kind(
                r#"{"did":"did:plc:a","time_us":1,"kind":"account",
                    "account":{"active":true,"status":null}}"#
            ),
            JetstreamKind::Account {
                active: true,
                status: None
            }
        );
        assert_eq!(
            kind(r#"{"did":"did:plc:a","time_us":1,"kind":"identity","identity":5}"#),
            JetstreamKind::Identity
        );
        assert_eq!(
            kind(r#"{"did":"did:plc:\u0061","time_us":1,"kind":"sync","commit":7}"#),
            JetstreamKind::Other
        );
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let long = format!(
            r#"{{"did":"{}","time_us":1,"kind":"identity"}}"#,
            "d".repeat(2049)
        );
        for (text, error) in [
            ("", JetstreamError::Json),
            ("[]", JetstreamError::Json),
            (
                r#"{"did":"did:plc:a","kind":"identity"}"#,
                JetstreamError::Json,
            ),
            (
                r#"{"did":"d","time_us":-1,"kind":"identity"}"#,
                JetstreamError::Json,
            ),
            (
                r#"{"did":"d","time_us":0,"kind":"identity"}"#,
                JetstreamError::Time,
            ),
            (
                r#"{"did":"","time_us":1,"kind":"identity"}"#,
                JetstreamError::Did,
            ),
            (
                r#"{"did":"d","time_us":1,"kind":"commit"}"#,
                JetstreamError::Body,
            ),
            (
                r#"{"did":"d","time_us":1,"kind":"commit","commit":{}}"#,
                JetstreamError::Body,
            ),
            (
                r#"{"did":"d","time_us":1,"kind":"account"}"#,
                JetstreamError::Body,
            ),
            (&long, JetstreamError::Did),
            (&" ".repeat(MAX_EVENT + 1), JetstreamError::TooLarge),
        ] {
            assert_eq!(JetstreamEvent::parse(text), Err(error), "{text:.60}");
        }
    }

    #[test]
    fn a_deep_record_does_not_exhaust_the_stack() {
        let text = format!(
            r#"{{"did":"d","time_us":1,"kind":"sync","record":{}{}}}"#,
            "[".repeat(400_000),
            "]".repeat(400_000)
        );
        assert_eq!(
            JetstreamEvent::parse(&text).unwrap().kind,
            JetstreamKind::Other
        );
    }
}
