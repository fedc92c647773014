//! Times in what is shown and handed on: RFC 3339, as lexicons write them.

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

use crate::clock::Timestamp;

/// Reads a time with any offset.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let at = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Some(Timestamp::from_millis(at.timestamp_millis()))
}

pub(super) fn serialize<S: Serializer>(at: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(at)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(input)?;
    parse(&text).ok_or_else(|| D::Error::custom("not a time"))
}

/// The same for what may be absent.
pub(super) mod optional {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::clock::Timestamp;

    pub(in crate::client) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => out.collect_str(at),
            None => out.serialize_none(),
        }
    }

    pub(in crate::client) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(input)? else {
            return Ok(None);
        };
        super::parse(&text)
            .map(Some)
            .ok_or_else(|| D::Error::custom("not a time"))
    }
}
