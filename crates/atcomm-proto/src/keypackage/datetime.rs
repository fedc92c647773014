//! The lexicon string format `datetime`.
//!
//! The library's `Datetime` refuses half of the negative time zones (`-10:00`), accepts leap
//! seconds and texts of any length, and does not check for year zero. So the form is checked here,
//! and the calendar by chrono.
//!
//! Source: atproto lexicon specification, "datetime".

use chrono::{DateTime, Datelike as _};

/// Longest text, in bytes (lexicon specification).
const MAX_LEN: usize = 64;

/// Checks `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`; the error says which rule is broken.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX_LEN {
        return Err("it is longer than 64 bytes");
    }
    if !has_form(text.as_bytes()) {
        return Err("it is not written as YYYY-MM-DDThh:mm:ssZ");
    }
    if text.ends_with("-00:00") {
        return Err("it uses the time zone -00:00");
    }
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| "no such day or time")?;
    if !(0..=9999).contains(&time.to_utc().year()) {
        return Err("its year in UTC is not from 0 to 9999");
    }
    Ok(())
}

/// Returns whether every character is at its position, with hours, minutes and seconds in range.
fn has_form(text: &[u8]) -> bool {
    let digits = |s: &[u8]| s.iter().all(u8::is_ascii_digit);
    let Some((&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T'], rest)) =
        text.split_first_chunk()
    else {
        return false;
    };
    let Some((&[h1, h2, b':', n1, n2, b':', s1, s2], rest)) = rest.split_first_chunk() else {
        return false;
    };
    let clock = |h1: u8, h2: u8, n1: u8, n2: u8| {
        digits(&[h1, h2, n1, n2]) && [h1, h2] < [b'2', b'4'] && n1 < b'6'
    };
    let rest = match rest.split_first() {
        Some((b'.', fraction)) => {
            let len = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            match fraction.split_at_checked(len) {
                Some((fraction, rest)) if !fraction.is_empty() => rest,
                _ => return false,
            }
        }
        _ => rest,
    };
    let zone = match rest {
        [b'Z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => clock(*h1, *h2, *m1, *m2),
        _ => false,
    };
    // The reference implementations do not accept leap seconds.
    zone && digits(&[y1, y2, y3, y4, m1, m2, d1, d2, s1, s2]) && clock(h1, h2, n1, n2) && s1 < b'6'
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use atrium_api::types::string::Datetime;
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        let text = include_str!("../../../../fixtures/interop/syntax/datetime.json");
        serde_json::from_str(text).unwrap()
    }

    fn texts<'a>(vectors: &'a Value, name: &str) -> Vec<&'a str> {
        let list = vectors[name].as_array().unwrap();
        list.iter().map(|text| text.as_str().unwrap()).collect()
    }

    #[test]
    fn vectors_are_judged_as_the_reference_judges_them() {
        let vectors = vectors();
        for text in texts(&vectors, "valid") {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in texts(&vectors, "invalid") {
            assert!(check(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn days_that_no_calendar_has_are_refused() {
        for text in ["2026-06-31T00:00:00Z", "2025-02-29T00:00:00Z"] {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_the_library_gets_wrong_is_right_here() {
        let library = |text| Datetime::from_str(text).is_ok();
        for zone in ["-10:00", "-10:30", "-03:30", "+14:00"] {
            assert_eq!(
                check(&format!("1985-04-12T23:20:50{zone}")),
                Ok(()),
                "{zone}"
            );
        }
        assert!(!library("1985-04-12T23:20:50-10:00"));
        let long = format!("1985-04-12T23:20:50.{}Z", "1".repeat(64));
        for text in ["1985-04-12T23:20:60Z", "0000-01-01T00:00:00+01:00", &long] {
            assert!(check(text).is_err(), "{text}");
            assert!(library(text), "{text}");
        }
    }
}
