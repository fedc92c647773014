//! Words of others on a terminal: shown, and never obeyed.

/// A text of others in one line: characters that would move the cursor, reverse the order of
/// writing or hide themselves are shown by their numbers.
pub(super) fn line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        push(&mut shown, c);
    }
    shown
}

/// A text of others in its lines, each behind two spaces, so that none of them looks like one of
/// ours.
pub(super) fn block(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 16);
    for part in text.split('\n') {
        shown.push_str("  ");
        // The first half of a line's end on other systems.
        for c in part.strip_suffix('\r').unwrap_or(part).chars() {
            match c {
                '\t' => shown.push_str("    "),
                c => push(&mut shown, c),
            }
        }
        shown.push('\n');
    }
    shown
}

fn push(shown: &mut String, c: char) {
    match is_harmless(c) {
        true => shown.push(c),
        false => shown.extend(c.escape_unicode()),
    }
}

/// Joiners between letters and emoji (U+200C, U+200D) and variation selectors belong to writing.
fn is_harmless(c: char) -> bool {
    let steers = matches!(c,
        // Order of writing.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
        // Other ends of a line, and what has no width.
        | '\u{2028}' | '\u{2029}' | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{feff}' | '\u{ad}'
        | '\u{180e}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e001f}');
    !c.is_control() && !steers
}

/// A DID in a few characters, for people: the ends of a long one.
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
        assert_eq!(block("a\r\nfrom bob\n\tc"), "  a\n  from bob\n      c\n");
        assert_eq!(block("x\ry"), "  x\\u{d}y\n");
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
            prop_assert!(line(&text).chars().all(is_harmless));
            for part in block(&text).lines() {
                prop_assert!(part.starts_with("  ") && part.chars().all(is_harmless));
            }
        }
    }
}
