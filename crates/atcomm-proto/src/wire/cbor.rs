//! A reader of DAG-CBOR that borrows from its input and does not allocate.
//!
//! Only DAG-CBOR is accepted: definite lengths, shortest forms, text in UTF-8, tag 42, no floats.
//! Records must have sorted, unique map keys ([`validate`]), since their hash is signed; a stream's
//! envelopes are not signed and may have keys in any order. In an envelope text that is not UTF-8
//! is a fault of the one event, since relays pass such text on ([`CborReader::of_envelope`]).
//!
//! Sources: DAG-CBOR specification, "Strictness"; atproto data model.

/// Deepest nesting of arrays and maps (atproto data model, with the limit of the reference
/// implementation). Reading recurses, so this bounds the stack.
pub const MAX_DEPTH: usize = 32;

/// Length of a CID in atproto, in bytes: version, codec, hash name, hash length, SHA-256.
pub const CID_LEN: usize = 36;

/// The first bytes of a CIDv1 of a DAG-CBOR block with SHA-256.
const DAG_CBOR_CID: [u8; 4] = [0x01, 0x71, 0x12, 0x20];

/// The first bytes of a CIDv1 of raw bytes with SHA-256.
const RAW_CID: [u8; 4] = [0x01, 0x55, 0x12, 0x20];

/// Errors of reading DAG-CBOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CborError {
    /// The input ends inside a value.
    #[error("the data ends inside a value")]
    Truncated,
    /// A value has an indefinite length, which DAG-CBOR does not allow.
    #[error("a value has no definite length")]
    Indefinite,
    /// A number or length is written with more bytes than it needs.
    #[error("a number is not in its shortest form")]
    NotShortest,
    /// A value is a float, `undefined` or another simple value outside the data model.
    #[error("a value is of a type outside the data model")]
    Type,
    /// A tag is not 42.
    #[error("a tag is not 42")]
    Tag,
    /// Tag 42 has no CID behind it.
    #[error("a link is not a CID")]
    Link,
    /// A text is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A map key is not text, or not sorted behind the previous key.
    #[error("the keys of a map are not sorted, unique text")]
    Key,
    /// The nesting is deeper than [`MAX_DEPTH`].
    #[error("values are nested deeper than 32 levels")]
    Depth,
    /// Bytes follow the value.
    #[error("bytes follow the value")]
    Trailing,
}

impl CborError {
    /// Returns a stable code for metrics and statistics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "cbor_truncated",
            Self::Indefinite => "cbor_indefinite",
            Self::NotShortest => "cbor_not_shortest",
            Self::Type => "cbor_type",
            Self::Tag => "cbor_tag",
            Self::Link => "cbor_link",
            Self::Utf8 => "cbor_utf8",
            Self::Key => "cbor_key",
            Self::Depth => "cbor_depth",
            Self::Trailing => "cbor_trailing",
        }
    }
}

/// A value, or the head of an array or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// A number from zero up.
    Unsigned(u64),
    /// The number `-1 - n`.
    Negative(u64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Text.
    Text(&'a str),
    /// The head of an array of so many values, which follow.
    Array(u64),
    /// The head of a map of so many pairs of key and value, which follow.
    Map(u64),
    /// A CID in binary form, unchecked ([`sha256_cid`]).
    Link(&'a [u8]),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// Reads values one after another.
#[derive(Debug, Clone)]
pub struct CborReader<'a> {
    rest: &'a [u8],
    /// Whether text that is not UTF-8 is noted and not refused.
    is_envelope: bool,
    has_bad_text: bool,
}

impl<'a> CborReader<'a> {
    /// Starts at the beginning of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self {
            rest: input,
            is_envelope: false,
            has_bad_text: false,
        }
    }

    /// Starts at the beginning of an envelope. Text that is not UTF-8, also that of a map key and
    /// of a value that is skipped, is read as empty text and noted ([`Self::has_bad_text`]).
    pub fn of_envelope(input: &'a [u8]) -> Self {
        Self {
            is_envelope: true,
            ..Self::new(input)
        }
    }

    /// Returns whether text was read that is not UTF-8.
    pub fn has_bad_text(&self) -> bool {
        self.has_bad_text
    }

    /// Returns whether the whole input was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads the next value. The contents of an array or map are the next values.
    #[inline]
    pub fn item(&mut self) -> Result<Item<'a>, CborError> {
        let (&first, rest) = self.rest.split_first().ok_or(CborError::Truncated)?;
        self.rest = rest;
        let (major, info) = (first >> 5, first & 0x1f);
        if major == 7 {
            return match info {
                20 => Ok(Item::Bool(false)),
                21 => Ok(Item::Bool(true)),
                22 => Ok(Item::Null),
                _ => Err(CborError::Type),
            };
        }
        let argument = self.argument(info)?;
        match major {
            0 => Ok(Item::Unsigned(argument)),
            1 => Ok(Item::Negative(argument)),
            2 => self.take(argument).map(Item::Bytes),
            3 => match std::str::from_utf8(self.take(argument)?) {
                Ok(text) => Ok(Item::Text(text)),
                Err(_) if self.is_envelope => {
                    self.has_bad_text = true;
                    Ok(Item::Text(""))
                }
                Err(_) => Err(CborError::Utf8),
            },
            // Every value takes at least one byte, so a count beyond the input is refused before
            // any loop over it.
            4 if argument > self.rest.len() as u64 => Err(CborError::Truncated),
            4 => Ok(Item::Array(argument)),
            5 if argument > self.rest.len() as u64 / 2 => Err(CborError::Truncated),
            5 => Ok(Item::Map(argument)),
            _ if argument != 42 => Err(CborError::Tag),
            _ => self.link(),
        }
    }

    #[inline]
    fn argument(&mut self, info: u8) -> Result<u64, CborError> {
        // The largest number that the next shorter form holds.
        let (len, shorter) = match info {
            0..24 => return Ok(u64::from(info)),
            24 => (1, 23),
            25 => (2, 0xff),
            26 => (4, 0xffff),
            27 => (8, 0xffff_ffff),
            31 => return Err(CborError::Indefinite),
            _ => return Err(CborError::Type),
        };
        let bytes = self.take(len)?;
        let value = bytes.iter().fold(0, |acc, b| (acc << 8) | u64::from(*b));
        if value > shorter {
            Ok(value)
        } else {
            Err(CborError::NotShortest)
        }
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<&'a [u8], CborError> {
        let len = usize::try_from(len).map_err(|_| CborError::Truncated)?;
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(CborError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn link(&mut self) -> Result<Item<'a>, CborError> {
        // Read here and not by `item`, since a chain of tags could then recurse.
        let (&first, rest) = self.rest.split_first().ok_or(CborError::Truncated)?;
        if first >> 5 != 2 {
            return Err(CborError::Link);
        }
        self.rest = rest;
        let len = self.argument(first & 0x1f)?;
        match self.take(len)?.split_first() {
            Some((0, cid)) if !cid.is_empty() => Ok(Item::Link(cid)),
            _ => Err(CborError::Link),
        }
    }

    /// Skips the next value with its contents.
    pub fn skip(&mut self) -> Result<(), CborError> {
        let item = self.item()?;
        self.skip_contents(item, MAX_DEPTH)
    }

    /// Skips the contents of `item`, which was just read.
    fn skip_contents(&mut self, item: Item<'a>, depth: usize) -> Result<(), CborError> {
        let values = match item {
            Item::Array(len) => len,
            Item::Map(pairs) => pairs * 2,
            _ => return Ok(()),
        };
        let depth = depth.checked_sub(1).ok_or(CborError::Depth)?;
        for _ in 0..values {
            let item = self.item()?;
            self.skip_contents(item, depth)?;
        }
        Ok(())
    }

    /// Returns the next value if it is text; skips a value of another type.
    #[inline]
    pub fn text(&mut self) -> Result<Option<&'a str>, CborError> {
        match self.item()? {
            Item::Text(text) => Ok(Some(text)),
            other => self.skip_contents(other, MAX_DEPTH).map(|()| None),
        }
    }

    /// Returns the next value if it is bytes; skips a value of another type.
    #[inline]
    pub fn bytes(&mut self) -> Result<Option<&'a [u8]>, CborError> {
        match self.item()? {
            Item::Bytes(bytes) => Ok(Some(bytes)),
            other => self.skip_contents(other, MAX_DEPTH).map(|()| None),
        }
    }

    /// Returns the next value if it is a number from zero up; skips a value of another type.
    #[inline]
    pub fn unsigned(&mut self) -> Result<Option<u64>, CborError> {
        match self.item()? {
            Item::Unsigned(number) => Ok(Some(number)),
            other => self.skip_contents(other, MAX_DEPTH).map(|()| None),
        }
    }

    /// Returns the next value if it is a boolean; skips a value of another type.
    #[inline]
    pub fn bool(&mut self) -> Result<Option<bool>, CborError> {
        match self.item()? {
            Item::Bool(value) => Ok(Some(value)),
            other => self.skip_contents(other, MAX_DEPTH).map(|()| None),
        }
    }

    /// Returns the next value if it is the link of a DAG-CBOR block; skips a value of another type.
    #[inline]
    pub fn block_link(&mut self) -> Result<Option<&'a [u8; CID_LEN]>, CborError> {
        match self.item()? {
            Item::Link(cid) => Ok(sha256_cid(cid).filter(|cid| cid.starts_with(&DAG_CBOR_CID))),
            other => self.skip_contents(other, MAX_DEPTH).map(|()| None),
        }
    }

    /// Returns the number of values of an array if the next value is one; skips a value of another
    /// type.
    #[inline]
    pub fn array(&mut self) -> Result<Option<u64>, CborError> {
        match self.item()? {
            Item::Array(len) => Ok(Some(len)),
            other => self.skip_contents(other, MAX_DEPTH).map(|()| None),
        }
    }

    /// Returns the number of pairs of a map if the next value is one; skips a value of another
    /// type.
    #[inline]
    pub fn map(&mut self) -> Result<Option<u64>, CborError> {
        match self.item()? {
            Item::Map(pairs) => Ok(Some(pairs)),
            other => self.skip_contents(other, MAX_DEPTH).map(|()| None),
        }
    }

    /// Reads a map key.
    #[inline]
    pub fn key(&mut self) -> Result<&'a str, CborError> {
        match self.item()? {
            Item::Text(key) => Ok(key),
            _ => Err(CborError::Key),
        }
    }

    fn validate(&mut self, depth: usize) -> Result<(), CborError> {
        match self.item()? {
            Item::Array(len) => {
                let depth = depth.checked_sub(1).ok_or(CborError::Depth)?;
                (0..len).try_for_each(|_| self.validate(depth))
            }
            Item::Map(pairs) => {
                let depth = depth.checked_sub(1).ok_or(CborError::Depth)?;
                let mut last: Option<&str> = None;
                for _ in 0..pairs {
                    let key = self.key()?;
                    let order = |k: &'a str| (k.len(), k);
                    if last.is_some_and(|last| order(last) >= order(key)) {
                        return Err(CborError::Key);
                    }
                    last = Some(key);
                    self.validate(depth)?;
                }
                Ok(())
            }
            Item::Link(cid) => sha256_cid(cid).map(drop).ok_or(CborError::Link),
            _ => Ok(()),
        }
    }
}

/// Checks that `block` is one value in its only encoding under DAG-CBOR and the atproto data model.
/// Links must be CIDv1 with SHA-256.
pub fn validate(block: &[u8]) -> Result<(), CborError> {
    let mut reader = CborReader::new(block);
    reader.validate(MAX_DEPTH)?;
    if reader.is_empty() {
        Ok(())
    } else {
        Err(CborError::Trailing)
    }
}

/// Checks that a CID has the only form in atproto: version 1, DAG-CBOR or raw, SHA-256.
pub fn sha256_cid(bytes: &[u8]) -> Option<&[u8; CID_LEN]> {
    let cid: &[u8; CID_LEN] = bytes.try_into().ok()?;
    (cid.starts_with(&DAG_CBOR_CID) || cid.starts_with(&RAW_CID)).then_some(cid)
}

#[cfg(test)]
mod tests;
