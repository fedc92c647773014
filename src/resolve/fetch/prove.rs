//! The verification of a PDS's answer.

use std::sync::Arc;

use super::super::{Inner, NoAnswer, Refresh, RefreshError};
use super::BAD_SIGNATURE_TTL;
use super::answer::Found;
use atcomm_net::identity::{DidDocument, PlcLogError, PreMigrationKey};
use atcomm_proto::key::SigningKey;
use atcomm_proto::proof::{Container, MAX_FUTURE, ProofError, Proven, verify};
use atcomm_proto::syntax::Origin;

/// The last migration of an account in its operation log, for the key and PDS of its document.
pub(in crate::resolve) struct CachedMigration {
    key: SigningKey,
    pds: Origin,
    before: Option<PreMigrationKey>,
}

impl Inner {
    /// Verifies the answer of a PDS under the account's key, and after a migration under the key
    /// before it.
    pub(super) async fn prove(
        &self,
        car: &[u8],
        key: &SigningKey,
        document: &DidDocument,
        refresh: &Refresh,
    ) -> Result<Found, RefreshError> {
        let now = self.clock.now();
        let verdict = verify(car, Container::GetRecord, &document.did, key, now);
        if verdict == Err(ProofError::Signature)
            && let Some(proven) = self
                .prove_with_pre_migration_key(car, document, refresh)
                .await?
        {
            return Ok(Found::proven(proven));
        }
        Ok(match verdict {
            Ok(proven) => Found::proven(proven),
            Err(error) => Found::unverifiable(error.code(), error.to_string()),
        })
    }

    /// Returns the proof under the key of the PDS that the account left. It holds while the account
    /// has not written since: the commit must not be younger than the migration.
    pub(super) async fn prove_with_pre_migration_key(
        &self,
        car: &[u8],
        document: &DidDocument,
        refresh: &Refresh,
    ) -> Result<Option<Proven>, RefreshError> {
        let Some(before) = self.pre_migration_key(document, refresh).await? else {
            return Ok(None);
        };
        let now = self.clock.now();
        let proven = verify(car, Container::GetRecord, &document.did, &before.key, now);
        let latest = before.until.plus(MAX_FUTURE).millis();
        Ok(proven.ok().filter(|proven| {
            let rev = i64::try_from(proven.commitment().rev().micros() / 1000);
            rev.is_ok_and(|rev| rev <= latest)
        }))
    }

    /// Returns the key before the account's migration. The result is cached for
    /// [`BAD_SIGNATURE_TTL`], so that an account whose proofs are always bad does not cause a
    /// look-up of its log, which may be large, in every refresh.
    pub(super) async fn pre_migration_key(
        &self,
        document: &DidDocument,
        refresh: &Refresh,
    ) -> Result<Option<PreMigrationKey>, RefreshError> {
        let (key, pds) = (&document.signing_key, &document.pds);
        let (Ok(key), Ok(pds)) = (key.as_ref(), pds.as_ref()) else {
            return Ok(None);
        };
        if let Some(cached) = self.migrations.get(&document.did)
            && cached.key == *key
            && cached.pds == *pds
        {
            return Ok(cached.before.clone());
        }
        let identity = self.identity_for(refresh);
        let before = match identity.pre_migration_key(document).await {
            Ok(before) => before,
            Err(PlcLogError::Unreachable {
                retry_after: Some(retry_after),
            }) => return Err(RefreshError::Busy { retry_after }),
            Err(error) => {
                return Err(RefreshError::Unreachable {
                    what: "the DID's directory",
                    why: NoAnswer::PlcLog(error),
                    retry_after: None,
                });
            }
        };
        let cached = CachedMigration {
            key: key.clone(),
            pds: pds.clone(),
            before: before.clone(),
        };
        self.migrations
            .insert(document.did.clone(), Arc::new(cached), BAD_SIGNATURE_TTL);
        Ok(before)
    }
}
