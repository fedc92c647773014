//! How the text of objects and lists is gone over: layer by layer, or a message in one pass.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::{Field, MAX_FIELDS, Object};

/// How deep in a message an object stands that is read in one pass with what holds it.
#[derive(Clone, Copy)]
pub(super) enum Layer {
    Message,
    Attachment,
    Content,
}

impl Layer {
    pub(super) fn at(self, place: String) -> Placed {
        Placed { layer: self, place }
    }
}

/// An object to be read, at its place.
pub(super) struct Placed {
    layer: Layer,
    place: String,
}

impl<'de> DeserializeSeed<'de> for Placed {
    type Value = Object<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Object<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Placed {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object {
            fields: Vec::with_capacity(match self.layer {
                Layer::Message => 16,
                Layer::Attachment | Layer::Content => 4,
            }),
            place: self.place,
        };
        while let Some(Name(name)) = map.next_key()? {
            if object.fields.len() == MAX_FIELDS {
                return Err(A::Error::custom("too many fields"));
            }
            let field = match (self.layer, name.as_ref()) {
                (Layer::Message, "attachments") => Field::Objects(map.next_value_seed(Attached)?),
                (Layer::Attachment, "data") => {
                    let content = Layer::Content.at(object.place_of("data"));
                    Field::Object(map.next_value_seed(content)?)
                }
                _ => Field::Raw(map.next_value()?),
            };
            object.fields.push((name, field));
        }
        match object.twice() {
            Some(_) => Err(A::Error::custom("a field stands there twice")),
            None => Ok(object),
        }
    }
}

/// The list of attachments, to be read in one pass with the message.
struct Attached;

impl<'de> DeserializeSeed<'de> for Attached {
    type Value = Vec<Object<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Attached {
    type Value = Vec<Object<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        loop {
            let place = format!("attachments[{}]", found.len());
            let Some(object) = seq.next_element_seed(Layer::Attachment.at(place))? else {
                return Ok(found);
            };
            if found.len() == MAX_ENTRIES {
                return Err(A::Error::custom("too many attachments"));
            }
            found.push(object);
        }
    }
}

/// The fields of an object up to [`MAX_FIELDS`], and whether there were more.
pub(super) struct Pairs<'a> {
    pub(super) found: Vec<(Cow<'a, str>, &'a RawValue)>,
    pub(super) rest: bool,
}

/// A name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Read<'a> {
            type Value = Pairs<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'a>, A::Error> {
                let mut found = Vec::with_capacity(16);
                while found.len() < MAX_FIELDS {
                    let Some((Name(name), value)) = map.next_entry()? else {
                        return Ok(Pairs { found, rest: false });
                    };
                    found.push((name, value));
                }
                let mut rest = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    rest = true;
                }
                Ok(Pairs { found, rest })
            }
        }

        deserializer.deserialize_map(Read(PhantomData))
    }
}

/// The entries of an array up to [`MAX_ENTRIES`], and whether there were more.
pub(super) struct Entries<'a> {
    pub(super) found: Vec<&'a RawValue>,
    pub(super) rest: bool,
}

/// Most entries held of any array; each list has a limit of its own below this one.
const MAX_ENTRIES: usize = 1000;

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Read<'a> {
            type Value = Entries<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries<'a>, A::Error> {
                let mut found = Vec::new();
                while found.len() < MAX_ENTRIES {
                    let Some(value) = seq.next_element()? else {
                        return Ok(Entries { found, rest: false });
                    };
                    found.push(value);
                }
                let mut rest = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    rest = true;
                }
                Ok(Entries { found, rest })
            }
        }

        deserializer.deserialize_seq(Read(PhantomData))
    }
}
