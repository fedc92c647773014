//! Text of remote senders and servers on a terminal. Nothing in it steers the terminal or looks like a
//! line of this program.

use atcomm_proto::syntax::{Did, Handle, is_printable};

/// Returns remote text as one line. Characters that would move the cursor, reverse the order of writing or
/// hide themselves are replaced by their numbers.
pub(super) fn line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        push(&mut shown, c);
    }
    shown
}

/// Returns remote text in its lines, each behind the two characters of [`REMOTE`], so that none looks like
/// a line of this program. `width` is the number of columns of the terminal: a line that the terminal
/// breaks continues in the first column, where lines of this program begin.
pub(super) fn block(text: &str, width: Option<usize>) -> String {
    let mut shown = String::with_capacity(text.len() + 16);
    for part in text.split('\n') {
        let mut plain = String::with_capacity(part.len());
        // Other systems end lines with CR LF.
        for c in part.strip_suffix('\r').unwrap_or(part).chars() {
            match c {
                '\t' => plain.push_str("    "),
                c => push(&mut plain, c),
            }
        }
        shown.push_str(&fold(&plain, REMOTE, REMOTE, width));
    }
    shown
}

/// Returns a line about remote text; it may quote that text.
pub(super) fn note(text: &str, width: Option<usize>) -> String {
    fold(&line(text), NOTE, INDENT, width)
}

/// Returns a line that begins in the first column and continues with an indent.
pub(super) fn head(text: &str, width: Option<usize>) -> String {
    fold(text, "", INDENT, width)
}

/// Prefix of each line of remote text.
pub(super) const REMOTE: &str = "| ";

/// Prefix of a line about remote text.
const NOTE: &str = "* ";

/// Prefix of a continued line.
const INDENT: &str = "  ";

/// Returns the number of columns of the terminal behind standard output; `None` where that is no terminal.
/// Of this number and the environment's the smaller one counts: the terminal must not break a line.
pub(super) fn width() -> Option<usize> {
    let size = terminal_size::terminal_size_of(std::io::stdout());
    let size = usize::from(size?.0.0);
    let said = std::env::var("COLUMNS")
        .ok()
        .and_then(|said| said.parse().ok());
    Some(said.map_or(size, |said: usize| size.min(said)))
}

/// Folds a line to the width, between words where there are any.
fn fold(text: &str, first: &str, next: &str, width: Option<usize>) -> String {
    let mut shown = String::with_capacity(text.len() + 16);
    let (mut rest, mut prefix) = (text, first);
    loop {
        let room = width.map_or(usize::MAX, |width| width.saturating_sub(prefix.len()));
        let (part, left) = rest.split_at(break_at(rest, room));
        let line = format!("{prefix}{part}");
        shown.push_str(line.trim_end_matches(' '));
        shown.push('\n');
        if left.is_empty() {
            return shown;
        }
        (rest, prefix) = (left, next);
    }
}

/// Returns where a line of `room` columns ends, in bytes: after a space if there is one, and never at its
/// beginning.
fn break_at(text: &str, room: usize) -> usize {
    let (mut used, mut space) = (0usize, None);
    for (index, c) in text.char_indices() {
        used = used.saturating_add(columns(c));
        if c == ' ' {
            // A space that does not fit is left out.
            space = Some(index + 1);
        }
        if used > room && index > 0 {
            return space.unwrap_or(index);
        }
    }
    text.len()
}

/// Returns the most columns that a terminal may give a character. Terminals do not agree on emoji, on
/// letters of ambiguous width and on characters without width; a line that ends too early does no harm.
fn columns(c: char) -> usize {
    unicode_width::UnicodeWidthChar::width_cjk(c)
        .unwrap_or(1)
        .max(1)
}

/// Escapes the characters of a JSON text that would steer a terminal.
pub(super) fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || is_printable(c) {
            shown.push(c);
            continue;
        }
        // Such a character can only stand in a string.
        for unit in c.encode_utf16(&mut [0; 2]) {
            shown.push_str(&format!("\\u{unit:04x}"));
        }
    }
    shown
}

fn push(shown: &mut String, c: char) {
    if is_printable(c) {
        shown.push(c);
    } else {
        shown.extend(c.escape_unicode());
    }
}

/// Returns what a command calls an account: its handle where that was verified, else its DID.
pub(super) fn account_name(handle: Option<&Handle>, account: &Did) -> String {
    match handle {
        Some(handle) => format!("@{handle}"),
        None => line(account.as_str()),
    }
}

/// Shortens a DID to its two ends.
pub(super) fn short_did(did: &str) -> String {
    const WHOLE: usize = 40;
    const ENDS: (usize, usize) = (24, 8);
    let count = did.chars().count();
    if count <= WHOLE {
        return line(did);
    }
    let start: String = did.chars().take(ENDS.0).collect();
    let end: String = did.chars().skip(count - ENDS.1).collect();
    line(&format!("{start}\u{2026}{end}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_by_its_number() {
        for (text, shown) in [
            ("grüß dich", "grüß dich"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\rb\nc", "a\\u{d}b\\u{a}c"),
            ("\u{202e}moc.elpmaxe", "\\u{202e}moc.elpmaxe"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            // A family is one picture, and Persian needs its joiner.
            (
                "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{2764}\u{fe0f}",
                "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{2764}\u{fe0f}",
            ),
            (
                "\u{645}\u{6cc}\u{200c}\u{62e}",
                "\u{645}\u{6cc}\u{200c}\u{62e}",
            ),
        ] {
            assert_eq!(line(text), shown);
        }
    }

    #[test]
    fn no_line_of_a_text_begins_where_ours_do() {
        assert_eq!(
            block("a\r\nfrom bob\n\tc\n", None),
            "| a\n| from bob\n|     c\n|\n"
        );
        assert_eq!(block("x\ry", None), "| x\\u{d}y\n");
        assert_eq!(
            note("link: x\n* record: y", None),
            "* link: x\\u{a}* record: y\n"
        );
    }

    #[test]
    fn no_terminal_breaks_a_line_where_ours_begin() {
        let forged = "2026-11-05 10:00Z  from @bob.example (verified)";
        for filler in [
            " ",
            "x",
            "\u{3164}",
            "\u{301}",
            "\u{4e00}",
            "\u{1f468}\u{200d}",
        ] {
            let text = format!("{}{forged}", filler.repeat(78));
            for shown in [
                block(&text, Some(80)),
                note(&text, Some(80)),
                head(&format!("x{text}"), Some(80)),
            ] {
                assert!(shown.contains("@bob.example"), "{shown}");
                for (n, part) in shown.lines().enumerate() {
                    let used: usize = part.chars().map(columns).sum();
                    assert!(used <= 80, "{used}: {part}");
                    let ours = part.starts_with(NOTE) && n == 0 || part.starts_with(INDENT);
                    assert!(n == 0 || part.starts_with('|') || ours, "{part}");
                    assert!(!part.starts_with("20"), "{part}");
                }
            }
        }
        assert_eq!(block("one two three", Some(9)), "| one two\n| three\n");
        assert_eq!(block("onetwothree", Some(9)), "| onetwot\n| hree\n");
        // Where there is no room at all, a character a line.
        assert_eq!(block("ab", Some(0)), "| a\n| b\n");
    }

    #[test]
    fn json_has_the_same_meaning_and_steers_nothing() {
        let text = "\u{9b}31m \u{202e}x\u{e0001} \u{7f} gr\u{fc}\u{df}";
        let value = serde_json::json!({"text": text});
        for raw in [
            value.to_string(),
            serde_json::to_string_pretty(&value).unwrap(),
        ] {
            let shown = json(&raw);
            assert!(
                shown.chars().all(|c| c == '\n' || is_printable(c)),
                "{shown}"
            );
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
                value
            );
        }
        assert!(json(&value.to_string()).contains("\\u009b31m \\u202ex\\udb40\\udc01"));
    }

    #[test]
    fn long_dids_are_cut_in_the_middle() {
        assert_eq!(short_did("did:plc:abc"), "did:plc:abc");
        let peer = format!("did:peer:2.{}", "x".repeat(100));
        assert_eq!(short_did(&peer).chars().count(), 33);
    }

    proptest! {
        #[test]
        fn inv8_nothing_that_steers_comes_through(text in "\\PC{0,20}(.|\n){0,20}\\PC{0,20}") {
            prop_assert!(line(&text).chars().all(is_printable));
            for width in [None, Some(10)] {
                for part in block(&text, width).lines() {
                    prop_assert!(part.starts_with('|') && part.chars().all(is_printable));
                }
            }
        }
    }
}
