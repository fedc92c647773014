//! Plans of an enrolment, and how users name mediators.

use unicode_segmentation::UnicodeSegmentation as _;
use url::Url;

use super::EnrolError;
use atcomm_proto::keypackage::{MAX_LABEL_GRAPHEMES, MAX_LABEL_LEN, MAX_MEDIATORS};
use atcomm_proto::syntax::{MediatorDid, Origin};
use atcomm_proto::typed;

/// The wanted enrolment. An absent field keeps its present value, or gets a default.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The mediators that are to accept the mail, in the order in which senders try them. Empty:
    /// the present ones.
    pub mediators: Vec<MediatorDid>,
    /// Name of this device; empty for none. Absent: the present one.
    pub label: Option<String>,
    /// The directory that the user names. Absent: the present one, else the one that a mediator
    /// names.
    pub directory: Option<Origin>,
    /// Whether a key of another wallet is replaced.
    pub replace: bool,
}

impl Plan {
    /// Checks the bounds of the record.
    pub(super) fn check(&self) -> Result<(), EnrolError> {
        if self.mediators.len() > MAX_MEDIATORS {
            return Err(EnrolError::TooManyMediators(self.mediators.len()));
        }
        let is_long = |label: &str| {
            label.len() > MAX_LABEL_LEN || label.graphemes(true).count() > MAX_LABEL_GRAPHEMES
        };
        match &self.label {
            Some(label) if is_long(label) || label.chars().any(char::is_control) => {
                Err(EnrolError::Label)
            }
            _ => Ok(()),
        }
    }
}

/// Parses the name of a mediator: `did:web:...`, a host, or an origin. With `development`, an
/// origin may be `http://localhost`.
pub fn mediator_did(text: &str, development: bool) -> Option<MediatorDid> {
    let trimmed = typed::trimmed(text);
    let text = trimmed.as_str();
    if text.starts_with("did:") {
        let did = MediatorDid::parse(text).ok()?;
        return did.web().is_some().then_some(did);
    }
    let origin = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url = Url::parse(&origin).ok()?;
    let is_plain = development && url.scheme() == "http" && url.host_str() == Some("localhost");
    if !is_plain && url.scheme() != "https" {
        return None;
    }
    let origin = Origin::parse(origin.trim_end_matches('/')).ok()?;
    let did = format!("did:web:{}", origin.host().replace(':', "%3A"));
    let did = MediatorDid::parse(&did).ok()?;
    did.web().is_some().then_some(did)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mediators_are_named_as_people_do() {
        for (text, did) in [
            ("did:web:mail.example.com", "did:web:mail.example.com"),
            ("mail.example.com", "did:web:mail.example.com"),
            (" Mail.Example.com ", "did:web:mail.example.com"),
            (
                "\u{2068}mail.example.com\u{2069}",
                "did:web:mail.example.com",
            ),
            ("<https://mail.example.com>", "did:web:mail.example.com"),
            ("https://mail.example.com/", "did:web:mail.example.com"),
            ("mail.example.com:8443", "did:web:mail.example.com%3A8443"),
        ] {
            let read = mediator_did(text, false).map(|did| did.to_string());
            assert_eq!(read.as_deref(), Some(did), "{text}");
        }
        for text in [
            "",
            "did:key:z6Mk",
            "did:web:",
            "http://mail.example.com",
            "http://localhost:2590",
            "https://mail.example.com/path",
            "user@mail.example.com",
            "alice at example",
            "10.0.0.1",
        ] {
            assert_eq!(mediator_did(text, false), None, "{text}");
        }
        let local = mediator_did("http://localhost:2590", true).map(|did| did.to_string());
        assert_eq!(local.as_deref(), Some("did:web:localhost%3A2590"));
    }

    #[test]
    fn plans_are_checked() {
        let label = |label: &str| Plan {
            label: Some(label.to_owned()),
            ..Plan::default()
        };
        assert!(label("").check().is_ok() && label(&"é".repeat(64)).check().is_ok());
        for bad in ["x".repeat(65), "a\nb".to_owned(), "👩‍👩‍👧‍👦".repeat(30)] {
            assert!(
                matches!(label(&bad).check(), Err(EnrolError::Label)),
                "{bad}"
            );
        }
        let did = MediatorDid::parse("did:web:mail.example.com").unwrap();
        let many = Plan {
            mediators: vec![did; MAX_MEDIATORS + 1],
            ..Plan::default()
        };
        assert!(matches!(
            many.check(),
            Err(EnrolError::TooManyMediators(33))
        ));
    }
}
