//! The key package to publish: the difference to the record that is there. Pure.

use serde_json::{Map, Value};

use crate::wallet::enrolment::{Enrolment, MessagingKey};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{COLLECTION, MediatorDid};
use atcomm_proto::verify::succession;

use super::EnrolError;

/// The difference.
#[derive(Debug, PartialEq)]
pub(super) enum Task {
    /// The record is as it should be.
    Nothing,
    /// This record is to be written in place of the present one.
    Write(Value),
}

/// Returns the record that names `key`, given the present one. Fields of other clients stay while
/// the record names the same key. A key of the wallet that is replaced vouches for the new one;
/// another key is replaced only with `replace`.
pub(super) fn task(
    enrolment: &Enrolment,
    key: &MessagingKey,
    there: Option<&Value>,
    replace: bool,
    now: Timestamp,
) -> Result<Task, EnrolError> {
    let Some(there) = there else {
        return Ok(Task::Write(filled(Map::new(), enrolment, key, now)));
    };
    let text = |name: &str| there.get(name).and_then(Value::as_str);
    let peer = text("did");
    if peer == Some(key.peer.as_str()) {
        let fields = there.as_object().cloned().unwrap_or_default();
        let wanted = filled(fields, enrolment, key, now);
        return Ok(if wanted == *there {
            Task::Nothing
        } else {
            Task::Write(wanted)
        });
    }
    let before = enrolment
        .keys
        .iter()
        .find(|key| peer == Some(key.peer.as_str()));
    let mut record = filled(Map::new(), enrolment, key, now);
    match before {
        Some(before) => {
            let statement = succession::statement(
                &before.peer,
                &before.signing,
                &key.peer,
                &enrolment.account,
                now,
            )
            .map_err(EnrolError::Succession)?;
            if let Some(fields) = record.as_object_mut() {
                fields.insert(succession::FIELD.to_owned(), statement.into());
            }
        }
        None if !replace => {
            return Err(EnrolError::Foreign {
                peer: peer.map(str::to_owned),
                label: text("label").map(str::to_owned),
            });
        }
        None => {}
    }
    Ok(Task::Write(record))
}

/// Sets the fields of the binding, and leaves the others.
fn filled(
    mut fields: Map<String, Value>,
    enrolment: &Enrolment,
    key: &MessagingKey,
    now: Timestamp,
) -> Value {
    let mediators = enrolment.mediators.iter().map(MediatorDid::as_str);
    fields.insert("$type".to_owned(), COLLECTION.into());
    fields.insert("did".to_owned(), key.peer.as_str().into());
    fields.insert("mediators".to_owned(), mediators.collect());
    match &enrolment.label {
        Some(label) => {
            fields.insert("label".to_owned(), label.as_str().into());
        }
        None => {
            fields.shift_remove("label");
        }
    }
    // The time is that of the key, so that it stays when another field changes.
    fields
        .entry("createdAt")
        .or_insert_with(|| now.to_string().into());
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wallet::enrolment::KeyState;
    use atcomm_proto::syntax::{Did, Origin};

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn enrolment() -> Enrolment {
        Enrolment {
            account: Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap(),
            handle: None,
            pds: Origin::parse("https://pds.example.com").unwrap(),
            directory: None,
            mediators: vec![MediatorDid::parse("did:web:mail.example.com").unwrap()],
            label: Some("phone".to_owned()),
            keys: vec![MessagingKey::mint(NOW), MessagingKey::mint(NOW)],
        }
    }

    fn write(task: Result<Task, EnrolError>) -> Value {
        match task {
            Ok(Task::Write(value)) => value,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_record_is_a_key_package() {
        let one = enrolment();
        let record = write(task(&one, &one.keys[0], None, false, NOW));
        assert_eq!(
            record,
            json!({
                "$type": "at.didcomm.keyPackage",
                "did": one.keys[0].peer.as_str(),
                "mediators": ["did:web:mail.example.com"],
                "label": "phone",
                "createdAt": "2026-09-21T14:13:20.000Z",
            })
        );
        let same = task(
            &one,
            &one.keys[0],
            Some(&record),
            false,
            NOW.plus(crate::wallet::enrolment::REPLACED_KEY_RETENTION),
        );
        assert_eq!(same.unwrap(), Task::Nothing);
    }

    #[test]
    fn what_others_put_there_stays_with_the_key() {
        let mut one = enrolment();
        let mut there = write(task(&one, &one.keys[0], None, false, NOW));
        there["avatar"] = json!({"more": 1});
        there["createdAt"] = json!("2020-01-01T00:00:00Z");
        one.label = None;
        one.mediators
            .push(MediatorDid::parse("did:web:two.example.com").unwrap());
        let record = write(task(&one, &one.keys[0], Some(&there), false, NOW));
        assert_eq!(record["avatar"], json!({"more": 1}));
        assert_eq!(record["createdAt"], "2020-01-01T00:00:00Z");
        assert_eq!(record["mediators"][1], "did:web:two.example.com");
        assert!(record.get("label").is_none());
        // With another key they are dropped.
        let record = write(task(&one, &one.keys[1], Some(&there), false, NOW));
        assert!(record.get("avatar").is_none());
    }

    #[test]
    fn a_key_of_ours_speaks_for_the_next_and_another_is_not_replaced_unasked() {
        let mut one = enrolment();
        let there = write(task(&one, &one.keys[1], None, false, NOW));
        let [new, old] = [&one.keys[0], &one.keys[1]].map(|key| key.peer.as_str().to_owned());
        let record = write(task(&one, &one.keys[0], Some(&there), false, NOW));
        let statement = record["succession"].as_str().unwrap();
        assert!(succession::vouches(statement, &old, &new, &one.account));
        // A key that was replaced before, such as one of a restored backup, vouches, too.
        one.keys[1].state = KeyState::Replaced { at: NOW };
        write(task(&one, &one.keys[0], Some(&there), false, NOW));
        // Without its secret half it cannot vouch.
        one.keys.truncate(1);
        let refused = task(&one, &one.keys[0], Some(&there), false, NOW).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the account publishes another key already, of a device named \"phone\""
        );
        let record = write(task(&one, &one.keys[0], Some(&there), true, NOW));
        assert!(record.get("succession").is_none());
        for odd in [json!("text"), json!({"did": 7}), json!(null)] {
            assert!(task(&one, &one.keys[0], Some(&odd), false, NOW).is_err());
            assert!(task(&one, &one.keys[0], Some(&odd), true, NOW).is_ok());
        }
    }
}
