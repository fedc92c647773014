//! discover-features 2.0: the protocols, headers and limits that the other end supports.
//!
//! Source: DIDComm Messaging v2.1, "Discover Features Protocol 2.0" and "Agent Constraint
//! Disclosure".

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::didcomm::message::{Body, FieldError, Object, raw};

/// Most queries of one message: each is compared with every offered feature.
pub const MAX_QUERIES: usize = 32;

/// Most disclosures of one message.
const MAX_DISCLOSURES: usize = 256;

/// Most roles of one disclosure.
const MAX_ROLES: usize = 16;

/// Longest feature type, pattern, id or role, in bytes.
const MAX_NAME: usize = 512;

/// Queries for features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queries {
    /// The queries; the answer discloses the features that match any of them.
    pub queries: Vec<Query>,
}

/// One query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Query {
    /// `protocol`, `goal-code`, `header`, `constraint`, or an unknown type.
    #[serde(rename = "feature-type")]
    pub feature_type: String,
    /// The id of the feature, or its beginning and a star.
    #[serde(rename = "match")]
    pub pattern: String,
}

impl Query {
    /// Returns whether the query matches this feature. A star counts only at the end.
    pub fn matches(&self, feature_type: &str, id: &str) -> bool {
        self.feature_type == feature_type
            && match self.pattern.strip_suffix('*') {
                Some(beginning) => id.starts_with(beginning),
                None => self.pattern == id,
            }
    }
}

impl Body for Queries {
    const TYPE: &'static str = "https://didcomm.org/discover-features/2.0/queries";
    const PROTOCOL: &'static str = "https://didcomm.org/discover-features/2.0";

    fn read(body: &RawValue) -> Result<Self, FieldError> {
        let body = Object::body(body)?;
        let queries = body.required("queries", body.objects("queries", MAX_QUERIES)?)?;
        let read = |query: &Object<'_>| {
            Ok(Query {
                feature_type: required(query, "feature-type")?,
                pattern: required(query, "match")?,
            })
        };
        Ok(Self {
            queries: queries.iter().map(read).collect::<Result<_, _>>()?,
        })
    }

    fn write(&self) -> Box<RawValue> {
        raw(self)
    }
}

/// The disclosed features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disclose {
    /// The features. An empty list says nothing, since a feature need not be disclosed.
    pub disclosures: Vec<Disclosure>,
}

/// One feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disclosure {
    /// Type of the feature, as in [`Query::feature_type`].
    #[serde(rename = "feature-type")]
    pub feature_type: String,
    /// Id of the feature, such as a protocol without the name of a message.
    pub id: String,
    /// Supported roles of a protocol.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Largest accepted message in bytes, for the constraint of this name. Written as a string, as
    /// the specification does.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub max_receive_bytes: Option<u64>,
}

fn as_text<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => serializer.collect_str(number),
        None => serializer.serialize_none(),
    }
}

impl Disclosure {
    /// Makes the disclosure of a protocol and the supported roles.
    pub fn protocol(id: &str, roles: &[&str]) -> Self {
        Self {
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..Self::new("protocol", id)
        }
    }

    /// Makes the disclosure of the largest accepted message, in bytes.
    pub fn max_receive_bytes(bytes: u64) -> Self {
        Self {
            max_receive_bytes: Some(bytes),
            ..Self::new("constraint", "max_receive_bytes")
        }
    }

    /// Makes the disclosure of a feature without details: a header, a goal code.
    pub fn new(feature_type: &str, id: &str) -> Self {
        Self {
            feature_type: feature_type.to_owned(),
            id: id.to_owned(),
            roles: Vec::new(),
            max_receive_bytes: None,
        }
    }
}

impl Body for Disclose {
    const TYPE: &'static str = "https://didcomm.org/discover-features/2.0/disclose";
    const PROTOCOL: &'static str = Queries::PROTOCOL;

    fn read(body: &RawValue) -> Result<Self, FieldError> {
        let body = Object::body(body)?;
        let list = body.objects("disclosures", MAX_DISCLOSURES)?;
        let read = |entry: &Object<'_>| {
            Ok(Disclosure {
                feature_type: required(entry, "feature-type")?,
                id: required(entry, "id")?,
                roles: entry
                    .texts("roles", MAX_ROLES, MAX_NAME)?
                    .unwrap_or_default(),
                max_receive_bytes: entry.count("max_receive_bytes")?,
            })
        };
        let list = body.required("disclosures", list)?;
        Ok(Self {
            disclosures: list.iter().map(read).collect::<Result<_, _>>()?,
        })
    }

    fn write(&self) -> Box<RawValue> {
        raw(self)
    }
}

fn required(object: &Object<'_>, name: &str) -> Result<String, FieldError> {
    object.required(name, object.text(name, MAX_NAME)?)
}

#[cfg(test)]
mod tests {
    use crate::didcomm::message::Message;

    use super::*;

    #[test]
    fn queries_match_literally_or_by_beginning() {
        let query = |pattern: &str| Query {
            feature_type: "protocol".to_owned(),
            pattern: pattern.to_owned(),
        };
        let id = "https://didcomm.org/messagepickup/3.0";
        for pattern in [
            id,
            "*",
            "https://didcomm.org/*",
            "https://didcomm.org/messagepickup/3.*",
        ] {
            assert!(query(pattern).matches("protocol", id), "{pattern}");
            assert!(!query(pattern).matches("goal-code", id), "{pattern}");
        }
        for pattern in [
            "",
            "https://didcomm.org",
            "https://*/3.0",
            "*3.0",
            "**",
            "https://didcomm.org/messagepickup/4.*",
        ] {
            assert!(!query(pattern).matches("protocol", id), "{pattern}");
        }
        let disclose = Disclose {
            disclosures: vec![
                Disclosure::protocol(id, &["mediator"]),
                Disclosure::max_receive_bytes(65536),
                Disclosure::new("header", "return_route"),
            ],
        };
        let message = Message::new("1", &disclose);
        assert!(
            message
                .body
                .get()
                .contains(r#""max_receive_bytes":"65536""#)
        );
        assert_eq!(message.body_of(), Ok(disclose));
    }
}
