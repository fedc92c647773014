//! A JSON object read field by field, so that errors can name the field.
//!
//! No tree is built: a field that no code reads is skipped without recursion, and other fields stay
//! the text that was sent.

mod entries;

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::error::{FieldError, FieldFault};

use self::entries::{Entries, Pairs};
pub(super) use self::entries::{MAX_ENTRIES, MAX_FIELDS, Name};

/// Largest whole number that a JSON number keeps exactly (2^53).
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A JSON object whose fields are still text.
pub(in crate::didcomm) struct Object<'a> {
    /// Path of the object, such as `updates[3]`; empty at the top.
    pub(super) place: String,
    pub(super) fields: Vec<(Cow<'a, str>, Field<'a>)>,
}

/// The value of a field.
pub(super) enum Field<'a> {
    /// Text of the value.
    Raw(&'a RawValue),
    /// An object that was read with its parent.
    Object(Object<'a>),
    /// A list of objects that was read with its parent.
    Objects(Vec<Object<'a>>),
}

impl<'a> Object<'a> {
    /// Reads the body of a message.
    pub(in crate::didcomm) fn body(body: &'a RawValue) -> Result<Self, FieldError> {
        Self::read(body.get(), String::new()).map_err(|mut err| {
            if err.field.is_empty() {
                err.field.push_str("body");
            }
            err
        })
    }

    /// Reads an object; `place` is its path in the message.
    pub(super) fn read(text: &'a str, place: String) -> Result<Self, FieldError> {
        let Ok(Pairs { kept, truncated }) = serde_json::from_str(text) else {
            return Err(FieldError::new(place, FieldFault::NotObject));
        };
        if truncated {
            return Err(FieldError::new(place, FieldFault::TooMany(MAX_FIELDS)));
        }
        let fields = kept.into_iter();
        let object = Self {
            place,
            fields: fields.map(|(name, raw)| (name, Field::Raw(raw))).collect(),
        };
        match object.duplicate() {
            // The sender chose the name, so only its beginning goes into an error.
            Some(name) => Err(object.wrong(
                &name.chars().take(64).collect::<String>(),
                FieldFault::Twice,
            )),
            None => Ok(object),
        }
    }

    /// Returns a name that two fields have.
    pub(super) fn duplicate(&self) -> Option<&str> {
        let repeated = |(index, (name, _)): (usize, &(Cow<'a, str>, Field<'a>))| {
            let before = self.fields.iter().take(index);
            before.map(|(n, _)| n).any(|n| n == name).then_some(index)
        };
        let index = self.fields.iter().enumerate().find_map(repeated)?;
        self.fields.get(index).map(|(name, _)| name.as_ref())
    }

    /// Makes the error about a field of this object.
    pub(in crate::didcomm) fn wrong(&self, name: &str, why: FieldFault) -> FieldError {
        FieldError::new(self.place_of(name), why)
    }

    pub(super) fn place_of(&self, name: &str) -> String {
        if self.place.is_empty() {
            return name.to_owned();
        }
        format!("{}.{name}", self.place)
    }

    /// Returns the text of a field; `None` if it is missing or null.
    pub(in crate::didcomm) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let (_, field) = self.fields.iter().find(|(n, _)| n == name)?;
        match field {
            Field::Raw(raw) if raw.get() != "null" => Some(raw),
            _ => None,
        }
    }

    /// Returns the value, or the error that the field is missing.
    pub(in crate::didcomm) fn required<T>(
        &self,
        name: &str,
        value: Option<T>,
    ) -> Result<T, FieldError> {
        value.ok_or_else(|| self.wrong(name, FieldFault::Missing))
    }

    /// Reads a non-empty string of at most `max` bytes.
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
            return Err(self.wrong(name, FieldFault::Empty));
        }
        Ok(Some(text))
    }

    /// Reads a string for people of at most `max` bytes, which may be empty.
    pub(in crate::didcomm) fn prose(
        &self,
        name: &str,
        max: usize,
    ) -> Result<Option<String>, FieldError> {
        let raw = self.raw(name).map(|raw| text_of(raw, max));
        raw.transpose().map_err(|why| self.wrong(name, why))
    }

    /// Reads a whole number, also if it is written as `1.0` or as a string.
    pub(in crate::didcomm) fn integer(&self, name: &str) -> Result<Option<i64>, FieldError> {
        let Some(raw) = self.raw(name) else {
            return Ok(None);
        };
        let number = integer_of(raw).ok_or_else(|| self.wrong(name, FieldFault::NotInteger))?;
        Ok(Some(number))
    }

    /// Reads a whole number from zero up, written like [`Object::integer`].
    pub(in crate::didcomm) fn count(&self, name: &str) -> Result<Option<u64>, FieldError> {
        let Some(number) = self.integer(name)? else {
            return Ok(None);
        };
        let number = u64::try_from(number).map_err(|_| self.wrong(name, FieldFault::Negative))?;
        Ok(Some(number))
    }

    /// Reads a boolean, also if it is written as a string.
    pub(in crate::didcomm) fn flag(&self, name: &str) -> Result<Option<bool>, FieldError> {
        match self.raw(name).map(RawValue::get) {
            None => Ok(None),
            Some("true" | "\"true\"") => Ok(Some(true)),
            Some("false" | "\"false\"") => Ok(Some(false)),
            Some(_) => Err(self.wrong(name, FieldFault::NotFlag)),
        }
    }

    /// Reads the entries of an array, at most `max`.
    pub(in crate::didcomm) fn list(
        &self,
        name: &str,
        max: usize,
    ) -> Result<Option<Vec<&'a RawValue>>, FieldError> {
        let Some(raw) = self.raw(name) else {
            return Ok(None);
        };
        let list: Entries<'a> =
            serde_json::from_str(raw.get()).map_err(|_| self.wrong(name, FieldFault::NotList))?;
        if list.kept.len() > max || list.truncated {
            return Err(self.wrong(name, FieldFault::TooMany(max)));
        }
        Ok(Some(list.kept))
    }

    /// Reads an array of objects, at most `max`.
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

    /// Reads like [`Object::objects`] and removes the field; for objects that were read with the
    /// headers.
    pub(super) fn take_objects(
        &mut self,
        name: &str,
        max: usize,
    ) -> Result<Option<Vec<Object<'a>>>, FieldError> {
        let found = self.fields.iter_mut().find(|(n, _)| n == name);
        if let Some((_, Field::Objects(objects))) = found {
            let objects = std::mem::take(objects);
            if objects.len() > max {
                return Err(self.wrong(name, FieldFault::TooMany(max)));
            }
            return Ok(Some(objects));
        }
        self.objects(name, max)
    }

    /// Reads like [`Object::object`] and removes the field; for objects that were read with the
    /// headers.
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

    /// Reads an object below this one.
    pub(in crate::didcomm) fn object(&self, name: &str) -> Result<Option<Object<'a>>, FieldError> {
        let raw = self.raw(name);
        raw.map(|raw| Object::read(raw.get(), self.place_of(name)))
            .transpose()
    }

    /// Reads an array of at most `max` non-empty strings of at most `len` bytes.
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
                Ok(text) if text.is_empty() => Err(FieldFault::Empty),
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

    /// Reads like [`Object::texts`]; a string alone counts as a list of one.
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

fn text_of(raw: &RawValue, max: usize) -> Result<String, FieldFault> {
    // A JSON text is never shorter than its value: it has quotes, and an escape takes at most six
    // bytes for one.
    if raw.get().len() > max.saturating_mul(6).saturating_add(2) && raw.get().starts_with('"') {
        return Err(FieldFault::TooLong(max));
    }
    let text: String = serde_json::from_str(raw.get()).map_err(|_| FieldFault::NotText)?;
    if text.len() > max {
        return Err(FieldFault::TooLong(max));
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
    // Beyond 2^53 a float is not an exact whole number, so the cast below is exact.
    let exact = number.fract() == 0.0 && number.abs() <= MAX_EXACT;
    exact.then_some(number as i64)
}
