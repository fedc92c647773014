//! A message's headers, read with its attachments in one pass.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::error::{FieldFault, MessageError};
use super::object::{Field, MAX_ENTRIES, MAX_FIELDS, Name, Object};

/// Reads the headers of a message.
///
/// A well-formed message is read in one pass: attachments are nearly all of its bytes, and reading
/// level by level goes over them four times. A message that the one pass refuses is read again
/// level by level, which finds the name of the wrong field.
pub(super) fn read(text: &str) -> Result<Object<'_>, MessageError> {
    match read_at_once(text) {
        Some(headers) => Ok(headers),
        None => read_by_level(text),
    }
}

fn read_at_once(text: &str) -> Option<Object<'_>> {
    let mut json = serde_json::Deserializer::from_str(text);
    let headers = Level::Message
        .at(String::new())
        .deserialize(&mut json)
        .ok()?;
    json.end().ok()?;
    Some(headers)
}

pub(super) fn read_by_level(text: &str) -> Result<Object<'_>, MessageError> {
    Object::read(text, String::new()).map_err(|err| match err.why {
        FieldFault::NotObject => MessageError::NotJson,
        FieldFault::TooMany(most) => MessageError::TooManyHeaders(most),
        _ => MessageError::Field(err),
    })
}

/// The levels of a message that are read in one pass.
#[derive(Clone, Copy)]
enum Level {
    Message,
    Attachment,
    Data,
}

impl Level {
    fn at(self, place: String) -> ObjectSeed {
        ObjectSeed { level: self, place }
    }
}

/// Reads an object of one level and the objects of the levels below it.
struct ObjectSeed {
    level: Level,
    place: String,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed {
    type Value = Object<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Object<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object {
            fields: Vec::with_capacity(match self.level {
                Level::Message => 16,
                Level::Attachment | Level::Data => 4,
            }),
            place: self.place,
        };
        while let Some(Name(name)) = map.next_key()? {
            if object.fields.len() == MAX_FIELDS {
                return Err(A::Error::custom("too many fields"));
            }
            let field = match (self.level, name.as_ref()) {
                (Level::Message, "attachments") => {
                    Field::Objects(map.next_value_seed(AttachmentsSeed)?)
                }
                (Level::Attachment, "data") => {
                    let data = Level::Data.at(object.place_of("data"));
                    Field::Object(map.next_value_seed(data)?)
                }
                _ => Field::Raw(map.next_value()?),
            };
            object.fields.push((name, field));
        }
        match object.duplicate() {
            Some(_) => Err(A::Error::custom("a field stands there twice")),
            None => Ok(object),
        }
    }
}

/// Reads the list of attachments.
struct AttachmentsSeed;

impl<'de> DeserializeSeed<'de> for AttachmentsSeed {
    type Value = Vec<Object<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AttachmentsSeed {
    type Value = Vec<Object<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut attachments = Vec::new();
        loop {
            let place = format!("attachments[{}]", attachments.len());
            let Some(attachment) = seq.next_element_seed(Level::Attachment.at(place))? else {
                return Ok(attachments);
            };
            if attachments.len() == MAX_ENTRIES {
                return Err(A::Error::custom("too many attachments"));
            }
            attachments.push(attachment);
        }
    }
}
