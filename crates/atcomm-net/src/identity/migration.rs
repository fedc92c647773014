//! The signing key that an account had before its migration to the present PDS.
//!
//! After a migration the repository keeps its last commit, signed by the key of the previous PDS,
//! until the account writes again. The PLC operation of the migration, which replaced the key, shows
//! the previous key and the end of its validity.

use super::document::DidDocument;
use super::lookups::Freshness;
use super::plc_log::PlcLogError;
use super::resolver::Identity;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::SigningKey;
use atcomm_proto::plc::VerifiedLog;

/// The signing key at the PDS that an account left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreMigrationKey {
    /// The key.
    pub key: SigningKey,
    /// When the PLC directory accepted the operation of the migration.
    pub until: Timestamp,
}

impl Identity {
    /// Returns the key that signed the account's repository at the previous PDS, if the operation
    /// that replaced the key was the migration. `None` also where the account has no valid log.
    ///
    /// Looks up the log by [`Identity::plc_log`], and refreshes a cached log that does not end with
    /// the document's state. A missing answer is an error and not `None`: a good proof must not be
    /// rejected because of a limit.
    ///
    /// # Errors
    ///
    /// Only [`PlcLogError::Unreachable`].
    pub async fn pre_migration_key(
        &self,
        document: &DidDocument,
    ) -> Result<Option<PreMigrationKey>, PlcLogError> {
        let did = &document.did;
        if did.web().is_some() {
            return Ok(None);
        }
        let begun = self.now();
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

/// Returns the key before the migration to the PDS that the document names.
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

    /// Reads a log that ends with the first key's migration from A to B, beside a document.
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
            asked_at: at(3),
        };
        of_log(&plc::verify(&log.did(), &log.to_vec()).unwrap(), &document)
    }

    #[test]
    fn the_log_must_end_with_the_documents_state() {
        let found = read(3, B).unwrap();
        assert_eq!(found.key, k256(2).public());
        assert_eq!(found.until, at(2));
        assert_eq!(read(3, A), None);
        assert_eq!(read(2, B), None);
        assert_eq!(read(2, A), None);
    }
}
