//! The key that an account had before it moved to its present PDS.
//!
//! A repository that is moved keeps its last commit, signed by the key of the PDS it left, until
//! the account writes again: nobody can sign that commit anew. The PLC operation that moved the
//! account, and that replaced the key, says which key that was and until when it counted.

use super::{DidDocument, Freshness, Identity, PlcLogError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::SigningKey;
use atcomm_proto::plc::VerifiedLog;

/// The key of the PDS that an account left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreMigrationKey {
    /// The key.
    pub key: SigningKey,
    /// When the operation that moved the account was accepted.
    pub until: Timestamp,
}

impl Identity {
    /// The key that signed the account's repository at the PDS it moved away from, where the
    /// operation that replaced the key was that move. `None` also where the account has no log
    /// that holds.
    ///
    /// The log is looked up as by [`Identity::plc_log`], anew where what is known of it does not
    /// end where the document is. Without an answer nothing is said: a good proof must not count
    /// as a bad one because of a limit.
    ///
    /// # Errors
    ///
    /// [`PlcLogError::Unreachable`] alone.
    pub async fn pre_migration_key(
        &self,
        document: &DidDocument,
    ) -> Result<Option<PreMigrationKey>, PlcLogError> {
        let did = &document.did;
        if did.web().is_some() {
            return Ok(None);
        }
        let begun = self.inner.clock.now();
        let mut log = self.plc_log(did, Freshness::Cached).await;
        if let Ok(known) = &log
            && known.asked_at() < begun
            && !ends_at(known.verified(), document)
        {
            log = self.plc_log(did, Freshness::Refresh).await;
        }
        match log {
            Ok(log) => Ok(of_log(log.verified(), document)),
            Err(PlcLogError::NotFound | PlcLogError::Invalid(_)) => Ok(None),
            Err(error @ PlcLogError::Unreachable { .. }) => Err(error),
        }
    }
}

/// Whether the log ends with the key and the PDS that the document names.
fn ends_at(log: &VerifiedLog, document: &DidDocument) -> bool {
    log.current().is_some_and(|now| {
        now.signing_key.as_ref() == document.signing_key.as_ref().ok()
            && now.pds.as_ref() == document.pds.as_ref().ok()
    })
}

/// The key before the move that led to where the document says that the account is.
fn of_log(log: &VerifiedLog, document: &DidDocument) -> Option<PreMigrationKey> {
    if !ends_at(log, document) {
        return None;
    }
    let (key, until) = log.pre_migration_key()?;
    Some(PreMigrationKey {
        key: key.clone(),
        until,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use atcomm_proto::plc;
    use atcomm_proto::syntax::Origin;
    use testkit::proto::plc::{TestLog, at, k256, operation, p256};

    const A: &str = "https://a.example.com";
    const B: &str = "https://b.example.com";

    /// What a log that ends at the first key's move from A to B says beside a document.
    fn read(key: u8, pds: &str) -> Option<PreMigrationKey> {
        let owner = p256(1);
        let first = owner.sign(&operation(&[&owner], &k256(2), A, None));
        let moved = owner.sign(&operation(&[&owner], &k256(3), B, Some(&first)));
        let mut log = TestLog::default();
        log.push(1, &first).push(2, &moved);
        let document = DidDocument {
            did: log.did(),
            claimed_handle: None,
            pds: Ok(Origin::parse(pds).unwrap()),
            signing_key: Ok(k256(key).public()),
        };
        of_log(&plc::verify(&log.did(), &log.to_vec()).unwrap(), &document)
    }

    #[test]
    fn the_log_must_end_where_the_document_is() {
        let found = read(3, B).unwrap();
        assert_eq!(found.key, k256(2).public());
        assert_eq!(found.until, at(2));
        assert_eq!(read(3, A), None);
        assert_eq!(read(2, B), None);
        assert_eq!(read(2, A), None);
    }
}
