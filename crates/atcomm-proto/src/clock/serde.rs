//! Forms of a [`Timestamp`](super::Timestamp) for `#[serde(with = "...")]`.

/// A time as text. Written as [`Timestamp`](crate::clock::Timestamp) displays it, and read by
/// [`parse_rfc3339`](crate::clock::Timestamp::parse_rfc3339).
pub mod rfc3339 {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::clock::Timestamp;

    /// Writes the time.
    pub fn serialize<S: Serializer>(at: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(at)
    }

    /// Reads a time.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(input)?;
        Timestamp::parse_rfc3339(&text).ok_or_else(|| D::Error::custom("not a time"))
    }
}

/// An optional time as text. `null` is read as `None`, and so is a missing field under
/// `#[serde(default)]`.
pub mod rfc3339_option {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::clock::Timestamp;

    /// Writes the time, or `null`.
    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, out: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => out.collect_str(at),
            None => out.serialize_none(),
        }
    }

    /// Reads a time or `null`. A text that is not a time is an error, never `None`.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(input)? else {
            return Ok(None);
        };
        match Timestamp::parse_rfc3339(&text) {
            Some(at) => Ok(Some(at)),
            None => Err(D::Error::custom("not a time")),
        }
    }
}

/// A time as a number: milliseconds since 1970.
pub mod millis {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::clock::Timestamp;

    /// Writes the number.
    pub fn serialize<S: Serializer>(at: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_i64(at.millis())
    }

    /// Reads a whole number of 64 bits.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
        Ok(Timestamp::from_millis(i64::deserialize(input)?))
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use crate::clock::Timestamp;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Times {
        #[serde(with = "super::rfc3339")]
        text: Timestamp,
        #[serde(
            default,
            with = "super::rfc3339_option",
            skip_serializing_if = "Option::is_none"
        )]
        maybe: Option<Timestamp>,
        #[serde(with = "super::millis")]
        number: Timestamp,
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        let at = Timestamp::from_millis(1_700_000_000_000);
        let times = |maybe| Times {
            text: at,
            maybe,
            number: at,
        };
        let text = "2023-11-14T22:13:20.000Z";
        let number = 1_700_000_000_000_i64;
        for (maybe, json) in [
            (
                Some(at),
                json!({ "text": text, "maybe": text, "number": number }),
            ),
            (None, json!({ "text": text, "number": number })),
        ] {
            assert_eq!(serde_json::to_value(times(maybe)).unwrap(), json);
            assert_eq!(serde_json::from_value::<Times>(json).unwrap(), times(maybe));
        }
        let null = json!({ "text": text, "maybe": null, "number": number });
        assert_eq!(serde_json::from_value::<Times>(null).unwrap(), times(None));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for (field, wrong) in [
            ("text", json!("yesterday")),
            ("text", json!(null)),
            ("text", json!(1_700_000_000_000_i64)),
            ("maybe", json!("")),
            ("maybe", json!(0)),
            ("number", json!("2023-11-14T22:13:20.000Z")),
            ("number", json!(1.5)),
            ("number", json!(1_u64 << 63)),
        ] {
            let mut json = json!({ "text": "2023-11-14T22:13:20Z", "number": 0 });
            json[field] = wrong.clone();
            assert!(
                serde_json::from_value::<Times>(json).is_err(),
                "{field}: {wrong}"
            );
        }
    }
}
