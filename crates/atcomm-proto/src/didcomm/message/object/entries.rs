//! The members of a JSON object or array as the texts that were sent.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Most fields of one object: no valid message or body comes near it, and every two names are
/// compared.
pub(in crate::didcomm::message) const MAX_FIELDS: usize = 64;

/// Most entries kept of any array; each list has a lower limit of its own.
pub(in crate::didcomm::message) const MAX_ENTRIES: usize = 1000;

/// The fields of an object, at most [`MAX_FIELDS`], and whether there were more.
pub(super) struct Pairs<'a> {
    pub(super) kept: Vec<(Cow<'a, str>, &'a RawValue)>,
    pub(super) truncated: bool,
}

/// A name, borrowed unless it has escapes.
#[derive(Deserialize)]
pub(in crate::didcomm::message) struct Name<'a>(
    #[serde(borrow)] pub(in crate::didcomm::message) Cow<'a, str>,
);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for PairsVisitor<'a> {
            type Value = Pairs<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'a>, A::Error> {
                let mut kept = Vec::with_capacity(16);
                while kept.len() < MAX_FIELDS {
                    let Some((Name(name), value)) = map.next_entry()? else {
                        return Ok(Pairs {
                            kept,
                            truncated: false,
                        });
                    };
                    kept.push((name, value));
                }
                let mut truncated = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    truncated = true;
                }
                Ok(Pairs { kept, truncated })
            }
        }

        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

/// The entries of an array, at most [`MAX_ENTRIES`], and whether there were more.
pub(super) struct Entries<'a> {
    pub(super) kept: Vec<&'a RawValue>,
    pub(super) truncated: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for EntriesVisitor<'a> {
            type Value = Entries<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entries<'a>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < MAX_ENTRIES {
                    let Some(value) = seq.next_element()? else {
                        return Ok(Entries {
                            kept,
                            truncated: false,
                        });
                    };
                    kept.push(value);
                }
                let mut truncated = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    truncated = true;
                }
                Ok(Entries { kept, truncated })
            }
        }

        deserializer.deserialize_seq(EntriesVisitor(PhantomData))
    }
}
