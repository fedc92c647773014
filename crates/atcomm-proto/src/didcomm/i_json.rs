//! I-JSON: JSON that every reader parses, and in which every reader sees the same.
//!
//! A mediator hands messages of senders out inside its own: one that a recipient's parser refuses
//! makes the whole delivery unreadable, and with it everything that waits behind. The check is
//! therefore as strict as the strictest parser in use, and an envelope, which needs none of what is
//! refused, passes.
//!
//! Source: RFC 7493, "The I-JSON Message Format".

/// Deepest nesting of objects and arrays. An envelope needs five levels, and a delivery adds four;
/// the first parsers give up at 64.
const MAX_DEPTH: usize = 8;

/// Most values in all. An envelope of 32 recipients with an ephemeral key each has about 300.
const MAX_VALUES: usize = 1024;

/// Longest name of a member, in bytes.
const MAX_NAME: usize = 64;

/// Most digits of a number: each number of so many survives a double-precision float.
const MAX_DIGITS: usize = 15;

/// Names with a meaning to JavaScript objects. Some parsers refuse a text that has them.
const OBJECT_NAMES: [&str; 3] = ["__proto__", "constructor", "prototype"];

/// Reasons why some reader may refuse a text, or may see another content than others see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IJsonError {
    /// The bytes are not UTF-8.
    #[error("it is not UTF-8")]
    Utf8,
    /// The text is not a JSON object; a byte order mark makes it none.
    #[error("it is not a JSON object")]
    Syntax,
    /// Objects and arrays are nested too deeply.
    #[error("it is nested more than {MAX_DEPTH} levels deep")]
    Depth,
    /// There are too many values.
    #[error("it has more than {MAX_VALUES} values")]
    Values,
    /// A string has one half of a surrogate pair.
    #[error("a string has half of a surrogate pair")]
    Surrogate,
    /// A string has U+0000, or a code point that is no character.
    #[error("a string has U+0000 or a code point that is no character")]
    Character,
    /// A number loses digits or its value in some readers.
    #[error("a number has an exponent, or more than {MAX_DIGITS} digits")]
    Number,
    /// The name of a member has a special meaning to some readers.
    #[error("the name of a member is empty, long, special or not plain ASCII")]
    Name,
    /// An object has two members of one name. Some readers take the first and some the last, and
    /// some ignore case.
    #[error("two members of an object have the same name")]
    Twice,
}

/// Checks that `bytes` are one JSON object that every reader parses, and understands alike. One
/// pass; keeps nothing but the names of open objects.
pub fn check(bytes: &[u8]) -> Result<(), IJsonError> {
    let text = std::str::from_utf8(bytes).map_err(|_| IJsonError::Utf8)?;
    if !text.is_ascii() && text.chars().any(is_noncharacter) {
        return Err(IJsonError::Character);
    }
    let mut scanner = Scanner {
        text,
        at: 0,
        values: 0,
        names: Vec::with_capacity(16),
    };
    scanner.skip_space();
    if scanner.peek() != Some(b'{') {
        return Err(IJsonError::Syntax);
    }
    scanner.value(MAX_DEPTH)?;
    scanner.skip_space();
    match scanner.peek() {
        None => Ok(()),
        Some(_) => Err(IJsonError::Syntax),
    }
}

/// Whether a code point is set aside by Unicode and never a character.
fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
}

/// Whether a byte ends a run of plain characters in a string. Without branches.
fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// Returns the length of the run of plain characters at the beginning.
fn plain_run(bytes: &[u8]) -> usize {
    /// A ciphertext is one long run. The bytes of a chunk are compared at once, since nothing ends
    /// the loop over them early.
    const CHUNK: usize = 32;
    let is_plain = |chunk: &&[u8; CHUNK]| {
        let special = |any, byte: &u8| any | u8::from(is_special(*byte));
        chunk.iter().fold(0_u8, special) == 0
    };
    let (chunks, _) = bytes.as_chunks::<CHUNK>();
    let plain = chunks.iter().take_while(is_plain).count() * CHUNK;
    let rest = bytes.get(plain..).unwrap_or_default();
    plain + rest.iter().take_while(|b| !is_special(**b)).count()
}

/// A position in a text.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Number of values so far.
    values: usize,
    /// Names of the members of all open objects, the outermost first.
    names: Vec<&'a str>,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Passes over `wanted`, if it comes next.
    fn skip(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: u8) -> Result<(), IJsonError> {
        if self.skip(wanted) {
            return Ok(());
        }
        Err(IJsonError::Syntax)
    }

    fn skip_space(&mut self) {
        let is_space = |b: &&u8| matches!(**b, b' ' | b'\t' | b'\n' | b'\r');
        self.at += self.rest().iter().take_while(is_space).count();
    }

    /// Passes over a value that has at most `depth` levels.
    fn value(&mut self, depth: usize) -> Result<(), IJsonError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(IJsonError::Values);
        }
        match self.peek() {
            Some(b'{') => self.object(depth.checked_sub(1).ok_or(IJsonError::Depth)?),
            Some(b'[') => self.array(depth.checked_sub(1).ok_or(IJsonError::Depth)?),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.literal(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), IJsonError> {
        let before = self.names.len();
        self.expect(b'{')?;
        self.skip_space();
        if self.skip(b'}') {
            return Ok(());
        }
        loop {
            self.name(before)?;
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            self.value(depth)?;
            self.skip_space();
            if self.skip(b',') {
                self.skip_space();
                continue;
            }
            self.names.truncate(before);
            return self.expect(b'}');
        }
    }

    /// Passes over the name of a member, which must differ from those since `before`.
    fn name(&mut self, before: usize) -> Result<(), IJsonError> {
        self.expect(b'"')?;
        let start = self.at;
        self.at += plain_run(self.rest().get(..=MAX_NAME).unwrap_or(self.rest()));
        let name = self.text.get(start..self.at).unwrap_or_default();
        match self.next() {
            Some(b'"') if name.len() <= MAX_NAME => {}
            None | Some(..=0x1f) => return Err(IJsonError::Syntax),
            Some(_) => return Err(IJsonError::Name),
        }
        // Some readers take `$type` and `@class` for instructions.
        let is_plain = name.bytes().all(|b| b.is_ascii_graphic()) && !name.starts_with(['$', '@']);
        if name.is_empty() || !is_plain || OBJECT_NAMES.contains(&name) {
            return Err(IJsonError::Name);
        }
        let mut others = self.names.iter().skip(before);
        if others.any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(IJsonError::Twice);
        }
        self.names.push(name);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), IJsonError> {
        self.expect(b'[')?;
        self.skip_space();
        if self.skip(b']') {
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.skip_space();
            if self.skip(b',') {
                self.skip_space();
                continue;
            }
            return self.expect(b']');
        }
    }

    fn string(&mut self) -> Result<(), IJsonError> {
        self.expect(b'"')?;
        loop {
            self.at += plain_run(self.rest());
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => self.escape()?,
                _ => return Err(IJsonError::Syntax),
            }
        }
    }

    fn escape(&mut self) -> Result<(), IJsonError> {
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => return Ok(()),
            Some(b'u') => {}
            _ => return Err(IJsonError::Syntax),
        }
        let first = self.code_unit()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !self.rest().starts_with(b"\\u") {
                    return Err(IJsonError::Surrogate);
                }
                self.at += 2;
                match self.code_unit()? {
                    second @ 0xdc00..=0xdfff => {
                        0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    _ => return Err(IJsonError::Surrogate),
                }
            }
            0xdc00..=0xdfff => return Err(IJsonError::Surrogate),
            code => code,
        };
        match char::from_u32(code) {
            None => Err(IJsonError::Surrogate),
            Some('\0') => Err(IJsonError::Character),
            Some(c) if is_noncharacter(c) => Err(IJsonError::Character),
            Some(_) => Ok(()),
        }
    }

    /// Reads the four hexadecimal digits of an escape.
    fn code_unit(&mut self) -> Result<u32, IJsonError> {
        let digits = self.rest().get(..4).ok_or(IJsonError::Syntax)?;
        let mut code = 0;
        for byte in digits {
            let digit = char::from(*byte).to_digit(16).ok_or(IJsonError::Syntax)?;
            code = (code << 4) | digit;
        }
        self.at += 4;
        Ok(code)
    }

    fn number(&mut self) -> Result<(), IJsonError> {
        self.skip(b'-');
        let begins_with_zero = self.peek() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || (whole > 1 && begins_with_zero) {
            return Err(IJsonError::Syntax);
        }
        let mut fraction = 0;
        if self.skip(b'.') {
            fraction = self.digits();
            if fraction == 0 {
                return Err(IJsonError::Syntax);
            }
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent || whole + fraction > MAX_DIGITS {
            return Err(IJsonError::Number);
        }
        Ok(())
    }

    /// Passes over digits. Returns how many there were.
    fn digits(&mut self) -> usize {
        let digits = self.rest().iter().take_while(|b| b.is_ascii_digit());
        let count = digits.count();
        self.at += count;
        count
    }

    fn literal(&mut self) -> Result<(), IJsonError> {
        let found = ["true", "false", "null"]
            .into_iter()
            .find(|word| self.rest().starts_with(word.as_bytes()));
        self.at += found.ok_or(IJsonError::Syntax)?.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
