//! Answers with all that a client needs to verify them itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Resolver;
use super::refresh::ResolveError;
use crate::directory::{History, LogFit, Page, RecipientView, Refusal, Refused, STALE};
use crate::store::{Entry, StoreError};
use atcomm_net::identity::{Freshness, PlcLog};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Actor, Did, LexiconError, Rev};

/// The newest proof about an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountProof {
    /// The proof, of presence or absence, as a CAR.
    pub car: Bytes,
    /// Revision of the commit that it proves.
    pub rev: Option<Rev>,
}

/// Longest time that an answer waits for an operation log, which it can do without.
const PLC_LOG_TIMEOUT: Duration = Duration::from_secs(4);

impl Resolver {
    /// Returns the recipient view of an account with its proof, and with its PLC operation log
    /// where the log is available and leads to the proof's key; else like [`Self::recipient`].
    pub async fn recipient_with_proof(
        &self,
        actor: &Actor,
        client: IpAddr,
    ) -> Result<Arc<RecipientView>, ResolveError> {
        let did = self.recipient(actor, client).await?.did.clone();
        let log = self.plc_log(&did, client).await?;
        let found = self.inner.directory.recipient_with_proof(&did, log).await?;
        found.found()?.ok_or_else(|| super::not_enrolled().into())
    }

    /// Returns the newest proof about an account, of presence or absence, as a CAR: one that verifies
    /// under the account's present key, and that is not stale. Looks at the account where the
    /// directory has none.
    pub async fn proof(&self, did: &Did, client: IpAddr) -> Result<AccountProof, ResolveError> {
        let by_did = Actor::Did(did.clone());
        if self.inner.directory.in_doubt(&by_did).await?.is_some() {
            self.look_first(did, client).await;
        }
        let now = self.inner.clock.now();
        let (known, proof) = self.proof_here(did).await?;
        if let Some(entry) = known {
            if let Some(car) = proof.filter(|_| is_servable(&entry, now)) {
                return Ok(AccountProof {
                    car,
                    rev: entry.rev,
                });
            }
            if !entry.status.is_active()
                && let Some(refused) = Refused::of(&entry)
                && !refused.is_overdue(now)
            {
                return Err(refused.refusal.into());
            }
        }
        let refreshed = self.ask(did, None, client).await?;
        // What was found may be older than what the directory has.
        let (car, rev) = match self.proof_here(did).await? {
            (Some(entry), proof) => (
                proof.filter(|_| is_servable(&entry, self.inner.clock.now())),
                entry.rev,
            ),
            (None, _) => (refreshed.car, refreshed.rev),
        };
        let proof = car.map(|car| AccountProof { car, rev });
        proof.ok_or_else(|| {
            let unproven = || {
                Refusal::new(
                    LexiconError::NotEnrolledUnproven,
                    "the account's PDS gives no proof",
                )
            };
            refreshed.refusal.unwrap_or_else(unproven).into()
        })
    }

    /// Returns the entry and the proof that the directory has of an account.
    async fn proof_here(&self, did: &Did) -> Result<(Option<Entry>, Option<Bytes>), StoreError> {
        let did = did.clone();
        let store = self.inner.directory.store();
        store
            .query(move |q| Ok((q.entry(&did)?, q.proof(&did)?.map(Bytes::from))))
            .await
    }

    /// Returns a page of an account's changes. Looks up nothing but the account's operation
    /// log, and the log only for proofs.
    pub async fn history(
        &self,
        did: &Did,
        page: Page,
        client: IpAddr,
    ) -> Result<History, ResolveError> {
        let log = if page.with_proof && self.inner.directory.is_tracked(did.as_str()) {
            self.plc_log(did, client).await?
        } else {
            None
        };
        let page = Page { log, ..page };
        let history = self.inner.directory.history(did, page).await?;
        history.map_err(ResolveError::Refused)
    }

    /// Returns the account's operation log. A log that does not fit the account's entry, and that
    /// was asked for before the entry was last checked, is asked for again.
    async fn plc_log(&self, did: &Did, client: IpAddr) -> Result<Option<Arc<PlcLog>>, StoreError> {
        if did.web().is_some() {
            return Ok(None);
        }
        let known = self.inner.identity.cached_plc_log(did);
        let log = match known {
            Some(known) => known.ok(),
            None => self.look_up_log(did, Freshness::Cached, client).await,
        };
        let Some(log) = log else {
            return Ok(None);
        };
        Ok(match self.inner.directory.fit(&log).await? {
            LogFit::Fits => Some(log),
            LogFit::Outdated => self.look_up_log(did, Freshness::Refresh, client).await,
            LogFit::Differs => None,
        })
    }

    /// Looks up the log out of the client's allowance and that of all clients. Returns none over
    /// either: a client can ask the PLC directory itself.
    async fn look_up_log(
        &self,
        did: &Did,
        freshness: Freshness,
        client: IpAddr,
    ) -> Option<Arc<PlcLog>> {
        self.charge(client).ok()?;
        let identity = self.inner.identity.interactive();
        let log = identity.plc_log(did, freshness);
        tokio::time::timeout(PLC_LOG_TIMEOUT, log).await.ok()?.ok()
    }
}

/// Returns whether the proof of an entry holds for the account as it is now.
fn is_servable(entry: &Entry, now: Timestamp) -> bool {
    let is_current = entry.proof_pds == entry.pds && entry.identity_key == entry.signing_key;
    let is_fresh = entry
        .proved_at
        .is_some_and(|proved| now.since(proved) <= STALE);
    entry.status.is_active() && is_current && is_fresh
}

#[cfg(test)]
mod tests;
