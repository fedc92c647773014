//! What all pages share.

use data_encoding::HEXLOWER;
use maud::{DOCTYPE, Markup, html};
use sha2::{Digest as _, Sha256};

use atcomm_net::identity::MediatorState;
use atcomm_proto::clock::Timestamp;

pub(super) const STYLE: &str = include_str!("style.css");

/// Returns a whole page.
pub(super) fn page(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="stylesheet" href=(style_address());
            }
            body {
                a .skip href="#content" { "Skip to the content" }
                header {
                    a .home href="/" { "atcomm" }
                    span { "encrypted messages between atproto accounts" }
                }
                main #content tabindex="-1" { (content) }
                footer {
                    p {
                        "You need not say who you are here, and no log says who looked up whom. "
                        "atcomm " (env!("CARGO_PKG_VERSION")) "."
                    }
                }
            }
        }
    }
}

/// Returns the address of the style sheet: another one for each version of it, as browsers keep it.
fn style_address() -> String {
    let hash = Sha256::digest(STYLE);
    let version: String = HEXLOWER.encode(&hash).chars().take(12).collect();
    format!("/style.css?v={version}")
}

/// Returns the form that looks an account up.
pub(super) fn look_up_form(typed: &str) -> Markup {
    html! {
        form .lookup action="/account" method="get" role="search" {
            label for="actor" { "Name of an account" }
            div {
                input #actor name="actor" type="text" value=(typed) required
                    placeholder="alice.example.com" autocomplete="off" autocapitalize="none"
                    spellcheck="false" maxlength="512" aria-describedby="actor-hint";
                button type="submit" { "Look up" }
            }
            p #actor-hint .hint { "A handle such as alice.example.com, or a DID." }
        }
    }
}

/// Returns a time as people read it, and as programs do.
pub(super) fn time(text: &str) -> Markup {
    let shown = Timestamp::parse_rfc3339(text).map(|at| at.to_string());
    let shown = shown.as_deref().and_then(|text| {
        let (day, rest) = text.split_once('T')?;
        Some(format!("{day} {} UTC", rest.get(..5)?))
    });
    html! { time datetime=(text) { (shown.as_deref().unwrap_or(text)) } }
}

/// Returns a number with thin spaces between its thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len());
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push('\u{2009}');
        }
        grouped.push(digit);
    }
    grouped
}

/// Returns how the page calls a state of a mediator, and the class of the words.
pub(super) fn mediator_state(state: MediatorState) -> (&'static str, &'static str) {
    match state {
        MediatorState::Reachable => ("good", "can be reached"),
        MediatorState::Unreachable => ("warn", "cannot be reached"),
        MediatorState::Unresolved => ("warn", "has no document that can be read"),
        MediatorState::Unsupported => ("warn", "is of a kind that is not supported here"),
        MediatorState::Unchecked => ("", "was not looked at"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1\u{2009}000"),
            (1_234_567, "1\u{2009}234\u{2009}567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
