use super::*;
use crate::store::AccountStatus as S;
use testkit::proto::repo::{TestRepo, package, peer};

/// What a PDS says about the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Proof,
    NoRecord,
    NoAccount,
    Suspended,
    Html,
    BadSignature,
}

fn found(about: About) -> Found {
    match about {
        About::Proof => {
            let mut repo = TestRepo::new("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", 1);
            Found::proven(repo.put(&package(&peer(2), &[])))
        }
        About::NoRecord => Found::absent_unproven(),
        About::NoAccount => Found::missing(),
        About::Suspended => Found::inactive(S::Suspended),
        About::Html => Found::unverifiable(PDS_ANSWER, "HTTP 404".to_owned()),
        About::BadSignature => Found::unverifiable("proof_signature", String::new()),
    }
}

/// The finding in a word.
fn word(found: &Found) -> String {
    match &found.finding {
        Finding::Present(_) => "proof".to_owned(),
        Finding::AbsentUnproven => "no record".to_owned(),
        Finding::Missing => "missing".to_owned(),
        Finding::Deleted => "deleted".to_owned(),
        Finding::Unverifiable { .. } => "unverifiable".to_owned(),
        Finding::Inactive(status) => status.to_string(),
        Finding::Absent(_) | Finding::Unreachable { .. } => panic!("not in the table"),
    }
}

/// Settles an answer about the record, with the answer about the status if it is asked for.
fn settled(
    about: About,
    announced: Option<&S>,
    hidden: bool,
    status: &StatusAnswer,
) -> (bool, String) {
    let found = found(about);
    match (question(&found.finding, announced, hidden), announced) {
        (StatusQuestion::Announced, Some(announced)) => {
            (false, word(&as_announced(found, announced)))
        }
        (StatusQuestion::Announced, None) => panic!("nothing was announced"),
        (StatusQuestion::None, _) => (false, word(&found)),
        (StatusQuestion::Ask, announced) => {
            (true, word(&answered(found, status.clone(), announced)))
        }
    }
}

#[test]
fn what_the_pds_says_of_the_status_is_believed_in_doubt() {
    use About::{BadSignature, Html, NoAccount, NoRecord, Proof, Suspended};
    let asleep = || StatusAnswer::Inactive(Some("asleep".to_owned()));
    let (active, gone) = (StatusAnswer::Active, StatusAnswer::NotFound);
    let none = StatusAnswer::Unusable;
    let takendown = Some(&S::Takendown);
    for (about, announced, hidden, status, wanted) in [
        // Nothing is in doubt, and nothing is asked.
        (Proof, None, false, &none, (false, "proof")),
        (NoRecord, None, false, &none, (false, "no record")),
        (Suspended, None, false, &none, (false, "suspended")),
        (Suspended, takendown, true, &none, (false, "suspended")),
        (BadSignature, None, false, &none, (false, "unverifiable")),
        // It is served although it was announced as inactive, or was so before.
        (Proof, takendown, false, &active, (true, "proof")),
        (Proof, takendown, false, &asleep(), (true, "asleep")),
        (Proof, takendown, false, &none, (true, "takendown")),
        (Proof, takendown, false, &gone, (true, "takendown")),
        (Proof, None, true, &active, (true, "proof")),
        (Proof, None, true, &asleep(), (true, "asleep")),
        (Proof, None, true, &none, (true, "proof")),
        (NoRecord, None, true, &asleep(), (true, "asleep")),
        // Without a proof the announcement counts.
        (Html, takendown, false, &none, (false, "takendown")),
        (NoRecord, takendown, false, &none, (false, "takendown")),
        (NoAccount, takendown, false, &none, (false, "takendown")),
        (
            NoAccount,
            Some(&S::Deleted),
            false,
            &none,
            (false, "deleted"),
        ),
        (BadSignature, takendown, false, &none, (false, "takendown")),
        // An answer of another spelling.
        (Html, None, false, &active, (true, "unverifiable")),
        (Html, None, false, &asleep(), (true, "asleep")),
        (
            Html,
            None,
            false,
            &StatusAnswer::Inactive(None),
            (true, "inactive"),
        ),
        (Html, None, false, &gone, (true, "missing")),
        (Html, None, false, &none, (true, "unverifiable")),
        (NoAccount, None, false, &active, (true, "unverifiable")),
        (NoAccount, None, false, &asleep(), (true, "asleep")),
        (NoAccount, None, false, &gone, (true, "missing")),
        (NoAccount, None, false, &none, (true, "missing")),
    ] {
        let (asked, found) = settled(about, announced, hidden, status);
        assert_eq!(
            (asked, found.as_str()),
            wanted,
            "{about:?} {announced:?} {hidden} {status:?}"
        );
    }
}
