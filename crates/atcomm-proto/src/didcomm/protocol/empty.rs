//! empty 1.0: a message that has only headers.

use serde_json::value::RawValue;

use crate::didcomm::message::{Body, FieldError, raw};

/// The empty body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Empty;

impl Body for Empty {
    const TYPE: &'static str = "https://didcomm.org/empty/1.0/empty";
    const PROTOCOL: &'static str = "https://didcomm.org/empty/1.0";

    fn read(_: &RawValue) -> Result<Self, FieldError> {
        Ok(Self)
    }

    fn write(&self) -> Box<RawValue> {
        raw(&serde_json::Map::new())
    }
}
