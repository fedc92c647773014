//! Conditional requests (RFC 9110, section 13.1.2).

use axum::http::HeaderMap;
use axum::http::header::IF_NONE_MATCH;

/// Returns whether `If-None-Match` is `*` or lists `etag`, by the weak comparison.
pub(super) fn not_modified(headers: &HeaderMap, etag: &str) -> bool {
    let etag = opaque(etag);
    headers.get_all(IF_NONE_MATCH).iter().any(|list| {
        list.to_str().is_ok_and(|list| {
            list.split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || opaque(tag) == etag)
        })
    })
}

/// Returns the tag without its weakness indicator.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn lists_weak_tags_and_stars_match() {
        let known = |lists: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(IF_NONE_MATCH, HeaderValue::from_static(list));
            }
            not_modified(&headers, "\"abc\"")
        };
        for lists in [
            &["\"abc\""][..],
            &["*"],
            &["W/\"abc\""],
            &["\"x\" , W/\"abc\",\"y\""],
            &["\"x\"", "\"abc\""],
        ] {
            assert!(known(lists), "{lists:?}");
        }
        for lists in [&[][..], &["\"x\""], &["abc"], &["\"abc"], &["w/\"abc\""]] {
            assert!(!known(lists), "{lists:?}");
        }
    }
}
