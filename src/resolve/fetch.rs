//! The refresh itself: identity, `com.atproto.sync.getRecord`, proof, directory.

mod answer;
mod prove;
mod status;

use std::sync::Arc;
use std::time::Duration;

use super::{IdentityLookup, Inner, NoAnswer, Refresh, RefreshError, RefreshOutcome};
use crate::directory::{
    Authority, Begun, IdentityFacts, Observation, Outcome, PendingUpdate, Refusal,
};
use crate::store::AccountStatus;
use answer::{Found, identity_failure, unusable};
use atcomm_net::identity::{
    DidDocument, Freshness, Identity, IdentityError, PdsOptions, RecordAnswer, RepoStatus,
    fetch_record,
};
use atcomm_net::net::{CallError, NetError, Priority};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::proof::Commitment;
use atcomm_proto::syntax::{COLLECTION, Did, LexiconError, Origin};

pub(super) use prove::CachedMigration;

/// Longest time that a refresh waits for mediator documents. The answer is whole with them, and
/// still proven without them.
const MEDIATORS_TIMEOUT: Duration = Duration::from_secs(4);

/// Time within which a bad signature leads to at most one look-up of the identity and one of the
/// operation log.
const BAD_SIGNATURE_TTL: Duration = Duration::from_secs(60);

/// A refresh under way.
#[derive(Clone, Copy)]
struct Look<'r> {
    refresh: &'r Refresh,
    /// When it began: a document that was asked for since is not asked for once more.
    began_at: Timestamp,
    /// Whether the account's status hid it then.
    hidden: bool,
}

impl Inner {
    /// Refreshes an account: identity, PDS, proof, directory. On an error nothing was found out,
    /// but a change to the entry that follows from the error is written.
    pub(super) async fn refresh_now(
        &self,
        did: &Did,
        refresh: &Refresh,
        update: PendingUpdate,
    ) -> Result<RefreshOutcome, RefreshError> {
        let begun = self.directory.begin(did).await?;
        let refresh = &refresh.clone().in_doubt(begun.doubt_since.is_some());
        if let Some(pds) = refresh.prefilter()
            && self.seems_without_package(did, pds).await?
        {
            self.directory.update_pending(did, update).await?;
            return Ok(RefreshOutcome::prefiltered());
        }
        let (identity, found) = self.look(did, refresh, begun).await?;
        let (found, error) = match found {
            Ok(found) => (found, None),
            Err(error) => {
                let announced = self.announced(did, identity.as_deref(), refresh).await?;
                match Found::without_answer(announced, &error) {
                    Some(found) => (found, Some(error)),
                    None => return Err(error),
                }
            }
        };
        let rev = found.finding.commitment().map(Commitment::rev);
        let observation = Observation {
            did: did.clone(),
            identity: identity.as_deref().map(identity_facts),
            finding: found.finding,
            authority: Authority::Pds,
            trigger: refresh.trigger.clone(),
            begun,
            at: self.clock.now(),
        };
        if let Some(error) = error {
            // The refresh stays pending as it is; the worker defers it.
            let unchanged = PendingUpdate::Unchanged;
            self.directory.apply(observation, unchanged).await?;
            return Err(error);
        }
        let outcome = self.directory.apply(observation, update).await?;
        // Neither is waited for longer than briefly, and the two together no longer than one.
        let mediators = async {
            match outcome {
                Outcome::Package | Outcome::Proven => self.check_mediators_briefly(did).await,
                _ => Ok(()),
            }
        };
        tokio::try_join!(mediators, self.check_handle_briefly(did, refresh))?;
        self.negatives.evict(did);
        Ok(RefreshOutcome {
            outcome,
            refusal: found.refusal.or_else(|| refusal_of(outcome)),
            car: found.car,
            rev,
            prefiltered: false,
            background: refresh.priority() != Priority::Interactive,
        })
    }

    /// Asks the account's servers. Returns the document that the finding is under.
    async fn look(
        &self,
        did: &Did,
        refresh: &Refresh,
        begun: Begun,
    ) -> Result<(Option<Arc<DidDocument>>, Result<Found, RefreshError>), RefreshError> {
        let look = Look {
            refresh,
            began_at: self.clock.now(),
            hidden: begun.hidden,
        };
        let found = match self.identify(did, refresh).await {
            Ok(document) => return Ok(self.examine(did, document, look).await),
            Err(error) => identity_failure(error),
        };
        if found.as_ref().is_ok_and(Found::is_away)
            && let Some(status) = self.announced(did, None, refresh).await?
        {
            return Ok((None, Ok(Found::inactive(status))));
        }
        Ok((None, found))
    }

    /// Looks up the account's mediators that are due, for a limited time. Those that do not answer
    /// within it stay due, and the worker looks them up.
    async fn check_mediators_briefly(&self, did: &Did) -> Result<(), RefreshError> {
        let check = self.check_mediators(did);
        if let Ok(checked) = tokio::time::timeout(MEDIATORS_TIMEOUT, check).await {
            checked?;
        }
        self.wake_mediators.notify_one();
        Ok(())
    }

    async fn identify(
        &self,
        did: &Did,
        refresh: &Refresh,
    ) -> Result<Arc<DidDocument>, IdentityError> {
        let identity = self.identity_for(refresh);
        match refresh.identity {
            IdentityLookup::Cached => identity.resolve(did, Freshness::Cached).await,
            IdentityLookup::RefreshOrCached => {
                match identity.resolve(did, Freshness::Refresh).await {
                    Err(IdentityError::Unreachable { .. }) => {
                        identity.resolve(did, Freshness::Cached).await
                    }
                    answer => answer,
                }
            }
            IdentityLookup::Refresh => {
                // A look-up that began before this refresh may return the old document.
                identity.purge(did);
                identity.resolve(did, Freshness::Refresh).await
            }
        }
    }

    /// Returns the look-up of identities, under the limits of the refresh's trigger.
    fn identity_for(&self, refresh: &Refresh) -> Identity {
        match refresh.priority() {
            Priority::Interactive => self.identity.interactive(),
            Priority::Background | Priority::Mail => self.identity.clone(),
        }
    }

    /// Returns the status that the account's own PDS announced, for a refresh that got no answer:
    /// hiding an account must not wait for a directory or a PDS that is down.
    async fn announced(
        &self,
        did: &Did,
        document: Option<&DidDocument>,
        refresh: &Refresh,
    ) -> Result<Option<AccountStatus>, RefreshError> {
        let Some(announced) = refresh
            .announced
            .as_ref()
            .filter(|announced| !announced.status.is_active())
        else {
            return Ok(None);
        };
        let own = match document {
            Some(document) => document.pds.as_ref().ok() == Some(&announced.pds),
            None => {
                let did = did.clone();
                let entry = self.directory.store().query(move |q| q.entry(&did)).await?;
                entry.is_some_and(|entry| entry.pds.as_ref() == Some(&announced.pds))
            }
        };
        Ok(own.then(|| announced.status.clone()))
    }

    /// Asks the account's PDS and proves its answer. A bad signature and an inactive account may
    /// come from a document that is out of date, so the identity is then looked up once more:
    ///
    /// | finding | document, looked up now | result |
    /// |---|---|---|
    /// | any other, or the document was asked for in this refresh, or this was done within [`BAD_SIGNATURE_TTL`] | not asked for | the finding |
    /// | bad signature, inactive | with another key or PDS | the finding under the new document |
    /// | inactive, and no PDS announced it | unreachable | unreachable: the old document may name the PDS that the account left |
    /// | bad signature | unreachable because of a limit | busy, and the next refresh looks it up again |
    /// | bad signature, inactive | the same, or not to be had | the finding |
    async fn examine(
        &self,
        did: &Did,
        document: Arc<DidDocument>,
        look: Look<'_>,
    ) -> (Option<Arc<DidDocument>>, Result<Found, RefreshError>) {
        let refresh = look.refresh;
        let found = self.fetch_and_prove(did, &document, look).await;
        let away = found.as_ref().is_ok_and(Found::is_away);
        let bad_signature = found.as_ref().is_ok_and(Found::is_bad_signature);
        if !(away || bad_signature)
            || document.asked_at >= look.began_at
            || self.recently_reverified.get(did).is_some()
        {
            return (Some(document), found);
        }
        self.recently_reverified
            .insert(did.clone(), (), BAD_SIGNATURE_TTL);
        let identity = self.identity_for(refresh);
        // The log stays cached: a log that does not end with the new document is asked for again.
        identity.purge_document(did);
        match identity.resolve(did, Freshness::Refresh).await {
            Ok(fresh) if fresh.signing_key != document.signing_key || fresh.pds != document.pds => {
                let found = self.fetch_and_prove(did, &fresh, look).await;
                (Some(fresh), found)
            }
            Err(error @ IdentityError::Unreachable { .. })
                if away && refresh.announced.is_none() =>
            {
                (None, identity_failure(error))
            }
            Err(
                error @ IdentityError::Unreachable {
                    retry_after: Some(_),
                },
            ) if bad_signature => {
                self.recently_reverified.remove(did);
                (Some(document), identity_failure(error))
            }
            _ => (Some(document), found),
        }
    }

    async fn fetch_and_prove(
        &self,
        did: &Did,
        document: &DidDocument,
        look: Look<'_>,
    ) -> Result<Found, RefreshError> {
        let refresh = look.refresh;
        let pds = match &document.pds {
            Ok(pds) => pds,
            Err(why) => {
                let detail = format!("its DID document names no usable PDS: {why}");
                return Ok(Found::unverifiable("no_pds", detail));
            }
        };
        let key = match &document.signing_key {
            Ok(key) => key,
            Err(why) => {
                let detail = format!("its DID document has no usable signing key: {why}");
                return Ok(Found::unverifiable("no_signing_key", detail));
            }
        };
        let found = match self.record(did, pds, refresh.priority()).await? {
            RecordAnswer::Car(car) => self.prove(&car, key, document, refresh).await?,
            RecordAnswer::RecordNotFound => Found::absent_unproven(),
            RecordAnswer::RepoNotFound => Found::missing(),
            RecordAnswer::Inactive(status) => Found::inactive(match status {
                RepoStatus::Deactivated => AccountStatus::Deactivated,
                RepoStatus::Takendown => AccountStatus::Takendown,
                RepoStatus::Suspended => AccountStatus::Suspended,
            }),
            RecordAnswer::Unusable(why) => unusable(why),
        };
        self.settle(did, pds, found, look).await
    }

    /// Returns whether the enumerated PDS returns nothing that looks like a key package. Not a
    /// proof: it saves an identity look-up for each of the many accounts without a package.
    async fn seems_without_package(&self, did: &Did, pds: &Origin) -> Result<bool, RefreshError> {
        if self.directory.is_tracked(did.as_str()) {
            return Ok(false);
        }
        Ok(match self.record(did, pds, Priority::Background).await? {
            RecordAnswer::Car(car) => memchr::memmem::find(&car, COLLECTION.as_bytes()).is_none(),
            RecordAnswer::RecordNotFound
            | RecordAnswer::RepoNotFound
            | RecordAnswer::Inactive(_) => true,
            RecordAnswer::Unusable(_) => false,
        })
    }

    async fn record(
        &self,
        did: &Did,
        pds: &Origin,
        priority: Priority,
    ) -> Result<RecordAnswer, RefreshError> {
        let options = self.pds_options(pds, priority);
        fetch_record(&self.net, did, pds, options)
            .await
            .map_err(pds_failure)
    }

    fn pds_options(&self, pds: &Origin, priority: Priority) -> PdsOptions<'_> {
        PdsOptions {
            connect: self.routes.get(pds),
            priority,
            ..PdsOptions::default()
        }
    }
}

/// Returns the error of a refresh whose PDS gave no answer.
fn pds_failure(error: CallError) -> RefreshError {
    let unreachable = |retry_after, why| RefreshError::Unreachable {
        what: "the account's PDS",
        why,
        retry_after,
    };
    match error {
        CallError::Net(NetError::HostBusy { retry_after }) => RefreshError::Busy { retry_after },
        CallError::Net(error) => unreachable(error.retry_after(), NoAnswer::Net(error)),
        CallError::Refused(error) => unreachable(error.retry_after, NoAnswer::Refused(error)),
    }
}

/// Returns what the directory keeps of a DID document.
fn identity_facts(document: &DidDocument) -> IdentityFacts {
    IdentityFacts {
        pds: document.pds.clone().ok(),
        key: document.signing_key.clone().ok(),
        claimed: document.claimed_handle.clone(),
        asked_at: document.asked_at,
    }
}

/// Returns the refusal that follows from an outcome, where the directory keeps no entry that tells.
fn refusal_of(outcome: Outcome) -> Option<Refusal> {
    match outcome {
        Outcome::Full(full) => Some(Refusal::new(LexiconError::UpstreamFailure, full.message())),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
