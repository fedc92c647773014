//! Text from remote servers or persons, made harmless where it enters.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One short line of remote text for people: an error message, a reason, a status.
///
/// The constructor cuts the text and replaces its control characters, and there is no other
/// constructor, so the value can be logged, stored and printed as it is. Line breaks and tabs
/// become spaces; other characters that are not [printable](is_printable) become U+FFFD.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct RemoteText(Arc<str>);

impl RemoteText {
    /// Longest text in characters: about four lines of a terminal.
    pub const MAX_CHARS: usize = 300;

    /// Longest text in bytes of UTF-8: the limit of the lexicons for such text
    /// (`at.didcomm.directory.defs#mediator`, `reason`).
    pub const MAX_BYTES: usize = 512;

    /// Cuts and neutralises a text. Idempotent.
    pub fn new(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(Self::MAX_BYTES));
        for c in text.chars().take(Self::MAX_CHARS).map(neutral) {
            if kept.len() + c.len_utf8() > Self::MAX_BYTES {
                break;
            }
            kept.push(c);
        }
        Self(kept.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn neutral(c: char) -> char {
    if is_printable(c) {
        c
    } else if c.is_whitespace() {
        ' '
    } else {
        char::REPLACEMENT_CHARACTER
    }
}

/// Returns whether a character only displays itself: it does not move the cursor, end a line,
/// change the direction of text, or hide. Joiners between letters and emoji (U+200C, U+200D) and
/// variation selectors count as printable.
pub fn is_printable(c: char) -> bool {
    let steers = matches!(c,
        // Direction of text.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
        // Other line ends, and characters without width.
        | '\u{2028}' | '\u{2029}' | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{feff}' | '\u{ad}'
        | '\u{180e}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e001f}');
    !c.is_control() && !steers
}

impl fmt::Display for RemoteText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RemoteText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for RemoteText {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for RemoteText {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for RemoteText {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl Serialize for RemoteText {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RemoteText {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input).map(|text| Self::new(&text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_neutralised() {
        for (text, kept) in [
            ("grüß dich", "grüß dich"),
            ("\u{1b}[31mred", "\u{fffd}[31mred"),
            ("\u{9b}31m\u{7}\u{7f}", "\u{fffd}31m\u{fffd}\u{fffd}"),
            ("a\r\nb\tc\u{85}d\u{2028}e", "a  b c d e"),
            ("\u{202e}moc.elpmaxe", "\u{fffd}moc.elpmaxe"),
            ("\u{2066}x\u{2069}\u{200b}", "\u{fffd}x\u{fffd}\u{fffd}"),
            // A family is one emoji, and Persian needs the joiner.
            ("\u{1f468}\u{200d}\u{1f469}", "\u{1f468}\u{200d}\u{1f469}"),
            (
                "\u{645}\u{6cc}\u{200c}\u{62e}",
                "\u{645}\u{6cc}\u{200c}\u{62e}",
            ),
        ] {
            assert_eq!(RemoteText::new(text), kept);
        }
    }

    #[test]
    fn inv7_text_is_cut() {
        let length = |text: &str| RemoteText::new(text).as_str().len();
        assert_eq!(length("timed out"), 9);
        assert_eq!(length(&"x".repeat(1000)), RemoteText::MAX_CHARS);
        assert_eq!(length(&"ä".repeat(1000)), RemoteText::MAX_BYTES);
        // The cut is never within a character, also where a replacement is longer than its
        // character.
        assert_eq!(length(&format!("x{}", "ä".repeat(1000))), 511);
        assert_eq!(length(&"\u{1}".repeat(1000)), 510);
    }

    #[test]
    fn serde_reads_through_the_same_rules() {
        let read: RemoteText = serde_json::from_str(r#""a\u001b[2Jb""#).unwrap();
        assert_eq!(read, "a\u{fffd}[2Jb");
        assert_eq!(
            serde_json::to_string(&read).unwrap(),
            "\"a\u{fffd}[2Jb\"",
            "written as a plain string"
        );
    }

    proptest! {
        #[test]
        fn inv8_no_bytes_move_a_cursor_break_a_line_or_exceed_the_cap(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            text in "(.|\n|\\pC|\\pZ){0,400}",
        ) {
            for text in [String::from_utf8_lossy(&bytes).as_ref(), &text] {
                let made = RemoteText::new(text);
                let kept = made.as_str();
                prop_assert!(kept.chars().all(is_printable), "{:?}", made);
                prop_assert!(kept.chars().count() <= RemoteText::MAX_CHARS);
                prop_assert!(kept.len() <= RemoteText::MAX_BYTES);
                prop_assert!(kept.lines().count() <= 1);
                prop_assert_eq!(&RemoteText::new(kept), &made);
            }
        }
    }
}
