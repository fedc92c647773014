//! A JSON object read field by field, so that what is wrong with one can be said by name.
//!
//! No tree is built: a field that nobody asks for is passed over without recursion, and one that
//! is asked for stays the text that was sent.

mod pass;

use std::borrow::Cow;

use serde::de::DeserializeSeed as _;
use serde_json::value::RawValue;

use super::MessageError;

use self::pass::{Entries, Layer, Pairs};

/// Most fields of one object: no message or body comes near it, and names are compared one with
/// another.
const MAX_FIELDS: usize = 64;

/// Largest whole number that a JSON number surely keeps (2^53).
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It has to be there.
    #[error("is missing")]
    Missing,
    /// Two fields of one name: two readers could see two messages.
    #[error("stands there twice")]
    Twice,
    /// Another type than a string.
    #[error("is not a string")]
    NotText,
    /// An empty string or list where that says nothing.
    #[error("is empty")]
    Empty,
    /// A string longer than this many bytes.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// Not a whole number.
    #[error("is not a whole number")]
    NotInteger,
    /// A number below zero that counts something.
    #[error("is below zero")]
    Negative,
    /// Neither true nor false.
    #[error("is neither true nor false")]
    NotFlag,
    /// Another type than an array.
    #[error("is not an array")]
    NotList,
    /// A list or object of more than this many entries.
    #[error("has more than {0} entries")]
    TooMany(usize),
    /// Another type than an object.
    #[error("is not an object")]
    NotObject,
    /// A string outside the vocabulary, which is named.
    #[error("is not one of {0}")]
    Word(&'static str),
    /// It breaks another rule, which is named.
    #[error("is unusable: {0}")]
    Rule(Cow<'static, str>),
}

/// A field that cannot be used, as a sentence: "the field `updates[3].action` is missing".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field `{field}` {why}")]
pub struct FieldError {
    /// Its place, such as `updates[3].action`.
    pub field: String,
    /// What is wrong with it.
    pub why: Why,
}

impl FieldError {
    pub(in crate::didcomm) fn new(field: impl Into<String>, why: Why) -> Self {
        Self {
            field: field.into(),
            why,
        }
    }
}

/// A JSON object, its fields still text.
pub(in crate::didcomm) struct Object<'a> {
    /// Where it stands, such as `updates[3]`; empty at the top.
    place: String,
    fields: Vec<(Cow<'a, str>, Field<'a>)>,
}

/// A field's value.
enum Field<'a> {
    /// Its text.
    Raw(&'a RawValue),
    /// An object that was read on the way.
    Object(Object<'a>),
    /// A list of objects that was read on the way.
    Objects(Vec<Object<'a>>),
}

impl<'a> Object<'a> {
    /// Reads the headers of a message.
    pub(super) fn headers(text: &'a str) -> Result<Self, MessageError> {
        // One pass for a message that is as it should be: attachments are nearly all of its bytes,
        // and reading each layer by itself goes over them four times. What that pass does not take
        // is read again layer by layer, which finds the name of what is wrong.
        if let Some(headers) = Self::at_once(text) {
            return Ok(headers);
        }
        Self::layered(text)
    }

    fn at_once(text: &'a str) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_str(text);
        let layer = Layer::Message.at(String::new());
        let headers = layer.deserialize(&mut json).ok()?;
        json.end().ok()?;
        Some(headers)
    }

    pub(super) fn layered(text: &'a str) -> Result<Self, MessageError> {
        Self::read(text, String::new()).map_err(|err| match err.why {
            Why::NotObject => MessageError::NotJson,
            Why::TooMany(most) => MessageError::TooManyHeaders(most),
            _ => MessageError::Field(err),
        })
    }

    /// Reads a body.
    pub(in crate::didcomm) fn body(body: &'a RawValue) -> Result<Self, FieldError> {
        Self::read(body.get(), String::new()).map_err(|mut err| {
            if err.field.is_empty() {
                err.field.push_str("body");
            }
            err
        })
    }

    fn read(text: &'a str, place: String) -> Result<Self, FieldError> {
        let Ok(Pairs { found, rest }) = serde_json::from_str(text) else {
            return Err(FieldError::new(place, Why::NotObject));
        };
        if rest {
            return Err(FieldError::new(place, Why::TooMany(MAX_FIELDS)));
        }
        let fields = found.into_iter();
        let object = Self {
            place,
            fields: fields.map(|(name, raw)| (name, Field::Raw(raw))).collect(),
        };
        match object.twice() {
            // The name is the sender's: only its beginning goes into a sentence.
            Some(name) => Err(object.wrong(&name.chars().take(64).collect::<String>(), Why::Twice)),
            None => Ok(object),
        }
    }

    /// A name that two fields have.
    fn twice(&self) -> Option<&str> {
        let repeated = |(index, (name, _)): (usize, &(Cow<'a, str>, Field<'a>))| {
            let before = self.fields.iter().take(index);
            before.map(|(n, _)| n).any(|n| n == name).then_some(index)
        };
        let index = self.fields.iter().enumerate().find_map(repeated)?;
        self.fields.get(index).map(|(name, _)| name.as_ref())
    }

    /// The error about a field of this object.
    pub(in crate::didcomm) fn wrong(&self, name: &str, why: Why) -> FieldError {
        FieldError::new(self.place_of(name), why)
    }

    fn place_of(&self, name: &str) -> String {
        if self.place.is_empty() {
            return name.to_owned();
        }
        format!("{}.{name}", self.place)
    }

    /// A field's text; one that is null is not there.
    pub(in crate::didcomm) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let (_, field) = self.fields.iter().find(|(n, _)| n == name)?;
        match field {
            Field::Raw(raw) if raw.get() != "null" => Some(raw),
            _ => None,
        }
    }

    /// Turns a field that is not there into an error.
    pub(in crate::didcomm) fn required<T>(
        &self,
        name: &str,
        value: Option<T>,
    ) -> Result<T, FieldError> {
        value.ok_or_else(|| self.wrong(name, Why::Missing))
    }

    /// A string of at most `max` bytes, not empty.
    pub(in crate::didcomm) fn text(
        &self,
        name: &str,
        max: usize,
    ) -> Result<Option<String>, FieldError> {
        let Some(raw) = self.raw(name) else {
            return Ok(None);
        };
        let text = text_of(raw, max).map_err(|why| self.wrong(name, why))?;
        if text.is_empty() {
            return Err(self.wrong(name, Why::Empty));
        }
        Ok(Some(text))
    }

    /// A string of at most `max` bytes for people, which may be empty.
    pub(in crate::didcomm) fn prose(
        &self,
        name: &str,
        max: usize,
    ) -> Result<Option<String>, FieldError> {
        let raw = self.raw(name).map(|raw| text_of(raw, max));
        raw.transpose().map_err(|why| self.wrong(name, why))
    }

    /// A whole number, also where it is written as `1.0` or as a string.
    pub(in crate::didcomm) fn integer(&self, name: &str) -> Result<Option<i64>, FieldError> {
        let Some(raw) = self.raw(name) else {
            return Ok(None);
        };
        let number = integer_of(raw).ok_or_else(|| self.wrong(name, Why::NotInteger))?;
        Ok(Some(number))
    }

    /// A whole number from zero up, written like [`Object::integer`].
    pub(in crate::didcomm) fn count(&self, name: &str) -> Result<Option<u64>, FieldError> {
        let Some(number) = self.integer(name)? else {
            return Ok(None);
        };
        let number = u64::try_from(number).map_err(|_| self.wrong(name, Why::Negative))?;
        Ok(Some(number))
    }

    /// A truth value, also where it is written as a string.
    pub(in crate::didcomm) fn flag(&self, name: &str) -> Result<Option<bool>, FieldError> {
        match self.raw(name).map(RawValue::get) {
            None => Ok(None),
            Some("true" | "\"true\"") => Ok(Some(true)),
            Some("false" | "\"false\"") => Ok(Some(false)),
            Some(_) => Err(self.wrong(name, Why::NotFlag)),
        }
    }

    /// The entries of an array, at most `max`, with the place of each.
    pub(in crate::didcomm) fn list(
        &self,
        name: &str,
        max: usize,
    ) -> Result<Option<Vec<&'a RawValue>>, FieldError> {
        let Some(raw) = self.raw(name) else {
            return Ok(None);
        };
        let list: Entries<'a> =
            serde_json::from_str(raw.get()).map_err(|_| self.wrong(name, Why::NotList))?;
        if list.found.len() > max || list.rest {
            return Err(self.wrong(name, Why::TooMany(max)));
        }
        Ok(Some(list.found))
    }

    /// An array of objects, at most `max`.
    pub(in crate::didcomm) fn objects(
        &self,
        name: &str,
        max: usize,
    ) -> Result<Option<Vec<Object<'a>>>, FieldError> {
        let Some(list) = self.list(name, max)? else {
            return Ok(None);
        };
        let read = |(index, raw): (usize, &'a RawValue)| {
            Object::read(raw.get(), format!("{}[{index}]", self.place_of(name)))
        };
        list.into_iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Like [`Object::objects`], and the field is gone; for those that headers read on the way.
    pub(super) fn take_objects(
        &mut self,
        name: &str,
        max: usize,
    ) -> Result<Option<Vec<Object<'a>>>, FieldError> {
        let found = self.fields.iter_mut().find(|(n, _)| n == name);
        if let Some((_, Field::Objects(objects))) = found {
            let objects = std::mem::take(objects);
            if objects.len() > max {
                return Err(self.wrong(name, Why::TooMany(max)));
            }
            return Ok(Some(objects));
        }
        self.objects(name, max)
    }

    /// Like [`Object::object`] for one that headers read on the way.
    pub(super) fn take_object(&mut self, name: &str) -> Result<Option<Object<'a>>, FieldError> {
        let found = self.fields.iter().position(|(n, _)| n == name);
        if let Some(index) = found
            && matches!(self.fields.get(index), Some((_, Field::Object(_))))
            && let (_, Field::Object(object)) = self.fields.swap_remove(index)
        {
            return Ok(Some(object));
        }
        self.object(name)
    }

    /// An object below this one.
    pub(in crate::didcomm) fn object(&self, name: &str) -> Result<Option<Object<'a>>, FieldError> {
        let raw = self.raw(name);
        raw.map(|raw| Object::read(raw.get(), self.place_of(name)))
            .transpose()
    }

    /// An array of at most `max` strings of at most `len` bytes, none of them empty.
    pub(in crate::didcomm) fn texts(
        &self,
        name: &str,
        max: usize,
        len: usize,
    ) -> Result<Option<Vec<String>>, FieldError> {
        let Some(list) = self.list(name, max)? else {
            return Ok(None);
        };
        let read = |(index, raw): (usize, &'a RawValue)| {
            let text = match text_of(raw, len) {
                Ok(text) if text.is_empty() => Err(Why::Empty),
                read => read,
            };
            text.map_err(|why| self.wrong(&format!("{name}[{index}]"), why))
        };
        list.into_iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Like [`Object::texts`]; a string alone is a list of one.
    pub(in crate::didcomm) fn one_or_more(
        &self,
        name: &str,
        max: usize,
        len: usize,
    ) -> Result<Option<Vec<String>>, FieldError> {
        if self.raw(name).is_some_and(|raw| raw.get().starts_with('"')) {
            return Ok(self.text(name, len)?.map(|text| vec![text]));
        }
        self.texts(name, max, len)
    }
}

fn text_of(raw: &RawValue, max: usize) -> Result<String, Why> {
    // The text as sent is never shorter than what it says: quotes come on top, and an escape takes
    // at most six bytes for one.
    if raw.get().len() > max.saturating_mul(6).saturating_add(2) && raw.get().starts_with('"') {
        return Err(Why::TooLong(max));
    }
    let text: String = serde_json::from_str(raw.get()).map_err(|_| Why::NotText)?;
    if text.len() > max {
        return Err(Why::TooLong(max));
    }
    Ok(text)
}

fn integer_of(raw: &RawValue) -> Option<i64> {
    let text = raw.get();
    let text = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => text,
    };
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let number: f64 = serde_json::from_str(text).ok()?;
    // Beyond 2^53 a float names no whole number, so the cast below is exact.
    let exact = number.fract() == 0.0 && number.abs() <= MAX_EXACT;
    exact.then_some(number as i64)
}
