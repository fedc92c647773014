//! Names of the errors about an account in the responses of the directory's methods.

use std::fmt;

/// An error about the requested account, as named by the lexicons of `at.didcomm.directory`. The
/// directory writes these names and its clients read them. Errors about the request itself
/// (`InvalidRequest`, `RateLimitExceeded`, `Overloaded`) are not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LexiconError {
    /// The handle resolves to no DID.
    HandleNotFound,
    /// The DID is unknown or tombstoned.
    DidNotFound,
    /// The account is proven to have no key package.
    NotEnrolled,
    /// The account's PDS states, without proof, that the account has no key package.
    NotEnrolledUnproven,
    /// The account is deactivated, suspended, taken down or deleted.
    AccountInactive,
    /// The key package is proven to exist, and breaks a rule.
    InvalidKeyPackage,
    /// A server that had to be asked, the account's PDS or the directory of its DID, gave no usable
    /// response.
    UpstreamFailure,
}

impl LexiconError {
    /// Every error, in the order of the lexicon.
    pub const ALL: [Self; 7] = [
        Self::HandleNotFound,
        Self::DidNotFound,
        Self::NotEnrolled,
        Self::NotEnrolledUnproven,
        Self::AccountInactive,
        Self::InvalidKeyPackage,
        Self::UpstreamFailure,
    ];

    /// Returns the name in the field `error` of a response.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HandleNotFound => "HandleNotFound",
            Self::DidNotFound => "DidNotFound",
            Self::NotEnrolled => "NotEnrolled",
            Self::NotEnrolledUnproven => "NotEnrolledUnproven",
            Self::AccountInactive => "AccountInactive",
            Self::InvalidKeyPackage => "InvalidKeyPackage",
            Self::UpstreamFailure => "UpstreamFailure",
        }
    }

    /// Reads a name; `None` for a name that is not about an account.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.as_str() == name)
    }
}

impl fmt::Display for LexiconError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Names of errors about the request, which the lexicons list too.
    const ABOUT_REQUESTS: [&str; 2] = ["RateLimitExceeded", "Overloaded"];

    /// Names of errors of `subscribeUpdates` about the place that a reader asks for, and about the
    /// reader.
    const ABOUT_READERS: [&str; 6] = [
        "ConsumerTooSlow",
        "CursorTooOld",
        "FutureCursor",
        "ServiceUnavailable",
        "StreamMismatch",
        "UpgradeRequired",
    ];

    /// Returns every name under `errors` of the methods in `lexicons/at/didcomm/directory`.
    fn named_by_lexicons() -> BTreeSet<String> {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lexicons/at/didcomm/directory");
        let mut names = BTreeSet::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let lexicon: serde_json::Value = serde_json::from_str(&text).unwrap();
            let errors = lexicon["defs"]["main"]["errors"].as_array();
            for error in errors.into_iter().flatten() {
                names.insert(error["name"].as_str().unwrap().to_owned());
            }
        }
        names
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for error in LexiconError::ALL {
            assert_eq!(LexiconError::parse(error.as_str()), Some(error));
            assert_eq!(error.to_string(), format!("{error:?}"));
        }
        for other in ["", "notEnrolled", "NotEnrolled ", "InvalidRequest"] {
            assert_eq!(LexiconError::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_lexicons_name_these_and_no_others() {
        let ours = LexiconError::ALL.map(LexiconError::as_str);
        let others = ABOUT_REQUESTS.into_iter().chain(ABOUT_READERS);
        let all = ours.into_iter().chain(others).map(str::to_owned);
        assert_eq!(named_by_lexicons(), all.collect());
    }
}
