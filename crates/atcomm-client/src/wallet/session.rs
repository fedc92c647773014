//! The session of an account at its PDS.

use std::fmt;

use zeroize::Zeroizing;

use atcomm_proto::syntax::Origin;

/// The tokens that a PDS gives for a password. They suffice to write to the account's repository.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// The PDS that issued the tokens, and the only one that they are sent to.
    pub pds: Origin,
    /// JWT of requests; valid for an hour or two.
    pub access: Zeroizing<String>,
    /// JWT that is exchanged for a new pair; valid for about two months.
    pub refresh: Zeroizing<String>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("pds", &self.pds)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_shown() {
        let session = Session {
            pds: Origin::parse("https://pds.example.com").unwrap(),
            access: Zeroizing::new("eyJaccess".to_owned()),
            refresh: Zeroizing::new("eyJrefresh".to_owned()),
        };
        let shown = format!("{session:?}");
        assert!(
            shown.contains("pds.example.com") && !shown.contains("eyJ"),
            "{shown}"
        );
    }
}
